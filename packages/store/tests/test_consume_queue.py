"""Consume queues: units in memory and in files, their ends, their beginnings, and what is written when."""

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Lock

import pytest
from apogeemq.store.consume_queue import PADDING_SIZE, UNIT, ConsumeQueue, ConsumeQueues
from apogeemq.store.errors import LayoutInvalid
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.files import RealDisk
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import AppendResult, MessageStore, ReadStatus

UNITS_PER_FILE = 10
FILE_SIZE = UNITS_PER_FILE * 20
ROOT = Path("/store/consumequeue")
FAR = 1 << 40


def open_queues(disk: MemoryDisk | RealDisk, root: Path = ROOT, open_files_max: int = 8) -> ConsumeQueues:
    return ConsumeQueues(disk, root, units_per_file=UNITS_PER_FILE, open_files_max=open_files_max, lock=Lock())


def loaded(disk: MemoryDisk, physical_limit: int = FAR) -> ConsumeQueues:
    queues = open_queues(disk)
    list(queues.load(physical_limit))
    return queues


def fill(queues: ConsumeQueues, queue: ConsumeQueue, count: int) -> None:
    """Unit n points at 100 n, has size 50 + n and tags code -n."""
    for _ in range(count):
        n = queue.max_offset
        queues.put(queue, 100 * n, 50 + n, -n)


def units_of(queues: ConsumeQueues, queue: ConsumeQueue, start: int, count: int) -> list[tuple[int, int, int]]:
    data = queues.read(queue, start, count, wait=True)
    assert data is not None
    return list(UNIT.iter_unpack(data))


def expected(start: int, stop: int) -> list[tuple[int, int, int]]:
    return [(100 * n, 50 + n, -n) for n in range(start, stop)]


def test_unit_layout() -> None:
    """Physical offset, size, tags code, big-endian, 20 bytes."""
    assert UNIT.pack(1, 2, -1) == b"\0\0\0\0\0\0\0\1\0\0\0\2" + b"\xff" * 8


@pytest.mark.parametrize("written", [0, 1, 9, 10, 11, 23, 25])
def test_tail_and_files_read_as_one(written: int) -> None:
    """Wherever the tail begins, any range reads the same; ranges end with the queue."""
    queues = open_queues(MemoryDisk())
    queue = queues.create("T", 0)
    fill(queues, queue, written)
    queues.drain(queue)
    fill(queues, queue, 25 - written)
    for start in range(25):
        for count in (1, 7, 30):
            assert units_of(queues, queue, start, count) == expected(start, min(25, start + count))


def test_files_have_full_size_and_zeros_behind() -> None:
    """A file is named by the byte offset of its first unit, has its full size, and ends in zeros."""
    disk = MemoryDisk()
    queues = open_queues(disk)
    queue = queues.create("T", 3)
    fill(queues, queue, 12)
    queues.drain_all()
    directory = ROOT / "T" / "3"
    assert disk.list_dir(directory) == [f"{0:020d}", f"{FILE_SIZE:020d}"]
    last = disk.read_file(directory / f"{FILE_SIZE:020d}")
    assert last == b"".join(UNIT.pack(*unit) for unit in expected(10, 12)) + bytes(FILE_SIZE - 40)


def test_drained_tails_leave_memory() -> None:
    """After writing, nothing of a queue stays in memory, and it is dirty no longer."""
    queues = open_queues(MemoryDisk())
    for number in range(5):
        fill(queues, queues.create("T", number), 30)
    assert len(queues.dirty) == 5
    queues.drain_all()
    assert not queues.dirty
    assert all(len(queue.tail) == 0 for queue in queues.table.values())


def test_failed_write_keeps_the_tail() -> None:
    """Queues that could not be written stay dirty and readable, and are written the next time."""
    disk = FaultyDisk(Random(1))
    queues = open_queues(disk)
    for number in range(3):
        fill(queues, queues.create("T", number), 5)
    disk.fail("write", errno.ENOSPC, calls_before=1)
    with pytest.raises(OSError, match="No space"):
        queues.drain_all()
    assert len(queues.dirty) == 2
    assert units_of(queues, queues.table["T", 0], 0, 9) == expected(0, 5)
    queues.drain_all()
    assert [queue.max_offset for queue in loaded(disk).table.values()] == [5, 5, 5]


def test_many_queues_few_open_files(tmp_path: Path) -> None:
    """Two hundred queues of two files each never hold more descriptors than the bound."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    queues = open_queues(RealDisk(), tmp_path)
    for number in range(200):
        fill(queues, queues.create("T", number), 12)
    queues.drain_all()
    queues.sync()
    for queue in queues.table.values():
        assert units_of(queues, queue, 0, 20) == expected(0, 12)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 8
    queues.close()


def test_queues_are_found_again() -> None:
    """Topics with '%', several queues, other files in between; ends are exact at every length."""
    disk = MemoryDisk()
    queues = open_queues(disk)
    lengths = {("%RETRY%group", 0): 1, ("T", 0): 10, ("T", 7): 11, ("U", 1): 25}
    for key, length in lengths.items():
        fill(queues, queues.create(*key), length)
    queues.drain_all()
    disk.write_file(ROOT / "T" / "notes", b"no queue")
    found = loaded(disk).table
    assert {key: queue.max_offset for key, queue in found.items()} == lengths
    assert all(queue.tail_offset == queue.max_offset for queue in found.values())


@pytest.mark.parametrize("limit", [0, 1, 100, 101, 900, 901, 1000, 1001, 2400, 2401, FAR])
def test_end_is_before_the_physical_limit(limit: int) -> None:
    """Units for records at or beyond the limit are not taken for part of the queue."""
    disk = MemoryDisk()
    queues = open_queues(disk)
    fill(queues, queues.create("T", 0), 25)
    queues.drain_all()
    assert loaded(disk, limit).table["T", 0].max_offset == sum(1 for n in range(25) if 100 * n < limit)


@pytest.mark.parametrize("length", [0, 3, 10, 13])
def test_what_lies_behind_the_end_is_removed(length: int) -> None:
    """Units of a time before, behind the first bad one, would come back to life once the queue has grown up to them."""
    disk = MemoryDisk()
    queues = open_queues(disk)
    fill(queues, queues.create("T", 0), 25)
    queues.drain_all()
    loaded(disk, 100 * length)
    assert loaded(disk).table["T", 0].max_offset == length
    row = b"".join(disk.read_file(ROOT / "T" / "0" / name) for name in disk.list_dir(ROOT / "T" / "0"))
    assert row.rstrip(b"\0") == b"".join(UNIT.pack(*unit) for unit in expected(0, length)).rstrip(b"\0")


def test_files_cut_by_a_copy_are_extended() -> None:
    """A file that ends with its last unit, as tools leave it, is read and continued."""
    disk = MemoryDisk()
    path = ROOT / "T" / "0" / f"{0:020d}"
    disk.write_file(path, b"".join(UNIT.pack(*unit) for unit in expected(0, 3)))
    queues = loaded(disk)
    queue = queues.table["T", 0]
    assert queue.max_offset == 3
    fill(queues, queue, 1)
    queues.drain_all()
    assert disk.size_of(path) == FILE_SIZE
    assert units_of(queues, queue, 0, 10) == expected(0, 4)


def test_empty_directories_are_no_queues(tmp_path: Path) -> None:
    """A topic whose files are gone is fine."""
    (tmp_path / "T" / "0").mkdir(parents=True)
    queues = open_queues(RealDisk(), tmp_path)
    assert not list(queues.load(FAR))
    assert not queues.table


def test_missing_file_in_between_is_a_layout_error() -> None:
    """A queue's files must follow each other."""
    disk = MemoryDisk()
    queues = open_queues(disk)
    fill(queues, queues.create("T", 0), 25)
    queues.drain_all()
    disk.remove(ROOT / "T" / "0" / f"{FILE_SIZE:020d}")
    with pytest.raises(LayoutInvalid, match="missing between"):
        loaded(disk)


@pytest.mark.parametrize("keep", [0, 5, 10, 14, 20, 25])
@pytest.mark.parametrize("drained", [0, 12, 25])
def test_cut_removes_everything_behind(keep: int, drained: int) -> None:
    """Units from an offset on are gone from memory and files, whichever they were in; the queue goes on from there."""
    disk = MemoryDisk()
    queues = open_queues(disk)
    queue = queues.create("T", 0)
    fill(queues, queue, drained)
    queues.drain_all()
    fill(queues, queue, 25 - drained)
    queues.cut(queue, keep)
    assert queue.max_offset == keep
    assert units_of(queues, queue, 0, 30) == expected(0, keep)
    fill(queues, queue, 3)
    queues.drain_all()
    found = loaded(disk).table["T", 0]
    assert found.max_offset == keep + 3


def test_cut_clears_what_lies_behind_the_end() -> None:
    """Stale units behind a hole are removed too: they must not come back to life when the hole is filled."""
    disk = MemoryDisk()
    disk.write_file(
        ROOT / "T" / "0" / f"{0:020d}", UNIT.pack(0, 50, 0) + bytes(20) + UNIT.pack(200, 52, 0) + bytes(FILE_SIZE - 60)
    )
    queues = loaded(disk)
    queues.cut(queues.table["T", 0], 1)
    assert disk.read_file(ROOT / "T" / "0" / f"{0:020d}") == UNIT.pack(0, 50, 0) + bytes(FILE_SIZE - 20)


@pytest.mark.parametrize("start", [0, 3, 10, 27])
def test_start_at_pads_the_front(start: int) -> None:
    """A queue that begins later has Java's padding {0, 0x7FFFFFFF, 0} from the start of its file."""
    disk = MemoryDisk()
    queues = open_queues(disk)
    queue = queues.create("T", 0)
    fill(queues, queue, 25)
    queues.drain_all()
    queues.start_at(queue, start)
    queues.put(queue, 5000, 60, 1)
    queues.drain_all()
    first = start - start % UNITS_PER_FILE
    assert disk.list_dir(ROOT / "T" / "0") == [f"{first * 20:020d}"]
    found = loaded(disk)
    again = found.table["T", 0]
    assert again.max_offset == start + 1
    assert units_of(found, again, first, 20) == [(0, PADDING_SIZE, 0)] * (start - first) + [(5000, 60, 1)]
    assert found.find_min(again, 0) == start


def test_fill_gap_points_at_the_next_record() -> None:
    """Units for missing messages have the next one's physical offset, so that bisection still works."""
    queues = open_queues(MemoryDisk())
    queue = queues.create("T", 0)
    fill(queues, queue, 2)
    queues.fill_gap(queue, 25, 9999)
    assert queue.max_offset == 25
    assert units_of(queues, queue, 0, 30) == expected(0, 2) + [(9999, PADDING_SIZE, 0)] * 23


@pytest.mark.parametrize(("log_min", "first"), [(0, 0), (1, 1), (100, 1), (1450, 15), (2400, 24), (2401, 25)])
def test_min_offset_follows_the_log(log_min: int, first: int) -> None:
    """The first unit whose record is still there; the end when none is."""
    queues = open_queues(MemoryDisk())
    queue = queues.create("T", 0)
    fill(queues, queue, 20)
    queues.drain_all()
    fill(queues, queue, 5)
    assert queues.find_min(queue, log_min) == first


def test_min_of_an_empty_queue() -> None:
    """It is where the queue begins."""
    queues = open_queues(MemoryDisk())
    assert queues.find_min(queues.create("T", 0), 0) == 0


def test_synced_units_survive_power_loss() -> None:
    """After sync, units and the names of their files and directories are durable."""
    for seed in range(10):
        disk = FaultyDisk(Random(seed))
        queues = open_queues(disk)
        for number in range(3):
            fill(queues, queues.create("T", number), 12)
        queues.drain_all()
        queues.sync()
        disk.sync_dir(Path("/"))
        disk.restart()
        assert [queue.max_offset for queue in loaded(disk).table.values()] == [12, 12, 12]


def test_sync_passes_over_removed_queues() -> None:
    """A topic whose directory somebody deleted needs no sync."""
    disk = MemoryDisk()
    queues = open_queues(disk, open_files_max=1)
    for topic in ("T", "U"):
        fill(queues, queues.create(topic, 0), 2)
    queues.drain_all()
    disk.remove(ROOT / "T" / "0" / f"{0:020d}")
    queues.sync()


def test_missing_queue_file_is_skipped_by_readers(
    open_store: Callable[..., MessageStore], send: Callable[..., AppendResult]
) -> None:
    """A consumer that needs a deleted file is sent on to the next one."""
    disk = MemoryDisk()
    store = open_store(disk, consume_queue_file_units=4, open_files_max=1)
    for _ in range(10):
        send(store)
    store.flush_once()
    store.close()
    store = open_store(disk, consume_queue_file_units=4, open_files_max=1)
    disk.remove(ROOT / "TopicTest" / "0" / f"{80:020d}")
    store.read("TopicTest", 0, 0, 1, 1000, None)
    result = store.read("TopicTest", 0, 5, 10, 1 << 20, None)
    assert (result.status, result.next_offset) == (ReadStatus.OFFSET_FOUND_NULL, 8)
    assert store.queue_unit("TopicTest", 0, 5) is None
    assert store.store_time_of("TopicTest", 0, 5) == -1
    assert store.read("TopicTest", 0, 8, 10, 1 << 20, None).count == 2
