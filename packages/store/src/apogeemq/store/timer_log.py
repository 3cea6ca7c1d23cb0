"""The row of files that timers are written to, one unit after the other, and what is found in them."""

from collections.abc import Iterator
from pathlib import Path

from apogeemq.store.files import Disk, Segment
from apogeemq.store.segment_files import SegmentFiles, segment_path, segment_starts
from apogeemq.store.timer_unit import MAGIC_POSITION, MAGIC_SETTLED, UNIT_SIZE_BYTES, TimerUnit, decode_unit

_BLANK_MAGIC = 0xCBD43194
_BLANK_SIZE_BYTES = 16
_PIECE_UNITS = 20_000
_SETTLED = MAGIC_SETTLED.to_bytes(4)


class TimerLog:
    """Units back to back in files of one size; a position is a byte offset in the row.

    ```
    timerlog/<20 digits>:  ├─ unit, 52 bytes ─┬─ unit ─┬── … ──┬─ blank filler ─┤   or, in the last file, zeros
    ```
    A file takes as many units as leave 16 bytes; there the filler begins: {what is left of the file i32, 0 i64,
    0xCBD43194}. So the n-th unit of the row can be computed, and since units come in the order of their records, the
    unit of a record is found by bisection.
    Units are written once; afterwards only their magic changes, in place, to "settled". Whatever changes the log is for
    one thread at a time; `sync`, and reading what is there, may go on beside it. All may raise OSError.
    Source: Apache store/timer/TimerLog 5.3.
    """

    def __init__(self, disk: Disk, directory: Path, file_size_bytes: int, *, open_files_max: int) -> None:
        self.directory = directory
        self.file_size_bytes = file_size_bytes
        self.starts = segment_starts(disk, directory, file_size_bytes)
        self.end = self.starts.start
        """Where the next unit goes; who opens the log sets it by `cut` to where the scan ended."""
        self._disk = disk
        self._units_per_file = (file_size_bytes - _BLANK_SIZE_BYTES) // UNIT_SIZE_BYTES
        self._files = SegmentFiles(disk, file_size_bytes, open_files_max)
        self._unsynced: set[int] = set()
        self._current: tuple[int, Segment] | None = None

    # -- where things are ----------------------------------------------------------------------------------------------

    @property
    def start(self) -> int:
        """Position of the first unit."""
        return self.starts.start

    def start_of(self, position: int) -> int:
        """Where the file of a position begins."""
        return position - position % self.file_size_bytes

    def path_of(self, position: int) -> Path:
        """The file of a position."""
        return segment_path(self.directory, self.start_of(position))

    def position_of(self, number: int) -> int:
        """Where the unit with this number lies, counted as if there had always been all files."""
        files, index = divmod(number, self._units_per_file)
        return files * self.file_size_bytes + index * UNIT_SIZE_BYTES

    def number_of(self, position: int) -> int:
        """The number of the unit at this position; at a filler that of the next one."""
        files, rest_bytes = divmod(position, self.file_size_bytes)
        return files * self._units_per_file + min(rest_bytes // UNIT_SIZE_BYTES, self._units_per_file)

    # -- writing -------------------------------------------------------------------------------------------------------

    def append(self, unit: bytes) -> int:
        """Write a unit behind the last one, unsynced; gives its position. On an error nothing counts as written."""
        position = self.end
        start = self.start_of(position)
        rest_bytes = start + self.file_size_bytes - position
        if rest_bytes < UNIT_SIZE_BYTES + _BLANK_SIZE_BYTES:
            filler = rest_bytes.to_bytes(4) + bytes(8) + _BLANK_MAGIC.to_bytes(4)
            self._segment(start).write(position - start, filler)
            self._unsynced.add(start)
            position = start = start + self.file_size_bytes
        self._segment(start, create=True).write(position - start, unit)
        self._unsynced.add(start)
        first = self.starts.start if self.starts else start
        self.starts = range(first, start + self.file_size_bytes, self.file_size_bytes)
        self.end = position + UNIT_SIZE_BYTES
        return position

    def settle(self, position: int) -> bool:
        """Note in the unit that nothing is left to be done, unsynced; False when that was noted before."""
        start = self.start_of(position)
        segment = self._segment(start)
        at = position - start + MAGIC_POSITION
        if segment.pread(at, len(_SETTLED)) == _SETTLED:
            return False
        segment.write(at, _SETTLED)
        self._unsynced.add(start)
        return True

    def take_unsynced(self) -> set[int]:
        """The files written to since the last call, for `sync`; not while another thread writes."""
        unsynced, self._unsynced = self._unsynced, set()
        return unsynced

    def sync(self, unsynced: set[int]) -> None:
        """Sync these files and all names. On an error it is not known any more what is synced."""
        for start in sorted(unsynced):
            if start in self.starts:  # else it was removed since
                self._files.get(self.directory, start).sync()
        if self._files.take_changed_directories():
            self._disk.sync_dir(self.directory)
            self._disk.sync_dir(self.directory.parent)

    def distrust(self, position: int) -> None:
        """Have the next sync cover all that another process wrote, and the files' names.

        From `position` on the bytes are written once more: if a sync failed in that process, the pages are clean, and
        only writing them makes the next sync cover them.
        """
        for start in self.starts:
            first, stop = max(start, position), min(start + self.file_size_bytes, self.end)
            if first < stop:
                segment = self._segment(start)
                segment.write(first - start, segment.pread(first - start, stop - first))
            self._unsynced.add(start)
        self._files.distrust_names(self.directory)

    def cut(self, position: int) -> None:
        """Make everything from `position` on disappear, durably."""
        self._current = None
        kept_stop = self.start_of(position) + self.file_size_bytes
        for start in reversed(self.starts):
            if start >= kept_stop:
                self._files.remove(self.directory, start)
            elif start + self.file_size_bytes > position:
                segment = self._files.get(self.directory, start)
                if segment.data_end(position - start) > position - start:
                    segment.clear_from(position - start)
                    self._unsynced.add(start)
        self.starts = range(self.starts.start, min(self.starts.stop, kept_stop), self.file_size_bytes)
        self.end = position
        self.sync(self.take_unsynced())

    def remove_first_file(self) -> None:
        """Delete the oldest file, which must not be the last one."""
        start = self.starts.start
        assert start + self.file_size_bytes < self.starts.stop
        self.starts = range(start + self.file_size_bytes, self.starts.stop, self.file_size_bytes)
        self._files.remove(self.directory, start)

    def close(self) -> None:
        """Let go of all files."""
        self._current = None
        self._files.close()

    # -- reading -------------------------------------------------------------------------------------------------------

    def unit_at(self, position: int) -> TimerUnit:
        """The unit at a position below the end. May wait for the disk."""
        start = self.start_of(position)
        return decode_unit(self._segment(start).pread(position - start, UNIT_SIZE_BYTES))

    def pieces(self, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(position, whole units) of everything from the first unit to `stop`, or to where the last file is full."""
        for start in self.starts:
            units_stop = start + self._units_per_file * UNIT_SIZE_BYTES
            file_stop = units_stop if stop is None else min(units_stop, stop)
            segment = self._files.get(self.directory, start)
            for position in range(start, file_stop, _PIECE_UNITS * UNIT_SIZE_BYTES):
                piece_stop = min(position + _PIECE_UNITS * UNIT_SIZE_BYTES, file_stop)
                yield position, segment.pread(position - start, piece_stop - position)

    def find(self, physical_offset: int) -> int:
        """Position of the first unit whose record does not begin below that; the end when there is none."""
        low, high = self.number_of(self.start), self.number_of(self.end)
        while low < high:
            middle = (low + high) // 2
            if self.unit_at(self.position_of(middle)).physical_offset < physical_offset:
                low = middle + 1
            else:
                high = middle
        return min(self.position_of(low), self.end)

    def last_unit(self) -> TimerUnit | None:
        """The newest unit; None when there is none."""
        number = self.number_of(self.end)
        return self.unit_at(self.position_of(number - 1)) if number > self.number_of(self.start) else None

    def _segment(self, start: int, *, create: bool = False) -> Segment:
        """The file, remembered: most calls are for the same one."""
        current = self._current
        if current is None or current[0] != start:
            current = start, self._files.get(self.directory, start, create=create)
            self._current = current
        return current[1]
