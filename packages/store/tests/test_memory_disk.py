"""What the disk in memory has beyond the port (test_files.py): a bound on its blocks, and pretended coldness."""

from pathlib import Path

import pytest
from apogeemq.store.memory_disk import MemoryDisk

FILE = Path("/d/file")


def test_blocks_are_bounded() -> None:
    """Writing and reserving above the capacity fails with ENOSPC; removing and clearing give room back."""
    disk = MemoryDisk(capacity_bytes=10_000)
    segment = disk.open_segment(FILE, 20_000, create=True)
    segment.write(0, bytes(6000))
    with pytest.raises(OSError, match="No space"):
        segment.reserve(6000, 6000)
    segment.clear_from(1000)
    segment.reserve(1000, 9000)
    assert disk.used_bytes() == 10_000
    disk.remove(FILE)
    assert disk.used_bytes() == 0


def test_writing_unreserved_bytes_of_a_map_is_a_bug() -> None:
    """On a real disk that is full it would kill the process: sync asserts that it did not happen."""
    disk = MemoryDisk()
    segment = disk.map_segment(FILE, 4096, create=True)
    segment.reserve(0, 100)
    segment.view[0:100] = b"x" * 100
    segment.sync()
    segment.view[100:101] = b"x"
    with pytest.raises(AssertionError, match="reserved"):
        segment.sync()


def test_nothing_is_cached_when_told_so() -> None:
    """Reads that must not wait find nothing."""
    disk = MemoryDisk()
    segment = disk.open_segment(FILE, 10, create=True)
    assert segment.pread_cached(0, 10) == bytes(10)
    disk.cached = False
    assert segment.pread_cached(0, 10) is None
