"""The proxy's Remoting door, by a client through a real listener, in front of routes and brokers of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from apogeemq.mesh.addresses import join_address
from apogeemq.mesh.call_spans import current_context
from apogeemq.mesh.calls import Answer, Call, Caller, CallInfo, CallTable
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock, SystemClock
from apogeemq.mesh.errors import (
    CallRefused,
    CallsOverloaded,
    DeadlineExceeded,
    MessageTooLarge,
    PeerUnavailable,
    StreamLost,
)
from apogeemq.mesh.local_caller import LocalCaller
from apogeemq.mesh.v1 import broker_pb2 as broker
from apogeemq.mesh.v1.methods import CLIENT_HEARTBEAT, END_TRANSACTION, SEND_MESSAGE, UNREGISTER_CLIENT
from apogeemq.mesh.v1.routes_pb2 import BrokerAddress, QueryClusterReply, TopicRoute
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.faces.remoting.face import RemotingFace
from apogeemq.proxy.faces.remoting.producers import ProducerRequests
from apogeemq.proxy.faces.remoting.routes import RouteRequests
from apogeemq.proxy.faces.remoting.sends import SendRequests
from apogeemq.proxy.faces.remoting.transactions import RemotingProducers, TransactionRequests
from apogeemq.proxy.faces.spans import ServerSpans
from apogeemq.proxy.service.orphans import Delivery
from apogeemq.remoting_codec.aio.access import AccessRefusal
from apogeemq.remoting_codec.aio.channel import Channel
from apogeemq.remoting_codec.aio.client import RemotingClient
from apogeemq.remoting_codec.aio.server import RemotingServer
from apogeemq.remoting_codec.bodies import (
    ClusterInfo,
    ConsumeFromWhere,
    ConsumerData,
    ConsumeType,
    HeartbeatData,
    MessageModel,
    ProducerData,
)
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.record import encode_record
from apogeemq.remoting_codec.roles import NOT_MASTER
from apogeemq.remoting_codec.route import TopicRouteData
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from packages.proxy.tests.brokers_in_memory import half_record
from packages.proxy.tests.name_server import queue_data

WAIT_S = 10.0
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

V1_NAMES = {
    "a": "producerGroup",
    "b": "topic",
    "c": "defaultTopic",
    "d": "defaultTopicQueueNums",
    "e": "queueId",
    "f": "sysFlag",
    "g": "bornTimestamp",
    "h": "flag",
    "i": "properties",
    "j": "reconsumeTimes",
    "m": "batch",
    "n": "bname",
}
"""Wire names of SEND_MESSAGE by those of SEND_MESSAGE_V2 (reference headers.tsv)."""


def send_fields(**more: str) -> dict[str, str]:
    """Ext fields of SEND_MESSAGE_V2, as a Java client writes them."""
    return {
        "a": "P",
        "b": "T",
        "c": "TBW102",
        "d": "4",
        "e": "3",
        "f": "0",
        "g": "1795356276399",
        "h": "7",
        "i": "UNIQ_KEY\x01ABC\x02",
        "j": "0",
        "m": "false",
        "n": "a",
        **more,
    }


class Access:
    """Refuses what a test says."""

    def __init__(self) -> None:
        self.refusal: AccessRefusal | None = None

    def check(self, channel: Channel, command: RemotingCommand) -> AccessRefusal | None:
        """Say so."""
        return self.refusal


class HurryingClock(ManualClock):
    """Time passes by sleeping only, and then at once."""

    async def sleep(self, seconds: float) -> None:
        """Be there already."""
        self.advance(seconds)
        await asyncio.sleep(0)


class Rig:
    """Routes, brokers "a" and "b", and a client before the door."""

    def __init__(self, requests_in_flight_max: int = 100) -> None:
        self.routes: dict[str, list[Any]] = {"T": [queue_data("a"), queue_data("b")]}
        self.cluster: QueryClusterReply | None = None
        self.sent: list[tuple[str, broker.SendMessageRequest]] = []
        self.beats: list[tuple[str, broker.ClientHeartbeatRequest]] = []
        self.leavings: list[tuple[str, broker.UnregisterClientRequest]] = []
        self.on_send: Callable[[broker.SendMessageRequest], Any] = lambda request: broker.SendMessageReply(
            status=broker.SEND_OK,
            offset_message_id="7F00000100002A9F0000000000000000",
            message_id="ABC",
            queue_id=request.queue_id,
            queue_offset=42,
        )
        self.observed: list[tuple[str, str]] = []
        self.access = Access()
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self._callers = {name: self._caller(name) for name in ("a", "b")}
        self.address = ""
        routes = RouteRequests(self, address=lambda: self.address, cluster=lambda: self.cluster, timeout_s=2.0)
        spans = ServerSpans(provider.get_tracer("test"), "rocketmq")
        self.topic_types: dict[str, str | None] = {}
        self.doubted: list[str] = []
        self.on_doubt: Callable[[], None] = lambda: None
        sends = SendRequests(
            self,
            self,
            clock=HurryingClock(),
            chance=SeededChance(1),
            spans=spans,
            timeout_s=2.0,
            master_wait_s=2.0,
            topic_type=self.topic_type,
        )
        self.producers = ProducerRequests(self, lambda: ["a", "b"], timeout_s=2.0)
        self.asked_ends: list[tuple[str, broker.EndTransactionRequest]] = []
        self.ends_at = "a"
        """The broker that has the half message."""
        transactions = TransactionRequests(self, lambda: ["b", "a"], timeout_s=2.0)
        self.face = RemotingFace(
            {
                **routes.functions(),
                **sends.functions(),
                **self.producers.functions(),
                **transactions.functions(),
            },
            access=self.access,
            clock=SystemClock(),
            observe=lambda request, answer, seconds: self.observed.append((request, answer)),
            requests_in_flight_max=requests_in_flight_max,
        )
        self.client: RemotingClient
        self.pushed: list[RemotingCommand] = []
        """What the door sent by itself."""

    def _caller(self, name: str) -> LocalCaller:
        def send(request: broker.SendMessageRequest, info: CallInfo) -> Any:
            self.sent.append((name, request))
            return self.on_send(request)

        def beat(request: broker.ClientHeartbeatRequest, info: CallInfo) -> broker.ClientHeartbeatReply:
            self.beats.append((name, request))
            return broker.ClientHeartbeatReply()

        def leave(request: broker.UnregisterClientRequest, info: CallInfo) -> broker.UnregisterClientReply:
            self.leavings.append((name, request))
            return broker.UnregisterClientReply()

        def end(request: broker.EndTransactionRequest, info: CallInfo) -> broker.EndTransactionReply:
            self.asked_ends.append((name, request))
            if name == self.ends_at:
                return broker.EndTransactionReply(result=broker.END_OK)
            return broker.EndTransactionReply(result=broker.END_NOT_FOUND, remark="not here")

        answers: list[Answer[Any, Any]] = [
            Answer(END_TRANSACTION, end),
            Answer(SEND_MESSAGE, send),
            Answer(CLIENT_HEARTBEAT, beat),
            Answer(UNREGISTER_CLIENT, leave),
        ]
        return LocalCaller(name, CallTable(answers), clock=SystemClock())

    async def topic_type(self, topic: str) -> str | None:
        """The message.type set by the test; none otherwise."""
        return self.topic_types.get(topic, "")

    # -- ports.Routes and ports.Brokers

    async def route(self, topic: str, *, timeout_s: float, create: bool = False) -> TopicRoute:
        """The route set by the test."""
        assert not create  # Remoting clients make topics by sending to the template's brokers
        if topic not in self.routes:
            raise ProxyError(Code.TOPIC_NOT_FOUND, f"no broker serves topic {topic}")
        return TopicRoute(topic=topic, queues=self.routes[topic])

    def kept(self, topic: str) -> None:
        """None is: whoever wants a route asks for it."""

    def brokers_of(self, topic: str) -> Sequence[str]:
        """All of them."""
        return [queue.broker_name for queue in self.routes.get(topic, [])]

    def forget(self, topic: str) -> None:
        """Nothing is kept."""

    def doubt(self, topic: str) -> None:
        """Noted; and what a test has happen meanwhile."""
        self.doubted.append(topic)
        self.on_doubt()

    def caller(self, broker_name: str) -> Caller:
        """One of the two."""
        caller = self._callers.get(broker_name)
        if caller is None:
            raise ProxyError(Code.BAD_REQUEST, f"there is no broker {broker_name}")
        return caller

    # -- the door

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Rig]:
        """Listen, and connect a client."""
        server = RemotingServer(self.face.handle, tls_mode="disabled", on_close=self.producers.channel_closed)
        host, port = await server.start("127.0.0.1", 0)
        self.address = join_address(host, port)
        self.client = RemotingClient(lambda channel, command: self.pushed.append(command))
        await self.client.connect(host, port)
        try:
            async with asyncio.timeout(WAIT_S):
                yield self
        finally:
            await self.client.close()
            await self.face.stop(0.1)
            await server.stop(0.1)
            await self.producers.stop()

    async def ask(
        self, code: int, fields: dict[str, str] | None = None, body: bytes = b"", *, version: int = 479
    ) -> RemotingCommand:
        """Send a request and wait for the answer."""
        command = RemotingCommand(code, ext_fields=fields or {}, body=body, version=version, language="JAVA")
        return await self.client.request(command, timeout_s=WAIT_S)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A door that listens."""
    async with Rig().running() as running:
        yield running


# -- routes


async def test_a_route_leads_to_the_proxy(rig: Rig) -> None:
    """Every broker of the topic is there under its name, as a master at the proxy's own address."""
    answer = await rig.ask(105, {"topic": "T"})
    assert answer.code == ResponseCode.SUCCESS
    route = TopicRouteData.decode(answer.body)
    assert [(data.broker_name, data.broker_addrs) for data in route.broker_datas] == [
        ("a", {0: rig.address}),
        ("b", {0: rig.address}),
    ]
    assert [(data.broker_name, data.write_queue_nums, data.perm) for data in route.queue_datas] == [
        ("a", 8, 6),
        ("b", 8, 6),
    ]
    assert route.topic_queue_mapping_by_broker is None  # any entry switches clients to logical queues


@pytest.mark.parametrize(
    ("version", "fields", "key"),
    [(479, {}, b'"0":'), (400, {}, b"{0:"), (400, {"acceptStandardJsonOnly": "true"}, b'"0":')],
)
async def test_the_form_of_a_route(rig: Rig, version: int, fields: dict[str, str], key: bytes) -> None:
    """Standard JSON from version 401 on, or when asked for; else fastjson's bare keys (trap 3)."""
    answer = await rig.ask(105, {"topic": "T", **fields}, version=version)
    assert key in answer.body


async def test_no_route(rig: Rig) -> None:
    """TOPIC_NOT_EXIST (17), which clients know."""
    answer = await rig.ask(105, {"topic": "U"})
    assert answer.code == 17
    assert "U" in (answer.remark or "")


@pytest.mark.parametrize("fields", [{}, {"topic": "x" * 256}])
async def test_a_route_request_that_is_wrong(rig: Rig, fields: dict[str, str]) -> None:
    """The remark names the field."""
    answer = await rig.ask(105, fields)
    assert answer.code == ResponseCode.SYSTEM_ERROR
    assert "topic" in (answer.remark or "")


async def test_the_cluster(rig: Rig) -> None:
    """All brokers of the list, at the proxy's address; none as long as no name server told."""
    assert ClusterInfo.decode((await rig.ask(106)).body) == ClusterInfo()
    rig.cluster = QueryClusterReply()
    rig.cluster.brokers.add(cluster="C", broker_name="a", addresses=[BrokerAddress(mesh_address="m:1")])
    info = ClusterInfo.decode((await rig.ask(106)).body)
    assert info.cluster_addr_table == {"C": ["a"]}
    assert info.broker_addr_table["a"].broker_addrs == {0: rig.address}


# -- sends


@pytest.mark.parametrize(("code", "is_batch"), [(10, False), (310, False), (320, True)])
async def test_a_send_goes_to_its_broker(rig: Rig, code: int, is_batch: bool) -> None:
    """To the one that the client names, with everything that the header says, and the client's own address."""
    fields = send_fields(n="b")
    if code == 10:
        fields = {V1_NAMES[name]: value for name, value in fields.items()}
    answer = await rig.ask(code, fields, b"body")
    assert answer.code == ResponseCode.SUCCESS
    assert answer.ext_fields == {
        "msgId": "7F00000100002A9F0000000000000000",
        "queueId": "3",
        "queueOffset": "42",
        "transactionId": "ABC",
        "MSG_REGION": "DefaultRegion",
        "TRACE_ON": "true",
    }
    [(name, request)] = rig.sent
    assert name == "b"
    assert request.born_host[:4] == bytes([127, 0, 0, 1])
    assert len(request.born_host) == 8
    request.ClearField("born_host")
    assert request == broker.SendMessageRequest(
        topic="T",
        queue_id=3,
        producer_group="P",
        flag=7,
        born_timestamp_ms=1795356276399,
        properties=b"UNIQ_KEY\x01ABC\x02",
        body=b"body",
        batch=is_batch,
        default_topic="TBW102",
        default_topic_queue_nums=4,
    )


KINDS = {
    "NORMAL": "TAGS\x01A\x02",
    "FIFO": "__SHARDINGKEY\x01k\x02",
    "DELAY": "DELAY\x013\x02",
    "TRANSACTION": "TRAN_MSG\x01true\x02",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("topic_type", ["", "NORMAL", "FIFO", "DELAY", "TRANSACTION", "MIXED"])
async def test_a_topic_takes_messages_of_its_kind(rig: Rig, kind: str, topic_type: str) -> None:
    """MESSAGE_ILLEGAL (13) in the words of Apache's proxy, and no broker is asked; a topic without a kind is NORMAL."""
    rig.topic_types["T"] = topic_type
    answer = await rig.ask(310, send_fields(n="b") | {"i": KINDS[kind]}, b"x")
    if topic_type in (kind, "MIXED") or (topic_type == "" and kind == "NORMAL"):
        assert answer.code == ResponseCode.SUCCESS
    else:
        expected = topic_type or "NORMAL"
        assert (answer.code, answer.remark) == (
            ResponseCode.MESSAGE_ILLEGAL,
            f"TopicMessageType validate failed, the expected type is {expected}, but actual type is {kind}",
        )
        assert rig.sent == []


@pytest.mark.parametrize("delay", ["TIMER_DELIVER_MS", "TIMER_DELAY_SEC", "TIMER_DELAY_MS"])
async def test_every_delay_is_a_delay(rig: Rig, delay: str) -> None:
    """By level or by time."""
    rig.topic_types["T"] = "NORMAL"
    answer = await rig.ask(310, send_fields(n="b") | {"i": f"{delay}\x011\x02"}, b"x")
    assert answer.code == ResponseCode.MESSAGE_ILLEGAL


@pytest.mark.parametrize(
    ("topic", "properties", "topic_type"),
    [
        ("%RETRY%G", KINDS["DELAY"], "NORMAL"),
        ("%DLQ%G", KINDS["DELAY"], "NORMAL"),
        ("T", KINDS["FIFO"] + "TRANSFER_FLAG\x01true\x02", "NORMAL"),
        ("T", KINDS["FIFO"], "A_LATER_KIND"),
        ("T", KINDS["FIFO"], None),
    ],
)
async def test_kinds_that_are_not_checked(rig: Rig, topic: str, properties: str, topic_type: str | None) -> None:
    """Retries, dead letters, what another cluster checked; a kind that is not known, a topic that can't be asked."""
    rig.topic_types[topic] = topic_type
    answer = await rig.ask(310, send_fields(n="b") | {"b": topic, "i": properties}, b"x")
    assert answer.code == ResponseCode.SUCCESS


async def test_a_send_without_broker_name(rig: Rig) -> None:
    """Clients before 5.0 name none: brokers that have the queue take turns, others are left out."""
    small = queue_data("b")
    small.write_queue_nums = 3
    rig.routes["S"] = [queue_data("a"), small]
    fields = send_fields()
    del fields["n"]
    for _ in range(4):
        await rig.ask(310, fields)
    assert sorted(name for name, _ in rig.sent) == ["a", "a", "b", "b"]
    rig.sent.clear()
    for _ in range(2):
        await rig.ask(310, {**fields, "b": "S"})
    assert [name for name, _ in rig.sent] == ["a", "a"]
    answer = await rig.ask(310, {**fields, "e": "8"})
    assert answer.code == ResponseCode.TOPIC_NOT_EXIST


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (broker.FLUSH_DISK_TIMEOUT, 10),
        (broker.FLUSH_SLAVE_TIMEOUT, 12),
        (broker.SLAVE_NOT_AVAILABLE, 11),
        (broker.SEND_STATUS_UNSPECIFIED, 1),
    ],
)
async def test_what_is_stored_but_not_safe(rig: Rig, status: broker.SendStatus, code: int) -> None:
    """The response code says so, and the ext fields are there all the same."""
    rig.on_send = lambda request: broker.SendMessageReply(status=status, offset_message_id="M", message_id="ABC")
    answer = await rig.ask(310, send_fields())
    assert answer.code == code
    assert (answer.ext_fields or {})["msgId"] == "M"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (CallRefused(16, "topic T may not be written"), 16, "may not be written"),
        (CallRefused(13, "too large"), 13, "too large"),
    ],
)
async def test_what_a_broker_refuses(rig: Rig, error: CallRefused, code: int, words: str) -> None:
    """Its code and text reach the client as they are, with ext fields (trap 5)."""

    def refuse(request: broker.SendMessageRequest) -> broker.SendMessageReply:
        raise error

    rig.on_send = refuse
    answer = await rig.ask(310, send_fields())
    assert (answer.code, answer.ext_fields) == (code, {})
    assert words in (answer.remark or "")


class FailingCaller:
    """A caller whose every call fails."""

    target = "nowhere"

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def call(self, call: Call[Any, Any], request: Any, *, timeout_s: float, on_late: Any = None) -> Any:
        """Fail."""
        raise self._error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PeerUnavailable("a:1", "refused"), ResponseCode.SERVICE_NOT_AVAILABLE),
        (StreamLost("a:1", "reset"), ResponseCode.SERVICE_NOT_AVAILABLE),
        (DeadlineExceeded("a:1", "SendMessage", 2.0), ResponseCode.SYSTEM_ERROR),
        (CallsOverloaded("a:1", "calls", 10), ResponseCode.SYSTEM_BUSY),
        (MessageTooLarge("SendMessage", 2, 1), ResponseCode.MESSAGE_ILLEGAL),
        (KeyError("the secret"), ResponseCode.SYSTEM_ERROR),
    ],
)
async def test_a_broker_that_cannot_be_asked(rig: Rig, error: Exception, code: int) -> None:
    """Each failure has a code that clients act upon; what nobody expected tells nothing of itself."""
    rig._callers["a"] = FailingCaller(error)  # type: ignore[assignment]
    answer = await rig.ask(310, send_fields())
    assert (answer.code, answer.ext_fields) == (code, {})
    assert "secret" not in (answer.remark or "")


@pytest.mark.parametrize(
    "away",
    [
        PeerUnavailable("a:1", "refused"),
        CallRefused(ResponseCode.SERVICE_NOT_AVAILABLE, f"{NOT_MASTER}ask for the one that is"),
    ],
)
async def test_a_send_waits_for_the_next_master(rig: Rig, away: Exception) -> None:
    """It was certainly not stored: it is sent to whoever is master next, and the client is not told of it."""
    master, rig._callers["a"] = rig._callers["a"], FailingCaller(away)  # type: ignore[assignment]

    def elected() -> None:
        if len(rig.doubted) == 3:
            rig._callers["a"] = master

    rig.on_doubt = elected
    answer = await rig.ask(310, send_fields())
    assert answer.code == ResponseCode.SUCCESS
    assert [name for name, _ in rig.sent] == ["a"]
    assert rig.doubted == ["T"] * 3


async def test_a_send_to_an_unknown_broker(rig: Rig) -> None:
    """The remark names it."""
    answer = await rig.ask(310, send_fields(n="nobody"))
    assert answer.code == ResponseCode.SYSTEM_ERROR
    assert "nobody" in (answer.remark or "")


@pytest.mark.parametrize("missing", ["a", "b", "e", "g"])
async def test_a_send_without_a_field(rig: Rig, missing: str) -> None:
    """The remark names the field; nothing is sent on."""
    fields = send_fields()
    del fields[missing]
    answer = await rig.ask(310, fields)
    assert answer.code == ResponseCode.SYSTEM_ERROR
    assert answer.remark == f"SEND_MESSAGE_V2: the field <{missing}> is missing"
    assert rig.sent == []


async def test_a_oneway_send_is_not_answered(rig: Rig) -> None:
    """It is sent on, and the next answer is that of the next request."""
    await rig.client.oneway(RemotingCommand(310, ext_fields=send_fields(), body=b"1"))
    assert (await rig.ask(310, send_fields(), b"2")).code == 0
    assert [request.body for _, request in rig.sent] == [b"1", b"2"]


async def test_a_sampled_send_has_a_span(rig: Rig) -> None:
    """Its parent is the message's; the broker is asked within it. An unsampled one has none."""
    within: list[str] = []
    answer = rig.on_send

    def look(request: broker.SendMessageRequest) -> Any:
        context = current_context()
        within.append("" if context is None else f"{context.trace_id:032x}")
        return answer(request)

    rig.on_send = look
    await rig.ask(310, send_fields(i=f"traceparent\x01{SAMPLED}\x02"))
    await rig.ask(310, send_fields(i=f"traceparent\x01{SAMPLED[:-1]}0\x02"))
    [span] = rig.exporter.get_finished_spans()
    assert span.name == "SEND_MESSAGE_V2"
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert within == ["0af7651916cd43dd8448eb211c80319c", ""]


# -- producers


def beat(*groups: str, consumers: Sequence[str] = ()) -> bytes:
    """A heartbeat of client c1."""
    return HeartbeatData(
        client_id="c1",
        producer_data_set=[ProducerData(group_name=group) for group in groups],
        consumer_data_set=[
            ConsumerData(
                group_name=group,
                consume_type=ConsumeType.CONSUME_PASSIVELY,
                message_model=MessageModel.CLUSTERING,
                consume_from_where=ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET,
            )
            for group in consumers
        ],
    ).encode()


async def test_a_producers_beat_reaches_all_brokers(rig: Rig) -> None:
    """With its groups; consumer groups are left out."""
    answer = await rig.ask(34, body=beat("P", "Q", consumers=["G"]))
    assert answer.code == 0
    assert answer.ext_fields == {"IS_SUPPORT_HEART_BEAT_V2": "false", "IS_SUB_CHANGE": "false"}
    await until(lambda: len(rig.beats) == 2)
    expected = broker.ClientHeartbeatRequest(client_id="c1", language="JAVA", version=479, producer_groups=["P", "Q"])
    assert sorted(rig.beats, key=lambda told: told[0]) == [("a", expected), ("b", expected)]


async def test_a_producer_that_leaves(rig: Rig) -> None:
    """UNREGISTER_CLIENT takes it out of the group at all brokers, and so does the end of its connection."""
    await rig.ask(34, body=beat("P"))
    assert (await rig.ask(35, {"clientID": "c1", "producerGroup": "P"})).code == 0
    await until(lambda: len(rig.leavings) == 2)
    assert rig.leavings[0][1] == broker.UnregisterClientRequest(client_id="c1", producer_groups=["P"])
    await rig.client.close()
    await until(lambda: len(rig.leavings) == 4)


async def test_beats_that_are_wrong(rig: Rig) -> None:
    """No JSON, and more groups than may be: an answer with a reason, and nobody is told."""
    for body in (b"{", beat(*(f"P{n}" for n in range(1001)))):
        answer = await rig.ask(34, body=body)
        assert answer.code == ResponseCode.SYSTEM_ERROR
        assert answer.remark
    assert rig.beats == []


# -- transactions


def end_fields(decision: int = 8, **more: str) -> dict[str, str]:
    """Ext fields of END_TRANSACTION, as a Java client of 5.x writes them."""
    return {
        "producerGroup": "P",
        "tranStateTableOffset": "7",
        "commitLogOffset": "4711",
        "commitOrRollback": str(decision),
        "fromTransactionCheck": "false",
        "msgId": "ABC",
        "transactionId": "ABC",
        "bname": "a",
        **more,
    }


@pytest.mark.parametrize(
    ("decision", "resolution"), [(8, broker.TRANSACTION_COMMIT), (12, broker.TRANSACTION_ROLLBACK), (0, None)]
)
async def test_a_transaction_ends_at_the_broker_that_is_named(
    rig: Rig, decision: int, resolution: broker.TransactionResolution | None
) -> None:
    """Who does not know yet changes nothing."""
    assert (await rig.ask(37, end_fields(decision))).code == 0
    expected = broker.EndTransactionRequest(producer_group="P", queue_offset=7, physical_offset=4711)
    if resolution is not None:
        expected.resolution = resolution
    assert rig.asked_ends == ([] if resolution is None else [("a", expected)])


async def test_an_older_client_names_no_broker(rig: Rig) -> None:
    """All are asked until one has the half message with this unique key."""
    fields = end_fields()
    del fields["bname"]
    assert (await rig.ask(37, fields)).code == 0
    assert [(name, request.message_id) for name, request in rig.asked_ends] == [("b", "ABC"), ("a", "ABC")]


@pytest.mark.parametrize(
    ("fields", "remark"), [({"bname": "b"}, "not here"), ({"commitOrRollback": "5"}, "commitOrRollback")]
)
async def test_a_transaction_that_can_not_be_ended(rig: Rig, fields: dict[str, str], remark: str) -> None:
    """SYSTEM_ERROR, as Apache's broker answers, with the broker's words."""
    answer = await rig.ask(37, end_fields() | fields)
    assert (answer.code, remark in str(answer.remark)) == (1, True)


async def test_a_producer_is_asked_over_its_connection(rig: Rig) -> None:
    """CHECK_TRANSACTION_STATE as a broker sends it; while there is no producer, no broker is to be asked."""
    door = RemotingProducers(rig.producers, lambda: ["a", "b"])
    record = half_record("T", b"half")
    check = broker.TransactionCheck(
        producer_group="P", client_id="other", record=encode_record(record), message_id="ABC", offset_message_id="77"
    )
    assert (door.broker_names(), door.ask("a", check, record)) == ((), Delivery.NOBODY)
    await rig.ask(34, body=beat("P"))
    assert list(door.broker_names()) == ["a", "b"]
    assert door.ask("a", check, record) is Delivery.DELIVERED
    await until(lambda: bool(rig.pushed))
    (command,) = rig.pushed
    assert (command.code, command.is_oneway, command.body) == (39, True, check.record)
    assert command.ext_fields == {
        "topic": "RMQ_SYS_TRANS_HALF_TOPIC",
        "tranStateTableOffset": "8",
        "commitLogOffset": "5000",
        "msgId": "ABC",
        "transactionId": "ABC",
        "offsetMsgId": "77",
        "bname": "a",
    }
    await rig.ask(35, {"clientID": "c1", "producerGroup": "P"})
    assert door.ask("a", check, record) is Delivery.NOBODY


async def test_a_producer_that_lost_its_connection_is_not_asked(rig: Rig) -> None:
    """Nor one whose newer beat does not name the group any more."""
    await rig.ask(34, body=beat("P", "Q"))
    await rig.ask(34, body=beat("Q"))
    assert set(rig.producers.connected) == {"Q"}
    await rig.client.close()
    await until(lambda: not rig.producers.connected)


# -- everything else


@pytest.mark.parametrize("code", [11, 14, 15, 38, 200050, 9999])
async def test_what_is_not_served(rig: Rig, code: int) -> None:
    """REQUEST_CODE_NOT_SUPPORTED (3) in Apache's words; the connection goes on."""
    answer = await rig.ask(code)
    assert (answer.code, answer.remark) == (3, f" request type {code} not supported")
    assert (await rig.ask(310, send_fields())).code == 0
    assert rig.observed[0] == ("unknown", "REQUEST_CODE_NOT_SUPPORTED")


async def test_access_control(rig: Rig) -> None:
    """Who may not do something is told so, and it is not done."""
    rig.access.refusal = AccessRefusal(ResponseCode.NO_PERMISSION, "not you")
    answer = await rig.ask(310, send_fields())
    assert (answer.code, answer.remark) == (ResponseCode.NO_PERMISSION, "not you")
    assert rig.sent == []


async def test_requests_in_flight_have_a_bound() -> None:
    """One more is SYSTEM_BUSY at once; there is room again when one was answered."""
    done = asyncio.Event()

    async def wait(request: broker.SendMessageRequest) -> broker.SendMessageReply:
        await done.wait()
        return broker.SendMessageReply(status=broker.SEND_OK)

    async with Rig(requests_in_flight_max=1).running() as rig:
        rig.on_send = wait
        first = asyncio.ensure_future(rig.ask(310, send_fields()))
        await until(lambda: len(rig.sent) == 1)
        assert (await rig.ask(310, send_fields())).code == ResponseCode.SYSTEM_BUSY
        done.set()
        assert (await first).code == 0
        assert (await rig.ask(310, send_fields())).code == 0
        assert rig.observed == [
            ("SEND_MESSAGE_V2", "SYSTEM_BUSY"),
            ("SEND_MESSAGE_V2", "SUCCESS"),
            ("SEND_MESSAGE_V2", "SUCCESS"),
        ]


async def test_stop_gives_late_requests_up(rig: Rig) -> None:
    """It waits for the grace and no longer."""
    cancelled = asyncio.Event()

    async def wait(request: broker.SendMessageRequest) -> broker.SendMessageReply:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return broker.SendMessageReply()

    rig.on_send = wait
    waiting = asyncio.ensure_future(rig.ask(310, send_fields()))
    await until(lambda: len(rig.sent) == 1)
    await rig.face.stop(0.0)
    assert cancelled.is_set()
    await rig.client.close()
    await asyncio.gather(waiting, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Give other tasks turns until something has happened."""
    while not condition():  # noqa: ASYNC110 — what it waits for has no event, and comes over a socket
        await asyncio.sleep(0)
