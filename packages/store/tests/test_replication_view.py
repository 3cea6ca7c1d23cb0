"""The log as bytes: chunks out of one store and into another, cuts, and every way in which they are refused."""

import errno
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import pytest
from apogeemq.remoting_codec.message import tags_code
from apogeemq.remoting_codec.record import MAGIC_BLANK, SIZE_AND_MAGIC, decode_record, encode_record
from apogeemq.store.errors import (
    BelowConfirmOffset,
    ChunkMisplaced,
    DiskFull,
    LogDiverged,
    LogTruncated,
    NotWritable,
    OffsetOutOfRange,
    RecordCorrupt,
    StoreClosed,
    StoreError,
)
from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import AppendResult, MessageStore
from apogeemq.store.replication_view import CHUNK_SIZE_BYTES_MAX, ChunkStatus
from apogeemq.store.retention import RetentionConfig

OpenStore = Callable[..., MessageStore]
Send = Callable[..., AppendResult]

FILE_SIZE = 8192
SIZE = 104
"""Of a record with body "body", topic TopicTest, no properties."""
BIG = 1 << 20


def log_of(store: MessageStore) -> bytes:
    """Everything there is, by chunks."""
    data, at = b"", store.min_physical_offset
    while (chunk := store.replication.read_chunk(at, BIG, wait=True)).status is ChunkStatus.FOUND:
        data += chunk.data
        at += len(chunk.data)
    assert chunk.status is ChunkStatus.NOTHING_YET
    return data


def bodies(store: MessageStore, topic: str = "TopicTest", queue_id: int = 0) -> list[bytes]:
    start = store.min_offset(topic, queue_id)
    buffers = store.read(topic, queue_id, start, 1000, 1 << 30, None, cold_allowed=True).buffers
    records, data = [], b"".join(buffers)
    while data:
        record = decode_record(data)
        records.append(record.body)
        data = data[record.size_bytes :]
    return records


@pytest.fixture
def master_disk() -> MemoryDisk:
    """What the master lies on."""
    return MemoryDisk()


@pytest.fixture
def master(open_store: OpenStore, send: Send, master_disk: MemoryDisk) -> MessageStore:
    """Thirty messages over five files."""
    store = open_store(master_disk)
    for number in range(30):
        send(store, queue_id=number % 2, body=b"%02d" % number * 500, properties=b"TAGS\x01TagA\x02")
    assert store.written_offset > 4 * FILE_SIZE
    return store


# -- reading -----------------------------------------------------------------------------------------------------------


def test_chunks_end_with_their_file(master: MessageStore, master_disk: MemoryDisk) -> None:
    """From any offset up to the bound, the file's end, or the written offset; all of them make up the log."""
    view = master.replication
    assert len(view.read_chunk(17, 100, wait=True).data) == 100
    assert len(view.read_chunk(17, BIG, wait=True).data) == FILE_SIZE - 17
    end = master.written_offset
    assert len(view.read_chunk(end - 5, BIG, wait=True).data) == 5
    files = b"".join(data for _, data in sorted(log_files(master_disk).items()))
    assert log_of(master) == files[:end]


def log_files(disk: MemoryDisk) -> dict[Path, bytes]:
    """The files of the log as they lie there."""
    return {path: bytes(inode.data) for path, inode in disk.files.items() if "commitlog" in path.parts}


def test_answers_without_bytes(master: MessageStore, open_store: OpenStore) -> None:
    """Nothing yet, beyond the end, expired: each with the log's bounds."""
    end = master.written_offset
    for offset, status in ((end, ChunkStatus.NOTHING_YET), (end + 1, ChunkStatus.BEYOND_END)):
        chunk = master.replication.read_chunk(offset, 100, wait=True)
        assert (chunk.status, chunk.data, chunk.min_offset, chunk.written_offset) == (status, b"", 0, end)
    late = open_store(MemoryDisk()).replication
    late.begin_at(2 * FILE_SIZE)
    chunk = late.read_chunk(FILE_SIZE, 100, wait=True)
    assert (chunk.status, chunk.min_offset) == (ChunkStatus.EXPIRED, 2 * FILE_SIZE)
    with pytest.raises(ValueError, match="0 bytes"):
        late.read_chunk(0, 0, wait=True)


def test_hot_chunks_are_views_and_cold_ones_copies(open_store: OpenStore, send: Send) -> None:
    """A copy that is not in memory is COLD unless the caller waits."""
    disk = MemoryDisk()
    store = open_store(disk, hot_read_window_bytes=1000)
    for _ in range(30):
        send(store, body=b"x" * 900)
    hot = store.replication.read_chunk(store.written_offset - 100, 100, wait=False)
    assert isinstance(hot.data, memoryview)
    assert hot.data.readonly
    disk.cached = False
    assert store.replication.read_chunk(0, 100, wait=False).status is ChunkStatus.COLD
    cold = store.replication.read_chunk(0, 100, wait=True)
    assert isinstance(cold.data, bytes)
    assert cold.status is ChunkStatus.FOUND


def test_replicas_get_what_is_not_confirmed(master: MessageStore) -> None:
    """It could never be confirmed otherwise."""
    master.confirm_offset = 100
    assert len(log_of(master)) == master.written_offset
    offsets = master.replication.offsets()
    assert (offsets.min_offset, offsets.confirm_offset, offsets.flushed_offset) == (0, 100, 0)
    assert offsets.written_offset == offsets.received_offset == master.written_offset
    master.flush()
    assert master.replication.offsets().flushed_offset == master.written_offset


def test_crc_of_a_range(master: MessageStore) -> None:
    """Over the end of a file too; bounded; only of what is there."""
    log, view = log_of(master), master.replication
    assert view.crc_of(100, 3 * FILE_SIZE + 5) == zlib.crc32(log[100 : 3 * FILE_SIZE + 5])
    assert view.crc_of(7, 7) == 0
    with pytest.raises(OffsetOutOfRange):
        view.crc_of(0, len(log) + 1)
    for start, end in ((1, 0), (0, BIG + 1)):
        with pytest.raises(ValueError, match="bytes was asked for"):
            view.crc_of(start, end)


# -- taking over -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [1, 7, 91, 1000, FILE_SIZE, 3 * FILE_SIZE, BIG])
def test_copies_are_equal(
    master: MessageStore, master_disk: MemoryDisk, open_store: OpenStore, size_bytes: int
) -> None:
    """However the log is cut, also across files: the same bytes, queues and tags codes; and after opening again."""
    log, disk = log_of(master), MemoryDisk()
    replica = open_store(disk)
    for at in range(0, len(log), size_bytes):
        replica.replication.append_chunk(at, memoryview(log)[at : at + size_bytes])
    assert replica.replication.offsets().received_offset == replica.written_offset == len(log)
    for queue_id in (0, 1):
        assert bodies(replica, queue_id=queue_id) == bodies(master, queue_id=queue_id)
        assert replica.queue_unit("TopicTest", queue_id, 7) == (
            *master.queue_unit("TopicTest", queue_id, 7)[:2],  # type: ignore[index]  # there is one
            tags_code("TagA"),
        )
    replica.close()
    again = open_store(disk)
    assert log_of(again) == log
    assert log_files(disk) == log_files(master_disk)


def test_prepared_messages_have_no_unit(open_store: OpenStore, send: Send) -> None:
    """As when they are appended: bits 4 and 12 of the system flag."""
    master, replica = open_store(MemoryDisk()), open_store(MemoryDisk())
    for sys_flag in (0, 4, 8, 12, 0):
        send(master, sys_flag=sys_flag)
    replica.replication.append_chunk(0, log_of(master))
    assert replica.max_offset("TopicTest", 0) == master.max_offset("TopicTest", 0) == 3


def test_half_a_record_is_not_seen(open_store: OpenStore, send: Send) -> None:
    """It counts as received, not as written; an ordinary append drops it."""
    master, replica = open_store(MemoryDisk()), open_store(MemoryDisk())
    send(master)
    send(master)
    log = log_of(master)
    view = replica.replication
    view.append_chunk(0, log[: SIZE + 50])
    assert (view.offsets().written_offset, view.offsets().received_offset) == (SIZE, SIZE + 50)
    assert len(bodies(replica)) == 1
    view.append_chunk(SIZE + 50, b"")
    assert send(replica, body=b"mine").physical_offset == SIZE
    assert view.offsets().received_offset == 2 * SIZE
    assert bodies(replica) == [b"body", b"mine"]


def test_promotion_and_demotion(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """Chunks, then appends, a cut, then chunks again; store timestamps follow the log that there is."""
    master, replica = open_store(MemoryDisk()), open_store(MemoryDisk())
    clock[0] += 5000
    send(master)
    clock[0] -= 5000
    replica.replication.append_chunk(0, log_of(master))
    assert send(replica).store_timestamp_ms == clock[0] + 5000
    clock[0] += 20_000
    send(replica, body=b"mine")
    replica.confirm_offset = SIZE
    replica.replication.truncate(SIZE)
    clock[0] -= 20_000
    assert bodies(replica) == [b"body"]
    for _ in range(3):
        send(master, body=b"its")
    replica.replication.append_chunk(SIZE, log_of(master)[SIZE:])
    replica.confirm_offset = BIG
    assert bodies(replica) == bodies(master) == [b"body", b"its", b"its", b"its"]
    assert send(replica).store_timestamp_ms == clock[0] + 5000


def test_chunk_has_to_begin_where_the_log_ends(master: MessageStore, open_store: OpenStore) -> None:
    """The error names both offsets."""
    view = open_store(MemoryDisk()).replication
    view.append_chunk(0, log_of(master)[:150])
    for offset in (0, 149, 151):
        with pytest.raises(ChunkMisplaced) as caught:
            view.append_chunk(offset, b"x")
        assert (caught.value.offset, caught.value.received_offset) == (offset, 150)


@pytest.mark.parametrize(
    ("position", "data", "reason"),
    [
        (90, b"\xff", "CRC"),
        (0, b"\x7f", "its size"),
        (4, b"\0", "magic"),
        (35, b"\1", "it says that it lies at"),
        (0, SIZE_AND_MAGIC.pack(FILE_SIZE - SIZE - 1, MAGIC_BLANK), "does not end with the file"),
    ],
)
def test_bad_record_refuses_its_chunk(
    open_store: OpenStore, send: Send, position: int, data: bytes, reason: str
) -> None:
    """Also the good ones before it; the chunk may come again, whole."""
    master, replica = open_store(MemoryDisk()), open_store(MemoryDisk())
    for _ in range(3):
        send(master)
    good, at = log_of(master), SIZE + position
    with pytest.raises(RecordCorrupt, match=reason) as caught:
        replica.replication.append_chunk(0, good[:at] + data + good[at + len(data) :])
    assert caught.value.physical_offset == SIZE
    assert replica.written_offset == replica.max_offset("TopicTest", 0) == 0
    replica.replication.append_chunk(0, good)
    assert len(bodies(replica)) == 3


def test_filler_larger_than_any_record_is_refused(open_store: OpenStore) -> None:
    """It would have to wait in memory for its end; a whole one takes no more than its chunk."""
    view = open_store(MemoryDisk(), commit_log_file_size_bytes=1 << 18).replication
    with pytest.raises(RecordCorrupt, match="filler of 262144 bytes stands where any record had room"):
        view.append_chunk(0, SIZE_AND_MAGIC.pack(1 << 18, MAGIC_BLANK) + bytes(100))
    view.append_chunk(0, SIZE_AND_MAGIC.pack(1 << 18, MAGIC_BLANK) + bytes((1 << 18) - 8))
    assert view.offsets().written_offset == 1 << 18


def test_topic_that_cannot_be_is_refused(open_store: OpenStore, send: Send) -> None:
    """A record's topic becomes a directory."""
    master, replica = open_store(MemoryDisk()), open_store(MemoryDisk())
    send(master, topic="a.b")
    for topic in (b"a/b", b"\xffab", b"a\0b"):
        with pytest.raises(RecordCorrupt, match="no valid topic"):
            replica.replication.append_chunk(0, log_of(master).replace(b"a.b", topic))


def test_queue_offset_that_does_not_follow_is_another_log(open_store: OpenStore, send: Send) -> None:
    """Nothing of the chunk is stored."""
    master, replica = open_store(MemoryDisk()), open_store(MemoryDisk())
    send(master)
    send(master)
    log = log_of(master)
    second = decode_record(log[SIZE:])
    moved = encode_record(msgspec.structs.replace(second, queue_offset=0))
    with pytest.raises(LogDiverged, match="number 0 of TopicTest 0") as caught:
        replica.replication.append_chunk(0, log[:SIZE] + moved)
    assert caught.value.physical_offset == SIZE
    first = decode_record(log)
    with pytest.raises(LogDiverged, match="number 0 of TopicTest 0"):
        replica.replication.append_chunk(0, encode_record(first) + moved)
    assert replica.written_offset == 0


def test_replica_may_begin_with_a_later_file(master: MessageStore, open_store: OpenStore) -> None:
    """Its queues begin where the log's first records say; it opens again so, and goes on."""
    log, disk, start = log_of(master), MemoryDisk(), 2 * FILE_SIZE
    replica = open_store(disk)
    with pytest.raises(ValueError, match="no file of 8192 bytes begins at 100"):
        replica.replication.begin_at(100)
    replica.replication.begin_at(start)
    replica.replication.append_chunk(start, log[start : start + 2000])
    with pytest.raises(ValueError, match="not empty"):
        replica.replication.begin_at(start)
    at = replica.replication.offsets().received_offset
    replica.replication.append_chunk(at, log[at:])
    first = replica.min_offset("TopicTest", 0)
    assert bodies(replica) == bodies(master)[first:] != []
    assert replica.max_offset("TopicTest", 0) == master.max_offset("TopicTest", 0)
    replica.close()
    again = open_store(disk)
    assert (again.min_physical_offset, again.min_offset("TopicTest", 0)) == (start, first)
    assert bodies(again) == bodies(master)[first:]


def test_full_disk_refuses_and_recovers(master: MessageStore, open_store: OpenStore) -> None:
    """DiskFull, as an append; what was stored before counts, and the same bytes are taken later."""
    log, disk = log_of(master), MemoryDisk()
    replica = open_store(disk, reserve_ahead_bytes=4096)
    disk.capacity_bytes = disk.used_bytes() + FILE_SIZE + 100
    with pytest.raises(DiskFull):
        replica.replication.append_chunk(0, log)
    at = replica.replication.offsets().received_offset
    assert at == replica.written_offset
    disk.capacity_bytes = None
    replica.replication.append_chunk(at, log[at:])
    assert bodies(replica) == bodies(master)


def test_broken_disk_and_closed_store_refuse(master: MessageStore, open_store: OpenStore) -> None:
    """As an append."""
    log, disk = log_of(master), FaultyDisk(Random(1))
    replica = open_store(disk)
    disk.fail("reserve", errno.EIO)
    for _ in range(2):
        with pytest.raises(NotWritable):
            replica.replication.append_chunk(0, log[:2000])
    closed = open_store(MemoryDisk())
    closed.close()
    with pytest.raises(StoreClosed):
        closed.replication.append_chunk(0, log)
    with pytest.raises(StoreClosed):
        closed.replication.truncate(0)


def test_large_record_in_small_chunks(open_store: OpenStore, send: Send) -> None:
    """Waits until it is whole, checked once."""
    settings = {"commit_log_file_size_bytes": 1 << 20, "message_size_bytes_max": 1 << 19}
    master, replica = open_store(MemoryDisk(), **settings), open_store(MemoryDisk(), **settings)
    send(master, body=b"x" * (1 << 19))
    log = log_of(master)
    for at in range(0, len(log), 1000):
        assert replica.written_offset == 0
        replica.replication.append_chunk(at, log[at : at + 1000])
    assert log_of(replica) == log


# -- cutting -----------------------------------------------------------------------------------------------------------


def record_starts(log: bytes) -> list[int]:
    """Where records begin, by their own words."""
    starts, at = [], 0
    while at < len(log):
        size_bytes, magic = SIZE_AND_MAGIC.unpack_from(log, at)
        if magic != MAGIC_BLANK:
            starts.append(at)
        at += size_bytes
    return starts


def test_cut_anywhere(open_store: OpenStore, send: Send) -> None:
    """At each record, each file and each filler: what was before is left, in log and queues, now and after opening."""
    model = open_store(MemoryDisk())
    for number in range(30):
        send(model, queue_id=number % 2, body=b"%02d" % number * 500)
    log = log_of(model)
    starts = record_starts(log)
    fillers = [start - start % FILE_SIZE for start in starts[1:] if start % FILE_SIZE == 0]
    ends = [start + int.from_bytes(log[start : start + 4], "big") for start in starts]
    for cut in [*starts, *fillers, *ends]:
        disk = MemoryDisk()
        store = open_store(disk)
        store.replication.append_chunk(0, log)
        store.flush()
        store.confirm_offset = 0
        store.replication.truncate(cut)
        kept = [start for start in starts if start < cut]
        assert store.written_offset == cut
        assert store.flushed_offset <= cut
        store.confirm_offset = None
        assert sum(len(bodies(store, queue_id=queue_id)) for queue_id in (0, 1)) == len(kept)
        send(store, body=b"new")
        store.close()
        again = open_store(disk)
        assert again.recovery.clean
        assert sum(len(bodies(again, queue_id=queue_id)) for queue_id in (0, 1)) == len(kept) + 1
        assert log_of(again)[:cut] == log[:cut]
        again.close()


def test_cut_refuses(master: MessageStore) -> None:
    """Below the confirm offset (all of it without a limit), outside the log, inside a record: nothing changes."""
    view, end = master.replication, master.written_offset
    with pytest.raises(BelowConfirmOffset) as caught:
        view.truncate(0)
    assert (caught.value.offset, caught.value.confirm_offset) == (0, end)
    master.confirm_offset = 2 * FILE_SIZE
    with pytest.raises(BelowConfirmOffset):
        view.truncate(FILE_SIZE)
    with pytest.raises(OffsetOutOfRange):
        view.truncate(end + 1)
    for offset in (end - 1, 2 * FILE_SIZE + 1, 3 * FILE_SIZE - 1):
        with pytest.raises(RecordCorrupt, match="no record begins where the log was to be cut"):
            view.truncate(offset)
    assert master.written_offset == end
    assert master.is_writable
    view.truncate(end)
    assert master.written_offset == end


def test_who_waits_for_what_is_cut_is_told(open_store: OpenStore, send: Send) -> None:
    """Others go on waiting for their flush."""
    store = open_store(MemoryDisk())
    send(store)
    send(store)
    answers: list[tuple[str, Exception | None]] = []
    store.notify_flushed(SIZE, lambda error: answers.append(("kept", error)))
    store.notify_flushed(2 * SIZE, lambda error: answers.append(("cut", error)))
    store.confirm_offset = 0
    store.replication.truncate(SIZE)
    ((who, error),) = answers
    assert who == "cut"
    assert isinstance(error, LogTruncated)
    assert error.offset == SIZE
    store.flush()
    assert answers[1:] == [("kept", None)]


def test_held_views_stay_memory(open_store: OpenStore, send: Send, tmp_path: Path) -> None:
    """On the real disk: no signal kills a reader of a file that was cut or removed, and the log goes on there."""
    store = open_store()
    for number in range(20):
        send(store, body=b"%02d" % number * 500)
    in_file = store.replication.read_chunk(FILE_SIZE, BIG, wait=True).data
    removed = store.replication.read_chunk(2 * FILE_SIZE, BIG, wait=True).data
    assert isinstance(in_file, memoryview)
    assert isinstance(removed, memoryview)
    before = bytes(removed)
    cut = record_starts(log_of(store))[8]
    assert FILE_SIZE < cut < 2 * FILE_SIZE
    kept = bytes(in_file[: cut - FILE_SIZE])
    store.confirm_offset = 0
    store.replication.truncate(cut)
    assert bytes(in_file) == kept + bytes(len(in_file) - len(kept))
    assert bytes(removed) == before
    assert len(list((tmp_path / "store" / "commitlog").iterdir())) == 2
    store.confirm_offset = None
    for number in range(12):
        send(store, body=b"%02d" % number * 500)
    found = bodies(store)
    store.close()
    assert bodies(open_store()) == found
    assert len(found) == 20


@pytest.mark.parametrize("power_is_lost", [False, True])
def test_crash_in_the_middle_of_a_cut(open_store: OpenStore, send: Send, *, power_is_lost: bool) -> None:
    """After each change that a cut makes on the disk: the old log or the cut one, queues to match, zeros behind."""
    reached_end = False
    for changes in range(40):
        disk = FaultyDisk(Random(changes))
        store = open_store(disk)
        for number in range(30):
            send(store, queue_id=number % 2, body=b"%02d" % number * 500)
        store.flush()
        store._parts.queue_flush.run_all()
        store.confirm_offset = 0
        end, cut = store.written_offset, record_starts(log_of(store))[10]
        disk.lose_power_after(changes)
        try:
            store.replication.truncate(cut)
        except PowerLoss:
            pass
        else:
            reached_end = True
        store._log.refuse(NotWritable("its process is dead"))
        disk.restart() if power_is_lost else disk.kill_process()
        again = open_store(disk)
        assert again.written_offset in ((cut,) if reached_end else (cut, end))
        messages = 10 if again.written_offset == cut else 30
        assert [len(bodies(again, queue_id=queue_id)) for queue_id in (0, 1)] == [messages // 2, messages // 2]
        again.close()
        if reached_end:
            return
    pytest.fail("the cut takes more changes than were tried")


def test_failed_cut_makes_the_store_refuse(open_store: OpenStore, send: Send) -> None:
    """Whatever part of it the disk refuses; opening again finds the old log or the cut one."""
    for operation, part in (
        ("sync", "checkpoint"),
        ("write", "commitlog"),
        ("sync", "commitlog"),
        ("remove", "commitlog"),
        ("write", "consumequeue"),
    ):
        disk = FaultyDisk(Random(1))
        store = open_store(disk)
        for _ in range(20):
            send(store, body=b"x" * 1000)
        store._parts.queue_flush.run_all()
        store.confirm_offset = 0
        end, cut = store.written_offset, record_starts(log_of(store))[3]
        disk.fail(operation, errno.EIO, path_part=part)
        with pytest.raises(NotWritable):
            store.replication.truncate(cut)
        with pytest.raises(NotWritable):
            send(store)
        with pytest.raises(NotWritable):
            store.replication.truncate(cut)
        disk.kill_process()
        again = open_store(disk)
        assert again.written_offset in (cut, end)
        assert len(bodies(again)) == (3 if again.written_offset == cut else 20)


def test_chunk_size_is_bounded(open_store: OpenStore, send: Send) -> None:
    """Whatever is asked for."""
    size_bytes = 4 * CHUNK_SIZE_BYTES_MAX
    store = open_store(
        MemoryDisk(), commit_log_file_size_bytes=size_bytes, message_size_bytes_max=size_bytes, reserve_ahead_bytes=4096
    )
    for _ in range(2):
        send(store, body=b"x" * CHUNK_SIZE_BYTES_MAX)
    assert len(store.replication.read_chunk(0, size_bytes, wait=True).data) == CHUNK_SIZE_BYTES_MAX


def test_cut_and_deletion_are_never_at_once(open_store: OpenStore, send: Send) -> None:
    """A cut waits for a deletion under way, with a deadline; a deletion lets a cut pass; after a cut it looks anew."""
    store = open_store(close_timeout_ms=50, retention=RetentionConfig(log_size_bytes_max=FILE_SIZE))
    store.begin_expiry()
    end = [send(store).physical_offset for _ in range(40)][20]
    store.confirm_offset = 0
    alone = store._parts.expiry._alone
    with alone:
        with pytest.raises(StoreError, match="was not cut: deleting old files took longer"):
            store.replication.truncate(end)
        store.delete_expired_files()
        store._parts.expiry.run_once()
        assert store.min_physical_offset == 0
    store.replication.truncate(end)
    assert store.written_offset == end


def test_cut_without_index_leaves_no_stale_one(open_store: OpenStore, send: Send) -> None:
    """Switched off, cut, grown again and switched on: keys of the new records are found, those of the cut ones not."""

    def keyed(number: int) -> bytes:
        return f"KEYS\x01k{number}\x02".encode()

    settings = {"index_slots": 16, "index_entries_max": 64}
    store = open_store(index_enabled=True, **settings)
    offsets = [send(store, "T", properties=keyed(number)).physical_offset for number in range(8)]
    store.close()
    store = open_store(index_enabled=False)
    store.confirm_offset = 0
    store.replication.truncate(offsets[4])
    for number in range(10, 18):
        send(store, "T", properties=keyed(number))
    store.close()
    store = open_store(index_enabled=True, **settings)
    found = {number for number in range(20) if store.query_keys("T", f"k{number}", 9, 0, 1 << 62).records}
    assert found == {0, 1, 2, 3, *range(10, 18)}
