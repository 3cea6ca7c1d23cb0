"""Appending: the bytes are those of the plain encoder, whatever is appended; files are filled by the rules."""

import errno
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from apogeemq.remoting_codec.record import MAGIC_BLANK, MAGIC_V1, MAGIC_V2, Record, decode_record, encode_record
from apogeemq.store.errors import DiskFull, MessageInvalid, MessageTooLarge, NotWritable
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import AppendResult, MessageStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HOST_V4 = b"\x7f\x00\x00\x01\x00\x00\x2a\x9f"
HOST_V6 = b"\x20\x01" + bytes(14) + b"\x00\x00\x2a\x9f"
LOG = Path("/store/commitlog")
FILE_SIZE = 8192

OpenStore = Callable[..., MessageStore]
Send = Callable[..., AppendResult]

hosts = st.sampled_from([HOST_V4, HOST_V6])
int32 = st.integers(-(1 << 31), (1 << 31) - 1)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)


def file_bytes(disk: MemoryDisk, start: int = 0) -> bytes:
    return disk.read_file(LOG / f"{start:020d}")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    topic=st.one_of(st.sampled_from(["T", "%RETRY%g", "x" * 127, "x" * 128, "x" * 255, "тема"])),
    queue_id=st.integers(0, (1 << 31) - 1),
    flag=int32,
    sys_flag=st.integers(0, (1 << 31) - 1).map(lambda flag: flag & ~0x84),
    times=st.tuples(int64, int32, int64),
    born_host=hosts,
    store_host=hosts,
    body=st.binary(max_size=300),
    properties=st.binary(max_size=100),
    tags_code=int64,
)
def test_bytes_are_those_of_the_plain_encoder(
    open_store: OpenStore,
    clock: list[int],
    topic: str,
    queue_id: int,
    flag: int,
    sys_flag: int,
    times: tuple[int, int, int],
    born_host: bytes,
    store_host: bytes,
    body: bytes,
    properties: bytes,
    tags_code: int,
) -> None:
    """Two messages in a row, every field drawn: the log holds what encode_record makes of the same values."""
    disk = MemoryDisk()
    store = open_store(disk, store_host=store_host)
    born_timestamp_ms, reconsume_times, prepared_offset = times
    expected = b""
    host_bits = (0x10 if len(born_host) == 20 else 0) | (0x20 if len(store_host) == 20 else 0)
    for queue_offset in range(2):
        result = store.append(
            topic,
            queue_id,
            flag,
            sys_flag,
            born_timestamp_ms,
            born_host,
            reconsume_times,
            prepared_offset,
            memoryview(body) if queue_offset else body,
            properties,
            tags_code,
        )
        record = Record(
            topic=topic,
            queue_id=queue_id,
            queue_offset=queue_offset,
            physical_offset=len(expected),
            flag=flag,
            sys_flag=sys_flag & ~0x30 | host_bits,
            born_timestamp_ms=born_timestamp_ms,
            born_host=born_host,
            store_timestamp_ms=clock[0],
            store_host=store_host,
            reconsume_times=reconsume_times,
            prepared_transaction_offset=prepared_offset,
            body=body,
            properties=properties,
            magic=MAGIC_V1 if len(topic.encode()) <= 127 else MAGIC_V2,
        )
        encoded = encode_record(record)
        assert result == (len(expected), queue_offset, len(encoded), clock[0])
        expected += encoded
    assert file_bytes(disk)[: len(expected)] == expected
    assert store.written_offset == len(expected)
    assert store.queue_unit(topic, queue_id, 0) == (0, len(expected) // 2, tags_code)
    store.close()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bodies=st.lists(st.binary(max_size=200), min_size=1, max_size=6),
    born_host=hosts,
    sys_flag=st.sampled_from([0, 8, 1]),
)
def test_batch_equals_single_messages(
    open_store: OpenStore, bodies: list[bytes], born_host: bytes, sys_flag: int
) -> None:
    """A batch leaves the same bytes, units and results as its messages one by one."""
    outcomes = []
    for as_batch in (True, False):
        disk = MemoryDisk()
        store = open_store(disk)
        entries = [(number, body, b"n\x01%d\x02" % number, number * 7) for number, body in enumerate(bodies)]
        if as_batch:
            results = store.append_batch("Topic", 3, sys_flag, 99, born_host, entries)
        else:
            results = [
                store.append("Topic", 3, flag, sys_flag, 99, born_host, 0, 0, body, properties, tags_code)
                for flag, body, properties, tags_code in entries
            ]
        units = [store.queue_unit("Topic", 3, number) for number in range(len(bodies))]
        outcomes.append((results, units, file_bytes(disk), store.written_offset))
        store.close()
    assert outcomes[0] == outcomes[1]


def test_empty_batch_stores_nothing(open_store: OpenStore) -> None:
    """No entries, no results, no bytes."""
    store = open_store(MemoryDisk())
    assert store.append_batch("Topic", 0, 0, 1, HOST_V4, []) == []
    assert store.written_offset == 0


@pytest.mark.parametrize("body", [b"", b"x", b"x" * 1024])
def test_crc_of_the_body(open_store: OpenStore, send: Send, body: bytes) -> None:
    """CRC-32 with the sign bit cleared, 0 for an empty body."""
    disk = MemoryDisk()
    send(open_store(disk), body=body)
    assert int.from_bytes(file_bytes(disk)[8:12], "big") == (zlib.crc32(body) & 0x7FFFFFFF if body else 0)


def test_record_never_spans_files(open_store: OpenStore, send: Send) -> None:
    """What does not fit goes to the next file; the rest is one blank filler {rest's size, magic}."""
    disk = MemoryDisk()
    store = open_store(disk)
    results = [send(store, body=b"b" * 3000) for _ in range(3)]
    size = results[0].size_bytes
    assert [result.physical_offset for result in results] == [0, size, FILE_SIZE]
    first = file_bytes(disk)
    rest = FILE_SIZE - 2 * size
    assert first[2 * size : 2 * size + 8] == rest.to_bytes(4, "big") + MAGIC_BLANK.to_bytes(4, "big")
    assert decode_record(file_bytes(disk, FILE_SIZE)).body == b"b" * 3000


@pytest.mark.parametrize(("rest", "fits"), [(9, True), (8, True), (7, False), (0, False)])
def test_room_for_the_filler_is_kept(open_store: OpenStore, send: Send, rest: int, fits: bool) -> None:
    """A record fits if eight bytes are left after it."""
    store = open_store(MemoryDisk())
    overhead = send(store, body=b"").size_bytes
    send(store, body=b"x" * 4000)
    used = store.written_offset
    result = send(store, body=b"x" * (FILE_SIZE - used - overhead - rest))
    assert result.physical_offset == (used if fits else FILE_SIZE)


def test_largest_record_fits_into_a_file(open_store: OpenStore, send: Send) -> None:
    """A record as large as a file less eight bytes is stored; one byte more is refused."""
    store = open_store(MemoryDisk(), message_size_bytes_max=FILE_SIZE)
    overhead = send(store, body=b"").size_bytes
    with pytest.raises(MessageTooLarge, match="record of 8185 bytes exceeds the limit of 8184"):
        send(store, body=b"x" * (FILE_SIZE - 7 - overhead))
    assert store.written_offset == overhead
    assert send(store, body=b"x" * (FILE_SIZE - 8 - overhead)).physical_offset == FILE_SIZE


def test_batch_stays_in_one_file(open_store: OpenStore, send: Send) -> None:
    """A batch that does not fit as a whole begins the next file."""
    store = open_store(MemoryDisk())
    send(store, body=b"x" * 4000)
    results = store.append_batch("TopicTest", 0, 0, 1, HOST_V4, [(0, b"x" * 2500, b"", 0)] * 2)
    assert results[0].physical_offset == FILE_SIZE
    assert [result.queue_offset for result in results] == [1, 2]


def test_limits(open_store: OpenStore, send: Send) -> None:
    """Body, properties, topic and batch have bounds; nothing is stored beyond them."""
    store = open_store(MemoryDisk())
    send(store, body=b"x" * 4096, properties=b"")
    written = store.written_offset
    with pytest.raises(MessageTooLarge, match="body of 4097 bytes exceeds the limit of 4096"):
        send(store, body=b"x" * 4097)
    with pytest.raises(MessageTooLarge, match="properties of 32768 bytes exceeds the limit of 32767"):
        send(store, properties=b"x" * 32768)
    with pytest.raises(MessageTooLarge, match="topic of 256 bytes exceeds the limit of 255"):
        send(store, topic="x" * 256)
    entries = [(0, b"x" * 4000, b"", 0)] * 3
    with pytest.raises(MessageTooLarge, match="batch of"):
        store.append_batch("TopicTest", 0, 0, 1, HOST_V4, entries)
    with pytest.raises(MessageTooLarge, match="body of 4097"):
        store.append_batch("TopicTest", 0, 0, 1, HOST_V4, [(0, b"x" * 4097, b"", 0)])
    with pytest.raises(MessageTooLarge, match="properties of"):
        store.append_batch("TopicTest", 0, 0, 1, HOST_V4, [(0, b"", b"x" * 40_000, 0)])
    assert store.written_offset == written
    assert store.max_offset("TopicTest", 0) == 1


@pytest.mark.parametrize("topic", ["", ".", "..", "a/b", "a\0b", "a\nb"])
def test_topic_must_be_a_directory_name(open_store: OpenStore, send: Send, topic: str) -> None:
    """What cannot be a directory, or leads out of it, is refused."""
    with pytest.raises(MessageInvalid, match="is not a topic"):
        send(open_store(MemoryDisk()), topic=topic)


def test_fields_out_of_range_are_refused(open_store: OpenStore, send: Send) -> None:
    """Queue id, flag, tags code and hosts must fit their places; nothing changes."""
    store = open_store(MemoryDisk())
    for fault in (
        {"queue_id": -1},
        {"queue_id": 1 << 31},
        {"flag": 1 << 31},
        {"tags_code": 1 << 63},
        {"born_host": b"12345"},
    ):
        with pytest.raises(MessageInvalid):
            send(store, **fault)
    with pytest.raises(MessageInvalid):
        store.append_batch("TopicTest", 0, 0, 1, b"12345", [(0, b"", b"", 0)])
    with pytest.raises(MessageInvalid):
        store.append_batch("TopicTest", 0, 0, 1, HOST_V4, [(0, b"", b"", 0), (1 << 31, b"", b"", 0)])
    with pytest.raises(MessageInvalid, match="one by one"):
        store.append_batch("TopicTest", 0, 4, 1, HOST_V4, [(0, b"", b"", 0)])
    assert store.written_offset == 0
    assert store.max_offset("TopicTest", 0) == 0


@pytest.mark.parametrize(("sys_flag", "has_unit"), [(0, True), (4, False), (8, True), (12, False)])
def test_transaction_bits_decide_about_the_unit(
    open_store: OpenStore, send: Send, sys_flag: int, has_unit: bool
) -> None:
    """Prepared and rolled-back messages get queue offset 0 and no place in the consume queue."""
    disk = MemoryDisk()
    store = open_store(disk)
    send(store)
    result = send(store, sys_flag=sys_flag)
    assert result.queue_offset == (1 if has_unit else 0)
    assert store.max_offset("TopicTest", 0) == (2 if has_unit else 1)
    assert decode_record(file_bytes(disk), result.physical_offset).queue_offset == result.queue_offset


def test_store_time_never_goes_back(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """A clock that is set back does not unsort the log, not even across a restart."""
    disk = MemoryDisk()
    store = open_store(disk)
    latest = send(store).store_timestamp_ms
    clock[0] -= 60_000
    assert send(store).store_timestamp_ms == latest
    results = store.append_batch("TopicTest", 0, 0, 1, HOST_V4, [(0, b"", b"", 0)])
    assert results[0].store_timestamp_ms == latest
    store.close()
    assert send(open_store(disk)).store_timestamp_ms == latest


def test_full_disk_refuses_and_recovers(open_store: OpenStore, send: Send) -> None:
    """DiskFull leaves no trace; once there is room, sending goes on where it stopped."""
    disk = MemoryDisk()
    store = open_store(disk)
    send(store)
    disk.capacity_bytes = disk.used_bytes()
    stored = 1
    with pytest.raises(DiskFull):  # noqa: PT012 — how many still fit into reserved blocks does not matter
        while True:
            send(store, body=b"x" * 1000)
            stored += 1
    assert store.is_writable
    assert store.max_offset("TopicTest", 0) == stored
    disk.capacity_bytes = None
    assert send(store).queue_offset == stored


def test_broken_disk_ends_writing(open_store: OpenStore, send: Send) -> None:
    """An I/O error while reserving is final: the store says why it takes nothing more."""
    disk = FaultyDisk(Random(1))
    store = open_store(disk)
    disk.fail("reserve", errno.EIO)
    for _ in range(2):
        with pytest.raises(NotWritable, match=r"cannot grow.*Input/output"):
            send(store)
    assert not store.is_writable
    assert store.not_writable_reason is not None


@pytest.mark.parametrize("sys_flag", [0x80, 0xC0, 0x84])
def test_inner_batches_are_refused(open_store: OpenStore, send: Send, sys_flag: int) -> None:
    """Neither appending nor recovery gives them a unit, so nobody could ever read what was acknowledged."""
    store = open_store(MemoryDisk())
    send(store)
    end = store.written_offset
    with pytest.raises(MessageInvalid, match="inner batch"):
        send(store, sys_flag=sys_flag)
    with pytest.raises(MessageInvalid, match="inner batch"):
        store.append_batch("TopicTest", 0, sys_flag, 1, HOST_V4, [(0, b"", b"", 0)])
    assert store.written_offset == end
    assert send(store).queue_offset == 1


def test_suspension_lasts_until_its_cause_is_gone(open_store: OpenStore, send: Send) -> None:
    """Two causes may hold appends back at a time; the older one is told, and the last to go lets them in again."""
    store = open_store(MemoryDisk())
    log = store._log
    log.suspend("first", DiskFull(Path("/first")))
    log.suspend("second", DiskFull(Path("/second")))
    with pytest.raises(DiskFull, match="/first"):
        send(store)
    log.suspend("first", DiskFull(Path("/first/later")))
    assert store.not_writable_reason == "no room on the disk for /first/later"
    log.resume("first")
    with pytest.raises(DiskFull, match="/second"):
        store.append_batch("TopicTest", 0, 0, 1, HOST_V4, [(0, b"", b"", 0)])
    log.resume("second")
    log.resume("second")
    assert store.is_writable
    assert send(store).queue_offset == 0


def test_refusal_for_good_outlasts_suspensions(open_store: OpenStore, send: Send) -> None:
    """Nothing lifts it, and it is what an append is told, whichever came first."""
    store = open_store(MemoryDisk())
    store._log.suspend("full", DiskFull(Path("/full")))
    store._log.refuse(NotWritable("broken"))
    with pytest.raises(NotWritable):
        send(store)
    store._log.resume("full")
    store._log.refuse(NotWritable("broken again"))
    assert store.not_writable_reason == "the store is not writable: broken"


def test_refusing_keeps_nothing(open_store: OpenStore, send: Send) -> None:
    """The one error object that all appends are given does not remember them: a refusal may last for days."""
    store = open_store(MemoryDisk())
    store._log.suspend("full", DiskFull(Path("/full")))
    depths = set()
    for _ in range(3):
        with pytest.raises(DiskFull) as raised:
            send(store)
        depths.add(len(raised.traceback))
    assert len(depths) == 1


def test_long_row_of_files(open_store: OpenStore, send: Send) -> None:
    """A thousand messages over many files are all found by their physical offsets."""
    store = open_store(MemoryDisk())
    results = [send(store, queue_id=number % 5, body=b"%d" % number * (number % 97)) for number in range(1000)]
    assert store.written_offset > 10 * FILE_SIZE
    for number, result in enumerate(results):
        data = store.record_at(result.physical_offset)
        assert data is not None
        assert decode_record(data).body == b"%d" % number * (number % 97)
