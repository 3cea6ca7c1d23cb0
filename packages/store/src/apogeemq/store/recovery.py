"""Finding out, while a store opens, what it holds: where the log ends and what the consume queues must say."""

import logging
from collections.abc import Callable, Collection
from functools import lru_cache, partial

import msgspec
from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.message import PROPERTY_TAGS, find_property, tags_code
from apogeemq.remoting_codec.record import decode_record, peek_head
from apogeemq.store.checkpoint import Checkpoint
from apogeemq.store.consume_queue import PADDING_SIZE, ConsumeQueue, ConsumeQueues
from apogeemq.store.errors import MessageInvalid, MessageTooLarge, RecordCorrupt
from apogeemq.store.index_recovery import IndexRecovery
from apogeemq.store.log_scan import LogScan, ScannedRecord
from apogeemq.store.mapped_file_queue import MappedFileQueue
from apogeemq.store.skip_records import SKIP_TOPIC_BYTES

_logger = logging.getLogger(__name__)

RedispatchTagsCode = Callable[[str, bytes, int], int]
"""(topic, properties, store timestamp ms) → the tags code of a unit that is built anew."""

_CHECKPOINT_MARGIN_MS = 3000
"""Apache's: records of one millisecond may lie on both sides of a flush."""
_UNITS_BETWEEN_DRAINS = 100_000
_HEAD_SIZE_BYTES = 128
_TAGS = PROPERTY_TAGS.encode()


def tag_hash(_topic: str, properties: bytes, _store_timestamp_ms: int) -> int:
    """The tags code of ordinary topics: the hash of the property TAGS."""
    tag = find_property(properties, _TAGS)
    return 0 if tag is None else _hash_of(tag)


@lru_cache(maxsize=4096)
def _hash_of(tag: bytes) -> int:
    return tags_code(tag.decode(errors="replace"))


class RecoveryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What opening a store found and did."""

    clean: bool
    """The store had been closed in good order."""
    scanned_bytes: int
    """Of the commit log, read and checked."""
    dropped_bytes: int = 0
    """From the first bad record to the last byte that was not zero: what a crash tore. Never synced, see Recovery."""
    truncated_at: int | None = None
    """Where the log was cut, if bytes were dropped."""
    queue_units_rebuilt: int = 0
    irregular_records: int = 0
    """Records whose queue offset does not follow their predecessor's: a topic made anew, or damage. See Recovery."""
    duration_ms: int = 0

    def __str__(self) -> str:
        """As the log tells it."""
        cut = "" if self.truncated_at is None else f" behind physical offset {self.truncated_at}"
        irregular = f", {self.irregular_records} records out of order in their queue" if self.irregular_records else ""
        return (
            f"{self.scanned_bytes} bytes of the commit log checked in {self.duration_ms} ms, "
            f"{self.dropped_bytes} bytes dropped{cut}, "
            f"{self.queue_units_rebuilt} consume-queue units built{irregular}"
        )


class _QueueGap(Exception):  # noqa: N818 — never leaves this module
    """A consume queue lacks units whose records lie before the start of the scan."""


class Recovery:
    """Reads what may not be on the disk, and makes log and consume queues agree.

    1. The scan begins: after a clean stop where the log ended (checkpoint, `master_flushed_offset`); otherwise with
       the newest file whose first record is older than what the checkpoint says is synced in log and queues.
    2. Each queue is cut where the scan begins: all units for records before that point are there, all others are
       built anew from the records, which carry their queue offsets. After a crash the last unit kept is compared with
       its record, since a torn unit can look like a good one.
    3. The scan ends with the first bytes that are no record. Below the flushed offset of the checkpoint that means
       that the disk lost or changed synced data: opening stops with RecordCorrupt and the log as it was. Above, it is
       what a crash tears: it is cut off and reported.
    4. Everything after the end becomes zeros, durably: a whole record that survived behind a torn one would come back
       to life when new records happen to end where it begins.
    5. After a crash the log that was read is synced, names of files included, and the part above the flushed offset is
       written once more before: nothing is handed out that the previous process left in the page cache only. Queues
       are not synced here: until somebody does, the checkpoint's logics timestamp stays, and so does the next scan.
    A queue offset 0 in a queue that has messages means that the topic was deleted and made anew: the queue begins
    anew. Other breaks below the flushed offset are RecordCorrupt; above (logs of Java brokers have no flushed offset)
    the later record is right, and units that stand for no message bridge a gap; so they do behind records that a repair
    left for lost ones (see skip_records). All are counted.
    Records with transaction bits 4 and 12 and inner batches have no unit.
    Source: architecture.md §5; broker_behaviour.md §9.
    """

    def __init__(
        self,
        files: MappedFileQueue,
        queues: ConsumeQueues,
        checkpoint: Checkpoint,
        *,
        clean: bool,
        record_size_bytes_max: int,
        redispatch_tags_code: RedispatchTagsCode,
        on_progress: Callable[[int, int], None] | None,
        index: IndexRecovery | None = None,
    ) -> None:
        self.log_end = 0
        self.store_timestamp_ms = checkpoint.physic_timestamp_ms
        """Not below that of any record."""
        self._files = files
        self._queues = queues
        self._checkpoint = checkpoint
        self._clean = clean
        self._record_size_bytes_max = record_size_bytes_max
        self._redispatch_tags_code = redispatch_tags_code
        self._on_progress = on_progress
        self._index = index

    def run(self, *, queues_exist: bool) -> RecoveryReport:
        """Do it all. `queues_exist`: there are consume queues at all.

        Errors: RecordCorrupt, LayoutInvalid, OSError.
        """
        if self._index is None:
            start = self._scan_start(queues_exist, None)
        else:
            start = self._index.catch_up(partial(self._scan_start, queues_exist))
        for queue in self._queues.load(start):
            if not self._clean:
                self._queues.cut(queue, self._checked_end(queue))
            queue.min_offset = self._queues.find_min(queue, self._files.min_offset)
            if queue.min_offset == queue.max_offset and not self._clean:
                self._queues.distrust_names(queue)  # it may be new, with all its messages cut off since
        replay = self._replay(start)
        self.log_end = replay.scan.end
        if self.log_end < self._checkpoint.master_flushed_offset:
            raise RecordCorrupt(self.log_end, replay.scan.problem or "the log ends there")
        self.store_timestamp_ms = max(self.store_timestamp_ms, replay.scan.last_timestamp_ms)
        dropped_bytes = self._files.data_end(self.log_end) - self.log_end
        if dropped_bytes:
            _logger.warning(
                "the log ends at %d (%s): dropping %d bytes", self.log_end, replay.scan.problem, dropped_bytes
            )
            self._files.clear_from(self.log_end)
        if not self._clean:
            unsure_from = max(self._checkpoint.master_flushed_offset, replay.scan.start)
            self._files.make_durable(replay.scan.start, unsure_from, self.log_end)
            for queue in replay.queues:
                self._queues.distrust_names(queue)
        self._queues.drain_all()
        if self._index is not None:
            self._index.finish(self.log_end, self.store_timestamp_ms)
        for queue in replay.queues:
            queue.min_offset = self._queues.find_min(queue, self._files.min_offset)
        return RecoveryReport(
            clean=self._clean,
            scanned_bytes=self.log_end - replay.scan.start,
            dropped_bytes=dropped_bytes,
            truncated_at=self.log_end if dropped_bytes else None,
            queue_units_rebuilt=replay.units,
            irregular_records=replay.irregular_records,
        )

    def _scan_start(self, queues_exist: bool, index_ms: int | None) -> int:
        """`index_ms`: up to this store timestamp the index is complete, if it matters."""
        starts = self._files.starts
        flushed_offset = self._checkpoint.master_flushed_offset
        if not starts or not queues_exist:
            return self._files.min_offset
        if self._clean and starts.start < flushed_offset <= starts.stop:
            return flushed_offset
        synced_ms = min(self._checkpoint.physic_timestamp_ms, self._checkpoint.logics_timestamp_ms)
        if index_ms is not None:
            synced_ms = min(synced_ms, index_ms)
        for start in reversed(starts):
            first_record_ms = self._timestamp_at(start)
            if first_record_ms is not None and first_record_ms <= synced_ms - _CHECKPOINT_MARGIN_MS:
                return start
        return starts.start

    def _timestamp_at(self, file_start: int) -> int | None:
        """When the first record of a file was stored; None if it has none."""
        data = self._files.pread(file_start, _HEAD_SIZE_BYTES, wait=True)
        assert data is not None
        try:
            head = peek_head(data)
        except CodecError:
            return None
        return head.store_timestamp_ms if head.physical_offset == file_start else None

    def _checked_end(self, queue: ConsumeQueue) -> int:
        """The end of the queue, moved back to the last unit whose record says the same."""
        end = queue.max_offset
        while end > queue.first_offset and not self._is_true(queue, end - 1):
            end -= 1
        return end

    def _is_true(self, queue: ConsumeQueue, queue_offset: int) -> bool:
        physical_offset, size_bytes, _ = self._queues.unit_at(queue, queue_offset)
        file_end = self._files.start_of(physical_offset) + self._files.file_size_bytes
        if size_bytes == PADDING_SIZE or physical_offset < self._files.min_offset:
            return True  # there is no record to compare with
        if size_bytes > min(self._record_size_bytes_max, file_end - physical_offset):
            return False
        data = self._files.pread(physical_offset, size_bytes, wait=True)
        assert data is not None
        try:
            record = decode_record(data, check_crc=False)
        except CodecError:
            return False
        return (record.topic, record.queue_id, record.queue_offset, record.physical_offset) == (
            queue.topic,
            queue.queue_id,
            queue_offset,
            physical_offset,
        )

    def _replay(self, start: int) -> "_Replay":
        replay = self._new_replay(start)
        try:
            replay.run()
        except _QueueGap:
            _logger.warning("consume queues lack units older than offset %d: rebuilding them all", start)
            for queue in self._queues.table.values():
                if queue.min_offset < queue.max_offset:  # else its records are gone, and nothing else tells its end
                    self._queues.cut(queue, queue.first_offset)
            replay = self._new_replay(self._files.min_offset)
            replay.run()
        return replay

    def _new_replay(self, start: int) -> "_Replay":
        scan = LogScan(
            self._files, start, record_size_bytes_max=self._record_size_bytes_max, on_progress=self._on_progress
        )
        return _Replay(
            scan,
            self._queues,
            flushed_offset=self._checkpoint.master_flushed_offset,
            log_min_offset=self._files.min_offset,
            redispatch_tags_code=self._redispatch_tags_code,
            index=self._index,
        )


class _Replay:
    """One scan with every record dispatched to its consume queue."""

    def __init__(
        self,
        scan: LogScan,
        queues: ConsumeQueues,
        *,
        flushed_offset: int,
        log_min_offset: int,
        redispatch_tags_code: RedispatchTagsCode,
        index: IndexRecovery | None,
    ) -> None:
        self.scan = scan
        self.units = 0
        self.irregular_records = 0
        self._queues = queues
        self._flushed_offset = flushed_offset
        self._is_whole_log = scan.start == log_min_offset
        self._is_since_ever = self._is_whole_log and log_min_offset == 0
        self._redispatch_tags_code = redispatch_tags_code
        self._index = index
        self._by_name: dict[tuple[bytes, int], ConsumeQueue] = {}
        self._is_repaired = False
        """A record was passed that stands for lost ones: gaps behind it are known, and bridged."""

    @property
    def queues(self) -> Collection[ConsumeQueue]:
        """Those that got units."""
        return self._by_name.values()

    def run(self) -> None:
        """Errors: RecordCorrupt, _QueueGap."""
        drained_units = 0
        no_unit = MessageSysFlag.TRANSACTION_PREPARED_TYPE | MessageSysFlag.INNER_BATCH_FLAG
        by_name, code_of = self._by_name, self._redispatch_tags_code
        put_keys = None if self._index is None else self._index.put
        put = self._queues.put
        for records in self.scan:
            for record in records:
                physical_offset, size_bytes, queue_id, queue_offset, sys_flag, timestamp_ms, topic, properties = record
                if put_keys is not None:
                    put_keys(topic + b"#", properties, sys_flag, physical_offset, timestamp_ms)
                if sys_flag & no_unit:
                    if topic == SKIP_TOPIC_BYTES:
                        self._is_repaired = True
                    continue
                queue = by_name.get((topic, queue_id)) or self._find_queue(record)
                if queue is None:
                    return
                if queue_offset != queue.max_offset:
                    self._mend(queue, record)
                code = code_of(queue.topic, properties, timestamp_ms)
                put(queue, physical_offset, size_bytes, code)
                self.units += 1
            if self._index is not None:
                self._index.write_if_long()
            if self.units - drained_units >= _UNITS_BETWEEN_DRAINS:
                self._queues.drain_all()
                drained_units = self.units

    def _find_queue(self, record: ScannedRecord) -> ConsumeQueue | None:
        """The queue that the record belongs to, made if need be; None, and the scan stopped, if it can have none."""
        try:
            topic = record.topic.decode()
            queue = self._queues.table.get((topic, record.queue_id)) or self._queues.create(topic, record.queue_id)
        except (UnicodeDecodeError, MessageInvalid, MessageTooLarge) as error:
            self.scan.stop_at(record.physical_offset, f"it has no valid topic: {error}")
            return None
        self._by_name[record.topic, record.queue_id] = queue
        return queue

    def _mend(self, queue: ConsumeQueue, record: ScannedRecord) -> None:
        """Make the queue end where the record says it did."""
        if record.queue_offset == 0:
            self._count_irregular(record, queue)
            self._queues.start_at(queue, 0)
        elif queue.max_offset == queue.first_offset or self._lacks_only_expired(queue, record):
            # Its beginning was deleted with the log's, or with the topic; there is no other good reason.
            if self._is_since_ever:
                self._refuse_below_flushed(record, queue)
                self._count_irregular(record, queue)
            self._queues.start_at(queue, record.queue_offset)
        elif record.queue_offset < queue.max_offset:
            self._refuse_below_flushed(record, queue)
            self._count_irregular(record, queue)
            self._queues.cut(queue, max(queue.first_offset, record.queue_offset))
        elif not self._is_whole_log:
            raise _QueueGap
        else:
            self._refuse_below_flushed(record, queue)
            self._count_irregular(record, queue)
            self._queues.fill_gap(queue, record.queue_offset, record.physical_offset)

    def _lacks_only_expired(self, queue: ConsumeQueue, record: ScannedRecord) -> bool:
        """Whether this is the queue's first record in the log, and the gap before it is of records that are gone."""
        return self._is_whole_log and queue.min_offset == queue.max_offset and record.queue_offset > queue.max_offset

    def _refuse_below_flushed(self, record: ScannedRecord, queue: ConsumeQueue) -> None:
        if record.physical_offset < self._flushed_offset and not self._is_repaired:
            raise RecordCorrupt(record.physical_offset, _break_of(record, queue))

    def _count_irregular(self, record: ScannedRecord, queue: ConsumeQueue) -> None:
        _logger.warning("at physical offset %d: %s", record.physical_offset, _break_of(record, queue))
        self.irregular_records += 1


def _break_of(record: ScannedRecord, queue: ConsumeQueue) -> str:
    return f"number {record.queue_offset} of {queue.topic} {queue.queue_id} follows number {queue.max_offset - 1}"
