"""Consume queues to be read only, as they lie in their files, whatever is wrong with them."""

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from apogeemq.store.consume_queue import UNIT, UNIT_SIZE_BYTES
from apogeemq.store.errors import LayoutInvalid
from apogeemq.store.files import Disk, Segment
from apogeemq.store.segment_files import SegmentFiles, segment_path, segment_starts

_BLOCK_UNITS = 4096


class QueueRow(NamedTuple):
    """The files of one consume queue; `starts` in bytes."""

    topic: str
    queue_id: int
    directory: Path
    starts: range

    @property
    def first_offset(self) -> int:
        """The queue offset of the first unit of the first file."""
        return self.starts.start // UNIT_SIZE_BYTES

    @property
    def capacity_offset(self) -> int:
        """One past the last queue offset that the files have room for."""
        return self.starts.stop // UNIT_SIZE_BYTES


class QueueUnits:
    """The units of all queues of a directory."""

    def __init__(self, disk: Disk, directory: Path, file_size_bytes: int, *, open_files_max: int = 256) -> None:
        self.units_per_file = file_size_bytes // UNIT_SIZE_BYTES
        self._disk = disk
        self._directory = directory
        self._file_size_bytes = file_size_bytes
        self._files = SegmentFiles(disk, file_size_bytes, open_files_max)

    def rows(self) -> Iterator[QueueRow | LayoutInvalid]:
        """Each queue, by topic and id; what is wrong instead where its files do not fit."""
        for topic in self._disk.list_dir(self._directory):
            for name in sorted(filter(str.isdecimal, self._disk.list_dir(self._directory / topic)), key=int):
                directory = self._directory / topic / name
                try:
                    starts = segment_starts(self._disk, directory, self._file_size_bytes)
                except LayoutInvalid as fault:
                    yield fault
                else:
                    if starts:
                        yield QueueRow(topic, int(name), directory, starts)

    def row(self, topic: str, queue_id: int) -> QueueRow | None:
        """One queue; None if there is none. Errors: LayoutInvalid."""
        directory = self._directory / topic / str(queue_id)
        starts = segment_starts(self._disk, directory, self._file_size_bytes)
        return QueueRow(topic, queue_id, directory, starts) if starts else None

    def end_of(self, row: QueueRow) -> int:
        """One past the last queue offset: where the first empty unit (record size 0) is, by bisection."""
        for start in reversed(row.starts):
            segment = self._files.get(row.directory, start)

            def is_empty(index: int, segment: Segment = segment) -> bool:
                size_bytes: int = UNIT.unpack(segment.pread(index * UNIT_SIZE_BYTES, UNIT_SIZE_BYTES))[1]
                return size_bytes <= 0

            if not is_empty(0):
                return start // UNIT_SIZE_BYTES + bisect_left(range(self.units_per_file), True, key=is_empty)
        return row.first_offset

    def read(self, row: QueueRow, queue_offset: int, count: int) -> bytes:
        """The units of [queue_offset, queue_offset + count), less where the files end."""
        pieces = []
        at = max(queue_offset, row.first_offset) * UNIT_SIZE_BYTES
        end = min((queue_offset + count) * UNIT_SIZE_BYTES, row.starts.stop)
        while at < end:
            start = at - at % self._file_size_bytes
            stop = min(end, start + self._file_size_bytes)
            pieces.append(self._files.get(row.directory, start).pread(at - start, stop - at))
            at = stop
        return b"".join(pieces)

    def walk(self, row: QueueRow, queue_offset: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """(queue offset, physical offset, record size, tags code) of [queue_offset, stop), in blocks."""
        for block in range(queue_offset, stop, _BLOCK_UNITS):
            units = UNIT.iter_unpack(self.read(row, block, min(_BLOCK_UNITS, stop - block)))
            for number, (physical_offset, size_bytes, tags_code) in enumerate(units, block):
                yield number, physical_offset, size_bytes, tags_code

    def data_end(self, row: QueueRow, queue_offset: int) -> int:
        """One past the last queue offset at or after this one whose unit is not all zeros; itself if there is none."""
        at = queue_offset * UNIT_SIZE_BYTES
        for start in reversed(row.starts):
            if start + self._file_size_bytes <= at:
                break
            position = max(0, at - start)
            end = self._files.get(row.directory, start).data_end(position)
            if end > position:
                return -(-(start + end) // UNIT_SIZE_BYTES)
        return queue_offset

    def place_of(self, row: QueueRow, queue_offset: int) -> tuple[Path, int]:
        """The file that has this queue offset's unit, and its position there."""
        at = queue_offset * UNIT_SIZE_BYTES
        position = at % self._file_size_bytes
        return segment_path(row.directory, at - position), position

    def close(self) -> None:
        """Let go of the files."""
        self._files.close()
