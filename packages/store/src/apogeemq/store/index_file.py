"""One index file: entries in the order of the log, chained by hash slot."""

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import msgspec
from apogeemq.store.files import Disk, Segment
from apogeemq.store.slot_table import SLOT_SIZE_BYTES, SlotTable

HEADER = struct.Struct(">4q2i")
HEADER_SIZE_BYTES = HEADER.size

ENTRY = struct.Struct(">iqii")
"""Key hash, physical offset, seconds since the file's begin timestamp, number of the slot's previous entry."""
ENTRY_SIZE_BYTES = ENTRY.size

PENDING = struct.Struct(">iqq")
"""An entry that is not chained yet: key hash, physical offset, store timestamp in ms."""

_SECONDS_MAX = 0x7FFFFFFF
_SCAN_ENTRIES = 50_000


class IndexHeader(msgspec.Struct):
    """The first 40 bytes, as far as they are true of the entries below `count`."""

    begin_timestamp_ms: int = 0
    """When the record of the first entry was stored."""
    end_timestamp_ms: int = 0
    """When the record of the last entry was stored."""
    begin_physical_offset: int = 0
    end_physical_offset: int = 0
    """Where the record of the last entry begins."""
    used_slots: int = 0
    count: int = 1
    """The number of the next entry: entry 0 is never used."""


def index_file_size_bytes(slots: int, entries_max: int) -> int:
    """The size of a file with so many slots and entries, entry 0 included."""
    return HEADER_SIZE_BYTES + slots * SLOT_SIZE_BYTES + entries_max * ENTRY_SIZE_BYTES


class IndexFile:
    """A hash table on disk that is only added to.

    ```
    at 0   begin ts i64 │ end ts i64 │ begin offset i64 │ end offset i64 │ used slots i32 │ count i32
      40   slot 0 i32 │ slot 1 i32 │ …             number of the newest entry whose hash falls there; 0 = none
      …    entry 0, unused │ entry 1 │ entry 2 │ …
    entry  key hash i32 │ physical offset i64 │ seconds since begin i32 │ number of the slot's entry before it i32
    ```
    Big-endian. A key's entries are found newest first: from its slot, entry by entry to ever lower numbers.
    `append` writes entries only; slots stay in memory until `begin_sync`, and the header is written when entries and
    slots are synced. So what the header on disk counts is there for sure. Slots on disk may be ahead of it if a crash
    struck in between: `repair`.
    Changed by one thread at a time; `head` counts as a change, `chain` does not. Methods may raise OSError.
    Source: Apache store/index/IndexFile, IndexHeader 5.x; broker_behaviour.md §9.
    """

    def __init__(self, disk: Disk, path: Path, slots: int, entries_max: int) -> None:
        self.path = path
        self.header = IndexHeader()
        self._disk = disk
        self._slots = slots
        self._entries_max = entries_max
        self._entries_start = HEADER_SIZE_BYTES + slots * SLOT_SIZE_BYTES
        self._size_bytes = index_file_size_bytes(slots, entries_max)
        self._segment: Segment | None = None
        self._table = SlotTable(self.segment, HEADER_SIZE_BYTES, self._entries_start)
        self._synced_header = bytes(HEADER_SIZE_BYTES)

    @property
    def room(self) -> int:
        """How many entries still fit."""
        return self._entries_max - self.header.count

    @property
    def is_empty(self) -> bool:
        """It has no entry."""
        return self.header.count <= 1

    def segment(self) -> Segment:
        """The open file. Whoever keeps it can go on reading, also after `release` or when the file was removed."""
        if self._segment is None:
            self._segment = self._disk.open_segment(self.path, self._size_bytes)
        return self._segment

    def distrust(self) -> None:
        """Have the next sync cover the file, whoever wrote it: what it says may be in the page cache only."""
        self._synced_header = b""

    def create(self) -> None:
        """Make the file."""
        self._segment = self._disk.open_segment(self.path, self._size_bytes, create=True)

    def load(self) -> bool:
        """Read the header of a file that is there. False when it cannot be true of what else is in the file."""
        data = self.segment().pread(0, HEADER_SIZE_BYTES)
        header = IndexHeader(*HEADER.unpack(data))
        header.count = max(1, header.count)  # Java leaves 0 in a file without entries
        self.header = header
        self._synced_header = self._header_bytes()
        if header.count > self._entries_max:
            return False
        if self.is_empty:
            return True
        newest = header.count - 1
        key_hash, physical_offset, _, _ = self._entry(self.segment(), newest)
        # The head of its slot may have been moved on by a sync that did not come to its end, never back.
        return key_hash >= 0 and physical_offset == header.end_physical_offset and self.head(key_hash) >= newest

    def release(self) -> None:
        """Close the file until it is needed again; slots must have been written."""
        self._table.drop()
        self._segment = None

    @property
    def is_unsynced(self) -> bool:
        """There is something for `begin_sync` to do."""
        return self._header_bytes() != self._synced_header

    # -- adding --------------------------------------------------------------------------------------------------------

    def append(self, pending: bytes) -> None:
        """Add entries, PENDING units back to back, of which there is room for all. On an error there are none."""
        header, slots, number = self.header, self._slots, self.header.count
        hashes, offsets, timestamps = zip(*PENDING.iter_unpack(pending), strict=True)
        begin_ms = timestamps[0] if self.is_empty else header.begin_timestamp_ms
        positions = [HEADER_SIZE_BYTES + key_hash % slots * SLOT_SIZE_BYTES for key_hash in hashes]
        previous = self._table.put_row(positions, number)
        for at, head in enumerate(previous):
            if not 0 < head < number + at:
                previous[at] = 0
        seconds = [(timestamp_ms - begin_ms) // 1000 for timestamp_ms in timestamps]
        if not 0 <= min(seconds) <= max(seconds) <= _SECONDS_MAX:
            seconds = [min(max(second, 0), _SECONDS_MAX) for second in seconds]
        entries = b"".join(map(ENTRY.pack, hashes, offsets, seconds, previous))
        try:
            self.segment().write(self._position(number), entries)
        except OSError:
            self._unlink(entries)
            raise
        if self.is_empty:
            header.begin_physical_offset = offsets[0]
            header.begin_timestamp_ms = begin_ms
        header.end_physical_offset = offsets[-1]
        header.end_timestamp_ms = timestamps[-1]
        header.used_slots += previous.count(0)
        header.count = number + len(previous)

    def _unlink(self, entries: bytes) -> int:
        """Let the slots of these entries, the newest ones, point to what came before. How many slots became unused."""
        unused_slots = 0
        for key_hash, _, _, previous in reversed(list(ENTRY.iter_unpack(entries))):
            self._table.put(self._slot_position(key_hash), previous)
            unused_slots += previous == 0
        return unused_slots

    # -- bringing it to the disk ---------------------------------------------------------------------------------------

    def begin_sync(self) -> bytes | None:
        """Write the slots; returns the header for `finish_sync`, None when there is nothing new."""
        header = self._header_bytes()
        if header == self._synced_header:
            return None
        self._table.write()
        return header

    def finish_sync(self, header: bytes) -> None:
        """Make entries and slots durable, then the header that speaks of them. `append` may go on meanwhile."""
        segment = self.segment()
        segment.sync()
        segment.write(0, header)
        segment.sync()
        self._synced_header = header

    def write_slots(self) -> None:
        """Write the slots and forget them: nothing will be added any more."""
        self._table.write()
        self._table.drop()

    def drop_slots(self) -> None:
        """Give the memory of slots back if they are all written."""
        self._table.drop()

    # -- finding -------------------------------------------------------------------------------------------------------

    def head(self, key_hash: int) -> int:
        """The newest entry of the hash's slot; 0 when there is none."""
        return self._table.get(self._slot_position(key_hash))

    def chain(self, segment: Segment, head: int, key_hash: int) -> Iterator[tuple[int, int, bool]]:
        """The entries from `head` on: (physical offset, store time rounded down to seconds in ms, is of this hash).

        Newest first. Numbers that do not get lower end it: damage must not make a reader go in circles.
        """
        begin_ms, number, limit = self.header.begin_timestamp_ms, head, self.header.count
        while 0 < number < limit:
            entry_hash, physical_offset, seconds, previous = self._entry(segment, number)
            # Java gives the first entry of a file the time since the end of the previous file.
            yield physical_offset, begin_ms + (seconds * 1000 if number > 1 else 0), entry_hash == key_hash
            number, limit = previous, number

    # -- taking back ---------------------------------------------------------------------------------------------------

    def truncate(self, physical_offset: int) -> None:
        """Remove the entries of records at or beyond the offset, durably.

        The header becomes shorter before the slots do: slots beyond it are found and mended after a crash, those that
        lost an entry would not be.
        """
        header, segment = self.header, self.segment()
        numbers = range(1, header.count)
        kept = bisect_left(numbers, physical_offset, key=lambda number: self._entry(segment, number)[1])
        count = kept + 1
        if count == header.count:
            return
        removed = segment.pread(self._position(count), (header.count - count) * ENTRY_SIZE_BYTES)
        self._table.write()
        segment.sync()
        self.header = self._shortened(header, count)
        self.header.used_slots = header.used_slots - self._unlink(removed)
        data = self._header_bytes()
        segment.write(0, data)
        segment.sync()
        self._synced_header = data
        self._table.write()
        segment.clear_from(self._position(count))
        segment.sync()

    def _shortened(self, header: IndexHeader, count: int) -> IndexHeader:
        if count <= 1:
            return IndexHeader()
        _, physical_offset, seconds, _ = self._entry(self.segment(), count - 1)
        # Entries have whole seconds only: the end of that second, lest a search by time passes the file over.
        last_ms = header.begin_timestamp_ms + (seconds * 1000 if count > 2 else 0) + 999
        return msgspec.structs.replace(
            header,
            end_timestamp_ms=min(header.end_timestamp_ms, last_ms),
            end_physical_offset=physical_offset,
            count=count,
        )

    def repair(self) -> bool:
        """Let no slot point beyond the entries that the header counts. True when some did.

        A slot that was not written since the last good sync is right. One that was points to an entry that may be
        torn, so its true head is looked for in all entries, from the newest one back.
        """
        heads = self._read_heads()
        count = self.header.count
        is_wrong = bool(heads) and not (min(heads) >= 0 and max(heads) < count)
        if is_wrong:
            wanted = {slot: 0 for slot, head in enumerate(heads) if not 0 <= head < count}
            missing = set(wanted)
            stop = count
            while missing and stop > 1:
                start = max(1, stop - _SCAN_ENTRIES)
                data = self.segment().pread(self._position(start), (stop - start) * ENTRY_SIZE_BYTES)
                for number, entry in zip(range(start, stop), ENTRY.iter_unpack(data), strict=True):
                    slot = entry[0] % self._slots
                    if slot in missing:
                        wanted[slot] = number
                missing = {slot for slot in missing if not wanted[slot]}
                stop = start
            for slot, head in wanted.items():
                self._table.put(HEADER_SIZE_BYTES + slot * SLOT_SIZE_BYTES, head)
            self.write_slots()
        self.distrust()
        # What lies behind would be found there by nobody, but two stores of one log shall have the same bytes.
        self.segment().clear_from(self._position(count))
        return is_wrong

    def _read_heads(self) -> "array[int]":
        heads = array("i", self.segment().pread(HEADER_SIZE_BYTES, self._slots * SLOT_SIZE_BYTES))
        if sys.byteorder == "little":
            heads.byteswap()
        return heads

    def _header_bytes(self) -> bytes:
        return HEADER.pack(*msgspec.structs.astuple(self.header))

    def _entry(self, segment: Segment, number: int) -> tuple[int, int, int, int]:
        key_hash, physical_offset, seconds, previous = ENTRY.unpack(
            segment.pread(self._position(number), ENTRY_SIZE_BYTES)
        )
        return key_hash, physical_offset, seconds, previous

    def _position(self, number: int) -> int:
        return self._entries_start + number * ENTRY_SIZE_BYTES

    def _slot_position(self, key_hash: int) -> int:
        return HEADER_SIZE_BYTES + key_hash % self._slots * SLOT_SIZE_BYTES
