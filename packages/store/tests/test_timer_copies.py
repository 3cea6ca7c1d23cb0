"""Copies of messages that waited, found in the log: whatever lies between and around them."""

from pathlib import Path
from random import Random

import pytest
from apogeemq.remoting_codec.message import java_string_hash
from apogeemq.store.config import StoreConfig
from apogeemq.store.errors import OffsetOutOfRange
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import MessageStore
from apogeemq.store.timer_copies import TimerCopy, copies_from

HOST = b"\x7f\x00\x00\x01\x00\x00\x2a\x9f"
NAME = b"APOGEEMQ_TIMER_OFFSET"


def open_store(file_size_bytes: int = 64 << 10) -> MessageStore:
    config = StoreConfig(
        store_host=HOST,
        commit_log_file_size_bytes=file_size_bytes,
        reserve_ahead_bytes=4096,
        message_size_bytes_max=file_size_bytes // 2,
    )
    return MessageStore.open(Path("/store"), config, now_ms=lambda: 1, disk=MemoryDisk(), background=False)


def append(store: MessageStore, body: bytes = b"body", topic: str = "T", **properties: object) -> int:
    text = "".join(f"{key}\x01{value}\x02" for key, value in properties.items()).encode()
    return store.append(topic, 0, 0, 0, 1, HOST, 0, 0, body, text, 0).physical_offset


def all_copies(store: MessageStore, start: int = 0) -> list[TimerCopy]:
    found, end = [], store.written_offset
    while start < end:
        copies, start = copies_from(store, start, end)
        found += copies
    assert start == end
    return found


def test_a_copy_names_its_record_topic_and_key() -> None:
    """Also one that was stored anew while it waits, under its real topic."""
    store = open_store()
    append(store)
    append(store, UNIQ_KEY="K", APOGEEMQ_TIMER_OFFSET=77)
    append(store, topic="rmq_sys_wheel_timer", REAL_TOPIC="U", APOGEEMQ_TIMER_OFFSET=78)
    append(store)
    assert all_copies(store) == [
        TimerCopy(77, java_string_hash("T"), b"K"),
        TimerCopy(78, java_string_hash("U"), b""),
    ]


def test_a_body_with_that_name_is_no_copy() -> None:
    """Nor a property that is no offset, nor one whose name only contains it."""
    store = open_store()
    append(store, NAME + b"\x015\x02")
    append(store, APOGEEMQ_TIMER_OFFSET="x")
    append(store, APOGEEMQ_TIMER_OFFSET="9" * 19)
    append(store, X_APOGEEMQ_TIMER_OFFSET=5)
    append(store, NAME, UNIQ_KEY="K", APOGEEMQ_TIMER_OFFSET=6)
    assert [copy.timer_offset for copy in all_copies(store)] == [6]


def test_every_copy_is_found_over_many_files() -> None:
    """Against a plain list of what was stored: random sizes, files that end anywhere."""
    random, store = Random(3), open_store()
    expected: list[tuple[int, int]] = []
    for number in range(2_000):
        body = bytes(random.randrange(0, 900))
        if random.random() < 0.1:
            expected.append((append(store, body, APOGEEMQ_TIMER_OFFSET=number), number))
        else:
            append(store, body)
    assert store.written_offset > 8 * (64 << 10)
    assert [copy.timer_offset for copy in all_copies(store)] == [number for _, number in expected]
    start = expected[len(expected) // 2][0]
    later = [number for offset, number in expected if offset >= start]
    assert [copy.timer_offset for copy in all_copies(store, start)] == later


def test_a_record_longer_than_a_piece_is_looked_at_whole() -> None:
    """Messages may be 4 MiB; what is read at a time is one."""
    store = open_store(8 << 20)
    append(store, bytes(3 << 20), APOGEEMQ_TIMER_OFFSET=1)
    append(store, bytes(3 << 20))
    append(store, APOGEEMQ_TIMER_OFFSET=2)
    assert [copy.timer_offset for copy in all_copies(store)] == [1, 2]


def test_what_is_not_there_is_refused() -> None:
    """Whoever asks beyond the log's end takes another log for this one."""
    store = open_store()
    append(store)
    with pytest.raises(OffsetOutOfRange):
        copies_from(store, store.written_offset, store.written_offset + 1)
    assert copies_from(store, store.written_offset, store.written_offset) == ([], store.written_offset)
