"""Writing consume queues and the checkpoint."""

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from apogeemq.store.checkpoint import Checkpoint, CheckpointFile
from apogeemq.store.errors import NotWritable
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


def checkpoint_of(disk: MemoryDisk) -> Checkpoint:
    return CheckpointFile(disk, Path("/store/checkpoint")).load()


def test_tails_are_written_at_intervals(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """Not at every flush: that would cost one write per queue and group commit."""
    disk = CountingDisk()
    store = open_store(disk, flush_interval_ms=500)
    send(store)
    clock[0] += 499
    store.flush_once()
    assert disk.count("write", "consumequeue") == 0
    clock[0] += 1
    store.flush_once()
    assert disk.count("write", "consumequeue") == 1
    send(store)
    clock[0] -= 10_000  # the clock is set back: work must not stop until it catches up
    store.flush_once()
    assert disk.count("write", "consumequeue") == 2


def test_queues_are_synced_seldom(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """At their own interval, and only then the checkpoint's logics timestamp moves."""
    disk = CountingDisk()
    store = open_store(disk, flush_interval_ms=500, consume_queue_sync_interval_ms=60_000)
    opened_ms = clock[0]
    clock[0] += 1000
    send(store)
    store.flush_once()
    assert disk.count("sync", "consumequeue") == 0
    assert checkpoint_of(disk).physic_timestamp_ms == opened_ms + 1000
    assert checkpoint_of(disk).logics_timestamp_ms < opened_ms
    clock[0] = opened_ms + 60_000
    store.flush_once()
    assert disk.count("sync", "consumequeue") == 1
    assert checkpoint_of(disk).logics_timestamp_ms == opened_ms + 1000


def test_checkpoint_follows_the_flush(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """It names the flushed offset and the time of the last flushed record."""
    disk = MemoryDisk()
    store = open_store(disk)
    send(store)
    clock[0] += 500
    end = store.written_offset
    store.flush_once()
    saved = checkpoint_of(disk)
    assert saved.master_flushed_offset == end
    assert saved.physic_timestamp_ms == clock[0] - 500


@pytest.mark.parametrize(
    ("operation", "part"), [("write", "consumequeue"), ("sync", "consumequeue"), ("write", "checkpoint")]
)
def test_failures_beside_the_log_are_final_too(
    open_store: OpenStore, send: Send, clock: list[int], operation: str, part: str
) -> None:
    """A queue or checkpoint that cannot be written ends appending; no later round claims that queues are synced."""
    disk = FaultyDisk(Random(1))
    store = open_store(disk)
    before = checkpoint_of(disk)
    clock[0] += 61_000
    send(store)
    disk.fail(operation, errno.EIO, path_part=part)
    store.flush_once()
    with pytest.raises(NotWritable):
        send(store)
    clock[0] += 61_000
    store.flush_once()
    assert checkpoint_of(disk).logics_timestamp_ms == before.logics_timestamp_ms
    with pytest.raises(NotWritable):
        store.close()
    assert disk.size_of(Path("/store/abort")) is not None, "the next opening must recover"
    assert open_store(disk).max_offset("TopicTest", 0) == 1


def test_no_room_for_queues_is_no_failure(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """Tails stay in memory while the disk is full, and are written when there is room."""
    disk = FaultyDisk(Random(1))
    store = open_store(disk)
    send(store)
    disk.fail("write", errno.ENOSPC, path_part="consumequeue", times=2)
    for _ in range(2):
        clock[0] += 61_000
        store.flush_once()
        assert store.is_writable
    assert send(store).queue_offset == 1
    clock[0] += 500
    store.flush_once()
    store.close()
    assert open_store(disk).max_offset("TopicTest", 0) == 2


def test_checkpoint_keeps_the_confirm_offset(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """As far as the log is synced, since it must not claim more than the disk holds; untouched without a limit."""
    disk = MemoryDisk()
    store = open_store(disk, flush_interval_ms=500)
    send(store)
    send(store)
    store.flush()
    send(store)
    clock[0] += 500
    store._parts.queue_flush.run_once()
    assert checkpoint_of(disk).confirm_offset == 0
    for limit, saved in ((104, 104), (1 << 40, 208)):
        store.confirm_offset = limit
        clock[0] += 500
        store._parts.queue_flush.run_once()
        assert checkpoint_of(disk).confirm_offset == saved
    store.flush()
    clock[0] += 500
    store._parts.queue_flush.run_once()
    assert checkpoint_of(disk).confirm_offset == 312


@pytest.mark.parametrize("operation", ["sync", "sync_dir"])
def test_a_queue_sync_without_room_is_final(
    operation: str, open_store: OpenStore, send: Send, clock: list[int]
) -> None:
    """What it was to sync is not known afterwards: going on, the checkpoint would claim all units to be on the disk."""
    disk = FaultyDisk(Random(1))
    store = open_store(disk)
    send(store)
    clock[0] += 100_000
    disk.fail(operation, errno.ENOSPC, path_part="consumequeue")
    store.flush_once()
    assert not store.is_writable
    before = checkpoint_of(disk).logics_timestamp_ms
    clock[0] += 100_000
    store.flush_once()
    assert checkpoint_of(disk).logics_timestamp_ms == before
