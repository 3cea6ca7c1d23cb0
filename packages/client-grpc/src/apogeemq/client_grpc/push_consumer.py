"""Receives by itself and hands each message to a handler, or to an `async for`.

```
QueryAssignment ─▶ one receive loop a queue ─▶ row of messages ─▶ handlers, `concurrency` at a time ─▶ settlements
   every 5 s          paused while full          (bounded)          or `async for`                       (background)
```
Everything is a loop: nothing here calls itself, however long a consumer stands still. In a group that consumes in order
the messages wait in lanes before the row (ordering.py).
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from apogeemq.client_api.errors import ClientClosed, ClientError, ConnectionBroken, NotSupported
from apogeemq.client_api.filters import Filter
from apogeemq.client_api.handling import (
    Again,
    Done,
    Handler,
    PlainHandler,
    Retry,
    RetryLater,
    Settlement,
    as_handler,
    settlement_of,
)
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_api.middleware import Middleware, around_handler
from apogeemq.client_api.tracing import Tracing, find_tracer
from apogeemq.client_grpc.client import Client, end_tasks
from apogeemq.client_grpc.clock import Clock, SystemClock, within
from apogeemq.client_grpc.commands import verify_answer
from apogeemq.client_grpc.consumer_role import ConsumerRole
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.flow import FlowLimits, Load
from apogeemq.client_grpc.core.messages import Corrupted, Origin, from_proto
from apogeemq.client_grpc.core.routes import MessageQueue
from apogeemq.client_grpc.link import Tls
from apogeemq.client_grpc.ordering import InOrder
from apogeemq.client_grpc.producer import TRACER_NAME, refuse_credentials
from apogeemq.client_grpc.receiving import Batch, Question, assigned_queues, pause_s, receive
from apogeemq.client_grpc.settlements import Settlements
from apogeemq.client_grpc.settling import Settler, receipt_of
from apogeemq.proto.v2 import definition_pb2, service_pb2

ASSIGNMENT_S: Final = 5.0
CONCURRENCY: Final = 20
CLOSE_TIMEOUT_S: Final = 10.0
GIVEN_BACK_S: Final = 1.0

_log = logging.getLogger(__name__)
_Code = definition_pb2.Code


class PushConsumer:
    """A consumer to which messages come; see apogeemq.client_api.consumer for what it promises.

    Args:
        address: the proxy's, "host:port"; several IP addresses are separated by ";". The default port is 8081.
        group: the consumer group.
        subscriptions: topic → tags, "*" or "a || b", or `Sql("a > 5")`; at least one.
        handler: called for each message; without one the messages are read by `async for`.
        retry: what becomes of messages whose handler failed; None: as the server's settings say.
        middleware: what runs around each handler call, outermost first.
        concurrency: handlers at a time, 1 or more.
        flow: receiving pauses while as many messages, or bytes, are not settled.
        tls: how to speak TLS; None for plain text.
        close_timeout_s: seconds that running handlers get to end when the consumer closes.
        clock: the time; tests hand in their own.
    """

    def __init__(
        self,
        address: str,
        *,
        group: str,
        subscriptions: Mapping[str, Filter],
        handler: Handler | PlainHandler | None = None,
        retry: Retry | None = None,
        middleware: Sequence[Middleware] = (),
        concurrency: int = CONCURRENCY,
        flow: FlowLimits | None = None,
        tls: Tls | None = None,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
        credentials: object = None,
        clock: Clock | None = None,
    ) -> None:
        refuse_credentials(credentials)
        if not subscriptions:
            raise ValueError("subscriptions is empty: give at least one topic and its filter, such as {'T': '*'}")
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; it must be 1 or more")
        self._access_point = Endpoints.parse(address)
        self._handler = None if handler is None else around_handler(middleware, as_handler(handler))
        self._retry = retry
        self._concurrency = concurrency
        self._close_timeout_s = close_timeout_s
        self._tls = tls
        self._clock: Clock = clock or SystemClock()
        self._role = ConsumerRole(definition_pb2.ClientType.PUSH_CONSUMER, group, subscriptions, self._verify)
        self._load = Load(flow or FlowLimits())
        self._room = asyncio.Event()
        self._room.set()
        self._row: asyncio.Queue[ReceivedMessage | None] = asyncio.Queue()  # bounded by the load; None: closed
        self._loops: dict[MessageQueue, asyncio.Task[None]] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._handed_out: dict[str, ReceivedMessage] = {}  # by handle, for `async for`
        self._running = 0
        self._idle = asyncio.Event()
        self._closing = False
        self._client: Client | None = None
        self._settler: Settler | None = None
        self._settlements: Settlements | None = None
        self._in_order: InOrder | None = None  # where the group wants that when the consumer starts
        self._tracing = Tracing(None, client_id="")

    async def __aenter__(self) -> Self:
        """Start. Raises StartFailed when the proxy does not answer within 3 s, RouteNotFound for a topic."""
        if self._client is not None:
            raise ClientClosed("the consumer is started already, or was closed", hint="Make a new one.")
        self._client = client = Client(self._access_point, self._role, clock=self._clock, tls=self._tls)
        self._tracing = Tracing(
            find_tracer(TRACER_NAME, client.identity.version),
            client_id=client.identity.client_id,
            group=self._role.group,
            server=self._access_point.addresses[0],
        )
        await client.start(self._role.filters)
        if self._role.received.fifo:
            self._in_order = InOrder(clock=self._clock, offer=self._offer, give_back=self._give_back)
        self._settler = Settler(client, self._role.group)
        self._settlements = Settlements(
            self._settler,
            clock=self._clock,
            settled=self._release,
            last_resort_s=self._last_resort_s,
            max_attempts=lambda: self._policy.max_attempts,
        )
        client.every(ASSIGNMENT_S, self._assign, first_s=0)
        if self._handler is not None:
            self._workers = [
                asyncio.create_task(self._work(self._handler), name=f"handler {number}")
                for number in range(self._concurrency)
            ]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close: receive no more, let running handlers end, settle what is done, say good-bye.

        Messages that no handler has begun, and those whose handler does not end in time, are delivered again.
        """
        if self._client is None or self._closing:
            return
        self._closing = True
        await end_tasks(self._loops.values())
        try:
            await within(self._clock, self._close_timeout_s, self._drain())
        except TimeoutError:
            _log.warning(
                "not everything was settled %g s after closing began, and comes again; %d handlers are cancelled",
                self._close_timeout_s,
                self._running,
            )
        finally:
            self._row.put_nowait(None)
            await end_tasks(self._workers)
            if self._in_order is not None:
                await self._in_order.close()
            if self._settlements is not None:
                await self._settlements.close()
            await self._client.close()

    async def __aiter__(self) -> AsyncIterator[ReceivedMessage]:
        """Messages one by one. Asking for the next acknowledges the one before, unless it was settled otherwise.

        Ends when the consumer closes. Leaving the loop early leaves the last message unsettled: it comes again.
        """
        if self._handler is not None:
            raise NotSupported("this consumer has a handler", hint="Leave the handler out to iterate.")
        self._check()
        while (message := await self._next()) is not None:
            handle = receipt_of(message).handle
            self._handed_out[handle] = message
            yield message
            if self._handed_out.pop(handle, None) is not None:
                self._settle(message, Done())

    async def ack(self, message: ReceivedMessage) -> None:
        """The message is dealt with. Raises SettleFailed, ConnectionBroken, ClientClosed; safe to repeat."""
        settler = self._check()
        with self._tracing.settle("ack", message) as scope:
            (settled,) = await settler.ack([message], traceparent=scope.traceparent)
            if settled.error is not None:
                raise settled.error
        self._settled_by_user(message)

    async def retry_later(self, message: ReceivedMessage, after_s: float) -> None:
        """Deliver the message again after `after_s` seconds, up to 12 h. Raises as `ack`.

        In order it stays here, and goes to the DLQ once it was delivered as often as the policy allows.
        """
        settler = self._check()
        if self._in_order is not None and self._handed_out.pop(receipt_of(message).handle, None) is not None:
            self._settle(message, settlement_of(RetryLater(after_s), message.delivery_attempt, self._policy))
            return
        with self._tracing.settle("retry", message) as scope:
            await settler.change_invisible(message, after_s, traceparent=scope.traceparent)
        self._settled_by_user(message)

    @property
    def _policy(self) -> Retry:
        return self._retry or self._role.received.retry

    def _last_resort_s(self) -> float:
        """The longest wait of the server's policy."""
        policy = self._role.received.retry
        return policy.backoff(policy.max_attempts)

    def _check(self) -> Settler:
        if self._client is None or self._settler is None:
            raise ClientClosed("the consumer is not started", hint="Use it with `async with`.")
        self._client.check()
        return self._settler

    async def _assign(self) -> None:
        """Have one receive loop for each queue that is assigned now."""
        client = self._client
        assert client is not None
        assigned: dict[MessageQueue, None] = {}
        for topic in self._role.filters:
            try:
                assigned.update(dict.fromkeys(await assigned_queues(client, self._role.group, topic)))
            except ClientError as error:
                _log.warning("the queues of topic %s are not known, the last ones stay: %s", topic, error)
                assigned.update(dict.fromkeys(queue for queue in self._loops if queue.topic == topic))
        if self._closing:
            return
        gone = [queue for queue in self._loops if queue not in assigned]
        await end_tasks([self._loops.pop(queue) for queue in gone])
        for queue in assigned:
            if queue not in self._loops:
                self._loops[queue] = asyncio.create_task(
                    self._receive_from(client, queue), name=f"receive {queue.topic} {queue.broker_name}"
                )

    async def _receive_from(self, client: Client, queue: MessageQueue) -> None:
        """Ask one queue again and again. Messages that came before a failure are kept all the same."""
        attempt_id = str(uuid.uuid4())
        while True:
            await self._room.wait()
            received, batch = self._role.received, Batch()
            question = Question(
                queue=queue,
                expression=self._role.filters[queue.topic],
                batch_size=min(max(self._load.room, 1), received.receive_batch_size),
                polling_s=received.long_polling_timeout_s,
                attempt_id=attempt_id,
            )
            pause = 0.0
            try:
                await receive(client, self._role.group, question, into=batch)
                attempt_id = str(uuid.uuid4())
            except ClientClosed:
                return
            except ClientError as error:
                # Where the answer was lost, the same attempt gets the same messages; what came may not come twice.
                if batch.received or not isinstance(error, ConnectionBroken):
                    attempt_id = str(uuid.uuid4())
                pause = pause_s(error)
                _log.info("receiving from %s of %s failed: %s", queue.topic, queue.broker_name, error)
            except Exception:  # noqa: BLE001 — one damaged answer must not end the consumption of a queue
                pause = pause_s(Exception())
                _log.exception("receiving from %s of %s failed", queue.topic, queue.broker_name)
            finally:
                self._take(batch)
            if pause:
                await self._clock.sleep(pause)

    def _take(self, batch: Batch) -> None:
        for message in batch.received:
            self._load.add(len(message.body))
        arrived = self._offer if self._in_order is None else self._in_order.arrived
        for message in batch.received:
            arrived(message)
        if not self._load.room:
            self._room.clear()

    def _offer(self, message: ReceivedMessage) -> None:
        """Its turn has come: have it handled, or tried again by the server where it is corrupted."""
        if receipt_of(message).is_readable:
            self._row.put_nowait(message)
        else:
            self._settle_at_server(message, Again(self._policy.backoff(message.delivery_attempt)))

    async def _next(self) -> ReceivedMessage | None:
        """The next message, None once the consumer closes; takes no turn of the loop while there are some."""
        if self._closing:
            return None
        try:
            return self._row.get_nowait()
        except asyncio.QueueEmpty:
            return await self._row.get()

    async def _work(self, handler: Handler) -> None:
        while not self._closing and (message := await self._row.get()) is not None:
            self._running += 1
            self._idle.clear()
            try:
                await self._process(handler, message)
            finally:
                self._running -= 1
                if not self._running:
                    self._idle.set()

    async def _process(self, handler: Handler, message: ReceivedMessage) -> None:
        with self._tracing.process(message) as scope:
            error: Exception | None = None
            try:
                await handler(message)
            except Exception as raised:  # noqa: BLE001 — a handler may raise what it likes; it settles the message
                error = raised
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise  # the consumer closes; the message comes again
                error = RuntimeError("the handler cancelled itself")
            if error is not None:
                scope.failed(error)
            settlement = settlement_of(error, message.delivery_attempt, self._policy)
            if error is not None:
                _log.info(
                    "the handler failed with delivery %d of message %s: %s",
                    message.delivery_attempt,
                    message.message_id,
                    settlement,
                    exc_info=error,
                )
            self._settle(message, settlement)

    def _settle(self, message: ReceivedMessage, settlement: Settlement) -> None:
        """Have the message settled by what became of it; in order, another attempt is made here."""
        if self._in_order is not None and isinstance(settlement, Again):
            self._in_order.again(message, settlement.after_s)
        else:
            self._settle_at_server(message, settlement)

    def _give_back(self, message: ReceivedMessage) -> None:
        """A message before it comes again from the server: this one has to come after it."""
        self._settle_at_server(message, Again(GIVEN_BACK_S))

    def _settle_at_server(self, message: ReceivedMessage, settlement: Settlement) -> None:
        """Hand over to the background; the span begins here, as a child of the one that is current."""
        assert self._settlements is not None
        name = {Done: "ack", Again: "retry"}.get(type(settlement), "dead_letter")
        self._settlements.settle(message, settlement, self._tracing.settle(name, message))

    def _settled_by_user(self, message: ReceivedMessage) -> None:
        if self._handed_out.pop(receipt_of(message).handle, None) is not None:
            self._release(message, True)

    def _release(self, message: ReceivedMessage, is_done: bool) -> None:
        self._load.remove(len(message.body))
        if self._in_order is not None:
            self._in_order.left(message, is_done=is_done)
        if self._load.room:
            self._room.set()

    async def _drain(self) -> None:
        if self._running:
            await self._idle.wait()
        if self._settlements is not None:
            await self._settlements.drain()

    async def _verify(self, command: service_pb2.VerifyMessageCommand) -> service_pb2.TelemetryCommand:
        """Try the handler on a message that the server sends; nothing is settled by it."""
        if self._handler is None:
            return verify_answer(command.nonce, _Code.UNSUPPORTED, "this consumer has no handler")
        if self._in_order is not None:
            return verify_answer(command.nonce, _Code.VERIFY_FIFO_MESSAGE_UNSUPPORTED, "this consumer keeps an order")
        origin = Origin(self._role.group, "", self._access_point, self._clock.monotonic(), 0.0)
        try:
            await self._handler(from_proto(command.message, origin))
        except Corrupted as reason:
            return verify_answer(command.nonce, _Code.MESSAGE_CORRUPTED, str(reason))
        except Exception as error:  # noqa: BLE001 — what the handler raises is the answer
            return verify_answer(command.nonce, _Code.FAILED_TO_CONSUME_MESSAGE, f"{type(error).__name__}: {error}")
        return verify_answer(command.nonce, _Code.OK, "OK")
