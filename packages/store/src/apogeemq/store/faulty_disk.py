"""A disk that fails: power loss with torn and reordered writes, I/O errors, no room. For tests of what survives.

What it may do, all within what POSIX and Linux promise:
- *Power loss.* Content survives up to the file's last good `sync`. Of every 512-byte sector written since (through a
  map or not), either the old or the new content is there afterwards, each by its own chance: so writes are lost, torn
  and reordered. Of the changes of a directory since its last `sync_dir`, a prefix is there.
- *Failed sync.* As on Linux, the pages are clean afterwards: a later sync succeeds without having written them. Only
  writing them again makes them dirty again.
- *Failed write.* Some prefix of the data, ending between two sectors, may have been written.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from random import Random

from apogeemq.store.memory_disk import Inode, MemoryDisk, MemorySegment

SECTOR_SIZE_BYTES = 512

_CHANGES = frozenset(
    {"open_segment", "write", "sync", "reserve", "clear_from", "write_file", "rename", "remove", "sync_dir"}
)


class PowerLoss(Exception):  # noqa: N818 — an event, not an error of the store
    """The machine lost power. The disk answers nothing more until `restart`."""


class FaultyInode(Inode):
    """A file's content twice: `data` as processes see it, `durable` as the platter has it.

    `lost` holds sectors that a failed sync marked clean, with the content they had then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.durable = bytearray()
        self.lost: dict[int, bytes] = {}

    def dirty_sectors(self) -> list[int]:
        """Sectors that differ from the platter and that the next sync writes."""
        if self.data == self.durable and not self.lost:
            return []
        dirty = []
        for sector in range(0, len(self.data), SECTOR_SIZE_BYTES):
            content = bytes(self.data[sector : sector + SECTOR_SIZE_BYTES])
            if content != self.durable[sector : sector + SECTOR_SIZE_BYTES] and content != self.lost.get(sector, b""):
                dirty.append(sector)
        return dirty

    def lose_dirty_sectors(self) -> None:
        """A sync failed: these sectors stay off the platter until they are written again."""
        for sector in self.dirty_sectors():
            self.lost[sector] = bytes(self.data[sector : sector + SECTOR_SIZE_BYTES])

    def settle(self, sectors: list[int]) -> None:
        """Bring these sectors, and the file's size, to the platter."""
        self._resize_durable()
        for sector in sectors:
            end = sector + SECTOR_SIZE_BYTES
            self.durable[sector:end] = self.data[sector:end]
            self.lost.pop(sector, None)

    def _resize_durable(self) -> None:
        missing_bytes = len(self.data) - len(self.durable)
        if missing_bytes < 0:
            del self.durable[missing_bytes:]
        else:
            self.durable.extend(bytes(missing_bytes))


@dataclass
class _Fault:
    operation: str
    path_part: str
    error_number: int
    calls_before: int
    times: int


class FaultyDisk(MemoryDisk):
    """A MemoryDisk with a platter behind it. All chance comes from `chance`, so a seed replays a run."""

    def __init__(self, chance: Random, *, capacity_bytes: int | None = None) -> None:
        super().__init__(capacity_bytes=capacity_bytes)
        self._chance = chance
        self._faults: list[_Fault] = []
        self._changes_until_power_loss: int | None = None
        self._powered = True
        self._names: dict[Path, FaultyInode] = {}
        self._pending_names: dict[Path, list[dict[Path, FaultyInode | None]]] = {}
        self._directories: set[Path] = set()
        self._pending_directories: set[Path] = set()

    # -- what a test does ----------------------------------------------------------------------------------------------

    def fail(
        self, operation: str, error_number: int, *, path_part: str = "", calls_before: int = 0, times: int = 1
    ) -> None:
        """Let calls of `operation` on paths that contain `path_part` fail: `times` of them, after `calls_before`."""
        self._faults.append(_Fault(operation, path_part, error_number, calls_before, times))

    def lose_power_after(self, changes: int) -> None:
        """Raise PowerLoss in the middle of the change that follows after this many more of them."""
        self._changes_until_power_loss = changes

    def lose_power(self) -> None:
        """Now, between two calls."""
        self._powered = False

    def restart(self) -> None:
        """The machine is back: what was not synced has survived or not. Segments opened before are dead."""
        for directory in list(self._pending_names):
            self._settle_directory(directory, self._chance.randint(0, len(self._pending_names[directory])))
        self._directories |= {path for path in self._pending_directories if self._chance.random() < 0.5}
        survivors = {
            path: inode
            for path, inode in self._names.items()
            if all(parent in self._directories for parent in path.parents[:-1])
        }
        for inode in {id(inode): inode for inode in survivors.values()}.values():
            if len(inode.durable) == len(inode.data) or self._chance.random() < 0.5:
                inode.settle([sector for sector in inode.dirty_sectors() if self._chance.random() < 0.5])
        self._names = {path: _revived(inode) for path, inode in survivors.items()}
        self.files = dict(self._names)
        self._pending_names.clear()
        self._pending_directories.clear()
        self._forget_processes()

    def kill_process(self) -> None:
        """The process is gone, the machine is not: the page cache stays, locks are free."""
        self._forget_processes()

    def any_prefix_size(self, position: int, size_bytes: int) -> int:
        """How much of a write that failed got through: it stops between two sectors."""
        first_boundary = SECTOR_SIZE_BYTES - position % SECTOR_SIZE_BYTES
        sizes: list[int] = [0, *range(first_boundary, size_bytes, SECTOR_SIZE_BYTES), size_bytes]
        return self._chance.choice(sizes)

    def _forget_processes(self) -> None:
        self.locks.clear()
        self._faults.clear()
        self._changes_until_power_loss = None
        self._powered = True

    # -- refinements of MemoryDisk -------------------------------------------------------------------------------------

    def enter(self, operation: str, path: Path) -> None:
        """Strike here if it is time to."""
        if not self._powered:
            raise PowerLoss
        if self._changes_until_power_loss is not None and operation in _CHANGES:
            if self._changes_until_power_loss == 0:
                self._powered = False
                raise PowerLoss
            self._changes_until_power_loss -= 1
        for fault in self._faults:
            if fault.operation == operation and fault.path_part in str(path) and fault.times > 0:
                if fault.calls_before > 0:
                    fault.calls_before -= 1
                    continue
                fault.times -= 1
                raise OSError(fault.error_number, os.strerror(fault.error_number), str(path))

    def new_inode(self) -> FaultyInode:
        """See MemoryDisk."""
        return FaultyInode()

    def link(self, path: Path, inode: Inode) -> None:
        """See MemoryDisk."""
        assert isinstance(inode, FaultyInode)
        super().link(path, inode)
        self._pending_names.setdefault(path.parent, []).append({path: inode})
        self._pending_directories.update(parent for parent in path.parents[:-1] if parent not in self._directories)

    def unlink(self, path: Path) -> Inode:
        """See MemoryDisk."""
        self._pending_names.setdefault(path.parent, []).append({path: None})
        return super().unlink(path)

    def rename(self, source: Path, target: Path) -> None:
        """See Disk. Both names change at once or not at all."""
        super().rename(source, target)
        *others, old_name_gone, new_name_there = self._pending_names[target.parent]
        self._pending_names[target.parent] = [*others, old_name_gone | new_name_there]

    def write_file(self, path: Path, data: bytes) -> None:
        """See Disk. When it fails, a new file holds a prefix of the data."""
        try:
            super().write_file(path, data)
        except (OSError, PowerLoss):
            if path not in self.files:
                inode = self.new_inode()
                inode.data.extend(data[: self.any_prefix_size(0, len(data))])
                self.link(path, inode)
            raise

    def write_inode(self, inode: Inode, position: int, data: bytes | bytearray | memoryview) -> None:
        """See MemoryDisk. Written again, a sector that a failed sync lost is dirty again."""
        assert isinstance(inode, FaultyInode)
        super().write_inode(inode, position, data)
        for sector in list(inode.lost):
            if sector < position + len(data) and position < sector + SECTOR_SIZE_BYTES:
                del inode.lost[sector]

    def sync_inode(self, inode: Inode, path: Path) -> None:
        """See MemoryDisk."""
        assert isinstance(inode, FaultyInode)
        super().sync_inode(inode, path)
        inode.settle(inode.dirty_sectors())

    def open_segment(self, path: Path, size_bytes: int, *, create: bool = False) -> "FaultySegment":
        """See Disk."""
        inode = self._open_sized(path, size_bytes, create=create)
        assert isinstance(inode, FaultyInode)
        return FaultySegment(self, path, inode)

    def map_segment(self, path: Path, size_bytes: int, *, create: bool = False) -> "FaultySegment":
        """See Disk."""
        return self.open_segment(path, size_bytes, create=create)

    def sync_dir(self, path: Path) -> None:
        """See Disk."""
        super().sync_dir(path)
        self._settle_directory(path, len(self._pending_names.get(path, ())))
        settled = {directory for directory in self._pending_directories if directory.parent == path}
        self._directories |= settled
        self._pending_directories -= settled

    def _settle_directory(self, directory: Path, changes: int) -> None:
        pending = self._pending_names.pop(directory, [])
        for change in pending[:changes]:
            for path, inode in change.items():
                if inode is None:
                    self._names.pop(path, None)
                else:
                    self._names[path] = inode
        if pending[changes:]:
            self._pending_names[directory] = pending[changes:]


class FaultySegment(MemorySegment):
    """A segment whose writes and syncs go wrong halfway."""

    def __init__(self, disk: FaultyDisk, path: Path, inode: FaultyInode) -> None:
        super().__init__(disk, path, inode)
        self._faulty_disk = disk
        self._faulty_inode = inode

    def write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """See Segment. When it fails, some prefix of the data is in the page cache."""
        try:
            super().write(position, data)
        except (OSError, PowerLoss):
            prefix = data[: self._faulty_disk.any_prefix_size(position, len(data))]
            if position + len(prefix) <= self._faulty_inode.allocated_bytes:
                self._faulty_disk.write_inode(self._faulty_inode, position, prefix)
            raise

    def sync(self) -> None:
        """See Segment. When it fails, nothing was written and everything counts as clean."""
        try:
            super().sync()
        except OSError:
            self._faulty_inode.lose_dirty_sectors()
            raise


def _revived(inode: FaultyInode) -> FaultyInode:
    """The file as a restarted machine finds it: only the platter counts, reservations beyond the data are gone."""
    revived = FaultyInode()
    revived.data = bytearray(inode.durable)
    revived.durable = bytearray(inode.durable)
    revived.allocated_bytes = len(inode.durable.rstrip(b"\0"))
    return revived
