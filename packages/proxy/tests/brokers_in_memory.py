"""A dumb broker in memory that answers the mesh calls, and routes to several of them. No files, no timers, no queues
beyond one list per queue: what the proxy's services are tried against.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from apogeemq.mesh.calls import Answer, Call, Caller, CallInfo, CallTable
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.errors import CallRefused, PeerUnavailable
from apogeemq.mesh.local_caller import LocalCaller
from apogeemq.mesh.network import Req, Resp
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.mesh.v1 import methods
from apogeemq.mesh.v1.routes_pb2 import BrokerAddress, QueueData, TopicRoute
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.context import RequestContext
from apogeemq.proxy.errors import ProxyError
from apogeemq.remoting_codec.batch import decode_batch
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.message import PROPERTY_TAGS, decode_properties
from apogeemq.remoting_codec.message_id import (
    RecallHandle,
    decode_recall_handle,
    encode_offset_message_id,
    encode_recall_handle,
)
from apogeemq.remoting_codec.record import Record, encode_record

STORE_HOST = bytes([127, 0, 0, 1, 0, 0, 42, 159])
PEER_HOST = bytes([10, 0, 0, 7, 0, 0, 31, 64])


@dataclass
class BrokerInMemory:
    """One master. `sent` and the other lists hold the requests as they came; `before` may refuse or wait."""

    name: str
    clock: ManualClock
    queue_nums: int = 2
    topic_types: dict[str, str] = field(default_factory=dict)
    send_status: mesh.SendStatus = mesh.SEND_OK
    orderly_groups: set[str] = field(default_factory=set)
    retry_max_times: int = 16
    is_polling_full: bool = False
    damages_records: bool = False

    def __post_init__(self) -> None:
        self.records: list[Record] = []
        self.invisible_until_ms: dict[tuple[str, int], int] = {}
        self.handles: dict[tuple[str, int], tuple[int, int]] = {}
        self.popped_times: Counter[tuple[str, int]] = Counter()
        self.acked: dict[str, set[int]] = defaultdict(set)
        self.requests: list[object] = []
        self.before: Callable[[object], Awaitable[None] | None] | None = None
        self._came = asyncio.Event()
        self.end_reply = mesh.EndTransactionReply(result=mesh.END_OK)
        self.questions: asyncio.Queue[mesh.TransactionCheck] = asyncio.Queue()
        self.table = CallTable(
            [
                Answer(methods.SEND_MESSAGE, self._waiting(self._send)),
                Answer(methods.POP_MESSAGE, self._pop),
                Answer(methods.ACK_MESSAGE, self._waiting(self._ack)),
                Answer(methods.CHANGE_INVISIBLE_TIME, self._waiting(self._change)),
                Answer(methods.EXTEND_INVISIBLE, self._waiting(self._extend)),
                Answer(methods.RECALL_MESSAGE, self._waiting(self._recall)),
                Answer(methods.FORWARD_TO_DEAD_LETTER_QUEUE, self._waiting(self._forward)),
                Answer(methods.QUERY_TOPIC, self._waiting(self._topic)),
                Answer(methods.QUERY_GROUP, self._waiting(self._group)),
                Answer(methods.CLIENT_HEARTBEAT, self._waiting(lambda request: mesh.ClientHeartbeatReply())),
                Answer(methods.UNREGISTER_CLIENT, self._waiting(lambda request: mesh.UnregisterClientReply())),
                Answer(methods.END_TRANSACTION, self._waiting(lambda request: self.end_reply)),
                Answer(methods.TAKE_TRANSACTION_CHECKS, self._take),
            ]
        )

    def asked(self, kind: type[Req]) -> list[Req]:
        """The requests of one type, as they came."""
        return [request for request in self.requests if isinstance(request, kind)]

    def store(self, topic: str, body: bytes, properties: bytes = b"", **fields: int) -> None:
        """Put a message where a pop finds it."""
        offset = len(self.records)
        self.records.append(
            Record(
                topic=topic,
                queue_id=0,
                queue_offset=offset,
                physical_offset=1000 * offset,
                born_timestamp_ms=fields.get("born_timestamp_ms", 5),
                born_host=PEER_HOST,
                store_timestamp_ms=self.clock.now_ms(),
                store_host=STORE_HOST,
                body=body,
                properties=properties,
                sys_flag=fields.get("sys_flag", 0),
                reconsume_times=fields.get("reconsume_times", 0),
            )
        )
        self._came.set()
        self._came = asyncio.Event()

    def visible(self, group: str) -> list[int]:
        """The offsets that a pop of this group would find now."""
        now_ms = self.clock.now_ms()
        return [
            offset
            for offset in range(len(self.records))
            if offset not in self.acked[group] and self.invisible_until_ms.get((group, offset), 0) <= now_ms
        ]

    def _waiting(self, answer: Callable[[Req], Resp]) -> Callable[[Req, CallInfo], Awaitable[Resp]]:
        async def function(request: Req, info: CallInfo) -> Resp:
            await self._note(request)
            return answer(request)

        return function

    async def _note(self, request: object) -> None:
        self.requests.append(request)
        if self.before is not None and (waiting := self.before(request)) is not None:
            await waiting

    def _send(self, request: mesh.SendMessageRequest) -> mesh.SendMessageReply:
        first = len(self.records)
        if request.batch:
            for inner in decode_batch(request.body):
                self.store(request.topic, inner.body, inner.properties)
        else:
            self.store(request.topic, request.body, request.properties, sys_flag=request.sys_flag)
        handle = self._recall_handle(request)
        return mesh.SendMessageReply(
            status=self.send_status,
            queue_id=request.queue_id,
            queue_offset=first,
            offset_message_id=encode_offset_message_id(STORE_HOST, 1000 * first),
            recall_handle=handle,
        )

    def _recall_handle(self, request: mesh.SendMessageRequest) -> str:
        """What takes a message with a delay back; empty for others."""
        properties = decode_properties(request.properties)
        deliver_ms = int(properties.get("TIMER_DELIVER_MS", 0))
        if deliver_ms <= self.clock.now_ms():
            return ""
        return encode_recall_handle(RecallHandle(request.topic, self.name, deliver_ms, properties["UNIQ_KEY"]))

    def _recall(self, request: mesh.RecallMessageRequest) -> mesh.RecallMessageReply:
        return mesh.RecallMessageReply(message_id=decode_recall_handle(request.recall_handle).message_id)

    def _forward(self, request: mesh.ForwardToDeadLetterQueueRequest) -> mesh.ForwardToDeadLetterQueueReply:
        result = self._judge(request.consumer_group, request.handle)
        if result == mesh.HANDLE_OK:
            self.acked[request.consumer_group].add(request.handle.queue_offset)
        return mesh.ForwardToDeadLetterQueueReply(result=result)

    async def _take(
        self, request: mesh.TakeTransactionChecksRequest, info: CallInfo
    ) -> mesh.TakeTransactionChecksReply:
        """Whatever the test asks, as soon as it is asked."""
        await self._note(request)
        if not request.poll_time_ms and self.questions.empty():
            return mesh.TakeTransactionChecksReply()
        checks = [await self.questions.get()]
        while not self.questions.empty() and len(checks) < request.max_nums:
            checks.append(self.questions.get_nowait())
        return mesh.TakeTransactionChecksReply(checks=checks)

    async def _pop(self, request: mesh.PopMessageRequest, info: CallInfo) -> mesh.PopMessageReply:
        await self._note(request)
        if self.is_polling_full:
            return mesh.PopMessageReply(status=mesh.POP_POLLING_FULL)
        deadline = self.clock.monotonic() + request.poll_time_ms / 1000
        while not (found := self._matching(request)):
            came = asyncio.ensure_future(self._came.wait())
            timer = asyncio.ensure_future(self.clock.sleep(deadline - self.clock.monotonic()))
            try:
                await asyncio.wait({came, timer}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                came.cancel()
                timer.cancel()
            if self.clock.monotonic() >= deadline and not self._matching(request):
                return mesh.PopMessageReply(status=mesh.POP_POLLING_TIMEOUT)
        now_ms = self.clock.now_ms()
        for offset in found:
            self.invisible_until_ms[request.consumer_group, offset] = now_ms + request.invisible_time_ms
            self.handles[request.consumer_group, offset] = (now_ms, request.invisible_time_ms)
            self.popped_times[request.consumer_group, offset] += 1
        attempts = [self.popped_times[request.consumer_group, offset] for offset in found] if request.order else []
        return mesh.PopMessageReply(
            status=mesh.POP_FOUND,
            pop_time_ms=now_ms,
            invisible_time_ms=request.invisible_time_ms,
            revive_queue_id=3,
            runs=[
                mesh.PoppedRun(
                    queue_id=0,
                    start_offset=found[0],
                    count=len(found),
                    records=self._records(found),
                    delivery_attempts=attempts,
                )
            ],
        )

    def _records(self, offsets: list[int]) -> bytes:
        records = b"".join(encode_record(self.records[offset]) for offset in offsets)
        return records[:-1] if self.damages_records else records

    def _matching(self, request: mesh.PopMessageRequest) -> list[int]:
        """Like a broker whose tag hashes all collide: whatever has a tag matches every expression."""
        return [
            offset
            for offset in self.visible(request.consumer_group)
            if request.expression == "*" or PROPERTY_TAGS in decode_properties(self.records[offset].properties)
        ][: request.max_msg_nums]

    def _judge(self, group: str, handle: mesh.PopHandle) -> mesh.HandleResult:
        if not 0 <= handle.queue_offset < len(self.records):
            return mesh.HANDLE_NO_MESSAGE
        if self.handles.get((group, handle.queue_offset)) != (handle.pop_time_ms, handle.invisible_time_ms):
            return mesh.HANDLE_EXPIRED
        if self.invisible_until_ms[group, handle.queue_offset] <= self.clock.now_ms():
            return mesh.HANDLE_EXPIRED
        return mesh.HANDLE_OK

    def _ack(self, request: mesh.AckMessageRequest) -> mesh.AckMessageReply:
        results = [self._judge(request.consumer_group, handle) for handle in request.handles]
        for handle, result in zip(request.handles, results, strict=True):
            if result == mesh.HANDLE_OK:
                self.acked[request.consumer_group].add(handle.queue_offset)
        return mesh.AckMessageReply(results=results)

    def _change(self, request: mesh.ChangeInvisibleTimeRequest) -> mesh.ChangeInvisibleTimeReply:
        result = self._judge(request.consumer_group, request.handle)
        if result != mesh.HANDLE_OK:
            return mesh.ChangeInvisibleTimeReply(result=result)
        now_ms, key = self.clock.now_ms(), (request.consumer_group, request.handle.queue_offset)
        self.invisible_until_ms[key] = now_ms + request.invisible_time_ms
        self.handles[key] = (now_ms, request.invisible_time_ms)
        self._came.set()
        self._came = asyncio.Event()
        return mesh.ChangeInvisibleTimeReply(
            result=result, pop_time_ms=now_ms, invisible_time_ms=request.invisible_time_ms, revive_queue_id=5
        )

    def _extend(self, request: mesh.ExtendInvisibleRequest) -> mesh.ExtendInvisibleReply:
        results = [self._judge(request.consumer_group, handle) for handle in request.handles]
        for handle, result in zip(request.handles, results, strict=True):
            if result == mesh.HANDLE_OK:
                key = (request.consumer_group, handle.queue_offset)
                until_ms = self.clock.now_ms() + request.invisible_time_ms
                self.invisible_until_ms[key] = max(self.invisible_until_ms[key], until_ms)
        return mesh.ExtendInvisibleReply(results=results)

    def _topic(self, request: mesh.QueryTopicRequest) -> mesh.QueryTopicReply:
        return mesh.QueryTopicReply(found=True, message_type=self.topic_types.get(request.topic, ""))

    def _group(self, request: mesh.QueryGroupRequest) -> mesh.QueryGroupReply:
        return mesh.QueryGroupReply(
            found=True,
            consume_enable=True,
            consume_message_orderly=request.consumer_group in self.orderly_groups,
            retry_max_times=self.retry_max_times,
        )


class _Down:
    """Calls to a broker that can't be reached."""

    target = "down"

    async def call(
        self,
        call: Call[Req, Resp],
        request: Req,
        *,
        timeout_s: float,
        on_late: Callable[[Resp], None] | None = None,
    ) -> Resp:
        raise PeerUnavailable(self.target, "not connected")


@dataclass
class Cluster:
    """Brokers and routes: both of the proxy's ports. Topics are made with `topics`, or on demand with `creates`."""

    clock: ManualClock
    brokers: dict[str, BrokerInMemory]
    topics: dict[str, int] = field(default_factory=dict)
    creates: bool = False
    down: set[str] = field(default_factory=set)
    forgotten: list[str] = field(default_factory=list)
    doubted: list[str] = field(default_factory=list)

    def caller(self, broker_name: str) -> Caller:
        if broker_name not in self.brokers:
            raise ProxyError(Code.BAD_REQUEST, f"no broker {broker_name}")
        if broker_name in self.down:
            return _Down()
        return LocalCaller(broker_name, self.brokers[broker_name].table, clock=self.clock)

    async def route(self, topic: str, *, timeout_s: float, create: bool = False) -> TopicRoute:
        if topic not in self.topics and create and self.creates:
            self.topics[topic] = 6
        if topic not in self.topics:
            raise ProxyError(Code.TOPIC_NOT_FOUND, f"no route of {topic}")
        return TopicRoute(
            topic=topic,
            queues=[
                QueueData(
                    broker_name=broker.name,
                    cluster="c",
                    read_queue_nums=broker.queue_nums,
                    write_queue_nums=broker.queue_nums,
                    perm=self.topics[topic],
                    addresses=[BrokerAddress(broker_id=0, mesh_address=f"{broker.name}:1")],
                )
                for broker in self.brokers.values()
            ],
        )

    def kept(self, topic: str) -> None:
        """None is: whoever wants a route asks for it."""

    def brokers_of(self, topic: str) -> Sequence[str]:
        return list(self.brokers) if topic in self.topics else ()

    def forget(self, topic: str) -> None:
        self.forgotten.append(topic)

    def doubt(self, topic: str) -> None:
        self.doubted.append(topic)


def cluster_of(clock: ManualClock, *names: str) -> Cluster:
    """A cluster of brokers with these names and the topic T."""
    return Cluster(clock, {name: BrokerInMemory(name, clock) for name in names}, {"T": 6})


def half_record(topic: str, body: bytes, properties: bytes = b"") -> Record:
    """A half message as a broker shows it in a question: at offset 8 of the half topic, at 5000 of the log."""
    return Record(
        topic=topic,
        queue_id=1,
        queue_offset=8,
        physical_offset=5000,
        born_timestamp_ms=5,
        born_host=PEER_HOST,
        store_timestamp_ms=6,
        store_host=STORE_HOST,
        body=body,
        properties=properties,
    )


def context_of(clock: ManualClock, *, client_id: str = "c@1", timeout_s: float = 3.0) -> RequestContext:
    """A request that just came, of a client that waits `timeout_s`."""
    return RequestContext(
        client_id=client_id,
        language="JAVA",
        client_version="5.0.7",
        namespace="",
        peer="10.0.0.7:8000",
        peer_host=PEER_HOST,
        deadline=clock.monotonic() + timeout_s,
        request_id="r",
    )


def refuse(code: ResponseCode, kind: type) -> Callable[[object], None]:
    """A `before` that refuses requests of this type."""

    def before(request: object) -> None:
        if isinstance(request, kind):
            raise CallRefused(code, "the twin says no")

    return before
