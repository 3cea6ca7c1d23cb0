"""A disk in memory: for tests and for stores that need not outlive their process."""

import errno
import os
from pathlib import Path

from apogeemq.store.files import DiskSpace

_UNBOUNDED_SIZE_BYTES = 1 << 62


class Inode:
    """What one file holds, whatever its name is. `allocated_bytes` of it have blocks, counted from the start."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.allocated_bytes = 0


class MemoryDisk:
    """Files in dictionaries. Everything is durable at once; nothing survives the object.

    `capacity_bytes` bounds the blocks of all files together: above it calls fail with ENOSPC.
    `cached` is what `pread_cached` pretends: False = nothing is in memory, as after a restart of the machine.
    """

    def __init__(self, *, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.cached = True
        self.files: dict[Path, Inode] = {}
        self.locks: dict[Path, MemoryLock] = {}

    # -- what FaultyDisk refines ---------------------------------------------------------------------------------------

    def enter(self, operation: str, path: Path) -> None:
        """Called at the start of each operation; `operation` is the name of the port's method."""

    def new_inode(self) -> Inode:
        """An empty file without a name."""
        return Inode()

    def link(self, path: Path, inode: Inode) -> None:
        """Give the file this name, taking it from whoever had it."""
        self.files[path] = inode

    def unlink(self, path: Path) -> Inode:
        """Take the name away."""
        return self.files.pop(path)

    def write_inode(self, inode: Inode, position: int, data: bytes | bytearray | memoryview) -> None:
        """Put bytes into a file that is large enough."""
        self.allocate(inode, position + len(data))
        inode.data[position : position + len(data)] = data

    def sync_inode(self, inode: Inode, path: Path) -> None:
        """Make the file's content durable. Everything written must have had its blocks."""
        assert len(inode.data.rstrip(b"\0")) <= inode.allocated_bytes, f"{path} was written beyond its reserved blocks"

    # -- the port ------------------------------------------------------------------------------------------------------

    def open_segment(self, path: Path, size_bytes: int, *, create: bool = False) -> "MemorySegment":
        """See Disk."""
        return MemorySegment(self, path, self._open_sized(path, size_bytes, create=create))

    def map_segment(self, path: Path, size_bytes: int, *, create: bool = False) -> "MemorySegment":
        """See Disk."""
        return self.open_segment(path, size_bytes, create=create)

    def list_dir(self, path: Path) -> list[str]:
        """See Disk."""
        self.enter("list_dir", path)
        depth = len(path.parts)
        return sorted({file.parts[depth] for file in self.files if path in file.parents})

    def size_of(self, path: Path) -> int | None:
        """See Disk."""
        self.enter("size_of", path)
        inode = self.files.get(path)
        return None if inode is None else len(inode.data)

    def read_file(self, path: Path) -> bytes:
        """See Disk."""
        self.enter("read_file", path)
        return bytes(self._inode(path).data)

    def write_file(self, path: Path, data: bytes) -> None:
        """See Disk."""
        self.enter("write_file", path)
        inode = self.files.get(path)
        if inode is None:
            inode = self.new_inode()
            self.link(path, inode)
        inode.data = bytearray(len(data))
        self.write_inode(inode, 0, data)
        self.sync_inode(inode, path)

    def rename(self, source: Path, target: Path) -> None:
        """See Disk."""
        self.enter("rename", source)
        self._inode(source)
        self.link(target, self.unlink(source))

    def remove(self, path: Path) -> None:
        """See Disk."""
        self.enter("remove", path)
        self._inode(path)
        self.unlink(path)

    def sync_dir(self, path: Path) -> None:
        """See Disk."""
        self.enter("sync_dir", path)

    def space(self, path: Path) -> DiskSpace:
        """See Disk. Without a capacity it is as large as disks get."""
        self.enter("space", path)
        total_bytes = _UNBOUNDED_SIZE_BYTES if self.capacity_bytes is None else self.capacity_bytes
        return DiskSpace(total_bytes, max(0, total_bytes - self.used_bytes()))

    def lock(self, path: Path) -> "MemoryLock":
        """See Disk."""
        self.enter("lock", path)
        if path in self.locks:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        if path not in self.files:
            self.link(path, self.new_inode())
        self.locks[path] = MemoryLock(self.locks, path)
        return self.locks[path]

    # -- blocks --------------------------------------------------------------------------------------------------------

    def allocate(self, inode: Inode, end: int) -> None:
        """Give the file blocks up to `end`, or fail with ENOSPC."""
        wanted_bytes = end - inode.allocated_bytes
        if wanted_bytes <= 0:
            return
        if self.capacity_bytes is not None and self.used_bytes() + wanted_bytes > self.capacity_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        inode.allocated_bytes = end

    def used_bytes(self) -> int:
        """The blocks of all files."""
        return sum(inode.allocated_bytes for inode in self.files.values())

    def _inode(self, path: Path) -> Inode:
        inode = self.files.get(path)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return inode

    def _open_sized(self, path: Path, size_bytes: int, *, create: bool) -> Inode:
        self.enter("open_segment", path)
        if create and path not in self.files:
            self.link(path, self.new_inode())
        inode = self._inode(path)
        if len(inode.data) > size_bytes:
            raise OSError(errno.EFBIG, f"{len(inode.data)} bytes instead of {size_bytes}", str(path))
        if len(inode.data) < size_bytes:
            inode.data.extend(bytes(size_bytes - len(inode.data)))
        return inode


class MemorySegment:
    """A file of a MemoryDisk, mapped or not: it lies in memory anyway."""

    def __init__(self, disk: MemoryDisk, path: Path, inode: Inode) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode
        self.size_bytes = len(inode.data)

    @property
    def view(self) -> memoryview:
        """See MappedSegment."""
        return memoryview(self._inode.data)

    def pread(self, position: int, size_bytes: int) -> bytes:
        """See Segment."""
        self._disk.enter("pread", self._path)
        return bytes(self._inode.data[position : position + size_bytes])

    def pread_cached(self, position: int, size_bytes: int) -> bytes | None:
        """See Segment."""
        return self.pread(position, size_bytes) if self._disk.cached else None

    def write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """See Segment."""
        self._disk.enter("write", self._path)
        self._disk.write_inode(self._inode, position, data)

    def sync(self) -> None:
        """See Segment."""
        self._disk.enter("sync", self._path)
        self._disk.sync_inode(self._inode, self._path)

    def reserve(self, position: int, size_bytes: int) -> None:
        """See Segment."""
        self._disk.enter("reserve", self._path)
        self._disk.allocate(self._inode, position + size_bytes)

    def clear_from(self, position: int) -> None:
        """See Segment."""
        self._disk.enter("clear_from", self._path)
        self._inode.data[position:] = bytes(self.size_bytes - position)
        self._inode.allocated_bytes = min(self._inode.allocated_bytes, position)

    def data_end(self, position: int) -> int:
        """See Segment."""
        self._disk.enter("data_end", self._path)
        return position + len(self._inode.data[position:].rstrip(b"\0"))

    def close(self) -> None:
        """See Segment. Nothing to give back."""


class MemoryLock:
    """An entry in the disk's table of locks."""

    def __init__(self, locks: dict[Path, "MemoryLock"], path: Path) -> None:
        self._locks = locks
        self._path = path

    def release(self) -> None:
        """See DiskLock."""
        if self._locks.get(self._path) is self:
            del self._locks[self._path]
