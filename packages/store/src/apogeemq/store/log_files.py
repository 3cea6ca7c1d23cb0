"""A commit log to be read only, whatever its directory looks like: files may be missing in between."""

from pathlib import Path

from apogeemq.store.errors import LayoutInvalid, OffsetOutOfRange
from apogeemq.store.files import Disk, Segment
from apogeemq.store.segment_files import SegmentFiles, segment_path
from apogeemq.store.store_layout import file_starts

_OPEN_FILES_MAX = 16


class LogFiles:
    """Part of a commit log without a gap, read by physical offset; the reading half of MappedFileQueue."""

    def __init__(self, disk: Disk, directory: Path, file_size_bytes: int, starts: range) -> None:
        self.file_size_bytes = file_size_bytes
        self.starts = starts
        self._directory = directory
        self._files = SegmentFiles(disk, file_size_bytes, _OPEN_FILES_MAX)

    @property
    def min_offset(self) -> int:
        """Where the first file begins."""
        return self.starts.start

    @property
    def end(self) -> int:
        """Where the last file ends."""
        return self.starts.stop

    def start_of(self, offset: int) -> int:
        """Where the file that holds this offset begins."""
        return offset - (offset - self.starts.start) % self.file_size_bytes

    def path_of(self, offset: int) -> Path:
        """The file that holds this offset."""
        return segment_path(self._directory, self.start_of(offset))

    def pread(self, offset: int, size_bytes: int, *, wait: bool = True) -> bytes | None:
        """A copy of bytes of one file. Never None: those who only look may wait."""
        return self.read(offset, size_bytes)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """The same. Errors: OffsetOutOfRange."""
        start = self.start_of(offset)
        if start not in self.starts:
            raise OffsetOutOfRange(offset, self.min_offset, self.end)
        return self._segment(start).pread(offset - start, size_bytes)

    def data_end(self, offset: int) -> int:
        """One past the last non-zero byte at or after `offset`; `offset` when there is none."""
        for start in reversed(self.starts):
            if start + self.file_size_bytes <= offset:
                break
            position = max(0, offset - start)
            end = self._segment(start).data_end(position)
            if end > position:
                return start + end
        return offset

    def close(self) -> None:
        """Let go of the files."""
        self._files.close()

    def _segment(self, start: int) -> Segment:
        return self._files.get(self._directory, start)


def log_rows(disk: Disk, directory: Path, file_size_bytes: int) -> tuple[list[LogFiles], list[LayoutInvalid]]:
    """The log in parts without a gap, and what is wrong with the directory; neither part nor fault when it is empty."""
    faults = []
    rows: list[range] = []
    for start in file_starts(disk, directory):
        size_bytes = disk.size_of(segment_path(directory, start)) or 0
        if size_bytes > file_size_bytes:
            reason = f"{size_bytes} bytes, but the log's files have {file_size_bytes}"
            faults.append(LayoutInvalid(segment_path(directory, start), reason))
        elif rows and start == rows[-1].stop:
            rows[-1] = range(rows[-1].start, start + file_size_bytes, file_size_bytes)
        else:
            if rows:
                reason = f"the log goes on at {start:020d} only"
                faults.append(LayoutInvalid(segment_path(directory, rows[-1].stop), reason))
            rows.append(range(start, start + file_size_bytes, file_size_bytes))
    return [LogFiles(disk, directory, file_size_bytes, row) for row in rows], faults
