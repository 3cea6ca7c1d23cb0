"""The store as replication sees it: a log of bytes to read, to continue and to cut."""

import zlib
from enum import Enum, auto

import msgspec
from apogeemq.store.chunk_receiver import ChunkReceiver
from apogeemq.store.commit_log import CommitLog
from apogeemq.store.errors import OffsetOutOfRange
from apogeemq.store.flush import GroupCommit
from apogeemq.store.truncation import Truncation

CHUNK_SIZE_BYTES_MAX = 1 << 20
"""Largest chunk that `read_chunk` gives, whatever it is asked for."""
CRC_RANGE_SIZE_BYTES_MAX = 1 << 20
"""Longest range that `crc_of` reads."""


class ChunkStatus(Enum):
    """How `read_chunk` ended."""

    FOUND = auto()
    NOTHING_YET = auto()
    """The log ends there."""
    EXPIRED = auto()
    """The log begins behind that offset: at `min_offset`."""
    BEYOND_END = auto()
    """The log ends before that offset: at `written_offset`. Whoever asks has another log."""
    COLD = auto()
    """It would have to be fetched from the disk. Repeat in a thread with `wait`."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """What `read_chunk` found: `data` lies at `offset`. A view pins a file of the log until it is dropped."""

    status: ChunkStatus
    offset: int
    data: memoryview | bytes
    min_offset: int
    written_offset: int


class LogOffsets(msgspec.Struct, frozen=True, gc=False):
    """Physical offsets of one moment: min ≤ confirm, flushed ≤ written ≤ received."""

    min_offset: int
    """Where the oldest file begins."""
    confirm_offset: int
    """Readers see the log up to here."""
    flushed_offset: int
    """Synced up to here."""
    written_offset: int
    """Whole records up to here, in the page cache. What a replica acknowledges."""
    received_offset: int
    """Where the next chunk has to begin; above `written_offset` is the beginning of one record, in memory."""


class ReplicationView:
    """Raw reads and writes of the log, for masters and replicas. Offsets are physical ones, in bytes.

    Reading is safe from any thread; what changes the log belongs to the thread that appends.
    Source: architecture.md §6.3–6.7; broker_behaviour.md §10, §11.
    """

    def __init__(
        self,
        log: CommitLog,
        commit: GroupCommit,
        receiver: ChunkReceiver,
        truncation: Truncation,
        *,
        known_confirm_offset: int = 0,
        record_size_bytes_max: int,
    ) -> None:
        """`known_confirm_offset`: what the checkpoint said when the store was opened."""
        self.known_confirm_offset = min(known_confirm_offset, log.written_offset)
        """Replicas held the log up to here when it was last noted; 0 when nobody ever limited the confirm offset."""
        self.file_size_bytes = log.files.file_size_bytes
        """Of the log; brokers of one set have to agree on it."""
        self.record_size_bytes_max = record_size_bytes_max
        """Largest record that is taken over."""
        self._log = log
        self._commit = commit
        self._receiver = receiver
        self._truncation = truncation

    def offsets(self) -> LogOffsets:
        """All offsets. From another thread than the appending one, `received_offset` may be a chunk behind."""
        flushed_offset = self._commit.flushed_offset  # first: it is never above what was written later
        received_offset = self._receiver.received_offset
        written_offset, _ = self._log.end()
        return LogOffsets(
            self._log.min_offset,
            min(self._log.confirm_offset, written_offset),
            min(flushed_offset, written_offset),
            written_offset,
            max(received_offset, written_offset),
        )

    def read_chunk(self, offset: int, size_bytes_max: int, *, wait: bool) -> Chunk:
        """Bytes of one file from `offset` on, which may lie inside a record; up to the written offset.

        Replicas need what is not confirmed yet, so the confirm offset does not matter here. At most `size_bytes_max`
        bytes (1 and up), nor more than CHUNK_SIZE_BYTES_MAX. Recent bytes are a view of the log itself, older ones a
        copy; with `wait` the call may wait for the disk, without it the answer is COLD then.
        Errors: ValueError; OSError.
        """
        if size_bytes_max <= 0:
            raise ValueError(f"a chunk of {size_bytes_max} bytes was asked for")
        while True:
            min_offset, written_offset = self._log.min_offset, self._log.written_offset
            if not min_offset <= offset < written_offset:
                return Chunk(_outside(offset, min_offset, written_offset), offset, b"", min_offset, written_offset)
            file_end = self._log.files.start_of(offset) + self._log.files.file_size_bytes
            end = min(offset + min(size_bytes_max, CHUNK_SIZE_BYTES_MAX), written_offset, file_end)
            try:
                data = self._log.read(offset, end - offset, wait=wait)
            except (OffsetOutOfRange, FileNotFoundError):
                if self._log.min_offset <= offset and end <= self._log.written_offset:
                    raise
                continue  # it expired or was cut off since; one more look says which
            status = ChunkStatus.COLD if data is None else ChunkStatus.FOUND
            return Chunk(status, offset, b"" if data is None else data, min_offset, written_offset)

    def append_chunk(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Continue the log with bytes of another store's, cut anywhere; `offset` is their place there and here.

        Whole records become visible at once, with their consume-queue units and index entries, up to the confirm
        offset. The beginning of a record waits in memory; an ordinary append, or a cut, drops it. Files come out byte
        by byte as the other store has them: both must have the same file size, and this one no smaller largest message.
        A chunk that crosses the end of a file is stored file by file; all of it is checked before.

        Errors, with nothing stored:
            ChunkMisplaced: `offset` is not `received_offset`.
            RecordCorrupt: a record is none, by the rules of recovery.
            LogDiverged: a record does not follow in its queue.
            DiskFull, NotWritable, StoreClosed, …: as `append`; what crosses the end of a file may be stored in part,
                `received_offset` says how far.
        """
        self._receiver.append(offset, data)

    def begin_at(self, offset: int) -> None:
        """Let an empty log begin at `offset`, where a file of the master's begins: what is older has expired there.

        Until its first chunk. Waits for the disk. A replica that fell behind the master's oldest file needs an empty
        directory. Errors: ValueError when the log is not empty or no file begins there; NotWritable.
        """
        if self._log.written_offset != self._log.min_offset:
            raise ValueError(f"the log is not empty: it has bytes up to {self._log.written_offset}")
        if offset < 0 or self._log.files.start_of(offset) != offset:
            raise ValueError(f"no file of {self._log.files.file_size_bytes} bytes begins at {offset}")
        self._receiver.drop_rest()
        with self._commit.paused():
            self._log.begin_at(offset)
            self._commit.flushed_offset = offset

    def truncate(self, offset: int) -> None:
        """Cut the log, its queues, timers and index at `offset`, where a record begins (or a file, or its filler).

        Durable at return; a crash before leaves the log as it was or cut. Waits for the disk: call it in a thread while
        nothing is appended (appends are refused meanwhile). Readers may be at work: they see nothing above the confirm
        offset, and the log is never cut below that. Without a limit everything written is confirmed: set
        `MessageStore.confirm_offset` first. Chunks handed out before stay memory, but no longer the log. Whoever waits
        in `notify_flushed` for more than is left gets LogTruncated. The epoch file is its owner's to cut.
        What was received of a half record is dropped too: call it for each new connection, with the common point, also
        when that is the written offset. The master may have lost the other half.

        Errors: OffsetOutOfRange, BelowConfirmOffset, RecordCorrupt (no record begins there) with nothing changed;
        NotWritable: the disk failed, opening again settles it; StoreClosed.
        """
        self._receiver.drop_rest()
        self._truncation.run(offset)

    def crc_of(self, start: int, end: int) -> int:
        """CRC-32 of the bytes [start, end), to compare two logs before their common point. May wait for the disk.

        Errors: OffsetOutOfRange unless all of it is there; ValueError above CRC_RANGE_SIZE_BYTES_MAX.
        """
        if not 0 <= end - start <= CRC_RANGE_SIZE_BYTES_MAX:
            raise ValueError(f"a CRC of {end - start} bytes was asked for; at most {CRC_RANGE_SIZE_BYTES_MAX}")
        if start < self._log.min_offset or end > self._log.written_offset:
            raise OffsetOutOfRange(start, self._log.min_offset, self._log.written_offset)
        crc = 0
        while start < end:
            stop = min(end, self._log.files.start_of(start) + self._log.files.file_size_bytes)
            data = self._log.read(start, stop - start, wait=True)
            assert data is not None
            crc = zlib.crc32(data, crc)
            start = stop
        return crc


def _outside(offset: int, min_offset: int, written_offset: int) -> ChunkStatus:
    if offset < min_offset:
        return ChunkStatus.EXPIRED
    return ChunkStatus.NOTHING_YET if offset == written_offset else ChunkStatus.BEYOND_END
