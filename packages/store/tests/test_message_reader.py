"""Reading by queue offset: against a twin that filters a list, and every status by its rule."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from apogeemq.remoting_codec.record import decode_records
from apogeemq.store.consume_queue import UNIT
from apogeemq.store.errors import RecordCorrupt
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_reader import ReadResult
from apogeemq.store.message_store import AppendResult, MessageStore, ReadStatus

OpenStore = Callable[..., MessageStore]
Send = Callable[..., AppendResult]
BIG = 1 << 30


def bodies(result: ReadResult) -> list[bytes]:
    records = decode_records(b"".join(result.buffers))
    assert len(records) == result.count
    assert sum(record.size_bytes for record in records) == result.size_bytes
    return [record.body for record in records]


def read(
    store: MessageStore,
    offset: int = 0,
    max_count: int = 100,
    max_bytes: int = BIG,
    tag_codes: frozenset[int] | None = None,
    *,
    queue_id: int = 0,
    cold_allowed: bool = False,
) -> ReadResult:
    return store.read("TopicTest", queue_id, offset, max_count, max_bytes, tag_codes, cold_allowed=cold_allowed)


def test_unknown_queue(open_store: OpenStore) -> None:
    """No such queue: everything is 0."""
    result = read(open_store(MemoryDisk()), 5)
    assert result == ReadResult(ReadStatus.NO_MATCHED_LOGIC_QUEUE, 0, 0, 0, [])


def test_statuses_outside_the_queue(open_store: OpenStore, send: Send) -> None:
    """At the end: overflow by one, stay; beyond: badly, back to max; before the beginning: too small, on to min."""
    store = open_store(MemoryDisk())
    for _ in range(3):
        send(store)
    assert read(store, 3) == ReadResult(ReadStatus.OFFSET_OVERFLOW_ONE, 3, 0, 3, [])
    assert read(store, 4) == ReadResult(ReadStatus.OFFSET_OVERFLOW_BADLY, 3, 0, 3, [])
    assert read(store, -1) == ReadResult(ReadStatus.OFFSET_TOO_SMALL, 0, 0, 3, [])


def test_queue_without_messages(open_store: OpenStore, send: Send) -> None:
    """A queue that only ever had prepared messages is empty: go to 0."""
    store = open_store(MemoryDisk())
    send(store, sys_flag=4)
    assert read(store, 7) == ReadResult(ReadStatus.NO_MESSAGE_IN_QUEUE, 0, 0, 0, [])


def test_contiguous_records_are_one_view(open_store: OpenStore, send: Send) -> None:
    """What lies together in the log is handed out as one read-only view of it; a gap begins another."""
    store = open_store(MemoryDisk())
    for number in range(3):
        send(store, body=b"%d" % number)
    send(store, queue_id=1)
    send(store, body=b"3")
    result = read(store)
    assert bodies(result) == [b"0", b"1", b"2", b"3"]
    assert [type(buffer) for buffer in result.buffers] == [memoryview, memoryview]
    assert all(buffer.readonly for buffer in result.buffers if isinstance(buffer, memoryview))


def test_records_of_two_files(open_store: OpenStore, send: Send) -> None:
    """A read that crosses files gives the records of both."""
    store = open_store(MemoryDisk())
    for number in range(6):
        send(store, body=b"%d" % number * 3000)
    assert bodies(read(store)) == [b"%d" % number * 3000 for number in range(6)]


@pytest.mark.parametrize(("max_bytes", "count"), [(0, 1), (1, 1), (207, 1), (208, 2), (311, 2), (312, 3)])
def test_size_limit(open_store: OpenStore, send: Send, max_bytes: int, count: int) -> None:
    """Records of 104 bytes up to the limit; the first one whatever its size."""
    store = open_store(MemoryDisk())
    for _ in range(5):
        assert send(store).size_bytes == 104
    result = read(store, 0, 100, max_bytes)
    assert (result.count, result.next_offset, result.size_bytes) == (count, count, 104 * count)


def test_count_limit(open_store: OpenStore, send: Send) -> None:
    """No more messages than asked for."""
    store = open_store(MemoryDisk())
    for _ in range(5):
        send(store)
    assert (read(store, 1, 3).count, read(store, 1, 3).next_offset) == (3, 4)


def test_filter_by_tag(open_store: OpenStore, send: Send) -> None:
    """Only wanted tags come back; the next offset is behind everything looked at."""
    store = open_store(MemoryDisk())
    for number in range(10):
        send(store, body=b"%d" % number, tags_code=number % 3)
    result = read(store, 0, 2, tag_codes=frozenset({1}))
    assert (bodies(result), result.next_offset) == ([b"1", b"4"], 5)
    result = read(store, 5, 5, tag_codes=frozenset({1, 2}))
    assert (bodies(result), result.next_offset) == ([b"5", b"7", b"8"], 10)
    nothing = read(store, 2, 5, tag_codes=frozenset({9}))
    assert nothing == ReadResult(ReadStatus.NO_MATCHED_MESSAGE, 10, 0, 10, [])


def test_filter_looks_at_so_many_units(open_store: OpenStore, send: Send) -> None:
    """max(800, max_count) units at a time, then the consumer has to come again."""
    store = open_store(MemoryDisk(), consume_queue_file_units=1000)
    for _ in range(2000):
        send(store, body=b"")
    wanted = frozenset({9})
    assert read(store, 0, 32, tag_codes=wanted).next_offset == 800
    assert read(store, 0, 1000, tag_codes=wanted).next_offset == 1000
    assert read(store, 1900, 32, tag_codes=wanted).next_offset == 2000


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_reads_equal_a_filtered_list(open_store: OpenStore, send: Send, seed: int, cold: bool) -> None:
    """Any offset, limits and tags, from memory or disk: what a plain loop over a list gives."""
    chance = Random(seed)
    disk = MemoryDisk()
    store = open_store(disk, hot_read_window_bytes=3000)
    twin: list[tuple[bytes, int, int]] = []
    for number in range(120):
        queue_id, tag = chance.randrange(2), chance.randrange(3)
        body = b"%d" % number + b"z" * chance.choice([0, 10, 700])
        appended = send(store, queue_id=queue_id, body=body, tags_code=tag)
        if queue_id == 0:
            twin.append((body, tag, appended.size_bytes))
        if chance.random() < 0.1:
            store._queues.drain_all()
    disk.cached = not cold
    for _ in range(200):
        start, max_count = chance.randrange(len(twin)), chance.randint(1, 40)
        max_bytes = chance.randint(0, 5000)
        tags = chance.choice([None, frozenset({0}), frozenset({1, 2})])
        expected: list[bytes] = []
        size_bytes, at = 0, start
        while at < len(twin) and (tags is not None or at - start < max_count):
            body, tag, record_size_bytes = twin[at]
            if expected and (len(expected) == max_count or size_bytes + record_size_bytes > max_bytes):
                break
            if tags is None or tag in tags:
                expected.append(body)
                size_bytes += record_size_bytes
            at += 1
        result = read(store, start, max_count, max_bytes, tags)
        if result.status is ReadStatus.COLD:
            assert cold
            assert result == ReadResult(ReadStatus.COLD, start, 0, len(twin), [])
            result = read(store, start, max_count, max_bytes, tags, cold_allowed=True)
        assert bodies(result) == expected
        assert result.next_offset == at
        assert result.status is (ReadStatus.FOUND if expected else ReadStatus.NO_MATCHED_MESSAGE)


def test_cold_units_and_cold_records(open_store: OpenStore, send: Send) -> None:
    """Either being on the disk only makes the read COLD; recent messages never are."""
    disk = MemoryDisk()
    store = open_store(disk)
    send(store, body=b"old")
    store.close()
    disk.cached = False
    store = open_store(disk)
    assert read(store).status is ReadStatus.COLD
    assert bodies(read(store, cold_allowed=True)) == [b"old"]
    send(store, body=b"new")
    assert bodies(read(store, 1)) == [b"new"]
    store._queues.drain_all()
    assert read(store, 1).status is ReadStatus.COLD
    disk.cached = True
    assert bodies(read(store)) == [b"old", b"new"]


def test_nothing_is_seen_beyond_the_confirm_offset(open_store: OpenStore, send: Send) -> None:
    """Reads, max offset, units, times and records all stop there."""
    store = open_store(MemoryDisk())
    results = [send(store) for _ in range(20)]
    assert store.confirm_offset == store.written_offset
    store._queues.drain_all()
    results += [send(store) for _ in range(5)]
    for confirmed in (0, 1, 7, 20, 22, 25):
        store.confirm_offset = results[confirmed - 1].physical_offset + 104 if confirmed else 0
        assert store.max_offset("TopicTest", 0) == confirmed
        assert read(store).count == confirmed
        assert store.offset_by_time("TopicTest", 0, BIG << 20, "lower") == confirmed
        assert (store.queue_unit("TopicTest", 0, confirmed) is None) is True
        if confirmed < 25:
            assert store.record_at(results[confirmed].physical_offset) is None
            assert store.store_time_of("TopicTest", 0, confirmed) == -1
    store.confirm_offset = BIG
    assert store.confirm_offset == store.written_offset


@pytest.mark.parametrize("drained", [0, 100, 300])
def test_confirm_offset_far_behind(open_store: OpenStore, send: Send, drained: int) -> None:
    """However many messages wait to be confirmed, in memory or in the queue's files: exactly those are not seen."""
    store = open_store(MemoryDisk())
    ends = [0]
    for number in range(300):
        result = send(store, body=b"")
        ends.append(result.physical_offset + result.size_bytes)
        send(store, queue_id=1)
        if number + 1 == drained:
            store._queues.drain_all()
    for confirmed in (1, 2, 99, 100, 101, 235, 236, 237, 299, 300):
        store.confirm_offset = ends[confirmed] - 1
        assert store.max_offset("TopicTest", 0) == confirmed - 1
        store.confirm_offset = ends[confirmed]
        assert store.max_offset("TopicTest", 0) == confirmed


def test_confirm_offset_never_goes_back(open_store: OpenStore, send: Send) -> None:
    """A late, lower value is passed over; without a limit all was seen, so a new one begins at what is written."""
    store = open_store(MemoryDisk())
    send(store)
    store.confirm_offset = 50
    store.confirm_offset = 20
    assert store.confirm_offset == 50
    store.confirm_offset = None
    assert store.confirm_offset == store.written_offset == 104
    send(store)
    store.confirm_offset = 60
    assert store.confirm_offset == 208
    send(store)
    assert store.confirm_offset == 208


def test_units_without_message_are_confirmed_with_the_next_one(open_store: OpenStore, send: Send) -> None:
    """Padding in a queue has the size 0x7FFFFFFF: it must not hide the messages behind it."""
    store = open_store(MemoryDisk())
    send(store)
    queue = store._table["TopicTest", 0]
    store._queues.fill_gap(queue, 3, 104)
    for _ in range(2):
        send(store)
    send(store, queue_id=1)
    store.confirm_offset = 104
    assert store.max_offset("TopicTest", 0) == 1
    store.confirm_offset = 105
    assert store.max_offset("TopicTest", 0) == 3
    store.confirm_offset = 312
    assert store.max_offset("TopicTest", 0) == 5


def test_search_by_time(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """lower: first at or after; upper: last at or before; outside: the ends."""
    store = open_store(MemoryDisk())
    start = clock[0]
    times = [0, 0, 10, 10, 10, 20, 30]
    for time in times:
        clock[0] = start + time
        send(store)
    expected_lower = {-5: 0, 0: 0, 1: 2, 10: 2, 11: 5, 20: 5, 25: 6, 30: 6, 31: 7}
    expected_upper = {-5: 0, 0: 1, 1: 1, 10: 4, 11: 4, 20: 5, 25: 5, 30: 6, 31: 6}
    for time, offset in expected_lower.items():
        assert store.offset_by_time("TopicTest", 0, start + time, "lower") == offset
    for time, offset in expected_upper.items():
        assert store.offset_by_time("TopicTest", 0, start + time, "upper") == offset
    assert [store.store_time_of("TopicTest", 0, number) - start for number in range(7)] == times
    assert store.offset_by_time("None", 0, start, "lower") == 0


def test_records_that_were_removed_are_passed_over(open_store: OpenStore, send: Send) -> None:
    """When old log files are gone, the queue begins later; units that still point there do not fail a read."""
    disk = MemoryDisk()
    store = open_store(disk)
    for number in range(10):
        send(store, body=b"%d" % number * 3000)
    store.close()
    for start in (0, 8192):
        disk.remove(Path(f"/store/commitlog/{start:020d}"))
    store = open_store(disk)
    assert store.min_physical_offset == 16384
    assert store.min_offset("TopicTest", 0) == 4
    assert read(store, 3).status is ReadStatus.OFFSET_TOO_SMALL
    assert read(store, 4).count == 6
    store._table["TopicTest", 0].min_offset = 0  # as a reader sees it that asked just before the removal
    assert read(store, 0, 3).status is ReadStatus.MESSAGE_WAS_REMOVING
    assert read(store, 0, 3).next_offset == 3


@pytest.mark.parametrize("unit", [UNIT.pack(0, -5, 0), UNIT.pack(0, 1 << 25, 0), UNIT.pack(1 << 40, 100, 0)])
def test_impossible_unit_is_reported(open_store: OpenStore, send: Send, unit: bytes) -> None:
    """A unit that no record can belong to is no reason to hand out other bytes."""
    store = open_store(MemoryDisk())
    send(store)
    store._table["TopicTest", 0].tail[:] = unit
    with pytest.raises(RecordCorrupt, match="TopicTest 0"):
        read(store)


def test_record_at_finds_only_records(open_store: OpenStore, send: Send) -> None:
    """The whole record at its start; None anywhere else, also inside a body that looks like a record."""
    store = open_store(MemoryDisk())
    first = send(store, body=b"inner")
    copy = store.record_at(first.physical_offset)
    assert copy is not None
    second = send(store, body=copy)
    for offset in range(-1, store.written_offset + 200):
        data = store.record_at(offset)
        if offset in (first.physical_offset, second.physical_offset):
            assert data is not None
            assert len(data) == (first if offset == 0 else second).size_bytes
        else:
            assert data is None
