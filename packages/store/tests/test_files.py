"""The disk port: every disk passes the same tests; what only the real one has comes after them."""

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from apogeemq.store import files
from apogeemq.store.disk_health import DiskHealth
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.files import Disk, DiskSpace, RealDisk, replace_file
from apogeemq.store.measured_disk import MeasuredDisk
from apogeemq.store.memory_disk import MemoryDisk

from packages.store.tests.descriptors import open_descriptors

SIZE = 8192
DISKS: dict[str, Callable[[], Disk]] = {
    "real": RealDisk,
    "memory": MemoryDisk,
    "faulty": lambda: FaultyDisk(Random(1)),
    "measured": lambda: MeasuredDisk(MemoryDisk(), DiskHealth()),
}


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest) -> Disk:
    """Each implementation in turn."""
    return DISKS[request.param]()


@pytest.fixture
def root(disk: Disk, tmp_path: Path) -> Path:
    """A directory on that disk."""
    return tmp_path if isinstance(disk, RealDisk) else Path("/root")


def test_segment_is_zeros_at_first(disk: Disk, root: Path) -> None:
    """A new segment has its full size and reads as zeros."""
    segment = disk.open_segment(root / "a" / "b", SIZE, create=True)
    assert segment.size_bytes == SIZE
    assert segment.pread(0, SIZE) == bytes(SIZE)
    assert disk.size_of(root / "a" / "b") == SIZE


def test_segment_keeps_what_was_written(disk: Disk, root: Path) -> None:
    """Bytes written at a position are read there, also through another opening of the file."""
    segment = disk.open_segment(root / "s", SIZE, create=True)
    segment.write(100, b"hello")
    segment.write(103, memoryview(b"LO"))
    segment.sync()
    assert segment.pread(99, 7) == b"\0helLO\0"
    assert disk.open_segment(root / "s", SIZE).pread(100, 5) == b"helLO"


def test_map_and_file_are_the_same_bytes(disk: Disk, root: Path) -> None:
    """What goes into the map is read from the file, and the other way round."""
    mapped = disk.map_segment(root / "s", SIZE, create=True)
    segment = disk.open_segment(root / "s", SIZE)
    mapped.reserve(0, SIZE)
    mapped.view[10:14] = b"maps"
    segment.write(14, b"file")
    mapped.sync()
    assert segment.pread(10, 8) == bytes(mapped.view[10:18]) == b"mapsfile"


def test_view_outlives_close(disk: Disk, root: Path) -> None:
    """A slice held by a reader stays readable after the segment was closed."""
    mapped = disk.map_segment(root / "s", SIZE, create=True)
    mapped.write(0, b"kept")
    piece = mapped.view[0:4]
    mapped.close()
    assert bytes(piece) == b"kept"


def test_closing_twice_is_harmless(disk: Disk, root: Path) -> None:
    """The second close does nothing."""
    segment = disk.open_segment(root / "s", SIZE, create=True)
    segment.close()
    segment.close()


def test_missing_file_is_not_made_by_itself(disk: Disk, root: Path) -> None:
    """Without `create` a missing file is an error."""
    with pytest.raises(FileNotFoundError):
        disk.open_segment(root / "s", SIZE)
    with pytest.raises(FileNotFoundError):
        disk.map_segment(root / "s", SIZE)


def test_short_file_is_extended(disk: Disk, root: Path) -> None:
    """A file that was cut gets its size back, zeros behind what it has."""
    disk.write_file(root / "s", b"data")
    assert disk.open_segment(root / "s", SIZE).pread(0, 8) == b"data\0\0\0\0"
    assert disk.size_of(root / "s") == SIZE


def test_long_file_is_refused(disk: Disk, root: Path) -> None:
    """A file larger than its segment is an error, and stays as it was."""
    disk.write_file(root / "s", bytes(SIZE + 1))
    with pytest.raises(OSError, match="8193 bytes") as raised:
        disk.open_segment(root / "s", SIZE)
    assert raised.value.errno == errno.EFBIG
    assert disk.size_of(root / "s") == SIZE + 1


def test_reserving_changes_no_content(disk: Disk, root: Path) -> None:
    """Reserved blocks keep what they have and add zeros."""
    segment = disk.open_segment(root / "s", SIZE, create=True)
    segment.write(4000, b"kept")
    segment.reserve(0, SIZE)
    assert segment.pread(4000, 4) == b"kept"
    assert segment.data_end(0) == 4004


def test_clear_from_leaves_zeros(disk: Disk, root: Path) -> None:
    """Everything behind a position is zeros afterwards, everything before it stays; the size too."""
    segment = disk.open_segment(root / "s", SIZE, create=True)
    segment.write(0, b"x" * SIZE)
    segment.clear_from(5000)
    assert segment.pread(0, SIZE) == b"x" * 5000 + bytes(SIZE - 5000)
    assert disk.size_of(root / "s") == SIZE


@pytest.mark.parametrize(("position", "expected"), [(0, 6003), (6000, 6003), (6003, 6003), (7000, 7000)])
def test_data_end(disk: Disk, root: Path, position: int, expected: int) -> None:
    """The last non-zero byte at or after a position is found, among holes, reserved blocks and written zeros."""
    segment = disk.open_segment(root / "s", SIZE, create=True)
    segment.write(10, b"abc")
    segment.write(6000, b"abc" + bytes(100))
    segment.reserve(0, SIZE)
    assert segment.data_end(position) == expected


def test_names_of_a_directory(disk: Disk, root: Path) -> None:
    """Files and directories are listed by name, in order; a missing directory is empty."""
    disk.write_file(root / "d" / "b", b"")
    disk.write_file(root / "d" / "a" / "deep", b"")
    assert disk.list_dir(root / "d") == ["a", "b"]
    assert disk.list_dir(root / "nothing") == []


def test_whole_files(disk: Disk, root: Path) -> None:
    """write_file replaces content, rename moves it over another file, remove takes it away."""
    disk.write_file(root / "a", b"long content")
    disk.write_file(root / "a", b"short")
    disk.write_file(root / "b", b"other")
    disk.rename(root / "a", root / "b")
    disk.sync_dir(root)
    assert disk.read_file(root / "b") == b"short"
    assert disk.size_of(root / "a") is None
    disk.remove(root / "b")
    assert disk.size_of(root / "b") is None
    with pytest.raises(FileNotFoundError):
        disk.read_file(root / "b")
    with pytest.raises(FileNotFoundError):
        disk.remove(root / "b")
    with pytest.raises(FileNotFoundError):
        disk.rename(root / "a", root / "b")


def test_replace_file_keeps_a_backup(disk: Disk, root: Path) -> None:
    """The old content stays as .bak when asked for, and no temporary file stays."""
    replace_file(disk, root / "f", b"1", backup=True)
    replace_file(disk, root / "f", b"2", backup=True)
    assert (disk.read_file(root / "f"), disk.read_file(root / "f.bak")) == (b"2", b"1")
    replace_file(disk, root / "f", b"3")
    assert disk.read_file(root / "f.bak") == b"1"
    assert disk.list_dir(root) == ["f", "f.bak"]


def test_space_is_within_the_whole(disk: Disk, root: Path) -> None:
    """Free room is a part of all room, and the ratio says the rest."""
    disk.write_file(root / "f", b"x")
    space = disk.space(root)
    assert 0 < space.free_bytes <= space.total_bytes
    assert space.used_ratio == pytest.approx(1 - space.free_bytes / space.total_bytes)


def test_memory_disk_has_the_space_of_its_capacity() -> None:
    """Reserved blocks are used room, as on a real disk."""
    disk = MemoryDisk(capacity_bytes=100_000)
    disk.open_segment(Path("/store/s"), SIZE, create=True).reserve(0, 5_000)
    assert disk.space(Path("/store")) == DiskSpace(100_000, 95_000)


def test_real_space_is_what_df_says(tmp_path: Path) -> None:
    """The whole and the free room agree with the system's own tool, but for what others write meanwhile."""
    answer = subprocess.run(
        ["df", "--block-size=1", "--output=used,avail", str(tmp_path)], capture_output=True, text=True, check=True
    )
    used_bytes, free_bytes = map(int, answer.stdout.split("\n")[1].split())
    space = RealDisk().space(tmp_path)
    slack_bytes = 1 << 30
    assert abs(space.free_bytes - free_bytes) < slack_bytes
    assert abs(space.total_bytes - used_bytes - free_bytes) < slack_bytes


def test_lock_is_exclusive(disk: Disk, root: Path) -> None:
    """A second lock is refused until the first is released."""
    lock = disk.lock(root / "lock")
    with pytest.raises(BlockingIOError):
        disk.lock(root / "lock")
    lock.release()
    disk.lock(root / "lock").release()


# -- the real disk ---------------------------------------------------------------------------------------------------


def test_real_lock_excludes_a_java_broker(tmp_path: Path) -> None:
    """A POSIX record lock on the first byte, as Java's FileChannel takes it, and ours exclude each other."""
    path = tmp_path / "lock"
    program = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'a')\n"
        "try:\n    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)\n"
        "except OSError:\n    print('refused', flush=True)\n"
        "else:\n    print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )

    def other_process() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    lock = RealDisk().lock(path)
    with other_process() as process:
        assert process.communicate()[0] == b"refused\n"
    lock.release()
    with other_process() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(BlockingIOError):
            RealDisk().lock(path)
        process.communicate()


def test_real_lock_does_not_leak_descriptors(tmp_path: Path) -> None:
    """A refused lock closes its descriptor."""
    lock = RealDisk().lock(tmp_path / "lock")
    before = open_descriptors(tmp_path)
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            RealDisk().lock(tmp_path / "lock")
    assert open_descriptors(tmp_path) == before == 1
    lock.release()


def test_real_segment_closes_with_its_last_reference(tmp_path: Path) -> None:
    """A dropped segment gives its descriptor back at once."""
    segment = RealDisk().map_segment(tmp_path / "s", SIZE, create=True)
    assert open_descriptors(tmp_path) > 0
    del segment
    assert open_descriptors(tmp_path) == 0


def test_real_reservation_allocates_blocks(tmp_path: Path) -> None:
    """A new segment is sparse; reserving a range gives it blocks, clearing takes them back."""
    path = tmp_path / "s"
    size_bytes = 1 << 20
    segment = RealDisk().open_segment(path, size_bytes, create=True)
    assert path.stat().st_blocks == 0
    segment.reserve(0, size_bytes)
    assert path.stat().st_blocks * 512 >= size_bytes
    segment.clear_from(4096)
    assert path.stat().st_blocks * 512 <= 8192


def test_real_data_end_across_pieces(tmp_path: Path) -> None:
    """The last byte is found when more than one piece of zeros follows it."""
    size_bytes = 4 << 20
    segment = RealDisk().open_segment(tmp_path / "s", size_bytes, create=True)
    segment.write(0, bytes(size_bytes))
    assert segment.data_end(7) == 7
    segment.write((1 << 20) - 1, b"x")
    assert segment.data_end(0) == 1 << 20


def test_real_data_end_passes_over_written_zeros(tmp_path: Path) -> None:
    """Zeros with blocks of their own, behind a hole, are no data; what lies in front of the hole is."""
    segment = RealDisk().open_segment(tmp_path / "s", 4 << 20, create=True)
    segment.write(0, b"x" * 5000)
    segment.write(2 << 20, bytes(8192))
    assert segment.data_end(0) == 5000
    assert segment.data_end(4999) == 5000
    assert segment.data_end(5000) == 5000


def test_real_pread_beyond_the_end_is_an_error(tmp_path: Path) -> None:
    """A range that is not in the file is never read as less."""
    segment = RealDisk().open_segment(tmp_path / "s", SIZE, create=True)
    with pytest.raises(OSError, match="the file ends before"):
        segment.pread(SIZE - 1, 2)


def test_real_pread_cached_is_whole_or_none(tmp_path: Path) -> None:
    """Bytes in the page cache come back; a file system that cannot tell gives None."""
    segment = RealDisk().open_segment(tmp_path / "s", SIZE, create=True)
    segment.write(0, b"cached")
    assert segment.pread_cached(0, 6) in (b"cached", None)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no file system made of memory here")
def test_what_lies_on_a_file_system_of_memory_is_in_memory() -> None:
    """A tmpfs cannot be asked what it has in memory: it has all."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        segment = RealDisk().open_segment(Path(directory) / "s", SIZE, create=True)
        segment.write(0, b"kept")
        assert segment.pread_cached(0, 4) == b"kept"
        assert segment.pread_cached(2, 4) == b"pt\0\0"


def test_a_file_system_that_cannot_tell_has_nothing_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On that of a network, for one, a read might wait."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "no RWF_NOWAIT here")

    segment = RealDisk().open_segment(tmp_path / "s", SIZE, create=True)
    monkeypatch.setattr(files, "_lies_in_memory", lambda _: False)
    monkeypatch.setattr(os, "preadv", refuse)
    assert segment.pread_cached(0, 6) is None
    assert segment.pread_cached(0, 6) is None


def test_real_flock_is_taken(tmp_path: Path) -> None:
    """Programs that use flock see the lock too."""
    lock = RealDisk().lock(tmp_path / "lock")
    with (tmp_path / "lock").open("a") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.release()
