"""The hash slots of one index file, in memory for as long as they are being changed."""

import mmap
import struct
import sys
from array import array
from collections.abc import Callable

from apogeemq.store.files import Segment

SLOT = struct.Struct(">i")
SLOT_SIZE_BYTES = SLOT.size
_SLOT_BITS = 2
_MEMORY_SLOT = struct.Struct("=i")

_PAGE_BITS = 12
_PAGE_SIZE_BYTES = 1 << _PAGE_BITS
_RUN_PAGES_MAX = 16
"""Pages side by side that are written in one go."""

_ABSENT, _CLEAN, _DIRTY = range(3)


class SlotTable:
    """Slots between two positions of a file; each holds a number, 0 when it was never used.

    ```
    file     │ header │ slot 0 │ slot 1 │ …                                   │ entries …
    pages    ├─ 4 KiB ────────────┼─ 4 KiB ─┼─ …
    memory     anonymous, the same positions, but the machine's order of bytes, so that slots are an array of numbers;
               a page is read at its first use and written by `write`
    ```
    Keys hash to any slot: written one by one they would cost 6.5 µs each in system calls, here 0.2 µs (ADR 0013).
    Memory is taken for the pages that were used, until `drop`. One thread at a time.
    Methods raise OSError as the disk does; the table stays as it was then.
    """

    def __init__(self, segment: Callable[[], Segment], start: int, stop: int) -> None:
        """`segment` gives the file; the slots lie in [start, stop) of it."""
        self._segment = segment
        self._start = start
        self._stop = stop
        self._memory: mmap.mmap | None = None
        self._states = bytearray()

    @property
    def is_dirty(self) -> bool:
        """Something was put that `write` did not write."""
        return _DIRTY in self._states

    def get(self, position: int) -> int:
        """The number in the slot at this position of the file."""
        number: int
        if self._memory is None or self._states[position >> _PAGE_BITS] == _ABSENT:
            (number,) = SLOT.unpack(self._segment().pread(position, SLOT_SIZE_BYTES))
        else:
            (number,) = _MEMORY_SLOT.unpack_from(self._memory, position)
        return number

    def put(self, position: int, number: int) -> int:
        """Replace the number in a slot, in memory. Returns the old one."""
        page = position >> _PAGE_BITS
        memory = self._memory
        if memory is None or self._states[page] != _DIRTY:
            memory = self._load(page)
            self._states[page] = _DIRTY
        old: int
        (old,) = _MEMORY_SLOT.unpack_from(memory, position)
        _MEMORY_SLOT.pack_into(memory, position, number)
        return old

    def put_row(self, positions: list[int], first_number: int) -> list[int]:
        """`put` ascending numbers, one after the other. Returns the old ones; on an error nothing was put."""
        pages = {position >> _PAGE_BITS for position in positions}
        for page in pages:
            if self._memory is None or self._states[page] != _DIRTY:
                self._load(page)
        assert self._memory is not None
        old = []
        with memoryview(self._memory).cast("i") as slots:
            for number, position in enumerate(positions, first_number):
                slot = position >> _SLOT_BITS
                old.append(slots[slot])
                slots[slot] = number
        for page in pages:
            self._states[page] = _DIRTY
        return old

    def write(self) -> None:
        """Write what was put to the file, unsynced."""
        page = self._states.find(_DIRTY)
        while page >= 0:
            last = page
            while last + 1 < min(len(self._states), page + _RUN_PAGES_MAX) and self._states[last + 1] == _DIRTY:
                last += 1
            self._write_pages(page, last + 1)
            page = self._states.find(_DIRTY, last + 1)

    def drop(self) -> None:
        """Give the memory back, unless there is something left to write."""
        if self._memory is not None and not self.is_dirty:
            self._memory.close()
            self._memory = None
            self._states = bytearray()

    def _load(self, page: int) -> mmap.mmap:
        if self._memory is None:
            # A map of its own, not a bytearray: untouched pages take no memory, and all of it goes back at once.
            self._memory = mmap.mmap(-1, self._stop)
            self._states = bytearray((self._stop - 1 >> _PAGE_BITS) + 1)
        if self._states[page] == _ABSENT:
            start, stop = self._bounds(page, page + 1)
            self._memory[start:stop] = _swapped(self._segment().pread(start, stop - start))
            self._states[page] = _CLEAN
        return self._memory

    def _write_pages(self, first: int, end: int) -> None:
        assert self._memory is not None
        start, stop = self._bounds(first, end)
        self._segment().write(start, _swapped(self._memory[start:stop]))
        self._states[first:end] = bytes([_CLEAN]) * (end - first)

    def _bounds(self, first: int, end: int) -> tuple[int, int]:
        """Positions of these pages; what is not slots is left out."""
        return max(first << _PAGE_BITS, self._start), min(end << _PAGE_BITS, self._stop)


def _swapped(slots: bytes) -> bytes:
    """From the file's order of bytes to the machine's, or back."""
    numbers = array("i", slots)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()
