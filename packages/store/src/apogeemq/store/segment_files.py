"""Files of one size whose names say where they begin: a row of them in a directory, opened when needed."""

import re
from collections import OrderedDict
from pathlib import Path
from threading import Lock

from apogeemq.store.errors import LayoutInvalid
from apogeemq.store.files import Disk, Segment

_NAME = re.compile(r"\d{20}")


def segment_path(directory: Path, start: int) -> Path:
    """The file whose first byte has this offset in the row: 20 decimal digits."""
    return directory / f"{start:020d}"


def segment_starts(disk: Disk, directory: Path, file_size_bytes: int) -> range:
    """Where the files of a directory begin, in steps of the file size; empty when there are none.

    Names that are not 20 digits are not ours and are passed over.
    Errors: LayoutInvalid when files are missing in between or begin elsewhere, or when one is too large.
    """
    starts = [int(name) for name in disk.list_dir(directory) if _NAME.fullmatch(name)]
    if not starts:
        return range(0)
    row = range(starts[0], starts[-1] + file_size_bytes, file_size_bytes)
    for expected, start in zip(row, starts, strict=False):
        if start != expected:
            raise LayoutInvalid(
                segment_path(directory, expected),
                f"missing between {starts[0]:020d} and {starts[-1]:020d} (configured file size {file_size_bytes})",
            )
    for start in starts:
        size_bytes = disk.size_of(segment_path(directory, start)) or 0
        if size_bytes > file_size_bytes:
            raise LayoutInvalid(
                segment_path(directory, start), f"{size_bytes} bytes, but files of {file_size_bytes} are configured"
            )
    return row


class SegmentFiles:
    """Open files of one size, the least recently used one dropped above a bound. Safe for several threads.

    A dropped file closes when the last thread that still uses it is done.
    """

    def __init__(self, disk: Disk, file_size_bytes: int, open_files_max: int) -> None:
        self.file_size_bytes = file_size_bytes
        self._disk = disk
        self._open_files_max = open_files_max
        self._open: OrderedDict[tuple[Path, int], Segment] = OrderedDict()
        self._lock = Lock()
        self._changed_directories: set[Path] = set()

    def __len__(self) -> int:
        """How many files are open."""
        return len(self._open)

    def get(self, directory: Path, start: int, *, create: bool = False) -> Segment:
        """The file that begins at `start`, extended to its full size if it was shorter.

        Errors: FileNotFoundError unless `create`.
        """
        key = (directory, start)
        with self._lock:
            segment = self._open.get(key)
            if segment is not None:
                self._open.move_to_end(key)
                return segment
            path = segment_path(directory, start)
            if create and self._disk.size_of(path) is None:
                self._changed_directories.add(directory)
            segment = self._disk.open_segment(path, self.file_size_bytes, create=create)
            self._open[key] = segment
            if len(self._open) > self._open_files_max:
                self._open.popitem(last=False)
            return segment

    def remove(self, directory: Path, start: int) -> None:
        """Delete the file. Whoever has it in hand may go on reading."""
        key = (directory, start)
        self._drop(key)
        self._disk.remove(segment_path(directory, start))  # without the lock: a large file takes its time
        with self._lock:
            self._changed_directories.add(directory)
        self._drop(key)  # once more: a reader may have opened it meanwhile

    def _drop(self, key: tuple[Path, int]) -> None:
        with self._lock:
            self._open.pop(key, None)

    def distrust_names(self, directory: Path) -> None:
        """Count the directory as changed: a process that died may have made files there without syncing it."""
        with self._lock:
            self._changed_directories.add(directory)

    def take_changed_directories(self) -> set[Path]:
        """The directories in which files were made or removed since the last call."""
        with self._lock:
            changed, self._changed_directories = self._changed_directories, set()
            return changed

    def close(self) -> None:
        """Drop all."""
        with self._lock:
            self._open.clear()
