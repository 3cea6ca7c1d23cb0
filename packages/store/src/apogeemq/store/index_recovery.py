"""What opening a store makes of its index."""

import logging
from collections.abc import Callable

from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.record import decode_record, peek_head
from apogeemq.store.checkpoint import Checkpoint
from apogeemq.store.errors import RecordCorrupt
from apogeemq.store.index_files import IndexFiles
from apogeemq.store.log_scan import LogScan
from apogeemq.store.mapped_file_queue import MappedFileQueue

_logger = logging.getLogger(__name__)

_HEAD_SIZE_BYTES = 128
_TAIL_SIZE_BYTES_MAX = 1 << 20


class IndexRecovery:
    """Makes the index agree with the log, beside Recovery, which does so for the consume queues.

    | found | the index lacks records |
    |---|---|
    | no index file | all: the log is read from its first record |
    | our clean stop, index timestamp older than the log's: the index was off | those after its last one |
    | a clean stop else | none |
    | our crash | those after the index timestamp: Recovery begins its scan no later |
    | a crash of Java | those after its last file that is older than the index timestamp, Java's own rule |
    | files that do not fit each other, or only full ones | those after the last one that fits |

    Records that Recovery would not read are read here, for the index alone. Before that the index timestamp becomes 0
    on the disk: a crash in the middle must not leave a checkpoint that calls the index complete.
    Source: Apache IndexService.load, DefaultMessageStore 5.x; architecture.md §5.
    """

    def __init__(
        self,
        index: IndexFiles,
        files: MappedFileQueue,
        checkpoint: Checkpoint,
        *,
        clean: bool,
        record_size_bytes_max: int,
        save_checkpoint: Callable[[], None],
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self.put = index.put_prefixed
        self._index = index
        self._files = files
        self._checkpoint = checkpoint
        self._clean = clean
        self._record_size_bytes_max = record_size_bytes_max
        self._save_checkpoint = save_checkpoint
        self._on_progress = on_progress

    def catch_up(self, start_after: Callable[[int | None], int]) -> int:
        """Add what lies before the start of Recovery's scan, and return that start.

        `start_after` tells it. It is given the store timestamp up to which the index is complete, so that the scan
        finds the rest; None when it need not care.
        Errors: RecordCorrupt, LayoutInvalid, OSError.
        """
        is_ours = self._checkpoint.master_flushed_offset > 0
        sure_ms = None if is_ours else self._checkpoint.index_timestamp_ms
        is_whole = self._index.load(clean=self._clean, sure_timestamp_ms=sure_ms)
        if self._clean and is_ours and self._checkpoint.index_timestamp_ms < self._checkpoint.physic_timestamp_ms:
            is_whole = False
        start = start_after(self._checkpoint.index_timestamp_ms if is_whole and is_ours else None)
        if not is_whole and self._files.starts:
            self._checkpoint.index_timestamp_ms = 0
            self._save_checkpoint()
        self._index.remove_doomed()
        if not (self._clean and is_whole):
            self._mend()
        if not is_whole and self._files.starts:
            self._scan(self._first_missing(), start)
        return start

    def finish(self, log_end: int, store_timestamp_ms: int) -> None:
        """The log ends there, with this timestamp: forget what lies behind, and make the rest durable."""
        self._index.truncate(log_end)
        self._index.write()
        self._index.sync()
        self._checkpoint.index_timestamp_ms = store_timestamp_ms

    def write_if_long(self) -> None:
        """Keep what is in memory within its bound."""
        if len(self._index.tail) >= _TAIL_SIZE_BYTES_MAX:
            self._index.write()

    def _first_missing(self) -> int:
        last = self._index.last_physical_offset
        return self._files.min_offset if last is None else max(last, self._files.min_offset)

    def _mend(self) -> None:
        physical_offset = self._index.mend()
        if physical_offset is None or not self._files.min_offset <= physical_offset < self._files.end:
            return
        file_end = self._files.start_of(physical_offset) + self._files.file_size_bytes
        try:
            head = peek_head(self._read(physical_offset, min(_HEAD_SIZE_BYTES, file_end - physical_offset)))
            if not 0 < head.size_bytes <= min(self._record_size_bytes_max, file_end - physical_offset):
                return
            record = decode_record(self._read(physical_offset, head.size_bytes), check_crc=False)
        except CodecError as error:
            _logger.warning("the last record of the index, at %d, is not in the log: %s", physical_offset, error)
            return
        if record.physical_offset == physical_offset:
            self._index.put(
                record.topic, record.properties, record.sys_flag, physical_offset, record.store_timestamp_ms
            )

    def _scan(self, start: int, stop: int) -> None:
        if start >= stop:
            return
        _logger.warning("the index lacks records from offset %d on: reading %d bytes for it", start, stop - start)
        scan = LogScan(
            self._files, start, record_size_bytes_max=self._record_size_bytes_max, on_progress=self._on_progress
        )
        for records in scan:
            for record in records:
                if record.physical_offset >= stop:
                    return
                self.put(
                    record.topic + b"#",
                    record.properties,
                    record.sys_flag,
                    record.physical_offset,
                    record.store_timestamp_ms,
                )
            self.write_if_long()
        if scan.end < stop:
            raise RecordCorrupt(scan.end, scan.problem or "the log ends there")

    def _read(self, physical_offset: int, size_bytes: int) -> bytes:
        data = self._files.pread(physical_offset, size_bytes, wait=True)
        assert data is not None
        return data
