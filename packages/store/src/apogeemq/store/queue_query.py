"""Consume queues of a store that is not open: which there are, from where to where they reach, and their units."""

from bisect import bisect_left
from collections.abc import Iterator

import msgspec
from apogeemq.store.consume_queue import PADDING_SIZE, UNIT
from apogeemq.store.errors import LayoutInvalid, OffsetOutOfRange
from apogeemq.store.queue_units import QueueRow
from apogeemq.store.record_query import head_at
from apogeemq.store.store_view import StoreView


class QueueFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One queue. Times are 0 when it has no message in the log."""

    topic: str
    queue_id: int
    min_offset: int
    """The first queue offset whose record is in the log."""
    max_offset: int
    """One past the last."""
    store_timestamp_min_ms: int
    store_timestamp_max_ms: int


class QueueUnit(msgspec.Struct, frozen=True, kw_only=True):
    """One unit. Padding stands for no message."""

    queue_offset: int
    physical_offset: int
    size_bytes: int
    tags_code: int

    @property
    def is_padding(self) -> bool:
        """Whether it stands for no message."""
        return self.size_bytes == PADDING_SIZE


def queue_facts(view: StoreView) -> Iterator[QueueFacts | LayoutInvalid]:
    """Every queue, by topic and id; what is wrong with its files instead where they form no row."""
    for row in view.queues.rows():
        yield row if isinstance(row, LayoutInvalid) else _facts_of(view, row)


def queue_units(view: StoreView, topic: str, queue_id: int, queue_offset: int = 0) -> Iterator[QueueUnit]:
    """The units of one queue from a queue offset on; none for an unknown queue. Errors: LayoutInvalid."""
    row = view.queues.row(topic, queue_id)
    if row is None:
        return
    start, end = max(queue_offset, row.first_offset), view.queues.end_of(row)
    for number, physical_offset, size_bytes, tags_code in view.queues.walk(row, start, end):
        yield QueueUnit(
            queue_offset=number, physical_offset=physical_offset, size_bytes=size_bytes, tags_code=tags_code
        )


def _facts_of(view: StoreView, row: QueueRow) -> QueueFacts:
    max_offset = view.queues.end_of(row)

    def is_there(queue_offset: int) -> bool:
        physical_offset, size_bytes, _ = UNIT.unpack(view.queues.read(row, queue_offset, 1))
        is_front_padding = size_bytes == PADDING_SIZE and physical_offset == 0
        return bool(physical_offset >= view.log_min_offset) and not is_front_padding

    offsets = range(row.first_offset, max_offset)
    min_offset = row.first_offset + bisect_left(offsets, True, key=is_there)
    return QueueFacts(
        topic=row.topic,
        queue_id=row.queue_id,
        min_offset=min_offset,
        max_offset=max_offset,
        store_timestamp_min_ms=_store_time(view, row, min_offset, max_offset),
        store_timestamp_max_ms=_store_time(view, row, max_offset - 1, max_offset),
    )


def _store_time(view: StoreView, row: QueueRow, queue_offset: int, max_offset: int) -> int:
    if not row.first_offset <= queue_offset < max_offset:
        return 0
    physical_offset = UNIT.unpack(view.queues.read(row, queue_offset, 1))[0]
    try:
        head = head_at(view, physical_offset)
    except OffsetOutOfRange:
        return 0
    return 0 if head is None else head.store_timestamp_ms
