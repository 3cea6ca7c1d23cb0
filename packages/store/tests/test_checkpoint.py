"""The checkpoint file, against Java's bytes."""

import struct
from pathlib import Path

from apogeemq.store.checkpoint import Checkpoint, CheckpointFile
from apogeemq.store.files import RealDisk
from apogeemq.store.memory_disk import MemoryDisk

PATH = Path("/checkpoint")


def test_java_file_is_read() -> None:
    """The longs of a 5.3.3 broker: physic and logics timestamp, no index, no flushed offset, no confirm offset."""
    disk = MemoryDisk()
    disk.write_file(PATH, (Path(__file__).parent / "vectors_store" / "checkpoint").read_bytes())
    assert CheckpointFile(disk, PATH).load() == Checkpoint(0x1A2039B1885, 0x1A2039B1885, 0, 0, 0)


def test_layout_is_javas(tmp_path: Path) -> None:
    """Five big-endian longs in this order at the start of 4 KiB."""
    file = CheckpointFile(RealDisk(), tmp_path / "checkpoint")
    file.save(Checkpoint(1, 2, 3, 4, 5))
    file.close()
    assert (tmp_path / "checkpoint").read_bytes() == struct.pack(">5q", 1, 2, 3, 4, 5) + bytes(4096 - 40)


def test_new_file_knows_nothing() -> None:
    """All zeros; negative values count as unknown too."""
    disk = MemoryDisk()
    file = CheckpointFile(disk, PATH)
    assert file.load() == Checkpoint()
    file.save(Checkpoint(-1, 7, -5, 9, 0))
    assert file.load() == Checkpoint(0, 7, 0, 9, 0)
