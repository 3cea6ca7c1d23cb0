"""A store directory opened for looking: nothing in it changes, and nobody else changes it meanwhile."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from apogeemq.store.checkpoint import Checkpoint, CheckpointFile
from apogeemq.store.config import RECORD_OVERHEAD_SIZE_BYTES_MAX
from apogeemq.store.errors import StoreInUse
from apogeemq.store.files import Disk, DiskLock, RealDisk
from apogeemq.store.log_files import LogFiles, log_rows
from apogeemq.store.queue_units import QueueUnits
from apogeemq.store.read_only_disk import ReadOnlyDisk
from apogeemq.store.store_layout import INDEX_ENTRIES_MAX, INDEX_SLOTS, StoreLayout, find_layout

OnProgress = Callable[[int, int], None]
"""(bytes done, bytes in all)."""

_USUAL_NAMES = ("broker", "store")
"""Of a store within what people take for it: `apogeemq up` makes the first in its data directory, Java the second."""


class StoreView:
    """What tools look at: the parts of the log, the consume queues, the checkpoint, and how the store was stopped."""

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        commit_log_file_size_bytes: int = 0,
        consume_queue_file_size_bytes: int = 0,
        index_slots: int = INDEX_SLOTS,
        index_entries_max: int = INDEX_ENTRIES_MAX,
        message_size_bytes_max: int = 4 << 20,
        exclusive: bool = False,
    ) -> Self:
        """Look at a directory, ours or a Java broker's. Sizes of 0 are found out from the files.

        `exclusive` is for those who change something beside the view: nobody else may look meanwhile; the lock file
        is made if need be.

        Errors: StoreInUse, NotADirectoryError and FileNotFoundError when it is no store, OSError, and as find_layout.
        """
        disk = ReadOnlyDisk()
        check_is_store(disk, directory)
        try:
            lock: DiskLock = (RealDisk() if exclusive else disk).lock(directory / "lock")
        except BlockingIOError as error:
            raise StoreInUse(directory) from error
        try:
            layout = find_layout(
                disk,
                directory,
                commit_log_file_size_bytes=commit_log_file_size_bytes,
                consume_queue_file_size_bytes=consume_queue_file_size_bytes,
                index_slots=index_slots,
                index_entries_max=index_entries_max,
            )
            return cls(disk, directory, lock, layout, message_size_bytes_max + RECORD_OVERHEAD_SIZE_BYTES_MAX)
        except BaseException:
            lock.release()
            raise

    def __init__(
        self, disk: Disk, directory: Path, lock: DiskLock, layout: StoreLayout, record_size_bytes_max: int
    ) -> None:
        """For `open`."""
        self.disk = disk
        self.directory = directory
        self.layout = layout
        self.record_size_bytes_max = record_size_bytes_max
        self.is_clean = disk.size_of(directory / "abort") is None
        """The store was stopped in good order."""
        self.log_parts, self.log_faults = log_rows(disk, directory / "commitlog", layout.commit_log_file_size_bytes)
        """More than one part only where files are missing, which is among the faults."""
        self.queues = QueueUnits(disk, directory / "consumequeue", layout.consume_queue_file_size_bytes)
        self.checkpoint = _load_checkpoint(disk, directory / "checkpoint")
        self._lock = lock

    @property
    def log_min_offset(self) -> int:
        """Where the oldest file begins."""
        return self.log_parts[0].min_offset if self.log_parts else 0

    def part_of(self, physical_offset: int) -> LogFiles | None:
        """The part of the log that has this offset."""
        return next((part for part in self.log_parts if part.min_offset <= physical_offset < part.end), None)

    def relative(self, path: Path) -> Path:
        """The path as findings and tables name it."""
        return path.relative_to(self.directory) if path.is_relative_to(self.directory) else path

    def close(self) -> None:
        """Let go of the directory."""
        for part in self.log_parts:
            part.close()
        self.queues.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def check_is_store(disk: Disk, directory: Path) -> None:
    """Errors: FileNotFoundError when there is neither a log nor a checkpoint: most likely the wrong directory."""
    if _looks_like_store(disk, directory):
        return
    reason = f"{directory} is no store: it has neither commitlog nor checkpoint"
    inside = next((directory / name for name in _USUAL_NAMES if _looks_like_store(disk, directory / name)), None)
    raise FileNotFoundError(reason if inside is None else f"{reason}; {inside} is one")


def _looks_like_store(disk: Disk, directory: Path) -> bool:
    return not {"commitlog", "checkpoint"}.isdisjoint(disk.list_dir(directory))


def _load_checkpoint(disk: Disk, path: Path) -> Checkpoint:
    if disk.size_of(path) is None:
        return Checkpoint()
    file = CheckpointFile(disk, path)
    try:
        return file.load()
    finally:
        file.close()
