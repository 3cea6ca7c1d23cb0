"""What the reserving thread does."""

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from apogeemq.store.errors import NotWritable
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import AppendResult, MessageStore
from apogeemq.store.room import RoomService

OpenStore = Callable[..., MessageStore]
Send = Callable[..., AppendResult]


def test_full_disk_is_reported_once(open_store: OpenStore, send: Send, caplog: pytest.LogCaptureFixture) -> None:
    """Not every second; and again after there was room in between."""
    disk = MemoryDisk()
    store = open_store(disk, reserve_ahead_bytes=8192)
    room = RoomService(store._log)
    for _ in range(2):
        send(store, body=b"x" * 1000)
        disk.capacity_bytes = 0
        for _ in range(3):
            room.prepare_once()
        disk.capacity_bytes = None
        room.prepare_once()
    warning = "no room on the disk for /store/commitlog/00000000000000008192: appending will fail soon"
    assert [record.message for record in caplog.records] == [warning, warning]
    assert store.is_writable


def test_broken_disk_ends_writing(open_store: OpenStore, send: Send) -> None:
    """An I/O error while reserving ahead is final."""
    disk = FaultyDisk(Random(1))
    store = open_store(disk, reserve_ahead_bytes=8192)
    send(store)
    disk.fail("reserve", errno.EIO)
    RoomService(store._log).prepare_once()
    with pytest.raises(NotWritable, match="reserving room"):
        send(store)


def test_old_files_lose_their_maps(open_store: OpenStore, send: Send) -> None:
    """Files behind the hot window are unmapped; their messages are read all the same."""
    store = open_store(MemoryDisk(), hot_read_window_bytes=8192)
    for number in range(40):
        send(store, body=b"%d" % number + bytes(1000))
    RoomService(store._log).prepare_once()
    files = store._log.files
    assert [start for start in files.starts if files.view(start, 1) is not None] == list(files.starts)[-2:]
    assert store.read("TopicTest", 0, 0, 1, 2000, None).count == 1


def test_next_file_is_prepared(open_store: OpenStore, send: Send) -> None:
    """When the writer comes near the end of a file, the next one is there already."""
    disk = MemoryDisk()
    store = open_store(disk, reserve_ahead_bytes=6000)
    room = RoomService(store._log)
    room.prepare_once()
    assert disk.list_dir(Path("/store/commitlog")) == [f"{0:020d}"]
    send(store, body=b"x" * 3000)
    room.prepare_once()
    assert disk.list_dir(Path("/store/commitlog")) == [f"{0:020d}", f"{8192:020d}"]
    send(store, body=b"x" * 4000)
    room.prepare_once()
    reserved_bytes = disk.used_bytes()
    assert send(store, body=b"x" * 2000).physical_offset == 8192
    assert disk.used_bytes() == reserved_bytes, "the writer found its room reserved"
