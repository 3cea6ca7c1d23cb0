"""The broker's tables as the JSON files that Apache writes under config/: topics, subscriptionGroup, consumerOffset,
delayOffset, messageRequestMode and consumerOrderInfo; and queueLock, which Apache has not. Beside each its journal.

A change in a journal has the form of the file itself, with the entries alone that are now so: loading reads the file,
then each change in the same way. Formats: reference broker_behaviour.md §6, §9; docs/formats/store.md for the journals.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from apogeemq.broker.core.consumer_offsets import TOPIC_GROUP_SEPARATOR, ConsumerOffsetTable
from apogeemq.broker.core.order_infos import queue_order
from apogeemq.broker.core.pop_orders import PopOrders
from apogeemq.broker.core.queue_locks import QueueLockOwners, QueueLockTable
from apogeemq.broker.core.request_modes import RequestModeTable
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import TopicTable
from apogeemq.remoting_codec.bodies import (
    ConsumerOffsetSerializeWrapper,
    ConsumerOrderInfoWrapper,
    DelayOffsetSerializeWrapper,
    SubscriptionGroupWrapper,
    TopicConfigSerializeWrapper,
)
from apogeemq.remoting_codec.client_bodies import MessageRequestModeSerializeWrapper
from apogeemq.remoting_codec.fastjson import JsonBody
from apogeemq.store.config_journal import JournaledFile
from apogeemq.store.files import Disk

BodyT = TypeVar("BodyT", bound=JsonBody)


@dataclass(slots=True)
class MetadataFiles:
    """The seven files of one broker, and what goes in and out of them."""

    topics: JournaledFile
    groups: JournaledFile
    consumer_offsets: JournaledFile
    delay_offsets: JournaledFile
    request_modes: JournaledFile
    pop_orders: JournaledFile
    queue_locks: JournaledFile

    def load_topics(self, table: TopicTable) -> None:
        """Read topics.json into the table."""
        for body in _read(self.topics, TopicConfigSerializeWrapper):
            table.load(body.topic_config_table.values(), body.data_version)

    def load_groups(self, table: SubscriptionGroupTable) -> None:
        """Read subscriptionGroup.json into the table."""
        for number, body in enumerate(_read(self.groups, SubscriptionGroupWrapper)):
            forbidden = body.forbidden_table if number == 0 else None  # changes are of groups alone
            table.load(body.subscription_group_table.values(), body.data_version, forbidden)

    def load_consumer_offsets(self) -> ConsumerOffsetTable:
        """Read consumerOffset.json."""
        table = ConsumerOffsetTable()
        for body in _read(self.consumer_offsets, ConsumerOffsetSerializeWrapper):
            table.load(body.offset_table)
        return table

    def load_delay_offsets(self) -> dict[int, int]:
        """Read delayOffset.json: level to queue offset."""
        progress: dict[int, int] = {}
        for body in _read(self.delay_offsets, DelayOffsetSerializeWrapper):
            progress.update(body.offset_table)
        return progress

    def load_request_modes(self) -> RequestModeTable:
        """Read messageRequestMode.json."""
        table = RequestModeTable()
        for body in _read(self.request_modes, MessageRequestModeSerializeWrapper):
            for groups in body.message_request_mode_map.values():
                table.load(groups.values())
        return table

    def load_pop_orders(self) -> tuple[PopOrders, int | None]:
        """Read consumerOrderInfo.json: the table, and up to where in the order log it goes.

        A file that Apache's broker wrote tells no place there: nothing of that log is newer than it.
        """
        table = PopOrders()
        position: int | None = 0
        for body in _read(self.pop_orders, ConsumerOrderInfoWrapper):
            for key, queues in body.table.items():
                topic, _, group = key.partition(TOPIC_GROUP_SEPARATOR)
                for queue_id, info in queues.items():
                    table.load((group, topic, queue_id), queue_order(info))
            position = body.order_log_offset
        return table, position

    def load_queue_locks(self, table: QueueLockTable, now: float) -> bool:
        """Read queueLock.json into the table, as of now; False where there is no such file."""
        bodies = list(_read(self.queue_locks, QueueLockOwners))
        for body in bodies:
            table.load(body, now)
        return bool(bodies)


def _read(file: JournaledFile, body_type: type[BodyT]) -> Iterator[BodyT]:
    """The file's body, then those of the changes since; nothing where there is no file."""
    text, changes = file.load()
    if text is not None:
        yield body_type.decode(text)
        yield from map(body_type.decode, changes)


def metadata_files(disk: Disk, root: Path) -> MetadataFiles:
    """The files of the store directory `root`, made on first save."""
    directory = root / "config"
    return MetadataFiles(
        topics=JournaledFile(disk, directory / "topics.json"),
        groups=JournaledFile(disk, directory / "subscriptionGroup.json"),
        consumer_offsets=JournaledFile(disk, directory / "consumerOffset.json"),
        delay_offsets=JournaledFile(disk, directory / "delayOffset.json"),
        request_modes=JournaledFile(disk, directory / "messageRequestMode.json"),
        pop_orders=JournaledFile(disk, directory / "consumerOrderInfo.json"),
        queue_locks=JournaledFile(disk, directory / "queueLock.json"),
    )
