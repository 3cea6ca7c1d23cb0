"""The pull consumer: the application asks for messages when it wants some, as Java's lite pull consumer.

Under it the same readers as the push consumer's, which fetch ahead into a buffer (core/poll_buffer.py). Which queues
they read, the group decides (subscriptions) or the application (`assign`).
"""

import asyncio
import ssl
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, Self, TypeVar

from apogeemq.client_api.errors import ClientClosed, ConnectionBroken, NotSupported, ReceiveFailed
from apogeemq.client_api.filters import Filter
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_api.tracing import Tracing, find_tracer
from apogeemq.client_remoting import link
from apogeemq.client_remoting.assignment import Assignment
from apogeemq.client_remoting.broker_requests import BrokerRequests, Profile, java_properties
from apogeemq.client_remoting.checking import check_expressions, start_checked
from apogeemq.client_remoting.claims import NoClaims
from apogeemq.client_remoting.consumer_group import consumer_heartbeat, group_name, read_subscriptions
from apogeemq.client_remoting.core.namespaces import with_namespace, without_namespace
from apogeemq.client_remoting.core.offsets import Start, check_start, timestamp_ms
from apogeemq.client_remoting.core.poll_buffer import PollBuffer
from apogeemq.client_remoting.core.pull_schedule import FlowLimits
from apogeemq.client_remoting.core.refusals import hint_for
from apogeemq.client_remoting.core.subscription import Subscription, parse_subscription
from apogeemq.client_remoting.instance import ClientInstance, ClientSettings, Membership
from apogeemq.client_remoting.messages import receipt_of
from apogeemq.client_remoting.queue_reader import QueueReader
from apogeemq.client_remoting.reading import InHand, ReadQueues
from apogeemq.client_remoting.rebalance import Rebalance
from apogeemq.client_remoting.settling import OffsetCommitter, Settler, broker_of
from apogeemq.client_remoting.version import VERSION
from apogeemq.remoting_codec.bodies import ConsumeType, HeartbeatData, MessageQueue, SubscriptionData

ASK_TIMEOUT_S: Final = 3.0
RETRIES_MAX: Final = 16
"""Told to brokers with a message whose body cannot be read, which goes to the DLQ."""

T = TypeVar("T")


class PullConsumer:
    """Messages on demand, over RocketMQ's Remoting protocol. For one task: `poll` says that the last ones are done.

    Args:
        address: the name servers, `host:port;host:port`.
        group: the consumer group, whose offsets are used.
        subscriptions: topic → `*`, tags or `Sql("a > 5")`; the group's members divide the queues among themselves.
            Without any, name queues by `assign`.
        namespace: what topics and group are in, see `core.namespaces`; empty: none. Queues carry the servers' names of
            their topics.
        start: where a group without offsets begins: `latest`, `earliest`, a datetime with a zone, or ms since 1970.
        auto_commit: whether what was polled is committed by itself: the next `poll` or `assign`, or leaving the
            `async with` without an error, says that the messages are done with, and offsets are committed every 5 s
            and at the end. Otherwise `commit` says both.
        flow: bounds on what is fetched and not polled, or not done with yet.
        tls: for name servers and brokers; None is plain TCP.
        start_timeout_s: how long the start may take.

    Raises ValueError, MessageInvalid and NotSupported for arguments that cannot work.
    """

    def __init__(
        self,
        address: str,
        *,
        group: str,
        subscriptions: Mapping[str, Filter] | None = None,
        namespace: str = "",
        start: Start = "latest",
        auto_commit: bool = True,
        flow: FlowLimits | None = None,
        tls: ssl.SSLContext | None = None,
        start_timeout_s: float = 5.0,
    ) -> None:
        group = group_name(group, namespace)
        self._group = group
        self._namespace = namespace
        self._subscriptions = read_subscriptions(subscriptions or {}, namespace)
        self._start = check_start(start)
        self._auto_commit = auto_commit
        self._limits = flow or FlowLimits()
        self._started_ms = time.time_ns() // 1_000_000
        self._instance = ClientInstance(
            address, Membership(self._heartbeat, consumer_group=group), ClientSettings(tls, start_timeout_s)
        )
        self._tracing = Tracing(
            find_tracer("apogeemq.client_remoting", VERSION),
            client_id=self._instance.client_id,
            group=group,
            server=self._instance.name_server,
            namespace=namespace,
        )
        self._committer = OffsetCommitter(self._instance, group)
        self._settler = Settler(
            instance=self._instance,
            group=group,
            reconsume_times_max=RETRIES_MAX,
            redeliver=self._put_back,
            tracing=self._tracing,
        )
        self._buffer = PollBuffer[ReceivedMessage](_is_current)
        self._filled = asyncio.Event()
        self._reading = ReadQueues(
            instance=self._instance,
            group=group,
            start=self._start,
            offsets=self._committer,
            claims=NoClaims(self._committer if auto_commit else None),
            read=self._read,
        )
        self._assignment = Assignment(self._reading)
        profile = Profile(
            group=group,
            namespace=namespace,
            is_orderly=False,
            properties=java_properties(
                address, ConsumeType.CONSUME_ACTIVELY, started_ms=self._started_ms, concurrency=1, is_orderly=False
            ),
            subscriptions=self._subscription_data,
        )
        self._instance.serve(BrokerRequests(self._instance, self._reading, None, profile).handlers())
        self._keeping: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def client_id(self) -> str:
        """What the servers know this consumer by."""
        return self._instance.client_id

    async def __aenter__(self) -> Self:
        """Reach a name server, have SQL expressions checked, and begin to fetch. Raises StartFailed."""
        await start_checked(self._instance, self._group, self._subscriptions.values(), self._started_ms)
        self._instance.route_listeners.append(lambda _topic: self._reading.wish.set())
        if self._subscriptions:
            rebalance = Rebalance(self._instance, self._group, self._subscriptions, self._reading)
            self._keeping = self._instance.run(rebalance.run(), "rebalance")
        else:
            self._keeping = self._instance.run(self._assignment.run(), "assignment")
        if self._auto_commit:
            self._instance.run(self._reading.keep_committing(), "offsets")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop fetching, commit (see `auto_commit`), unregister, close. A `poll` that waits ends with ClientClosed."""
        if self._is_closed or self._keeping is None:
            return
        self._is_closed = True
        self._filled.set()
        self._keeping.cancel()
        await asyncio.gather(self._keeping, *self._reading.stop(), return_exceptions=True)
        if self._auto_commit:
            if exc_type is None:
                self._polled_is_done()
            await self._committer.commit_all(self._reading.in_hand)
        await self._instance.close()

    # -- messages

    async def poll(self, max_messages: int = 32, timeout_s: float = 5.0) -> list[ReceivedMessage]:
        """Up to `max_messages`, as soon as there are any; none when none came within `timeout_s`.

        Raises ClientClosed, ValueError.
        """
        self._check()
        if max_messages < 1:
            raise ValueError(f"max_messages is {max_messages}; it must be 1 or more")
        if self._auto_commit:
            self._polled_is_done()
        topics = {without_namespace(queue.topic, self._namespace) for queue in self._reading.queues}
        with self._tracing.receive(";".join(sorted(topics))) as span:
            try:
                async with asyncio.timeout(timeout_s):
                    while not (taken := self._buffer.take(max_messages)):
                        self._filled.clear()
                        await self._filled.wait()
                        self._check()
            except TimeoutError:
                return []
            span.received(taken)
            return taken

    def pause(self, queues: Iterable[MessageQueue]) -> None:
        """Have `poll` give nothing of these queues, until they are resumed. Some is fetched ahead all the same."""
        self._buffer.pause(queues)

    def resume(self, queues: Iterable[MessageQueue]) -> None:
        """Have `poll` give messages of these queues again."""
        self._buffer.resume(queues)
        self._filled.set()

    # -- queues

    @property
    def assigned(self) -> list[MessageQueue]:
        """The queues that are read now."""
        return sorted(self._reading.queues)

    async def queues(self, topic: str) -> Sequence[MessageQueue]:
        """All queues of a topic that may be read. Raises RouteNotFound, ClientClosed."""
        self._check()
        return (await self._instance.route(with_namespace(topic, self._namespace), ASK_TIMEOUT_S)).read_queues

    async def assign(self, queues: Iterable[MessageQueue], filters: Mapping[str, Filter] | None = None) -> None:
        """Read these queues and no others, whoever else reads them; `filters` by topic, everything without.

        Begins where the group left off, else as `start` says; `seek` begins elsewhere.
        Raises NotSupported with subscriptions, RouteNotFound, StartFailed for wrong SQL, ClientClosed.
        """
        self._check()
        if self._subscriptions:
            raise NotSupported(
                "the group divides this consumer's queues", hint="Leave subscriptions out to assign queues yourself."
            )
        named = {with_namespace(topic, self._namespace): one for topic, one in (filters or {}).items()}
        wanted: dict[MessageQueue, Subscription] = {}
        for queue in sorted(set(queues)):
            await self._instance.route(queue.topic, ASK_TIMEOUT_S)
            wanted[queue] = parse_subscription(queue.topic, named.get(queue.topic, "*"))
        by_topic = {subscription.topic: subscription for subscription in wanted.values()}
        await check_expressions(self._instance, self._group, by_topic.values(), self._started_ms)
        if self._auto_commit:
            self._polled_is_done()
        await self._assignment.name(wanted)

    # -- offsets

    async def seek(self, queue: MessageQueue, offset: int) -> None:
        """Go on at this offset of a queue; what was fetched of it is dropped. Raises ValueError, ClientClosed."""
        self._check()
        if offset < 0:
            raise ValueError(f"offset is {offset}; it must be 0 or more")
        async with self._reading.changing:
            if queue not in self._reading:
                raise ValueError(f"{queue} is not read by this consumer now")
            self._reading.move(queue, offset)

    async def seek_to_begin(self, queue: MessageQueue) -> None:
        """Go on at the oldest message kept. Raises as `seek`, and ReceiveFailed, ConnectionBroken."""
        broker = broker_of(self._instance, queue)
        await self.seek(queue, await self._asked(queue, link.min_offset(broker, queue, ASK_TIMEOUT_S)))

    async def seek_to_end(self, queue: MessageQueue) -> None:
        """Go on at what is sent from now on. Raises as `seek_to_begin`."""
        broker = broker_of(self._instance, queue)
        await self.seek(queue, await self._asked(queue, link.max_offset(broker, queue, ASK_TIMEOUT_S)))

    async def offset_for_timestamp(self, queue: MessageQueue, moment: datetime | int) -> int:
        """The offset of the first message stored at that time (a datetime with a zone, or ms since 1970) or later.

        Raises ValueError, RouteNotFound, ReceiveFailed, ConnectionBroken, ClientClosed.
        """
        self._check()
        wanted_ms = timestamp_ms(moment)
        await self._instance.route(queue.topic, ASK_TIMEOUT_S)
        broker = broker_of(self._instance, queue)
        return await self._asked(queue, link.offset_by_time(broker, queue, wanted_ms, ASK_TIMEOUT_S))

    async def committed(self, queue: MessageQueue) -> int | None:
        """What the group has committed; None when it has not. Raises as `offset_for_timestamp`."""
        self._check()
        await self._instance.route(queue.topic, ASK_TIMEOUT_S)
        broker = broker_of(self._instance, queue)
        return await self._asked(queue, link.query_consumer_offset(broker, self._group, queue, ASK_TIMEOUT_S))

    async def commit(self) -> None:
        """What was polled is done with: commit the offsets now. Raises ConnectionBroken, ClientClosed."""
        self._check()
        self._polled_is_done()
        if not await self._committer.commit_all(self._reading.in_hand):
            raise ConnectionBroken(
                "not every offset is committed", hint="Commit again; the log has the brokers and their reasons."
            )

    # --

    async def _asked(self, queue: MessageQueue, question: Coroutine[None, None, T]) -> T:
        """A broker's answer, or an error of the client's."""
        try:
            return await question
        except link.Refusal as error:
            raise ReceiveFailed(
                f"the broker does not answer for {queue}",
                code=error.code,
                code_name=error.code_name,
                remark=error.remark,
                broker=queue.broker_name,
                attempts=1,
                hint=hint_for(error.code),
            ) from error
        except TimeoutError as error:
            raise ConnectionBroken(
                f"no answer for {queue} in time", broker=queue.broker_name, attempts=1, elapsed_s=ASK_TIMEOUT_S
            ) from error

    def _polled_is_done(self) -> None:
        for message in self._buffer.settle_polled():
            self._settler.done(message)

    def _read(self, queue: MessageQueue, subscription: Subscription, in_hand: InHand) -> Coroutine[None, None, None]:
        """The loop that reads a queue."""

        def put(messages: Iterable[ReceivedMessage]) -> None:
            self._buffer.put(queue, messages)
            self._filled.set()

        reader = QueueReader(
            instance=self._instance,
            group=self._group,
            namespace=self._namespace,
            subscription=subscription,
            queue=queue,
            in_hand=in_hand,
            hand_over=put,
            settler=self._settler,
            limits=self._limits,
            queue_count=lambda: self._reading.queue_count,
        )
        return reader.run()

    def _put_back(self, messages: Iterable[ReceivedMessage]) -> None:
        for message in messages:
            self._buffer.put(receipt_of(message).queue, [message])
        self._filled.set()

    def _subscription_data(self) -> list[SubscriptionData]:
        return [subscription.data(self._started_ms) for subscription in self._subscriptions.values()]

    def _heartbeat(self, client_id: str) -> HeartbeatData:
        return consumer_heartbeat(
            client_id, self._group, ConsumeType.CONSUME_ACTIVELY, self._start, self._subscription_data()
        )

    def _check(self) -> None:
        if self._keeping is None or self._is_closed:
            raise ClientClosed("the consumer is closed or was not started", hint="Use it with `async with`.")


def _is_current(message: ReceivedMessage) -> bool:
    return receipt_of(message).is_current(message.queue_offset)
