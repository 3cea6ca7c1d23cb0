"""A broker's disk: a log of which the end may be unsynced; an epoch file, a progress pointer and a counter of starts,
which are synced as they are written.

A killed process leaves everything (page cache). A power loss leaves what was synced, and of the rest any prefix, the
last record of it perhaps torn: recovery drops one that it sees to be torn (architecture §5), but a record's checksum
does not cover all of it, so that a torn one may pass.
"""

from __future__ import annotations

import random

from apogeemq.broker.core.replication.known_set import KnownSet
from apogeemq.store.epoch_file import EpochEntry

from tests.simulation.records import RECORD_SIZE_BYTES, is_whole


class LogDisk:
    """What outlives a process."""

    def __init__(self) -> None:
        self.log = bytearray()
        self.entries: tuple[EpochEntry, ...] = ()
        self.confirm_offset = 0
        self.starts = 0
        self.boot = 1
        self.was_clean = True
        self.lost_unsynced = False
        self.losses = 0
        self.pointer_offset = 0
        self.min_offset = 0
        """What lies before has expired: it counts in offsets, and is zeros."""
        self.known = KnownSet()
        """Synced."""
        self._synced_size = 0

    @property
    def synced_size(self) -> int:
        """How far the log would outlive a power loss."""
        return self._synced_size

    @property
    def last_epoch(self) -> int:
        """The newest epoch of the epoch file."""
        return self.entries[-1].epoch if self.entries else 0

    def append(self, data: bytes) -> None:
        """Unsynced."""
        self.log += data

    def sync(self) -> None:
        """All that was written is safe."""
        self._synced_size = len(self.log)

    def add_entry(self, entry: EpochEntry) -> None:
        """Synced. An entry ascends, as the epoch file demands."""
        if self.entries[-1:] == (entry,):
            return
        last = self.entries[-1] if self.entries else EpochEntry(0, 0)
        if entry.epoch <= last.epoch or entry.start_offset < last.start_offset:
            raise AssertionError(f"{entry} cannot follow {last}")
        self.entries += (entry,)

    def cut(self, offset: int) -> None:
        """The store's cut, durable; the epochs that begin there or later go with it."""
        del self.log[offset:]
        self._synced_size = min(self._synced_size, offset)
        self.entries = tuple(each for each in self.entries if each.start_offset < offset)

    def clear(self, offset: int = 0) -> None:
        """Everything goes; the log begins at this offset."""
        self.log[:] = bytes(offset)
        self.entries = ()
        self.confirm_offset = self.pointer_offset = self._synced_size = self.min_offset = offset

    def expire(self, offset: int) -> None:
        """The oldest files go."""
        self.log[:offset] = bytes(offset)
        self.min_offset = offset

    def lose_power(self, chance: random.Random) -> int:
        """The machine goes down; gives how many bytes went with it."""
        before = len(self.log)
        kept = chance.randint(self._synced_size, before)
        del self.log[kept:]
        if kept % RECORD_SIZE_BYTES and chance.random() < 0.5:
            self.log += bytes(RECORD_SIZE_BYTES - kept % RECORD_SIZE_BYTES)
        elif kept - kept % RECORD_SIZE_BYTES > self._synced_size and chance.random() < 0.5:
            self.log[kept - kept % RECORD_SIZE_BYTES - 1] ^= 0xFF
        self.boot += 1
        self.losses += 1
        self.confirm_offset = min(self.confirm_offset, self._synced_size)
        return before - kept

    def recover(self) -> None:
        """Opening: drop a torn end, and epochs noted before their first record (EpochFile.truncate_suffix)."""
        whole = len(self.log) - len(self.log) % RECORD_SIZE_BYTES
        if whole > self.min_offset and not is_whole(bytes(self.log[whole - RECORD_SIZE_BYTES : whole])):
            whole -= RECORD_SIZE_BYTES
        self.lost_unsynced = whole < len(self.log)
        del self.log[whole:]
        self._synced_size = len(self.log)
        self.entries = tuple(each for each in self.entries if each.start_offset < whole + 1)
        self.confirm_offset = min(self.confirm_offset, whole)
        self.starts += 1
