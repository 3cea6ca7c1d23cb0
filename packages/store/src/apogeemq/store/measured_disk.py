"""A disk whose operations are measured: the port around another disk."""

from pathlib import Path

from apogeemq.store.disk_health import DiskHealth
from apogeemq.store.files import Disk, DiskLock, DiskSpace, MappedSegment, Segment


class MeasuredDisk:
    """Does what the inner disk does, and tells `health` of every sync, write and reservation, and of every error.

    So whoever uses the disk is watched without doing anything for it. Reads are not timed, only their errors count.
    """

    def __init__(self, inner: Disk, health: DiskHealth) -> None:
        self.health = health
        self._inner = inner

    def open_segment(self, path: Path, size_bytes: int, *, create: bool = False) -> "MeasuredSegment":
        """See Disk."""
        try:
            return MeasuredSegment(self._inner.open_segment(path, size_bytes, create=create), path, self.health)
        except OSError as error:
            self.health.note_error("open", error)
            raise

    def map_segment(self, path: Path, size_bytes: int, *, create: bool = False) -> "MeasuredMappedSegment":
        """See Disk."""
        try:
            return MeasuredMappedSegment(self._inner.map_segment(path, size_bytes, create=create), path, self.health)
        except OSError as error:
            self.health.note_error("open", error)
            raise

    def list_dir(self, path: Path) -> list[str]:
        """See Disk."""
        return self._inner.list_dir(path)

    def size_of(self, path: Path) -> int | None:
        """See Disk."""
        return self._inner.size_of(path)

    def read_file(self, path: Path) -> bytes:
        """See Disk."""
        try:
            return self._inner.read_file(path)
        except OSError as error:
            self.health.note_error("read", error)
            raise

    def write_file(self, path: Path, data: bytes) -> None:
        """See Disk."""
        self.health.measure("sync", path, self._inner.write_file, path, data)

    def rename(self, source: Path, target: Path) -> None:
        """See Disk."""
        self._inner.rename(source, target)

    def remove(self, path: Path) -> None:
        """See Disk."""
        self._inner.remove(path)

    def sync_dir(self, path: Path) -> None:
        """See Disk."""
        self.health.measure("sync", path, self._inner.sync_dir, path)

    def space(self, path: Path) -> DiskSpace:
        """See Disk."""
        return self._inner.space(path)

    def lock(self, path: Path) -> DiskLock:
        """See Disk."""
        return self._inner.lock(path)


class MeasuredSegment:
    """A segment of a MeasuredDisk. It lives as long as the inner one: dropping it drops that."""

    def __init__(self, inner: Segment, path: Path, health: DiskHealth) -> None:
        self.size_bytes = inner.size_bytes
        self._inner = inner
        self._path = path
        self._health = health

    def pread(self, position: int, size_bytes: int) -> bytes:
        """See Segment."""
        try:
            return self._inner.pread(position, size_bytes)
        except OSError as error:
            self._health.note_error("read", error)
            raise

    def pread_cached(self, position: int, size_bytes: int) -> bytes | None:
        """See Segment."""
        try:
            return self._inner.pread_cached(position, size_bytes)
        except OSError as error:
            self._health.note_error("read", error)
            raise

    def write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """See Segment."""
        self._health.measure("write", self._path, self._inner.write, position, data)

    def sync(self) -> None:
        """See Segment."""
        self._health.measure("sync", self._path, self._inner.sync)

    def reserve(self, position: int, size_bytes: int) -> None:
        """See Segment."""
        self._health.measure("reserve", self._path, self._inner.reserve, position, size_bytes)

    def clear_from(self, position: int) -> None:
        """See Segment."""
        self._health.measure("write", self._path, self._inner.clear_from, position)

    def data_end(self, position: int) -> int:
        """See Segment."""
        try:
            return self._inner.data_end(position)
        except OSError as error:
            self._health.note_error("read", error)
            raise

    def close(self) -> None:
        """See Segment."""
        self._inner.close()


class MeasuredMappedSegment(MeasuredSegment):
    """A mapped segment of a MeasuredDisk. What goes through the map is not seen."""

    def __init__(self, inner: MappedSegment, path: Path, health: DiskHealth) -> None:
        super().__init__(inner, path, health)
        self._mapped = inner

    @property
    def view(self) -> memoryview:
        """See MappedSegment."""
        return self._mapped.view
