"""A store on a disk that fills up and empties again."""

import errno
import logging
from collections.abc import Callable
from random import Random

import pytest
from apogeemq.store.disk_space import DiskLimits, DiskState
from apogeemq.store.errors import DiskAlmostFull, NotWritable
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.files import DiskSpace
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import AppendResult, MessageStore, ReadStatus

LIMITS = DiskLimits(warn_used_ratio=0.8, refuse_used_ratio=0.9)

Open = Callable[..., MessageStore]
Send = Callable[..., AppendResult]


def fill(disk: MemoryDisk, percent: int) -> None:
    """Let others use the disk, so that this share of its 100 GiB is used."""
    disk.space = lambda path: DiskSpace(100 << 30, 100 - percent << 30)  # type: ignore[method-assign]  # others than us fill it


def test_full_and_free_again(open_store: Open, send: Send, caplog: pytest.LogCaptureFixture) -> None:
    """Above the limit sends are refused and reads go on; with room again sends go on by themselves. Told once each."""
    disk = MemoryDisk()
    store = open_store(disk, disk_limits=LIMITS)
    send(store)
    caplog.set_level(logging.INFO, "apogeemq.store")
    told = []
    for percent in (50, 85, 85, 95, 95, 50):
        fill(disk, percent)
        store.flush_once()
        told.append((store.disk_state, len(caplog.records), store.is_writable))
    assert told == [
        (DiskState.OK, 0, True),
        (DiskState.WARN, 1, True),
        (DiskState.WARN, 1, True),
        (DiskState.REFUSE, 2, False),
        (DiskState.REFUSE, 2, False),
        (DiskState.OK, 3, True),
    ]
    assert send(store).queue_offset == 1


def test_refused_store(open_store: Open, send: Send) -> None:
    """While it refuses, the error says how full the disk is, nothing is stored, reads and flushes work."""
    disk = MemoryDisk()
    store = open_store(disk, disk_limits=LIMITS)
    send(store, body=b"first")
    fill(disk, 95)
    store.flush_once()
    with pytest.raises(DiskAlmostFull, match=r"95\.0% full") as caught:
        send(store)
    assert caught.value.setting == "diskSpaceWarningLevelRatio"
    assert store.not_writable_reason == str(caught.value)
    assert store.max_offset("TopicTest", 0) == 1
    assert store.read("TopicTest", 0, 0, 1, 1000, None, cold_allowed=True).status is ReadStatus.FOUND
    store.flush()


def test_refused_from_the_start(open_store: Open, send: Send) -> None:
    """A store on a disk that is too full opens, and refuses the first send already."""
    store = open_store(disk := MemoryDisk())
    send(store)
    store.close()
    fill(disk, 95)
    store = open_store(disk, disk_limits=LIMITS)
    with pytest.raises(DiskAlmostFull):
        send(store)


def test_exemption(open_store: Open, send: Send) -> None:
    """Work that leads to free space may append meanwhile; when it is done, sends are refused as before."""
    disk = MemoryDisk()
    store = open_store(disk, disk_limits=LIMITS)
    fill(disk, 95)
    store.flush_once()
    with store.disk_limits_ignored():
        send(store)
    with pytest.raises(DiskAlmostFull):
        send(store)


def test_exemption_outlasts_a_look(open_store: Open, send: Send) -> None:
    """The disk may become too full, or free again, while work is exempt: afterwards the new state counts."""
    disk = MemoryDisk()
    store = open_store(disk, disk_limits=LIMITS)
    with store.disk_limits_ignored():
        fill(disk, 95)
        store.flush_once()
        send(store)
    with pytest.raises(DiskAlmostFull):
        send(store)
    with store.disk_limits_ignored():
        fill(disk, 50)
        store.flush_once()
    send(store)


def test_broken_store_stays_broken(open_store: Open, send: Send) -> None:
    """A failed sync is final: neither a full disk nor room on it changes what a sender reads."""
    disk = FaultyDisk(Random(1))
    store = open_store(disk, disk_limits=LIMITS)
    send(store)
    disk.fail("sync", errno.EIO, path_part="commitlog")
    store.flush_once()
    fill(disk, 95)
    store.flush_once()
    with pytest.raises(NotWritable), store.disk_limits_ignored():
        send(store)
    fill(disk, 50)
    store.flush_once()
    with pytest.raises(NotWritable):
        send(store)


def test_disk_that_does_not_answer(open_store: Open, send: Send, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that cannot tell its room changes nothing and is told of once."""
    disk = FaultyDisk(Random(1))
    store = open_store(disk, disk_limits=LIMITS)
    before = store.disk_space
    disk.fail("space", errno.EIO, times=2)
    store.flush_once()
    store.flush_once()
    assert store.disk_space == before != DiskSpace(0, 0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    send(store)
