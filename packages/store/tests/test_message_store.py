"""The facade: opening, closing, states, threads, and memory that does not grow."""

import os
import shutil
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from random import Random

import pytest
from apogeemq.remoting_codec.record import decode_records
from apogeemq.store.__main__ import main
from apogeemq.store.config import StoreConfig
from apogeemq.store.errors import (
    DiskFull,
    LayoutInvalid,
    NotWritable,
    StoreClosed,
    StoreError,
    StoreInUse,
)
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import AppendResult, MessageStore, ReadStatus

OpenStore = Callable[..., MessageStore]
Send = Callable[..., AppendResult]
DEADLINE_S = 30


def test_directory_is_held_exclusively(open_store: OpenStore, tmp_path: Path) -> None:
    """A second opening is refused and changes nothing; after close it works."""
    store = open_store(directory=tmp_path / "s")
    with pytest.raises(StoreInUse) as raised:
        open_store(directory=tmp_path / "s")
    assert raised.value.directory == tmp_path / "s"
    store.close()
    open_store(directory=tmp_path / "s")


def test_failed_opening_lets_go(open_store: OpenStore) -> None:
    """After an error the directory is free again, and still counts as closed in good order."""
    disk = MemoryDisk()
    disk.write_file(Path("/store/commitlog/00000000000000000000"), bytes(9000))
    for _ in range(2):
        with pytest.raises(LayoutInvalid):
            open_store(disk)
    assert disk.size_of(Path("/store/abort")) is None


def test_full_disk_refuses_the_opening(open_store: OpenStore, send: Send) -> None:
    """Without room to rebuild the consume queues: DiskFull, again and again, and all is there once there is room."""
    disk = MemoryDisk()
    store = open_store(disk)
    for _ in range(20):
        send(store)
    store.close()
    disk.write_file(Path("/store/abort"), b"1")
    for path in [path for path in disk.files if "consumequeue" in path.parts]:
        disk.remove(path)
    disk.capacity_bytes = disk.used_bytes()
    for _ in range(2):
        with pytest.raises(DiskFull, match="/store"):
            open_store(disk)
    disk.capacity_bytes = None
    assert open_store(disk).max_offset("TopicTest", 0) == 20


def test_bad_settings_are_refused_before_anything(tmp_path: Path) -> None:
    """Nothing is created."""
    with pytest.raises(ValueError, match="store_host"):
        MessageStore.open(tmp_path / "s", StoreConfig(store_host=b""), now_ms=lambda: 0)
    assert not (tmp_path / "s").exists()


def test_abort_file_tells_the_process(open_store: OpenStore, tmp_path: Path) -> None:
    """It is there while the store is open."""
    store = open_store(directory=tmp_path)
    assert (tmp_path / "abort").read_text() == str(os.getpid())
    store.close()
    assert not (tmp_path / "abort").exists()


def test_closed_store_says_so(open_store: OpenStore, send: Send) -> None:
    """Every call after close is StoreClosed; closing again is nothing."""
    store = open_store(MemoryDisk())
    send(store)
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: send(store),
        lambda: store.append_batch("T", 0, 0, 1, bytes(8), [(0, b"", b"", 0)]),
        lambda: store.read("TopicTest", 0, 0, 1, 1, None),
        lambda: store.record_at(0),
        lambda: store.queue_unit("TopicTest", 0, 0),
        lambda: store.max_offset("TopicTest", 0),
        lambda: store.min_offset("TopicTest", 0),
        lambda: store.offset_by_time("TopicTest", 0, 0, "lower"),
        lambda: store.store_time_of("TopicTest", 0, 0),
        store.flush,
    ]
    for call in calls:
        with pytest.raises(StoreClosed):
            call()
    assert not store.is_writable
    assert store.not_writable_reason == "the store is closed"


def test_context_manager_closes(tmp_path: Path) -> None:
    """Leaving the block is a stop in good order."""
    config = StoreConfig(store_host=bytes(8), commit_log_file_size_bytes=1 << 20)
    with MessageStore.open(tmp_path, config, now_ms=lambda: 5) as store:
        store.append("T", 0, 0, 0, 1, bytes(8), 0, 0, b"", b"", 0)
    with MessageStore.open(tmp_path, config, now_ms=lambda: 5) as store:
        assert store.recovery.clean
        assert store.max_offset("T", 0) == 1


def test_state_of_an_open_store(open_store: OpenStore, send: Send) -> None:
    """Writable, with the offsets of log and queues."""
    store = open_store(MemoryDisk())
    assert (store.is_writable, store.not_writable_reason) == (True, None)
    result = send(store)
    send(store, "Other", 3)
    assert sorted(store.queues()) == [("Other", 3), ("TopicTest", 0)]
    assert store.flushed_offset == 0
    store.flush()
    assert store.flushed_offset == store.written_offset == store.confirm_offset > result.size_bytes
    assert (store.min_offset("None", 0), store.max_offset("None", 0)) == (0, 0)
    assert store.queue_unit("None", 0, 0) is None
    assert store.store_time_of("None", 0, 0) == -1


def test_full_tail_is_written_by_the_appender(open_store: OpenStore, send: Send) -> None:
    """Without a flush thread memory stays bounded: a tail above its bound goes to its file."""
    store = open_store(MemoryDisk(), consume_queue_tail_size_bytes_max=200)
    for _ in range(100):
        send(store)
        assert len(store._table["TopicTest", 0].tail) <= 200
    store.append_batch("TopicTest", 0, 0, 1, bytes(8), [(0, b"", b"", 0)] * 10)
    send(store)
    assert len(store._table["TopicTest", 0].tail) <= 220
    assert store.read("TopicTest", 0, 0, 200, 1 << 20, None).count == 111


def test_full_tail_that_cannot_be_written_refuses(open_store: OpenStore, send: Send) -> None:
    """DiskFull for want of room, NotWritable otherwise; in both cases nothing was appended."""
    disk = FaultyDisk(Random(1))
    store = open_store(disk, consume_queue_tail_size_bytes_max=100)
    for _ in range(5):
        send(store)
    written = store.written_offset
    disk.fail("write", 28)
    with pytest.raises(DiskFull, match="TopicTest/0"):
        send(store)
    assert store.written_offset == written
    assert send(store).queue_offset == 5
    for _ in range(4):
        send(store)
    disk.fail("write", 5)
    with pytest.raises(NotWritable, match="writing a consume queue failed"):
        send(store)
    assert store.max_offset("TopicTest", 0) == 10
    with pytest.raises(NotWritable):
        store.close()


def test_memory_does_not_grow_with_messages(open_store: OpenStore, send: Send, tmp_path: Path) -> None:
    """Ten thousand more messages leave no more objects behind than the first thousands did."""
    store = open_store(directory=tmp_path, commit_log_file_size_bytes=1 << 16, consume_queue_file_units=1000)

    def work() -> None:
        for number in range(10_000):
            send(store, queue_id=number % 8)
        store._queues.drain_all()

    work()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        grown_bytes = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown_bytes < 100_000, "ten thousand messages of 104 bytes, each with a unit of 20"


# -- with threads ----------------------------------------------------------------------------------------------------


def test_flush_thread_answers_who_waits(open_store: OpenStore, send: Send, tmp_path: Path) -> None:
    """A waiting send is woken by the thread, long before the interval."""
    store = open_store(directory=tmp_path, background=True, flush_interval_ms=3_600_000)
    answers: SimpleQueue[tuple[Exception | None, str]] = SimpleQueue()
    for _ in range(3):
        send(store)
        store.notify_flushed(store.written_offset, lambda error: answers.put((error, threading.current_thread().name)))
        assert answers.get(timeout=DEADLINE_S) == (None, "store-flush")
    store.close()
    assert "store-flush" not in {thread.name for thread in threading.enumerate()}


def test_flush_thread_works_at_its_interval(open_store: OpenStore, send: Send, tmp_path: Path) -> None:
    """ASYNC: nobody waits, and what was sent is synced all the same."""
    store = open_store(directory=tmp_path, background=True, flush_interval_ms=1)
    send(store)
    deadline = time.monotonic() + DEADLINE_S
    while store.flushed_offset < store.written_offset:
        assert time.monotonic() < deadline
        os.sched_yield()
    store.close()


def test_threads_and_readers_at_once(open_store: OpenStore, send: Send, tmp_path: Path) -> None:
    """While one thread appends and the store flushes, cold readers in other threads see gapless prefixes."""
    store = open_store(
        directory=tmp_path,
        background=True,
        flush_interval_ms=1,
        commit_log_file_size_bytes=1 << 16,
        consume_queue_file_units=100,
        hot_read_window_bytes=1 << 15,
        reserve_ahead_bytes=1 << 16,
    )
    total = 4000
    failures: list[BaseException] = []

    def reader() -> None:
        try:
            at = 0
            while at < total:
                result = store.read("TopicTest", 0, at, 64, 1 << 20, None, cold_allowed=True)
                if result.status is not ReadStatus.FOUND:
                    assert result.status in (
                        ReadStatus.OFFSET_OVERFLOW_ONE,
                        ReadStatus.NO_MATCHED_LOGIC_QUEUE,
                        ReadStatus.NO_MESSAGE_IN_QUEUE,
                    )
                    os.sched_yield()
                    continue
                for record in decode_records(b"".join(result.buffers)):
                    assert record.body == b"%d" % at
                    at += 1
        except BaseException as error:
            failures.append(error)
            raise

    readers = [threading.Thread(target=reader) for _ in range(2)]
    for thread in readers:
        thread.start()
    for number in range(total):
        send(store, body=b"%d" % number)
        send(store, queue_id=1, body=b"z" * (number % 200))
    for thread in readers:
        thread.join(DEADLINE_S)
    assert not failures
    assert not any(thread.is_alive() for thread in readers)
    store.close()


class HangingDisk(MemoryDisk):
    """Its log cannot be synced until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = False
        self.is_hanging = threading.Event()
        self.let_go = threading.Event()

    def enter(self, operation: str, path: Path) -> None:
        if self.hangs and operation == "sync" and "commitlog" in path.parts:
            self.is_hanging.set()
            self.let_go.wait(DEADLINE_S)


@pytest.mark.parametrize("in_flush_thread", [True, False])
def test_close_does_not_wait_for_ever(open_store: OpenStore, send: Send, in_flush_thread: bool) -> None:
    """When the disk hangs, close fails at its deadline; who waits is told; the lock stays."""
    disk = HangingDisk()
    store = open_store(disk, background=True, close_timeout_ms=1, flush_interval_ms=3_600_000)
    answers: SimpleQueue[Exception | None] = SimpleQueue()
    send(store)
    disk.hangs = True
    if in_flush_thread:
        store.notify_flushed(store.written_offset, answers.put)
        assert disk.is_hanging.wait(DEADLINE_S)
    with pytest.raises(StoreError, match="the disk hangs"):
        store.close()
    if in_flush_thread:
        assert isinstance(answers.get(timeout=DEADLINE_S), StoreClosed)
    with pytest.raises(StoreInUse):
        open_store(disk)
    disk.let_go.set()


def test_bug_in_a_thread_ends_writing(
    open_store: OpenStore, send: Send, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An unexpected error is not lost: who waits hears of it and appends are refused."""
    store = open_store(directory=tmp_path, background=True, flush_interval_ms=3_600_000)

    def broken() -> None:
        raise ZeroDivisionError("a bug")

    send(store)
    monkeypatch.setattr(store._commit, "flush", broken)
    answers: SimpleQueue[Exception | None] = SimpleQueue()
    store.notify_flushed(store.written_offset, answers.put)
    assert isinstance(answers.get(timeout=DEADLINE_S), NotWritable)
    with pytest.raises(NotWritable, match="a thread of the store failed"):
        send(store)
    monkeypatch.undo()
    with pytest.raises(NotWritable):
        store.close()


def test_units_that_come_while_a_queue_is_written_are_written_too(
    open_store: OpenStore, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message stored while another thread writes its queue's tail is in the file after an orderly stop."""
    disk = MemoryDisk()
    store = open_store(disk)
    first = send(store)
    write_files = store._queues._write_files

    def append_meanwhile(directory: Path, at: int, data: bytes) -> None:
        monkeypatch.undo()
        write_files(directory, at, data)
        send(store)

    monkeypatch.setattr(store._queues, "_write_files", append_meanwhile)
    store._queues.drain_all()
    store.close()
    reopened = open_store(disk)
    ((topic, queue_id),) = reopened.queues()
    assert reopened.recovery.clean
    assert first.queue_offset == 0
    assert reopened.max_offset(topic, queue_id) == 2


def test_extended_units_are_refused_until_they_are_rebuilt(
    tmp_path: Path, open_store: Callable[..., MessageStore], send: Callable[..., AppendResult]
) -> None:
    """Java's enableConsumeQueueExt: addresses taken for tag hashes would hide messages. The error says what to do."""
    store = open_store()
    send(store)
    store.close()
    extended = tmp_path / "store" / "consumequeue_ext" / "TopicTest" / "0"
    extended.mkdir(parents=True)
    (extended / f"{0:020d}").write_bytes(bytes(64))
    with pytest.raises(LayoutInvalid, match="apogeemq-store rebuild") as caught:
        open_store()
    assert caught.value.path == tmp_path / "store" / "consumequeue_ext"
    assert (
        main(["rebuild", str(tmp_path / "store"), "--commit-log-file-size", "8192", "--consume-queue-file-size", "320"])
        == 0
    )
    shutil.rmtree(tmp_path / "store" / "consumequeue_ext")
    assert open_store().max_offset("TopicTest", 0) == 1
