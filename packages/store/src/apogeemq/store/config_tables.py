"""Putting what journals hold into the tables under `config/`, where no broker runs that would.

A change in a journal has the form of its table, with the entries alone that are now so. A broker folds its journals at
a clean stop; after a kill, this does it for those who read the tables only: Java's brokers.
Source: decision 0017; broker's metadata_files.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

import msgspec
from apogeemq.remoting_codec.bodies import (
    ConsumerOffsetSerializeWrapper,
    DelayOffsetSerializeWrapper,
    SubscriptionGroupWrapper,
    TopicConfigSerializeWrapper,
)
from apogeemq.store.config_journal import JournaledFile
from apogeemq.store.files import Disk

MaxOffset = Callable[[str, int], int]
"""(topic, queue id) → one past the last queue offset."""


class _Table(Protocol):
    """One table while changes are put into it."""

    @classmethod
    def read(cls, text: bytes) -> Self: ...

    def change(self, text: bytes) -> None: ...

    def encode(self) -> bytes: ...


class _Topics:
    def __init__(self, body: TopicConfigSerializeWrapper) -> None:
        self._body = body

    @classmethod
    def read(cls, text: bytes) -> Self:
        return cls(TopicConfigSerializeWrapper.decode(text))

    def change(self, text: bytes) -> None:
        change = TopicConfigSerializeWrapper.decode(text)
        self._body.topic_config_table.update(change.topic_config_table)
        self._body = msgspec.structs.replace(self._body, data_version=change.data_version)

    def encode(self) -> bytes:
        return self._body.encode(pretty=True)


class _Groups:
    def __init__(self, body: SubscriptionGroupWrapper) -> None:
        self._body = body

    @classmethod
    def read(cls, text: bytes) -> Self:
        return cls(SubscriptionGroupWrapper.decode(text))

    def change(self, text: bytes) -> None:
        change = SubscriptionGroupWrapper.decode(text)
        self._body.subscription_group_table.update(change.subscription_group_table)
        self._body = msgspec.structs.replace(self._body, data_version=change.data_version)

    def encode(self) -> bytes:
        return self._body.encode(pretty=True)


class _ConsumerOffsets:
    def __init__(self, body: ConsumerOffsetSerializeWrapper) -> None:
        self._body = body

    @classmethod
    def read(cls, text: bytes) -> Self:
        return cls(ConsumerOffsetSerializeWrapper.decode(text))

    def change(self, text: bytes) -> None:
        for key, queues in ConsumerOffsetSerializeWrapper.decode(text).offset_table.items():
            self._body.offset_table.setdefault(key, {}).update(queues)

    def cut(self, max_offset: MaxOffset) -> int:
        """Let none be ahead of its queue: it would skip what takes the numbers of lost messages."""
        cut = 0
        for key, queues in self._body.offset_table.items():
            topic = key.partition("@")[0]
            ahead = {number: end for number, at in queues.items() if at > (end := max_offset(topic, number))}
            queues.update(ahead)
            cut += len(ahead)
        return cut

    def encode(self) -> bytes:
        return self._body.encode(pretty=True)


class _DelayOffsets:
    def __init__(self, body: DelayOffsetSerializeWrapper) -> None:
        self._body = body

    @classmethod
    def read(cls, text: bytes) -> Self:
        return cls(DelayOffsetSerializeWrapper.decode(text))

    def change(self, text: bytes) -> None:
        self._body.offset_table.update(DelayOffsetSerializeWrapper.decode(text).offset_table)

    def encode(self) -> bytes:
        return self._body.encode(pretty=True)


_TABLES: dict[str, type[_Table]] = {
    "topics.json": _Topics,
    "subscriptionGroup.json": _Groups,
    "consumerOffset.json": _ConsumerOffsets,
    "delayOffset.json": _DelayOffsets,
}


def journaled_tables(disk: Disk, directory: Path) -> dict[str, int]:
    """Names of the tables under `directory` whose journals hold changes, and how many.

    Errors: as JournaledFile.load.
    """
    counts = {}
    for name in _TABLES:
        file = JournaledFile(disk, directory / name)
        try:
            counts[name] = len(file.load().changes)
        finally:
            file.close()
    return {name: count for name, count in counts.items() if count}


def fold_journals(disk: Disk, directory: Path, max_offset: MaxOffset) -> None:
    """Write every table under `directory` that is not complete, or has offsets ahead of their queues.

    Durable at return. Interrupted, it may be repeated.
    Errors: BodyInvalid, JournalDamaged, DiskFull, OSError; tables not reached stay.
    """
    for name, table_type in _TABLES.items():
        file = JournaledFile(disk, directory / name)
        try:
            text, changes = file.load()
            if text is None:
                continue
            table = table_type.read(text)
            for change in changes:
                table.change(change)
            has_cut = isinstance(table, _ConsumerOffsets) and table.cut(max_offset) > 0
            if changes or has_cut:
                file.save(table.encode())
        finally:
            file.close()
