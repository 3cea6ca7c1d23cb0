"""Which queues this member reads: looked at every 20 s, at once when the group or a route changes, and at the start.

One round: for each topic the queues (route) and the members (one of the topic's brokers), the share of this member
(core/assign.py), then let go what is another's and take up what is ours. A topic for which a question was not answered
stays as it is, and the next round comes after a second.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Final, NamedTuple

from apogeemq.client_api.errors import ClientClosed, ConnectionBroken, RouteNotFound
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_remoting import link
from apogeemq.client_remoting.claims import Claims
from apogeemq.client_remoting.connection import Connection
from apogeemq.client_remoting.core.assign import allocate_averagely
from apogeemq.client_remoting.core.offsets import Boundary, Start, start_offset
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.client_remoting.core.route_cache import TopicRoute
from apogeemq.client_remoting.core.subscription import Subscription
from apogeemq.client_remoting.instance import ClientInstance
from apogeemq.client_remoting.messages import is_retry_topic
from apogeemq.client_remoting.settling import OffsetCommitter, broker_of
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.errors import RemoteProtocolError

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 20.0
SOON_S: Final = 1.0
ASK_TIMEOUT_S: Final = 3.0

InHand = ProcessQueue[ReceivedMessage]
_Unanswered = (ConnectionBroken, ClientClosed, TimeoutError, link.Refusal, RemoteProtocolError)


class Assigned(NamedTuple):
    """A queue that is this member's: what is in hand of it, and the task that reads it."""

    in_hand: InHand
    reading: asyncio.Task[None]


class Rebalance:
    """Keeps the assigned queues as they should be.

    Args:
        instance: the client at its servers.
        group: the consumer group.
        subscriptions: by topic, the retry topic among them.
        start: where a group without offsets begins.
        committer: commits the offset of a queue that is begun.
        claims: asked before a queue is read, and told when it is not any more.
        read: makes the loop that reads a queue.
    """

    def __init__(
        self,
        *,
        instance: ClientInstance,
        group: str,
        subscriptions: Mapping[str, Subscription],
        start: Start,
        committer: OffsetCommitter,
        claims: Claims,
        read: Callable[[MessageQueue, Subscription, InHand], Coroutine[None, None, None]],
    ) -> None:
        self._instance = instance
        self._group = group
        self._subscriptions = subscriptions
        self._start = start
        self._committer = committer
        self._claims = claims
        self._read = read
        self._assigned: dict[MessageQueue, Assigned] = {}
        self._at_start: dict[str, frozenset[MessageQueue]] = {}
        self._wish = asyncio.Event()
        self._changing = asyncio.Lock()  # a round, or a reset: neither may see the other half done

    @property
    def claims(self) -> Claims:
        """What must be had before a queue is read."""
        return self._claims

    @property
    def queue_count(self) -> int:
        """How many queues are this member's; at least 1, for dividing by."""
        return max(len(self._assigned), 1)

    @property
    def in_hand(self) -> Iterable[tuple[MessageQueue, InHand]]:
        """Every queue with what is in hand of it."""
        return [(queue, assigned.in_hand) for queue, assigned in self._assigned.items()]

    def wake(self) -> None:
        """Have the next round begin at once."""
        self._wish.set()

    async def run(self) -> None:
        """Round after round, until cancelled."""
        while True:
            self._wish.clear()
            is_settled = await self.round()
            try:
                async with asyncio.timeout(INTERVAL_S if is_settled else SOON_S):
                    await self._wish.wait()
            except TimeoutError:
                pass  # the usual case: nothing has changed

    async def round(self) -> bool:
        """One round; gives whether every question was answered."""
        async with self._changing:
            answered = [await self._balance(subscription) for subscription in self._subscriptions.values()]
        return all(answered)

    async def reset(self, offsets: Mapping[MessageQueue, int]) -> None:
        """Have those queues that are this member's begin anew at these offsets; what is in hand of them is dropped."""
        async with self._changing:
            for queue, offset in offsets.items():
                if self._drop(queue):
                    is_set = await self._committer.set(queue, offset)
                    logger.warning("%s is reset to offset %d%s", queue, offset, "" if is_set else " in vain")
        self.wake()

    def forsake(self, queue: MessageQueue) -> None:
        """Let a queue go without a commit, and take it up anew if it is still ours: in the next round, at once."""
        if self._drop(queue):
            self.wake()

    def _drop(self, queue: MessageQueue) -> bool:
        """Have no more to do with a queue; gives whether it was this member's."""
        assigned = self._assigned.pop(queue, None)
        if assigned is None:
            return False
        assigned.reading.cancel()
        self._claims.forsake(queue, assigned.in_hand)
        return True

    def stop_reading(self) -> list[asyncio.Task[None]]:
        """Stop all readers; gives their tasks, which are ending. What is in hand stays."""
        for assigned in self._assigned.values():
            assigned.reading.cancel()
        return [assigned.reading for assigned in self._assigned.values()]

    # -- one topic

    async def _balance(self, subscription: Subscription) -> bool:
        topic = subscription.topic
        try:
            route = await self._route(topic)
            if route is None:
                return True  # there is nothing to read; a new route wakes us
            client_ids = await self._members(route)
        except _Unanswered as error:
            logger.info("the queues of %s stay as they are: %s", topic, error)
            return False
        ours = set(allocate_averagely(route.read_queues, client_ids, self._instance.client_id))
        for queue in [queue for queue in self._assigned if queue.topic == topic and queue not in ours]:
            await self._let_go(queue)
        taken = [await self._take_up(queue, subscription) for queue in sorted(ours - self._assigned.keys())]
        return all(taken) and self._instance.client_id in client_ids

    async def _route(self, topic: str) -> TopicRoute | None:
        """The topic's route; None when there is none. Remembers which queues there were in the beginning."""
        try:
            route = await self._instance.route(topic, ASK_TIMEOUT_S)
        except RouteNotFound as error:
            if error.code is None:
                raise ConnectionBroken(error.text) from error
            route = None
        self._at_start.setdefault(topic, frozenset(route.read_queues if route else ()))
        return route

    async def _members(self, route: TopicRoute) -> list[str]:
        """The group's members, as the first of the topic's brokers says that can be reached.

        All brokers are greeted first: each member must be in the list of whichever broker another member asks.
        """
        addresses = [route.any_address(name) for name in sorted(route.addresses)]
        brokers = [self._instance.broker(address) for address in addresses if address is not None]
        await asyncio.gather(*(_reach(broker) for broker in brokers))
        failure: Exception = ConnectionBroken("the topic has no broker now")
        for broker in [broker for broker in brokers if broker.is_open]:
            try:
                return list(await link.consumer_ids(broker, self._group, ASK_TIMEOUT_S))
            except _Unanswered as error:
                failure = error
        raise failure

    async def _let_go(self, queue: MessageQueue) -> None:
        """Another member reads this queue from now on."""
        assigned = self._assigned[queue]
        assigned.reading.cancel()
        await self._claims.release(queue, assigned.in_hand)
        self._assigned.pop(queue, None)
        logger.info("%s of group %s is another member's now", queue, self._group)

    async def _take_up(self, queue: MessageQueue, subscription: Subscription) -> bool:
        """Begin to read a queue where the group left off; gives whether it was begun."""
        if not await self._claims.claim(queue):
            logger.info("%s is still another member's", queue)
            return False
        try:
            in_hand = await self._begin(queue)
        except _Unanswered as error:
            logger.info("%s cannot be taken up yet: %s", queue, error)
            return False
        reading = self._instance.run(self._read(queue, subscription, in_hand), f"read {queue}")
        self._assigned[queue] = Assigned(in_hand, reading)
        logger.info("group %s reads %s from offset %d", self._group, queue, in_hand.next_offset)
        return True

    async def _begin(self, queue: MessageQueue) -> InHand:
        """An empty process queue at the offset to begin at; one that nobody committed is committed at once."""
        broker = broker_of(self._instance, queue)
        committed = await link.query_consumer_offset(broker, self._group, queue, ASK_TIMEOUT_S)
        if committed is not None:
            return InHand(committed, is_committed=True)
        wanted = start_offset(
            self._start,
            is_retry_topic=is_retry_topic(queue.topic),
            appeared_later=queue not in self._at_start.get(queue.topic, frozenset()),
        )
        match wanted.boundary:
            case Boundary.MIN:
                offset = await link.min_offset(broker, queue, ASK_TIMEOUT_S)
            case Boundary.MAX:
                offset = await link.max_offset(broker, queue, ASK_TIMEOUT_S)
            case Boundary.BY_TIME:
                offset = await link.offset_by_time(broker, queue, wanted.timestamp_ms, ASK_TIMEOUT_S)
        in_hand = InHand(offset, is_committed=False)
        await self._committer.commit(queue, in_hand)
        return in_hand


async def _reach(broker: Connection) -> None:
    """Connect to a broker if it can be reached; whoever needs it sees whether it is."""
    try:
        await broker.open(ASK_TIMEOUT_S)
    except (ConnectionBroken, ClientClosed) as error:
        logger.info("broker %s is left out of this round: %s", broker.address, error)
