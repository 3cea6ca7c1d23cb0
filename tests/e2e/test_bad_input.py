"""Requests that are wrong: the right code, a remark that names the field, nobody else disturbed, nothing stored.

The cases of missing and malformed fields are generated from the headers' declarations, so that a new request or field
is covered on the day it is declared.
"""

import struct
from collections.abc import Iterator

import msgspec
import pytest
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_frame
from apogeemq.remoting_codec.headers.base import CommandHeader
from apogeemq.remoting_codec.headers.registry import REQUEST_HEADERS

from tests.e2e.process import Ready
from tests.e2e.wire_client import WireClient, pull_fields, send_fields

BROKER_CODES = (
    RequestCode.SEND_MESSAGE,
    RequestCode.SEND_MESSAGE_V2,
    RequestCode.SEND_BATCH_MESSAGE,
    RequestCode.CONSUMER_SEND_MSG_BACK,
    RequestCode.PULL_MESSAGE,
    RequestCode.LITE_PULL_MESSAGE,
    RequestCode.QUERY_CONSUMER_OFFSET,
    RequestCode.UPDATE_CONSUMER_OFFSET,
    RequestCode.SEARCH_OFFSET_BY_TIMESTAMP,
    RequestCode.GET_MAX_OFFSET,
    RequestCode.GET_MIN_OFFSET,
    RequestCode.GET_EARLIEST_MSG_STORETIME,
    RequestCode.UNREGISTER_CLIENT,
    RequestCode.GET_CONSUMER_LIST_BY_GROUP,
)
NAMESRV_CODES = (RequestCode.GET_ROUTEINFO_BY_TOPIC,)
TOPIC = "BadInput"


def good_value(python_type: object) -> str:
    """A text that fits a field's type."""
    if python_type is str:
        return "x"
    if python_type is bool:
        return "true"
    return "1"


def base_type(field_type: object) -> object:
    """`int` for Int32 and `Int64 | None`, `str` for `str | None` and so on."""
    info = msgspec.inspect.type_info(field_type)
    if isinstance(info, msgspec.inspect.UnionType):
        info = next(kind for kind in info.types if not isinstance(kind, msgspec.inspect.NoneType))
    return {msgspec.inspect.IntType: int, msgspec.inspect.BoolType: bool, msgspec.inspect.StrType: str}.get(type(info))


def good_fields(header: type[CommandHeader]) -> dict[str, str]:
    """All required fields, each with a fitting value."""
    return {f.encode_name: good_value(base_type(f.type)) for f in msgspec.structs.fields(header) if f.required}


def cases(codes: tuple[RequestCode, ...]) -> Iterator[tuple[RequestCode, str, dict[str, str]]]:
    for code in codes:
        header = REQUEST_HEADERS[code]
        for field in msgspec.structs.fields(header):
            fields = good_fields(header)
            if field.required:
                yield code, field.encode_name, {k: v for k, v in fields.items() if k != field.encode_name}
            if base_type(field.type) in (int, bool):
                yield code, field.encode_name, {**fields, field.encode_name: "no number"}
            if base_type(field.type) is int:
                yield code, field.encode_name, {**fields, field.encode_name: str(2**63)}


def case_id(value: object) -> str | None:
    if isinstance(value, RequestCode):
        return value.name
    return value if isinstance(value, str) else None


@pytest.fixture(scope="module")
def broker(server: Ready) -> Iterator[WireClient]:
    with WireClient(server.listeners["broker.remoting"]) as client:
        yield client


@pytest.fixture(scope="module")
def namesrv(server: Ready) -> Iterator[WireClient]:
    with WireClient(server.listeners["namesrv.remoting"]) as client:
        yield client


@pytest.mark.parametrize(("code", "field", "ext_fields"), list(cases(BROKER_CODES)), ids=case_id)
def test_broker_names_the_field(broker: WireClient, code: RequestCode, field: str, ext_fields: dict[str, str]) -> None:
    """A missing or malformed field is refused by name, and the connection goes on."""
    reply = broker.request(code, ext_fields, b"body")
    assert reply.code == ResponseCode.SYSTEM_ERROR
    assert reply.remark is not None
    assert code.name in reply.remark
    assert f"<{field}>" in reply.remark or f"'{field}'" in reply.remark


@pytest.mark.parametrize(("code", "field", "ext_fields"), list(cases(NAMESRV_CODES)), ids=case_id)
def test_namesrv_names_the_field(
    namesrv: WireClient, code: RequestCode, field: str, ext_fields: dict[str, str]
) -> None:
    """The name server does the same."""
    reply = namesrv.request(code, ext_fields)
    assert reply.code == ResponseCode.SYSTEM_ERROR
    assert reply.remark is not None
    assert f"<{field}>" in reply.remark or f"'{field}'" in reply.remark


@pytest.mark.parametrize("listener", ["broker.remoting", "namesrv.remoting"])
def test_an_unknown_code_is_not_supported(server: Ready, listener: str) -> None:
    """The words are Apache's (recorded in vectors, errors)."""
    with WireClient(server.listeners[listener]) as client:
        reply = client.request(9999, {})
        assert (reply.code, reply.remark) == (
            ResponseCode.REQUEST_CODE_NOT_SUPPORTED,
            " request type 9999 not supported",
        )


@pytest.mark.parametrize("listener", ["broker.remoting", "namesrv.remoting"])
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(struct.pack(">II", 16_777_217, 0), id="longer than the bound"),
        pytest.param(struct.pack(">II", 0x7FFFFFFF, 0), id="far longer than the bound"),
        pytest.param(struct.pack(">I", 2) + b"xx", id="too short for the mark"),
        pytest.param(struct.pack(">II", 8, 2 << 24 | 4) + b"abcd", id="unknown serialise type"),
        pytest.param(struct.pack(">II", 8, 100) + b"abcd", id="header longer than the frame"),
        pytest.param(struct.pack(">II", 8, 4) + b'{"co', id="truncated JSON header"),
        pytest.param(struct.pack(">II", 8, 1 << 24 | 4) + b"abcd", id="truncated binary header"),
    ],
)
def test_a_broken_frame_cuts_off_its_own_connection_only(server: Ready, listener: str, raw: bytes) -> None:
    """What can't be trusted any more is closed; the neighbour's connection, opened before, goes on."""
    with WireClient(server.listeners[listener]) as neighbour, WireClient(server.listeners[listener]) as broken:
        neighbour.request(9999)
        broken.socket.sendall(raw)
        assert broken.is_closed_by_peer()
        assert neighbour.request(9999).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED


def test_a_good_request_before_a_broken_frame_is_answered(server: Ready) -> None:
    """Frames of one read that come before the broken one count."""
    with WireClient(server.listeners["broker.remoting"]) as client:
        good = encode_frame(RemotingCommand(9999, opaque=77))
        client.socket.sendall(good + struct.pack(">II", 0x7FFFFFFF, 0))
        assert client.receive(77).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED
        assert client.is_closed_by_peer()


def test_wrong_topics_and_queues(broker: WireClient) -> None:
    """Unknown topic 17, illegal topic or queue 29, on every request that names one; nothing is stored or made."""
    assert broker.request(310, send_fields(TOPIC), b"x").code == 0
    assert broker.request(310, send_fields(TOPIC, queue_id=99), b"x").code == ResponseCode.INVALID_PARAMETER
    assert broker.request(310, send_fields("no spaces please"), b"x").code == ResponseCode.INVALID_PARAMETER
    assert broker.request(310, send_fields("Nope", c="NoTemplate"), b"x").code == ResponseCode.TOPIC_NOT_EXIST
    assert broker.request(310, send_fields("SCHEDULE_TOPIC_XXXX"), b"x").code == ResponseCode.NO_PERMISSION
    assert broker.request(310, send_fields(TOPIC), b"").code == ResponseCode.MESSAGE_ILLEGAL
    for queue_id in ("99", "-1"):
        reply = broker.request(11, pull_fields(TOPIC, "G_bad", queueId=queue_id))
        assert reply.code == ResponseCode.INVALID_PARAMETER
        assert reply.remark is not None
        assert f"queueId[{queue_id}]" in reply.remark
    assert broker.request(11, pull_fields("Nope", "G_bad")).code == ResponseCode.TOPIC_NOT_EXIST
    for code in (RequestCode.GET_MAX_OFFSET, RequestCode.GET_MIN_OFFSET, RequestCode.GET_EARLIEST_MSG_STORETIME):
        assert broker.request(code, {"topic": "Nope", "queueId": "0"}).code == ResponseCode.TOPIC_NOT_EXIST
        assert broker.request(code, {"topic": TOPIC, "queueId": "99"}).code == ResponseCode.INVALID_PARAMETER
    assert broker.request(11, pull_fields(TOPIC, "G_bad")).code == 0, "makes the group, which no refused pull did"
    commit = {"consumerGroup": "G_bad", "topic": TOPIC, "queueId": "99", "commitOffset": "1"}
    assert broker.request(15, commit).code == ResponseCode.INVALID_PARAMETER
    assert broker.request(15, {**commit, "topic": "Nope"}).code == ResponseCode.TOPIC_NOT_EXIST
    unknown_group = {**commit, "consumerGroup": "G_nobody"}
    assert broker.request(15, unknown_group).code == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST


def test_bad_bodies(broker: WireClient) -> None:
    """A heartbeat that is no JSON, a batch with wrong lengths: refused with what is wrong."""
    reply = broker.request(RequestCode.HEART_BEAT, {}, b"{not json")
    assert reply.code == ResponseCode.SYSTEM_ERROR
    assert reply.remark is not None
    reply = broker.request(RequestCode.HEART_BEAT, {}, b'{"consumerDataSet":[]}')
    assert reply.code == ResponseCode.SYSTEM_ERROR
    assert "clientID" in (reply.remark or "")
    reply = broker.request(320, send_fields(TOPIC, m="true"), b"\x00\x00\x00\x80 too short")
    assert reply.code == ResponseCode.MESSAGE_ILLEGAL
    assert "batch" in (reply.remark or "")


def test_limits_are_told_with_their_value(broker: WireClient) -> None:
    """A body or properties beyond the bound: 13, and the remark has the limit."""
    reply = broker.request(310, send_fields(TOPIC), b"x" * (4 * 1024 * 1024 + 1))
    assert reply.code == ResponseCode.MESSAGE_ILLEGAL
    assert "4194304" in (reply.remark or "")
    reply = broker.request(310, send_fields(TOPIC, properties="k\x01" + "v" * 33_000 + "\x02"), b"x")
    assert reply.code == ResponseCode.MESSAGE_ILLEGAL
    assert "32767" in (reply.remark or "")


def test_after_all_that_the_queues_hold_what_was_accepted(broker: WireClient) -> None:
    """The one good message of this module is there, and nothing else."""
    offsets = [
        (broker.request(RequestCode.GET_MAX_OFFSET, {"topic": TOPIC, "queueId": str(q)}).ext_fields or {})["offset"]
        for q in range(4)
    ]
    assert offsets == ["1", "0", "0", "0"]
