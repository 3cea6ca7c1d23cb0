"""Reading by queue and queue offset: for consumers, and for questions about offsets and times."""

from bisect import bisect_left, bisect_right
from contextlib import suppress
from enum import Enum, auto
from typing import Literal

import msgspec
from apogeemq.store.commit_log import CommitLog
from apogeemq.store.consume_queue import PADDING_SIZE, UNIT, UNIT_SIZE_BYTES, ConsumeQueue, ConsumeQueues
from apogeemq.store.errors import OffsetOutOfRange, RecordCorrupt

_FILTER_SCAN_SIZE_BYTES = 16_000
_CONFIRM_LAG_UNITS = 64
"""So many units of one queue are looked at in one go for the end of what is confirmed."""

Boundary = Literal["lower", "upper"]


class ReadStatus(Enum):
    """How a read ended. The names are Apache's GetMessageStatus, and COLD."""

    FOUND = auto()
    NO_MATCHED_MESSAGE = auto()
    """Messages were looked at, none has a wanted tag."""
    MESSAGE_WAS_REMOVING = auto()
    """Their records are no longer in the commit log."""
    OFFSET_FOUND_NULL = auto()
    """A file of the consume queue is missing."""
    OFFSET_OVERFLOW_BADLY = auto()
    """Beyond the end of the queue."""
    OFFSET_OVERFLOW_ONE = auto()
    """At the end of the queue: nothing there yet."""
    OFFSET_TOO_SMALL = auto()
    """Before the beginning of the queue."""
    NO_MATCHED_LOGIC_QUEUE = auto()
    """There is no such queue."""
    NO_MESSAGE_IN_QUEUE = auto()
    """The queue never had a message."""
    COLD = auto()
    """Some of it would have to be fetched from the disk. Repeat in a thread with `cold_allowed`."""


class ReadResult(msgspec.Struct, frozen=True, gc=False):
    """What a read found.

    `next_offset` is where to go on, whatever the status. `buffers` hold whole records back to back, `count` of them
    with `size_bytes` in all; a view among them pins a file of the log until it is dropped.
    """

    status: ReadStatus
    next_offset: int
    min_offset: int
    max_offset: int
    buffers: list[memoryview | bytes]
    count: int = 0
    size_bytes: int = 0


class MessageReader:
    """Reads of one store. Safe for several threads.

    Nothing at or beyond the log's confirm offset is seen, in any answer.
    Source: Apache DefaultMessageStore.getMessage, ConsumeQueue.binarySearchInQueueByTime; broker_behaviour.md §5, §6.
    """

    def __init__(self, log: CommitLog, queues: ConsumeQueues, *, record_size_bytes_max: int) -> None:
        self._log = log
        self._queues = queues
        self._record_size_bytes_max = record_size_bytes_max

    def read(
        self,
        queue: ConsumeQueue | None,
        queue_offset: int,
        max_count: int,
        max_bytes: int,
        tag_codes: frozenset[int] | None,
        *,
        cold_allowed: bool,
    ) -> ReadResult:
        """See MessageStore.read. Errors: RecordCorrupt when a consume-queue unit cannot be true."""
        if queue is None:
            return ReadResult(ReadStatus.NO_MATCHED_LOGIC_QUEUE, 0, 0, 0, [])
        min_offset, max_offset = queue.min_offset, self.max_offset(queue)
        if not min_offset <= queue_offset < max_offset:
            return _outside(queue_offset, min_offset, max_offset)
        look_at = max_count if tag_codes is None else max(max_count, _FILTER_SCAN_SIZE_BYTES // UNIT_SIZE_BYTES)
        try:
            units = self._queues.read(queue, queue_offset, min(look_at, max_offset - queue_offset), wait=cold_allowed)
        except FileNotFoundError:
            if queue_offset < queue.min_offset:  # its file went since we looked, with the log's
                return _outside(queue_offset, queue.min_offset, max_offset)
            next_offset = min(self._queues.next_file_offset(queue_offset), max_offset)
            return ReadResult(ReadStatus.OFFSET_FOUND_NULL, next_offset, min_offset, max_offset, [])
        if units is None:
            return ReadResult(ReadStatus.COLD, queue_offset, min_offset, max_offset, [])

        # Wanted records, those that follow each other in the log joined to one run.
        log_min_offset, size_bytes_max = self._log.min_offset, self._record_size_bytes_max
        runs: list[tuple[int, int]] = []
        run_start = run_end = -1
        looked_at = count = total_size_bytes = 0
        is_removed = False
        for physical_offset, size_bytes, tags_code in UNIT.iter_unpack(units):
            if physical_offset < log_min_offset or size_bytes == PADDING_SIZE:
                is_removed = True
                looked_at += 1
                continue
            if count and (count >= max_count or total_size_bytes + size_bytes > max_bytes):
                break
            looked_at += 1
            if tag_codes is not None and tags_code not in tag_codes:
                continue
            if not 0 < size_bytes <= size_bytes_max:
                raise RecordCorrupt(physical_offset, f"{queue.topic} {queue.queue_id} says its size is {size_bytes}")
            if physical_offset != run_end:
                if run_end >= 0:
                    runs.append((run_start, run_end))
                run_start = physical_offset
            run_end = physical_offset + size_bytes
            count += 1
            total_size_bytes += size_bytes
        if count:
            runs.append((run_start, run_end))
            status = ReadStatus.FOUND
        else:
            status = ReadStatus.MESSAGE_WAS_REMOVING if is_removed else ReadStatus.NO_MATCHED_MESSAGE

        try:
            buffers = self._log.read_runs(runs, wait=cold_allowed)
        except OffsetOutOfRange as error:
            if log_min_offset < self._log.min_offset:  # a file went since we looked: see what is left
                return self.read(queue, queue_offset, max_count, max_bytes, tag_codes, cold_allowed=cold_allowed)
            raise RecordCorrupt(error.offset, f"{queue.topic} {queue.queue_id} points there: {error}") from error
        if buffers is None:
            return ReadResult(ReadStatus.COLD, queue_offset, min_offset, max_offset, [])
        next_offset = queue_offset + looked_at
        return ReadResult(status, next_offset, min_offset, max_offset, buffers, count, total_size_bytes)

    def max_offset(self, queue: ConsumeQueue) -> int:
        """One past the last queue offset that readers may see."""
        end = queue.max_offset  # first: the records of these units lie below the written offset read afterwards
        limit = self._log.confirm_limit
        if limit is None or limit >= self._log.written_offset or end <= queue.min_offset:
            return min(end, queue.max_offset)  # it is lower now if the log was cut meanwhile
        return self._confirmed_end(queue, end, limit)

    def _confirmed_end(self, queue: ConsumeQueue, end: int, limit: int) -> int:
        """One past the last queue offset before `end` whose record ends at or before `limit`.

        What is not confirmed yet is mostly the last few KiB: one look at the last units, in memory, finds it.
        """
        start = max(queue.min_offset, end - _CONFIRM_LAG_UNITS)
        with suppress(FileNotFoundError):
            confirmed = _confirmed_count(self._queues.read(queue, start, end - start, wait=True) or b"", limit)
            if confirmed or start == queue.min_offset:
                return start + confirmed
            end = start

        def is_beyond(queue_offset: int) -> bool:
            try:
                unit = self._queues.read(queue, queue_offset, 1, wait=True)
            except FileNotFoundError:  # at the front it expired, at the end the log was cut
                return queue_offset >= queue.max_offset
            return not _confirmed_count(unit or b"", limit)

        offsets = range(queue.min_offset, end)
        return offsets.start + bisect_left(offsets, True, key=is_beyond)

    def unit_at(self, queue: ConsumeQueue, queue_offset: int) -> tuple[int, int, int] | None:
        """(physical offset, record size, tags code); None where there is no message. May wait for the disk."""
        if not queue.min_offset <= queue_offset < self.max_offset(queue):
            return None
        try:
            unit = self._queues.unit_at(queue, queue_offset)
        except FileNotFoundError:
            return None
        return None if unit[1] == PADDING_SIZE else unit

    def store_time_of(self, queue: ConsumeQueue, queue_offset: int) -> int:
        """When this message was stored, ms; -1 where there is none. May wait for the disk."""
        unit = self.unit_at(queue, queue_offset)
        head = None if unit is None else self._log.head_at(unit[0])
        return -1 if head is None else head.store_timestamp_ms

    def store_time_range(self, queue: ConsumeQueue) -> tuple[int, int]:
        """Store times of the first and the last message, ms; -1 where there is none. May wait for the disk."""
        first, end = queue.min_offset, self.max_offset(queue)
        return self.store_time_of(queue, first), self.store_time_of(queue, end - 1)

    def offset_by_time(self, queue: ConsumeQueue, timestamp_ms: int, boundary: Boundary) -> int:
        """See MessageStore.offset_by_time. By bisection: exact while store timestamps do not go back."""
        offsets = range(queue.min_offset, self.max_offset(queue))

        def time_of(queue_offset: int) -> int:
            return self.store_time_of(queue, queue_offset)

        if boundary == "lower":
            return queue.min_offset + bisect_left(offsets, timestamp_ms, key=time_of)
        after = queue.min_offset + bisect_right(offsets, timestamp_ms, key=time_of)
        return max(queue.min_offset, after - 1)


def _confirmed_count(units: bytes, limit: int) -> int:
    """How many of these units are for records that end at or before `limit`: the first so many. By bisection."""

    def is_beyond(index: int) -> bool:
        physical_offset, size_bytes, _ = UNIT.unpack_from(units, index * UNIT_SIZE_BYTES)
        if size_bytes == PADDING_SIZE:
            return bool(physical_offset >= limit)  # that of the next record
        return size_bytes == 0 or bool(physical_offset + size_bytes > limit)  # 0: cut off while it was read

    return bisect_left(range(len(units) // UNIT_SIZE_BYTES), True, key=is_beyond)


def _outside(queue_offset: int, min_offset: int, max_offset: int) -> ReadResult:
    """The answer for an offset that the queue does not have."""
    if max_offset == 0:
        status, next_offset = ReadStatus.NO_MESSAGE_IN_QUEUE, 0
    elif queue_offset < min_offset:
        status, next_offset = ReadStatus.OFFSET_TOO_SMALL, min_offset
    elif queue_offset == max_offset:
        status, next_offset = ReadStatus.OFFSET_OVERFLOW_ONE, queue_offset
    else:
        status, next_offset = ReadStatus.OFFSET_OVERFLOW_BADLY, max_offset
    return ReadResult(status, next_offset, min_offset, max_offset, [])
