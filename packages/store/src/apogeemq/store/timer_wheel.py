"""Java's timer wheel: the last unit of each slot while timers come and go, and the file for Java to find."""

import mmap
import struct
from collections.abc import Iterable
from pathlib import Path

from apogeemq.store.files import Disk

_SLOTS = 2 * 7 * 24 * 3600
_SLOT = struct.Struct(">qqqii")
FILE_SIZE_BYTES = _SLOTS * _SLOT.size
_WRITE_SIZE_BYTES = 1 << 16


class TimerWheel:
    """Where the last unit of each slot lies. A slot is one step of `precision_ms`, and its number is its time / step.

    There are 2 · 604,800 places, a slot takes place number % 1,209,600: two weeks of seconds. What an older slot left
    in its place leads to a unit that was settled long ago, which harms no chain.
    One machine word for a place; untouched ones take no memory.
    """

    def __init__(self, precision_ms: int) -> None:
        self._precision_ms = precision_ms
        self._after_last = memoryview(mmap.mmap(-1, 8 * _SLOTS)).cast("q")
        """Position of the last unit plus 1, or 0."""

    def link(self, deliver_ms: int, position: int) -> None:
        """The unit of this timer is now the last of its slot."""
        self._after_last[(deliver_ms - 1) // self._precision_ms % _SLOTS] = position + 1

    def last_position(self, deliver_ms: int) -> int:
        """Of the slot that this timer belongs to; -1 when it has none."""
        return self._after_last[(deliver_ms - 1) // self._precision_ms % _SLOTS] - 1

    def save(self, disk: Disk, path: Path, pending: Iterable[tuple[int, int]]) -> None:
        """Write Java's file anew, durably, with the slots of these (deliver ms, position). Errors: OSError.

        ```
        slot, 32 bytes, at number % 1,209,600:  number i64 │ first position i64 │ last position i64 │ count i32 │ 0 i32
        ```
        38,707,200 bytes, of which only those near a slot in use take room on the disk. From the last unit a chain of
        previous positions leads through the slot; settled units in it are for Java deletions of nothing.
        Source: Apache store/timer/TimerWheel, Slot 5.3.
        """
        slots = mmap.mmap(-1, FILE_SIZE_BYTES)
        for deliver_ms, position in pending:
            number = (deliver_ms - 1) // self._precision_ms
            at = number % _SLOTS * _SLOT.size
            other_number, first, _, count, _ = _SLOT.unpack_from(slots, at)
            if not count or other_number != number:
                first, count = position, 0
            last = max(position, self.last_position(deliver_ms))
            _SLOT.pack_into(slots, at, number, min(first, position), last, count + 1, 0)
        segment = disk.open_segment(path, FILE_SIZE_BYTES, create=True)
        segment.clear_from(0)
        for at in range(0, FILE_SIZE_BYTES, _WRITE_SIZE_BYTES):
            piece = slots[at : at + _WRITE_SIZE_BYTES]
            if piece.count(0) < len(piece):
                segment.write(at, piece)
        segment.sync()
        segment.close()
        disk.sync_dir(path.parent)
