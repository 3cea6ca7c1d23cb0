"""A directory written by an Apache RocketMQ 5.3.3 broker: opened, read to the last message, continued.

vectors_store/README.md tells what the broker was sent; messages.json was decoded by an independent reader.
"""

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.record import decode_records, format_host
from apogeemq.store.config_files import ConfigFile
from apogeemq.store.consume_queue import UNIT
from apogeemq.store.files import RealDisk
from apogeemq.store.message_store import AppendResult, MessageStore, ReadStatus
from apogeemq.store.recovery import tag_hash

VECTORS = Path(__file__).parent / "vectors_store"
LOG_NAME = "commitlog/00000000000000000000"
JAVA_SIZES = {"commit_log_file_size_bytes": 1 << 30, "consume_queue_file_units": 300_000}

OpenStore = Callable[..., MessageStore]


class JavaMessage(msgspec.Struct, rename="camel"):
    """One entry of messages.json."""

    size: int
    topic: str
    queue_id: int
    queue_offset: int
    physical_offset: int
    flag: int
    sys_flag: int
    born_timestamp: int
    born_host: str
    store_timestamp: int
    store_host: str
    reconsume_times: int
    prepared_transaction_offset: int
    body_len: int
    properties: dict[str, str]
    body: str


def java_messages() -> list[JavaMessage]:
    return msgspec.convert(json.loads((VECTORS / "messages.json").read_text()), list[JavaMessage])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the broker's directory."""
    return Path(shutil.copytree(VECTORS, tmp_path / "java", ignore=shutil.ignore_patterns("*.gz")))


def read_queue(store: MessageStore, topic: str, queue_id: int) -> bytes:
    """All records of a queue, read as a cold reader does."""
    result = store.read(topic, queue_id, store.min_offset(topic, queue_id), 100, 1 << 20, None, cold_allowed=True)
    assert result.status is ReadStatus.FOUND
    assert result.next_offset == result.max_offset
    return b"".join(result.buffers)


def test_every_message_is_read_by_queue_and_offset(directory: Path, open_store: OpenStore) -> None:
    """Each queue gives its messages in order, every field as the independent reader saw it."""
    store = open_store(directory=directory, **JAVA_SIZES)
    messages = java_messages()
    assert len(messages) == 23
    by_queue: dict[tuple[str, int], list[JavaMessage]] = {}
    for message in messages:
        by_queue.setdefault((message.topic, message.queue_id), []).append(message)
    assert set(store.queues()) == set(by_queue)
    for (topic, queue_id), expected in by_queue.items():
        assert store.max_offset(topic, queue_id) == len(expected)
        records = decode_records(read_queue(store, topic, queue_id))
        for message, record in zip(expected, records, strict=True):
            assert record.topic == topic
            assert record.queue_id == queue_id
            assert record.queue_offset == message.queue_offset
            assert record.physical_offset == message.physical_offset
            assert record.size_bytes == message.size
            assert record.flag == message.flag
            assert record.sys_flag == message.sys_flag
            assert record.born_timestamp_ms == message.born_timestamp
            assert format_host(record.born_host) == message.born_host
            assert record.store_timestamp_ms == message.store_timestamp
            assert format_host(record.store_host) == message.store_host
            assert record.reconsume_times == message.reconsume_times
            assert record.prepared_transaction_offset == message.prepared_transaction_offset
            assert len(record.body) == message.body_len
            assert decode_properties(record.properties) == message.properties
            if message.sys_flag & 1:  # compressed by the client: messages.json only describes it
                assert zlib.decompress(record.body) == b"z" * 8192
            else:
                assert record.body == message.body.encode()


def test_units_are_those_that_java_wrote(directory: Path, open_store: OpenStore) -> None:
    """Built anew from the log, the consume queues are byte for byte Java's, delivery times included."""
    shutil.rmtree(directory / "consumequeue")

    def java_tags_code(topic: str, properties: bytes, store_timestamp_ms: int) -> int:
        if topic != "SCHEDULE_TOPIC_XXXX":
            return tag_hash(topic, properties, store_timestamp_ms)
        assert decode_properties(properties)["DELAY"] == "18"
        return store_timestamp_ms + 2 * 3600 * 1000

    store = open_store(directory=directory, redispatch_tags_code=java_tags_code, **JAVA_SIZES)
    store.close()
    java_files = sorted(path for path in (VECTORS / "consumequeue").rglob("*") if path.is_file())
    assert len(java_files) == 8
    for path in java_files:
        units = path.read_bytes()
        built = (directory / path.relative_to(VECTORS)).read_bytes()
        assert built[: len(units)] == units, path
        assert built[len(units) :] == bytes(300_000 * UNIT.size - len(units)), path


def test_a_clean_stop_by_java_is_recognised(directory: Path, open_store: OpenStore) -> None:
    """No abort file: clean; the whole small log is scanned, as its checkpoint knows no flushed offset."""
    store = open_store(directory=directory, **JAVA_SIZES)
    assert store.recovery.clean
    assert store.recovery.scanned_bytes == 7138
    assert store.recovery.dropped_bytes == 0
    assert store.recovery.truncated_at is None
    assert store.recovery.queue_units_rebuilt == 23
    assert store.recovery.irregular_records == 0
    assert store.written_offset == store.flushed_offset == 7138


def test_a_crash_of_java_is_recovered(directory: Path, open_store: OpenStore) -> None:
    """With an abort file the same messages are there."""
    (directory / "abort").write_text("4711")
    store = open_store(directory=directory, **JAVA_SIZES)
    assert not store.recovery.clean
    assert store.recovery.queue_units_rebuilt == 23
    assert len(decode_records(read_queue(store, "StoreNormal", 1))) == 8


def test_continuing_changes_no_older_byte(
    directory: Path, open_store: OpenStore, send: Callable[..., AppendResult]
) -> None:
    """New messages follow the old ones in log and queue; what Java wrote stays; files have their full size."""
    store = open_store(directory=directory, **JAVA_SIZES)
    results = [send(store, "StoreNormal", 0, b"new %d" % n) for n in range(3)]
    assert [result.queue_offset for result in results] == [6, 7, 8]
    assert results[0].physical_offset == 7138
    assert min(result.store_timestamp_ms for result in results) >= java_messages()[-1].store_timestamp
    store.close()

    log = directory / LOG_NAME
    assert log.stat().st_size == 1 << 30
    with log.open("rb") as file:
        assert file.read(7138) == (VECTORS / LOG_NAME).read_bytes()
    queue = directory / "consumequeue/StoreNormal/0/00000000000000000000"
    assert queue.stat().st_size == 6_000_000
    assert queue.read_bytes()[:120] == (VECTORS / "consumequeue/StoreNormal/0/00000000000000000000").read_bytes()

    again = open_store(directory=directory, **JAVA_SIZES)
    assert again.recovery.clean
    assert again.recovery.scanned_bytes == 0
    bodies = [record.body for record in decode_records(read_queue(again, "StoreNormal", 0))]
    assert bodies[-3:] == [b"new 0", b"new 1", b"new 2"]
    assert len(bodies) == 9


def test_tags_are_found_by_java_hash(directory: Path, open_store: OpenStore) -> None:
    """The hash of "TagA" that Java left in the units selects what was sent with TagA."""
    store = open_store(directory=directory, **JAVA_SIZES)
    tag_a = 2_598_919  # "TagA".hashCode() in Java: ((84*31+97)*31+103)*31+65
    result = store.read("StoreNormal", 1, 0, 32, 1 << 20, frozenset({tag_a}), cold_allowed=True)
    assert [record.body for record in decode_records(b"".join(result.buffers))] == [b"two keys"]
    assert result.next_offset == 8


def test_search_by_time(directory: Path, open_store: OpenStore) -> None:
    """Every store timestamp of a queue leads back to its message, both ways."""
    store = open_store(directory=directory, **JAVA_SIZES)
    messages = [message for message in java_messages() if (message.topic, message.queue_id) == ("StoreNormal", 0)]
    for message in messages:
        for boundary in ("lower", "upper"):
            assert store.offset_by_time("StoreNormal", 0, message.store_timestamp, boundary) == message.queue_offset
        assert store.store_time_of("StoreNormal", 0, message.queue_offset) == message.store_timestamp


def test_java_config_files_are_read() -> None:
    """The broker's JSON files, bare integer keys and all, are accepted as they are."""
    for path in sorted((VECTORS / "config").glob("*.json")):
        assert ConfigFile(RealDisk(), path).load() == path.read_bytes()
