"""The disk that fails: what it may take and what it must keep. The port's own tests are in test_files.py."""

import errno
from pathlib import Path
from random import Random

import pytest
from apogeemq.store.faulty_disk import SECTOR_SIZE_BYTES, FaultyDisk, PowerLoss

SIZE = 4096
ROOT = Path("/root")
FILE = ROOT / "file"
OLD, NEW = b"o" * SIZE, b"n" * SIZE


def disk_with_synced_file(seed: int) -> FaultyDisk:
    disk = FaultyDisk(Random(seed))
    segment = disk.open_segment(FILE, SIZE, create=True)
    segment.write(0, OLD)
    segment.sync()
    disk.sync_dir(ROOT)
    disk.sync_dir(ROOT.parent)
    return disk


def sectors_of(data: bytes) -> list[bytes]:
    return [data[at : at + SECTOR_SIZE_BYTES] for at in range(0, len(data), SECTOR_SIZE_BYTES)]


def test_synced_bytes_survive() -> None:
    """Content and name."""
    for seed in range(20):
        disk = disk_with_synced_file(seed)
        disk.lose_power()
        disk.restart()
        assert disk.read_file(FILE) == OLD


@pytest.mark.parametrize("through_map", [False, True])
def test_unsynced_sectors_survive_by_chance(through_map: bool) -> None:
    """Each sector is old or new, in every mixture, however it was written."""
    seen = set()
    for seed in range(30):
        disk = disk_with_synced_file(seed)
        if through_map:
            disk.map_segment(FILE, SIZE).view[:] = NEW
        else:
            disk.open_segment(FILE, SIZE).write(0, NEW)
        disk.restart()
        sectors = sectors_of(disk.read_file(FILE))
        assert set(sectors) <= {OLD[:SECTOR_SIZE_BYTES], NEW[:SECTOR_SIZE_BYTES]}
        seen.add(tuple(sector[:1] for sector in sectors))
    assert len(seen) > 20


def test_unsynced_names_survive_as_a_prefix() -> None:
    """Of three files made in turn, the third is never there without the second."""
    outcomes = set()
    for seed in range(60):
        disk = disk_with_synced_file(seed)
        for name in ("a", "b", "c"):
            disk.write_file(ROOT / name, b"content")
        disk.restart()
        outcomes.add(tuple(disk.list_dir(ROOT)))
    assert outcomes == {("file",), ("a", "file"), ("a", "b", "file"), ("a", "b", "c", "file")}


def test_unsynced_directory_takes_its_files_along() -> None:
    """A synced file in a directory whose own name was not synced is there or not."""
    outcomes = set()
    for seed in range(20):
        disk = disk_with_synced_file(seed)
        disk.write_file(ROOT / "new" / "file", b"content")
        disk.sync_dir(ROOT / "new")
        disk.restart()
        outcomes.add(tuple(disk.list_dir(ROOT)))
    assert outcomes == {("file",), ("file", "new")}


def test_rename_is_atomic() -> None:
    """Afterwards there is the old file or the new one, never none."""
    outcomes = set()
    for seed in range(20):
        disk = disk_with_synced_file(seed)
        disk.write_file(ROOT / "other", NEW)
        disk.sync_dir(ROOT)
        disk.rename(ROOT / "other", FILE)
        disk.restart()
        outcomes.add((disk.read_file(FILE), tuple(disk.list_dir(ROOT))))
    assert outcomes == {(OLD, ("file", "other")), (NEW, ("file",))}


def test_killing_a_process_loses_nothing() -> None:
    """The page cache stays; locks are free."""
    disk = disk_with_synced_file(1)
    disk.lock(ROOT / "lock")
    disk.open_segment(FILE, SIZE).write(0, NEW)
    disk.kill_process()
    assert disk.read_file(FILE) == NEW
    disk.lock(ROOT / "lock")


def test_failed_sync_is_not_made_good_by_the_next() -> None:
    """As on Linux: the pages are clean, the second sync succeeds, and the data is lost all the same."""
    disk = disk_with_synced_file(1)
    segment = disk.open_segment(FILE, SIZE)
    segment.write(0, NEW)
    disk.fail("sync", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        segment.sync()
    segment.sync()
    disk.restart()
    assert disk.read_file(FILE) == OLD


def test_writing_again_makes_pages_dirty_again() -> None:
    """The same bytes written once more, then synced, are safe."""
    disk = disk_with_synced_file(1)
    segment = disk.open_segment(FILE, SIZE)
    segment.write(0, NEW)
    disk.fail("sync", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        segment.sync()
    segment.write(0, NEW)
    segment.sync()
    disk.restart()
    assert disk.read_file(FILE) == NEW


def test_failed_write_leaves_whole_sectors() -> None:
    """Some prefix got through, cut between two sectors."""
    lengths = set()
    for seed in range(40):
        disk = disk_with_synced_file(seed)
        disk.fail("write", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            disk.open_segment(FILE, SIZE).write(100, b"n" * 1000)
        data = disk.read_file(FILE)
        length = data.count(b"n")
        assert data[100 : 100 + length] == b"n" * length
        lengths.add(length)
    assert lengths == {0, 412, 924, 1000}


def test_faults_hit_the_call_they_are_for() -> None:
    """By operation, by path, after so many calls, so many times."""
    disk = disk_with_synced_file(1)
    disk.fail("write", errno.ENOSPC, path_part="file", calls_before=1, times=2)
    segment = disk.open_segment(FILE, SIZE)
    disk.open_segment(ROOT / "else", SIZE, create=True).write(0, b"x")
    segment.write(0, b"x")
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            segment.write(0, b"x")
    segment.write(0, b"x")


def test_power_goes_in_the_middle_of_a_change() -> None:
    """The change after so many others raises, and so does everything until the restart."""
    disk = disk_with_synced_file(1)
    segment = disk.open_segment(FILE, SIZE)
    disk.lose_power_after(1)
    segment.write(0, b"x")
    with pytest.raises(PowerLoss):
        segment.sync()
    with pytest.raises(PowerLoss):
        disk.read_file(FILE)
    disk.restart()
    assert len(disk.read_file(FILE)) == SIZE


def test_interrupted_new_file_may_be_short() -> None:
    """write_file is not atomic: a prefix of the content may be all there is."""
    sizes = set()
    for seed in range(40):
        disk = disk_with_synced_file(seed)
        disk.lose_power_after(0)
        with pytest.raises(PowerLoss):
            disk.write_file(ROOT / "new", bytes(1000))
        disk.restart()
        sizes.add(disk.size_of(ROOT / "new"))
    assert {None, 0} <= sizes


def test_same_seed_same_disk() -> None:
    """A run can be replayed."""

    def run(seed: int) -> bytes:
        disk = disk_with_synced_file(seed)
        disk.open_segment(FILE, SIZE).write(0, NEW)
        disk.restart()
        return disk.read_file(FILE)

    assert run(5) == run(5)
    assert run(5) != run(6)
