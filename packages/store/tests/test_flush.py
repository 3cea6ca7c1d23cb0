"""Group commit."""

import errno
import logging
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from apogeemq.store.errors import NotWritable, StoreClosed, TooManyWaiters
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import AppendResult, MessageStore

OpenStore = Callable[..., MessageStore]
Send = Callable[..., AppendResult]


class CountingDisk(MemoryDisk):
    """Remembers which calls were made on which paths."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []

    def enter(self, operation: str, path: Path) -> None:
        self.calls.append((operation, str(path)))

    def count(self, operation: str, part: str) -> int:
        return sum(1 for name, path in self.calls if name == operation and part in path)


def test_all_who_wait_share_one_sync(open_store: OpenStore, send: Send) -> None:
    """Fifty waiting sends cost one sync and are all told."""
    disk = CountingDisk()
    store = open_store(disk)
    answers: list[Exception | None] = []
    for _ in range(50):
        result = send(store)
        store.notify_flushed(result.physical_offset + result.size_bytes, answers.append)
    assert answers == []
    disk.calls.clear()
    store.flush_once()
    assert answers == [None] * 50
    assert disk.count("sync", "commitlog") == 1
    assert store.flushed_offset == store.written_offset


def test_flushed_offset_is_answered_at_once(open_store: OpenStore, send: Send) -> None:
    """No waiting for what is synced already."""
    store = open_store(MemoryDisk())
    send(store)
    store.flush()
    answers: list[Exception | None] = []
    store.notify_flushed(store.written_offset, answers.append)
    assert answers == [None]


def test_only_what_is_flushed_is_answered(open_store: OpenStore, send: Send) -> None:
    """Who waits for more than there was at the sync keeps waiting."""
    store = open_store(MemoryDisk())
    answers: list[str] = []
    result = send(store)
    end = result.physical_offset + result.size_bytes
    store.notify_flushed(end + 1, lambda _: answers.append("later"))
    store.notify_flushed(end, lambda _: answers.append("now"))
    store.flush_once()
    assert answers == ["now"]
    send(store)
    store.flush_once()
    assert answers == ["now", "later"]


def test_nothing_new_costs_no_sync(open_store: OpenStore, send: Send) -> None:
    """A round without new messages does not touch the log."""
    disk = CountingDisk()
    store = open_store(disk)
    send(store)
    store.flush_once()
    disk.calls.clear()
    store.flush_once()
    assert disk.count("sync", "commitlog") == 0


def test_waiters_are_bounded(open_store: OpenStore, send: Send) -> None:
    """One more than the bound is refused; the others are answered."""
    store = open_store(MemoryDisk(), flush_waiters_max=2)
    send(store)
    answers: list[Exception | None] = []
    store.notify_flushed(store.written_offset, answers.append)
    store.notify_flushed(store.written_offset, answers.append)
    with pytest.raises(TooManyWaiters, match="2 sends"):
        store.notify_flushed(store.written_offset, answers.append)
    store.flush_once()
    assert answers == [None, None]


def test_failing_callback_does_not_hurt_the_others(
    open_store: OpenStore, send: Send, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; everybody else gets the answer."""
    store = open_store(MemoryDisk())
    send(store)
    answers: list[Exception | None] = []

    def broken(error: Exception | None) -> None:
        raise ZeroDivisionError("a bug")

    store.notify_flushed(store.written_offset, broken)
    store.notify_flushed(store.written_offset, answers.append)
    store.flush_once()
    assert answers == [None]
    assert "a flush callback failed" in caplog.text


def test_failed_sync_is_final(open_store: OpenStore, send: Send, caplog: pytest.LogCaptureFixture) -> None:
    """Who waits gets the error, nobody is ever told success, nothing is appended, and reading goes on."""
    disk = FaultyDisk(Random(1))
    store = open_store(disk)
    send(store)
    answers: list[Exception | None] = []
    store.notify_flushed(store.written_offset, answers.append)
    disk.fail("sync", errno.EIO, path_part="commitlog")
    store.flush_once()
    store.flush_once()
    store.notify_flushed(store.written_offset, answers.append)
    assert [type(answer) for answer in answers] == [NotWritable, NotWritable]
    assert store.flushed_offset == 0
    with pytest.raises(NotWritable, match="syncing the commit log failed"):
        send(store)
    with pytest.raises(NotWritable):
        store.flush()
    assert store.read("TopicTest", 0, 0, 1, 1000, None).count == 1
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    with pytest.raises(NotWritable):
        store.close()

    again = open_store(disk)
    assert not again.recovery.clean
    assert again.max_offset("TopicTest", 0) == 1
    again.close()
    disk.restart()
    assert open_store(disk).max_offset("TopicTest", 0) == 1, "what was handed out again had been made durable"


def test_close_answers_who_waits(open_store: OpenStore, send: Send) -> None:
    """What the last flush covers is told as done; the rest hears that the store is closed."""
    store = open_store(MemoryDisk())
    send(store)
    answers: list[Exception | None] = []
    store.notify_flushed(store.written_offset, answers.append)
    store.notify_flushed(store.written_offset + 1, answers.append)
    store.close()
    store.notify_flushed(store.written_offset + 1, answers.append)
    assert answers[0] is None
    assert [type(answer) for answer in answers[1:]] == [StoreClosed, StoreClosed]
