"""Old files go, and everything that speaks of them follows, whatever happens in between."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from apogeemq.remoting_codec.record import decode_records
from apogeemq.store.config import StoreConfig
from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss
from apogeemq.store.files import Disk, DiskSpace, Segment
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import AppendResult, MessageStore, ReadStatus
from apogeemq.store.retention import RetentionConfig
from apogeemq.store.segment_files import SegmentFiles
from hypothesis import given, settings
from hypothesis import strategies as st

HOUR_MS = 3_600_000
ALWAYS = RetentionConfig(delete_when=frozenset(range(24)))
ONLY_FORCED = RetentionConfig(delete_when=frozenset(), disk_max_used_ratio=1)
HOST = b"\x7f\x00\x00\x01\x00\x00\x2a\x9f"
LOG = Path("/store/commitlog")
QUEUE = Path("/store/consumequeue/TopicTest/0")

Open = Callable[..., MessageStore]
Send = Callable[..., AppendResult]


def fill(disk: MemoryDisk, percent: int) -> None:
    """Let others use the disk, so that this share of its million bytes is used."""
    disk.space = lambda path: DiskSpace(1_000_000, (100 - percent) * 10_000)  # type: ignore[method-assign]  # see above


def send_files(store: MessageStore, send: Send, files: float, **keywords: object) -> None:
    """Send messages of about 1 KiB, eight to a file."""
    for _ in range(round(files * 8)):
        send(store, body=bytes(900), **keywords)


def clean(store: MessageStore, clock: list[int], rounds: int = 30) -> None:
    """Let the threads' work be done this often, ten seconds apart."""
    for _ in range(rounds):
        clock[0] += 10_000
        store.flush_once()


def bodies(store: MessageStore, queue_id: int = 0) -> list[bytes]:
    """What a consumer reads that begins at the queue's min offset."""
    found, offset = [], store.min_offset("TopicTest", queue_id)
    while True:
        result = store.read("TopicTest", queue_id, offset, 32, 1 << 20, None, cold_allowed=True)
        found += [record.body for buffer in result.buffers for record in decode_records(buffer)]
        if result.next_offset == offset:
            return found
        offset = result.next_offset


def open_begun(
    disk: Disk | None,
    clock: list[int],
    retention: RetentionConfig = ALWAYS,
    *,
    directory: Path = Path("/store"),
    index_enabled: bool = True,
) -> MessageStore:
    """A store that deletes, with 8 KiB log files and 8-unit queue files, without threads."""
    config = StoreConfig(
        store_host=HOST,
        commit_log_file_size_bytes=8192,
        consume_queue_file_units=8,
        reserve_ahead_bytes=4096,
        message_size_bytes_max=4096,
        retention=retention,
        index_enabled=index_enabled,
        index_slots=16,
        index_entries_max=24,
    )
    store = MessageStore.open(directory, config, now_ms=lambda: clock[0], disk=disk, background=False)
    store.begin_expiry()
    return store


@pytest.fixture
def begun(clock: list[int]) -> Open:
    """`open_begun` with the test's clock. Nobody closes these stores: most crash."""
    return lambda disk, *retention, **keywords: open_begun(disk, clock, *retention, **keywords)


def test_expired_files_go(begun: Open, send: Send, clock: list[int]) -> None:
    """Files whose last message is older than the reserved time are removed, with the queue's files below them."""
    disk = MemoryDisk()
    store = begun(disk)
    send_files(store, send, 6)
    clock[0] += 50 * HOUR_MS
    send_files(store, send, 4)
    clock[0] += 23 * HOUR_MS
    clean(store, clock)
    first_left = store.min_physical_offset
    assert 5 * 8192 <= first_left <= 7 * 8192
    assert disk.list_dir(LOG)[0] == f"{first_left:020d}"
    min_offset = store.min_offset("TopicTest", 0)
    unit = store.queue_unit("TopicTest", 0, min_offset)
    assert unit is not None
    assert unit[0] >= first_left
    assert store.queue_unit("TopicTest", 0, min_offset - 1) is None
    first_in_files = int(disk.list_dir(QUEUE)[0]) // 20
    assert first_in_files < min_offset <= first_in_files + 16
    assert first_in_files > 0
    assert len(bodies(store)) == 80 - min_offset
    assert store.deleted_files == {"age": first_left // 8192}


def test_the_index_follows(begun: Open, send: Send, clock: list[int]) -> None:
    """Index files of records that are gone are removed; keys of those that are left are found, others are not."""
    disk = MemoryDisk()
    store = begun(disk)
    for number in range(80):
        send(store, body=bytes(900), properties=b"KEYS\x01k%d\x02" % number)
        clock[0] += 1000
    store.flush_once()
    before = disk.list_dir(Path("/store/index"))
    clock[0] += 100 * HOUR_MS
    clean(store, clock)
    assert set(disk.list_dir(Path("/store/index"))) < set(before)
    min_offset = store.min_offset("TopicTest", 0)
    for number in range(80):
        found = store.query_keys("TopicTest", f"k{number}", 10, 0, clock[0]).records
        assert len(found) == (number >= min_offset)


def test_a_pending_timer_keeps_its_file(begun: Open, send: Send, clock: list[int]) -> None:
    """A message that waits for its time stays until the timer is done with it."""
    store = begun(MemoryDisk())
    result = send(store)
    due_ms = clock[0] + 48 * HOUR_MS
    store.timer.add(
        due_ms,
        result.physical_offset,
        result.size_bytes,
        topic_hash=0,
        unique_key=b"",
        store_timestamp_ms=result.store_timestamp_ms,
    )
    send_files(store, send, 3)
    clock[0] += 100 * HOUR_MS
    clean(store, clock)
    assert store.min_physical_offset == 0
    store.timer.commit(store.timer.due(clock[0], 1))
    clean(store, clock)
    assert store.min_physical_offset >= 2 * 8192


def test_nothing_goes_too_early(begun: Open, send: Send, clock: list[int]) -> None:
    """A file stays while its last message is younger than the reserved time, though its first ones are older."""
    store = begun(MemoryDisk())
    send(store)
    clock[0] += 71 * HOUR_MS
    send_files(store, send, 3)
    clock[0] += 2 * HOUR_MS
    clean(store, clock)
    assert store.min_physical_offset == 0


def test_last_file_stays(begun: Open, send: Send, clock: list[int]) -> None:
    """The file being written stays, however old it is and however full the disk."""
    disk = MemoryDisk()
    store = begun(disk)
    send_files(store, send, 3)
    clock[0] += 1000 * HOUR_MS
    fill(disk, 99)
    clean(store, clock)
    assert store.min_physical_offset == store.written_offset // 8192 * 8192 > 0
    assert len(bodies(store)) > 0


def test_nothing_goes_before_the_owner_says_so(open_store: Open, send: Send, clock: list[int]) -> None:
    """Without `begin_expiry`, or without retention, everything stays."""
    store = open_store(MemoryDisk(), retention=ALWAYS)
    other = open_store(MemoryDisk(), retention=None)
    other.begin_expiry()
    for one in (store, other):
        send_files(one, send, 3)
        clock[0] += 100 * HOUR_MS
        clean(one, clock)
        assert one.min_physical_offset == 0


def test_forced(begun: Open, send: Send, clock: list[int]) -> None:
    """A disk that is too full loses the oldest files though they are young; when it is not any more, no others."""
    disk = MemoryDisk()
    store = begun(disk, ONLY_FORCED)
    send_files(store, send, 6)
    clean(store, clock)
    assert store.min_physical_offset == 0
    fill(disk, 86)
    clean(store, clock, rounds=1)
    fill(disk, 50)
    clean(store, clock)
    assert store.min_physical_offset == 8192
    assert store.deleted_files == {"forced": 1}


def test_by_hand(begun: Open, send: Send, clock: list[int]) -> None:
    """What is expired goes at once when somebody asks, whatever the hour; once, not for ever after."""
    store = begun(MemoryDisk(), RetentionConfig(delete_when=frozenset()))
    send_files(store, send, 3)
    clock[0] += 100 * HOUR_MS
    clean(store, clock)
    assert store.min_physical_offset == 0
    store.delete_expired_files()
    clean(store, clock)
    gone = store.min_physical_offset
    assert gone >= 2 * 8192
    send_files(store, send, 3)
    clock[0] += 100 * HOUR_MS
    clean(store, clock)
    assert store.min_physical_offset == gone


def test_size(begun: Open, send: Send, clock: list[int]) -> None:
    """The log keeps to its largest size."""
    store = begun(MemoryDisk(), RetentionConfig(log_size_bytes_max=4 * 8192, delete_when=frozenset()))
    for _ in range(10):
        send_files(store, send, 1)
        clean(store, clock, rounds=2)
    assert store.written_offset - store.min_physical_offset <= 4 * 8192
    assert store.min_physical_offset > 0


def test_a_round_removes_one_file_at_a_time(begun: Open, send: Send, clock: list[int]) -> None:
    """Each call removes one file, ten in a round; the next round waits for its time."""
    store = begun(MemoryDisk(), RetentionConfig(delete_when=frozenset(range(24)), delete_file_batch_max=2))
    send_files(store, send, 8)
    clock[0] += 100 * HOUR_MS
    removed = []
    for _ in range(5):
        store.flush_once()
        removed.append(store.min_physical_offset // 8192)
    assert removed == [1, 2, 2, 2, 2]
    clock[0] += 10_000
    store.flush_once()
    assert store.min_physical_offset // 8192 == 3


# -- readers -----------------------------------------------------------------------------------------------------------


def test_reader_in_an_expired_range(begun: Open, send: Send, clock: list[int]) -> None:
    """It is told OFFSET_TOO_SMALL and goes on at the min offset; before queues follow, MESSAGE_WAS_REMOVING."""
    store = begun(MemoryDisk())
    send_files(store, send, 3)
    clock[0] += 100 * HOUR_MS
    store.flush_once()
    assert store.min_physical_offset == 8192
    result = store.read("TopicTest", 0, 0, 4, 1 << 20, None, cold_allowed=True)
    assert (result.status, result.next_offset) == (ReadStatus.MESSAGE_WAS_REMOVING, 4)
    clean(store, clock)
    result = store.read("TopicTest", 0, 0, 4, 1 << 20, None, cold_allowed=True)
    assert (result.status, result.next_offset) == (ReadStatus.OFFSET_TOO_SMALL, store.min_offset("TopicTest", 0))
    assert store.record_at(0) is None
    assert store.store_time_of("TopicTest", 0, 0) == -1
    assert store.offset_by_time("TopicTest", 0, 0, "lower") == store.min_offset("TopicTest", 0)


@pytest.mark.parametrize("kind", ["commitlog", "consumequeue"])
@pytest.mark.parametrize("moment", ["before it is opened", "once it is open"])
def test_deleted_while_being_read(
    begun: Open, send: Send, clock: list[int], monkeypatch: pytest.MonkeyPatch, kind: str, moment: str
) -> None:
    """Whenever in a read the file goes, the answer is messages, or that they are gone; never an error."""
    disk = MemoryDisk()
    store = begun(disk)
    send_files(store, send, 6)
    store.close()
    store = begun(disk)  # everything is cold
    clock[0] += 100 * HOUR_MS
    strikes = [clean]
    get = SegmentFiles.get

    def get_meanwhile(files: SegmentFiles, directory: Path, start: int, *, create: bool = False) -> Segment:
        if not strikes or kind not in str(directory):
            return get(files, directory, start, create=create)
        strike = strikes.pop()
        if moment == "before it is opened":
            strike(store, clock)
            return get(files, directory, start, create=create)
        segment = get(files, directory, start, create=create)
        strike(store, clock)
        return segment

    monkeypatch.setattr(SegmentFiles, "get", get_meanwhile)
    result = store.read("TopicTest", 0, 1, 4, 1 << 20, None, cold_allowed=True)
    assert not strikes
    records = [record for buffer in result.buffers for record in decode_records(buffer)]
    if result.status is ReadStatus.FOUND:
        assert [record.queue_offset for record in records] == [1, 2, 3, 4]
    else:
        assert result.status in (ReadStatus.OFFSET_TOO_SMALL, ReadStatus.MESSAGE_WAS_REMOVING)
        assert records == []
        assert result.next_offset > 1
    result = store.read("TopicTest", 0, 1, 4, 1 << 20, None, cold_allowed=True)
    assert result.status is ReadStatus.OFFSET_TOO_SMALL


def test_slow_reader_keeps_its_view(begun: Open, send: Send, clock: list[int], tmp_path: Path) -> None:
    """A view into a file that was deleted stays good as long as it is held. On a real disk."""
    store = begun(None, directory=tmp_path / "store", index_enabled=False)
    send(store, body=b"held" * 100)
    held = store.read("TopicTest", 0, 0, 1, 1 << 20, None).buffers
    send_files(store, send, 3)
    clock[0] += 100 * HOUR_MS
    clean(store, clock)
    assert not (tmp_path / "store/commitlog" / f"{0:020d}").exists()
    assert store.min_physical_offset > 0
    assert [record.body for buffer in held for record in decode_records(buffer)] == [b"held" * 100]
    store.close()


# -- roll-forward ------------------------------------------------------------------------------------------------------


def test_hooks_are_asked_first(begun: Open, send: Send, clock: list[int], caplog: pytest.LogCaptureFixture) -> None:
    """A file stays while a hook is at work; what the hook stores is synced before the file goes."""
    disk = MemoryDisk()
    store = begun(disk)
    asked = []
    answers: Iterator[bool] = iter([False, False, False, True])

    def hook(physical_offset: int) -> bool:
        asked.append(physical_offset)
        send(store, queue_id=1)
        return next(answers, False)

    store.add_roll_forward(hook)
    send_files(store, send, 3)
    clock[0] += 100 * HOUR_MS
    for _ in range(3):
        store.flush_once()
        assert store.min_physical_offset == 0
    store.flush_once()
    assert store.min_physical_offset == 8192
    assert asked == [8192] * 4
    assert store.flushed_offset == store.written_offset


def test_hook_that_is_never_done(begun: Open, send: Send, clock: list[int], caplog: pytest.LogCaptureFixture) -> None:
    """Even on a full disk no file goes in which something is live; after a minute that is told, once."""
    disk = MemoryDisk()
    store = begun(disk)
    store.add_roll_forward(lambda physical_offset: False)
    send_files(store, send, 3)
    fill(disk, 99)
    clock[0] += 100 * HOUR_MS
    clean(store, clock, rounds=5)
    assert caplog.records == []
    clean(store, clock)
    assert store.min_physical_offset == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_room_came_while_hooks_worked(begun: Open, send: Send, clock: list[int]) -> None:
    """A file that was to make room, and waited for a hook, stays when the disk has room again by then."""
    disk = MemoryDisk()
    store = begun(disk, ONLY_FORCED)
    answers = iter([False, False])
    store.add_roll_forward(lambda physical_offset: next(answers, True))
    send_files(store, send, 3)
    fill(disk, 99)
    store.flush_once()
    store.flush_once()
    fill(disk, 10)
    for _ in range(3):
        store.flush_once()
    assert store.min_physical_offset == 0
    assert store.deleted_files == {}
    fill(disk, 99)
    clean(store, clock, rounds=1)
    assert store.min_physical_offset == 8192


# -- opening again, crashes, failures ----------------------------------------------------------------------------------


def test_opened_again(begun: Open, send: Send, clock: list[int]) -> None:
    """Min offsets are found again; a queue whose messages are all gone keeps its end: min = max = the next offset."""
    disk = MemoryDisk()
    store = begun(disk)
    send(store, queue_id=7)
    for _ in range(40):
        send(store, queue_id=8)
    send_files(store, send, 6)
    clock[0] += 100 * HOUR_MS
    clean(store, clock)
    before = {queue: (store.min_offset(*queue), store.max_offset(*queue)) for queue in store.queues()}
    assert before["TopicTest", 7] == (1, 1)
    assert before["TopicTest", 8] == (40, 40)
    for is_clean in (True, False):
        if is_clean:
            store.close()
        else:
            store.flush()
            disk.locks.clear()
        store = begun(disk)
        assert {queue: (store.min_offset(*queue), store.max_offset(*queue)) for queue in store.queues()} == before
        assert store.recovery.clean is is_clean
    assert send(store, queue_id=7).queue_offset == 1
    result = store.read("TopicTest", 7, 0, 1, 100, None)
    assert (result.status, result.next_offset) == (ReadStatus.OFFSET_TOO_SMALL, 1)


@pytest.mark.parametrize("queues_synced", [True, False])
@pytest.mark.parametrize("crash_at", range(0, 36, 2))
def test_power_loss_while_deleting(
    begun: Open, send: Send, clock: list[int], crash_at: int, *, queues_synced: bool
) -> None:
    """Wherever the power goes, the store opens, and what is left is the end of what was stored, with its offsets."""
    disk = FaultyDisk(Random(crash_at))
    store = begun(disk)
    for number in range(120):
        send(store, queue_id=number % 3, body=b"%04d" % number + bytes(400))
    store.flush()
    clock[0] += 100 * HOUR_MS
    if queues_synced:
        clock[0] += 60_000
        store.flush_once()
    disk.lose_power_after(crash_at)
    with pytest.raises(PowerLoss):
        clean(store, clock, rounds=1000)
    disk.restart()
    store = begun(disk)
    _check_suffix(store, 120)
    clean(store, clock)
    _check_suffix(store, 120)
    assert store.min_physical_offset > 0


def _check_suffix(store: MessageStore, count: int) -> None:
    """All of 120 messages in three queues from the log's first file on, and none before."""
    offset = store.min_physical_offset
    read = []
    for queue_id in range(3):
        min_offset, max_offset = store.min_offset("TopicTest", queue_id), store.max_offset("TopicTest", queue_id)
        assert max_offset == count // 3
        numbers = [int(body[:4]) for body in bodies(store, queue_id)]
        assert numbers == list(range(min_offset * 3 + queue_id, count, 3))
        unit = store.queue_unit("TopicTest", queue_id, min_offset)
        assert unit is None or unit[0] >= offset
        read += numbers
    assert sorted(read) == list(range(min(read), count))


def test_removal_that_fails(begun: Open, send: Send, clock: list[int], caplog: pytest.LogCaptureFixture) -> None:
    """A file that cannot be removed stays readable and is tried again; told once."""
    disk = FaultyDisk(Random(1))
    store = begun(disk)
    send_files(store, send, 3)
    clock[0] += 100 * HOUR_MS
    disk.fail("remove", errno.EPERM, path_part="commitlog", times=3)
    for _ in range(3):
        store.flush_once()
        assert store.min_physical_offset == 0
        assert len(bodies(store)) == 24
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    store.flush_once()
    assert store.min_physical_offset == 8192


def test_removal_that_cannot_be_synced(begun: Open, send: Send, clock: list[int]) -> None:
    """A directory that cannot be synced makes the store read-only: it is not known any more what is on the disk."""
    disk = FaultyDisk(Random(1))
    store = begun(disk)
    send_files(store, send, 3)
    clock[0] += 100 * HOUR_MS
    disk.fail("sync_dir", errno.EIO, path_part="commitlog")
    store.flush_once()
    assert not store.is_writable


def test_no_room_for_the_queues(begun: Open, send: Send, clock: list[int]) -> None:
    """On a disk without any room, files whose queue units are safe go, which makes room; others wait for it."""
    disk = FaultyDisk(Random(1))
    store = begun(disk)
    send_files(store, send, 2.5)
    clock[0] += 60_000
    store.flush_once()
    send_files(store, send, 2)
    disk.fail("write", errno.ENOSPC, path_part="consumequeue", times=1000)
    clock[0] += 100 * HOUR_MS
    clean(store, clock)
    assert store.min_physical_offset == 2 * 8192
    assert store.is_writable


# -- against a dumb twin -----------------------------------------------------------------------------------------------

_STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 12)),
    st.tuples(st.just("hours"), st.integers(1, 50)),
    st.tuples(st.just("fill"), st.sampled_from([50, 80, 90])),
    st.tuples(st.just("clean"), st.integers(1, 8)),
    st.tuples(st.just("reopen"), st.just(0)),
    st.tuples(st.just("crash"), st.just(0)),
)


class _Twin:
    """Every message ever sent: its number in its queue, when, where; and since when files may go by force."""

    def __init__(self) -> None:
        self.sent: dict[int, list[tuple[bytes, int, int]]] = {0: [], 1: []}
        self.forced_below = 0


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(_STEPS, max_size=40), seed=st.integers(0, 1 << 16))
def test_any_history(steps: list[tuple[str, int]], seed: int) -> None:
    """Whatever happens: what can be read is the end of what was stored, numbered without gaps, and nothing that was
    not expired is gone, unless the disk was too full.
    """
    clock = [1_700_000_000_000]
    chance = Random(seed)
    disk = FaultyDisk(chance)
    twin = _Twin()
    store = open_begun(disk, clock)
    percent = 50
    for step, value in steps:
        if step == "send":
            for _ in range(value):
                queue_id = chance.randrange(2)
                body = b"%d" % chance.getrandbits(30) + bytes(chance.randrange(1500))
                result = store.append("TopicTest", queue_id, 0, 0, 1, HOST, 0, 0, body, b"", 0)
                assert result.queue_offset == len(twin.sent[queue_id])
                twin.sent[queue_id].append((body, result.store_timestamp_ms, result.physical_offset))
        elif step == "hours":
            clock[0] += value * HOUR_MS
        elif step == "fill":
            percent = value
            fill(disk, percent)
        elif step == "clean":
            if percent > 85:
                twin.forced_below = store.written_offset
            clean(store, clock, value)
        elif step == "reopen":
            store.close()
            store = open_begun(disk, clock)
        else:
            flushed = store.flushed_offset
            disk.lose_power()
            disk.restart()
            fill(disk, percent)
            store = open_begun(disk, clock)
            for queue_id, sent in twin.sent.items():
                kept = store.max_offset("TopicTest", queue_id)
                assert all(offset >= flushed for _, _, offset in sent[kept:])
                del sent[kept:]
        _compare(store, twin, clock[0])
    store.close()


def _compare(store: MessageStore, twin: _Twin, now_ms: int) -> None:
    log_min_offset = store.min_physical_offset
    for queue_id, sent in twin.sent.items():
        there = bodies(store, queue_id)
        gone = sent[: len(sent) - len(there)]
        assert there == [body for body, _, _ in sent[len(gone) :]]
        assert all(offset >= log_min_offset for _, _, offset in sent[len(gone) :])
        for _, stored_ms, offset in gone:
            assert offset < log_min_offset
            assert now_ms - stored_ms >= 72 * HOUR_MS or offset < twin.forced_below
