"""Sends messages through a proxy."""

import functools
import random
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from types import TracebackType
from typing import Final, Self

from apogeemq.client_api.errors import (
    ClientClosed,
    ClientError,
    MessageInvalid,
    NotSupported,
    RecallFailed,
    RouteNotFound,
)
from apogeemq.client_api.message import Message, SendReceipt, check_topic
from apogeemq.client_api.middleware import Middleware, around_send
from apogeemq.client_api.producer import SEND_TIMEOUT_S
from apogeemq.client_api.tracing import MESSAGING_MESSAGE_ID, Tracing, find_tracer
from apogeemq.client_api.transactions import Checker, Checks, Half, PlainChecker, Resolution, Transaction
from apogeemq.client_grpc.asking import ask_until_answered
from apogeemq.client_grpc.client import Client
from apogeemq.client_grpc.clock import Clock, SystemClock, within
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.routes import (
    FailedPlaces,
    MessageQueue,
    RoundRobin,
    TopicRoute,
    choose_queue,
    queue_of_group,
)
from apogeemq.client_grpc.core.status import no_route, refusal
from apogeemq.client_grpc.link import Tls
from apogeemq.client_grpc.methods import RECALL_MESSAGE, SEND_MESSAGE
from apogeemq.client_grpc.producer_role import ProducerRole
from apogeemq.client_grpc.sending import Sending
from apogeemq.client_grpc.transacting import HalfMessage, Transactions
from apogeemq.proto.v2 import definition_pb2, service_pb2

TRACER_NAME: Final = "apogeemq.client_grpc"


class Producer:
    """A producer for RocketMQ's gRPC protocol; see apogeemq.client_api.producer for what it promises.

    Args:
        address: the proxy's, "host:port"; several IP addresses are separated by ";". The default port is 8081.
        topics: topics whose routes are fetched at the start, so that a missing one shows there; others may be sent to.
            The server asks a producer about transactions of these topics, and of those that it has sent to.
        checker: tells how a transaction ended that was left open, be it this process's or another's; may be asked
            several times, 16 questions of a proxy at once. Without one there are no transactions.
        middleware: what runs around each `send`, outermost first.
        tls: how to speak TLS; None for plain text.
        clock: the time; tests hand in their own.
    """

    def __init__(
        self,
        address: str,
        *,
        topics: Sequence[str] = (),
        checker: Checker | PlainChecker | None = None,
        middleware: Sequence[Middleware] = (),
        tls: Tls | None = None,
        credentials: object = None,
        clock: Clock | None = None,
    ) -> None:
        refuse_credentials(credentials)
        self._access_point = Endpoints.parse(address)
        self._middleware = tuple(middleware)
        self._tls = tls
        self._clock: Clock = clock or SystemClock()
        self._role = ProducerRole(topics, self._check)
        self._checker = checker
        self._client: Client | None = None
        self._tracing = Tracing(None, client_id="")
        self._checks = Checks(checker, self._tracing)
        self._transactions: Transactions | None = None
        self._turns = RoundRobin(random.getrandbits(16))
        self._failed = FailedPlaces()

    async def __aenter__(self) -> Self:
        """Start. Raises StartFailed when the proxy does not answer within 3 s, RouteNotFound for `topics`."""
        if self._client is not None:
            raise ClientClosed("the producer is started already, or was closed", hint="Make a new one.")
        self._client = client = Client(self._access_point, self._role, clock=self._clock, tls=self._tls)
        self._tracing = Tracing(
            find_tracer(TRACER_NAME, client.identity.version),
            client_id=client.identity.client_id,
            server=self._access_point.addresses[0],
        )
        self._checks = Checks(self._checker, self._tracing)
        self._transactions = Transactions(client, self._tracing, self._checks, lambda: self._role.received.retry)
        await client.start(self._role.topics)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close: sends under way end with ClientClosed."""
        if self._client is not None:
            await self._client.close()

    async def send(self, message: Message, *, timeout_s: float = SEND_TIMEOUT_S) -> SendReceipt:
        """Send one message. It is tried again as the server's settings say, within `timeout_s` in all.

        A retry after a lost connection or a time-out may store a message twice, under one message id. The proxy chooses
        the queue and does not tell which: the receipt's broker_name is empty and its queue_id -1. Messages of a message
        group take one way only; they are stored in the order in which their sends end, so await one before the next.
        Raises RouteNotFound, SendTimeout, SendFailed, ConnectionBroken, ClientClosed.
        """
        send = functools.partial(self._send_one, timeout_s=timeout_s)
        return await around_send(self._middleware, send)(message)

    async def send_batch(
        self, messages: Sequence[Message], *, timeout_s: float = SEND_TIMEOUT_S
    ) -> Sequence[SendReceipt]:
        """Send several messages of one topic, and of one message group or none, in one request.

        Receipts are in the messages' order. The server answers for each message; those worth another attempt are sent
        again. Raises as `send`, and BatchPartlySent, a SendFailed, when only some were stored. Middleware sees no
        batches.
        """
        if not messages:
            return []
        _check_alike("topic", {message.topic for message in messages})
        _check_alike("message_group", {repr(message.message_group) for message in messages})
        with self._tracing.send_batch(messages) as scope:
            sent = await self._send_all(scope.messages, timeout_s, scope.traceparent)
            return sent.result()

    def transaction(self, message: Message, *, timeout_s: float = SEND_TIMEOUT_S) -> Transaction:
        """A message that is delivered if, and only if, the block of `async with` ends without an error.

        `timeout_s` is for storing the half message, and again for ending the transaction. Needs a checker. Raises
        NotSupported without one, MessageInvalid for a message with a group or a delay.
        """
        self._checks.require(message)
        return Transaction(functools.partial(self._begin, message, timeout_s))

    async def recall(self, topic: str, recall_handle: str, *, timeout_s: float = SEND_TIMEOUT_S) -> str:
        """Take back a delayed message that is not delivered yet, by the `recall_handle` of its receipt.

        Gives the message's id. Any producer may do it, and may do it again. Raises RecallFailed, RouteNotFound,
        SendTimeout, ConnectionBroken, ClientClosed, MessageInvalid.
        """
        client = self._started()
        check_topic(topic)
        if not recall_handle:
            raise MessageInvalid("recall_handle", "is empty", hint="Only receipts of delayed messages have one.")
        with self._tracing.recall(topic) as scope:
            answer = await ask_until_answered(
                client,
                RECALL_MESSAGE,
                self._access_point,
                service_pb2.RecallMessageRequest(
                    topic=definition_pb2.Resource(name=topic), recall_handle=recall_handle
                ),
                what=f"the recall of a message of topic {topic}",
                refused=functools.partial(_recall_refused, topic, str(self._access_point)),
                retry=self._role.received.retry,
                timeout_s=timeout_s,
                traceparent=scope.traceparent,
            )
            scope.set(MESSAGING_MESSAGE_ID, answer.message_id)
            return answer.message_id

    async def _send_one(self, message: Message, *, timeout_s: float) -> SendReceipt:
        with self._tracing.send(message) as scope:
            sent = await self._send_all([scope.message], timeout_s, scope.traceparent)
            (receipt,) = sent.result()
            scope.set(MESSAGING_MESSAGE_ID, receipt.message_id)
            return receipt

    async def _begin(self, message: Message, timeout_s: float) -> Half:
        """Store the half message, through the middleware; what that sends more than once is ended as often."""
        halves: list[HalfMessage] = []

        async def send(message: Message) -> SendReceipt:
            self._checks.require(message)
            with self._tracing.send(message, in_transaction=True) as scope:
                sent = await self._send_all([scope.message], timeout_s, scope.traceparent, in_transaction=True)
                (receipt,) = sent.result()
                scope.set(MESSAGING_MESSAGE_ID, receipt.message_id)
                halves.append(HalfMessage.sent(receipt, sent.endpoints, scope.message.properties))
                return receipt

        async def end(resolution: Resolution) -> None:
            self._started()
            assert self._transactions is not None
            for half in halves:
                await self._transactions.end(half, resolution, timeout_s=timeout_s)

        return Half(await around_send(self._middleware, send)(message), end)

    async def _check(self, command: service_pb2.RecoverOrphanedTransactionCommand, endpoints: Endpoints) -> None:
        assert self._transactions is not None, "questions come once the client has started"
        await self._transactions.check(command, endpoints)

    async def _send_all(
        self, messages: Sequence[Message], timeout_s: float, traceparent: str | None, *, in_transaction: bool = False
    ) -> Sending:
        client = self._started()
        sending = Sending(
            client,
            messages,
            deadline_s=self._clock.monotonic() + timeout_s,
            timeout_s=timeout_s,
            in_transaction=in_transaction,
        )
        while not sending.done:
            await self._attempt(client, sending, traceparent)
        return sending

    def _started(self) -> Client:
        if self._client is None:
            raise ClientClosed("the producer is not started", hint="Use it with `async with`.")
        self._client.check()
        return self._client

    async def _attempt(self, client: Client, sending: Sending, traceparent: str | None) -> None:
        """Send what is not stored yet, once; raises when that was the last attempt, else waits for the next one."""
        queue = await self._choose(client, sending)
        sending.attempt(queue)
        try:
            # The only way there is is waited for: a proxy that restarts is back within the deadline, often.
            answer = await client.link.unary(
                SEND_MESSAGE,
                queue.endpoints,
                sending.request(),
                timeout_s=sending.attempt_timeout_s,
                traceparent=traceparent,
                wait_for_connection=sending.only_way,
            )
        except ClientClosed:
            raise
        except ClientError as error:
            sending.failed(error)
        else:
            sending.answered(answer)
        if sending.done:
            self._failed.worked(queue)
            return
        self._failed.failed(queue, self._clock.monotonic())
        retry = self._role.received.retry
        if sending.attempts >= retry.max_attempts or not sending.worth_another_attempt:
            raise sending.error()
        pause_s = retry.backoff(sending.attempts)
        if pause_s >= sending.remaining_s:
            raise sending.too_late()
        await self._clock.sleep(pause_s)

    async def _choose(self, client: Client, sending: Sending) -> MessageQueue:
        queues = (await self._route(client, sending)).writable
        if not queues:
            queues = (await self._route(client, sending, fresh=True)).writable
        if not queues:
            raise RouteNotFound(
                sending.topic,
                f"topic {sending.topic} has no queue that can be written to",
                hint="Check the topic's permission and that its master brokers are there.",
            )
        if self._role.learn(sending.topic):
            await client.introduce_everywhere()
        if sending.message_group is not None:
            return queue_of_group(queues, sending.message_group)
        sending.only_way = len({queue.endpoints for queue in queues}) == 1
        return choose_queue(
            queues,
            self._turns.turn(),
            failed=self._failed,
            tried=sending.tried,
            now_s=self._clock.monotonic(),
        )

    async def _route(self, client: Client, sending: Sending, *, fresh: bool = False) -> TopicRoute:
        route = None if fresh else client.known_route(sending.topic)
        if route is not None:
            return route
        try:
            return await within(self._clock, sending.remaining_s, client.route(sending.topic, fresh=fresh))
        except TimeoutError:
            raise sending.too_late() from None


def _check_alike(field: str, values: AbstractSet[str]) -> None:
    """A batch takes one way. Raises MessageInvalid."""
    if len(values) > 1:
        raise MessageInvalid(field, f"differs within the batch: {', '.join(sorted(values)[:5])}")


def _recall_refused(topic: str, broker: str, status: definition_pb2.Status) -> ClientError:
    if status.code == definition_pb2.Code.TOPIC_NOT_FOUND:
        return no_route(topic, status, broker=broker)
    return refusal(RecallFailed, f"a message of topic {topic} could not be taken back", status, broker=broker)


def refuse_credentials(credentials: object) -> None:
    """Access keys are not taken yet: better said at once than found out by an UNAUTHORIZED later."""
    if credentials is not None:
        raise NotSupported("this client does not sign requests yet", hint="Leave credentials out.")
