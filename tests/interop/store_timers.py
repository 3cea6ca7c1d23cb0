"""Timers put into a stopped store through its own timer, in the order that decision 0016 gives a broker.

So a test says to the millisecond what waits, what was delivered, and what was settled when the kill came.
"""

import dataclasses
import os
import pathlib
import signal
import time
from collections.abc import Sequence

from apogeemq.remoting_codec.message import encode_properties, find_property, java_string_hash, tags_code
from apogeemq.remoting_codec.record import decode_record
from apogeemq.store.delivery_times import tags_code_rule
from apogeemq.store.message_store import MessageStore
from apogeemq.store.timer_store import TIMER_QUEUE

from tests.interop.shared_store import STORE_CONFIG
from tests.interop.store_ledger import DELAY_LEVELS

TIMED = "ProofTimed"
SLOT_MS = 1000
"""timerPrecisionMs of Apache's."""


@dataclasses.dataclass(frozen=True)
class Timer:
    """A message that waits for its millisecond; or did, and was delivered, and must not come again."""

    unique_key: str
    deliver_ms: int
    is_delivered: bool = False

    @property
    def body(self) -> bytes:
        return f"{self.unique_key} at {self.deliver_ms}".encode()


def open_store(directory: pathlib.Path) -> MessageStore:
    """As a broker of ours opens it."""
    return MessageStore.open(
        directory,
        STORE_CONFIG,
        now_ms=lambda: time.time_ns() // 1_000_000,
        redispatch_tags_code=tags_code_rule(DELAY_LEVELS),
    )


def write_and_die(directory: pathlib.Path, timers: Sequence[Timer]) -> None:
    """Store the messages, take them into the timer, settle what was delivered; then end by SIGKILL."""
    store = open_store(directory)
    for timer in timers:
        slot_ms = (timer.deliver_ms - 1) // SLOT_MS * SLOT_MS
        properties = {
            "TIMER_OUT_MS": str(slot_ms),
            "TIMER_DELIVER_MS": str(timer.deliver_ms),
            "UNIQ_KEY": timer.unique_key,
            "KEYS": f"key-{timer.unique_key}",
            "TAGS": "TagA",
            "REAL_TOPIC": TIMED,
            "REAL_QID": "0",
        }
        store.append(
            *TIMER_QUEUE,
            0,
            0,
            timer.deliver_ms,
            STORE_CONFIG.store_host,
            0,
            0,
            timer.body,
            encode_properties(properties),
            tags_code("TagA"),
        )
    read_timer_queue(store)
    for entry in list(store.timer.live_before(store.written_offset)):
        record = store.record_at(entry.physical_offset)
        assert record is not None
        if any(timer.is_delivered for timer in timers if timer.body == decode_record(record).body):
            store.timer.commit([entry])
    os.kill(os.getpid(), signal.SIGKILL)


def read_timer_queue(store: MessageStore) -> None:
    """Take into the timer what stands in its queue from where it was last read."""
    for queue_offset in range(store.timer.queue_offset, store.max_offset(*TIMER_QUEUE)):
        unit = store.queue_unit(*TIMER_QUEUE, queue_offset)
        assert unit is not None
        data = store.record_at(unit[0])
        assert data is not None
        record = decode_record(data)
        deliver_ms = find_property(record.properties, b"TIMER_DELIVER_MS")
        out_ms = find_property(record.properties, b"TIMER_OUT_MS")
        assert out_ms is not None
        store.timer.add(
            int(out_ms) + SLOT_MS if deliver_ms is None else int(deliver_ms),
            unit[0],
            unit[1],
            topic_hash=java_string_hash(TIMED),
            unique_key=find_property(record.properties, b"UNIQ_KEY") or b"",
            store_timestamp_ms=record.store_timestamp_ms,
        )
        store.timer.queue_offset = queue_offset + 1


def pending_bodies(store: MessageStore) -> set[bytes]:
    """Of all that still waits."""
    found = [store.record_at(entry.physical_offset) for entry in store.timer.live_before(store.written_offset)]
    return {decode_record(data).body for data in found if data is not None}
