"""What opening makes of any directory: where it starts to read, what it cuts, what it refuses, what it rebuilds."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from apogeemq.remoting_codec.message import tags_code
from apogeemq.remoting_codec.record import Record, decode_records, encode_record
from apogeemq.store.checkpoint import Checkpoint, CheckpointFile
from apogeemq.store.consume_queue import UNIT
from apogeemq.store.delivery_times import tags_code_rule
from apogeemq.store.errors import LayoutInvalid, RecordCorrupt
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import AppendResult, MessageStore
from apogeemq.store.recovery import tag_hash

OpenStore = Callable[..., MessageStore]
Send = Callable[..., AppendResult]

ABORT = Path("/store/abort")
CHECKPOINT = Path("/store/checkpoint")
LOG = Path("/store/commitlog/00000000000000000000")
QUEUE = Path("/store/consumequeue/TopicTest/0/00000000000000000000")
SIZE = 104
"""Of a record with body "body", topic TopicTest, no properties."""


@pytest.fixture
def disk() -> MemoryDisk:
    """An empty disk; everything on it is durable at once."""
    return MemoryDisk()


def bodies(store: MessageStore, topic: str = "TopicTest", queue_id: int = 0) -> list[bytes]:
    start = store.min_offset(topic, queue_id)
    result = store.read(topic, queue_id, start, 1000, 1 << 30, None, cold_allowed=True)
    return [record.body for record in decode_records(b"".join(result.buffers))]


def set_checkpoint(disk: MemoryDisk, **values: int) -> None:
    file = CheckpointFile(disk, CHECKPOINT)
    checkpoint = file.load()
    for name, value in values.items():
        setattr(checkpoint, name, value)
    file.save(checkpoint)


def crash(disk: MemoryDisk, *, flushed_offset: int = 0) -> None:
    """Make a store that was closed look like one that was not, with so much of its log known to be synced."""
    disk.write_file(ABORT, b"1")
    set_checkpoint(disk, master_flushed_offset=flushed_offset)


def log_of(disk: MemoryDisk) -> bytearray:
    return disk.files[LOG].data


# -- clean stops -----------------------------------------------------------------------------------------------------


def test_new_directory(open_store: OpenStore, disk: MemoryDisk) -> None:
    """Nothing there: clean, nothing scanned, writing begins at 0."""
    store = open_store(disk)
    assert store.recovery.clean
    assert store.recovery.scanned_bytes == store.written_offset == store.min_physical_offset == 0
    assert disk.size_of(ABORT) is not None


def test_clean_stop_scans_nothing(open_store: OpenStore, send: Send, disk: MemoryDisk) -> None:
    """After close, opening reads no record, and everything is there."""
    store = open_store(disk)
    for _ in range(30):
        send(store, body=b"x" * 1000)
    end = store.written_offset
    store.close()
    assert disk.size_of(ABORT) is None
    again = open_store(disk)
    assert again.recovery.clean
    assert (again.recovery.scanned_bytes, again.recovery.queue_units_rebuilt) == (0, 0)
    assert again.written_offset == again.flushed_offset == end
    assert bodies(again) == [b"x" * 1000] * 30


def test_log_that_others_continued_after_a_clean_stop(open_store: OpenStore, send: Send, disk: MemoryDisk) -> None:
    """A Java broker leaves our flushed offset as it was: what it appended behind is read, queues and all."""
    store = open_store(disk)
    for _ in range(5):
        send(store)
    store.close()
    set_checkpoint(disk, master_flushed_offset=2 * SIZE)
    again = open_store(disk)
    assert again.recovery.clean
    assert (again.recovery.scanned_bytes, again.recovery.queue_units_rebuilt) == (3 * SIZE, 3)
    assert len(bodies(again)) == 5


def test_lost_consume_queues_are_rebuilt(open_store: OpenStore, send: Send, disk: MemoryDisk) -> None:
    """Without any consume queue the whole log is read, also after a clean stop."""
    store = open_store(disk)
    for number in range(30):
        send(store, queue_id=number % 3, body=b"%d" % number * 500, properties=b"TAGS\x01TagA\x02")
    store.close()
    units = {path: bytes(inode.data) for path, inode in disk.files.items() if "consumequeue" in path.parts}
    for path in units:
        disk.remove(path)
    again = open_store(disk)
    assert again.recovery.queue_units_rebuilt == 30
    again.close()
    rebuilt = {path: bytes(inode.data) for path, inode in disk.files.items() if "consumequeue" in path.parts}
    with_tag = {
        path: b"".join(
            UNIT.pack(offset, size, tags_code("TagA") if size else 0) for offset, size, _ in UNIT.iter_unpack(data)
        )
        for path, data in units.items()
    }
    assert rebuilt == with_tag


def test_removed_topic_is_fine(open_store: OpenStore, send: Send, disk: MemoryDisk) -> None:
    """A queue whose directory was deleted while the store was closed begins anew; others are untouched."""
    store = open_store(disk)
    for topic in ("A", "B"):
        send(store, topic)
    store.close()
    disk.remove(Path(f"/store/consumequeue/A/0/{0:020d}"))
    again = open_store(disk)
    assert list(again.queues()) == [("B", 0)]
    assert send(again, "A").queue_offset == 0
    assert send(again, "B").queue_offset == 1


def test_stale_units_behind_the_end_are_cleared(open_store: OpenStore, send: Send, disk: MemoryDisk) -> None:
    """A unit for a record that is not there never comes back when the queue grows."""
    store = open_store(disk)
    send(store)
    store.close()
    disk.files[QUEUE].data[20:40] = UNIT.pack(5 * SIZE, SIZE, 7)
    again = open_store(disk)
    assert again.max_offset("TopicTest", 0) == 1
    assert bytes(disk.files[QUEUE].data[20:40]) == bytes(20)


# -- crashes ---------------------------------------------------------------------------------------------------------


def test_crash_rebuilds_queues_from_the_log(open_store: OpenStore, send: Send, disk: MemoryDisk) -> None:
    """Units that had not been written, or had been torn, are there again."""
    store = open_store(disk)
    for _ in range(10):
        send(store)
    store.close()
    crash(disk, flushed_offset=10 * SIZE)
    disk.files[QUEUE].data[60:90] = bytes(30)
    again = open_store(disk)
    assert not again.recovery.clean
    assert again.recovery.queue_units_rebuilt == 10
    assert again.recovery.dropped_bytes == 0
    assert [again.queue_unit("TopicTest", 0, n) for n in range(10)] == [(n * SIZE, SIZE, 0) for n in range(10)]


@pytest.mark.parametrize("flushed", [0, 3 * SIZE, 5 * SIZE])
@pytest.mark.parametrize("at", [0, 4, 30, 88, SIZE - 15])
def test_torn_tail_is_cut_and_reported(
    open_store: OpenStore, send: Send, disk: MemoryDisk, flushed: int, at: int
) -> None:
    """A bad record at or above the flushed offset ends the log; what followed is gone for good, in queues too."""
    store = open_store(disk)
    for _ in range(8):
        send(store)
    store.close()
    crash(disk, flushed_offset=flushed)
    log_of(disk)[5 * SIZE + at] ^= 0x80
    again = open_store(disk)
    assert again.recovery.truncated_at == 5 * SIZE
    assert again.recovery.dropped_bytes == 3 * SIZE - len(b"\0\0")  # the last properties length is zeros
    assert again.max_offset("TopicTest", 0) == 5
    assert again.written_offset == 5 * SIZE
    assert not any(log_of(disk)[5 * SIZE :]), "a whole record behind the torn one must not come back"
    assert send(again).queue_offset == 5
    again.close()
    assert bodies(open_store(disk)) == [b"body"] * 6


def test_corrupt_record_below_the_flushed_offset_stops_the_opening(
    open_store: OpenStore, send: Send, disk: MemoryDisk
) -> None:
    """The error names its offset; the log is as it was; so is the next try."""
    store = open_store(disk)
    for _ in range(8):
        send(store)
    store.close()
    crash(disk, flushed_offset=6 * SIZE)
    log_of(disk)[5 * SIZE + 88] ^= 1
    before = bytes(log_of(disk))
    for _ in range(2):
        with pytest.raises(RecordCorrupt, match="CRC") as raised:
            open_store(disk)
        assert raised.value.physical_offset == 5 * SIZE
        assert bytes(log_of(disk)) == before
    log_of(disk)[5 * SIZE + 88] ^= 1
    assert len(bodies(open_store(disk))) == 8


def test_missing_synced_bytes_stop_the_opening(open_store: OpenStore, send: Send, disk: MemoryDisk) -> None:
    """Zeros, or no file at all, where synced records were."""
    store = open_store(disk)
    for _ in range(4):
        send(store, body=b"x" * 3900)
    store.close()
    crash(disk, flushed_offset=store.written_offset)
    second = Path(f"/store/commitlog/{8192:020d}")
    kept = bytes(disk.files[second].data)
    disk.files[second].data[:] = bytes(len(kept))
    with pytest.raises(RecordCorrupt, match="only zeros") as raised:
        open_store(disk)
    assert raised.value.physical_offset == 8192
    disk.remove(second)
    with pytest.raises(RecordCorrupt, match="the log ends there"):
        open_store(disk)
    disk.write_file(second, kept)
    open_store(disk)


def test_missing_file_in_the_log_is_refused(open_store: OpenStore, send: Send, disk: MemoryDisk) -> None:
    """A hole in the row of files is no log."""
    store = open_store(disk)
    for _ in range(5):
        send(store, body=b"x" * 3900)
    store.close()
    disk.remove(Path(f"/store/commitlog/{8192:020d}"))
    with pytest.raises(LayoutInvalid):
        open_store(disk)


@pytest.mark.parametrize(
    ("physic_ms", "logics_ms", "first_file"),
    [(0, 0, 0), (20_000, 0, 0), (20_000, 20_000, 1), (33_000, 33_000, 3), (99_000, 99_000, 4), (99_000, 22_999, 1)],
)
def test_scan_begins_with_a_file_older_than_the_checkpoint(
    open_store: OpenStore,
    send: Send,
    disk: MemoryDisk,
    clock: list[int],
    physic_ms: int,
    logics_ms: int,
    first_file: int,
) -> None:
    """The newest file whose first record is at least three seconds older than what log and queues have synced."""
    start = clock[0]
    store = open_store(disk)
    for number in range(10):  # two records a file, ten seconds from file to file
        clock[0] = start + number // 2 * 10_000
        send(store, body=b"x" * 3900)
    store.close()
    crash(disk)
    set_checkpoint(
        disk,
        physic_timestamp_ms=start + physic_ms if physic_ms else 0,
        logics_timestamp_ms=start + logics_ms if logics_ms else 0,
    )
    again = open_store(disk)
    assert again.recovery.scanned_bytes == again.written_offset - first_file * 8192
    assert again.recovery.queue_units_rebuilt == 10 - 2 * first_file
    assert len(bodies(again)) == 10


def test_torn_unit_that_looks_good_is_not_believed(
    open_store: OpenStore, send: Send, disk: MemoryDisk, clock: list[int]
) -> None:
    """Units behind the last synced one may be half old, half new; the record decides."""
    store = open_store(disk)
    send(store, "Other", body=b"x" * 3900)
    for _ in range(3):
        send(store)
    clock[0] += 10_000
    for _ in range(2):
        send(store, "Other", body=b"x" * 3900)
    clock[0] += 10_000
    send(store, "Other")
    store.close()
    crash(disk)
    # The scan begins with the second file: the three units are not rebuilt. Two torn ones stand behind them.
    disk.files[QUEUE].data[60:100] = UNIT.pack(77, SIZE, 0) + UNIT.pack(0, SIZE, 0)
    again = open_store(disk)
    assert again.recovery.scanned_bytes == again.written_offset - 8192
    assert again.max_offset("TopicTest", 0) == 3
    assert bytes(disk.files[QUEUE].data[60:100]) == bytes(40)


def test_units_missing_from_before_the_scan_rebuild_everything(
    open_store: OpenStore, send: Send, disk: MemoryDisk, clock: list[int]
) -> None:
    """A queue that lacks old units (restored from a backup, say) is rebuilt from the whole log."""
    store = open_store(disk)
    for _ in range(3):
        send(store, body=b"x" * 2500)
    clock[0] += 10_000
    for _ in range(3):
        send(store, body=b"y" * 2500)
    store.close()
    crash(disk)
    disk.files[QUEUE].data[20:] = bytes(len(disk.files[QUEUE].data) - 20)
    again = open_store(disk)
    assert again.recovery.scanned_bytes == again.written_offset
    assert again.recovery.queue_units_rebuilt == 6
    assert bodies(again) == [b"x" * 2500] * 3 + [b"y" * 2500] * 3


def test_rebuilding_everything_keeps_the_ends_of_queues_without_records(
    open_store: OpenStore, send: Send, disk: MemoryDisk, clock: list[int]
) -> None:
    """A queue whose messages all expired goes on where it was; one that lacks expired units too, where its records do.

    Otherwise new messages would get queue offsets that consumers are past already.
    """
    store = open_store(disk)
    for topic in ("Old", "Old", "Lacking", "Lacking"):
        send(store, topic)
    for _ in range(3):
        send(store, body=b"x" * 2400)
    for _ in range(3):
        send(store, body=b"y" * 2400)
    send(store, "Lacking", body=b"live")
    clock[0] += 10_000
    for _ in range(3):
        send(store, body=b"z" * 2400)
    end = store.written_offset
    store.close()
    crash(disk, flushed_offset=end)
    disk.remove(LOG)
    disk.files[QUEUE].data[80:] = bytes(len(disk.files[QUEUE].data) - 80)
    lacking = disk.files[Path("/store/consumequeue/Lacking/0") / QUEUE.name].data
    lacking[20:] = bytes(len(lacking) - 20)
    again = open_store(disk)
    assert again.recovery.scanned_bytes == end - 8192
    assert (again.min_offset("Old", 0), again.max_offset("Old", 0)) == (2, 2)
    assert send(again, "Old").queue_offset == 2
    assert (again.min_offset("Lacking", 0), again.max_offset("Lacking", 0)) == (2, 3)
    assert bodies(again, "Lacking") == [b"live"]
    assert (again.min_offset("TopicTest", 0), again.max_offset("TopicTest", 0)) == (3, 9)
    assert bodies(again) == [b"y" * 2400] * 3 + [b"z" * 2400] * 3


def test_prepared_messages_stay_without_units(open_store: OpenStore, send: Send, disk: MemoryDisk) -> None:
    """Transaction bits 4 and 12 never, 0 and 8 always; nor inner batches that a Java broker wrote for other queues."""
    store = open_store(disk)
    for sys_flag in (0, 4, 8, 12, 0):
        send(store, sys_flag=sys_flag, body=b"%d" % sys_flag)
    batch = send(store, topic="Batch").physical_offset
    store.close()
    log_of(disk)[batch + 39] |= 0x80
    crash(disk)
    again = open_store(disk)
    assert again.max_offset("Batch", 0) == 0
    assert again.record_at(batch) is not None
    assert bodies(again) == [b"0", b"8", b"0"]
    assert again.recovery.queue_units_rebuilt == 3


def test_deleted_topic_reappears_where_it_was(
    open_store: OpenStore, send: Send, disk: MemoryDisk, clock: list[int]
) -> None:
    """Records of a topic whose queue is gone begin a queue at their own number, padded in front."""
    store = open_store(disk)
    for _ in range(21):
        send(store, body=b"x" * 400)
    clock[0] += 10_000
    for _ in range(20):
        send(store, body=b"y" * 400)
    store.close()
    crash(disk)
    for start in (0, 320, 640):
        disk.remove(QUEUE.with_name(f"{start:020d}"))
    send_to = Path("/store/consumequeue/Other/0") / f"{0:020d}"
    disk.write_file(send_to, b"")
    again = open_store(disk)
    first = again.min_offset("TopicTest", 0)
    assert first > 0
    assert again.max_offset("TopicTest", 0) == 41
    assert len(bodies(again)) == 41 - first
    assert again.recovery.irregular_records == 0
    assert send(again).queue_offset == 41


def test_topic_made_anew_begins_anew(open_store: OpenStore, send: Send, disk: MemoryDisk) -> None:
    """Two lives of a topic in one log: the queue is that of the second, and the report counts the break."""
    store = open_store(disk)
    send(store, "Other")
    for number in range(5):
        send(store, body=b"first %d" % number)
    store.close()
    disk.remove(QUEUE)
    store = open_store(disk)
    for number in range(2):
        send(store, body=b"second %d" % number)
    store.close()
    crash(disk, flushed_offset=store.written_offset)
    again = open_store(disk)
    assert bodies(again) == [b"second 0", b"second 1"]
    assert again.recovery.irregular_records == 1


# -- logs with breaks, as only others write them ---------------------------------------------------------------------


def write_log(disk: MemoryDisk, queue_offsets: list[int], topics: list[str] | None = None) -> int:
    """A log of records with these queue offsets; its length."""
    log = b""
    for number, queue_offset in enumerate(queue_offsets):
        log += encode_record(
            Record(
                topic=topics[number] if topics else "TopicTest",
                queue_id=0,
                queue_offset=queue_offset,
                physical_offset=len(log),
                born_timestamp_ms=1,
                born_host=bytes(8),
                store_timestamp_ms=1,
                store_host=bytes(8),
                body=b"%d" % number,
            )
        )
    disk.write_file(LOG, log)
    return len(log)


FILLER = ["Filler"] * 4
"""Records in front, so that a queue offset can be larger than its own queue explains."""


def test_gap_is_bridged_when_nothing_was_known_to_be_synced(open_store: OpenStore, disk: MemoryDisk) -> None:
    """A Java log has no flushed offset: units that stand for no message lead over, and readers pass them."""
    write_log(disk, [0, 1, 2, 3, 0, 3, 4], [*FILLER, "T", "T", "T"])
    store = open_store(disk)
    assert store.recovery.irregular_records == 1
    assert bodies(store, "T") == [b"4", b"5", b"6"]
    assert store.max_offset("T", 0) == 5
    assert store.queue_unit("T", 0, 1) is None
    assert store.read("T", 0, 1, 1, 1000, None, cold_allowed=True).next_offset == 2


def test_beginning_that_is_missing_is_counted(open_store: OpenStore, disk: MemoryDisk) -> None:
    """In a log that goes back to offset 0 every queue begins with 0."""
    write_log(disk, [0, 1, 2, 3, 2, 3], [*FILLER, "T", "T"])
    store = open_store(disk)
    assert store.recovery.irregular_records == 1
    assert (store.min_offset("T", 0), store.max_offset("T", 0)) == (2, 4)
    assert bodies(store, "T") == [b"4", b"5"]


def test_later_record_wins_over_an_earlier_one(open_store: OpenStore, disk: MemoryDisk) -> None:
    """A number that was given twice belongs to the later record."""
    write_log(disk, [0, 1, 2, 1, 2])
    store = open_store(disk)
    assert store.recovery.irregular_records == 1
    assert bodies(store) == [b"0", b"3", b"4"]


@pytest.mark.parametrize("queue_offsets", [[0, 1, 2, 3, 0, 3], [0, 1, 2, 3, 0, 1, 2, 1], [0, 1, 2, 3, 2]])
def test_break_below_the_flushed_offset_stops_the_opening(
    open_store: OpenStore, disk: MemoryDisk, queue_offsets: list[int]
) -> None:
    """In our own synced log it can only be damage."""
    end = write_log(disk, queue_offsets, [*FILLER, *["T"] * (len(queue_offsets) - 4)])
    crash(disk, flushed_offset=end)
    with pytest.raises(RecordCorrupt, match=rf"number {queue_offsets[-1]} of T 0 follows number"):
        open_store(disk)


def test_topic_that_cannot_be_ends_the_log(open_store: OpenStore, disk: MemoryDisk) -> None:
    """A record whose topic is no directory name, or no text, is no record."""
    for topic in ("a/b", ".."):
        write_log(disk, [0, 0, 1], ["T", topic, "T"])
        store = open_store(disk)
        assert store.recovery.truncated_at is not None
        assert bodies(store, "T") == [b"0"]
        store.close()
        for path in list(disk.files):
            disk.remove(path)
    end = write_log(disk, [0, 0], ["T", "X"])
    log_of(disk)[end - 3] = 0xFF
    assert open_store(disk).max_offset("T", 0) == 1


# -- hooks -----------------------------------------------------------------------------------------------------------


def test_tags_codes_are_computed_again(open_store: OpenStore, send: Send, disk: MemoryDisk, clock: list[int]) -> None:
    """By the owner's hook, which gets topic, properties and store time: delay queues keep delivery times there."""
    store = open_store(disk)
    send(store, "SCHEDULE_TOPIC_XXXX", properties=b"DELAY\x013\x02", tags_code=clock[0] + 10_000)
    send(store, properties=b"TAGS\x01TagA\x02", tags_code=tags_code("TagA"))
    store.close()
    crash(disk)

    def code_of(topic: str, properties: bytes, store_timestamp_ms: int) -> int:
        if topic == "SCHEDULE_TOPIC_XXXX":
            return store_timestamp_ms + {b"DELAY\x013\x02": 10_000}[properties]
        return tag_hash(topic, properties, store_timestamp_ms)

    again = open_store(disk, redispatch_tags_code=code_of)
    unit = again.queue_unit("SCHEDULE_TOPIC_XXXX", 0, 0)
    assert unit is not None
    assert unit[2] == clock[0] + 10_000
    unit = again.queue_unit("TopicTest", 0, 0)
    assert unit is not None
    assert unit[2] == tags_code("TagA")


def test_a_code_that_is_left_to_the_store_is_what_recovery_gives(
    open_store: OpenStore, send: Send, disk: MemoryDisk, clock: list[int]
) -> None:
    """It follows from the store timestamp in the record, which does not go back with the clock."""
    store = open_store(disk, redispatch_tags_code=tags_code_rule())
    began_ms = clock[0]
    send(store, "SCHEDULE_TOPIC_XXXX", properties=b"DELAY\x013\x02", tags_code=None)
    clock[0] -= 3_600_000
    send(store, "SCHEDULE_TOPIC_XXXX", properties=b"DELAY\x013\x02", tags_code=None)
    clock[0] = began_ms + 7
    send(store, "SCHEDULE_TOPIC_XXXX", properties=b"DELAY\x013\x02", tags_code=None)
    send(store, "SCHEDULE_TOPIC_XXXX", properties=b"DELAY\x013\x02APOGEEMQ_DUE_MS\x015\x02", tags_code=None)
    due_ms = [began_ms + 10_000, began_ms + 10_000, began_ms + 10_007, 5]
    assert codes(store, "SCHEDULE_TOPIC_XXXX") == due_ms
    store.close()
    crash(disk)
    for path in [path for path in disk.files if "consumequeue" in path.parts]:
        disk.remove(path)
    assert codes(open_store(disk, redispatch_tags_code=tags_code_rule()), "SCHEDULE_TOPIC_XXXX") == due_ms


def codes(store: MessageStore, topic: str) -> list[int]:
    """The tags codes of a topic's queue 0."""
    units = [store.queue_unit(topic, 0, offset) for offset in range(store.max_offset(topic, 0))]
    return [unit[2] for unit in units if unit is not None]


def test_tag_hash() -> None:
    """Java's hash of the property TAGS; 0 without it."""
    assert tag_hash("T", b"KEYS\x01k\x02TAGS\x01TagA\x02", 0) == 2_598_919
    assert tag_hash("T", b"XTAGS\x01TagA\x02", 0) == 0


def test_progress_is_told(open_store: OpenStore, send: Send, disk: MemoryDisk) -> None:
    """A long recovery can be watched."""
    store = open_store(disk)
    for _ in range(5):
        send(store, body=b"x" * 3900)
    store.close()
    crash(disk)
    told: list[tuple[int, int]] = []
    open_store(disk, on_progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == [0, 8192, 16384]
    assert {total for _, total in told} == {3 * 8192}


def test_recovery_can_be_given_up(open_store: OpenStore, send: Send, disk: MemoryDisk) -> None:
    """What on_progress raises ends the opening; the directory is free, and the next try finds everything."""
    store = open_store(disk)
    for _ in range(5):
        send(store, body=b"x" * 3900)
    store.close()
    crash(disk)

    def give_up(done: int, total: int) -> None:
        if done:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        open_store(disk, on_progress=give_up)
    assert len(bodies(open_store(disk))) == 5


def test_checkpoint_after_opening(open_store: OpenStore, send: Send, disk: MemoryDisk, clock: list[int]) -> None:
    """What was recovered counts as synced, since it was; the other longs stay."""
    store = open_store(disk)
    send(store)
    store.close()
    crash(disk)
    set_checkpoint(disk, index_timestamp_ms=5, confirm_offset=6)
    open_store(disk)
    assert CheckpointFile(disk, CHECKPOINT).load() == Checkpoint(clock[0], clock[0], 5, SIZE, 6)
    assert struct.unpack(">q", disk.read_file(CHECKPOINT)[24:32]) == (SIZE,)


def test_duration_is_reported(open_store: OpenStore, disk: MemoryDisk, clock: list[int]) -> None:
    """By the clock that was handed in."""
    write_log(disk, [0])

    def on_progress(done: int, total: int) -> None:
        clock[0] += 1234

    assert open_store(disk, on_progress=on_progress).recovery.duration_ms == 1234
