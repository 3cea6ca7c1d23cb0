"""SEND_MESSAGE (10), SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320): on to the broker that the client meant.

Which header a send has is decided by its request code, never by its fields (trap 20). 5.x clients name the broker
(`bname`); older ones know it by its address only, which here is the proxy's, so one that has the queue is chosen.
As in Apache's proxy a topic takes only messages of its kind (message.type), but for retry and dead letter topics.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import count

from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.errors import CallRefused, PeerUnavailable
from apogeemq.mesh.trace_context import TRACEPARENT, format_traceparent, sampled_in_properties, trace_in_properties
from apogeemq.mesh.v1.broker_pb2 import (
    FLUSH_DISK_TIMEOUT,
    FLUSH_SLAVE_TIMEOUT,
    SEND_OK,
    SLAVE_NOT_AVAILABLE,
    SendMessageReply,
    SendMessageRequest,
)
from apogeemq.mesh.v1.methods import SEND_MESSAGE
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.message_kinds import check_properties
from apogeemq.proxy.errors import MasterAway, ProxyError
from apogeemq.proxy.faces.remoting.face import Answer, Function
from apogeemq.proxy.faces.spans import ServerSpans
from apogeemq.proxy.ports import Brokers, Routes
from apogeemq.proxy.service.failover import MasterWait
from apogeemq.remoting_codec.aio.channel import Channel
from apogeemq.remoting_codec.codes import MessageSysFlag, RequestCode, ResponseCode, request_code_name
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.send import SendMessageRequestHeader, SendMessageRequestHeaderV2
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.roles import is_not_master
from apogeemq.remoting_codec.send_reply import SendReplyEncoder

REGION = "DefaultRegion"
"""MSG_REGION of the answers: brokers tell theirs to Remoting clients only, and this is the default of all of them."""

_WRITE = 2
_NOT_CHECKED_PREFIXES = ("%RETRY%", "%DLQ%")
_IPV6_HOST_SIZE = 20

_CODE_OF_STATUS = {
    SEND_OK: ResponseCode.SUCCESS,
    FLUSH_DISK_TIMEOUT: ResponseCode.FLUSH_DISK_TIMEOUT,
    FLUSH_SLAVE_TIMEOUT: ResponseCode.FLUSH_SLAVE_TIMEOUT,
    SLAVE_NOT_AVAILABLE: ResponseCode.SLAVE_NOT_AVAILABLE,
}

_Header = SendMessageRequestHeader | SendMessageRequestHeaderV2


TopicType = Callable[[str], Awaitable[str | None]]
"""Topic → its message.type, empty for none; None while that can't be said."""


class SendRequests:
    """Answers to sends.

    timeout_s      how long a broker, and a name server, may take
    master_wait_s  how long a send waits for a master: clients do not say how long they wait, Java's do for 3 s
    topic_type     which kinds of messages a topic takes; None: any, whatever it says (enableTopicMessageTypeCheck)
    """

    def __init__(
        self,
        routes: Routes,
        brokers: Brokers,
        *,
        clock: Clock,
        chance: Chance,
        spans: ServerSpans,
        timeout_s: float,
        master_wait_s: float,
        topic_type: TopicType | None = None,
    ) -> None:
        self._topic_type = topic_type
        self._routes = routes
        self._brokers = brokers
        self._clock = clock
        self._chance = chance
        self._spans = spans
        self._timeout_s = timeout_s
        self._master_wait_s = master_wait_s
        self._replies = SendReplyEncoder(region=REGION, trace_on=True)
        self._turn = count()

    def functions(self) -> Mapping[int, Function]:
        """Request code → function."""
        return {
            RequestCode.SEND_MESSAGE: self.send_message,
            RequestCode.SEND_MESSAGE_V2: self.send_message_v2,
            RequestCode.SEND_BATCH_MESSAGE: self.send_batch_message,
        }

    async def send_message(self, channel: Channel, command: RemotingCommand) -> Answer:
        """One message; the header has long names."""
        header = SendMessageRequestHeader.decode(command.ext_fields)
        return await self._send(channel, command, header, header.bname, is_batch=bool(header.batch))

    async def send_message_v2(self, channel: Channel, command: RemotingCommand) -> Answer:
        """One message; the header has one-letter names."""
        header = SendMessageRequestHeaderV2.decode(command.ext_fields)
        return await self._send(channel, command, header, header.broker_name, is_batch=bool(header.batch))

    async def send_batch_message(self, channel: Channel, command: RemotingCommand) -> Answer:
        """The messages of a batch; the header has one-letter names."""
        header = SendMessageRequestHeaderV2.decode(command.ext_fields)
        return await self._send(channel, command, header, header.broker_name, is_batch=True)

    async def _send(
        self, channel: Channel, command: RemotingCommand, header: _Header, broker_name: str | None, *, is_batch: bool
    ) -> Answer:
        request = _mesh_request(header, command.body, channel.peer_host, is_batch=is_batch)
        with self._spans.around(request_code_name(command.code), _carrier(request.properties)) as set_status:
            if self._topic_type is not None and not header.topic.startswith(_NOT_CHECKED_PREFIXES):
                topic_type = await self._topic_type(header.topic)
                if topic_type is not None:
                    check_properties(decode_properties(request.properties), topic_type)
            reply = await self._pass_on(request, header, broker_name)
            code = _CODE_OF_STATUS.get(reply.status, ResponseCode.SYSTEM_ERROR)
            set_status(code.name, code is ResponseCode.SYSTEM_ERROR)
        return code, self._frame(command, code, reply)

    async def _pass_on(self, request: SendMessageRequest, header: _Header, broker_name: str | None) -> SendMessageReply:
        """Send to the broker that is meant, and again where it has no master now and certainly took nothing."""
        wait = MasterWait(
            header.topic, self._routes, clock=self._clock, chance=self._chance, patience_s=self._master_wait_s
        )
        while True:
            try:
                chosen = broker_name or await self._broker_with(header.topic, header.queue_id)
                return await self._brokers.caller(chosen).call(SEND_MESSAGE, request, timeout_s=self._timeout_s)
            except (MasterAway, PeerUnavailable, CallRefused) as error:
                if isinstance(error, CallRefused) and not is_not_master(error.code, error.text):
                    raise
                if not await wait.pause():
                    raise
            with suppress(ProxyError):  # who has no route may have a broker all the same, and the next try says so
                await self._routes.route(header.topic, timeout_s=self._timeout_s)  # tells where the master is

    def _frame(self, command: RemotingCommand, code: ResponseCode, reply: SendMessageReply) -> bytes:
        if code is ResponseCode.SUCCESS:
            return self._replies.encode(
                command.opaque, reply.queue_id, reply.queue_offset, reply.offset_message_id, reply.message_id
            )
        fields = self._replies.ext_fields(reply.queue_id, reply.queue_offset, reply.offset_message_id, reply.message_id)
        return encode_response_frame(command.opaque, code, fields, f"the broker answered {code.name}")

    async def _broker_with(self, topic: str, queue_id: int) -> str:
        """A broker that takes messages into this queue of the topic; they take turns."""
        route = await self._routes.route(topic, timeout_s=self._timeout_s)
        names = [
            queue.broker_name for queue in route.queues if queue.perm & _WRITE and queue_id < queue.write_queue_nums
        ]
        if not names:
            raise ProxyError(
                Code.TOPIC_NOT_FOUND,
                f"no broker takes messages into queue {queue_id} of topic {topic}; ask for its route",
            )
        return names[next(self._turn) % len(names)]


def _mesh_request(header: _Header, body: bytes, born_host: bytes, *, is_batch: bool) -> SendMessageRequest:
    sys_flag = header.sys_flag & ~MessageSysFlag.BORNHOST_V6_FLAG
    if len(born_host) == _IPV6_HOST_SIZE:
        sys_flag |= MessageSysFlag.BORNHOST_V6_FLAG
    return SendMessageRequest(
        topic=header.topic,
        queue_id=header.queue_id,
        producer_group=header.producer_group,
        flag=header.flag,
        sys_flag=sys_flag,
        born_timestamp_ms=header.born_timestamp,
        born_host=born_host,
        reconsume_times=header.reconsume_times or 0,
        max_reconsume_times=header.max_reconsume_times,
        properties=(header.properties or "").encode(),
        body=body,
        batch=is_batch,
        default_topic=header.default_topic,
        default_topic_queue_nums=header.default_topic_queue_nums,
    )


def _carrier(properties: bytes) -> Mapping[str, str] | None:
    """The trace that a message belongs to, when it is a sampled one."""
    if not sampled_in_properties(properties):
        return None
    context = trace_in_properties(properties)
    return None if context is None else {TRACEPARENT: format_traceparent(context)}
