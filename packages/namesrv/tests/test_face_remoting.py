"""The Remoting face, against what a real name server was recorded to answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from apogeemq.namesrv.core.route_table import RouteTable
from apogeemq.namesrv.core.values import BrokerIdentity, DataVersion, TopicQueues
from apogeemq.namesrv.faces.remoting import RemotingFace
from apogeemq.remoting_codec.aio.access import AccessHook, AccessRefusal, AllowAll
from apogeemq.remoting_codec.aio.channel import Channel
from apogeemq.remoting_codec.codes import ONEWAY_FLAG, RESPONSE_FLAG, RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import decode_frame

VECTORS = Path(__file__).parent / "vectors"
ROUTE = RequestCode.GET_ROUTEINFO_BY_TOPIC
BROKER = BrokerIdentity("TapCluster", "broker-t", 0, 1, "127.0.0.2:20911")
VERSION = DataVersion(0, 0, 1)
QUEUES = TopicQueues(2, 2, 6, 0)
CHANNEL = cast("Channel", SimpleNamespace(peer="127.0.0.1:50000"))


class World:
    """A face over a table with one broker."""

    def __init__(self, topics: dict[str, TopicQueues] | None = None, access: AccessHook | None = None) -> None:
        self.table = RouteTable()
        self.counted: list[tuple[int, ResponseCode]] = []
        self.is_waiting = False
        self.face = RemotingFace(
            self.table,
            access=access or AllowAll(),
            is_waiting=lambda: self.is_waiting,
            count=lambda request_code, response_code: self.counted.append((request_code, response_code)),
        )
        self.table.put_member(BROKER, VERSION, topics or {})

    def ask(self, command: RemotingCommand) -> RemotingCommand:
        reply = self.face.handle(CHANNEL, command)
        assert isinstance(reply, bytes)
        return decode_frame(reply[4:])

    def route(self, topic: str, *, version: int = 479, **ext_fields: str) -> RemotingCommand:
        return self.ask(RemotingCommand(ROUTE, ext_fields={"topic": topic, **ext_fields}, version=version))


def recorded(name: str) -> Iterator[tuple[RemotingCommand, RemotingCommand]]:
    """The exchanges of a recording: request and response."""
    requests: dict[tuple[int, int], RemotingCommand] = {}
    for line in (VECTORS / f"{name}.jsonl").read_text().splitlines():
        frame = json.loads(line)
        command = decode_frame(bytes.fromhex(frame["hex"])[4:])
        if frame["dir"] == "c>s":
            requests[frame["conn"], command.opaque] = command
        else:
            yield requests[frame["conn"], command.opaque], command


def table_content(request: RemotingCommand, response: RemotingCommand) -> dict[str, TopicQueues]:
    """What the recorded name server must have known about topics, as its own answer tells."""
    if response.code != ResponseCode.SUCCESS:
        return {}
    body = msgspec.json.decode(response.body) if request.code != RequestCode.GET_BROKER_CLUSTER_INFO else {}
    if request.code == ROUTE:
        (queues,) = body["queueDatas"]
        numbers = (queues["readQueueNums"], queues["writeQueueNums"], queues["perm"], queues["topicSysFlag"])
        return {(request.ext_fields or {})["topic"]: TopicQueues(*numbers)}
    return dict.fromkeys(body.get("topicList", ()), QUEUES)


EXCHANGES = [*recorded("route"), *recorded("binary_route"), *list(recorded("errors"))[:1]]


@pytest.mark.parametrize(("request_", "expected"), EXCHANGES, ids=[str(request) for request, _ in EXCHANGES])
def test_answers_are_those_recorded(request_: RemotingCommand, expected: RemotingCommand) -> None:
    """Same code, remark, ext fields and body, byte for byte; the list of all topics in any order."""
    response = World(table_content(request_, expected)).ask(request_)
    assert (response.code, response.opaque, response.flag) == (expected.code, expected.opaque, RESPONSE_FLAG)
    assert (response.remark, response.ext_fields) == (expected.remark, expected.ext_fields)
    if request_.code == RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER:
        response, expected = sorted_topics(response), sorted_topics(expected)
    assert response.body == expected.body


def sorted_topics(command: RemotingCommand) -> RemotingCommand:
    body = msgspec.json.decode(command.body)
    return msgspec.structs.replace(command, body=msgspec.json.encode({**body, "topicList": sorted(body["topicList"])}))


STANDARD_ROUTE = next(response.body for _, response in recorded("route"))
BARE_ROUTE = STANDARD_ROUTE.replace(b'{"0":', b"{0:")


@pytest.mark.parametrize(
    ("version", "ext_fields", "body"),
    [
        (401, {}, STANDARD_ROUTE),
        (400, {}, BARE_ROUTE),
        (0, {}, BARE_ROUTE),
        (0, {"acceptStandardJsonOnly": "true"}, STANDARD_ROUTE),
        (0, {"acceptStandardJsonOnly": "false"}, BARE_ROUTE),
    ],
)
def test_old_clients_get_bare_keys(version: int, ext_fields: dict[str, str], body: bytes) -> None:
    """From version 401 on, or on request, keys are quoted (trap 3); both forms stay apart in the cache."""
    world = World({"TapNormal": QUEUES})
    assert BARE_ROUTE != STANDARD_ROUTE
    for _ in range(2):
        assert world.route("TapNormal", version=version, **ext_fields).body == body


def test_a_changed_route_is_seen_at_once() -> None:
    """No answer comes from before a change, whatever changed."""
    world = World({"TapNormal": QUEUES})
    before = world.route("TapNormal").body
    world.table.change_topics(BROKER.key, VERSION, {"TapNormal": TopicQueues(8, 8, 6, 0)}, [])
    assert b'"readQueueNums":8' in world.route("TapNormal").body
    world.table.change_topics(BROKER.key, VERSION, {"TapNormal": QUEUES}, [])
    assert world.route("TapNormal").body == before
    world.table.remove_member(BROKER.key)
    assert world.route("TapNormal").code == ResponseCode.TOPIC_NOT_EXIST


def test_cluster_info_and_topic_list_are_seen_at_once() -> None:
    """A new topic is in the list, a new broker in both."""
    world = World({"TopicA": QUEUES})
    topics = RemotingCommand(RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER)
    brokers = RemotingCommand(RequestCode.GET_BROKER_CLUSTER_INFO)
    world.ask(topics)
    world.ask(brokers)
    world.table.change_topics(BROKER.key, VERSION, {"TopicB": QUEUES}, [])
    assert world.ask(topics).body == b'{"topicList":["TopicA","TopicB"]}'
    other = BrokerIdentity("TapCluster", "broker-u", 0, 1, "127.0.0.3:20911")
    world.table.put_member(other, VERSION, {"TopicC": QUEUES})
    assert b'"broker-u"' in world.ask(brokers).body
    assert b'"TopicC"' in world.ask(topics).body


def test_a_route_without_topic_names_the_field() -> None:
    """Apache looks up a topic called null; a client's author is better served by the field's name."""
    response = World().ask(RemotingCommand(ROUTE, ext_fields={}))
    assert response.code == ResponseCode.SYSTEM_ERROR
    assert response.remark == "GET_ROUTEINFO_BY_TOPIC: the field <topic> is missing"


def test_a_malformed_field_is_named() -> None:
    """Here a boolean that is none."""
    response = World({"TapNormal": QUEUES}).route("TapNormal", acceptStandardJsonOnly="perhaps")
    assert response.code == ResponseCode.SYSTEM_ERROR
    assert "GET_ROUTEINFO_BY_TOPIC: the field <acceptStandardJsonOnly> is invalid" in (response.remark or "")


def test_a_topic_that_is_too_long_is_refused() -> None:
    """It cannot exist, and it is not echoed."""
    response = World().route("t" * 256)
    assert response.code == ResponseCode.SYSTEM_ERROR
    assert "the field <topic> is invalid: it has 256 characters" in (response.remark or "")


def test_bad_requests_change_nothing() -> None:
    """After any of them the tables answer as before."""
    world = World({"TapNormal": QUEUES})
    before = world.route("TapNormal").body
    for command in (
        RemotingCommand(9_999),
        RemotingCommand(ROUTE),
        RemotingCommand(ROUTE, ext_fields={"topic": "t" * 10_000}),
        RemotingCommand(RequestCode.REGISTER_BROKER, ext_fields={"brokerName": "x"}, body=b"{"),
        RemotingCommand(-1),
    ):
        assert world.ask(command).code != ResponseCode.SUCCESS
    assert world.route("TapNormal").body == before


def test_a_oneway_request_is_not_answered() -> None:
    """Writing a response to it would break the protocol."""
    command = RemotingCommand(ROUTE, flag=ONEWAY_FLAG, ext_fields={"topic": "TapNormal"})
    assert World({"TapNormal": QUEUES}).face.handle(CHANNEL, command) is None


def test_routes_wait_for_brokers_after_a_start() -> None:
    """With needWaitForService a route is refused rather than shown with brokers missing; the rest answers."""
    world = World({"TapNormal": QUEUES})
    world.is_waiting = True
    response = world.route("TapNormal")
    assert (response.code, response.remark) == (ResponseCode.SYSTEM_ERROR, "name server not ready")
    assert world.ask(RemotingCommand(RequestCode.GET_BROKER_CLUSTER_INFO)).code == ResponseCode.SUCCESS
    world.is_waiting = False
    assert world.route("TapNormal").code == ResponseCode.SUCCESS


def test_the_access_hook_is_asked_before_every_request() -> None:
    """What it refuses is answered with its code and remark, and not looked at further."""
    asked: list[tuple[str, int]] = []

    class NoRoutes:
        def check(self, channel: Channel, command: RemotingCommand) -> AccessRefusal | None:
            asked.append((channel.peer, command.code))
            return AccessRefusal(ResponseCode.NO_PERMISSION, "not you") if command.code == ROUTE else None

    world = World({"TapNormal": QUEUES}, access=NoRoutes())
    response = world.route("TapNormal")
    assert (response.code, response.remark, response.body) == (ResponseCode.NO_PERMISSION, "not you", b"")
    assert world.ask(RemotingCommand(RequestCode.GET_BROKER_CLUSTER_INFO)).code == ResponseCode.SUCCESS
    assert asked == [("127.0.0.1:50000", 105), ("127.0.0.1:50000", 106)]


def test_requests_are_counted_by_their_result() -> None:
    """Also those that were refused."""
    world = World({"TapNormal": QUEUES})
    for command in (
        RemotingCommand(ROUTE, ext_fields={"topic": "TapNormal"}),
        RemotingCommand(ROUTE, ext_fields={"topic": "other"}),
        RemotingCommand(ROUTE),
        RemotingCommand(9_999),
    ):
        world.ask(command)
    assert world.counted == [
        (105, ResponseCode.SUCCESS),
        (105, ResponseCode.TOPIC_NOT_EXIST),
        (105, ResponseCode.SYSTEM_ERROR),
        (9_999, ResponseCode.REQUEST_CODE_NOT_SUPPORTED),
    ]
