"""A disk that hangs is seen, refused on, and forgiven."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Event, Thread

import pytest
from apogeemq.store.errors import DiskSlow, NotWritable
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import AppendResult, MessageStore
from apogeemq.store.stall_watch import StallWatch

OpenStore = Callable[..., MessageStore]
Send = Callable[..., AppendResult]

DEADLINE_S = 20


class HangingDisk(MemoryDisk):
    """Syncs and reservations of the log wait while `is_hanging`, until `answer`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_hanging = False
        self.error_number: int | None = None
        self.entered = Event()
        self.answer = Event()

    def enter(self, operation: str, path: Path) -> None:
        if self.is_hanging and operation in ("sync", "reserve") and "commitlog" in str(path):
            self.is_hanging = False
            self.entered.set()
            assert self.answer.wait(DEADLINE_S)
            if self.error_number is not None:
                raise OSError(self.error_number, os.strerror(self.error_number))


def begin(disk: HangingDisk, work: Callable[[], None]) -> Thread:
    """Have the disk hang in a thread that does `work`."""
    disk.is_hanging = True
    thread = Thread(target=work, daemon=True)
    thread.start()
    assert disk.entered.wait(DEADLINE_S)
    return thread


def end(disk: HangingDisk, thread: Thread) -> None:
    disk.answer.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def watch_of(store: MessageStore, limit_ms: int) -> StallWatch:
    return StallWatch(store._log, store.disk_health, limit_ms=limit_ms)


def test_appends_are_refused_while_a_sync_hangs(open_store: OpenStore, send: Send) -> None:
    """Not before the limit; who waits keeps waiting; when the disk answers, all is well again."""
    disk = HangingDisk()
    store = open_store(disk, reserve_ahead_bytes=8192)
    patient, strict = watch_of(store, 1_000_000), watch_of(store, 0)
    strict.look()
    send(store)
    answers: list[Exception | None] = []
    store.notify_flushed(store.written_offset, answers.append)
    flushing = begin(disk, store._commit.flush_once)
    patient.look()
    assert send(store).queue_offset == 1
    strict.look()
    strict.look()
    with pytest.raises(DiskSlow, match="one sync of /store/commitlog/00000000000000000000 takes longer than 0 ms"):
        send(store)
    assert "disk_stall_limit_ms" in str(store.not_writable_reason)
    assert answers == []
    end(disk, flushing)
    strict.look()
    assert answers == [None]
    assert send(store).queue_offset == 2


def test_an_error_in_the_end_is_final(open_store: OpenStore, send: Send) -> None:
    """A disk that hangs and then fails leaves the store read-only, although it answers again."""
    disk = HangingDisk()
    disk.error_number = errno.EIO
    store = open_store(disk, reserve_ahead_bytes=8192)
    send(store)
    watch = watch_of(store, 0)
    flushing = begin(disk, store._commit.flush_once)
    watch.look()
    end(disk, flushing)
    watch.look()
    with pytest.raises(NotWritable, match="syncing the commit log failed"):
        send(store)
    assert store.disk_health.errors() == {("sync", "EIO"): 1}


def then_set(event: Event, call: Callable[..., None]) -> Callable[..., None]:
    """The call, after which a test that waits goes on."""

    def called(*arguments: object) -> None:
        call(*arguments)
        event.set()

    return called


def test_the_stores_own_thread_sees_it(open_store: OpenStore, send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """With threads nobody has to call anything: refused after the limit, lifted after the answer."""
    disk = HangingDisk()
    store = open_store(disk, background=True, reserve_ahead_bytes=8192, disk_stall_limit_ms=20)
    refused, lifted = Event(), Event()
    monkeypatch.setattr(store._log, "suspend", then_set(refused, store._log.suspend))
    monkeypatch.setattr(store._log, "resume", then_set(lifted, store._log.resume))
    send(store)
    disk.is_hanging = True
    store.notify_flushed(store.written_offset, lambda error: None)
    assert refused.wait(DEADLINE_S)
    with pytest.raises(DiskSlow):
        send(store)
    lifted.clear()
    disk.answer.set()
    assert lifted.wait(DEADLINE_S)
    assert send(store).queue_offset == 1


def test_the_writer_does_not_wait_for_a_hanging_reservation(open_store: OpenStore, send: Send) -> None:
    """What is reserved already is used up; then an append is refused by itself, long before anybody looks."""
    disk = HangingDisk()
    store = open_store(disk, reserve_ahead_bytes=8192, disk_stall_limit_ms=20)
    send(store)
    preparing = begin(disk, lambda: store._log.files.prepare(store.written_offset))
    stored = 1
    with pytest.raises(DiskSlow, match="one reserve of /store/commitlog/"):  # noqa: PT012 — how many fit is not the point
        for _ in range(40):
            send(store, body=b"x" * 500)
            stored += 1
    assert stored > 1
    end(disk, preparing)
    assert send(store, body=b"x" * 500).queue_offset == stored


def test_nothing_is_measured_twice_or_never(open_store: OpenStore, send: Send) -> None:
    """The store's own disk is the measured one: a failed sync of a queue is among its errors."""
    disk = FaultyDisk(Random(1))
    store = open_store(disk)
    send(store)
    disk.fail("sync", errno.EIO, path_part="consumequeue")
    with pytest.raises(NotWritable):
        store.close()
    assert store.disk_health.errors() == {("sync", "EIO"): 1}
