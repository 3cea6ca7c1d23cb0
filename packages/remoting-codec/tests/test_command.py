"""RemotingCommand as a value, its log line, and responses to it."""

import pytest
from apogeemq.remoting_codec.codes import ONEWAY_FLAG, RESPONSE_FLAG, RequestCode, ResponseCode, SerializeType
from apogeemq.remoting_codec.command import RemotingCommand, response
from apogeemq.remoting_codec.headers import GetMinOffsetResponseHeader


@pytest.mark.parametrize(
    ("flag", "is_response", "is_oneway"),
    [(0, False, False), (RESPONSE_FLAG, True, False), (ONEWAY_FLAG, False, True), (4, False, False), (7, True, True)],
)
def test_flag_bits(flag: int, is_response: bool, is_oneway: bool) -> None:
    """Bit 0 is response, bit 1 oneway; other bits mean nothing here."""
    command = RemotingCommand(10, flag)
    assert (command.is_response, command.is_oneway) == (is_response, is_oneway)


def test_own_commands_say_python_and_our_version() -> None:
    """What we make carries PYTHON and the ordinal of V5_3_3."""
    assert (RemotingCommand(10).language, RemotingCommand(10).version) == ("PYTHON", 479)


def test_response_repeats_the_opaque_and_has_a_json_header() -> None:
    """A binary request is answered with a JSON header, as Apache's servers do."""
    request = RemotingCommand(
        RequestCode.GET_MIN_OFFSET, opaque=-5, language="JAVA", version=399, serialize_type=SerializeType.ROCKETMQ
    )
    assert response(request, ResponseCode.SUCCESS, ext_fields=GetMinOffsetResponseHeader(offset=3)) == RemotingCommand(
        0, RESPONSE_FLAG, -5, None, {"offset": "3"}, b"", "PYTHON", 479, SerializeType.JSON
    )


def test_response_takes_plain_ext_fields_remark_and_body() -> None:
    """Whatever is handed over is in the response unchanged."""
    made = response(RemotingCommand(34), 1, "why", {"a": "b"}, b"body")
    assert (made.code, made.remark, made.ext_fields, made.body) == (1, "why", {"a": "b"}, b"body")
    assert response(RemotingCommand(34), 0).ext_fields is None


def test_log_line_names_code_and_hides_the_body() -> None:
    """The line for logs has names and sizes, never the body."""
    command = RemotingCommand(310, ONEWAY_FLAG, 7, None, {"b": "T"}, b"secret body", "JAVA", 479)
    assert str(command) == "request SEND_MESSAGE_V2(310) opaque=7 oneway from JAVA/479 ext={b='T'} body=11B"


def test_log_line_of_a_response() -> None:
    """A response's number is looked up among the response codes."""
    assert str(RemotingCommand(17, RESPONSE_FLAG, 7, "no route")) == (
        "response TOPIC_NOT_EXIST(17) opaque=7 from PYTHON/479 remark='no route' body=0B"
    )


def test_log_line_hides_credentials() -> None:
    """Access key, signature and token never reach a log."""
    line = str(RemotingCommand(10, ext_fields=dict.fromkeys(["AccessKey", "Signature", "SecurityToken"], "hush")))
    assert "hush" not in line


def test_log_line_is_bounded() -> None:
    """Whatever a peer sends, the line stays short."""
    command = RemotingCommand(
        99999, remark="r" * 10_000, ext_fields={f"{i}" * 1000: "v" * 10_000 for i in range(500)}, language="x" * 10_000
    )
    assert len(str(command)) < 2_500
    assert "484 more" in str(command)
