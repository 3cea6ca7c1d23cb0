"""The binary header: recorded bytes, limits of its fields, and what is refused."""

import pytest
from apogeemq.remoting_codec.codes import LanguageCode, RequestCode, SerializeType
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import FrameInvalid, LocalProtocolError
from apogeemq.remoting_codec.header_binary import decode_header_binary, encode_header_binary
from hypothesis import given
from hypothesis import strategies as st

# the sample of the protocol's description: code 105, version 401, opaque 7, remark "r", topic=T1
SAMPLE = bytes.fromhex("0069 00 0191 00000007 00000000 00000001 72 0000000d 0005 746f706963 00000002 5431")
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
int16 = st.integers(-(2**15), 2**15 - 1)
int32 = st.integers(-(2**31), 2**31 - 1)


def sample_command() -> RemotingCommand:
    return RemotingCommand(105, 0, 7, "r", {"topic": "T1"}, b"", "JAVA", 401, SerializeType.ROCKETMQ)


def test_recorded_header_decodes() -> None:
    """The sample gives its fields."""
    assert decode_header_binary(SAMPLE) == sample_command()


def test_recorded_header_encodes_to_the_same_bytes() -> None:
    """The same fields give the sample's bytes."""
    assert encode_header_binary(sample_command()) == SAMPLE


def test_body_is_handed_through() -> None:
    """The body given beside the header is the command's body."""
    assert decode_header_binary(memoryview(SAMPLE), b"real").body == b"real"


@pytest.mark.parametrize("language", list(LanguageCode), ids=lambda language: language.name)
def test_every_language_survives(language: LanguageCode) -> None:
    """A language is its number on the wire and its name in the command."""
    command = RemotingCommand(34, language=language.name, serialize_type=SerializeType.ROCKETMQ)
    assert encode_header_binary(command)[2] == int(language)
    assert decode_header_binary(encode_header_binary(command)) == command


def test_unknown_languages_are_other() -> None:
    """A number or a name that Apache does not list is OTHER."""
    assert decode_header_binary(SAMPLE[:2] + b"\x63" + SAMPLE[3:]).language == "OTHER"
    assert encode_header_binary(RemotingCommand(34, language="ZIG"))[2] == LanguageCode.OTHER


def test_empty_and_absent_are_the_same() -> None:
    """An empty remark, an empty map and a pair without key or value read as absent."""
    empty = RemotingCommand(34, remark="", ext_fields={}, serialize_type=SerializeType.ROCKETMQ)
    assert decode_header_binary(encode_header_binary(empty)) == RemotingCommand(
        34, serialize_type=SerializeType.ROCKETMQ
    )
    pairs = RemotingCommand(34, ext_fields={"a": "", "": "b", "c": "d"})
    assert decode_header_binary(encode_header_binary(pairs)).ext_fields == {"c": "d"}


@pytest.mark.parametrize(
    "command",
    [
        RemotingCommand(RequestCode.POP_MESSAGE),
        RemotingCommand(34, version=40_000),
        RemotingCommand(34, opaque=2**31),
        RemotingCommand(34, ext_fields={"k" * 40_000: "v"}),
        RemotingCommand(34, remark="\ud800"),
        RemotingCommand(34, ext_fields={"k": "\ud800"}),
    ],
    ids=["pop code", "version", "opaque", "key", "remark", "value"],
)
def test_value_that_does_not_fit_is_our_own_error(command: RemotingCommand) -> None:
    """Nothing is truncated: pop's code above all, which would arrive as another one."""
    with pytest.raises(LocalProtocolError):
        encode_header_binary(command)


def with_bytes(position: int, data: str) -> bytes:
    """The sample with the bytes at `position` replaced."""
    new = bytes.fromhex(data)
    return SAMPLE[:position] + new + SAMPLE[position + len(new) :]


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (b"", "fixed part"),
        (SAMPLE[:16], "fixed part"),
        (SAMPLE[:17], "remark"),
        (with_bytes(13, "7fffffff"), "remark"),
        (with_bytes(13, "ffffffff"), "remark"),
        (with_bytes(17, "ff"), "remark"),
        (SAMPLE[:21], "remark"),
        (with_bytes(18, "0000000c"), "extFields"),
        (with_bytes(18, "0000000e"), "extFields"),
        (with_bytes(18, "ffffffff"), "extFields"),
        (SAMPLE + b"\x00", "extFields"),
        (SAMPLE[:-1], "extFields"),
        (with_bytes(22, "7fff"), "extFields"),
        (with_bytes(22, "ffff"), "extFields"),
        (with_bytes(22, "fff0"), "extFields"),
        (with_bytes(22, "0006"), "extFields"),
        (with_bytes(29, "00000003"), "extFields"),
        (with_bytes(29, "00000001"), "extFields"),
        (with_bytes(29, "ffffffff"), "extFields"),
        (with_bytes(24, "ff"), "extFields"),
        (with_bytes(33, "ff"), "extFields"),
    ],
)
def test_wrong_length_or_text_names_the_field(header: bytes, named: str) -> None:
    """A length that leaves the header, or a text that is not UTF-8, is refused by the field's name."""
    with pytest.raises(FrameInvalid, match=named):
        decode_header_binary(header)


@pytest.mark.parametrize("size", range(len(SAMPLE)))
def test_truncated_header_is_refused(size: int) -> None:
    """A header cut anywhere is refused."""
    with pytest.raises(FrameInvalid):
        decode_header_binary(SAMPLE[:size])


@given(
    st.builds(
        RemotingCommand,
        code=int16,
        flag=int32,
        opaque=int32,
        remark=st.none() | texts,
        ext_fields=st.none() | st.dictionaries(texts, texts, min_size=1),
        language=st.sampled_from([language.name for language in LanguageCode]),
        version=int16,
        serialize_type=st.just(int(SerializeType.ROCKETMQ)),
    )
)
def test_round_trip(command: RemotingCommand) -> None:
    """Any command whose values fit reads back as it was written."""
    read = decode_header_binary(encode_header_binary(command))
    assert read == command
    assert list(read.ext_fields or {}) == list(command.ext_fields or {})


@given(st.binary(max_size=80))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    """No bytes make the decoder raise anything but FrameInvalid."""
    try:
        decode_header_binary(data)
    except FrameInvalid:
        return
