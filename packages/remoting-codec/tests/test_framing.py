"""Whole frames: recorded bytes, lengths that contradict each other, the bound, the fast path for responses."""

import pytest
from apogeemq.remoting_codec.codes import RESPONSE_FLAG, SerializeType
from apogeemq.remoting_codec.command import RemotingCommand, response
from apogeemq.remoting_codec.errors import FrameInvalid, LocalProtocolError, UnknownSerializeType
from apogeemq.remoting_codec.framing import (
    FRAME_SIZE_BYTES_MAX,
    decode_frame,
    encode_frame,
    encode_frame_head,
    encode_response_frame,
    encode_response_head,
)
from hypothesis import given
from hypothesis import strategies as st

JSON_FRAME = (
    bytes.fromhex("000000800000007c") + b'{"code":105,"extFields":{"topic":"T1"},"flag":0,"language":"JAVA","opaque":7,'
    b'"serializeTypeCurrentRPC":"JSON","version":401}'
)
BINARY_FRAME = bytes.fromhex(
    "00000027 01000023 0069 00 0191 00000007 00000000 00000001 72 0000000d 0005 746f706963 00000002 5431"
)


@pytest.mark.parametrize(
    ("frame", "remark", "serialize_type"),
    [(JSON_FRAME, None, SerializeType.JSON), (BINARY_FRAME, "r", SerializeType.ROCKETMQ)],
    ids=["JSON", "binary"],
)
def test_recorded_frames(frame: bytes, remark: str | None, serialize_type: SerializeType) -> None:
    """The samples of the protocol's description decode, and encode to the same bytes."""
    command = decode_frame(frame[4:])
    assert command == RemotingCommand(105, 0, 7, remark, {"topic": "T1"}, b"", "JAVA", 401, serialize_type)
    assert encode_frame(command) == frame


def test_body_is_what_follows_the_header() -> None:
    """The body ends where the frame ends, and is a copy."""
    frame = bytearray(encode_frame(RemotingCommand(10, body=b"hello")))
    command = decode_frame(memoryview(frame)[4:])
    frame[-5:] = b"other"
    assert command.body == b"hello"


@pytest.mark.parametrize("size", range(4))
def test_no_room_for_the_mark(size: int) -> None:
    """A frame of less than four bytes is refused."""
    with pytest.raises(FrameInvalid, match="mark"):
        decode_frame(bytes(size))


def test_header_longer_than_the_frame() -> None:
    """A header length that leaves the frame is refused."""
    with pytest.raises(FrameInvalid, match="header of 125 bytes in a frame with 124 left"):
        decode_frame(b"\x00\x00\x00\x7d" + JSON_FRAME[8:])


def test_header_length_zero() -> None:
    """A frame without a header is refused."""
    with pytest.raises(FrameInvalid):
        decode_frame(b"\x00\x00\x00\x00body")


@pytest.mark.parametrize("serialize_type", [2, 3, 0x16, 255])
def test_unknown_serialise_type(serialize_type: int) -> None:
    """A mark byte other than 0 and 1 is refused and named."""
    with pytest.raises(UnknownSerializeType) as caught:
        decode_frame(bytes([serialize_type]) + JSON_FRAME[5:])
    assert caught.value.serialize_type == serialize_type


def test_head_and_body_make_the_frame() -> None:
    """A body can follow its head from elsewhere; the command's own body plays no part."""
    command = RemotingCommand(11, RESPONSE_FLAG, 3, ext_fields={"a": "b"}, body=b"not this")
    whole = RemotingCommand(11, RESPONSE_FLAG, 3, ext_fields={"a": "b"}, body=b"records")
    assert encode_frame_head(command, 7) + b"records" == encode_frame(whole)


@given(
    opaque=st.integers(-(2**31), 2**31 - 1),
    code=st.integers(0, 3000),
    ext_fields=st.none() | st.dictionaries(st.text("abc", max_size=3), st.text("xyz")),
    remark=st.none() | st.text("pqr"),
    body=st.binary(max_size=20),
)
def test_fast_path_writes_what_the_plain_path_writes(
    opaque: int, code: int, ext_fields: dict[str, str] | None, remark: str | None, body: bytes
) -> None:
    """The frame of a response built from its parts equals the one encoded from a command."""
    plain = encode_frame(response(RemotingCommand(10, opaque=opaque), code, remark, ext_fields, body))
    assert encode_response_frame(opaque, code, ext_fields, remark, body) == plain
    assert encode_response_head(opaque, code, ext_fields, remark, len(body)) + body == plain


def test_own_response_has_apache_form() -> None:
    """Keys in alphabetical order, our language and version, the serialisation's name."""
    header = (
        b'{"code":0,"extFields":{"queueId":"1"},"flag":1,"language":"PYTHON","opaque":7,"remark":"r",'
        b'"serializeTypeCurrentRPC":"JSON","version":479}'
    )
    prefix = (4 + len(header)).to_bytes(4, "big") + len(header).to_bytes(4, "big")
    assert encode_response_frame(7, 0, {"queueId": "1"}, "r") == prefix + header


def test_frame_of_exactly_the_bound_is_written() -> None:
    """The bound counts the length field."""
    head_size = len(encode_frame_head(RemotingCommand(1), 0))
    head = encode_frame_head(RemotingCommand(1), FRAME_SIZE_BYTES_MAX - head_size)
    assert int.from_bytes(head[:4], "big") == FRAME_SIZE_BYTES_MAX - 4


def test_frame_above_the_bound_is_our_own_error() -> None:
    """A frame that no peer would take is not written."""
    head_size = len(encode_frame_head(RemotingCommand(1), 0))
    with pytest.raises(LocalProtocolError, match="16777217"):
        encode_frame_head(RemotingCommand(1), FRAME_SIZE_BYTES_MAX - head_size + 1)
