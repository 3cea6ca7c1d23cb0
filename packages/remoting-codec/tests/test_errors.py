"""The error tree: who is under whom, and that errors carry their facts."""

import pytest
from apogeemq.remoting_codec import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.FrameTooLarge(17, 16),
        errors.FrameInvalid("why"),
        errors.UnknownSerializeType(9),
        errors.HeaderMissing("topic"),
        errors.HeaderInvalid("queueId", "why"),
        errors.BodyInvalid("why"),
        errors.RecordInvalid("why", 12),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_peer_did_is_a_remote_protocol_error(error: errors.CodecError) -> None:
    """One except clause catches everything that a peer can cause."""
    assert isinstance(error, errors.RemoteProtocolError)
    assert isinstance(error, errors.CodecError)


def test_our_own_fault_is_not_the_peers() -> None:
    """Local and remote errors are told apart by type."""
    assert not issubclass(errors.LocalProtocolError, errors.RemoteProtocolError)
    assert issubclass(errors.LocalProtocolError, errors.CodecError)


def test_facts_are_attributes_and_in_the_text() -> None:
    """A handler reads attributes, a human the text."""
    too_large = errors.FrameTooLarge(17, 16)
    assert (too_large.size_bytes, too_large.size_bytes_max) == (17, 16)
    assert "17" in str(too_large)
    assert "16" in str(too_large)
    invalid = errors.HeaderInvalid("queueId", "expected a number")
    assert (invalid.field, invalid.reason) == ("queueId", "expected a number")
    assert str(invalid) == "the field <queueId> is invalid: expected a number"
    assert str(errors.HeaderMissing("topic")) == "the field <topic> is missing"
    record = errors.RecordInvalid("bad magic", 12)
    assert (record.reason, record.offset) == ("bad magic", 12)
    assert errors.UnknownSerializeType(9).serialize_type == 9
