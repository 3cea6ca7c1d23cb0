"""Rows of files named by their start, and the bound on open ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
from apogeemq.store.errors import LayoutInvalid
from apogeemq.store.files import RealDisk, Segment
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.segment_files import SegmentFiles, segment_path, segment_starts

from packages.store.tests.descriptors import open_descriptors

ROW = Path("/row")


def test_names_are_twenty_digits() -> None:
    """As Apache names them."""
    assert segment_path(ROW, 1_073_741_824) == ROW / "00000000001073741824"


def test_row_begins_anywhere() -> None:
    """After retention the first file is not file 0; names of other shapes are passed over."""
    disk = MemoryDisk()
    for name in ("00000000000000000300", "00000000000000000200", "notes.txt", "123"):
        disk.write_file(ROW / name, bytes(100))
    assert segment_starts(disk, ROW, 100) == range(200, 400, 100)
    assert not segment_starts(disk, Path("/none"), 100)


@pytest.mark.parametrize("names", [(0, 200), (0, 150), (100, 150, 200)])
def test_gap_in_a_row_is_refused(names: tuple[int, ...]) -> None:
    """A missing file, or one that begins elsewhere, is named."""
    disk = MemoryDisk()
    for start in names:
        disk.write_file(segment_path(ROW, start), bytes(100))
    with pytest.raises(LayoutInvalid, match="missing between"):
        segment_starts(disk, ROW, 100)


def test_too_large_file_is_refused() -> None:
    """A file that is larger than configured was written with another setting."""
    disk = MemoryDisk()
    disk.write_file(segment_path(ROW, 0), bytes(101))
    with pytest.raises(LayoutInvalid, match="files of 100 are configured"):
        segment_starts(disk, ROW, 100)


def test_open_files_are_bounded(tmp_path: Path) -> None:
    """Above the bound the least recently used file closes, unless somebody still uses it."""
    files = SegmentFiles(RealDisk(), 4096, open_files_max=3)
    in_use = files.get(tmp_path, 0, create=True)
    for start in range(4096, 20 * 4096, 4096):
        files.get(tmp_path, start, create=True)
    assert len(files) == 3
    assert open_descriptors(tmp_path) == 4
    in_use.write(0, b"still open")
    del in_use
    files.close()
    assert open_descriptors(tmp_path) == 0
    assert files.get(tmp_path, 0).pread(0, 10) == b"still open"


def test_recently_used_file_stays_open() -> None:
    """Use counts, not age."""
    files = SegmentFiles(MemoryDisk(), 10, open_files_max=2)
    first = files.get(ROW, 0, create=True)
    files.get(ROW, 10, create=True)
    files.get(ROW, 0)
    files.get(ROW, 20, create=True)
    assert files.get(ROW, 0) is first


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.get(ROW, 10, create=True),
        lambda files: files.remove(ROW, 0),
        lambda files: files.distrust_names(ROW),
    ],
)
def test_changed_directories_are_remembered(change: Callable[[SegmentFiles], Segment | None]) -> None:
    """Making, removing and distrusting files is noted until taken; opening an existing one is no change."""
    files = SegmentFiles(MemoryDisk(), 10, open_files_max=2)
    files.get(ROW, 0, create=True)
    files.take_changed_directories()
    files.get(ROW, 0, create=True)
    assert files.take_changed_directories() == set()
    change(files)
    assert files.take_changed_directories() == {ROW}
    assert files.take_changed_directories() == set()
