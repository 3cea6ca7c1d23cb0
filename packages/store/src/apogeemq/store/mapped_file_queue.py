"""The row of files that the commit log lies in, the one being written mapped and its blocks reserved ahead."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from apogeemq.store.errors import NO_ROOM, DiskFull, DiskSlow, OffsetOutOfRange
from apogeemq.store.files import Disk, MappedSegment
from apogeemq.store.segment_files import SegmentFiles, segment_path, segment_starts

_RESERVE_STEP_BYTES = 16 << 20
"""One call of posix_fallocate in the background: a writer that has caught up waits for at most one."""
_RESERVE_INLINE_BYTES = 1 << 20
_RECORD_START_BYTES = 8
"""Size and magic number: without them no record begins."""
_CLEAR_BYTES = 1 << 20


class MappedFileQueue:
    """Files of one size, back to back: byte n of the log lies in file n // size, named by its start.

    ```
    00000000000000000000    00000000001073741824    00000000002147483648    00000000003221225472
    ├─ old: read by pread ─┤├─ hot: mapped ────────┤├─ current: ─┼──────→┤  ├─ prepared ────────┤
                                                          written ↑    ↑ reserved_end
    ```
    One thread appends (`advance`, `reserve`), one prepares (`prepare`, `retire`), one cleans (`remove_first`), any may
    read. When the one that prepares hangs in the disk, the one that appends waits for it no longer than
    `writer_wait_ms`.
    """

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        file_size_bytes: int,
        *,
        reserve_ahead_bytes: int,
        open_files_max: int,
        writer_wait_ms: int = 5_000,
    ) -> None:
        self.file_size_bytes = file_size_bytes
        self.starts = segment_starts(disk, directory, file_size_bytes)
        self.reserved_end = 0
        self._disk = disk
        self._directory = directory
        self._reserve_ahead_bytes = reserve_ahead_bytes
        self._writer_wait_ms = writer_wait_ms
        self._files = SegmentFiles(disk, file_size_bytes, open_files_max)
        self._lock = Lock()
        self._mapped: dict[int, MappedSegment] = {}
        self._next: MappedSegment | None = None
        self._next_reserved_end = 0

    @property
    def min_offset(self) -> int:
        """Where the first file begins."""
        return self.starts.start if self.starts else 0

    @property
    def end(self) -> int:
        """Where the last file ends."""
        return self.starts.stop if self.starts else 0

    def start_of(self, offset: int) -> int:
        """Where the file that holds this offset begins."""
        return offset - offset % self.file_size_bytes

    # -- the writer's side ---------------------------------------------------------------------------------------------

    def open_at(self, offset: int) -> MappedSegment:
        """Map the file that holds `offset`, made if need be; it becomes the current one. Nothing is reserved yet."""
        start = self.start_of(offset)
        with self._lock:
            segment = self._map(start)
            self._make_current(start, segment, offset)
            return segment

    def advance(self) -> MappedSegment:
        """The file after the current one, usually prepared already; it becomes the current one.

        Errors: DiskFull, DiskSlow.
        """
        with self._lock_for_writer(self.end):
            start = self.end
            if self._next is None:
                segment, reserved_end = self._map(start), start
            else:
                segment, reserved_end = self._next, self._next_reserved_end
            self._next = None
            self._make_current(start, segment, reserved_end)
            return segment

    def reserve(self, end: int) -> None:
        """Reserve blocks of the current file at least up to the offset `end`, now. Errors: DiskFull, DiskSlow."""
        if end <= self.reserved_end:
            return  # no need for the lock, whose holder may be waiting for the disk
        with self._lock_for_writer(self.end - self.file_size_bytes):
            if end > self.reserved_end:
                self._reserve_current(end, max(end, self.reserved_end + _RESERVE_INLINE_BYTES))

    def prepare(self, written_offset: int) -> None:
        """Reserve ahead of `written_offset`; make the next file when the current one comes to its end.

        Errors: DiskFull; the writer meets it too if it gets there.
        """
        while self._prepare_step(written_offset):
            pass

    def truncate(self, offset: int, data_end: int) -> MappedSegment:
        """Make [offset, data_end) disappear, durably, with readers at work; the file of `offset` becomes current.

        Files are never shortened, since views of them may be held: bytes become zeros, files behind are removed. The
        eight bytes at `offset` go first, so that whatever a crash leaves, no record begins there any more; or all do.
        """
        with self._lock:
            start = self.start_of(offset)
            segment = self._mapped.get(start) or self._map(start)
            self._next = None
            stop = min(data_end, start + self.file_size_bytes) - start
            position = offset - start
            while position < stop:
                piece_stop = min(stop, position + (_RECORD_START_BYTES if position == offset - start else _CLEAR_BYTES))
                segment.write(position, bytes(piece_stop - position))
                if position == offset - start:
                    segment.sync()
                position = piece_stop
            segment.sync()
            for later in reversed(segment_starts(self._disk, self._directory, self.file_size_bytes)):
                if later > start:
                    self._mapped.pop(later, None)
                    self._files.remove(self._directory, later)
            self._make_current(start, segment, offset)
            for directory in self._files.take_changed_directories():
                self._disk.sync_dir(directory)
            return segment

    def begin_at(self, start: int) -> None:
        """Let a row of files that holds nothing yet begin with the file of `start`; `open_at` has to follow."""
        with self._lock:
            self._next = None
            self._mapped.clear()
            for old in reversed(segment_starts(self._disk, self._directory, self.file_size_bytes)):
                self._files.remove(self._directory, old)
            for directory in self._files.take_changed_directories():
                self._disk.sync_dir(directory)
            self.starts = range(start, start, self.file_size_bytes)
            self.reserved_end = start

    def retire(self, hot_from: int) -> None:
        """Unmap files that lie before `hot_from` altogether."""
        with self._lock:
            for start in [start for start in self._mapped if start + self.file_size_bytes <= hot_from]:
                # Not closed here: a reader may be about to slice it. It goes with the last reference.
                del self._mapped[start]

    # -- the cleaner's side --------------------------------------------------------------------------------------------

    def remove_first(self) -> None:
        """Delete the oldest file, which must not be the last one. The change is durable after `sync_names`.

        From the start nobody finds it any more; a view of it that is still held stays good, and keeps its blocks.
        Errors: OSError, and the file is there as before.
        """
        with self._lock:
            start = self.starts[0]
            assert len(self.starts) > 1, "the last file of the log is never deleted"
            self.starts = self.starts[1:]
        try:
            self._files.remove(self._directory, start)
        except OSError:
            with self._lock:
                self.starts = range(start, self.starts.stop, self.file_size_bytes)
            raise
        with self._lock:
            self._mapped.pop(start, None)

    def sync_names(self) -> None:
        """Make removals durable. Errors: OSError."""
        self._disk.sync_dir(self._directory)

    # -- reading and syncing -------------------------------------------------------------------------------------------

    def view(self, offset: int, size_bytes: int) -> memoryview | None:
        """The bytes themselves, read-only, when their file is mapped."""
        start = self.start_of(offset)
        segment = self._mapped.get(start)
        if segment is None:
            return None
        position = offset - start
        return segment.view[position : position + size_bytes].toreadonly()

    def pread(self, offset: int, size_bytes: int, *, wait: bool) -> bytes | None:
        """A copy of the bytes, which lie in one file; None when they are not in memory and `wait` is False."""
        start = self.start_of(offset)
        if start not in self.starts:
            raise OffsetOutOfRange(offset, self.min_offset, self.end)
        try:
            segment = self._files.get(self._directory, start)
        except FileNotFoundError:
            if start in self.starts:
                raise
            raise OffsetOutOfRange(offset, self.min_offset, self.end) from None  # deleted since we looked
        if wait:
            return segment.pread(offset - start, size_bytes)
        return segment.pread_cached(offset - start, size_bytes)

    def sync(self, offset: int, end: int) -> None:
        """Sync the files that hold [offset, end)."""
        for start in range(self.start_of(offset), end, self.file_size_bytes):
            segment = self._mapped.get(start) or self._files.get(self._directory, start)
            segment.sync()

    # -- while opening -------------------------------------------------------------------------------------------------

    def data_end(self, offset: int) -> int:
        """One past the last non-zero byte at or after `offset`; `offset` when there is none."""
        for start in reversed(self.starts):
            if start + self.file_size_bytes <= offset:
                break
            position = max(0, offset - start)
            end = self._files.get(self._directory, start).data_end(position)
            if end > position:
                return start + end
        return offset

    def clear_from(self, offset: int) -> None:
        """Make everything from `offset` on disappear, durably: zeros in its file, later files removed."""
        current_start = self.start_of(offset)
        for start in reversed(self.starts):
            if start > current_start:
                self._files.remove(self._directory, start)
        if current_start in self.starts:
            segment = self._files.get(self._directory, current_start)
            segment.clear_from(offset - current_start)
            segment.sync()
            self.starts = range(self.starts.start, current_start + self.file_size_bytes, self.file_size_bytes)
        for directory in self._files.take_changed_directories():
            self._disk.sync_dir(directory)

    def make_durable(self, offset: int, unsure_from: int, end: int) -> None:
        """Sync [offset, end) and the files' names, whatever the process that wrote them did.

        From `unsure_from` on the bytes are written once more: if a sync failed in that process, the pages are clean,
        and only writing them makes the next sync cover them.
        """
        self._rewrite(unsure_from, end)
        self.sync(offset, end)
        if self.starts:
            self._disk.sync_dir(self._directory)
            self._disk.sync_dir(self._directory.parent)

    def _rewrite(self, offset: int, end: int) -> None:
        while offset < end:
            start = self.start_of(offset)
            stop = min(end, offset + _RESERVE_INLINE_BYTES, start + self.file_size_bytes)
            segment = self._files.get(self._directory, start)
            segment.write(offset - start, segment.pread(offset - start, stop - offset))
            offset = stop

    def close(self) -> None:
        """Let go of all files; each closes when the last reader that is still at work is done with it."""
        with self._lock:
            self._mapped.clear()
            self._next = None
        self._files.close()

    @contextmanager
    def _lock_for_writer(self, start: int) -> Iterator[None]:
        """The lock, for work on the file that begins at `start`. Errors: DiskSlow when it is not to be had in time."""
        if not self._lock.acquire(timeout=self._writer_wait_ms / 1000):
            raise DiskSlow("reserve", segment_path(self._directory, start), self._writer_wait_ms)
        try:
            yield
        finally:
            self._lock.release()

    # -- with the lock held --------------------------------------------------------------------------------------------

    def _prepare_step(self, written_offset: int) -> bool:
        """One piece of the work; True when there is more."""
        goal = written_offset + self._reserve_ahead_bytes
        with self._lock:
            if self.reserved_end < min(goal, self.end):
                end = min(self.reserved_end + _RESERVE_STEP_BYTES, goal, self.end)
                self._reserve_current(end, end)
                return True
            if goal <= self.end:
                return False
            if self._next is None:
                self._next = self._map(self.end)
                self._next_reserved_end = self.end
            end = min(self._next_reserved_end + _RESERVE_STEP_BYTES, goal, self.end + self.file_size_bytes)
            if end > self._next_reserved_end:
                self._reserve(self._next, self.end, self._next_reserved_end, end)
                self._next_reserved_end = end
                return True
            return False

    def _map(self, start: int) -> MappedSegment:
        path = segment_path(self._directory, start)
        try:
            segment = self._disk.map_segment(path, self.file_size_bytes, create=True)
            # A synced record is no use in a file, or a directory, whose name a power loss forgets. Also where the file
            # was there already: whoever made it, this very code included, may have failed before it got here.
            self._disk.sync_dir(self._directory)
            self._disk.sync_dir(self._directory.parent)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFull(path) from error
            raise
        return segment

    def _make_current(self, start: int, segment: MappedSegment, reserved_end: int) -> None:
        self._mapped[start] = segment
        self.reserved_end = reserved_end
        first = self.starts.start if self.starts else start
        self.starts = range(first, start + self.file_size_bytes, self.file_size_bytes)

    def _reserve_current(self, needed_end: int, wanted_end: int) -> None:
        start = self.end - self.file_size_bytes
        end = min(max(needed_end, wanted_end), self.end)
        self._reserve(self._mapped[start], start, self.reserved_end, end)
        self.reserved_end = end

    def _reserve(self, segment: MappedSegment, start: int, offset: int, end: int) -> None:
        try:
            segment.reserve(offset - start, end - offset)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFull(segment_path(self._directory, start)) from error
            raise
