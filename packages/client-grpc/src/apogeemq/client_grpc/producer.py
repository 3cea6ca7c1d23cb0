"""Sends messages through a proxy."""

import functools
import random
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from apogeemq.client_api.errors import (
    ClientClosed,
    ClientError,
    MessageInvalid,
    NotSupported,
    RouteNotFound,
    SendFailed,
    SendTimeout,
)
from apogeemq.client_api.message import Message, SendReceipt
from apogeemq.client_api.middleware import Middleware, around_send
from apogeemq.client_api.producer import SEND_TIMEOUT_S
from apogeemq.client_api.tracing import MESSAGING_MESSAGE_ID, Tracing, find_tracer
from apogeemq.client_grpc.client import Client
from apogeemq.client_grpc.clock import Clock, SystemClock, within
from apogeemq.client_grpc.commands import answer_common
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.messages import to_proto
from apogeemq.client_grpc.core.routes import FailedPlaces, MessageQueue, RoundRobin, TopicRoute, choose_queue
from apogeemq.client_grpc.core.settings import Described, ProducerSettings, producer_settings
from apogeemq.client_grpc.core.status import is_fine, is_worth_another_attempt, refusal
from apogeemq.client_grpc.link import NoAnswer, Tls
from apogeemq.client_grpc.methods import SEND_MESSAGE
from apogeemq.proto.v2 import definition_pb2, service_pb2

TRACER_NAME: Final = "apogeemq.client_grpc"


class BatchPartlySent(SendFailed):
    """Some messages of a batch were stored and some were refused for good.

    `receipts` has one entry for each message, in order: its receipt, or None where it was refused.
    """

    def __init__(self, cause: SendFailed, receipts: Sequence[SendReceipt | None]) -> None:
        stored = sum(receipt is not None for receipt in receipts)
        super().__init__(
            f"{stored} of {len(receipts)} messages were stored; of the others the first failed so: {cause.text}",
            code=cause.code or 0,
            code_name=cause.code_name,
            broker=cause.broker,
            attempts=cause.attempts,
            elapsed_s=cause.elapsed_s,
            hint=cause.hint,
        )
        self.receipts = tuple(receipts)


class Producer:
    """A producer for RocketMQ's gRPC protocol; see apogeemq.client_api.producer for what it promises.

    Args:
        address: the proxy's, "host:port"; several IP addresses are separated by ";". The default port is 8081.
        topics: topics whose routes are fetched at the start, so that a missing one shows there; others may be sent to.
        middleware: what runs around each `send`, outermost first.
        tls: how to speak TLS; None for plain text.
        clock: the time; tests hand in their own.
    """

    def __init__(
        self,
        address: str,
        *,
        topics: Sequence[str] = (),
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
        self._role = _ProducerRole(topics)
        self._client: Client | None = None
        self._tracing = Tracing(None, client_id="")
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
        the queue and does not tell which: the receipt's broker_name is empty and its queue_id -1.
        Raises RouteNotFound, SendTimeout, SendFailed, ConnectionBroken, ClientClosed.
        """
        send = functools.partial(self._send_one, timeout_s=timeout_s)
        return await around_send(self._middleware, send)(message)

    async def send_batch(
        self, messages: Sequence[Message], *, timeout_s: float = SEND_TIMEOUT_S
    ) -> Sequence[SendReceipt]:
        """Send several messages of one topic in one request. Receipts are in the messages' order.

        The server answers for each message; those worth another attempt are sent again. Raises as `send`, and
        BatchPartlySent, a SendFailed, when only some were stored. Middleware sees no batches.
        """
        if not messages:
            return []
        topics = {message.topic for message in messages}
        if len(topics) > 1:
            raise MessageInvalid("topic", f"differs within the batch: {', '.join(sorted(topics)[:5])}")
        with self._tracing.send_batch(messages) as scope:
            return await self._send_all(scope.messages, timeout_s, scope.traceparent)

    async def _send_one(self, message: Message, *, timeout_s: float) -> SendReceipt:
        with self._tracing.send(message) as scope:
            (receipt,) = await self._send_all([scope.message], timeout_s, scope.traceparent)
            scope.set(MESSAGING_MESSAGE_ID, receipt.message_id)
            return receipt

    async def _send_all(
        self, messages: Sequence[Message], timeout_s: float, traceparent: str | None
    ) -> list[SendReceipt]:
        client = self._client
        if client is None:
            raise ClientClosed("the producer is not started", hint="Use it with `async with`.")
        client.check()
        sending = _Sending(client, messages, deadline_s=self._clock.monotonic() + timeout_s, timeout_s=timeout_s)
        while not sending.done:
            await self._attempt(client, sending, traceparent)
        return sending.result()

    async def _attempt(self, client: Client, sending: "_Sending", traceparent: str | None) -> None:
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

    async def _choose(self, client: Client, sending: "_Sending") -> MessageQueue:
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
        sending.only_way = len({queue.endpoints for queue in queues}) == 1
        return choose_queue(
            queues,
            self._turns.turn(),
            failed=self._failed,
            tried=sending.tried,
            now_s=self._clock.monotonic(),
        )

    async def _route(self, client: Client, sending: "_Sending", *, fresh: bool = False) -> TopicRoute:
        route = None if fresh else client.known_route(sending.topic)
        if route is not None:
            return route
        try:
            return await within(self._clock, sending.remaining_s, client.route(sending.topic, fresh=fresh))
        except TimeoutError:
            raise sending.too_late() from None


class _ProducerRole:
    """A producer in the eyes of its connections."""

    client_type = definition_pb2.ClientType.PRODUCER
    group = None

    def __init__(self, topics: Sequence[str]) -> None:
        self.topics = list(dict.fromkeys(topics))
        self.received = ProducerSettings()

    def learn(self, topic: str) -> bool:
        """Count a topic among those published to; True when it is new."""
        if topic in self.topics:
            return False
        self.topics.append(topic)
        return True

    def settings(self, described: Described) -> definition_pb2.Settings:
        return described.publishing(self.topics)

    def take_settings(self, settings: definition_pb2.Settings) -> None:
        self.received = producer_settings(settings)

    async def answer(self, command: service_pb2.TelemetryCommand) -> service_pb2.TelemetryCommand | None:
        return answer_common(command)


class _Sending:
    """One send from its first attempt to its last: what is stored already, what was tried, what went wrong."""

    def __init__(self, client: Client, messages: Sequence[Message], *, deadline_s: float, timeout_s: float) -> None:
        self.topic = messages[0].topic
        self.only_way = True
        self.attempts = 0
        self.tried: set[str] = set()
        self.broker: str | None = None
        self.last_error: ClientError | None = None
        self._client = client
        self._deadline_s = deadline_s
        self._timeout_s = timeout_s
        self._receipts: list[SendReceipt | None] = [None] * len(messages)
        self._refused_for_good = False
        now_ms = client.clock.now_ms()
        self._parts = [
            to_proto(
                message,
                message_id=client.identity.message_ids.next(),
                born_timestamp_ms=now_ms,
                born_host=client.identity.hostname,
            )
            for message in messages
        ]

    @property
    def done(self) -> bool:
        """Every message is stored."""
        return None not in self._receipts

    @property
    def remaining_s(self) -> float:
        """Time left for everything that is still to do."""
        return self._deadline_s - self._client.clock.monotonic()

    @property
    def attempt_timeout_s(self) -> float:
        """Time for one attempt: half of what is left where there is another way to try after it."""
        return max(self.remaining_s if self.only_way else self.remaining_s / 2, 0.001)

    @property
    def worth_another_attempt(self) -> bool:
        """Something failed that may succeed elsewhere or later, and nothing is refused for good."""
        if self._refused_for_good or isinstance(self.last_error, (NotSupported, RouteNotFound)):
            return False
        code = None if self.last_error is None else self.last_error.code
        return code is None or is_worth_another_attempt(code)

    def attempt(self, queue: MessageQueue) -> None:
        """Count one attempt at a queue."""
        self.attempts += 1
        self.tried.add(queue.broker_name)
        self.broker = queue.broker_name

    def request(self) -> service_pb2.SendMessageRequest:
        """What is not stored yet."""
        parts = [part for part, receipt in zip(self._parts, self._receipts, strict=True) if receipt is None]
        return service_pb2.SendMessageRequest(messages=parts)

    def failed(self, error: ClientError) -> None:
        """The attempt ended without an answer."""
        self.last_error = error

    def answered(self, answer: service_pb2.SendMessageResponse) -> None:
        """Take the receipts of what was stored, and the first error of what was not."""
        waiting = [index for index, receipt in enumerate(self._receipts) if receipt is None]
        text = f"topic {self.topic} did not take the message"
        self.last_error = None
        if not is_fine(answer.status) and not answer.entries:
            self._refused(text, answer.status)
            return
        if len(answer.entries) != len(waiting):
            bad = definition_pb2.Status(
                code=definition_pb2.Code.INTERNAL_ERROR,
                message=f"{len(answer.entries)} results for {len(waiting)} messages",
            )
            self._refused(text, bad)
            return
        for index, entry in zip(waiting, answer.entries, strict=True):
            if is_fine(entry.status):
                self._receipts[index] = SendReceipt(
                    message_id=entry.message_id or self._parts[index].system_properties.message_id,
                    topic=self.topic,
                    broker_name="",
                    queue_id=-1,
                    queue_offset=entry.offset,
                    transaction_id=entry.transaction_id,
                )
            else:
                self._refused(text, entry.status)

    def result(self) -> list[SendReceipt]:
        """The receipts, once done."""
        return [receipt for receipt in self._receipts if receipt is not None]

    def error(self) -> ClientError:
        """Why this send is given up."""
        error = self.last_error
        assert error is not None, "a send is given up only after a failure"
        if isinstance(error, NoAnswer):
            return self.too_late()
        error.attempts, error.elapsed_s = self.attempts, self._timeout_s - self.remaining_s
        if isinstance(error, SendFailed) and any(self._receipts):
            return BatchPartlySent(error, self._receipts)
        return error

    def too_late(self) -> SendTimeout:
        """The time is up, whatever came before."""
        late = SendTimeout(
            f"sending to topic {self.topic} was not done within {self._timeout_s:g} s"
            + (f"; the last attempt: {self.last_error.text}" if self.last_error else ""),
            broker=self.broker,
            attempts=self.attempts,
            elapsed_s=self._timeout_s - self.remaining_s,
            hint="The message may have been stored all the same.",
        )
        late.__cause__ = self.last_error
        return late

    def _refused(self, text: str, status: definition_pb2.Status) -> None:
        error = refusal(SendFailed, text, status, broker=self.broker, attempts=self.attempts)
        self._refused_for_good = self._refused_for_good or not is_worth_another_attempt(status.code)
        self.last_error = self.last_error or error


def refuse_credentials(credentials: object) -> None:
    """Access keys are not taken yet: better said at once than found out by an UNAUTHORIZED later."""
    if credentials is not None:
        raise NotSupported("this client does not sign requests yet", hint="Leave credentials out.")
