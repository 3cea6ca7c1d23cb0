"""The queues that a member reads: taken up where the group left off, let go, reset, or moved to another offset.

Which queues these are is decided elsewhere: by the group (`rebalance.py`), or by the application (`assignment.py`).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Final, NamedTuple

from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_remoting import link
from apogeemq.client_remoting.claims import Claims
from apogeemq.client_remoting.core.offsets import Boundary, Start, start_offset
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.client_remoting.core.subscription import Subscription
from apogeemq.client_remoting.instance import ClientInstance
from apogeemq.client_remoting.messages import is_retry_topic
from apogeemq.client_remoting.offset_store import OffsetStore
from apogeemq.client_remoting.settling import broker_of
from apogeemq.remoting_codec.bodies import MessageQueue

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S: Final = 3.0

InHand = ProcessQueue[ReceivedMessage]
Reader = Callable[[MessageQueue, Subscription, InHand], Coroutine[None, None, None]]

COMMIT_INTERVAL_S: Final = 5.0


class Assigned(NamedTuple):
    """A queue that is this member's: what is in hand of it, the task that reads it, and what is wanted of it."""

    in_hand: InHand
    reading: asyncio.Task[None]
    subscription: Subscription


class ReadQueues:
    """Keeps a reader for each queue.

    Args:
        instance: the client at its servers.
        group: the consumer group.
        start: where a group without offsets begins.
        offsets: where the group is; gets the offset of a queue that is begun.
        claims: asked before a queue is read, and told when it is not any more.
        read: makes the loop that reads a queue.
    """

    def __init__(
        self,
        *,
        instance: ClientInstance,
        group: str,
        start: Start,
        offsets: OffsetStore,
        claims: Claims,
        read: Reader,
    ) -> None:
        self._instance = instance
        self._group = group
        self._start = start
        self._offsets = offsets
        self._claims = claims
        self._read = read
        self._assigned: dict[MessageQueue, Assigned] = {}
        self.changing = asyncio.Lock()
        """Held by whoever takes up and lets go: nobody may see the other half done."""
        self.wish = asyncio.Event()
        """Set when somebody should look at once whether the right queues are read."""

    def __contains__(self, queue: MessageQueue) -> bool:
        return queue in self._assigned

    @property
    def claims(self) -> Claims:
        """What must be had before a queue is read."""
        return self._claims

    @property
    def queues(self) -> list[MessageQueue]:
        """Every queue that is read."""
        return list(self._assigned)

    @property
    def queue_count(self) -> int:
        """How many queues are this member's; at least 1, for dividing by."""
        return max(len(self._assigned), 1)

    @property
    def in_hand(self) -> Iterable[tuple[MessageQueue, InHand]]:
        """Every queue with what is in hand of it."""
        return [(queue, assigned.in_hand) for queue, assigned in self._assigned.items()]

    async def take_up(self, queue: MessageQueue, subscription: Subscription, *, appeared_later: bool) -> bool:
        """Begin to read a queue where the group left off; gives whether it was begun.

        `appeared_later`: the queue came to be while the consumer ran, so all of it is new.
        """
        if not await self._claims.claim(queue):
            logger.info("%s is still another member's", queue)
            return False
        try:
            in_hand = await self._begin(queue, appeared_later=appeared_later)
        except link.UNANSWERED as error:
            logger.info("%s cannot be taken up yet: %s", queue, error)
            return False
        self._start_reading(queue, subscription, in_hand)
        return True

    async def let_go(self, queue: MessageQueue) -> None:
        """This member does not read this queue any more."""
        assigned = self._assigned[queue]
        assigned.reading.cancel()
        await self._claims.release(queue, assigned.in_hand)
        self._assigned.pop(queue, None)
        logger.info("group %s reads %s here no more", self._group, queue)

    def forsake(self, queue: MessageQueue) -> None:
        """Let a queue go without a commit, and have it taken up anew at once if it is still ours."""
        if self._drop(queue):
            self.wish.set()

    def move(self, queue: MessageQueue, offset: int) -> None:
        """Go on reading a queue at another offset; what is in hand of it is dropped. Raises KeyError for others."""
        subscription = self._assigned[queue].subscription
        self._drop(queue)
        self._start_reading(queue, subscription, InHand(offset, is_committed=False))

    async def reset(self, offsets: Mapping[MessageQueue, int]) -> None:
        """Have those queues that are this member's begin anew at these offsets; what is in hand of them is dropped."""
        async with self.changing:
            for queue, offset in offsets.items():
                if self._drop(queue):
                    is_set = await self._offsets.set(queue, offset)
                    logger.warning("%s is reset to offset %d%s", queue, offset, "" if is_set else " in vain")
        self.wish.set()

    async def keep_committing(self) -> None:
        """Commit every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(COMMIT_INTERVAL_S)
            await self._offsets.commit_all(self.in_hand)

    def stop(self) -> list[asyncio.Task[None]]:
        """Stop all readers; gives their tasks, which are ending. What is in hand stays."""
        for assigned in self._assigned.values():
            assigned.reading.cancel()
        return [assigned.reading for assigned in self._assigned.values()]

    def _start_reading(self, queue: MessageQueue, subscription: Subscription, in_hand: InHand) -> None:
        reading = self._instance.run(self._read(queue, subscription, in_hand), f"read {queue}")
        self._assigned[queue] = Assigned(in_hand, reading, subscription)
        logger.info("group %s reads %s from offset %d", self._group, queue, in_hand.next_offset)

    def _drop(self, queue: MessageQueue) -> bool:
        """Have no more to do with a queue; gives whether it was this member's."""
        assigned = self._assigned.pop(queue, None)
        if assigned is None:
            return False
        assigned.reading.cancel()
        self._claims.forsake(queue, assigned.in_hand)
        return True

    async def _begin(self, queue: MessageQueue, *, appeared_later: bool) -> InHand:
        """An empty process queue at the offset to begin at; one that nobody committed is committed at once."""
        committed = await self._offsets.committed(queue)
        if committed is not None:
            return InHand(committed, is_committed=True)
        broker = broker_of(self._instance, queue)
        wanted = start_offset(self._start, is_retry_topic=is_retry_topic(queue.topic), appeared_later=appeared_later)
        match wanted.boundary:
            case Boundary.MIN:
                offset = await link.min_offset(broker, queue, ASK_TIMEOUT_S)
            case Boundary.MAX:
                offset = await link.max_offset(broker, queue, ASK_TIMEOUT_S)
            case Boundary.BY_TIME:
                offset = await link.offset_by_time(broker, queue, wanted.timestamp_ms, ASK_TIMEOUT_S)
        in_hand = InHand(offset, is_committed=False)
        await self._offsets.commit(queue, in_hand)
        return in_hand
