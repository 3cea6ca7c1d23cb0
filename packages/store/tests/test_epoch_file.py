"""The epoch file: Java's text, replaced durably, believed only when whole; and the common point of two brokers."""

import errno
from pathlib import Path
from random import Random

import pytest
from apogeemq.store.epoch_file import EpochEntry, EpochFile, common_points, find_common_point
from apogeemq.store.errors import DiskFull, EpochInvalid
from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss
from apogeemq.store.memory_disk import MemoryDisk

PATH = Path("/store/epochFileCheckpoint")
BACKUP = Path("/store/epochFileCheckpoint.bak")
APACHE_EXAMPLE = b"2\n773307083\n7-7000\n8-8000\n"
"""From the comment at the head of Apache's common/utils/CheckpointFile.java."""
ENTRIES = (EpochEntry(7, 7000), EpochEntry(8, 8000))


def file_with(text: bytes, backup: bytes | None = None) -> EpochFile:
    disk = MemoryDisk()
    disk.write_file(PATH, text)
    if backup is not None:
        disk.write_file(BACKUP, backup)
    return EpochFile(disk, PATH)


def test_text_is_apaches() -> None:
    """Byte by byte, both ways."""
    disk = MemoryDisk()
    file = EpochFile(disk, PATH)
    assert (file.entries, file.last_epoch) == ((), 0)
    file.append_epoch(7, 7000)
    file.append_epoch(8, 8000)
    assert disk.read_file(PATH) == APACHE_EXAMPLE
    assert file_with(APACHE_EXAMPLE).entries == ENTRIES
    assert file_with(APACHE_EXAMPLE).last_epoch == 8


def test_crc_of_0_is_not_checked() -> None:
    """As Apache's file says of itself."""
    assert file_with(b"1\n0\n3-44\n").entries == (EpochEntry(3, 44),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "stands where a number should"),
        (b"2\n773307083\n7-7000\n8-8001\n", "CRC"),
        (b"1\n773307083\n7-7000\n8-8000\n", "should have 1 entries, and has 2"),
        (b"2\n0\n7-7000\n8-8000", "should have 2 entries, and has 1"),
        (b"1\n0\n7-7000\n8-8000", "should have 1 entries"),
        (b"2\n0\n8-7000\n7-8000\n", "epoch 7 from offset 8000 cannot follow 8 from 7000"),
        (b"2\n0\n7-7000\n8-6999\n", "cannot follow"),
        (b"1\n0\n7:7000\n", "stands where a number should"),
        (b"1\n0\n-7-7000\n", "stands where a number should"),
        (b"1\n0\n7-" + b"9" * 20 + b"\n", "stands where a number should"),
        (b"x" * ((1 << 20) + 1), "1048577 bytes, more than 1048576"),
    ],
)
def test_damage_is_seen(text: bytes, reason: str) -> None:
    """With a good backup the file is not missed; without one, opening says which file is damaged and how."""
    with pytest.raises(EpochInvalid, match=reason) as caught:
        file_with(text)
    assert caught.value.path == PATH
    assert file_with(text, backup=b"1\n0\n7-7000\n").entries == (EpochEntry(7, 7000),)
    with pytest.raises(EpochInvalid):
        file_with(text, backup=b"bad")


def test_epochs_only_ascend() -> None:
    """A lower or equal epoch, or an earlier start, is refused; the same entry again changes nothing."""
    file = file_with(APACHE_EXAMPLE)
    for epoch, start_offset in ((8, 8001), (7, 9000), (9, 7999), (0, 9000), (-1, 9000)):
        with pytest.raises(EpochInvalid):
            file.append_epoch(epoch, start_offset)
    file.append_epoch(8, 8000)
    assert file.entries == ENTRIES
    file.append_epoch(9, 8000)
    assert file.last_epoch == 9


def test_cutting_both_ends() -> None:
    """The suffix goes by where an epoch begins, the prefix by where it ends; the last epoch outlives every file."""
    disk = MemoryDisk()
    file = EpochFile(disk, PATH)
    entries = tuple(EpochEntry(number, 100 * number) for number in range(1, 6))
    file.replace(entries)
    file.truncate_suffix(501)
    assert file.entries == entries
    file.truncate_suffix(500)
    assert file.entries == entries[:4]
    file.truncate_prefix(199)
    assert file.entries == entries[:4]
    file.truncate_prefix(300)
    assert file.entries == entries[2:4] == EpochFile(disk, PATH).entries
    file.truncate_prefix(10_000)
    assert file.entries == entries[3:4]
    file.truncate_suffix(0)
    assert file.entries == () == EpochFile(disk, PATH).entries


def test_an_entry_is_on_the_disk_when_the_call_returns() -> None:
    """Whenever the power goes: during the call the old entries or the new ones are left, after it the new ones."""
    for seed in range(60):
        disk = FaultyDisk(Random(seed))
        disk.write_file(PATH, APACHE_EXAMPLE)
        disk.sync_dir(PATH.parent)
        disk.sync_dir(PATH.parent.parent)
        file = EpochFile(disk, PATH)
        disk.lose_power_after(seed % 8)
        try:
            file.append_epoch(9, 9000)
        except PowerLoss:
            expected = {ENTRIES, (*ENTRIES, EpochEntry(9, 9000))}
        else:
            expected = {(*ENTRIES, EpochEntry(9, 9000))}
        disk.lose_power()
        disk.restart()
        assert EpochFile(disk, PATH).entries in expected


def test_failed_write_changes_nothing() -> None:
    """A full disk is DiskFull, another failure is the disk's own error."""
    disk = FaultyDisk(Random(1))
    file = EpochFile(disk, PATH)
    file.append_epoch(1, 0)
    disk.fail("write_file", errno.ENOSPC)
    with pytest.raises(DiskFull):
        file.append_epoch(2, 10)
    disk.fail("write_file", errno.EIO)
    with pytest.raises(OSError, match="error"):
        file.append_epoch(2, 10)
    assert file.entries == (EpochEntry(1, 0),) == EpochFile(disk, PATH).entries


@pytest.mark.parametrize(
    ("ours", "our_end", "theirs", "their_end", "points"),
    [
        # The same history, one of them behind.
        ([(1, 0), (2, 500)], 800, [(1, 0), (2, 500)], 900, [800, 500]),
        # A master that died with 50 bytes of its own, and its successor.
        ([(1, 0)], 550, [(1, 0), (2, 500)], 900, [500]),
        # It came back, and each had an epoch that the other never saw.
        ([(1, 0), (3, 500)], 550, [(1, 0), (2, 480), (4, 700)], 900, [480]),
        # The same epoch number with another start is another master's.
        ([(1, 0), (2, 500)], 800, [(1, 0), (2, 510)], 900, [500]),
        # The front has expired here.
        ([(2, 500)], 800, [(1, 0), (2, 500)], 700, [700]),
        ([(1, 0)], 800, [(2, 0)], 900, []),
        ([], 0, [(1, 0)], 900, []),
    ],
)
def test_common_points(
    ours: list[tuple[int, int]], our_end: int, theirs: list[tuple[int, int]], their_end: int, points: list[int]
) -> None:
    """The latest first; the same seen from either side."""
    our_entries = [EpochEntry(*entry) for entry in ours]
    their_entries = [EpochEntry(*entry) for entry in theirs]
    assert list(common_points(our_entries, our_end, their_entries, their_end)) == points
    assert list(common_points(their_entries, their_end, our_entries, our_end)) == points
    assert find_common_point(our_entries, our_end, their_entries, their_end) == (points[0] if points else None)
