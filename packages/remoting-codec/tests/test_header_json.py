"""The JSON header: Apache's bytes, what fastjson tolerates, and what is refused."""

import json

import pytest
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import FrameInvalid, LocalProtocolError
from apogeemq.remoting_codec.header_json import decode_header_json, encode_header_json
from hypothesis import given
from hypothesis import strategies as st

ROUTE_REQUEST = (
    b'{"code":105,"extFields":{"topic":"T1"},"flag":0,"language":"JAVA","opaque":7,'
    b'"serializeTypeCurrentRPC":"JSON","version":401}'
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
int32 = st.integers(-(2**31), 2**31 - 1)


def encode(command: RemotingCommand) -> bytes:
    return encode_header_json(
        command.code,
        command.flag,
        command.opaque,
        command.remark,
        command.ext_fields,
        command.language,
        command.version,
    )


def test_recorded_request_decodes() -> None:
    """The sample of the protocol's description gives its fields."""
    assert decode_header_json(ROUTE_REQUEST) == RemotingCommand(
        105, 0, 7, None, {"topic": "T1"}, b"", "JAVA", 401, serialize_type=0
    )


def test_recorded_request_encodes_to_the_same_bytes() -> None:
    """Keys in alphabetical order, None left out, no blanks: Apache's bytes."""
    assert encode(decode_header_json(ROUTE_REQUEST)) == ROUTE_REQUEST


def test_body_is_handed_through() -> None:
    """The body given beside the header is the command's body, and a header cannot bring its own."""
    assert decode_header_json(b'{"code":1,"body":"aGVsbG8="}', b"real").body == b"real"
    assert decode_header_json(b'{"code":1,"body":[1,{"x":2}]}').body == b""


def test_only_the_code_is_required() -> None:
    """Whatever else is absent has its default; version 0 means the oldest behaviour."""
    assert decode_header_json(b'{"code":34}') == RemotingCommand(34, 0, 0, None, None, b"", "OTHER", 0, 0)


def test_unknown_language_is_kept_as_text() -> None:
    """A language that Apache does not list is no error."""
    assert decode_header_json(b'{"code":34,"language":"ZIG"}').language == "ZIG"


def test_absent_and_empty_ext_fields_differ() -> None:
    """`{}` is written again as `{}`."""
    assert decode_header_json(b'{"code":1,"extFields":{}}').ext_fields == {}
    assert b'"extFields":{}' in encode(RemotingCommand(1, ext_fields={}))
    assert b"extFields" not in encode(RemotingCommand(1))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5", {"x": "5", "y": "z"}),
        ("-1.50", {"x": "-1.50", "y": "z"}),
        ("1e3", {"x": "1e3", "y": "z"}),
        ("true", {"x": "true", "y": "z"}),
        ("false", {"x": "false", "y": "z"}),
        ("null", {"y": "z"}),
        (r'"a\u0001b"', {"x": "a\x01b", "y": "z"}),
    ],
)
def test_scalar_ext_fields_become_text(value: str, expected: dict[str, str]) -> None:
    """Numbers and booleans are their text, null is absent, as fastjson has it."""
    # the 5 beside it takes the text through the lenient path in every case
    header = f'{{"code":1,"extFields":{{"x":{value},"y":"z","n":5}}}}'.encode()
    assert decode_header_json(header).ext_fields == {**expected, "n": "5"}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b'{"code":"34"}', RemotingCommand(34, language="OTHER", version=0)),
        (b'{"code":34,"flag":null,"opaque":null}', RemotingCommand(34, language="OTHER", version=0)),
        (b'{"code":34,"extFields":null,"remark":null}', RemotingCommand(34, language="OTHER", version=0)),
        (b'{"code":34,"language":null,"version":"401"}', RemotingCommand(34, language="OTHER", version=401)),
        (b'{"code":34,"flag":null,"unknown":{"deep":[1]}}', RemotingCommand(34, language="OTHER", version=0)),
    ],
)
def test_top_level_values_of_another_type(header: bytes, expected: RemotingCommand) -> None:
    """Numbers in quotes are read, null is absent."""
    assert decode_header_json(header) == expected


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (b"{}", "code"),
        (b'{"code":null}', "code"),
        (b'{"code":"x"}', "code"),
        (b'{"code":2147483648}', "code"),
        (b'{"code":1.5}', "code"),
        (b'{"code":1,"flag":"x"}', "flag"),
        (b'{"code":1,"opaque":-2147483649}', "opaque"),
        (b'{"code":1,"opaque":[]}', "opaque"),
        (b'{"code":1,"version":{}}', "version"),
        (b'{"code":1,"remark":5}', "remark"),
        (b'{"code":1,"language":[1]}', "language"),
        (b'{"code":1,"extFields":{"queueId":{"a":1}}}', "queueId"),
        (b'{"code":1,"extFields":{"queueId":[1]}}', "queueId"),
    ],
)
def test_wrong_field_is_named(header: bytes, named: str) -> None:
    """The error says which field is missing or malformed."""
    with pytest.raises(FrameInvalid, match=named):
        decode_header_json(header)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        ROUTE_REQUEST[:-1],
        ROUTE_REQUEST + b"x",
        b'{"code":1,"extFields":[]}',
        b'{"code":1,"extFields":"x"}',
        b'{"code":1,"remark":"\xff"}',
        b'{"code":1,"extFields":{"x":"\xff"}}',
        b'{"code":1,"extFields":{"x":5,"y":"\xff"}}',
        b'{"code":1,"extFields":{"\xff":5}}',
        b'{"code":1,"remark":"\\ud800"}',
        b'{"code":null,"q":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"code":1,"q":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
    ids=range(16),
)
def test_what_is_no_header_is_refused(header: bytes) -> None:
    """Broken JSON, broken UTF-8 and deep nesting are a FrameInvalid, never another exception."""
    with pytest.raises(FrameInvalid):
        decode_header_json(header)


def test_error_does_not_quote_the_bytes() -> None:
    """What a peer sent does not get into logs by way of the error's text."""
    with pytest.raises(FrameInvalid) as caught:
        decode_header_json(b'{"code":1,"remark":"secret\xff"}')
    assert "secret" not in str(caught.value)


def test_lone_surrogate_is_our_own_error() -> None:
    """A text without a UTF-8 form is refused before anything is sent."""
    with pytest.raises(LocalProtocolError):
        encode(RemotingCommand(1, remark="\ud800"))


commands = st.builds(
    RemotingCommand,
    code=int32,
    flag=int32,
    opaque=int32,
    remark=st.none() | texts,
    ext_fields=st.none() | st.dictionaries(texts, texts),
    language=texts,
    version=int32,
)


@given(commands)
def test_round_trip(command: RemotingCommand) -> None:
    """Any command reads back as it was written, ext fields in the same order."""
    read = decode_header_json(encode(command))
    assert read == command
    assert list(read.ext_fields or {}) == list(command.ext_fields or {})


@given(commands)
def test_any_json_reader_agrees(command: RemotingCommand) -> None:
    """What is written is standard JSON with the meaning that the standard library gives it."""
    plain = json.loads(encode(command))
    assert plain.pop("serializeTypeCurrentRPC") == "JSON"
    assert plain.pop("extFields", None) == command.ext_fields
    assert plain.pop("remark", None) == command.remark
    assert plain == {
        "code": command.code,
        "flag": command.flag,
        "language": command.language,
        "opaque": command.opaque,
        "version": command.version,
    }
