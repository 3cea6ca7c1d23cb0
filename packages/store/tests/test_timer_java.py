"""The timer of a directory written by an Apache RocketMQ 5.3.3 broker: taken over, and left as that broker left it.

vectors_store/messages.json was decoded by an independent reader; one message of it waits for an hour.
"""

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from apogeemq.store.errors import LayoutInvalid
from apogeemq.store.files import RealDisk
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import MessageStore
from apogeemq.store.timer_config import TimerConfig
from apogeemq.store.timer_store import TimerStore

VECTORS = Path(__file__).parent / "vectors_store"
LOG_END = 7138
SMALL = TimerConfig(file_size_bytes=1120)
JAVA_SIZES = {"commit_log_file_size_bytes": 1 << 30, "consume_queue_file_units": 300_000}
(MESSAGE,) = (
    message
    for message in json.loads((VECTORS / "messages.json").read_text())
    if message["topic"] == "rmq_sys_wheel_timer"
)
OUT_MS = int(MESSAGE["properties"]["TIMER_OUT_MS"])
DUE_MS = OUT_MS + 1000
"""Java floored the time of delivery to the second before it, and hands a second out when it is over."""


def java_hash(text: str) -> int:
    """String.hashCode, as its documentation defines it."""
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the broker's directory, its wheel of the size that Java gave it."""
    directory = Path(shutil.copytree(VECTORS, tmp_path / "java"))
    wheel = gzip.decompress((directory / "timerwheel.gz").read_bytes())
    (directory / "timerwheel").write_bytes(wheel)
    return directory


def open_timer(directory: Path, log_end: int = LOG_END) -> TimerStore:
    return TimerStore.open(RealDisk(), directory, TimerConfig(), log_start=0, log_end=log_end, queue_end=1)


def test_the_pending_timer_comes_over(directory: Path) -> None:
    """It comes at the end of the second that Java put it into, with its record; the queue was read to its end."""
    assert MESSAGE["body"] == "deliver in an hour"
    timer = open_timer(directory)
    assert timer.pending_count == 1
    assert timer.queue_offset == 1
    assert timer.due(DUE_MS - 1, 10) == []
    (entry,) = timer.due(DUE_MS, 10)
    assert entry.deliver_ms == DUE_MS
    assert (entry.physical_offset, entry.size_bytes) == (MESSAGE["physicalOffset"], MESSAGE["size"])
    assert entry.topic_hash == java_hash(MESSAGE["properties"]["REAL_TOPIC"])
    assert not entry.is_rolled
    assert not entry.is_deletion
    timer.commit([entry])
    timer.close(DUE_MS)
    assert open_timer(directory).pending_count == 0


def test_what_java_wrote_stays(directory: Path) -> None:
    """Opened and closed before its time: timer log and wheel are byte for byte Java's, and its own words of timercheck
    differ in nothing but how far the clock has come."""
    java_check = (directory / "config/timercheck").read_bytes()
    read_time_ms, *rest = struct.unpack_from(">7q", java_check)
    now_ms = read_time_ms + 7777
    open_timer(directory).close(now_ms)
    assert struct.unpack_from(">7q", (directory / "config/timercheck").read_bytes()) == (
        now_ms // 1000 * 1000,
        *rest,
    )
    log = (directory / "timerlog/00000000000000000000").read_bytes()
    java_log = (VECTORS / "timerlog/00000000000000000000").read_bytes()
    assert len(log) == 104_857_600
    assert log[: len(java_log)] == java_log
    assert log.count(0, len(java_log)) == len(log) - len(java_log)
    wheel = (directory / "timerwheel").read_bytes()
    java_wheel = gzip.decompress((VECTORS / "timerwheel.gz").read_bytes())
    assert len(wheel) == 38_707_200
    assert wheel[: len(java_wheel)] == java_wheel
    assert wheel.count(0, len(java_wheel)) == len(wheel) - len(java_wheel)


def test_ours_follows_in_javas_chain(directory: Path) -> None:
    """A timer of the same second: its unit leads back to Java's, the slot counts two and ends with ours, and Java
    would hand it out at the end of the second in which it is due."""
    timer = open_timer(directory, log_end=10_000)
    key = b"FD0000000000000000000000000000025F5030946E096F3323720013"
    for deliver_ms, offset in ((OUT_MS + 500, 8000), (DUE_MS, 8400), (DUE_MS + 1, 8800)):
        timer.add(deliver_ms, offset, 400, topic_hash=-5, unique_key=key, store_timestamp_ms=OUT_MS - 99)
    timer.close(OUT_MS)
    units = (directory / "timerlog/00000000000000000000").read_bytes()[: 4 * 52]
    fields = [struct.unpack_from(">iqiqiqii", units, at) for at in range(52, 4 * 52, 52)]
    assert [unit[:3] for unit in fields] == [(52, 0, 1), (52, 52, 1), (52, -1, 1)]
    assert [(unit[3] + unit[4]) // 1000 * 1000 + 1000 for unit in fields] == [DUE_MS, DUE_MS, DUE_MS + 1000]
    assert [unit[5:] for unit in fields] == [(8000, 400, -5), (8400, 400, -5), (8800, 400, -5)]
    wheel = (directory / "timerwheel").read_bytes()
    slot = OUT_MS // 1000
    at = slot % 1_209_600 * 32
    assert struct.unpack_from(">qqqii", wheel, at) == (slot, 0, 104, 3, 0)
    assert struct.unpack_from(">qqqii", wheel, at + 32) == (slot + 1, 156, 156, 1, 0)
    assert open_timer(directory, log_end=10_000).pending_count == 4


def test_a_settled_unit_deletes_nothing_at_java(directory: Path) -> None:
    """Java reads magic 12 as good (no bit above 15), as a deletion (bit 4) and not as a roll (bit 2)."""
    timer = open_timer(directory)
    timer.commit(timer.due(DUE_MS, 1))
    timer.close(DUE_MS)
    (magic,) = struct.unpack_from(">i", (directory / "timerlog/00000000000000000000").read_bytes(), 12)
    assert magic == 12


def java_units(*units: tuple[int, int, int]) -> bytes:
    """(magic, time ms, physical offset) as Java writes them."""
    return b"".join(
        struct.pack(">iqiqiqiiq", 52, -1, magic, time_ms - 5000, 5000, offset, 100, 1, 0)
        for magic, time_ms, offset in units
    )


def java_disk(units: bytes, *, read_time_ms: int, queue_offset: int) -> MemoryDisk:
    """A directory with these units, as Java leaves it after a stop."""
    disk = MemoryDisk()
    disk.write_file(Path("/store/timerlog/00000000000000000000"), units)
    check = struct.pack(">7q", read_time_ms, len(units), queue_offset, queue_offset, 0, 1, 2)
    disk.write_file(Path("/store/config/timercheck"), check + bytes(4096 - len(check)))
    return disk


def open_java(disk: MemoryDisk) -> TimerStore:
    return TimerStore.open(disk, Path("/store"), SMALL, log_start=0, log_end=100_000, queue_end=99)


def due_of(timer: TimerStore, now_ms: int) -> list[tuple[int, int]]:
    """(deliver ms, physical offset) of what is due."""
    return [(entry.deliver_ms, entry.physical_offset) for entry in timer.due(now_ms, 10)]


def test_slots_that_java_was_done_with_stay_done() -> None:
    """Its read time tells; and it goes on to tell after we have come further, or back with a late timer."""
    units = java_units((1, 50_000, 0), (1, 60_000, 100), (1, 61_000, 200))
    disk = java_disk(units, read_time_ms=60_000, queue_offset=3)
    timer = open_java(disk)
    assert due_of(timer, 62_000) == [
        (61_000, 100),
        (62_000, 200),
    ]
    timer.add(40_000, 300, 100, topic_hash=1, unique_key=b"", store_timestamp_ms=62_000)
    timer.sync(62_000)
    again = open_java(disk)
    assert [entry.physical_offset for entry in again.due(62_000, 10)] == [300, 100, 200]


def test_java_after_us_is_believed() -> None:
    """When a Java broker was the last to write, its read time counts for our units too, and its units need no check."""
    disk = java_disk(java_units((1, 50_000, 0)), read_time_ms=50_000, queue_offset=1)
    timer = open_java(disk)
    for deliver_ms, offset in ((52_500, 100), (70_500, 200)):
        timer.add(deliver_ms, offset, 100, topic_hash=1, unique_key=b"", store_timestamp_ms=50_000)
    timer.close(50_000)
    log = disk.open_segment(Path("/store/timerlog/00000000000000000000"), SMALL.file_size_bytes)
    log.write(156, java_units((1, 80_000, 300)))
    check = disk.files[Path("/store/config/timercheck")].data
    check[:32] = struct.pack(">4q", 60_000, 208, 4, 4)
    again = open_java(disk)
    assert again.queue_offset == 4
    assert due_of(again, 90_000) == [
        (70_500, 200),
        (81_000, 300),
    ]


def test_without_javas_progress_its_units_are_not_believed() -> None:
    """A unit without a check behind what we synced is what a crash leaves of one of ours."""
    disk = java_disk(java_units((1, 50_000, 0)), read_time_ms=50_000, queue_offset=1)
    open_java(disk).close(50_000)
    log = disk.open_segment(Path("/store/timerlog/00000000000000000000"), SMALL.file_size_bytes)
    log.write(52, java_units((1, 80_000, 300)))
    assert open_java(disk).pending_count == 1


def test_rolled_timers_and_deletions_are_told_apart() -> None:
    """Java's rolls are due when it meant to look again; its marks recall what they name and are delivered to nobody."""
    units = java_units((1, 60_000, 0), (1, 60_000, 100), (3, 61_000, 200), (5, 60_000, 300))
    timer = open_java(java_disk(units, read_time_ms=60_000, queue_offset=4))
    (mark,) = timer.pending_deletions()
    assert mark.physical_offset == 300
    assert timer.pending_count == 4
    assert timer.recall(mark.deliver_ms, b"key of 100", lambda entry: entry.physical_offset == 100)
    timer.commit([mark])
    entries = timer.due(62_000, 10)
    assert [(entry.physical_offset, entry.is_rolled) for entry in entries] == [(0, False), (200, True)]
    assert timer.pending_count == 2


def test_a_wheel_without_its_log_is_refused() -> None:
    """Java says that it had synced timers, and there are none: somebody took them away."""
    disk = java_disk(java_units((1, 50_000, 0)), read_time_ms=50_000, queue_offset=1)
    disk.remove(Path("/store/timerlog/00000000000000000000"))
    with pytest.raises(LayoutInvalid, match="file is missing"):
        open_java(disk)


def test_the_store_opens_its_timer(directory: Path, open_store: Callable[..., MessageStore]) -> None:
    """With the log's ends and the queue's, and closes it: a Java broker finds its wheel."""
    (directory / "timerwheel").unlink()
    store = open_store(directory=directory, **JAVA_SIZES)
    assert store.timer.pending_count == 1
    assert store.timer.queue_offset == 1
    record = store.record_at(store.timer.due(DUE_MS, 1)[0].physical_offset)
    assert record is not None
    assert b"deliver in an hour" in record
    store.close()
    assert (directory / "timerwheel").stat().st_size == 38_707_200
