"""The tables under config/ as bytes: what a master gives its replicas, and what a replica writes of them.

A change has the form of the whole with the changed entries alone, and is applied by entry: an object's keys are joined,
level by level, anything else is replaced. Once more what is so already does no harm. Source: architecture §6.10.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import msgspec
from apogeemq.broker.core.queue_locks import LockKey, QueueLockOwners, QueueLockTable
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import Topic, TopicTable
from apogeemq.broker.metadata_files import MetadataFiles
from apogeemq.broker.service.saved_tables import SavedGroups, SavedTopics
from apogeemq.remoting_codec.bodies import (
    ConsumerOffsetSerializeWrapper,
    ConsumerOrderInfoWrapper,
    DelayOffsetSerializeWrapper,
    SubscriptionGroupConfig,
    SubscriptionGroupWrapper,
    TopicConfigSerializeWrapper,
)
from apogeemq.remoting_codec.client_bodies import MessageRequestModeSerializeWrapper
from apogeemq.remoting_codec.fastjson import JsonBody
from apogeemq.store.config_journal import JournaledFile

TOPICS, GROUPS, MODES = "topics", "subscriptionGroup", "messageRequestMode"
CONSUMER_OFFSETS, DELAY_OFFSETS, POP_ORDERS = "consumerOffset", "delayOffset", "consumerOrderInfo"
QUEUE_LOCKS = "queueLock"
"""Names of the tables between brokers: those of their files."""
POINTERS = frozenset({CONSUMER_OFFSETS, DELAY_OFFSETS, POP_ORDERS})
"""Those that say how far something is in the log."""

_BODIES: dict[str, type[JsonBody]] = {
    TOPICS: TopicConfigSerializeWrapper,
    GROUPS: SubscriptionGroupWrapper,
    MODES: MessageRequestModeSerializeWrapper,
    CONSUMER_OFFSETS: ConsumerOffsetSerializeWrapper,
    DELAY_OFFSETS: DelayOffsetSerializeWrapper,
    POP_ORDERS: ConsumerOrderInfoWrapper,
    QUEUE_LOCKS: QueueLockOwners,
}

BodyT = TypeVar("BodyT", bound=JsonBody)

_log = logging.getLogger(__name__)


class TableCopies:
    """The files of a broker that has no tables in memory: it follows, or its epoch has only begun.

    Args:
        open_files: opens them; asked once, with the first use.
    """

    def __init__(self, open_files: Callable[[], MetadataFiles]) -> None:
        self._open_files = open_files
        self._files: dict[str, JournaledFile] | None = None
        self._unknown: set[str] = set()

    async def wholes(self) -> Sequence[tuple[str, bytes]]:
        """Each table that has a file, with its changes. Errors: BodyInvalid, JournalDamaged, OSError."""
        return await asyncio.to_thread(self._wholes)

    async def take(self, name: str, data: bytes, whole: bool) -> None:
        """Write a table, or a change of one; on the disk when it returns.

        Errors: BodyInvalid for what is no such table, with nothing written; DiskFull, OSError.
        """
        await asyncio.to_thread(self._take, name, data, whole)

    def _opened(self) -> dict[str, JournaledFile]:
        if self._files is None:
            files = self._open_files()
            self._files = {
                TOPICS: files.topics,
                GROUPS: files.groups,
                MODES: files.request_modes,
                CONSUMER_OFFSETS: files.consumer_offsets,
                DELAY_OFFSETS: files.delay_offsets,
                POP_ORDERS: files.pop_orders,
                QUEUE_LOCKS: files.queue_locks,
            }
            for file in self._files.values():
                file.load()  # a journal is continued only by who has read it
        return self._files

    def _wholes(self) -> list[tuple[str, bytes]]:
        return [(name, body.encode()) for name in self._opened() if (body := self._whole(name)) is not None]

    def _whole(self, name: str) -> JsonBody | None:
        text, changes = self._opened()[name].load()
        if text is None:
            return None
        body = _BODIES[name].decode(text)
        for change in changes:
            body = joined(body, _BODIES[name].decode(change))
        return body

    def _take(self, name: str, data: bytes, whole: bool) -> None:
        file = self._opened().get(name)
        if file is None:
            if name not in self._unknown:
                self._unknown.add(name)
                _log.warning("the master keeps a table %r that this version does not know: update this broker", name)
            return
        body = _BODIES[name].decode(data)
        if not whole and file.append(data):
            return
        before = None if whole else self._whole(name)
        file.save((body if before is None else joined(before, body)).encode(pretty=True))


def tell_changes(
    topics: TopicTable, groups: SubscriptionGroupTable, locks: QueueLockTable, tell: Callable[[str, bytes], None]
) -> None:
    """Have each change of these three told by name, in the very moment that it happens."""
    saved_topics, saved_groups = SavedTopics(topics), SavedGroups(groups)

    def topics_changed(changed: list[Topic]) -> None:
        tell(TOPICS, saved_topics.part_now(changed).encode())

    def groups_changed(changed: list[SubscriptionGroupConfig]) -> None:
        tell(GROUPS, saved_groups.part_now([group.group_name for group in changed]).encode())

    def locks_changed(changed: Collection[LockKey]) -> None:
        tell(QUEUE_LOCKS, locks.owners(changed).encode())

    topics.on_change(topics_changed)
    groups.on_change(groups_changed)
    locks.on_change(locks_changed)


def joined(body: BodyT, change: BodyT) -> BodyT:
    """The table with this change."""
    fields = msgspec.structs.fields(type(body))
    values = {each.name: _joined(getattr(body, each.name), getattr(change, each.name)) for each in fields}
    return type(body)(**values)


def _joined(value: object, change: object) -> object:
    if isinstance(value, dict) and isinstance(change, dict):
        return {**value, **{key: _joined(value.get(key), each) for key, each in change.items()}}
    return value if change is None else change
