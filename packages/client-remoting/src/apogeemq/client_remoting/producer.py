"""The producer: what an application sends, alone, together, in a transaction, or as a request that gets a reply."""

import asyncio
import functools
import os
import ssl
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from types import MappingProxyType, TracebackType
from typing import Final, Self

from apogeemq.client_api.errors import (
    ClientClosed,
    MessageInvalid,
    RecallFailed,
    ReplyTimeout,
    SendTimeout,
)
from apogeemq.client_api.message import Message, ReceivedMessage, SendReceipt, check_topic
from apogeemq.client_api.middleware import Middleware, around_send
from apogeemq.client_api.producer import SEND_TIMEOUT_S
from apogeemq.client_api.tracing import MESSAGING_MESSAGE_ID, Tracing, find_tracer
from apogeemq.client_api.transactions import Checker, Checks, Half, PlainChecker, Resolution, Transaction
from apogeemq.client_remoting import link
from apogeemq.client_remoting.core.namespaces import check_namespace, with_namespace
from apogeemq.client_remoting.core.refusals import hint_for
from apogeemq.client_remoting.core.send_retry import RETRIES_DEFAULT, SendRetry
from apogeemq.client_remoting.core.unique_keys import UniqueKeys
from apogeemq.client_remoting.instance import ClientInstance, ClientSettings, Membership, local_ip
from apogeemq.client_remoting.outgoing import Batch, Origin, Single
from apogeemq.client_remoting.requests import (
    OpenRequests,
    ReplyMessage,
    reply_address,
    reply_properties,
    reply_topic,
)
from apogeemq.client_remoting.sending import Sender, refused
from apogeemq.client_remoting.transacting import HALF_SYS_FLAG, HalfMessage, Transactions, half_properties
from apogeemq.client_remoting.version import VERSION
from apogeemq.remoting_codec.bodies import HeartbeatData, MessageQueue, ProducerData
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.errors import RemoteProtocolError
from apogeemq.remoting_codec.headers import SendMessageResponseHeader
from apogeemq.remoting_codec.headers.send import RecallMessageRequestHeader
from apogeemq.remoting_codec.message_id import decode_recall_handle

DEFAULT_GROUP: Final = "DEFAULT_PRODUCER"
NO_PROPERTIES: Final[Mapping[str, str]] = MappingProxyType({})


class Producer:
    """Sends messages over RocketMQ's Remoting protocol.

    Args:
        address: the name servers, `host:port;host:port`.
        group: producer group. For transactions it says who may be asked about them: all producers of it that live, so
            it must not be shared with producers that check otherwise.
        namespace: what topics and group are in, see `core.namespaces`; empty: none.
        retries: how often a send is tried again, see the module; 0 or more; or a whole policy.
        topics: those about whose transactions this producer may be asked, before it has sent one itself.
        checker: tells how a transaction ended that was left open, be it this process's or another's; may be asked
            several times, 64 questions at once. Without one there are no transactions.
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
        topics: Sequence[str] = (),
        checker: Checker | PlainChecker | None = None,
        middleware: Sequence[Middleware] = (),
        compress_from_bytes: int | None = None,
        tls: ssl.SSLContext | None = None,
        start_timeout_s: float = 5.0,
    ) -> None:
        check_namespace(namespace)
        self._namespace = namespace
        self._group = with_namespace(group, namespace)
        self._middleware = tuple(middleware)
        membership = Membership(self._heartbeat, producer_group=self._group)
        self._instance = ClientInstance(address, membership, ClientSettings(tls, start_timeout_s))
        self._sender = Sender(self._instance, retries if isinstance(retries, SendRetry) else SendRetry(retries=retries))
        self._tracing = Tracing(
            find_tracer("apogeemq.client_remoting", VERSION),
            client_id=self._instance.client_id,
            server=self._instance.name_server,
            namespace=namespace,
        )
        unique_keys = UniqueKeys(
            address=ip_address(local_ip(self._instance.name_server)).packed,
            process_id=os.getpid(),
            instance_hash=int(self._instance.chance() * 2**32),
        )
        self._origin = Origin(self._group, namespace, compress_from_bytes, unique_keys)
        self._requests = OpenRequests(self._instance.client_id)
        self._instance.serve({RequestCode.PUSH_REPLY_MESSAGE_TO_CLIENT: self._requests.take_reply})
        self._has_checker = checker is not None
        self._checks = Checks(checker, self._tracing)
        self._transactions = Transactions(self._instance, self._origin, self._tracing, self._checks, topics)
        self._instance.serve({RequestCode.CHECK_TRANSACTION_STATE: self._transactions.asked})

    @property
    def client_id(self) -> str:
        """What the servers know this producer by."""
        return self._instance.client_id

    async def __aenter__(self) -> Self:
        """Reach a name server. Raises StartFailed."""
        await self._instance.start()
        self._sender.is_open = True
        if self._has_checker:
            await self._transactions.be_known()
            self._instance.run(self._transactions.stay_known(), "transactions")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Say good-bye and close: sends under way end with ClientClosed."""
        self._sender.is_open = False
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
            batch = Batch(self._origin, span.messages)
            header, queue = await self._sender.send(batch, timeout_s)
            return [
                SendReceipt(
                    key, messages[0].topic, queue.broker_name, header.queue_id, header.queue_offset + number, key
                )
                for number, key in enumerate(batch.unique_keys)
            ]

    async def request(self, message: Message, *, timeout_s: float = SEND_TIMEOUT_S) -> ReplyMessage:
        """Send one message and wait for the reply that one of its consumers gives (`reply`).

        `timeout_s` is for both; the message is gone past it, and a reply that comes later is dropped.
        Raises ReplyTimeout, and as `send`; LimitReached where 10,000 requests of this producer wait.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        await self._be_reachable(with_namespace(message.topic, self._namespace), timeout_s)
        with self._tracing.send(message) as span, self._requests.opened(timeout_s) as (properties, reply):
            single = Single(self._origin, span.message, properties)
            _, queue = await self._sender.send(single, deadline - loop.time())
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
            # The topic is the cluster's, in no namespace.
            single = Single(self._origin, span.message, reply_properties(address), in_namespace=False)
            await self._instance.route(topic, timeout_s)
            await self._send_reply(single, MessageQueue(topic, request.broker_name, 0), timeout_s)

    def transaction(self, message: Message, *, timeout_s: float = SEND_TIMEOUT_S) -> Transaction:
        """A message that is delivered if, and only if, the block of `async with` ends without an error.

        `timeout_s` is for storing the half message, and again for ending the transaction. Needs a checker. Raises
        NotSupported without one, MessageInvalid for a message with a group or a delay.
        """
        self._checks.require(message)
        return Transaction(functools.partial(self._begin, message, timeout_s))

    async def recall(self, topic: str, recall_handle: str, *, timeout_s: float = SEND_TIMEOUT_S) -> str:
        """Take back a timer message that is not delivered yet, by the `recall_handle` of its receipt.

        Gives the message's id. Any producer may do it, and may do it again. Raises RecallFailed, RouteNotFound,
        SendTimeout, ConnectionBroken, ClientClosed, MessageInvalid.
        """
        self._sender.check_open()
        check_topic(topic)
        name = with_namespace(topic, self._namespace)
        try:
            broker_name = decode_recall_handle(recall_handle).broker_name
        except RemoteProtocolError as error:
            raise MessageInvalid("recall_handle", f"is {error}", hint="Only receipts of timers have one.") from error
        loop = asyncio.get_running_loop()
        started = loop.time()
        header = RecallMessageRequestHeader(
            producer_group=self._group, topic=name, recall_handle=recall_handle, bname=broker_name
        )
        with self._tracing.recall(topic) as span:
            await self._instance.route(name, timeout_s)
            broker = self._instance.master(MessageQueue(name, broker_name, 0))
            try:
                message_id = await link.recall_message(broker, header, timeout_s - (loop.time() - started))
            except TimeoutError as error:
                raise SendTimeout(
                    f"no answer to the recall of a message of topic {topic} within {timeout_s:g} s",
                    broker=broker_name,
                    attempts=1,
                    elapsed_s=loop.time() - started,
                    hint="Recall it again: that does no harm.",
                ) from error
            except link.Refusal as error:
                raise RecallFailed(
                    f"the broker did not take back a message of topic {topic}",
                    code=error.code,
                    code_name=error.code_name,
                    remark=error.remark,
                    broker=broker_name,
                    attempts=1,
                    elapsed_s=loop.time() - started,
                    hint=hint_for(error.code),
                ) from error
            span.set(MESSAGING_MESSAGE_ID, message_id)
            return message_id

    async def _send_reply(self, what: Single, queue: MessageQueue, timeout_s: float) -> None:
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
            raise refused(error, what.topic, queue, 1, loop.time() - started) from error

    async def _be_reachable(self, topic: str, timeout_s: float) -> None:
        """Be known at every broker over which a reply may come: those of the clusters that serve the topic."""
        route = await self._instance.route_to_send(topic, timeout_s)
        for cluster in route.clusters:
            replies = await self._instance.route(reply_topic(cluster), timeout_s)
            await self._instance.join([address for name in replies.addresses if (address := replies.master(name))])

    async def _send_traced(self, message: Message, timeout_s: float) -> SendReceipt:
        with self._tracing.send(message) as span:
            single = Single(self._origin, span.message)
            header, queue = await self._sender.send(single, timeout_s)
            receipt = _receipt(span.message.topic, single, header, queue)
            span.sent(receipt)
            return receipt

    async def _begin(self, message: Message, timeout_s: float) -> Half:
        """Store the half message, through the middleware; what that sends more than once is ended as often."""
        halves: list[HalfMessage] = []

        async def send(message: Message) -> SendReceipt:
            self._checks.require(message)
            with self._tracing.send(message, in_transaction=True) as span:
                single = Single(self._origin, span.message, half_properties(self._group), sys_flag=HALF_SYS_FLAG)
                header, queue = await self._sender.send(single, timeout_s)
                receipt = _receipt(span.message.topic, single, header, queue)
                halves.append(
                    HalfMessage.sent(receipt.topic, queue, receipt.message_id, header, span.message.properties)
                )
                self._transactions.began(queue.topic)
                span.sent(receipt)
                return receipt

        async def end(resolution: Resolution) -> None:
            self._sender.check_open()
            for half in halves:
                await self._transactions.end(half, resolution, timeout_s=timeout_s)

        return Half(await around_send(self._middleware, send)(message), end)

    def _heartbeat(self, client_id: str) -> HeartbeatData:
        return HeartbeatData(client_id=client_id, producer_data_set=[ProducerData(group_name=self._group)])


def _receipt(topic: str, single: Single, header: SendMessageResponseHeader, queue: MessageQueue) -> SendReceipt:
    return SendReceipt(
        single.unique_key,
        topic,
        queue.broker_name,
        header.queue_id,
        header.queue_offset,
        header.transaction_id or "",
        header.recall_handle or "",
    )


def _check_batch(messages: Sequence[Message]) -> None:
    if not messages:
        raise MessageInvalid("topic", "is unknown: a batch needs at least one message")
    if any(message.topic != messages[0].topic for message in messages):
        raise MessageInvalid("topic", "differs within a batch", hint="Send one batch for each topic.")
    if any(message.message_group != messages[0].message_group for message in messages):
        raise MessageInvalid("message_group", "differs within a batch, which goes to one queue")
    for message in messages:
        if message.delay_field is not None:
            raise MessageInvalid(message.delay_field, "cannot be set in a batch", hint="Send it by itself.")
