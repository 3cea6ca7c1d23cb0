"""Receives when asked, and settles when told."""

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from apogeemq.client_api.errors import ClientClosed, ClientError, ConnectionBroken, ReceiveFailed, SettleFailed
from apogeemq.client_api.filters import Filter
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_api.tracing import Tracing, find_tracer
from apogeemq.client_grpc.client import ROUTE_REFRESH_S, Client, end_tasks
from apogeemq.client_grpc.clock import Clock, SystemClock
from apogeemq.client_grpc.consumer_role import ConsumerRole, check_filter
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.routes import MessageQueue, RoundRobin
from apogeemq.client_grpc.core.surplus import Surplus
from apogeemq.client_grpc.link import Tls
from apogeemq.client_grpc.producer import TRACER_NAME, refuse_credentials
from apogeemq.client_grpc.receiving import Batch, Question, assigned_queues, may_pass, pause_s, receive, rotated
from apogeemq.client_grpc.settling import ACK_ENTRIES_MAX, INVISIBLE_S_MAX, Settler, receipt_of
from apogeemq.proto.v2 import definition_pb2

BATCH_SIZE_MAX: Final = 32  # servers hand out no more at once
QUESTIONS_AT_ONCE_MAX: Final = 16

_log = logging.getLogger(__name__)


class AckAllFailed(SettleFailed):
    """Some messages of an ack_all could not be acknowledged. `messages` are those; they are delivered again."""

    def __init__(self, first: ClientError, messages: Sequence[ReceivedMessage], of: int) -> None:
        super().__init__(
            f"{len(messages)} of {of} messages are not acknowledged; the first failed so: {first.text}",
            code=first.code or definition_pb2.Code.INTERNAL_ERROR,
            code_name=first.code_name,
            broker=first.broker,
            attempts=1,
            hint=first.hint,
        )
        self.messages = tuple(messages)


class SimpleConsumer:
    """A consumer that is asked; see apogeemq.client_api.consumer for what it promises.

    Args:
        address: the proxy's, "host:port"; several IP addresses are separated by ";". The default port is 8081.
        group: the consumer group.
        subscriptions: topic → tags, "*" or "a || b", or `Sql("a > 5")`; may be changed later.
        tls: how to speak TLS; None for plain text.
        clock: the time; tests hand in their own.
    """

    def __init__(
        self,
        address: str,
        *,
        group: str,
        subscriptions: Mapping[str, Filter],
        tls: Tls | None = None,
        credentials: object = None,
        clock: Clock | None = None,
    ) -> None:
        refuse_credentials(credentials)
        self._access_point = Endpoints.parse(address)
        self._tls = tls
        self._clock: Clock = clock or SystemClock()
        self._role = ConsumerRole(definition_pb2.ClientType.SIMPLE_CONSUMER, group, subscriptions)
        self._client: Client | None = None
        self._tracing = Tracing(None, client_id="")
        self._turns = RoundRobin(random.getrandbits(16))
        self._surplus = Surplus()
        self._assigned: dict[str, tuple[float, tuple[MessageQueue, ...]]] = {}  # topic → (asked at, queues)

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
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close: receives under way end with ClientClosed; messages not settled are delivered again."""
        if self._client is not None:
            await self._client.close()

    async def subscribe(self, topic: str, expression: Filter = "*") -> None:
        """Receive from this topic too, or by another filter. Raises RouteNotFound, ConnectionBroken."""
        client = self._started()
        check_filter(topic, expression)
        await client.route(topic)
        self._role.filters[topic] = expression
        await client.introduce_everywhere()

    async def unsubscribe(self, topic: str) -> None:
        """Receive from this topic no more; nothing happens when it was not subscribed to."""
        client = self._started()
        if self._role.filters.pop(topic, None) is not None:
            self._assigned.pop(topic, None)
            await client.introduce_everywhere()

    async def receive(
        self, max_messages: int = BATCH_SIZE_MAX, *, invisible_s: float = 30.0, await_s: float = 15.0
    ) -> list[ReceivedMessage]:
        """Up to `max_messages` from any broker that has some; none when none came within `await_s`.

        All brokers are asked at once and the first that has messages ends the others' questions; what they sent
        meanwhile is kept for the next receive. A lost connection is waited for within `await_s`.

        Args:
            max_messages: 1 or more; a server hands out at most 32 at once.
            invisible_s: seconds that the messages are this consumer's; Apache's proxy takes 10 s to 12 h.
            await_s: seconds to wait for a message; servers wait from 5 s to 20 s whatever is asked.

        Raises ReceiveFailed, RouteNotFound, ConnectionBroken, ClientClosed.
        """
        client = self._started()
        _check_receive(max_messages, invisible_s, await_s)
        if not self._role.filters:
            raise ValueError("nothing is subscribed to: give subscriptions, or call subscribe")
        until_s = self._clock.monotonic() + await_s
        with self._tracing.receive(";".join(self._role.filters)) as scope:
            while True:
                kept = self._surplus.take(max_messages, now_s=self._clock.monotonic(), invisible_s=invisible_s)
                if kept:
                    scope.received(kept)
                    return kept
                polling_s = max(until_s - self._clock.monotonic(), 0.0)
                try:
                    messages = await self._ask_all(client, max_messages, invisible_s, polling_s, scope.traceparent)
                except (ConnectionBroken, ReceiveFailed) as error:
                    pause = pause_s(error)
                    if not may_pass(error) or self._clock.monotonic() + pause >= until_s:
                        raise
                    _log.info("receiving failed, it is tried again in %s s: %s", pause, error)
                    await self._clock.sleep(pause)
                    continue
                scope.received(messages)
                return messages

    async def ack(self, message: ReceivedMessage) -> None:
        """The message is dealt with. Raises SettleFailed, ConnectionBroken, ClientClosed; safe to repeat."""
        settler = self._settler()
        with self._tracing.settle("ack", message) as scope:
            (settled,) = await settler.ack([message], traceparent=scope.traceparent)
            if settled.error is not None:
                raise settled.error

    async def ack_all(self, messages: Sequence[ReceivedMessage]) -> None:
        """All these messages are dealt with; one call for up to 32 of one topic and proxy.

        Every message is tried. Raises AckAllFailed, a SettleFailed that has the messages that are not acknowledged.
        """
        settler = self._settler()
        by_place: dict[tuple[Endpoints, str], list[ReceivedMessage]] = {}
        for message in messages:
            by_place.setdefault((receipt_of(message).endpoints, message.topic), []).append(message)
        failed: list[ReceivedMessage] = []
        first: ClientError | None = None
        for together in by_place.values():
            for start in range(0, len(together), ACK_ENTRIES_MAX):
                part = together[start : start + ACK_ENTRIES_MAX]
                error = await self._ack_part(settler, part, failed)
                first = first or error
        if first is not None:
            raise AckAllFailed(first, failed, len(messages)) from first

    async def change_invisible(self, message: ReceivedMessage, invisible_s: float) -> ReceivedMessage:
        """The message becomes visible again `invisible_s` seconds from now (0 to 12 h) unless it is settled before.

        The message given back replaces the old one, whose receipt is void. Raises as `ack`.
        """
        settler = self._settler()
        if not 0 <= invisible_s <= INVISIBLE_S_MAX:
            raise ValueError(f"invisible_s is {invisible_s}; it must be from 0 to {INVISIBLE_S_MAX:g} seconds")
        with self._tracing.settle("retry", message) as scope:
            return await settler.change_invisible(message, invisible_s, traceparent=scope.traceparent)

    async def _ack_part(
        self, settler: Settler, part: Sequence[ReceivedMessage], failed: list[ReceivedMessage]
    ) -> ClientError | None:
        """Acknowledge one request's worth; adds what is not acknowledged to `failed` and gives the first error."""
        with self._tracing.settle("ack", part[0]) as scope:
            try:
                settled = await settler.ack(part, traceparent=scope.traceparent)
            except (SettleFailed, ConnectionBroken) as error:
                scope.failed(error)
                failed.extend(part)
                return error
            failed.extend(each.message for each in settled if each.error is not None)
            return next((each.error for each in settled if each.error is not None), None)

    def _started(self) -> Client:
        if self._client is None:
            raise ClientClosed("the consumer is not started", hint="Use it with `async with`.")
        self._client.check()
        return self._client

    def _settler(self) -> Settler:
        return Settler(self._started(), self._role.group)

    async def _queues(self, client: Client) -> list[MessageQueue]:
        """All queues of all topics; a topic's are asked for anew after 30 s or a failure."""
        now_s = self._clock.monotonic()
        for topic in list(self._role.filters):
            asked_s, _ = self._assigned.get(topic, (None, ()))
            if asked_s is None or now_s - asked_s >= ROUTE_REFRESH_S:
                self._assigned[topic] = (now_s, await assigned_queues(client, self._role.group, topic))
        queues = [queue for topic in self._role.filters for queue in self._assigned[topic][1]]
        if not queues:
            self._assigned.clear()
            raise ReceiveFailed(
                f"no queue of {', '.join(self._role.filters)} can be read",
                code=definition_pb2.Code.FORBIDDEN,
                code_name="FORBIDDEN",
                hint="Check the topics' permissions and that their brokers are there.",
            )
        return rotated(queues, self._turns.turn())[:QUESTIONS_AT_ONCE_MAX]

    async def _ask_all(
        self, client: Client, max_messages: int, invisible_s: float, polling_s: float, traceparent: str | None
    ) -> list[ReceivedMessage]:
        """Ask all queues at once until one has messages. Raises when every question failed."""
        queues = await self._queues(client)
        batches = [Batch() for _ in queues]
        asking = {
            asyncio.create_task(
                receive(
                    client,
                    self._role.group,
                    Question(
                        queue=queue,
                        expression=self._role.filters.get(queue.topic, "*"),
                        batch_size=min(max_messages, BATCH_SIZE_MAX),
                        polling_s=polling_s,
                        invisible_s=invisible_s,
                    ),
                    into=batch,
                    traceparent=traceparent,
                )
            )
            for queue, batch in zip(queues, batches, strict=True)
        }
        try:
            errors = await _first_messages(asking, batches)
        finally:
            # Also when this receive is cancelled: what has come is kept, and handed out by the next one.
            await end_tasks(asking)
            messages = [message for batch in batches for message in batch.messages]
            self._surplus.add(messages[max_messages:])
            if (task := asyncio.current_task()) is not None and task.cancelling():
                self._surplus.add(messages[:max_messages])
        if errors:
            self._assigned.clear()
        if not messages and len(errors) == len(asking):
            raise errors[0]
        return messages[:max_messages]


async def _first_messages(asking: set[asyncio.Task[None]], batches: Sequence[Batch]) -> list[ClientError]:
    """Wait until one question brought messages, or all are answered; gives the errors of those that failed."""
    errors: list[ClientError] = []
    waiting = asking
    while waiting and not any(batch.messages for batch in batches):
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            try:
                task.result()
            except ClientError as error:
                errors.append(error)
    return errors


def _check_receive(max_messages: int, invisible_s: float, await_s: float) -> None:
    if max_messages < 1:
        raise ValueError(f"max_messages is {max_messages}; it must be 1 or more")
    if not 0 < invisible_s <= INVISIBLE_S_MAX:
        raise ValueError(f"invisible_s is {invisible_s}; it must be above 0, up to {INVISIBLE_S_MAX:g} seconds")
    if await_s < 0:
        raise ValueError(f"await_s is {await_s}; it must be 0 or more seconds")
