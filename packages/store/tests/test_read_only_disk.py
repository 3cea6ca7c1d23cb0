"""A disk for looking only: reads as the real one, changes nothing, keeps writers out."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from apogeemq.store.files import RealDisk
from apogeemq.store.read_only_disk import ReadOnlyDisk

JAVA_LOCK = """
import fcntl, struct, sys
file = open(sys.argv[1], "r+")
fcntl.fcntl(file, fcntl.F_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 1, 0))
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    return path


def test_a_short_file_reads_as_if_it_were_extended(file: Path) -> None:
    """Zeros stand behind its end up to the size asked for; the file keeps its own size."""
    segment = ReadOnlyDisk().open_segment(file, 10)
    assert segment.size_bytes == 10
    assert segment.pread(1, 4) == b"bc\0\0"
    assert segment.pread(8, 2) == b"\0\0"
    assert segment.pread_cached(0, 3) == b"abc"
    assert segment.data_end(0) == 3
    segment.close()
    assert file.stat().st_size == 3


def test_a_longer_file_is_refused(file: Path) -> None:
    """As any disk does."""
    with pytest.raises(OSError, match="3 bytes instead of 2") as raised:
        ReadOnlyDisk().open_segment(file, 2)
    assert raised.value.errno == errno.EFBIG


@pytest.mark.parametrize(
    "change",
    [
        lambda disk, file: disk.map_segment(file, 10),
        lambda disk, file: disk.write_file(file, b"x"),
        lambda disk, file: disk.rename(file, file.with_name("other")),
        lambda disk, file: disk.remove(file),
        lambda disk, file: disk.open_segment(file, 10).write(0, b"x"),
        lambda disk, file: disk.open_segment(file, 10).reserve(0, 10),
        lambda disk, file: disk.open_segment(file, 10).clear_from(0),
    ],
)
def test_changes_are_refused(file: Path, change: Callable[[ReadOnlyDisk, Path], object]) -> None:
    """Each says EROFS and leaves everything as it was."""
    with pytest.raises(OSError, match="Read-only") as raised:
        change(ReadOnlyDisk(), file)
    assert raised.value.errno == errno.EROFS
    assert [path.name for path in file.parent.iterdir()] == ["file"]
    assert file.read_bytes() == b"abc"


def test_create_makes_nothing(tmp_path: Path) -> None:
    """A file that is not there is not found, whoever asks to have it made."""
    with pytest.raises(FileNotFoundError):
        ReadOnlyDisk().open_segment(tmp_path / "a" / "b", 10, create=True)
    assert not list(tmp_path.iterdir())


def test_readers_share_the_lock_and_writers_stay_out(tmp_path: Path) -> None:
    """Two readers at once; a store cannot open meanwhile, and they not while it is open."""
    path = tmp_path / "lock"
    path.touch(mode=0o444)
    first, second = ReadOnlyDisk().lock(path), ReadOnlyDisk().lock(path)
    first.release()
    path.chmod(0o644)
    with pytest.raises(BlockingIOError):
        RealDisk().lock(path)
    second.release()
    writer = RealDisk().lock(path)
    with pytest.raises(BlockingIOError):
        ReadOnlyDisk().lock(path)
    writer.release()


def test_a_java_broker_keeps_readers_out(tmp_path: Path) -> None:
    """Java's FileChannel takes a POSIX record lock on the first byte."""
    path = tmp_path / "lock"
    path.write_bytes(b"lock")
    with subprocess.Popen(
        [sys.executable, "-c", JAVA_LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as java:
        assert java.stdout is not None
        assert java.stdin is not None
        assert java.stdout.readline() == "locked\n"
        with pytest.raises(BlockingIOError):
            ReadOnlyDisk().lock(path)
        java.stdin.close()
    ReadOnlyDisk().lock(path).release()


def test_no_lock_file_is_made(tmp_path: Path) -> None:
    """A directory without one is open nowhere."""
    ReadOnlyDisk().lock(tmp_path / "lock").release()
    assert not list(tmp_path.iterdir())
