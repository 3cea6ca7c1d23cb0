"""What a store finds by key after crashes, at every moment one can strike, and what it rebuilds.

The answer must not depend on what became of the index files: keys are in the log.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import pytest
from apogeemq.remoting_codec.message import find_property
from apogeemq.remoting_codec.record import decode_record
from apogeemq.store.config import StoreConfig
from apogeemq.store.errors import DiskFull
from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss
from apogeemq.store.files import Disk
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import AppendResult, MessageStore
from apogeemq.store.retention import RetentionConfig

OpenStore = Callable[[Disk, StoreConfig], MessageStore]
HOST = b"\x7f\x00\x00\x01\x00\x00\x2a\x9f"
Send = Callable[..., AppendResult]

INDEX = Path("/store/index")
SMALL = StoreConfig(
    store_host=HOST,
    commit_log_file_size_bytes=4096,
    consume_queue_file_units=16,
    message_size_bytes_max=2048,
    reserve_ahead_bytes=2048,
    index_enabled=True,
    index_slots=5,
    index_entries_max=8,
)
# Header, slots and entries lie in several sectors, which a power loss tears apart; a file takes a dozen records.
SPREAD = msgspec.structs.replace(SMALL, index_slots=300, index_entries_max=31)
FOREVER_MS = 1 << 60
WORDS = ["all", "even", "odd"]


@pytest.fixture
def open_store(clock: list[int]) -> Callable[[Disk, StoreConfig], MessageStore]:
    """Open a store without threads, which nobody closes: mostly it dies."""

    def open_it(disk: Disk, config: StoreConfig) -> MessageStore:
        return MessageStore.open(Path("/store"), config, now_ms=lambda: clock[0], disk=disk, background=False)

    return open_it


def send_keyed(store: MessageStore, send: Send, number: int) -> AppendResult:
    """A message with a unique key and two words; every fifth has no key at all."""
    properties = f"KEYS\x01all {WORDS[1 + number % 2]}\x02UNIQ_KEY\x01id-{number}\x02" if number % 5 else ""
    return send(store, "Topic", 0, b"%d" % number + b"." * 150, properties.encode())


def offsets_by_scan(store: MessageStore, key: str) -> list[int]:
    """The twin: every record of the queue looked at, newest first."""
    found: list[int] = []
    at = store.min_offset("Topic", 0)
    while at < store.max_offset("Topic", 0):
        unit = store.queue_unit("Topic", 0, at)
        assert unit is not None
        data = store.record_at(unit[0])
        assert data is not None
        properties = decode_record(data).properties
        words = (find_property(properties, b"KEYS") or b"").split()
        if key.encode() in [*words, find_property(properties, b"UNIQ_KEY")]:
            found.insert(0, unit[0])
        at += 1
    return found


def assert_keys_are_found(store: MessageStore) -> None:
    """Every query gives what a look at every record gives."""
    for key in [*WORDS, *(f"id-{n}" for n in range(40))]:
        answer = store.query_keys("Topic", key, 64, 0, FOREVER_MS)
        assert [decode_record(data).physical_offset for data in answer.records] == offsets_by_scan(store, key), key


def use(store: MessageStore, send: Send, clock: list[int], first: int) -> None:
    """What a broker does with a store: append, write, sync."""
    for number in range(first, first + 14):
        send_keyed(store, send, number)
        clock[0] += [1, 600, 1, 61_000][number % 4]
        if number % 2:
            store.flush_once()


@pytest.mark.parametrize(("seed", "config"), [(0, SMALL), (1, SMALL), (2, SPREAD), (3, SPREAD), (4, SPREAD)])
def test_power_loss_at_every_change(
    open_store: OpenStore, send: Send, clock: list[int], seed: int, config: StoreConfig
) -> None:
    """Wherever it strikes, and strikes again while the store is opened: what the log has is found, and goes on so."""
    changes, struck = seed, True
    while struck:
        disk = FaultyDisk(Random(changes * 10 + seed))
        struck = False
        try:
            store = open_store(disk, config)
            use(store, send, clock, 0)
            disk.lose_power_after(changes)
            use(store, send, clock, 14)
            store.close()
        except PowerLoss:
            struck = True
        disk.restart()
        if struck:
            disk.lose_power_after(changes % 7)
            try:
                open_store(disk, config).close()
            except PowerLoss:
                disk.restart()
            disk.kill_process()
        store = open_store(disk, config)
        assert_keys_are_found(store)
        send_keyed(store, send, 1)
        clock[0] += 61_000
        store.flush_once()
        assert_keys_are_found(store)
        store.close()
        changes += 6


def test_killed_at_every_step(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """kill -9: the page cache stays, so headers, slots and entries are of different ages."""
    disk = FaultyDisk(Random(1))
    for number in range(40):
        store = open_store(disk, SMALL)
        send_keyed(store, send, number)
        clock[0] += [1, 600, 61_000][number % 3]
        if number % 2:
            store.flush_once()
        send_keyed(store, send, number + 40)
        disk.kill_process()
    assert_keys_are_found(open_store(disk, SMALL))


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("lost", ["all", "last"])
def test_lost_files_are_built_anew(open_store: OpenStore, send: Send, clock: list[int], clean: bool, lost: str) -> None:
    """All files or the newest: what is found is the same, and so are the bytes when all are new."""
    disk = FaultyDisk(Random(2))
    store = open_store(disk, SMALL)
    use(store, send, clock, 0)
    use(store, send, clock, 14)
    if clean:
        store.close()
    else:
        clock[0] += 61_000
        store.flush_once()
        disk.kill_process()
    names = disk.list_dir(INDEX)
    before = [bytes(disk.files[INDEX / name].data) for name in names]
    assert len(names) > 5
    for name in names if lost == "all" else names[-1:]:
        disk.remove(INDEX / name)
    store = open_store(disk, SMALL)
    store.close()
    if lost == "all":
        assert [bytes(disk.files[INDEX / name].data) for name in disk.list_dir(INDEX)] == before
    assert_keys_are_found(open_store(disk, SMALL))


def test_what_came_while_the_index_was_off_is_added(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """Switched on again, the store reads the log from the last record that the index has."""
    disk = FaultyDisk(Random(3))
    store = open_store(disk, SMALL)
    use(store, send, clock, 0)
    store.close()
    clock[0] += 5000
    store = open_store(disk, msgspec.structs.replace(SMALL, index_enabled=False))
    send_keyed(store, send, 21)
    assert store.query_keys("Topic", "all", 64, 0, FOREVER_MS).records == []
    assert store.find_by_unique_key("Topic", "id-1") is None
    store.close()
    store = open_store(disk, SMALL)
    assert_keys_are_found(store)
    assert store.query_keys("Topic", "id-21", 1, 0, FOREVER_MS).records != []


@pytest.mark.parametrize("clean", [True, False])
def test_a_crash_in_the_middle_of_building_anew(
    open_store: OpenStore, send: Send, clock: list[int], clean: bool
) -> None:
    """A checkpoint that calls the index complete must not outlive the files that were."""
    config = msgspec.structs.replace(SPREAD, index_entries_max=500)
    is_built, changes = False, 0
    while not is_built:
        disk = FaultyDisk(Random(changes))
        store = open_store(disk, config)
        use(store, send, clock, 0)
        use(store, send, clock, 14)
        if clean:
            store.close()
        else:
            clock[0] += 61_000
            store.flush_once()
            disk.kill_process()
        for name in disk.list_dir(INDEX):
            disk.remove(INDEX / name)
        disk.sync_dir(INDEX)
        disk.lose_power_after(changes)
        try:
            open_store(disk, config)
            is_built = True
        except PowerLoss:
            disk.restart()
        disk.kill_process()
        assert_keys_are_found(open_store(disk, config))
        changes += 1
    assert changes > 10


def test_opening_again_reads_nothing_of_the_log(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """After a clean stop with the index complete the log is not scanned, be its last messages without keys."""
    disk = MemoryDisk()
    store = open_store(disk, SMALL)
    use(store, send, clock, 0)
    for _ in range(40):
        send(store, "Topic")
    store.close()
    assert open_store(disk, SMALL).recovery.scanned_bytes == 0


def test_a_log_that_lost_its_end_takes_the_keys_along(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """Index entries beyond the end of the log go: other records will lie there, and must be indexed."""
    disk = FaultyDisk(Random(5))
    store = open_store(disk, SMALL)
    results = [send_keyed(store, send, number) for number in range(1, 12)]
    clock[0] += 61_000
    store.flush_once()
    disk.kill_process()
    cut = results[6].physical_offset
    log = disk.files[Path("/store/commitlog/00000000000000000000")]
    log.data[cut:] = bytes(len(log.data) - cut)
    checkpoint = disk.files[Path("/store/checkpoint")]
    checkpoint.data[24:32] = cut.to_bytes(8, "big")
    store = open_store(disk, SMALL)
    assert store.written_offset == cut
    for number in (31, 32, 33, 34, 36):
        send_keyed(store, send, number)
    assert_keys_are_found(store)


def test_a_full_disk_stops_appends_before_keys_are_lost(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """DiskFull, with nothing stored, as soon as keys in memory reach their bound; with room everything is found."""
    disk = MemoryDisk()
    config = msgspec.structs.replace(
        SMALL, index_tail_size_bytes_max=300, commit_log_file_size_bytes=1 << 16, reserve_ahead_bytes=1 << 16
    )
    store = open_store(disk, config)
    send_keyed(store, send, 1)
    clock[0] += 600
    store.flush_once()
    disk.capacity_bytes = disk.used_bytes()
    for stored in range(40):
        if len(store.query_keys("Topic", "all", 64, 0, FOREVER_MS).records) >= 6:
            break
        send_keyed(store, send, 2 + stored)
    with pytest.raises(DiskFull, match="index"):
        send_keyed(store, send, 39)
    with pytest.raises(DiskFull, match="index"):
        store.append_batch("Topic", 0, 0, 1, HOST, [(0, b"", b"", 0)])
    clock[0] += 600
    store.flush_once()
    assert store.is_writable
    disk.capacity_bytes = None
    send_keyed(store, send, 39)
    assert store.max_offset("Topic", 0) == stored + 2, "one before, one after, and those that found room"
    assert_keys_are_found(store)
    store.close()
    assert_keys_are_found(open_store(disk, config))


def test_a_real_directory_from_its_first_message_on(tmp_path: Path, clock: list[int], send: Send) -> None:
    """Empty, it has no index; with the first key there is a sparse file, which survives a death without a stop."""
    config = msgspec.structs.replace(SMALL, index_slots=1000, index_entries_max=1_000_000)

    def open_it() -> MessageStore:
        return MessageStore.open(tmp_path / "store", config, now_ms=lambda: clock[0], background=False)

    open_it().close()
    assert not (tmp_path / "store" / "index").exists()
    store = open_it()
    send_keyed(store, send, 1)
    clock[0] += 61_000
    store.flush_once()
    send_keyed(store, send, 2)
    store._parts.let_go()
    store = open_it()
    assert not store.recovery.clean
    assert_keys_are_found(store)
    store.close()
    (path,) = (tmp_path / "store" / "index").iterdir()
    assert path.stat().st_size == 40 + 4 * 1000 + 20 * 1_000_000
    assert path.stat().st_blocks * 512 < 100_000


def test_index_files_follow_the_log(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """When retention takes the log's files, those of the index that speak of nothing else go; what is left is found."""
    disk = MemoryDisk()
    config = msgspec.structs.replace(SMALL, retention=RetentionConfig(delete_when=frozenset(range(24))))
    store = open_store(disk, config)
    store.begin_expiry()
    use(store, send, clock, 0)
    use(store, send, clock, 14)
    files_before = len(disk.list_dir(INDEX))
    clock[0] += 80 * 3_600_000
    for number in range(28, 32):
        send_keyed(store, send, number)
    for _ in range(20):
        clock[0] += 10_000
        store.flush_once()
    assert store.min_physical_offset > 0
    assert len(disk.list_dir(INDEX)) < files_before
    assert store.query_keys("Topic", "id-1", 1, 0, FOREVER_MS).records == []
    assert store.query_keys("Topic", "id-31", 1, 0, FOREVER_MS).records != []
    assert_keys_are_found(store)


def test_nothing_at_or_beyond_the_confirm_offset_is_found(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """A record is found by key when replicas have it, not when it was appended."""
    store = open_store(MemoryDisk(), SMALL)
    first, second = send_keyed(store, send, 1), send_keyed(store, send, 2)
    store.confirm_offset = second.physical_offset + second.size_bytes - 1
    found = store.query_keys("Topic", "all", 64, 0, FOREVER_MS).records
    assert [decode_record(data).physical_offset for data in found] == [first.physical_offset]
    assert store.find_by_unique_key("Topic", "id-2") is None
    assert store.store_time_range("Topic", 0) == (clock[0], clock[0])


def test_an_answer_is_bounded_and_exact(open_store: OpenStore, send: Send, clock: list[int]) -> None:
    """At most 64 records, times to the millisecond, and none that only has a key of the same hash."""
    config = msgspec.structs.replace(SMALL, commit_log_file_size_bytes=1 << 16, reserve_ahead_bytes=1 << 16)
    store = open_store(MemoryDisk(), config)
    for _ in range(70):
        clock[0] += 100
        send(store, "Topic", properties=b"KEYS\x01Aa\x02")
        send(store, "Topic", properties=b"KEYS\x01BB\x02")
    assert len(store.query_keys("Topic", "Aa", 1000, 0, FOREVER_MS).records) == 64
    answer = store.query_keys("Topic", "BB", 64, clock[0] - 350, clock[0] - 100)
    assert [decode_record(data).store_timestamp_ms for data in answer.records] == [
        clock[0] - n for n in (100, 200, 300)
    ]
    assert all(decode_record(data).properties == b"KEYS\x01BB\x02" for data in answer.records)
    assert answer.index_last_update_timestamp_ms == clock[0]
