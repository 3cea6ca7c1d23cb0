"""Carrying out a repair plan: first copies of all that goes, then the change, in an order that a crash may interrupt.

Copies lie in `<store>/repair-<time>/`, under the paths that the originals had; a piece of a log file is named by the
physical offset of its first byte. Repair again after an interruption: what was done already is not found any more.
"""

from collections.abc import Sequence
from pathlib import Path

from apogeemq.store.checkpoint import CheckpointFile
from apogeemq.store.consume_queue import PADDING_SIZE, UNIT
from apogeemq.store.errors import LayoutInvalid
from apogeemq.store.files import Disk, RealDisk, Segment, replace_file
from apogeemq.store.queue_units import QueueRow
from apogeemq.store.repair_plan import CutLog, FillRange, LowerFlushedOffset, RepairStep, RestoreConfig
from apogeemq.store.segment_files import segment_path
from apogeemq.store.skip_records import encode_fill
from apogeemq.store.store_layout import file_starts
from apogeemq.store.store_view import StoreView

_COPY_SIZE_BYTES = 8 << 20


def apply_repair(view: StoreView, steps: Sequence[RepairStep], copies: Path, *, disk: Disk | None = None) -> None:
    """Do what was planned. The view must hold the directory exclusively; it is out of date afterwards.

    `copies` is where originals are kept; it is made when the first one is. Errors: OSError; what was not done yet is
    still as it was.
    """
    repair = _Repair(view, copies, disk or RealDisk())
    for step in steps:
        if isinstance(step, CutLog):
            repair.cut(step)
        elif isinstance(step, FillRange):
            repair.fill(step)
        elif isinstance(step, LowerFlushedOffset):
            repair.lower_checkpoint(step.physical_offset)
        elif isinstance(step, RestoreConfig):
            repair.restore(step)


class _Repair:
    """One repair of one directory."""

    def __init__(self, view: StoreView, copies: Path, disk: Disk) -> None:
        self._view = view
        self._copies = copies
        self._disk = disk
        self._log = view.directory / "commitlog"
        self._file_size_bytes = view.layout.commit_log_file_size_bytes

    def cut(self, step: CutLog) -> None:
        """The checkpoint first: from then on the opening takes the rest for what a crash tore, and cuts it itself."""
        self.lower_checkpoint(step.physical_offset)
        target = self._copies / "commitlog"
        target.mkdir(parents=True, exist_ok=True)
        # From the end: whatever interrupts this, the files left form a row, and those that went are in the copies.
        for start in reversed(file_starts(self._disk, self._log)):
            if start >= step.physical_offset:
                self._disk.rename(segment_path(self._log, start), segment_path(target, start))
            elif start + self._file_size_bytes > step.physical_offset:
                self._cut_file(start, step.physical_offset)
        self._sync_names(target)

    def fill(self, step: FillRange) -> None:
        """Units first: one that points to nothing is padding, which readers pass over, whatever the log says."""
        for row in self._view.queues.rows():
            if not isinstance(row, LayoutInvalid):
                self._pad_units(row, step)
        file_start = step.start - (step.start - self._view.log_min_offset) % self._file_size_bytes
        segment = self._disk.open_segment(
            segment_path(self._log, file_start), self._file_size_bytes, create=step.is_missing
        )
        if not step.is_missing:
            self._copy(
                segment, file_start, step.start, segment.data_end(0) + file_start if step.is_file_end else step.end
            )
        for physical_offset, data in encode_fill(
            step.start,
            step.end,
            is_file_end=step.is_file_end,
            record_size_bytes_max=self._view.record_size_bytes_max,
            store_timestamp_ms=step.store_timestamp_ms,
        ):
            segment.write(physical_offset - file_start, data)
        segment.sync()
        segment.close()
        self._disk.sync_dir(self._log)

    def lower_checkpoint(self, physical_offset: int) -> None:
        """Nothing at or behind this offset is known to be synced. Times stay: they only say where a scan begins."""
        file = CheckpointFile(self._disk, self._view.directory / "checkpoint")
        try:
            checkpoint = file.load()
            checkpoint.master_flushed_offset = min(checkpoint.master_flushed_offset, physical_offset)
            checkpoint.confirm_offset = min(checkpoint.confirm_offset, physical_offset)
            file.save(checkpoint)
        finally:
            file.close()

    def restore(self, step: RestoreConfig) -> None:
        """The backup stays beside the file that is now the same."""
        target = self._copies / self._view.relative(step.path)
        self._disk.write_file(target, self._disk.read_file(step.path))
        self._sync_names(target.parent)
        replace_file(self._disk, step.path, self._disk.read_file(step.backup))

    # -- the log -------------------------------------------------------------------------------------------------------

    def _cut_file(self, start: int, physical_offset: int) -> None:
        segment = self._disk.open_segment(segment_path(self._log, start), self._file_size_bytes)
        try:
            self._copy(segment, start, physical_offset, segment.data_end(physical_offset - start) + start)
            segment.clear_from(physical_offset - start)
            segment.sync()
        finally:
            segment.close()

    def _copy(self, segment: Segment, file_start: int, start: int, end: int) -> None:
        """Keep [start, end) of one file, synced."""
        if end <= start:
            return
        target = self._copies / "commitlog"
        copy = self._disk.open_segment(segment_path(target, start), end - start, create=True)
        try:
            for at in range(start, end, _COPY_SIZE_BYTES):
                size_bytes = min(_COPY_SIZE_BYTES, end - at)
                copy.write(at - start, segment.pread(at - file_start, size_bytes))
            copy.sync()
        finally:
            copy.close()
        self._sync_names(target)

    # -- consume queues ------------------------------------------------------------------------------------------------

    def _pad_units(self, row: QueueRow, step: FillRange) -> None:
        """Units whose records lie in the range stand for no message from now on."""
        units = self._view.queues
        end = units.end_of(row)
        for queue_offset in range(self._first_unit(row, step.start, end), end):
            physical_offset, size_bytes, _ = UNIT.unpack(units.read(row, queue_offset, 1))
            if physical_offset >= step.end:
                break
            if size_bytes != PADDING_SIZE and physical_offset >= step.start:
                path, position = units.place_of(row, queue_offset)
                segment = self._disk.open_segment(path, self._view.layout.consume_queue_file_size_bytes)
                # The offset stays: units are in the order of the log, which searches rely on.
                segment.write(position, UNIT.pack(physical_offset, PADDING_SIZE, 0))
                segment.sync()
                segment.close()

    def _first_unit(self, row: QueueRow, physical_offset: int, end: int) -> int:
        """The first queue offset whose record does not lie before `physical_offset`, by bisection."""
        low, high = row.first_offset, end
        while low < high:
            middle = (low + high) // 2
            if UNIT.unpack_from(self._view.queues.read(row, middle, 1))[0] < physical_offset:
                low = middle + 1
            else:
                high = middle
        return low

    def _sync_names(self, directory: Path) -> None:
        for path in (directory, self._copies, self._view.directory, self._log):
            self._disk.sync_dir(path)
