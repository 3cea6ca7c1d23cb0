"""The broker's tables as their files see them: what changed in each, and copies of a part or of the whole.

Copies are made on the event loop in slices of about a millisecond, so that no table holds the loop, whatever its size.
Entries may change between two slices. That does no harm: they are in `changed` then, and are written next.
"""

import asyncio
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from apogeemq.broker.core.consumer_offsets import TOPIC_GROUP_SEPARATOR, ConsumerOffsetTable, QueueKey
from apogeemq.broker.core.order_events import QueueKey as OrderKey
from apogeemq.broker.core.order_infos import order_info
from apogeemq.broker.core.pop_orders import PopOrders
from apogeemq.broker.core.queue_locks import LockKey, QueueLockOwners, QueueLockTable
from apogeemq.broker.core.request_modes import ModeKey, RequestModeTable
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import Topic, TopicTable
from apogeemq.broker.service.delay import DelayService
from apogeemq.remoting_codec.bodies import (
    ConsumerOffsetSerializeWrapper,
    ConsumerOrderInfoWrapper,
    DelayOffsetSerializeWrapper,
    OrderInfo,
    SubscriptionGroupConfig,
    SubscriptionGroupWrapper,
    TopicConfig,
    TopicConfigSerializeWrapper,
)
from apogeemq.remoting_codec.client_bodies import (
    MessageRequestModeSerializeWrapper,
    SetMessageRequestModeRequestBody,
)
from apogeemq.remoting_codec.fastjson import JsonBody

ENTRIES_PER_SLICE = 1_000
GROUPS_PER_SLICE = 100
"""The same for offsets, where an entry holds all queues of a topic."""

T = TypeVar("T")
KeyT = TypeVar("KeyT", bound=Hashable)


class SavedTable(Protocol[KeyT]):
    """One table, for whoever writes its file."""

    @property
    def changed(self) -> set[KeyT]:
        """Keys of the entries that changed and are not written yet; whoever writes them takes them out."""
        ...

    @property
    def version(self) -> int:
        """Rises with every change where somebody waits for `saved`."""
        ...

    async def part(self, keys: Collection[KeyT]) -> JsonBody:
        """The body of the file with these entries alone, as they are now."""
        ...

    async def whole(self) -> JsonBody:
        """The body of the file."""
        ...

    def saved(self, version: int) -> None:
        """Everything up to this version is on the disk."""
        ...


class SavedTopics:
    """topics.json.

    The DataVersion is that of before the copy: a name server takes over whatever has another version than it knows,
    but never looks at what changed under the same one (trap 26).
    """

    def __init__(self, table: TopicTable) -> None:
        self._table = table
        self.changed = table.changed
        self.saved = table.saved

    @property
    def version(self) -> int:
        """See SavedTable."""
        return self._table.version

    def part_now(self, topics: Sequence[Topic]) -> TopicConfigSerializeWrapper:
        """These few, without giving anybody else a turn."""
        configs = {topic.name: topic.config for topic in topics}
        return TopicConfigSerializeWrapper(topic_config_table=configs, data_version=self._table.data_version)

    async def part(self, keys: Collection[str]) -> TopicConfigSerializeWrapper:
        """See SavedTable."""
        return await self._copy([self._table.require(name) for name in keys])

    async def whole(self) -> TopicConfigSerializeWrapper:
        """See SavedTable."""
        return await self._copy(list(self._table))

    async def _copy(self, topics: Sequence[Topic]) -> TopicConfigSerializeWrapper:
        data_version = self._table.data_version
        configs: dict[str, TopicConfig] = {}
        for some in _slices(topics, ENTRIES_PER_SLICE):
            configs.update((topic.name, topic.config) for topic in some)
            await asyncio.sleep(0)
        return TopicConfigSerializeWrapper(topic_config_table=configs, data_version=data_version)


class SavedGroups:
    """subscriptionGroup.json. A part leaves out what is forbidden: nobody changes that yet."""

    def __init__(self, table: SubscriptionGroupTable) -> None:
        self._table = table
        self.changed = table.changed
        self.saved = table.saved

    @property
    def version(self) -> int:
        """See SavedTable."""
        return self._table.version

    async def part(self, keys: Collection[str]) -> SubscriptionGroupWrapper:
        """See SavedTable."""
        return self.part_now(keys)

    def part_now(self, keys: Collection[str]) -> SubscriptionGroupWrapper:
        """These few, without giving anybody else a turn."""
        data_version = self._table.data_version
        found = [self._table.get(name) for name in keys]
        return SubscriptionGroupWrapper(
            subscription_group_table={group.group_name: group for group in found if group is not None},
            data_version=data_version,
        )

    async def whole(self) -> SubscriptionGroupWrapper:
        """See SavedTable."""
        data_version = self._table.data_version
        groups: dict[str, SubscriptionGroupConfig] = {}
        for some in _slices(list(self._table), ENTRIES_PER_SLICE):
            groups.update((group.group_name, group) for group in some)
            await asyncio.sleep(0)
        return SubscriptionGroupWrapper(
            subscription_group_table=groups, forbidden_table=self._table.forbidden, data_version=data_version
        )


class _Pointers:
    """A table whose writing nobody waits for."""

    version = 0

    def saved(self, version: int) -> None:
        """See SavedTable."""


class SavedConsumerOffsets(_Pointers):
    """consumerOffset.json."""

    def __init__(self, table: ConsumerOffsetTable) -> None:
        self._table = table
        self.changed = table.changed

    async def part(self, keys: Collection[QueueKey]) -> ConsumerOffsetSerializeWrapper:
        """See SavedTable."""
        offsets: dict[str, dict[int, int]] = {}
        for some in _slices(list(keys), ENTRIES_PER_SLICE):
            for key, queues in self._table.part(some).items():
                offsets.setdefault(key, {}).update(queues)
            await asyncio.sleep(0)
        return ConsumerOffsetSerializeWrapper(offset_table=offsets)

    async def whole(self) -> ConsumerOffsetSerializeWrapper:
        """See SavedTable."""
        offsets: dict[str, dict[int, int]] = {}
        for some in _slices(self._table.keys(), GROUPS_PER_SLICE):
            offsets.update(self._table.to_table(some))
            await asyncio.sleep(0)
        return ConsumerOffsetSerializeWrapper(offset_table=offsets)


class SavedDelayProgress(_Pointers):
    """delayOffset.json."""

    def __init__(self, delay: DelayService) -> None:
        self._delay = delay
        self.changed = delay.changed

    async def part(self, keys: Collection[int]) -> DelayOffsetSerializeWrapper:
        """See SavedTable."""
        return DelayOffsetSerializeWrapper(offset_table={level: self._delay.progress[level] for level in keys})

    async def whole(self) -> DelayOffsetSerializeWrapper:
        """See SavedTable."""
        return DelayOffsetSerializeWrapper(offset_table=dict(self._delay.progress))


class SavedPopOrders(_Pointers):
    """consumerOrderInfo.json, with up to where in the order log each copy goes.

    Args:
        table: the queues.
        position: one past the last event in the order log.
    """

    def __init__(self, table: PopOrders, position: Callable[[], int]) -> None:
        self._table = table
        self._position = position
        self.changed = table.changed

    async def part(self, keys: Collection[OrderKey]) -> ConsumerOrderInfoWrapper:
        """See SavedTable."""
        return await self._copy(list(keys))

    async def whole(self) -> ConsumerOrderInfoWrapper:
        """See SavedTable."""
        return await self._copy(self._table.queues())

    async def _copy(self, keys: Sequence[OrderKey]) -> ConsumerOrderInfoWrapper:
        position = self._position()  # before the copy: an event that is in both does no harm, one in neither would
        table: dict[str, dict[int, OrderInfo]] = {}
        for some in _slices(keys, ENTRIES_PER_SLICE):
            for key in some:
                queue = self._table.get(key)
                if queue is not None:
                    group, topic, queue_id = key
                    table.setdefault(f"{topic}{TOPIC_GROUP_SEPARATOR}{group}", {})[queue_id] = order_info(queue)
            await asyncio.sleep(0)
        return ConsumerOrderInfoWrapper(table=table, order_log_offset=position)


class SavedQueueLocks(_Pointers):
    """queueLock.json. In one piece: 100,000 locks are a tenth of a second, and written whole every few minutes."""

    def __init__(self, table: QueueLockTable) -> None:
        self._table = table
        self.changed = table.changed

    async def part(self, keys: Collection[LockKey]) -> QueueLockOwners:
        """See SavedTable."""
        return self._table.owners(keys)

    async def whole(self) -> QueueLockOwners:
        """See SavedTable."""
        return self._table.owners()


class SavedRequestModes:
    """messageRequestMode.json."""

    def __init__(self, table: RequestModeTable) -> None:
        self._table = table
        self.changed = table.changed
        self.saved = table.saved

    @property
    def version(self) -> int:
        """See SavedTable."""
        return self._table.version

    async def part(self, keys: Collection[ModeKey]) -> MessageRequestModeSerializeWrapper:
        """See SavedTable."""
        found = [self._table.get(topic, group) for topic, group in keys]
        return _modes_body(mode for mode in found if mode is not None)

    async def whole(self) -> MessageRequestModeSerializeWrapper:
        """See SavedTable. In one piece: administrators set a handful, not a hundred thousand."""
        return _modes_body(self._table)


def _modes_body(modes: Iterable[SetMessageRequestModeRequestBody]) -> MessageRequestModeSerializeWrapper:
    by_topic: dict[str, dict[str, SetMessageRequestModeRequestBody]] = {}
    for mode in modes:
        by_topic.setdefault(mode.topic, {})[mode.consumer_group] = mode
    return MessageRequestModeSerializeWrapper(message_request_mode_map=by_topic)


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
