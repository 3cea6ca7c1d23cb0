"""Records of a closed store are found by offset, topic, key, id and time; damage on the way is told."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apogeemq.remoting_codec.record import Record
from apogeemq.store.errors import OffsetOutOfRange, RecordCorrupt
from apogeemq.store.log_walk import BadRange
from apogeemq.store.message_store import AppendResult, MessageStore
from apogeemq.store.queue_query import QueueFacts, queue_facts, queue_units
from apogeemq.store.record_query import RecordFilter, find_records, offset_of_message_id, record_at
from apogeemq.store.store_view import StoreView

VECTORS = Path(__file__).parent / "vectors_store"
JAVA = json.loads((VECTORS / "messages.json").read_text())


def offsets(view: StoreView, **wanted: Any) -> list[int]:
    found = list(find_records(view, RecordFilter(**wanted)))
    return [record.physical_offset for record in found if isinstance(record, Record)]


def java_offsets(fits: Callable[[dict[str, Any]], bool]) -> list[int]:
    return [message["physicalOffset"] for message in JAVA if fits(message)]


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({}, lambda message: True),
        ({"topic": "StoreNormal"}, lambda message: message["topic"] == "StoreNormal"),
        (
            {"topic": "StoreNormal", "queue_id": 1},
            lambda message: (message["topic"], message["queueId"]) == ("StoreNormal", 1),
        ),
        ({"key": "shared-2"}, lambda message: "shared-2" in message["properties"].get("KEYS", "").split()),
        (
            {"unique_key": JAVA[3]["properties"]["UNIQ_KEY"]},
            lambda message: message["properties"].get("UNIQ_KEY") == JAVA[3]["properties"]["UNIQ_KEY"],
        ),
        (
            {"physical_offset_min": 270, "physical_offset_max": 2152},
            lambda message: 270 <= message["physicalOffset"] <= 2152,
        ),
        (
            {"store_timestamp_min_ms": 1795356821962, "store_timestamp_max_ms": 1795356822304},
            lambda message: 1795356821962 <= message["storeTimestamp"] <= 1795356822304,
        ),
    ],
)
def test_java_messages_by_each_filter(wanted: dict[str, Any], fits: Callable[[dict[str, Any]], bool]) -> None:
    """Exactly those that an independent reader of the recorded log lists."""
    expected = java_offsets(fits)
    assert expected
    with StoreView.open(VECTORS) as view:
        assert offsets(view, **wanted) == expected


def test_one_record_by_offset_and_message_id() -> None:
    """An offset message id says where its record lies; one of another broker, and a unique key, point nowhere."""
    message = JAVA[4]
    with StoreView.open(VECTORS) as view:
        record = record_at(view, message["physicalOffset"])
        assert record.body.decode() == message["body"]
        good = f"7F000002000051AF{message['physicalOffset']:016X}"
        assert offset_of_message_id(view, good) == message["physicalOffset"]
        assert offset_of_message_id(view, good.replace("7F000002", "7F000003")) is None
        assert offset_of_message_id(view, message["properties"]["UNIQ_KEY"]) is None
        assert offset_of_message_id(view, "no id") is None
        with pytest.raises(RecordCorrupt, match="no record's head"):
            record_at(view, message["physicalOffset"] + 1)
        with pytest.raises(OffsetOutOfRange):
            record_at(view, 1 << 40)


def test_damage_is_told_and_passed_over(tmp_path: Path) -> None:
    """Every other record is listed."""
    directory = Path(shutil.copytree(VECTORS, tmp_path / "java"))
    log = directory / "commitlog" / f"{0:020d}"
    data = bytearray(log.read_bytes())
    data[JAVA[5]["physicalOffset"] + 90] ^= 1
    log.write_bytes(data)
    with StoreView.open(directory) as view:
        found = list(find_records(view, RecordFilter()))
    assert [record.physical_offset for record in found if isinstance(record, Record)] == java_offsets(
        lambda message: message["offset"] != JAVA[5]["offset"]
    )
    (bad,) = [step for step in found if isinstance(step, BadRange)]
    assert (bad.start, bad.end, bad.is_tail) == (JAVA[5]["physicalOffset"], JAVA[6]["physicalOffset"], False)


def test_files_before_the_range_are_left_out(
    tmp_path: Path,
    clock: list[int],
    open_store: Callable[..., MessageStore],
    send: Callable[..., AppendResult],
) -> None:
    """Damage in a file that cannot hold what is wanted is not even read."""
    store = open_store()
    results = []
    for n in range(40):
        clock[0] += 1000
        results.append(send(store, body=b"x" * 900 + b"%d" % n))
    store.close()
    log = tmp_path / "store/commitlog" / f"{0:020d}"
    log.write_bytes(b"?" * 8192)
    with StoreView.open(tmp_path / "store", commit_log_file_size_bytes=8192) as view:
        for wanted in (
            RecordFilter(physical_offset_min=results[30].physical_offset),
            RecordFilter(store_timestamp_min_ms=results[30].store_timestamp_ms),
        ):
            found = list(find_records(view, wanted))
            assert all(isinstance(record, Record) for record in found)
            assert len(found) == 10


def test_queues_and_their_units(
    tmp_path: Path, open_store: Callable[..., MessageStore], send: Callable[..., AppendResult]
) -> None:
    """Each queue's first message that is still there, its end, the times of both, and where each unit points."""
    store = open_store()
    results = [send(store, "T", n % 2, b"x" * 900) for n in range(40)]
    store.close()
    directory = tmp_path / "store"
    (directory / "commitlog" / f"{0:020d}").unlink()
    with StoreView.open(directory, commit_log_file_size_bytes=8192, consume_queue_file_size_bytes=320) as view:
        facts = [queue for queue in queue_facts(view) if isinstance(queue, QueueFacts)]
        left = [result for result in results if result.physical_offset >= 8192]
        assert [(queue.topic, queue.queue_id, queue.max_offset) for queue in facts] == [("T", 0, 20), ("T", 1, 20)]
        assert min(queue.min_offset for queue in facts) == min(result.queue_offset for result in left)
        assert facts[0].store_timestamp_min_ms == left[0].store_timestamp_ms
        units = list(queue_units(view, "T", 1, 15))
        assert [(unit.queue_offset, unit.physical_offset, unit.size_bytes) for unit in units] == [
            (result.queue_offset, result.physical_offset, result.size_bytes) for result in results[31::2]
        ]
        assert list(queue_units(view, "T", 9)) == []
