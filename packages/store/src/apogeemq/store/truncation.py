"""Cutting the end off the log, and off everything that is derived from it."""

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from threading import Lock

from apogeemq.store.commit_log import CommitLog
from apogeemq.store.consume_queue import PADDING_SIZE, ConsumeQueue, ConsumeQueues
from apogeemq.store.errors import (
    BelowConfirmOffset,
    NotWritable,
    OffsetOutOfRange,
    RecordCorrupt,
    StoreClosed,
    StoreError,
)
from apogeemq.store.flush import GroupCommit
from apogeemq.store.log_scan import LogScan
from apogeemq.store.queue_flush import QueueFlush

_logger = logging.getLogger(__name__)

_SUSPENSION = "truncation"


class Truncation:
    """Cuts a log that is in use. Steps, each of which may be the last one before a crash:

    1. The checkpoint stops claiming anything above the cut, durably. Nothing else has changed: the old log.
    2. Queues and log end at the cut for whoever reads from now on.
    3. The first bytes behind the cut become zeros, durably: from here on opening finds the log cut and clears the rest.
    4. The rest of that file becomes zeros and later files go, durably.
    5. What is derived follows: timer, index, the files of the consume queues. The latter are not synced:
       opening builds that anew from where the checkpoint, lowered in step 1, tells it to.
    A failure in the middle makes the store refuse everything until it is opened again.
    """

    def __init__(
        self,
        log: CommitLog,
        commit: GroupCommit,
        queues: ConsumeQueues,
        queue_flush: QueueFlush,
        *,
        record_size_bytes_max: int,
        derived: Sequence[Callable[[int], None]],
        alone: Lock,
        wait_s: float,
    ) -> None:
        """`derived`: called with the physical offset of the cut; each removes what it has from there on.

        `alone` is held by whoever changes which files there are; a cut waits for it for at most `wait_s`.
        """
        self._log = log
        self._commit = commit
        self._queues = queues
        self._queue_flush = queue_flush
        self._record_size_bytes_max = record_size_bytes_max
        self._derived = derived
        self._alone = alone
        self._wait_s = wait_s

    def run(self, offset: int) -> None:
        """See ReplicationView.truncate."""
        if not self._alone.acquire(timeout=self._wait_s):
            raise StoreError(f"the log was not cut: deleting old files took longer than {self._wait_s} s; try again")
        try:
            self._check(offset)
            self._log.suspend(_SUSPENSION, StoreError("the log is being cut"))
            try:
                with self._queue_flush.paused(), self._commit.paused():
                    if offset < self._log.written_offset:
                        self._cut(offset)
            finally:
                self._log.resume(_SUSPENSION)
        finally:
            self._alone.release()

    def _check(self, offset: int) -> None:
        if isinstance(self._log.refusal, (NotWritable, StoreClosed)):
            raise self._log.refusal.with_traceback(None)
        if not self._log.min_offset <= offset <= self._log.written_offset:
            raise OffsetOutOfRange(offset, self._log.min_offset, self._log.written_offset)
        if offset < self._log.confirm_offset:
            raise BelowConfirmOffset(offset, self._log.confirm_offset)

    def _cut(self, offset: int) -> None:
        ends = {queue: self._end_below(queue, offset) for queue in list(self._queues.table.values())}
        store_timestamp_ms = self._timestamp_before(offset, self._last_known_record(ends))
        _logger.warning("cutting the log at %d, %d bytes", offset, self._log.written_offset - offset)
        self._commit.truncate(offset, store_timestamp_ms)
        self._queue_flush.truncate(offset, store_timestamp_ms)
        shortened = [queue for queue, end in ends.items() if end < queue.max_offset]
        for queue in shortened:
            self._queues.drop_units(queue, ends[queue])
        self._log.truncate(offset, store_timestamp_ms)
        try:
            for cut_derived in self._derived:
                cut_derived(offset)
            for queue in shortened:
                self._queues.clear_behind(queue)
        except (OSError, NotWritable) as error:
            refusal = NotWritable(f"cutting what is derived from the log failed: {error}")
            self._log.refuse(refusal)
            raise refusal from error

    def _end_below(self, queue: ConsumeQueue, offset: int) -> int:
        """One past the last queue offset whose record begins below `offset`."""

        def is_behind(queue_offset: int) -> bool:
            return self._queues.unit_at(queue, queue_offset)[0] >= offset

        if queue.max_offset == queue.min_offset or not is_behind(queue.max_offset - 1):
            return queue.max_offset
        return queue.min_offset + bisect_left(range(queue.min_offset, queue.max_offset), True, key=is_behind)

    def _last_known_record(self, ends: dict[ConsumeQueue, int]) -> int:
        """Where the last record of any queue that stays begins; the log's beginning when there is none."""
        last = self._log.min_offset
        for queue, end in ends.items():
            if end > queue.min_offset:
                physical_offset, size_bytes, _ = self._queues.unit_at(queue, end - 1)
                if size_bytes != PADDING_SIZE:
                    last = max(last, physical_offset)
        return last

    def _timestamp_before(self, offset: int, start: int) -> int:
        """The store timestamp of the last record below `offset`, 0 if there is none; reads from a record at `start` on.

        Errors: RecordCorrupt, also when no record ends at `offset`.
        """
        scan = LogScan(self._log.files, start, record_size_bytes_max=self._record_size_bytes_max)
        boundary, timestamp_ms = start, 0
        for records in scan:
            for record in records:
                if boundary >= offset or record.physical_offset >= offset:
                    break
                timestamp_ms = max(timestamp_ms, record.store_timestamp_ms)
                boundary = record.physical_offset + record.size_bytes
            if boundary >= offset or scan.end >= offset:
                break
        is_file_start = self._log.files.start_of(offset) == offset
        if boundary != offset and not (is_file_start and scan.end >= offset):
            raise RecordCorrupt(offset, "no record begins where the log was to be cut")
        return timestamp_ms
