"""The disk that is handed in: its port, and the real one.

A *segment* is a file of a fixed size that is written in place. Everything else (checkpoint, config, abort) is small and
goes through whole-file calls. Implementations: `RealDisk` here, `MemoryDisk`, `FaultyDisk`; all pass the same tests.

All methods raise OSError as the operating system does. What a power loss leaves of unsynced work is anybody's guess:
any subset of the written sectors, and any prefix of a directory's changes.
"""

import errno
import fcntl
import functools
import mmap
import os
import struct
import weakref
from pathlib import Path
from typing import NamedTuple, Protocol

_COPY_SIZE_BYTES = 1 << 20
_MADE_OF_MEMORY = frozenset({"tmpfs", "ramfs"})
_PAGE_SIZE_BYTES = 4096
_ZEROS = bytes(_COPY_SIZE_BYTES)


class Segment(Protocol):
    """One file of fixed size, read and written at positions. Safe to use from several threads at once.

    Positions are bytes from the start of the file; a range must lie inside the file.
    """

    @property
    def size_bytes(self) -> int:
        """The size of the file. Parts never written read as zeros."""
        ...

    def pread(self, position: int, size_bytes: int) -> bytes:
        """A copy of these bytes. May wait for the disk (the GIL is released meanwhile)."""
        ...

    def pread_cached(self, position: int, size_bytes: int) -> bytes | None:
        """The same without waiting: None unless all the bytes are in memory already."""
        ...

    def write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """Put these bytes there, unsynced."""
        ...

    def sync(self) -> None:
        """Return once everything written before the call is on the disk, also what went through a map."""
        ...

    def reserve(self, position: int, size_bytes: int) -> None:
        """Allocate the blocks under a range, so that later writes there cannot run out of room. Content stays."""
        ...

    def clear_from(self, position: int) -> None:
        """Make everything from `position` on read as zeros and give its blocks back."""
        ...

    def data_end(self, position: int) -> int:
        """One past the last non-zero byte at or after `position`; `position` itself when the rest is zeros."""
        ...

    def close(self) -> None:
        """Give the file back. A segment that is dropped without this closes when the last reference goes."""
        ...


class MappedSegment(Segment, Protocol):
    """A segment that lies in memory as well."""

    @property
    def view(self) -> memoryview:
        """The file's bytes, writable. Only reserved ranges may be written: elsewhere a full disk kills the process.

        A slice that is still held after `close` keeps the map (and a deleted file's blocks) alive.
        """
        ...


class DiskSpace(NamedTuple):
    """Room of a file system, in bytes."""

    total_bytes: int
    free_bytes: int
    """What this process may still use; blocks kept back for root do not count."""

    @property
    def used_ratio(self) -> float:
        """0 to 1 of what this process could ever use, as `df` and Apache count it."""
        return 1 - self.free_bytes / self.total_bytes if self.total_bytes else 1.0


class DiskLock(Protocol):
    """An exclusive lock on a file, held until released or until the process ends."""

    def release(self) -> None:
        """Let others have it."""
        ...


class Disk(Protocol):
    """Files and directories. `create` makes missing parent directories too; names are durable after `sync_dir`."""

    def open_segment(self, path: Path, size_bytes: int, *, create: bool = False) -> Segment:
        """Open a file as a segment; a shorter file is extended with zeros, a longer one is refused with EFBIG."""
        ...

    def map_segment(self, path: Path, size_bytes: int, *, create: bool = False) -> MappedSegment:
        """The same, mapped into memory."""
        ...

    def list_dir(self, path: Path) -> list[str]:
        """Sorted names in a directory; empty when there is no such directory."""
        ...

    def size_of(self, path: Path) -> int | None:
        """The size of a file; None when there is none."""
        ...

    def read_file(self, path: Path) -> bytes:
        """The whole file."""
        ...

    def write_file(self, path: Path, data: bytes) -> None:
        """Make the file's content exactly `data`, synced; not atomic (see `replace_file`)."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Move a file, replacing `target`."""
        ...

    def remove(self, path: Path) -> None:
        """Delete a file."""
        ...

    def sync_dir(self, path: Path) -> None:
        """Make the creations, renames and removals in this directory durable."""
        ...

    def space(self, path: Path) -> DiskSpace:
        """Room of the file system that holds `path`, which exists."""
        ...

    def lock(self, path: Path) -> DiskLock:
        """Create and lock a file. Errors: BlockingIOError when somebody else holds it."""
        ...


def replace_file(disk: Disk, path: Path, data: bytes, *, backup: bool = False) -> None:
    """Replace a small file so that a crash leaves the old content or the new one, durable at return.

    With `backup` the old file stays as `<name>.bak`, as Apache's config files do; a crash between the two renames
    leaves only the backup, so readers fall back to it.
    """
    temporary = path.with_name(path.name + ".tmp")
    disk.write_file(temporary, data)
    if backup and disk.size_of(path) is not None:
        disk.rename(path, path.with_name(path.name + ".bak"))
    disk.rename(temporary, path)
    disk.sync_dir(path.parent)


# --------------------------------------------------------------------------------------------------------------------
# The real one
# --------------------------------------------------------------------------------------------------------------------


class RealDisk:
    """The operating system's files (Linux)."""

    def open_segment(self, path: Path, size_bytes: int, *, create: bool = False) -> "RealSegment":
        """See Disk."""
        return RealSegment(_open_sized(path, size_bytes, create=create), size_bytes)

    def map_segment(self, path: Path, size_bytes: int, *, create: bool = False) -> "RealMappedSegment":
        """See Disk."""
        return RealMappedSegment(_open_sized(path, size_bytes, create=create), size_bytes)

    def list_dir(self, path: Path) -> list[str]:
        """See Disk."""
        try:
            return sorted(os.listdir(path))  # noqa: PTH208 — names are wanted, not Path objects
        except FileNotFoundError:
            return []

    def size_of(self, path: Path) -> int | None:
        """See Disk."""
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None

    def read_file(self, path: Path) -> bytes:
        """See Disk."""
        return path.read_bytes()

    def write_file(self, path: Path, data: bytes) -> None:
        """See Disk."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """See Disk."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """See Disk."""
        path.unlink()

    def sync_dir(self, path: Path) -> None:
        """See Disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def space(self, path: Path) -> DiskSpace:
        """See Disk."""
        status = os.statvfs(path)
        # As df does: blocks reserved for root are neither free nor part of the whole.
        usable_blocks = status.f_blocks - status.f_bfree + status.f_bavail
        return DiskSpace(usable_blocks * status.f_frsize, status.f_bavail * status.f_frsize)

    def lock(self, path: Path) -> "RealLock":
        """See Disk."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return RealLock(path)


class RealSegment:
    """A file descriptor with a size. The descriptor closes with `close` or with the last reference."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self.descriptor = descriptor
        self.size_bytes = size_bytes
        self._lies_in_memory = False
        self._close_descriptor = weakref.finalize(self, os.close, descriptor)
        # A process that ends without closing its store still has threads at work: a number that is free again might be
        # given to a file that one of them opens while another one writes to it.
        self._close_descriptor.atexit = False

    def pread(self, position: int, size_bytes: int) -> bytes:
        """See Segment."""
        data = os.pread(self.descriptor, size_bytes, position)
        while len(data) < size_bytes:  # interrupted, or above the 2 GiB that one call can read
            more = os.pread(self.descriptor, size_bytes - len(data), position + len(data))
            if not more:
                raise OSError(errno.EIO, f"the file ends before byte {position + size_bytes}")
            data += more
        return data

    def pread_cached(self, position: int, size_bytes: int) -> bytes | None:
        """See Segment. All is in memory on a file system made of it; None where one cannot tell (some of networks)."""
        if self._lies_in_memory:
            return self.pread(position, size_bytes)
        buffer = bytearray(size_bytes)
        try:
            if os.preadv(self.descriptor, [buffer], position, os.RWF_NOWAIT) < size_bytes:
                return None
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return None
            if error.errno == errno.EOPNOTSUPP:
                self._lies_in_memory = _lies_in_memory(os.fstat(self.descriptor).st_dev)
                return self.pread(position, size_bytes) if self._lies_in_memory else None
            raise
        return bytes(buffer)

    def write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """See Segment."""
        left = memoryview(data)
        while left:
            written = os.pwrite(self.descriptor, left, position)
            left = left[written:]
            position += written

    def sync(self) -> None:
        """See Segment. fdatasync covers mapped writes too and, unlike mmap.flush, releases the GIL."""
        os.fdatasync(self.descriptor)

    def reserve(self, position: int, size_bytes: int) -> None:
        """See Segment."""
        os.posix_fallocate(self.descriptor, position, size_bytes)

    def clear_from(self, position: int) -> None:
        """See Segment."""
        os.ftruncate(self.descriptor, position)
        os.ftruncate(self.descriptor, self.size_bytes)

    def data_end(self, position: int) -> int:
        """See Segment. Skips holes and reserved but unwritten blocks without reading them; reads from the end."""
        extents = []
        at = position
        while at < self.size_bytes:
            try:
                start = os.lseek(self.descriptor, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but holes
                    break
                raise
            at = os.lseek(self.descriptor, start, os.SEEK_HOLE)
            extents.append((start, at))
        for start, stop in reversed(extents):
            end = self._data_end_between(start, stop)
            if end:
                return end
        return position

    def _data_end_between(self, start: int, stop: int) -> int:
        """One past the last non-zero byte in the range; 0 when there is none."""
        piece_size_bytes = _PAGE_SIZE_BYTES  # mostly the last page tells
        while start < stop:
            piece_start = max(start, stop - piece_size_bytes)
            piece = self.pread(piece_start, stop - piece_start)
            # Else there mostly are whole pieces of zeros, which == sees fastest.
            if piece != (_ZEROS if len(piece) == _COPY_SIZE_BYTES else bytes(len(piece))):
                # The length of the piece as a number tells without its zeros, three times as fast as rstrip.
                return piece_start + (int.from_bytes(piece, "little").bit_length() + 7) // 8
            stop = piece_start
            piece_size_bytes = _COPY_SIZE_BYTES
        return 0

    def close(self) -> None:
        """See Segment."""
        self._close_descriptor()


class RealMappedSegment(RealSegment):
    """The same with its bytes mapped, shared with the page cache."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        super().__init__(descriptor, size_bytes)
        self._map = mmap.mmap(descriptor, size_bytes)
        self.view = memoryview(self._map)

    def close(self) -> None:
        """See Segment."""
        self.view.release()
        try:
            self._map.close()
        except BufferError:
            # A reader still holds a slice: the map goes when that slice does.
            del self._map
        super().close()


class RealLock:
    """Exclusive against other stores (flock) and against a Java broker, whose FileChannel takes a POSIX record lock."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # An open-file-description lock conflicts with POSIX ones but does not vanish when some other descriptor
            # of the same file is closed. struct flock: type, whence, start, length, pid.
            whole_first_byte = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, whole_first_byte)
        except OSError:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        """See DiskLock."""
        os.close(self._descriptor)


@functools.lru_cache(maxsize=64)
def _lies_in_memory(device: int) -> bool:
    """Whether a device (`st_dev`) is a file system without a disk behind it.

    Source: proc_pid_mountinfo(5): `36 35 98:0 /root /at options [tags] - type …`.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, file_system = line.partition(" - ")
        if mount.split(" ")[2] == number:
            return file_system.split(" ")[0] in _MADE_OF_MEMORY
    return False


def _open_sized(path: Path, size_bytes: int, *, create: bool) -> int:
    """A descriptor of a file that has exactly this size."""
    flags = os.O_RDWR | os.O_CLOEXEC
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags |= os.O_CREAT
    descriptor = os.open(path, flags, 0o644)
    try:
        _fit_size(descriptor, path, size_bytes)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _fit_size(descriptor: int, path: Path, size_bytes: int) -> None:
    actual_size_bytes = os.fstat(descriptor).st_size
    if actual_size_bytes > size_bytes:
        raise OSError(errno.EFBIG, f"{actual_size_bytes} bytes instead of {size_bytes}", str(path))
    if actual_size_bytes < size_bytes:
        os.ftruncate(descriptor, size_bytes)
