"""SendMessage: one message, or several of one topic that go to one queue as a batch; one with a delay and a half
message go alone.

A send goes to another broker only when the first one certainly did not take it: it could not be reached, or refused for
a reason of its own. Where all that could be asked have no master now, it waits for the next one and is tried again.
When a stream is lost or no answer comes, the outcome is unknown: the client is told so and may send again itself, as
RocketMQ's clients do (ADR 0031). Whatever happens, the answer comes within the client's deadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.errors import CallRefused, CallsOverloaded, MeshError, PeerUnavailable
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.mesh.v1.methods import SEND_MESSAGE
from apogeemq.mesh.v1.routes_pb2 import TopicRoute
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import TRANSACTION, Code, Message
from apogeemq.proxy.core.context import RequestContext
from apogeemq.proxy.core.durations import milliseconds
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.core.message_kinds import check_type
from apogeemq.proxy.core.messages import properties_of, sys_flag_of
from apogeemq.proxy.core.queue_choice import QueueChooser
from apogeemq.proxy.core.routes import WritableQueue, WritableQueues
from apogeemq.proxy.core.status import OK, common_status, error_of, error_of_send, status_of, status_of_send
from apogeemq.proxy.core.transaction_id import TransactionId
from apogeemq.proxy.core.validation import check_send
from apogeemq.proxy.errors import MasterAway, ProxyError
from apogeemq.proxy.ports import Routes
from apogeemq.proxy.service.broker_calls import ANSWER_MARGIN_S, BrokerCalls
from apogeemq.proxy.service.failover import MasterWait, MasterWaits
from apogeemq.proxy.service.metadata import Metadata
from apogeemq.remoting_codec.batch import BatchMessage, encode_batch
from apogeemq.remoting_codec.codes import MessageSysFlag, ResponseCode
from apogeemq.remoting_codec.errors import RemoteProtocolError
from apogeemq.remoting_codec.message_id import decode_offset_message_id

BROKERS_TRIED_MAX = 3

_IPV6_HOST_SIZE_BYTES = 20
_REFUSED_BY_THIS_BROKER = frozenset(
    {
        ResponseCode.SYSTEM_BUSY,
        ResponseCode.SERVICE_NOT_AVAILABLE,
        ResponseCode.NO_PERMISSION,
        ResponseCode.TOPIC_NOT_EXIST,
        ResponseCode.FLOW_CONTROL,
    }
)
"""Nothing was stored, and another broker may well take it."""


class Sending:
    """Takes clients' messages to brokers."""

    def __init__(
        self,
        routes: Routes,
        calls: BrokerCalls,
        metadata: Metadata,
        waits: MasterWaits,
        clock: Clock,
        chance: Chance,
        limits: Limits,
    ) -> None:
        self._routes = routes
        self._calls = calls
        self._metadata = metadata
        self._waits = waits
        self._clock = clock
        self._limits = limits
        self._chooser = QueueChooser(chance)
        self._writable = WritableQueues()

    async def send_message(self, request: v2.SendMessageRequest, context: RequestContext) -> v2.SendMessageResponse:
        """Send all messages; one entry each, in order. What can't be in one batch goes separately."""
        now_ms = self._clock.now_ms()
        messages = list(request.messages)
        topic = check_send(messages, now_ms, self._limits)
        # What is known already, as it is for all but the first messages of a topic, costs no coroutine.
        route = self._routes.kept(topic)
        topic_type = self._metadata.kept_topic_type(topic)
        if route is None or topic_type is None:
            route, topic_type = await self._asked(topic, context)
        for index, message in enumerate(messages):
            check_type(message, topic_type if self._limits.message_types_checked else "MIXED", f"messages[{index}]")
        queues = self._writable.of(route)
        if len(messages) == 1:
            return _response_to_one(messages[0], await self._send_run(topic, messages, queues, context))
        runs = _runs(messages)
        if len(runs) == 1:
            entries = _entries(messages, await self._send_run(topic, messages, queues, context))
        else:
            entries = [entry for run in runs for entry in await self._send_one_of_several(topic, run, queues, context)]
        return v2.SendMessageResponse(status=common_status([entry.status for entry in entries]), entries=entries)

    async def _send_one_of_several(
        self, topic: str, run: list[Message], queues: Sequence[WritableQueue], context: RequestContext
    ) -> list[v2.SendResultEntry]:
        """Like `_send_run`, but a failure is these entries' alone: what was sent before them is sent."""
        try:
            return _entries(run, await self._send_run(topic, run, queues, context))
        except ProxyError as error:
            return [v2.SendResultEntry(status=status_of(error)) for _ in run]

    async def _send_run(
        self, topic: str, run: list[Message], queues: Sequence[WritableQueue], context: RequestContext
    ) -> mesh.SendMessageReply:
        """Send messages that fit into one call, and wait for a master where there is none."""
        wait = self._wait(topic, context)
        while True:
            try:
                return await self._send_round(topic, run, queues, context)
            except MasterAway:
                if not await wait.pause():
                    raise
            queues = self._writable.of(await self._route(topic, context))

    async def _asked(self, topic: str, context: RequestContext) -> tuple[TopicRoute, str]:
        """The topic's route and message.type, of which a broker may have to be asked that is away."""
        wait = self._wait(topic, context)
        while True:
            route = await self._route(topic, context)
            try:
                return route, await self._metadata.topic_type(route, self._calls.timeout_s(context.deadline))
            except MasterAway:
                if not await wait.pause():
                    raise

    async def _route(self, topic: str, context: RequestContext) -> TopicRoute:
        return await self._routes.route(topic, timeout_s=self._calls.timeout_s(context.deadline))

    def _wait(self, topic: str, context: RequestContext) -> MasterWait:
        return self._waits.until(topic, context.deadline - 2 * ANSWER_MARGIN_S)

    async def _send_round(
        self, topic: str, run: list[Message], queues: Sequence[WritableQueue], context: RequestContext
    ) -> mesh.SendMessageReply:
        """Try one broker after the other where that can't make duplicates.

        Raises:
            MasterAway: none of them has a master now.
            ProxyError: of the last one with a master.
        """
        if not queues:
            raise ProxyError(Code.FORBIDDEN, f"topic: no writable queue of {topic}; look at its permission and masters")
        tried: set[str] = set()
        refusal: ProxyError | None = None
        message_group = run[0].system_properties.message_group
        while len(tried) < BROKERS_TRIED_MAX:
            if message_group:
                queue = self._chooser.choose_for_group(message_group, queues, tried)
            else:
                queue = self._chooser.choose(topic, queues, self._clock.monotonic(), tried)
            if queue is None:
                break
            tried.add(queue.broker_name)
            request = _mesh_request(topic, queue.queue_id, run, context, self._clock.now_ms())
            try:
                return await self._send_to(queue, request, topic, context)
            except _NotTakenError as error:
                if refusal is None or not isinstance(error.refusal, MasterAway):
                    refusal = error.refusal
        raise refusal or ProxyError(Code.INTERNAL_SERVER_ERROR, f"no broker of {topic} could be chosen")

    async def _send_to(
        self, queue: WritableQueue, request: mesh.SendMessageRequest, topic: str, context: RequestContext
    ) -> mesh.SendMessageReply:
        """One try at one broker.

        Raises:
            _NotTakenError: it certainly did not take the message, another one may.
            ProxyError: no further try makes sense.
        """
        timeout_s = self._calls.timeout_s(context.deadline)
        try:
            reply = await self._calls.brokers.caller(queue.broker_name).call(SEND_MESSAGE, request, timeout_s=timeout_s)
        except (PeerUnavailable, CallsOverloaded) as error:
            self._chooser.failed(queue.broker_name, self._clock.monotonic())
            raise _NotTakenError(error_of(error)) from error
        except MasterAway as away:
            raise _NotTakenError(away) from away
        except CallRefused as error:
            if error.code not in _REFUSED_BY_THIS_BROKER:
                raise error_of_send(error) from error
            if error.code == ResponseCode.TOPIC_NOT_EXIST:
                self._routes.forget(topic)
            self._chooser.failed(queue.broker_name, self._clock.monotonic())
            raise _NotTakenError(error_of(error)) from error
        except MeshError as error:
            self._chooser.failed(queue.broker_name, self._clock.monotonic())
            raise error_of(error) from error
        self._chooser.succeeded(queue.broker_name)
        if request.sys_flag & MessageSysFlag.TRANSACTION_PREPARED_TYPE and reply.status == mesh.SEND_OK:
            reply.transaction_id = _transaction_id(queue.broker_name, reply)
        return reply


class _NotTakenError(Exception):
    """A try that certainly stored nothing. `refusal` is what the client is told if no further try goes well."""

    def __init__(self, refusal: ProxyError) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def _runs(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages that follow each other and may go as a batch: of one system flag and message group, without a delay,
    no half messages.
    """
    runs: list[list[Message]] = []
    for (_, is_alone, _), group in groupby(messages, key=_batch_key):
        run = list(group)
        runs += [[message] for message in run] if is_alone else [run]
    return runs


def _batch_key(message: Message) -> tuple[int, bool, str]:
    system = message.system_properties
    is_alone = system.HasField("delivery_timestamp") or system.message_type == TRANSACTION
    return sys_flag_of(message), is_alone, system.message_group


def _transaction_id(broker_name: str, reply: mesh.SendMessageReply) -> str:
    """What the producer ends its transaction with. Raises ProxyError: the broker did not say where the message is."""
    try:
        physical_offset = decode_offset_message_id(reply.offset_message_id)[1]
    except RemoteProtocolError as error:
        text = f"{broker_name} answered without the half message's place: {error}"
        raise ProxyError(Code.INTERNAL_SERVER_ERROR, text) from error
    return str(TransactionId(reply.queue_offset, physical_offset, broker_name))


def _mesh_request(
    topic: str, queue_id: int, run: list[Message], context: RequestContext, now_ms: int
) -> mesh.SendMessageRequest:
    """The call for one message, or for several as a batch."""
    first = run[0]
    sys_flag = sys_flag_of(first)
    if len(context.peer_host) == _IPV6_HOST_SIZE_BYTES:
        sys_flag |= MessageSysFlag.BORNHOST_V6_FLAG
    request = mesh.SendMessageRequest(
        topic=topic,
        queue_id=queue_id,
        producer_group=topic,
        sys_flag=sys_flag,
        born_timestamp_ms=milliseconds(first.system_properties.born_timestamp) or now_ms,
        born_host=context.peer_host,
    )
    if len(run) == 1:
        request.properties = properties_of(first, topic)
        request.body = first.body
    else:
        request.batch = True
        request.body = encode_batch(BatchMessage(0, message.body, properties_of(message, topic)) for message in run)
    return request


_ONE_STORED = v2.SendMessageResponse(status=OK, entries=[v2.SendResultEntry(status=OK)])
"""Copied, and completed, for each message that was stored: half the cost of making it piece by piece."""


def _response_to_one(message: Message, reply: mesh.SendMessageReply) -> v2.SendMessageResponse:
    """The response to a request with one message."""
    if reply.status != mesh.SEND_OK:
        entries = _entries([message], reply)
        return v2.SendMessageResponse(status=entries[0].status, entries=entries)
    response = v2.SendMessageResponse()
    response.CopyFrom(_ONE_STORED)
    entry = response.entries[0]
    entry.message_id = message.system_properties.message_id
    entry.transaction_id = reply.transaction_id
    entry.offset = reply.queue_offset
    if reply.recall_handle:
        entry.recall_handle = reply.recall_handle
    return response


def _entries(run: list[Message], reply: mesh.SendMessageReply) -> list[v2.SendResultEntry]:
    """One entry per message. One that may be lost on a failure names no message id, as in Apache's answers."""
    status = status_of_send(reply.status)
    if reply.status != mesh.SEND_OK:
        return [v2.SendResultEntry(status=status) for _ in run]
    return [
        v2.SendResultEntry(
            status=status,
            message_id=message.system_properties.message_id,
            transaction_id=reply.transaction_id,
            offset=reply.queue_offset + index,
            recall_handle=reply.recall_handle,
        )
        for index, message in enumerate(run)
    ]
