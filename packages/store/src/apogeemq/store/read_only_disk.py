"""The operating system's files, for looking only: nothing on the disk changes, whatever is called."""

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import NoReturn

from apogeemq.store.files import RealDisk, RealMappedSegment, RealSegment


class ReadOnlyDisk(RealDisk):
    """A Disk that refuses changes with EROFS; it works on a file system that is mounted read-only.

    Files are opened for reading and stay as long as they are: a segment that is shorter than the size asked for has
    zeros behind its end, as if it had been extended. `create` makes nothing: a file that is not there is not found.
    """

    def open_segment(self, path: Path, size_bytes: int, *, create: bool = False) -> "ReadOnlySegment":
        """See Disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        actual_size_bytes = os.fstat(descriptor).st_size
        if actual_size_bytes > size_bytes:
            os.close(descriptor)
            raise OSError(errno.EFBIG, f"{actual_size_bytes} bytes instead of {size_bytes}", str(path))
        return ReadOnlySegment(descriptor, size_bytes)

    def map_segment(self, path: Path, size_bytes: int, *, create: bool = False) -> RealMappedSegment:
        """Refused: a map is for writing."""
        _refuse(path)

    def write_file(self, path: Path, data: bytes) -> None:
        """Refused."""
        _refuse(path)

    def rename(self, source: Path, target: Path) -> None:
        """Refused."""
        _refuse(source)

    def remove(self, path: Path) -> None:
        """Refused."""
        _refuse(path)

    def sync_dir(self, path: Path) -> None:
        """Nothing changed, so there is nothing to sync."""

    def lock(self, path: Path) -> "ReadLock":  # type: ignore[override]  # shared among readers, against any writer
        """Keep writers out while the lock is held; other readers come in. Errors: BlockingIOError as in Disk.

        A lock file that is not there is not made: without one nobody has the directory open, and one who opens it
        meanwhile is not kept out.
        """
        return ReadLock(path)


class ReadOnlySegment(RealSegment):
    """A file opened for reading, with zeros behind its end up to the size that was asked for."""

    def pread(self, position: int, size_bytes: int) -> bytes:
        """See Segment."""
        data = os.pread(self.descriptor, size_bytes, position)
        while len(data) < size_bytes:
            more = os.pread(self.descriptor, size_bytes - len(data), position + len(data))
            if not more:
                return data + bytes(size_bytes - len(data))
            data += more
        return data

    def pread_cached(self, position: int, size_bytes: int) -> bytes:
        """The same as `pread`: those who only look have time."""
        return self.pread(position, size_bytes)

    def write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """Refused."""
        _refuse(None)

    def sync(self) -> None:
        """Nothing was written, so there is nothing to sync."""

    def reserve(self, position: int, size_bytes: int) -> None:
        """Refused."""
        _refuse(None)

    def clear_from(self, position: int) -> None:
        """Refused."""
        _refuse(None)


class ReadLock:
    """Shared with other readers; excludes stores of ours (flock) and Java brokers (POSIX record lock)."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # As in RealLock, but shared: this is all that a descriptor opened for reading may ask for.
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, 0, 1, 0))
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """See DiskLock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _refuse(path: Path | None) -> NoReturn:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), None if path is None else str(path))
