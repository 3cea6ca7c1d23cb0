"""The whole of vectors_store: every message of its README is found in each way, and appending changes nothing older.

What each message is stands here as its README tells it; where it lies was noted by an independent reader in
messages.json. Neither comes from our own code.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.record import Record, decode_record
from apogeemq.store.message_store import AppendResult, MessageStore, ReadStatus
from apogeemq.store.recovery import tag_hash

VECTORS = Path(__file__).parent / "vectors_store"
LOG = Path("commitlog/00000000000000000000")
INDEX = Path("index/20261122141341752")
JAVA_SETTINGS = {"commit_log_file_size_bytes": 1 << 30, "consume_queue_file_units": 300_000, "index_enabled": True}
"""Apache's defaults."""
TIME_MS_MAX = (1 << 63) - 1
LOG_SIZE_BYTES = 7138
INDEX_HEADER_SIZE_BYTES = 40
INDEX_SLOTS_SIZE_BYTES = 5_000_000 * 4
INDEX_ENTRY_SIZE_BYTES = 20
HALF, OP = "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC"

OpenStore = Callable[..., MessageStore]
Send = Callable[..., AppendResult]


class Sent(NamedTuple):
    """One line of the README: where the message is stored, and what it is."""

    topic: str
    queue_id: int
    tag: str | None
    keys: str | None
    body: str


README: list[Sent] = [
    *(Sent("StoreNormal", i % 2, "TagB" if i % 2 else "TagA", f"key-{i}", f"normal {i}") for i in range(8)),
    Sent("StoreNormal", 0, None, None, "no tag, no key"),
    Sent("StoreNormal", 1, "TagA", "shared-1 shared-2", "two keys"),
    Sent("StoreNormal", 0, "TagZ", "big", "8192 x 'z'"),
    *(Sent("StoreNormal", 1, "TagBatch", f"batch-{i}", f"batch {i}") for i in range(3)),
    *(Sent("StoreFifo", 1, "TagF", f"fifo-{i}", f"fifo {i}") for i in range(2)),
    Sent("SCHEDULE_TOPIC_XXXX", 17, "TagD", "delay-level", "delay level 18"),
    Sent("rmq_sys_wheel_timer", 0, "TagD", "delay-ms", "deliver in an hour"),
    Sent(HALF, 0, "TagT", "trans-COMMIT_MESSAGE", "trans COMMIT_MESSAGE"),
    Sent("StoreTrans", 1, "TagT", "trans-COMMIT_MESSAGE", "trans COMMIT_MESSAGE"),
    Sent(HALF, 0, "TagT", "trans-ROLLBACK_MESSAGE", "trans ROLLBACK_MESSAGE"),
    Sent(HALF, 0, "TagT", "trans-UNKNOW", "trans UNKNOW"),
    Sent(OP, 0, "d", None, "0,1,"),
]
"""In the order of the log: the operation record came last."""


class Place(NamedTuple):
    """Where the independent reader found a message, and when it was stored."""

    queue_offset: int
    physical_offset: int
    size_bytes: int
    store_timestamp_ms: int
    unique_key: str | None


def found_by_the_independent_reader() -> list[tuple[Sent, Place]]:
    """The entries of messages.json, in the order of the log."""
    entries = json.loads((VECTORS / "messages.json").read_bytes())
    return [
        (
            Sent(e["topic"], e["queueId"], e["properties"].get("TAGS"), e["properties"].get("KEYS"), e["body"]),
            Place(
                e["queueOffset"], e["physicalOffset"], e["size"], e["storeTimestamp"], e["properties"].get("UNIQ_KEY")
            ),
        )
        for e in entries
    ]


MESSAGES = found_by_the_independent_reader()


@pytest.fixture
def store(java_directory: Path, open_store: OpenStore) -> MessageStore:
    """Java's directory with every file, opened."""
    return open_store(directory=java_directory, **JAVA_SETTINGS)


def as_sent(record: Record) -> Sent:
    """What the README would say of a record."""
    properties = decode_properties(record.properties)
    body = "8192 x 'z'" if record.sys_flag & 1 else record.body.decode()
    return Sent(record.topic, record.queue_id, properties.get("TAGS"), properties.get("KEYS"), body)


def places(topic: str, queue_id: int) -> list[Place]:
    """A queue's messages, in order."""
    return [place for sent, place in MESSAGES if (sent.topic, sent.queue_id) == (topic, queue_id)]


QUEUES = list(dict.fromkeys((sent.topic, sent.queue_id) for sent in README))


def test_the_readme_and_the_independent_reader_agree() -> None:
    """Both list the same messages in the same order: what follows can rely on either."""
    assert [sent for sent, _ in MESSAGES] == README


def test_each_message_is_found_by_queue_offset(store: MessageStore) -> None:
    """A read of one message from its offset gives that message and leads to the next; its unit says where it lies."""
    for sent, place in MESSAGES:
        found = store.read(sent.topic, sent.queue_id, place.queue_offset, 1, 1 << 20, None, cold_allowed=True)
        assert found.status is ReadStatus.FOUND
        assert found.next_offset == place.queue_offset + 1
        assert as_sent(decode_record(b"".join(found.buffers))) == sent
        unit = store.queue_unit(sent.topic, sent.queue_id, place.queue_offset)
        assert unit is not None
        assert unit[:2] == (place.physical_offset, place.size_bytes)


def test_each_message_is_found_by_physical_offset(store: MessageStore) -> None:
    """That is what an offset message id comes down to; an offset inside a message finds nothing."""
    for sent, place in MESSAGES:
        data = store.record_at(place.physical_offset)
        assert data is not None
        assert len(data) == place.size_bytes
        assert as_sent(decode_record(data)) == sent
        assert store.record_at(place.physical_offset + 4) is None
    assert store.record_at(LOG_SIZE_BYTES) is None


def test_each_message_is_found_by_unique_key(store: MessageStore) -> None:
    """Within its topic, as the half message and the committed copy share theirs; the newest of a batch that has one."""
    newest = {(sent.topic, place.unique_key): sent for sent, place in MESSAGES if place.unique_key is not None}
    assert len(newest) == 20
    for (topic, unique_key), sent in newest.items():
        data = store.find_by_unique_key(topic, unique_key)
        assert data is not None
        assert as_sent(decode_record(data)) == sent
        assert store.find_by_unique_key("StoreDelay", unique_key) is None


def test_each_message_is_found_by_key(store: MessageStore) -> None:
    """By each word of its keys, whenever it was stored or in that very millisecond, and not just after it."""
    asked = 0
    for sent, place in MESSAGES:
        for key in (sent.keys or "").split():
            for begin_ms, end_ms in ((0, TIME_MS_MAX), (place.store_timestamp_ms, place.store_timestamp_ms)):
                answer = store.query_keys(sent.topic, key, 32, begin_ms, end_ms)
                assert [as_sent(decode_record(data)) for data in answer.records] == [sent]
            assert store.query_keys(sent.topic, key, 32, place.store_timestamp_ms + 1, TIME_MS_MAX).records == []
            asked += 1
    assert asked == 22
    assert store.query_keys("StoreNormal", "key-8", 32, 0, TIME_MS_MAX).records == []


def test_each_queue_has_its_times(store: MessageStore) -> None:
    """Times of the first and last message, and offsets by the time of each, by one before all and one after all."""
    for topic, queue_id in QUEUES:
        expected = places(topic, queue_id)
        times = [place.store_timestamp_ms for place in expected]
        assert (store.min_offset(topic, queue_id), store.max_offset(topic, queue_id)) == (0, len(expected))
        assert store.store_time_range(topic, queue_id) == (times[0], times[-1])
        assert [store.store_time_of(topic, queue_id, place.queue_offset) for place in expected] == times
        for time_ms in {times[0] - 1, *times, times[-1] + 1}:
            first = sum(other_ms < time_ms for other_ms in times)
            assert store.offset_by_time(topic, queue_id, time_ms, "lower") == first
            last = sum(other_ms <= time_ms for other_ms in times) - 1
            assert store.offset_by_time(topic, queue_id, time_ms, "upper") == max(last, 0)


def test_appending_changes_nothing_older(
    java_directory: Path, open_store: OpenStore, send: Send, clock: list[int]
) -> None:
    """After appends to every queue and a clean stop, each record, unit, index entry and timer entry is as Java left it.

    So is every file of the broker's, which the store does not know.
    """
    before = {path: content(java_directory / path) for path in java_files()}
    del before[Path("config/timercheck")]  # says how far the timer has come, by the clock too: see test_timer_java
    index_entries = index_entries_of(java_directory)
    assert len(index_entries) == 44
    clock[0] = MESSAGES[-1][1].store_timestamp_ms + 60_000
    store = open_store(directory=java_directory, redispatch_tags_code=tags_code_of, **JAVA_SETTINGS)
    for number, (topic, queue_id) in enumerate(QUEUES):
        appended = send(
            store, topic, queue_id, b"ours", b"KEYS\x01ours-%d\x02UNIQ_KEY\x01OURS%d\x02" % (number, number)
        )
        assert appended.queue_offset == len(places(topic, queue_id))
    store.close()
    for path, data in before.items():
        with (java_directory / path).open("rb") as file:
            assert file.read(len(data)) == data, path
    after = index_entries_of(java_directory)
    assert after[: len(index_entries)] == index_entries
    assert len(after) == len(index_entries) + 2 * len(QUEUES)


def tags_code_of(topic: str, properties: bytes, store_timestamp_ms: int) -> int:
    """As the broker tells the store: in the schedule topic, with level 18 (2 h) alone, the time of delivery."""
    if topic == "SCHEDULE_TOPIC_XXXX":
        return store_timestamp_ms + 2 * 3600 * 1000
    return tag_hash(topic, properties, store_timestamp_ms)


def java_files() -> list[Path]:
    """What must not change, relative to the directory; headers of checkpoint and index, and index slots, may."""
    paths = [path.relative_to(VECTORS) for path in VECTORS.rglob("*") if path.is_file() and path.suffix != ".gz"]
    return sorted({*paths, Path("timerwheel")} - {Path("checkpoint"), Path("lock")})


def content(path: Path) -> bytes:
    """A file up to its last byte that is not zero."""
    return path.read_bytes().rstrip(b"\0")


def index_entries_of(directory: Path) -> list[bytes]:
    """The used entries of the index file that Java began, without the one at 0, which is never used."""
    header_and_slots = INDEX_HEADER_SIZE_BYTES + INDEX_SLOTS_SIZE_BYTES
    with (directory / INDEX).open("rb") as file:
        count = int.from_bytes(file.read(INDEX_HEADER_SIZE_BYTES)[36:40], "big")
        file.seek(header_and_slots + INDEX_ENTRY_SIZE_BYTES)
        entries = file.read((count - 1) * INDEX_ENTRY_SIZE_BYTES)
    return re.findall(rb"(?s).{20}", entries)
