"""Setting a group's offsets by an operator's word: to a time, to the end, or to one offset of one queue.

Done here (Apache 5.x's default), the offsets count at once and are as durable as committed ones; a consumer that runs
is told at its next pull (core/consumer_offsets.py). Done by the consumers (Apache 4.9), each member gets the offsets,
takes them up, and commits them itself. Source: reference broker_behaviour.md §6; Apache AdminBrokerProcessor.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import Topic, TopicTable
from apogeemq.broker.errors import InvalidParameter, RequestFailed, SubscriptionGroupNotExist, TopicNotExist
from apogeemq.store.message_store import MessageStore


class ResetRequest(Protocol):
    """What the operator wants (Apache's ResetOffsetRequestHeader).

    `queue_id` below 0: all queues, by time. `offset`, unless None or -1, wins over the time where one queue is named.
    `timestamp`: ms since 1970, below 0 the end. `is_force` false: a consumer takes no step forward by it.
    """

    topic: str
    group: str
    queue_id: int
    offset: int | None
    timestamp: int
    is_force: bool


class OffsetResetService:
    """Finds where a group shall stand, and sets it there."""

    def __init__(
        self,
        *,
        store: MessageStore,
        topics: TopicTable,
        groups: SubscriptionGroupTable,
        offsets: ConsumerOffsetTable,
    ) -> None:
        self._store = store
        self._topics = topics
        self._groups = groups
        self._offsets = offsets

    def targets(self, request: ResetRequest) -> Callable[[], dict[int, int]]:
        """A search for the new offset of each queue, to be run where waiting for the disk is no harm.

        What is wrong is raised here and not by the search: TopicNotExist (17), SubscriptionGroupNotExist (26),
        InvalidParameter (29, no such queue), RequestFailed (1, an offset that the queue does not have).
        """
        topic = self._checked(request)
        if request.queue_id < 0:
            return lambda: {
                queue_id: self._by_time(topic.name, queue_id, request.timestamp)
                for queue_id in range(topic.config.read_queue_nums)
            }
        queue_id, offset = request.queue_id, request.offset
        if queue_id >= topic.config.read_queue_nums:
            raise InvalidParameter(f"queueId[{queue_id}] is illegal, {topic}")
        if offset is None or offset == -1:
            return lambda: {queue_id: self._by_time(topic.name, queue_id, request.timestamp)}
        first, end = self._store.min_offset(topic.name, queue_id), self._store.max_offset(topic.name, queue_id)
        if not first <= offset <= end:
            raise RequestFailed(f"Target offset {offset} not in consume queue range [{first}-{end}]")
        return lambda: {queue_id: offset}

    def targets_for_members(self, request: ResetRequest) -> Callable[[], dict[int, int]]:
        """The same for consumers that do it themselves: without force a queue where they are further back stays.

        Raises RequestFailed (1) when the group has no offset in one of the queues: it never consumed the topic.
        """
        search = self.targets(request)
        topic, group = request.topic, request.group
        queues = self._topics.require(topic).config.read_queue_nums
        committed: dict[int, int] = {}
        for queue_id in range(queues) if request.queue_id < 0 else (request.queue_id,):
            offset = self._offsets.query(topic, group, queue_id)
            if offset is None:
                raise RequestFailed(f"THe consumer group <{group}> not exist")
            committed[queue_id] = offset
        if request.is_force:
            return search
        return lambda: {queue_id: min(offset, committed[queue_id]) for queue_id, offset in search().items()}

    def reset(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        """Set the group's offsets, by queue id. Raises SystemBusy where the table of offsets is full."""
        for queue_id, offset in offsets.items():
            self._offsets.reset(topic, group, queue_id, offset)

    def _checked(self, request: ResetRequest) -> Topic:
        topic = self._topics.get(request.topic)
        if topic is None:
            raise TopicNotExist(f"Topic {request.topic[:300]} does not exist")
        if self._groups.get(request.group) is None:
            raise SubscriptionGroupNotExist(f"Group {request.group[:300]} does not exist")
        return topic

    def _by_time(self, topic: str, queue_id: int, timestamp_ms: int) -> int:
        if timestamp_ms < 0:
            return self._store.max_offset(topic, queue_id)
        return self._store.offset_by_time(topic, queue_id, timestamp_ms, "lower")
