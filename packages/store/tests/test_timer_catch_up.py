"""The timer's progress in its queue is moved behind what its log knows, before a Java broker reads it."""

from collections.abc import Callable

import pytest
from apogeemq.remoting_codec.message import encode_properties
from apogeemq.remoting_codec.record import decode_record
from apogeemq.store.message_store import AppendResult, MessageStore
from apogeemq.store.timer_catch_up import catch_up
from apogeemq.store.timer_store import TIMER_QUEUE

OUT_MS = 1_700_000_060_000
Put = Callable[[dict[str, str]], AppendResult]


@pytest.fixture
def store(open_store: Callable[..., MessageStore]) -> MessageStore:
    """An empty one."""
    return open_store()


@pytest.fixture
def put(store: MessageStore, send: Callable[..., AppendResult]) -> Put:
    """Append a record to the timer queue."""
    shared = {"TIMER_OUT_MS": str(OUT_MS), "REAL_TOPIC": "T"}
    return lambda properties: send(store, *TIMER_QUEUE, properties=encode_properties({**shared, **properties}))


def add(store: MessageStore, record: AppendResult, unique_key: str) -> None:
    store.timer.add(
        OUT_MS + 500,
        record.physical_offset,
        record.size_bytes,
        topic_hash=84,
        unique_key=unique_key.encode(),
        store_timestamp_ms=record.store_timestamp_ms,
    )


def pending(store: MessageStore) -> list[int]:
    """Queue offsets of the records that wait."""
    found = [store.record_at(entry.physical_offset) for entry in store.timer.live_before(store.written_offset)]
    return [decode_record(data).queue_offset for data in found if data is not None]


def test_what_has_a_timer_is_not_read_again(store: MessageStore, put: Put) -> None:
    """As after a crash: three were taken in, and the saved progress says none."""
    records = [put({"UNIQ_KEY": f"K{number}"}) for number in range(5)]
    for number, record in enumerate(records[:3]):
        add(store, record, f"K{number}")
    assert catch_up(store) == 3
    assert store.timer.queue_offset == 3
    assert pending(store) == [0, 1, 2]
    assert catch_up(store) == 0


@pytest.mark.parametrize("name", ["T+K0", "K0"])
def test_recalls_are_done_again(store: MessageStore, put: Put, name: str) -> None:
    """What they settled may be lost; only the message that is named, of those with the same time."""
    for record, key in ((put({"UNIQ_KEY": "K0"}), "K0"), (put({"UNIQ_KEY": "K1"}), "K1")):
        add(store, record, key)
    put({"UNIQ_KEY": "K2", "TIMER_DEL_UNIQKEY": name})
    add(store, put({"UNIQ_KEY": "K3"}), "K3")
    assert catch_up(store) == 4
    assert pending(store) == [1, 3]


def test_without_timers_nothing_is_known(store: MessageStore, put: Put) -> None:
    """Everything is left to who reads the queue."""
    put({"UNIQ_KEY": "K0"})
    assert catch_up(store) == 0
