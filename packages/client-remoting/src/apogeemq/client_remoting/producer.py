"""The producer: one message or a batch to one of the topic's queues, again elsewhere when that makes sense.

When a send is tried again (by the producer's `SendRetry`, within its time-out):
- the broker refused it with a code that another broker may not share (nothing was stored): on another broker; on the
  same one only if the refusal is a passing one (overload, closing);
- the connection was lost before the answer: on any broker. The message may have been stored by then, so it may be
  stored twice. `retries=0` rules that out, at the price of errors that a retry would have hidden.
A broker that cannot be reached costs no retry: nothing was sent; others are tried, and then the same ones again.
A time-out is final: it has used up the time.
A message with a group goes to the group's queue alone: it is tried again there, or not at all.
"""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from types import MappingProxyType, TracebackType
from typing import Final, Self

from apogeemq.client_api.errors import (
    ClientClosed,
    ClientError,
    ConnectionBroken,
    MessageInvalid,
    ReplyTimeout,
    SendFailed,
    SendTimeout,
)
from apogeemq.client_api.message import Message, ReceivedMessage, SendReceipt, check_topic
from apogeemq.client_api.middleware import Middleware, around_send
from apogeemq.client_api.producer import SEND_TIMEOUT_S
from apogeemq.client_api.tracing import Tracing, find_tracer
from apogeemq.client_remoting import link
from apogeemq.client_remoting.connection import NotSent
from apogeemq.client_remoting.core.fault_latency import FaultLatency
from apogeemq.client_remoting.core.namespaces import check_namespace, with_namespace
from apogeemq.client_remoting.core.pull_schedule import backoff_s
from apogeemq.client_remoting.core.queue_choice import QueueChoice, queue_of_group
from apogeemq.client_remoting.core.refusals import PASSING, STORED, hint_for
from apogeemq.client_remoting.core.route_cache import TopicRoute
from apogeemq.client_remoting.core.send_retry import RETRIES_DEFAULT, SendRetry
from apogeemq.client_remoting.core.unique_keys import UniqueKeys
from apogeemq.client_remoting.instance import (
    DEFAULT_TOPIC,
    DEFAULT_TOPIC_QUEUES,
    ClientInstance,
    ClientSettings,
    Membership,
    local_ip,
)
from apogeemq.client_remoting.messages import (
    compressed,
    encode_batched_properties,
    encode_message_properties,
)
from apogeemq.client_remoting.requests import (
    OpenRequests,
    ReplyMessage,
    reply_address,
    reply_properties,
    reply_topic,
)
from apogeemq.client_remoting.version import VERSION
from apogeemq.remoting_codec.batch import BatchMessage, encode_batch
from apogeemq.remoting_codec.bodies import HeartbeatData, MessageQueue, ProducerData
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.errors import RemoteProtocolError
from apogeemq.remoting_codec.headers import SendMessageResponseHeader
from apogeemq.remoting_codec.message import PROPERTY_INSTANCE_ID

logger = logging.getLogger(__name__)

DEFAULT_GROUP: Final = "DEFAULT_PRODUCER"
NO_PROPERTIES: Final[Mapping[str, str]] = MappingProxyType({})


class Producer:
    """Sends messages over RocketMQ's Remoting protocol.

    Args:
        address: the name servers, `host:port;host:port`.
        group: producer group; matters for transactions only.
        namespace: what topics and group are in, see `core.namespaces`; empty: none.
        retries: how often a send is tried again, see the module; 0 or more; or a whole policy.
        middleware: what runs around each send, the outermost first; batches pass by it.
        compress_from_bytes: compress bodies from this size on (zlib); None: never.
        tls: for name servers and brokers; None is plain TCP.
        start_timeout_s: how long the start may take.
    """

    def __init__(
        self,
        address: str,
        *,
        group: str = DEFAULT_GROUP,
        namespace: str = "",
        retries: int | SendRetry = RETRIES_DEFAULT,
        middleware: Sequence[Middleware] = (),
        compress_from_bytes: int | None = None,
        tls: ssl.SSLContext | None = None,
        start_timeout_s: float = 5.0,
    ) -> None:
        check_namespace(namespace)
        self._namespace = namespace
        self._group = with_namespace(group, namespace)
        self._retry = retries if isinstance(retries, SendRetry) else SendRetry(retries=retries)
        self._middleware = tuple(middleware)
        self._compress_from_bytes = compress_from_bytes
        membership = Membership(self._heartbeat, producer_group=self._group)
        self._instance = ClientInstance(address, membership, ClientSettings(tls, start_timeout_s))
        self._faults = FaultLatency()
        self._choice = QueueChoice(self._faults, int(self._instance.chance() * 1_000_000))
        self._tracing = Tracing(
            find_tracer("apogeemq.client_remoting", VERSION),
            client_id=self._instance.client_id,
            server=self._instance.name_server,
            namespace=namespace,
        )
        self._unique_keys = UniqueKeys(
            address=ip_address(local_ip(self._instance.name_server)).packed,
            process_id=os.getpid(),
            instance_hash=int(self._instance.chance() * 2**32),
        )
        self._instance.route_listeners.append(
            lambda _topic: self._faults.keep_only(self._instance.routes.broker_names())
        )
        self._requests = OpenRequests(self._instance.client_id)
        self._instance.serve({RequestCode.PUSH_REPLY_MESSAGE_TO_CLIENT: self._requests.take_reply})
        self._is_open = False

    @property
    def client_id(self) -> str:
        """What the servers know this producer by."""
        return self._instance.client_id

    async def __aenter__(self) -> Self:
        """Reach a name server. Raises StartFailed."""
        await self._instance.start()
        self._is_open = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Say good-bye and close: sends under way end with ClientClosed."""
        self._is_open = False
        self._requests.give_up(ClientClosed("the producer was closed while a request waited for its reply"))
        await self._instance.close()

    async def send(self, message: Message, *, timeout_s: float = SEND_TIMEOUT_S) -> SendReceipt:
        """Send one message; the receipt means that the broker has stored it as its settings promise.

        Raises RouteNotFound, SendTimeout, SendFailed, ConnectionBroken, ClientClosed, MessageInvalid, NotSupported.
        """
        if self._middleware:
            return await around_send(self._middleware, lambda changed: self._send_traced(changed, timeout_s))(message)
        return await self._send_traced(message, timeout_s)

    async def send_batch(
        self, messages: Sequence[Message], *, timeout_s: float = SEND_TIMEOUT_S
    ) -> Sequence[SendReceipt]:
        """Send several messages of one topic in one request; they are stored all or none, in one queue.

        Raises as `send`; MessageInvalid for none, several topics, or a delivery time.
        """
        _check_batch(messages)
        with self._tracing.send_batch(messages) as span:
            batch = _Batch(self, span.messages)
            header, queue = await self._send(batch, timeout_s)
            return [
                SendReceipt(
                    key, messages[0].topic, queue.broker_name, header.queue_id, header.queue_offset + number, key
                )
                for number, key in enumerate(batch.unique_keys)
            ]

    async def request(self, message: Message, *, timeout_s: float = SEND_TIMEOUT_S) -> ReplyMessage:
        """Send one message and wait for the reply that one of its consumers gives (`reply`).

        `timeout_s` is for both; the message is gone past it, and a reply that comes later is dropped.
        Raises ReplyTimeout, and as `send`; NotSupported where more than 10,000 requests of this producer wait.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        await self._be_reachable(with_namespace(message.topic, self._namespace), timeout_s)
        with self._tracing.send(message) as span, self._requests.opened(timeout_s) as (properties, reply):
            single = _Single(self, span.message, properties)
            _, queue = await self._send(single, deadline - loop.time())
            try:
                async with asyncio.timeout_at(deadline):
                    return await reply
            except TimeoutError as error:
                raise ReplyTimeout(
                    f"no reply to a request in topic {message.topic} within {timeout_s:g} s",
                    broker=queue.broker_name,
                    elapsed_s=timeout_s,
                    hint="The request was stored: it may still be handled.",
                ) from error

    async def reply(
        self,
        request: ReceivedMessage,
        body: bytes,
        *,
        properties: Mapping[str, str] = NO_PROPERTIES,
        timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        """Answer a message that a consumer got; returns when the requester has the reply.

        It goes over the broker that the request came from, where the requester is known. It is not tried again: the
        requester's time is running. Raises NotSupported for a message that is no request, SendFailed when the
        requester is gone, and as `send`.
        """
        address = reply_address(request)
        topic = reply_topic(address.cluster)
        answer = Message(topic, body, properties=properties)
        with self._tracing.send(answer) as span:
            single = _Single(self, span.message, reply_properties(address))
            single.topic = topic  # the cluster's, in no namespace
            await self._instance.route(topic, timeout_s)
            await self._send_reply(single, MessageQueue(topic, request.broker_name, 0), timeout_s)

    async def _send_reply(self, what: "_Single", queue: MessageQueue, timeout_s: float) -> None:
        broker = self._instance.master(queue)
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            await link.send_reply(broker, what.ext_fields(queue), what.body, timeout_s)
        except TimeoutError as error:
            raise SendTimeout(
                f"no answer to a reply within {timeout_s:g} s",
                broker=queue.broker_name,
                attempts=1,
                elapsed_s=timeout_s,
            ) from error
        except link.Refusal as error:
            raise _refused(error, what.topic, queue, 1, loop.time() - started) from error

    async def _be_reachable(self, topic: str, timeout_s: float) -> None:
        """Be known at every broker over which a reply may come: those of the clusters that serve the topic."""
        route = await self._instance.route_to_send(topic, timeout_s)
        for cluster in route.clusters:
            replies = await self._instance.route(reply_topic(cluster), timeout_s)
            await self._instance.join([address for name in replies.addresses if (address := replies.master(name))])

    async def _send_traced(self, message: Message, timeout_s: float) -> SendReceipt:
        with self._tracing.send(message) as span:
            single = _Single(self, span.message)
            header, queue = await self._send(single, timeout_s)
            receipt = SendReceipt(
                single.unique_key,
                span.message.topic,
                queue.broker_name,
                header.queue_id,
                header.queue_offset,
                header.transaction_id or "",
            )
            span.sent(receipt)
            return receipt

    # -- one send, with its retries

    async def _send(self, what: "_Single | _Batch", timeout_s: float) -> tuple[SendMessageResponseHeader, MessageQueue]:
        """Send to one queue after the other until one takes it. Raises as `send`."""
        if not self._is_open:
            raise ClientClosed("the producer is closed or was not started", hint="Use it with `async with`.")
        loop = asyncio.get_running_loop()
        started = now = loop.time()
        deadline = started + timeout_s
        tried: frozenset[str] = frozenset()
        attempts = unreachable = 0
        while True:
            route = self._instance.routes.get(what.topic)
            if route is None:
                route = await self._instance.route_to_send(what.topic, deadline - now)
            queue = self._choose(what, route, tried, now)
            try:
                header = await self._send_once(what, route, queue, deadline - now)
            except TimeoutError as error:
                self._faults.failed(queue.broker_name, loop.time())
                raise SendTimeout(
                    f"no answer to a send to topic {what.topic} within {timeout_s:g} s",
                    broker=queue.broker_name,
                    attempts=attempts + 1,
                    elapsed_s=loop.time() - started,
                    hint="The message may have been stored: sending it again may store it twice.",
                ) from error
            except NotSent as error:
                self._failed(what.topic, queue, loop.time())
                tried = tried | {queue.broker_name}
                unreachable += 1
                if loop.time() >= deadline:
                    raise _given_up(error, what.topic, queue, attempts, loop.time() - started) from error
                if what.message_group is not None or len(tried) >= len({one.broker_name for one in route.write_queues}):
                    tried = frozenset()
                    wait_s = backoff_s(unreachable, self._instance.chance())
                    await asyncio.sleep(min(wait_s, max(deadline - loop.time(), 0)))
            except ConnectionBroken as error:
                self._failed(what.topic, queue, loop.time())
                attempts += 1
                may_retry = self._retry.after_lost_connection and attempts <= self._retry.retries
                if not may_retry or loop.time() >= deadline:
                    raise _given_up(error, what.topic, queue, attempts, loop.time() - started) from error
                tried = tried | {queue.broker_name}
            except link.Refusal as error:
                attempts += 1
                tried = tried | {queue.broker_name}
                may_retry = attempts <= self._retry.retries and loop.time() < deadline
                if not may_retry or not self._is_worth_it(error, what, route, tried):
                    raise _refused(error, what.topic, queue, attempts, loop.time() - started) from error
                self._refused(error, what.topic, queue, loop.time())
                if error.code in PASSING:
                    wait_s = self._retry.wait_s(attempts, self._instance.chance())
                    await asyncio.sleep(min(wait_s, max(deadline - loop.time(), 0)))
            except RemoteProtocolError as error:
                raise SendFailed(
                    f"the broker's answer to a send to topic {what.topic} cannot be read",
                    code=ResponseCode.SYSTEM_ERROR,
                    remark=str(error),
                    broker=queue.broker_name,
                    attempts=attempts + 1,
                    elapsed_s=loop.time() - started,
                ) from error
            else:
                end = loop.time()
                self._faults.sent(queue.broker_name, end - now, end)
                return header, queue
            now = loop.time()

    async def _send_once(
        self, what: "_Single | _Batch", route: TopicRoute, queue: MessageQueue, timeout_s: float
    ) -> SendMessageResponseHeader:
        """One attempt at one queue."""
        address = route.master(queue.broker_name)
        if address is None:
            raise NotSent(f"broker {queue.broker_name} has no master now", broker=queue.broker_name)
        broker = self._instance.broker(address)
        ext_fields = what.ext_fields(queue)
        if what.is_batch:
            return await link.send_batch_message(broker, ext_fields, what.body, timeout_s)
        return await link.send_message(broker, ext_fields, what.body, timeout_s)

    def _choose(self, what: "_Single | _Batch", route: TopicRoute, tried: frozenset[str], now: float) -> MessageQueue:
        if not route.write_queues:
            raise SendFailed(
                f"no queue of topic {what.topic} can be written now",
                code=ResponseCode.NO_PERMISSION,
                code_name=ResponseCode.NO_PERMISSION.name,
                hint="Its brokers have no master, or the topic's perm forbids it.",
            )
        if what.message_group is not None:
            return queue_of_group(route.write_queues, what.message_group)
        return self._choice.choose(route.write_queues, tried, now)

    def _is_worth_it(
        self, refusal: link.Refusal, what: "_Single | _Batch", route: TopicRoute, tried: frozenset[str]
    ) -> bool:
        """Whether another broker, or the same one a moment later, may take what was refused."""
        if refusal.code not in self._retry.refusals:
            return False
        if refusal.code in PASSING or what.message_group is not None:
            return refusal.code in PASSING
        return any(queue.broker_name not in tried for queue in route.write_queues)

    def _failed(self, topic: str, queue: MessageQueue, now: float) -> None:
        """A broker did not answer: prefer others, and see whether the route has changed."""
        self._faults.failed(queue.broker_name, now)
        self._instance.suspect_route(topic)

    def _refused(self, refusal: link.Refusal, topic: str, queue: MessageQueue, now: float) -> None:
        if refusal.code in PASSING:
            self._faults.failed(queue.broker_name, now)
        else:
            self._instance.suspect_route(topic)
        logger.info("broker %s refused a send to %s, trying again: %s", queue.broker_name, topic, refusal)

    def _heartbeat(self, client_id: str) -> HeartbeatData:
        return HeartbeatData(client_id=client_id, producer_data_set=[ProducerData(group_name=self._group)])

    def _unique_key(self) -> tuple[str, int]:
        """A key for a message made now, and now in ms."""
        now_ms = time.time_ns() // 1_000_000
        return self._unique_keys.next(now_ms), now_ms


class _Single:
    """One message on its way."""

    __slots__ = ("_born_ms", "_group", "_properties", "_sys_flag", "body", "message_group", "topic", "unique_key")

    is_batch = False

    def __init__(self, producer: Producer, message: Message, more_properties: str = "") -> None:
        self.topic = message.topic
        self.message_group = message.message_group
        self.body, self._sys_flag = compressed(message.body, producer._compress_from_bytes)  # noqa: SLF001 — one module
        self.unique_key, self._born_ms = producer._unique_key()  # noqa: SLF001 — one module
        self._properties = encode_message_properties(message, self.unique_key) + more_properties
        if producer._namespace:  # noqa: SLF001 — one module
            self.topic = with_namespace(message.topic, producer._namespace)  # noqa: SLF001 — one module
            check_topic(self.topic)
            self._properties += f"{PROPERTY_INSTANCE_ID}\x01{producer._namespace}\x02"  # noqa: SLF001 — one module
        self._group = producer._group  # noqa: SLF001 — one module

    def ext_fields(self, queue: MessageQueue) -> dict[str, str]:
        """The V2 header."""
        return _send_header(self._group, self.topic, queue, self._sys_flag, self._born_ms, self._properties, "false")


class _Batch:
    """Several messages on their way."""

    is_batch = True

    def __init__(self, producer: Producer, messages: Sequence[Message]) -> None:
        self.topic = with_namespace(messages[0].topic, producer._namespace)  # noqa: SLF001 — one module
        check_topic(self.topic)
        self.message_group = messages[0].message_group
        self.unique_keys: list[str] = []
        self._group = producer._group  # noqa: SLF001 — one module
        self._born_ms = 0
        parts = []
        for message in messages:
            key, self._born_ms = producer._unique_key()  # noqa: SLF001 — one module
            self.unique_keys.append(key)
            parts.append(BatchMessage(0, message.body, encode_batched_properties(message, key)))
        self.body = encode_batch(parts)

    def ext_fields(self, queue: MessageQueue) -> dict[str, str]:
        """The V2 header; the properties are the messages' own."""
        return _send_header(self._group, self.topic, queue, 0, self._born_ms, "", "true")


def _send_header(
    group: str, topic: str, queue: MessageQueue, sys_flag: int, born_ms: int, properties: str, batch: str
) -> dict[str, str]:
    """SendMessageRequestHeaderV2 as ext fields, written by hand: the hot path (a test compares it with the header)."""
    return {
        "a": group,
        "b": topic,
        "c": DEFAULT_TOPIC,
        "d": str(DEFAULT_TOPIC_QUEUES),
        "e": str(queue.queue_id),
        "f": str(sys_flag),
        "g": str(born_ms),
        "h": "0",
        "i": properties,
        "j": "0",
        "k": "false",
        "m": batch,
        "n": queue.broker_name,
    }


def _check_batch(messages: Sequence[Message]) -> None:
    if not messages:
        raise MessageInvalid("topic", "is unknown: a batch needs at least one message")
    if any(message.topic != messages[0].topic for message in messages):
        raise MessageInvalid("topic", "differs within a batch", hint="Send one batch for each topic.")
    if any(message.message_group != messages[0].message_group for message in messages):
        raise MessageInvalid("message_group", "differs within a batch, which goes to one queue")
    if any(message.delivery_timestamp_ms is not None for message in messages):
        raise MessageInvalid("delivery_timestamp_ms", "cannot be set in a batch", hint="Send it by itself.")


def _given_up(error: ConnectionBroken, topic: str, queue: MessageQueue, attempts: int, elapsed_s: float) -> ClientError:
    return ConnectionBroken(
        f"cannot send to topic {topic}: {error.text}",
        broker=queue.broker_name,
        attempts=attempts,
        elapsed_s=elapsed_s,
        hint=error.hint or "The message may have been stored: sending it again may store it twice.",
    )


def _refused(refusal: link.Refusal, topic: str, queue: MessageQueue, attempts: int, elapsed_s: float) -> SendFailed:
    what = "stored a message, but not as safely as it is set to," if refusal.code in STORED else "refused a message"
    return SendFailed(
        f"the broker {what} for topic {topic}",
        code=refusal.code,
        code_name=refusal.code_name,
        remark=refusal.remark,
        broker=queue.broker_name,
        attempts=attempts,
        elapsed_s=elapsed_s,
        hint=hint_for(refusal.code),
    )
