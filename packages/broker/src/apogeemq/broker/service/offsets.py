"""Offsets: what groups committed, where queues begin and end, which offset belongs to a time.

Source: reference broker_behaviour.md §6; traps 16, 17.
"""

from collections.abc import Callable
from typing import Literal

from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import Topic, TopicTable
from apogeemq.broker.errors import InvalidParameter, QueryNotFound, SubscriptionGroupNotExist
from apogeemq.store.message_store import MessageStore


class OffsetService:
    """Answers and keeps offsets."""

    def __init__(
        self,
        *,
        store: MessageStore,
        topics: TopicTable,
        groups: SubscriptionGroupTable,
        offsets: ConsumerOffsetTable,
        hot_window_bytes: int,
    ) -> None:
        self._store = store
        self._topics = topics
        self._groups = groups
        self._offsets = offsets
        self._hot_window_bytes = hot_window_bytes

    def query(self, topic: str, group: str, queue_id: int, *, zero_if_not_found: bool = True) -> int:
        """The committed offset of a group.

        Without one: 0 while message 0 is still there and in memory (so a new group on a young topic reads from the
        start, whatever its consumeFromWhere says: the client decides by that only when we have no answer), else
        QueryNotFound.
        """
        committed = self._offsets.query(topic, group, queue_id)
        if committed is not None:
            return committed
        if not zero_if_not_found:
            raise QueryNotFound("Not found, do not set to zero, maybe this group boot first")
        if is_young(self._store, topic, queue_id, self._hot_window_bytes):
            return 0
        raise QueryNotFound("Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first")

    def commit(self, topic: str, group: str, queue_id: int, queue_offset: int) -> None:
        """Keep a group's offset. TopicNotExist, SubscriptionGroupNotExist or InvalidParameter refuse it.

        Nothing happens while the group still has to hear of a reset of this queue.
        """
        if self._groups.get(group) is None:
            raise SubscriptionGroupNotExist(f"Group {group[:300]} not exist!")
        self._queue(topic, queue_id)
        if queue_offset < 0:
            raise InvalidParameter(f"commitOffset[{queue_offset}] is illegal, it must not be negative")
        self._offsets.commit_told(topic, group, queue_id, queue_offset)

    def max_offset(self, topic: str, queue_id: int) -> int:
        """The offset that the queue's next message will get."""
        self._queue(topic, queue_id)
        return self._store.max_offset(topic, queue_id)

    def min_offset(self, topic: str, queue_id: int) -> int:
        """The offset of the queue's oldest message."""
        self._queue(topic, queue_id)
        return self._store.min_offset(topic, queue_id)

    def by_time(self, topic: str, queue_id: int, timestamp_ms: int, boundary: str) -> Callable[[], int]:
        """A search for the offset that belongs to a store time, to be run where waiting for the disk is no harm.

        `boundary` is LOWER (first at or after) or UPPER (last at or before); clients write it in either case. What is
        wrong with the request is raised here and not by the search.
        """
        self._queue(topic, queue_id)
        if boundary.upper() not in ("LOWER", "UPPER"):
            raise InvalidParameter(f"boundaryType[{boundary[:50]}] is illegal, it must be LOWER or UPPER")
        side: Literal["upper", "lower"] = "upper" if boundary.upper() == "UPPER" else "lower"
        return lambda: self._store.offset_by_time(topic, queue_id, timestamp_ms, side)

    def earliest_store_time_ms(self, topic: str, queue_id: int) -> Callable[[], int]:
        """A look-up of when the queue's oldest message was stored (-1 for an empty queue); to be run as `by_time`'s."""
        self._queue(topic, queue_id)
        return lambda: self._store.store_time_of(topic, queue_id, self._store.min_offset(topic, queue_id))

    def _queue(self, topic_name: str, queue_id: int) -> Topic:
        topic = self._topics.require(topic_name)
        queues = max(topic.config.read_queue_nums, topic.config.write_queue_nums)
        if not 0 <= queue_id < queues:
            raise InvalidParameter(f"queueId[{queue_id}] is illegal, topic:[{topic_name}] has {queues} queues")
        return topic


def is_young(store: MessageStore, topic: str, queue_id: int, hot_window_bytes: int) -> bool:
    """Whether a queue's message 0 is still there and in memory: then a new group begins there, whatever it asks for."""
    if store.min_offset(topic, queue_id) > 0:
        return False
    unit = store.queue_unit(topic, queue_id, 0)
    return unit is not None and store.written_offset - unit[0] <= hot_window_bytes
