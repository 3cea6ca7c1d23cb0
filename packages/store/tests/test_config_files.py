"""JSON files under config/: what a reader finds after any crash of a writer."""

import errno
from pathlib import Path
from random import Random

import pytest
from apogeemq.remoting_codec.errors import BodyInvalid
from apogeemq.store.config_files import ConfigFile
from apogeemq.store.errors import DiskFull
from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss
from apogeemq.store.memory_disk import MemoryDisk

PATH = Path("/store/config/topics.json")
BACKUP = Path("/store/config/topics.json.bak")


def test_nothing_is_none() -> None:
    """A file that was never written."""
    assert ConfigFile(MemoryDisk(), PATH).load() is None


def test_saved_text_is_loaded() -> None:
    """The newest one; the one before it is the backup."""
    disk = MemoryDisk()
    file = ConfigFile(disk, PATH)
    file.save(b'{"a":1}')
    file.save(b'{"a":2}')
    assert file.load() == b'{"a":2}'
    assert disk.read_file(BACKUP) == b'{"a":1}'
    assert disk.list_dir(PATH.parent) == ["topics.json", "topics.json.bak"]


@pytest.mark.parametrize("damaged", [b"", b'{"a":', b"\xff\xfe"])
def test_damaged_file_falls_back_to_the_backup(damaged: bytes) -> None:
    """Empty, cut or not even text."""
    disk = MemoryDisk()
    disk.write_file(PATH, damaged)
    disk.write_file(BACKUP, b'{"offsetTable":{0:5}}')
    assert ConfigFile(disk, PATH).load() == b'{"offsetTable":{0:5}}'


def test_missing_file_falls_back_to_the_backup() -> None:
    """As after a crash between the two renames."""
    disk = MemoryDisk()
    disk.write_file(BACKUP, b"{}")
    assert ConfigFile(disk, PATH).load() == b"{}"


def test_two_damaged_files_are_an_error() -> None:
    """Starting with nothing would forget everything silently."""
    disk = MemoryDisk()
    disk.write_file(PATH, b"{")
    disk.write_file(BACKUP, b"{")
    with pytest.raises(BodyInvalid):
        ConfigFile(disk, PATH).load()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("changes", range(6))
def test_power_loss_leaves_the_old_or_the_new(seed: int, changes: int) -> None:
    """Whenever it comes while saving."""
    disk = FaultyDisk(Random(seed))
    file = ConfigFile(disk, PATH)
    for number in range(2):
        file.save(b'{"number":%d}' % number)
    for directory in (PATH.parent.parent, Path("/")):
        disk.sync_dir(directory)
    disk.lose_power_after(changes)
    new = b'{"number":%d,"text":"%s"}' % (2, b"x" * 2000)
    try:
        file.save(new)
    except PowerLoss:
        allowed = {b'{"number":1}', new}
    else:
        allowed = {new}
    disk.restart()
    assert ConfigFile(disk, PATH).load() in allowed


def test_full_disk_keeps_the_old() -> None:
    """DiskFull, and the old content stays readable; other errors pass through."""
    disk = FaultyDisk(Random(1))
    file = ConfigFile(disk, PATH)
    file.save(b"{}")
    disk.fail("write_file", errno.ENOSPC)
    with pytest.raises(DiskFull):
        file.save(b"[]")
    disk.fail("write_file", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        file.save(b"[]")
    assert file.load() == b"{}"


def test_huge_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file above the bound is not read into memory."""
    monkeypatch.setattr("apogeemq.store.config_files.FILE_SIZE_BYTES_MAX", 10)
    disk = MemoryDisk()
    disk.write_file(PATH, b'"12345678901"')
    with pytest.raises(BodyInvalid, match="more than 10"):
        ConfigFile(disk, PATH).load()


@pytest.mark.parametrize("seed", range(10))
def test_the_first_save_makes_its_directory_durable(seed: int) -> None:
    """A power loss forgets names that were not synced, those of directories too."""
    disk = FaultyDisk(Random(seed))
    disk.write_file(PATH.parents[1] / "lock", b"")
    disk.sync_dir(PATH.parents[1])
    disk.sync_dir(PATH.parents[2])
    ConfigFile(disk, PATH).save(b'{"a":1}')
    disk.lose_power()
    disk.restart()
    assert ConfigFile(disk, PATH).load() == b'{"a":1}'
