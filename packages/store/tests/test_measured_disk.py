"""What a measured disk tells. That it is a disk like any other is tested with the port."""

import errno
import gc
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from apogeemq.store.disk_health import DiskHealth
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.files import RealDisk
from apogeemq.store.measured_disk import MeasuredDisk

FILE = Path("/d/f")


def counts(disk: MeasuredDisk) -> dict[str, int]:
    return {name: sum(latency.counts) for name, latency in disk.health.latencies().items()}


def test_operations_are_counted_by_what_they_are() -> None:
    """What makes durable, what writes, what allocates; reading is not counted."""
    disk = MeasuredDisk(FaultyDisk(Random(1)), DiskHealth())
    segment = disk.open_segment(FILE, 4096, create=True)
    segment.write(0, b"x")
    segment.write(0, b"y")
    segment.clear_from(1)
    segment.pread(0, 10)
    mapped = disk.map_segment(FILE, 4096)
    mapped.reserve(0, 4096)
    mapped.sync()
    disk.sync_dir(FILE.parent)
    disk.write_file(FILE, b"")
    assert counts(disk) == {"sync": 3, "write": 3, "reserve": 1}


@pytest.mark.parametrize(
    ("operation", "counted_as"),
    [("pread", "read"), ("data_end", "read"), ("write", "write"), ("sync", "sync"), ("reserve", "reserve")],
)
def test_errors_are_counted(operation: str, counted_as: str) -> None:
    """Also those of reads."""
    inner = FaultyDisk(Random(1))
    disk = MeasuredDisk(inner, DiskHealth())
    segment = disk.map_segment(FILE, 4096, create=True)
    inner.fail(operation, errno.EIO)
    calls: dict[str, Callable[[], object]] = {
        "pread": lambda: segment.pread(0, 1),
        "data_end": lambda: segment.data_end(0),
        "write": lambda: segment.write(0, b"x"),
        "sync": segment.sync,
        "reserve": lambda: segment.reserve(0, 1),
    }
    with pytest.raises(OSError, match="Input/output"):
        calls[operation]()
    assert disk.health.errors() == {(counted_as, "EIO"): 1}


def test_files_that_cannot_be_opened_are_counted() -> None:
    """A missing one is not: it is the caller's business."""
    inner = FaultyDisk(Random(1))
    disk = MeasuredDisk(inner, DiskHealth())
    inner.fail("open_segment", errno.EMFILE)
    for _ in range(2):
        with pytest.raises(OSError, match="/d/f"):
            disk.open_segment(FILE, 4096)
    assert disk.health.errors() == {("open", "EMFILE"): 1}


def test_a_dropped_segment_closes(tmp_path: Path) -> None:
    """As a plain one does: with the last reference, without a call of the collector."""
    disk = MeasuredDisk(RealDisk(), DiskHealth())

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    gc.disable()
    try:
        segment = disk.map_segment(tmp_path / "f", 4096, create=True)
        assert descriptors() > before
        del segment
        assert descriptors() == before
    finally:
        gc.enable()
