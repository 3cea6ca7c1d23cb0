"""The index file of an Apache RocketMQ 5.3.3 broker: read, built anew from the log, continued."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from apogeemq.remoting_codec.record import decode_record
from apogeemq.store.index_file import ENTRY, HEADER
from apogeemq.store.message_store import AppendResult, MessageStore

OpenStore = Callable[..., MessageStore]
Send = Callable[..., AppendResult]

VECTORS = Path(__file__).parent / "vectors_store"
NAME = "20261122141341752"
SETTINGS = {"commit_log_file_size_bytes": 1 << 30, "consume_queue_file_units": 300_000, "index_enabled": True}
ENTRIES_START = 40 + 5_000_000 * 4
FOREVER_MS = 1 << 60


class JavaMessage(msgspec.Struct, rename="camel"):
    """What messages.json, written by an independent reader, says of a message."""

    topic: str
    physical_offset: int
    properties: dict[str, str]


def java_messages() -> list[JavaMessage]:
    return msgspec.convert(json.loads((VECTORS / "messages.json").read_text()), list[JavaMessage])


@pytest.fixture
def java_index() -> bytes:
    """The file, cut after its last entry."""
    return gzip.decompress((VECTORS / "index" / f"{NAME}.gz").read_bytes())


@pytest.fixture
def directory(tmp_path: Path, java_index: bytes) -> Path:
    """A copy of the broker's directory with its index unpacked."""
    directory = Path(shutil.copytree(VECTORS, tmp_path / "java"))
    (directory / "index" / f"{NAME}.gz").unlink()
    (directory / "index" / NAME).write_bytes(java_index)
    return directory


def assert_every_key_finds_its_messages(store: MessageStore) -> None:
    """By each word of KEYS and each unique key, exactly the messages that have it, newest first."""
    expected: dict[tuple[str, str], list[int]] = {}
    for message in java_messages():
        keys = {*message.properties.get("KEYS", "").split(), message.properties.get("UNIQ_KEY", "")} - {""}
        for key in keys:
            expected.setdefault((message.topic, key), []).insert(0, message.physical_offset)
    assert {key for _, key in expected} >= {"key-0", "shared-1", "shared-2", "big", "batch-2", "fifo-1", "delay-ms"}
    for (topic, key), offsets in expected.items():
        found = [
            decode_record(data).physical_offset for data in store.query_keys(topic, key, 64, 0, FOREVER_MS).records
        ]
        assert found == offsets, (topic, key)
    for message in java_messages():
        if "UNIQ_KEY" in message.properties:
            data = store.find_by_unique_key(message.topic, message.properties["UNIQ_KEY"])
            assert data is not None
            assert decode_record(data).properties == decode_record(data, check_crc=True).properties
            newest = expected[message.topic, message.properties["UNIQ_KEY"]][0]
            assert decode_record(data).physical_offset == newest


def test_every_key_is_found(directory: Path, open_store: OpenStore) -> None:
    """Java's file answers for every key and unique key that messages.json has."""
    assert_every_key_finds_its_messages(open_store(directory=directory, **SETTINGS))


def test_built_anew_it_is_byte_for_byte_javas(directory: Path, java_index: bytes, open_store: OpenStore) -> None:
    """Header, slots and entries built from the log alone are those that Java wrote; the name is the time of making."""
    shutil.rmtree(directory / "index")
    store = open_store(directory=directory, **SETTINGS)
    assert_every_key_finds_its_messages(store)
    store.close()
    (path,) = (directory / "index").iterdir()
    assert len(path.name) == 17
    assert path.stat().st_size == 420_000_040
    with path.open("rb") as file:
        assert file.read(len(java_index)) == java_index


def test_continuing_changes_no_older_entry(
    directory: Path, java_index: bytes, open_store: OpenStore, send: Send
) -> None:
    """New entries follow Java's in the same file, which then has its full size."""
    store = open_store(directory=directory, **SETTINGS)
    send(store, "StoreNormal", 0, properties=b"KEYS\x01key-3 new\x02")
    assert len(store.query_keys("StoreNormal", "key-3", 64, 0, FOREVER_MS).records) == 2
    store.close()
    with (directory / "index" / NAME).open("rb") as file:
        header = HEADER.unpack(file.read(HEADER.size))
        file.seek(ENTRIES_START)
        entries = file.read(47 * ENTRY.size)
    assert header[5] == 47
    assert header[3] == 7138
    assert entries[: 45 * ENTRY.size] == java_index[ENTRIES_START:]
    assert [unit[1] for unit in ENTRY.iter_unpack(entries[45 * ENTRY.size :])] == [7138, 7138]
    assert_every_key_finds_its_messages_of_java(open_store(directory=directory, **SETTINGS))


def assert_every_key_finds_its_messages_of_java(store: MessageStore) -> None:
    """Key by key, the oldest answer is still Java's."""
    for message in java_messages():
        for key in message.properties.get("KEYS", "").split():
            records = store.query_keys(message.topic, key, 64, 0, FOREVER_MS).records
            assert message.physical_offset in [decode_record(data).physical_offset for data in records]


def test_after_a_crash_of_java_the_file_is_built_anew(directory: Path, open_store: OpenStore) -> None:
    """Its header may be ahead of its entries then: records later than the index timestamp come from the log."""
    (directory / "abort").write_text("4711")
    with (directory / "index" / NAME).open("r+b") as file:
        file.seek(ENTRIES_START + 10 * ENTRY.size)
        file.write(bytes(10 * ENTRY.size))
    assert_every_key_finds_its_messages(open_store(directory=directory, **SETTINGS))


def test_records_that_java_did_not_index_are_added(directory: Path, java_index: bytes, open_store: OpenStore) -> None:
    """A Java broker that ran with messageIndexEnable=false left no file: everything is indexed at the first opening."""
    (directory / "index" / NAME).unlink()
    assert_every_key_finds_its_messages(open_store(directory=directory, **SETTINGS))
