"""The log's row of files: growing, reserving ahead, reading, cutting."""

import errno
from pathlib import Path
from random import Random

import pytest
from apogeemq.store.errors import DiskFull, LayoutInvalid, OffsetOutOfRange
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.files import RealDisk
from apogeemq.store.mapped_file_queue import MappedFileQueue
from apogeemq.store.memory_disk import MemoryDisk

SIZE = 8192
LOG = Path("/store/commitlog")


def open_row(disk: MemoryDisk, *, ahead_bytes: int = 4096) -> MappedFileQueue:
    return MappedFileQueue(disk, LOG, SIZE, reserve_ahead_bytes=ahead_bytes, open_files_max=4)


def test_empty_row() -> None:
    """Nothing there yet: it begins and ends at 0."""
    row = open_row(MemoryDisk())
    assert (row.min_offset, row.end) == (0, 0)
    assert row.data_end(0) == 0
    row.clear_from(0)


def test_first_file_is_made() -> None:
    """Opening at 0 makes file 0 with its full size and a durable name."""
    disk = FaultyDisk(Random(1))
    open_row(disk).open_at(0)
    disk.sync_dir(Path("/"))
    disk.restart()
    assert disk.list_dir(LOG) == ["0" * 20]
    assert open_row(disk).end == SIZE


def test_row_grows_by_one_file() -> None:
    """advance goes on where the current file ends."""
    row = open_row(MemoryDisk())
    row.open_at(0)
    row.advance()
    assert (row.min_offset, row.end) == (0, 2 * SIZE)
    assert row.reserved_end == SIZE


def test_row_continues_in_the_middle() -> None:
    """The first file may begin anywhere; the current one is that of the offset."""
    disk = MemoryDisk()
    disk.write_file(LOG / f"{3 * SIZE:020d}", bytes(SIZE))
    row = open_row(disk)
    assert row.min_offset == 3 * SIZE
    row.open_at(3 * SIZE + 100)
    assert row.reserved_end == 3 * SIZE + 100
    assert row.start_of(3 * SIZE + 100) == 3 * SIZE


def test_missing_file_is_refused() -> None:
    """A hole in the row is a layout error at opening."""
    disk = MemoryDisk()
    for start in (0, 2 * SIZE):
        disk.write_file(LOG / f"{start:020d}", bytes(SIZE))
    with pytest.raises(LayoutInvalid):
        open_row(disk)


def test_prepare_reserves_ahead() -> None:
    """Blocks are reserved up to the distance asked for, no further."""
    row = open_row(MemoryDisk(), ahead_bytes=3000)
    row.open_at(0)
    row.prepare(1000)
    assert row.reserved_end == 4000
    row.prepare(500)
    assert row.reserved_end == 4000


def test_prepare_goes_on_in_the_next_file() -> None:
    """Near the end of a file the next one is made and reserved; advancing takes it over as it is."""
    disk = MemoryDisk()
    row = open_row(disk, ahead_bytes=3000)
    row.open_at(0)
    row.prepare(SIZE - 1000)
    assert row.reserved_end == SIZE
    assert disk.list_dir(LOG) == [f"{0:020d}", f"{SIZE:020d}"]
    assert row.end == SIZE, "it is not part of the row before it is used"
    row.advance()
    assert row.reserved_end == SIZE + 2000


def test_prepare_never_goes_beyond_one_file_ahead() -> None:
    """However much is to be ahead: the current file and the next one."""
    disk = MemoryDisk()
    row = open_row(disk, ahead_bytes=10 * SIZE)
    row.open_at(0)
    row.prepare(0)
    assert disk.used_bytes() == 2 * SIZE


def test_full_disk_stops_reservation_and_new_files() -> None:
    """Both raise DiskFull, and work again once there is room."""
    disk = FaultyDisk(Random(1), capacity_bytes=5000)
    row = open_row(disk)
    row.open_at(0)
    with pytest.raises(DiskFull, match="00000000000000000000"):
        row.reserve(6000)
    with pytest.raises(DiskFull):
        row.prepare(3000)
    disk.fail("open_segment", errno.ENOSPC)
    with pytest.raises(DiskFull, match="00000000000000008192"):
        row.advance()
    assert row.end == SIZE
    disk.capacity_bytes = None
    row.reserve(6000)
    row.advance()
    assert row.end == 2 * SIZE


def test_other_disk_errors_pass_through() -> None:
    """EIO is no full disk."""
    disk = FaultyDisk(Random(1))
    row = open_row(disk)
    row.open_at(0)
    disk.fail("reserve", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        row.reserve(10)
    disk.fail("open_segment", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        row.advance()


def test_views_are_read_only_and_end_with_their_file() -> None:
    """Mapped files give views; others none."""
    row = open_row(MemoryDisk())
    segment = row.open_at(0)
    row.reserve(100)
    segment.view[0:4] = b"data"
    view = row.view(0, 4)
    assert view is not None
    assert bytes(view) == b"data"
    assert view.readonly
    assert row.view(SIZE, 4) is None


def test_retired_files_are_read_by_copy() -> None:
    """Files before the hot ones lose their map, not their bytes; views handed out before stay valid."""
    row = open_row(MemoryDisk())
    segment = row.open_at(0)
    row.reserve(100)
    segment.view[0:4] = b"data"
    view = row.view(0, 4)
    row.advance()
    row.retire(SIZE - 1)
    assert row.view(0, 4) is not None
    row.retire(SIZE)
    assert row.view(0, 4) is None
    assert view is not None
    assert bytes(view) == b"data"
    assert row.pread(0, 4, wait=False) == row.pread(0, 4, wait=True) == b"data"


def test_reading_outside_is_an_error() -> None:
    """There is no file before the first and after the last one."""
    disk = MemoryDisk()
    row = open_row(disk)
    row.open_at(3 * SIZE)
    for offset in (0, 3 * SIZE - 1, 4 * SIZE):
        with pytest.raises(OffsetOutOfRange):
            row.pread(offset, 1, wait=True)


def test_sync_covers_every_file_of_the_range() -> None:
    """Bytes of three files, one of them retired, survive a power loss after one call."""
    disk = FaultyDisk(Random(1))
    row = open_row(disk)
    for number in range(3):
        segment = row.open_at(0) if number == 0 else row.advance()
        row.reserve(number * SIZE + 10)
        segment.view[5:9] = b"data"
    row.retire(SIZE)
    row.sync(5, 2 * SIZE + 9)
    disk.sync_dir(Path("/"))
    disk.restart()
    again = open_row(disk)
    assert [again.pread(number * SIZE + 5, 4, wait=True) for number in range(3)] == [b"data"] * 3


def test_data_end_looks_through_all_files() -> None:
    """The last byte is found in whichever file it is; prepared empty files do not count."""
    disk = MemoryDisk()
    for start, content in ((0, b"x" * SIZE), (SIZE, b"y" * 100), (2 * SIZE, b"")):
        disk.write_file(LOG / f"{start:020d}", content + bytes(SIZE - len(content)))
    row = open_row(disk)
    assert row.data_end(0) == SIZE + 100
    assert row.data_end(SIZE + 99) == SIZE + 100
    assert row.data_end(SIZE + 100) == SIZE + 100
    assert row.data_end(2 * SIZE) == 2 * SIZE


def test_clear_from_is_durable() -> None:
    """Bytes behind the cut and later files are gone, also after a power loss."""
    for seed in range(10):
        disk = FaultyDisk(Random(seed))
        for number in range(3):
            disk.write_file(LOG / f"{number * SIZE:020d}", b"x" * SIZE)
        for directory in (LOG, LOG.parent, Path("/")):
            disk.sync_dir(directory)
        row = open_row(disk)
        row.clear_from(SIZE + 10)
        assert row.end == 2 * SIZE
        disk.restart()
        assert disk.list_dir(LOG) == [f"{0:020d}", f"{SIZE:020d}"]
        assert disk.read_file(LOG / f"{SIZE:020d}") == b"x" * 10 + bytes(SIZE - 10)


def test_make_durable_after_a_failed_sync_elsewhere() -> None:
    """Bytes that a dead process could not sync are safe afterwards; names too."""
    for seed in range(10):
        disk = FaultyDisk(Random(seed))
        segment = disk.open_segment(LOG / f"{0:020d}", SIZE, create=True)
        segment.write(0, b"z" * 5000)
        disk.fail("sync", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            segment.sync()
        disk.kill_process()
        open_row(disk).make_durable(0, 0, 5000)
        disk.sync_dir(Path("/"))
        disk.restart()
        assert open_row(disk).pread(0, 5001, wait=True) == b"z" * 5000 + b"\0"


def test_real_files_are_sparse_until_reserved(tmp_path: Path) -> None:
    """A new file has its full size and blocks only where they were reserved."""
    size_bytes = 64 << 20
    row = MappedFileQueue(RealDisk(), tmp_path, size_bytes, reserve_ahead_bytes=2 << 20, open_files_max=2)
    row.open_at(0)
    row.prepare(0)
    stat = (tmp_path / f"{0:020d}").stat()
    assert stat.st_size == size_bytes
    assert 2 << 20 <= stat.st_blocks * 512 < 4 << 20
    row.close()


def test_a_file_whose_name_could_not_be_synced_is_synced_later() -> None:
    """No room for the directory's sync: the file is there at the next try, its name is not on the disk yet."""
    disk = FaultyDisk(Random(1))
    disk.write_file(Path("/store/lock"), b"")
    disk.sync_dir(Path("/store"))
    disk.sync_dir(Path("/"))
    files = MappedFileQueue(disk, Path("/store/commitlog"), 4096, reserve_ahead_bytes=1024, open_files_max=2)
    disk.fail("sync_dir", errno.ENOSPC, path_part="commitlog")
    with pytest.raises(DiskFull):
        files.open_at(0)
    files.open_at(0)
    files.reserve(100)
    files.sync(0, 100)
    disk.lose_power()
    disk.restart()
    assert disk.list_dir(Path("/store/commitlog")) == ["00000000000000000000"]
