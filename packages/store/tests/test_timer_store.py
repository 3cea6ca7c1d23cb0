"""The durable timer: what is due when, what an end of the process or of power leaves, bounds, files.

The model at the end is the dumb twin: a list of records, and the set of those that were committed.
"""

import errno
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from apogeemq.store.errors import DiskFull, LayoutInvalid, MessageInvalid, NotWritable, TooManyTimers
from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss
from apogeemq.store.files import Disk
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.timer_config import TimerConfig
from apogeemq.store.timer_log import TimerLog
from apogeemq.store.timer_store import COPIES_UNSAVED_BYTES_MAX, TimerStore
from apogeemq.store.timer_unit import UNIT_SIZE_BYTES, TimerEntry
from apogeemq.store.timer_wheel import FILE_SIZE_BYTES as WHEEL_SIZE_BYTES

NOW_MS = 1_700_000_000_000
FILE_SIZE_BYTES = 5 * UNIT_SIZE_BYTES + 20
"""Five units, then a filler of twenty bytes."""
CONFIG = TimerConfig(file_size_bytes=FILE_SIZE_BYTES, open_files_max=3)
DIRECTORY = Path("/store")
FAR = 1 << 40


def open_timer(
    disk: Disk, *, log_start: int = 0, log_end: int = FAR, queue_end: int = FAR, **settings: int
) -> TimerStore:
    config = TimerConfig(**{"file_size_bytes": FILE_SIZE_BYTES, "open_files_max": 3, **settings})
    return TimerStore.open(disk, DIRECTORY, config, log_start=log_start, log_end=log_end, queue_end=queue_end)


def add(timer: TimerStore, deliver_ms: int, physical_offset: int, key: bytes = b"") -> bool:
    return timer.add(deliver_ms, physical_offset, 100, topic_hash=7, unique_key=key, store_timestamp_ms=NOW_MS)


def offsets(entries: list[TimerEntry]) -> list[int]:
    return [entry.physical_offset for entry in entries]


def test_nothing_is_due_before_its_millisecond() -> None:
    """Each timer comes at its own millisecond, in the order of time and not of arrival."""
    timer = open_timer(MemoryDisk())
    for at, delay_ms in enumerate([2001, 1000, 999, 70_000, 1000]):
        assert add(timer, NOW_MS + delay_ms, at * 100)
    assert timer.due(NOW_MS + 998, 10) == []
    assert timer.next_due_ms() <= NOW_MS + 999  # type: ignore[operator]  # there is one
    assert offsets(timer.due(NOW_MS + 999, 10)) == [200]
    assert timer.next_due_ms() == NOW_MS + 1000
    assert offsets(timer.due(NOW_MS + 2001, 2)) == [100, 400]
    assert offsets(timer.due(NOW_MS + 2001, 2)) == [0]
    assert timer.due(NOW_MS + 69_999, 2) == []
    (last,) = timer.due(NOW_MS + 70_000, 2)
    assert (last.deliver_ms, last.physical_offset, last.size_bytes, last.topic_hash) == (NOW_MS + 70_000, 300, 100, 7)
    assert not last.is_rolled
    assert timer.next_due_ms() is None
    assert timer.pending_count == 5


def test_a_late_timer_is_due_at_once() -> None:
    """Time that had passed when the record was read does no harm, even when later timers were delivered already."""
    timer = open_timer(MemoryDisk())
    add(timer, NOW_MS + 5000, 0)
    timer.commit(timer.due(NOW_MS + 9000, 10))
    add(timer, NOW_MS - 1_000_000, 100)
    assert offsets(timer.due(NOW_MS + 9000, 10)) == [100]


def test_the_clock_may_be_set() -> None:
    """Set back, nothing comes early by the clock's new time and nothing waits longer; set forward, all come."""
    timer = open_timer(MemoryDisk())
    add(timer, NOW_MS + 100_000, 0)
    add(timer, NOW_MS + 3_600_000, 100)
    assert offsets(timer.due(NOW_MS + 100_000, 10)) == [0]
    back_ms = NOW_MS - 3_600_000
    assert timer.due(back_ms, 10) == []
    add(timer, back_ms + 50, 200)
    assert timer.next_due_ms() <= back_ms + 50  # type: ignore[operator]  # there is one
    assert timer.due(back_ms + 49, 10) == []
    assert offsets(timer.due(back_ms + 50, 10)) == [200]
    assert offsets(timer.due(NOW_MS + 30 * 24 * 3_600_000, 10)) == [100]


def test_released_timers_come_again() -> None:
    """What could not be delivered is due once more, in its place; what was committed is not."""
    timer = open_timer(MemoryDisk())
    for at in range(4):
        add(timer, NOW_MS + at, at * 100)
    entries = timer.due(NOW_MS + 10, 10)
    assert timer.commit(entries[1:2]) == 1
    assert timer.commit(entries[1:2]) == 0
    timer.release(entries)
    assert offsets(timer.due(NOW_MS + 10, 10)) == [0, 200, 300]
    assert timer.pending_count == 3


def test_known_records_are_recognised() -> None:
    """Reading a stretch of the queue once more adds nothing, also after an opening."""
    disk = MemoryDisk()
    timer = open_timer(disk)
    assert add(timer, NOW_MS, 0)
    assert add(timer, NOW_MS, 100)
    assert not add(timer, NOW_MS, 100)
    assert not add(timer, NOW_MS, 0)
    timer.close(NOW_MS)
    again = open_timer(disk)
    assert not add(again, NOW_MS, 100)
    assert add(again, NOW_MS, 200)
    assert again.pending_count == 3


def test_the_queue_offset_is_kept_and_clamped() -> None:
    """It survives a stop; where the queue lost its end, the timer goes on there."""
    disk = MemoryDisk()
    timer = open_timer(disk)
    add(timer, NOW_MS, 0)
    timer.queue_offset = 17
    timer.sync(NOW_MS)
    assert open_timer(disk).queue_offset == 17
    assert open_timer(disk, queue_end=12).queue_offset == 12


def test_bounds() -> None:
    """Timers that wait, timers that are out, and how far ahead: each has its limit and says so."""
    timer = open_timer(MemoryDisk(), pending_max=3, handed_out_max=2, horizon_ms=1000)
    timer.check_time(NOW_MS + 1000, NOW_MS)
    with pytest.raises(MessageInvalid, match="1001 ms away"):
        timer.check_time(NOW_MS + 1001, NOW_MS)
    for at in range(3):
        add(timer, NOW_MS, at * 100)
    for refused in (lambda: add(timer, NOW_MS, 300), lambda: timer.check_time(NOW_MS, NOW_MS)):
        with pytest.raises(TooManyTimers):
            refused()
    out = timer.due(NOW_MS, 10)
    assert offsets(out) == [0, 100]
    assert timer.due(NOW_MS, 10) == []
    timer.commit(out)
    assert add(timer, NOW_MS, 300)
    assert offsets(timer.due(NOW_MS, 10)) == [200, 300]
    with pytest.raises(MessageInvalid):
        add(timer, NOW_MS, 1 << 70)


@pytest.mark.parametrize(
    "settings",
    [{"precision_ms": 0}, {"file_size_bytes": 64}, {"file_size_bytes": 1001}, {"horizon_ms": 604_740_001}],
)
def test_settings_are_checked(settings: dict[str, int]) -> None:
    """The setting is named; the farthest horizon is what Java's wheel holds."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        TimerConfig(**settings).validate()


def test_recall() -> None:
    """The timer with this key is gone, others of the same millisecond stay; what is out cannot be recalled."""
    timer = open_timer(MemoryDisk())
    for at, key in enumerate([b"a", b"b", b"c"]):
        add(timer, NOW_MS + 500, at * 100, key)
    asked: list[int] = []

    def is_it(entry: TimerEntry) -> bool:
        asked.append(entry.physical_offset)
        return True

    assert not timer.recall(NOW_MS + 500, b"other", is_it)
    assert not timer.recall(NOW_MS + 5000, b"b", is_it)
    assert asked == []
    assert timer.recall(NOW_MS + 500, b"b", is_it)
    assert asked == [100]
    assert not timer.recall(NOW_MS + 500, b"b", is_it)
    assert timer.pending_count == 2
    assert offsets(timer.due(NOW_MS + 500, 10)) == [0, 200]
    assert not timer.recall(NOW_MS + 500, b"c", is_it)


def test_a_recall_takes_every_copy() -> None:
    """A crash while the message was stored anew left two of them."""
    timer = open_timer(MemoryDisk())
    for at in range(3):
        add(timer, NOW_MS + 500, at * 100, b"a")
    assert timer.recall(NOW_MS + 500, b"a", lambda entry: entry.physical_offset != 100)
    assert timer.pending_count == 1
    assert offsets(timer.due(NOW_MS + 500, 10)) == [100]


def test_a_delivery_seen_in_the_log_settles_its_timer() -> None:
    """As a replica does that follows another one's deliveries."""
    timer = open_timer(MemoryDisk())
    for at in range(12):
        add(timer, NOW_MS + 500, at * 100)
    assert timer.settle_record(700, topic_hash=7, unique_key=b"")
    assert not timer.settle_record(700, topic_hash=7, unique_key=b"")
    assert not timer.settle_record(701, topic_hash=7, unique_key=b"")
    assert not timer.settle_record(5000, topic_hash=7, unique_key=b"")
    assert offsets(timer.due(NOW_MS + 500, 20)) == [at * 100 for at in range(12) if at != 7]


def test_a_message_that_was_sent_on_settles_no_other_timer() -> None:
    """Somebody's message may carry the offset of a record of another broker: topic and key tell them apart."""
    timer = open_timer(MemoryDisk())
    add(timer, NOW_MS + 500, 700, b"K")
    assert not timer.settle_record(700, topic_hash=8, unique_key=b"K")
    assert not timer.settle_record(700, topic_hash=7, unique_key=b"L")
    assert timer.pending_count == 1
    assert timer.settle_record(700, topic_hash=7, unique_key=b"K")


def test_how_far_copies_were_looked_at_is_kept() -> None:
    """With what was settled by them: by a sync, not before; a cut takes it back, and a log that ends before it."""
    disk = MemoryDisk()
    timer = open_timer(disk)
    add(timer, NOW_MS + 500, 700)
    timer.copies_offset = 5_000
    timer.sync(NOW_MS)
    timer.copies_offset = 6_000
    timer.abandon()
    assert open_timer(disk).copies_offset == 5_000
    timer = open_timer(disk, log_end=4_000)
    assert timer.copies_offset == 4_000
    timer.truncate(3_000, 1)
    timer.abandon()
    assert open_timer(disk).copies_offset == 3_000


def test_how_far_copies_were_looked_at_is_not_synced_for_itself_each_time() -> None:
    """The log goes on all the time: only when a start would have to search much, or with what changed anyway."""
    disk = MemoryDisk()
    timer = open_timer(disk)
    add(timer, NOW_MS + 500, 700)
    timer.sync(NOW_MS)
    timer.copies_offset = COPIES_UNSAVED_BYTES_MAX - 1
    timer.sync(NOW_MS)
    assert open_timer(disk).copies_offset == 0
    timer.copies_offset = COPIES_UNSAVED_BYTES_MAX
    timer.sync(NOW_MS)
    assert open_timer(disk).copies_offset == COPIES_UNSAVED_BYTES_MAX


def test_a_directory_of_javas_has_no_copies_to_look_at() -> None:
    """Its copies name no record; what it delivered stands in its own progress."""
    disk = MemoryDisk()
    timer = open_timer(disk)
    add(timer, NOW_MS + 500, 700)
    timer.close(NOW_MS)
    path = DIRECTORY / "config/timercheck"
    data = disk.files[path].data
    data[:8] = (int.from_bytes(data[:8]) - 1000).to_bytes(8)  # written by Java since, so the check is wrong
    assert open_timer(disk, log_end=9_000).copies_offset == 9_000


def test_live_timers_before_an_offset() -> None:
    """Those not done with, whose record begins before it; also those that are out."""
    timer = open_timer(MemoryDisk())
    for at in range(12):
        add(timer, NOW_MS + at, at * 100)
    out = timer.due(NOW_MS + 2, 10)
    timer.commit(out[:2])
    live = list(timer.live_before(700))
    assert offsets(live) == [200, 300, 400, 500, 600]
    assert [timer.is_handed_out(entry) for entry in live] == [True, False, False, False, False]
    timer.commit(live[1:])
    assert offsets(list(timer.live_before(700))) == [200]
    assert offsets(timer.due(NOW_MS + 11, 10)) == [700, 800, 900, 1000, 1100]


def test_files_roll_over_and_go() -> None:
    """Five units a file and a filler as Java writes it; the first files go when all in them is settled."""
    disk = MemoryDisk()
    timer = open_timer(disk)
    for at in range(12):
        add(timer, NOW_MS + at, at * 100)
    names = [DIRECTORY / f"timerlog/{start:020d}" for start in (0, FILE_SIZE_BYTES, 2 * FILE_SIZE_BYTES)]
    assert [path for path in disk.files if path.parent.name == "timerlog"] == names
    filler = (20).to_bytes(4) + bytes(8) + bytes.fromhex("cbd43194") + bytes(4)
    assert disk.files[names[0]].data[-20:] == filler
    out = timer.due(NOW_MS + 11, 11)
    timer.commit(out[1:])
    assert timer.delete_before(0) == 0
    timer.commit(out[:1])
    assert timer.delete_before(0) == 2
    timer.sync(NOW_MS)
    again = open_timer(disk)
    assert offsets(again.due(NOW_MS + 20, 20)) == [1100]
    assert not add(again, NOW_MS, 1100)


def test_timers_whose_records_were_deleted() -> None:
    """They are over, told of, and hold no file any longer."""
    timer = open_timer(MemoryDisk())
    for at in range(12):
        add(timer, NOW_MS + at, at * 100)
    assert timer.delete_before(1000) == 2
    assert not timer.recall(NOW_MS + 3, b"", lambda entry: entry.physical_offset == 300)
    assert timer.pending_count == 2
    assert offsets(timer.due(NOW_MS + 20, 20)) == [1000, 1100]


def test_truncation() -> None:
    """Timers beyond the offset are gone for good, those before stay where they were, and others take the places."""
    disk = MemoryDisk()
    timer = open_timer(disk)
    for at in range(12):
        add(timer, NOW_MS + at % 3, at * 100)
    timer.queue_offset = 12
    timer.sync(NOW_MS)
    out = timer.due(NOW_MS, 2)
    assert offsets(out) == [0, 300]
    timer.truncate(700, 7)
    assert timer.queue_offset == 7
    assert timer.pending_count == 7
    assert add(timer, NOW_MS, 700)
    assert offsets(timer.due(NOW_MS + 5, 20)) == [600, 700, 100, 400, 200, 500]
    timer.sync(NOW_MS)
    again = open_timer(disk, log_end=800)
    assert again.pending_count == 8
    assert offsets(again.due(NOW_MS, 20)) == [0, 300, 600, 700]


def test_opening_cuts_what_the_log_lost() -> None:
    """Timers whose records lie beyond the end of the commit log are no timers any more."""
    disk = MemoryDisk()
    timer = open_timer(disk)
    for at in range(12):
        add(timer, NOW_MS, at * 100)
    timer.commit(timer.due(NOW_MS, 9))
    timer.sync(NOW_MS)
    again = open_timer(disk, log_end=500)
    assert again.pending_count == 0
    assert add(again, NOW_MS + 1, 500)
    assert offsets(again.due(NOW_MS + 1, 10)) == [500]


def test_records_that_expired_are_not_pending() -> None:
    """Where the commit log begins later, older timers are over."""
    disk = MemoryDisk()
    timer = open_timer(disk)
    for at in range(3):
        add(timer, NOW_MS, at * 100)
    timer.sync(NOW_MS)
    assert offsets(open_timer(disk, log_start=100).due(NOW_MS, 10)) == [100, 200]


def test_damage_below_the_synced_end_stops_the_opening() -> None:
    """A unit with another time in it, a unit that is gone, a file that is gone: each is named."""
    disk = MemoryDisk()
    timer = open_timer(disk)
    for at in range(7):
        add(timer, NOW_MS, at * 100)
    timer.sync(NOW_MS)
    first, second = (DIRECTORY / f"timerlog/{start:020d}" for start in (0, FILE_SIZE_BYTES))
    data = disk.files[first].data
    data[2 * UNIT_SIZE_BYTES + 20] ^= 1
    with pytest.raises(LayoutInvalid, match=r"byte 104.*check is wrong"):
        open_timer(disk)
    data[2 * UNIT_SIZE_BYTES + 20] ^= 1
    disk.files[second].data[:] = bytes(FILE_SIZE_BYTES)
    with pytest.raises(LayoutInvalid, match=r"byte 0 .*no unit"):
        open_timer(disk)
    disk.remove(second)
    with pytest.raises(LayoutInvalid, match="file is missing"):
        open_timer(disk)


def test_a_full_disk_refuses_and_passes() -> None:
    """The timer that found no room is not there; the next one is."""
    disk = MemoryDisk()
    timer = open_timer(disk)
    for at in range(5):
        add(timer, NOW_MS, at * 100)
    disk.capacity_bytes = disk.used_bytes() + 20
    with pytest.raises(DiskFull):
        add(timer, NOW_MS, 500)
    assert timer.pending_count == 5
    disk.capacity_bytes = None
    assert add(timer, NOW_MS, 500)
    assert offsets(timer.due(NOW_MS, 10)) == [0, 100, 200, 300, 400, 500]


def test_a_failed_sync_is_final() -> None:
    """Nothing is taken any more until the store is opened again; then nothing was lost."""
    disk = FaultyDisk(Random(1))
    timer = open_timer(disk)
    add(timer, NOW_MS, 0)
    disk.fail("sync", errno.EIO, path_part="timerlog")
    with pytest.raises(NotWritable):
        timer.sync(NOW_MS)
    for refused in (lambda: add(timer, NOW_MS, 100), lambda: timer.commit([]), lambda: timer.sync(NOW_MS)):
        with pytest.raises(NotWritable):
            refused()
    disk.kill_process()
    assert open_timer(disk).pending_count == 1
    disk.lose_power()
    disk.restart()
    assert open_timer(disk).pending_count == 1


def test_a_store_without_timers_has_no_files() -> None:
    """Opening, syncing and closing write nothing."""
    disk = MemoryDisk()
    timer = open_timer(disk)
    timer.sync(NOW_MS)
    timer.close(NOW_MS)
    assert disk.files == {}


def test_units_are_found_by_number() -> None:
    """Position and number are each other's inverse, over the fillers as well."""
    log = TimerLog(MemoryDisk(), DIRECTORY, FILE_SIZE_BYTES, open_files_max=1)
    positions = [
        start + at * UNIT_SIZE_BYTES for start in range(0, 3 * FILE_SIZE_BYTES, FILE_SIZE_BYTES) for at in range(5)
    ]
    assert [log.position_of(number) for number in range(15)] == positions
    assert [log.number_of(position) for position in positions] == list(range(15))
    assert log.number_of(5 * UNIT_SIZE_BYTES) == 5


# -- the twin ----------------------------------------------------------------------------------------------------------


class Sent(NamedTuple):
    """One record of the timer queue as the twin remembers it."""

    deliver_ms: int
    physical_offset: int
    size_bytes: int


class CrashingTimer:
    """Rules act on the timer and on the twin; each ends with the timer open.

    Held at all times: nothing early, nothing lost, nothing twice but what was committed since the last sync when power
    was lost (or before a sync that failed).
    """

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.disk = FaultyDisk(Random(seed))
        self.disk.write_file(DIRECTORY / "lock", b"")
        for directory in (DIRECTORY, DIRECTORY.parent):
            self.disk.sync_dir(directory)
        self.now_ms = NOW_MS
        self.queue: list[Sent] = []
        self.log_end = 0
        self.out: list[TimerEntry] = []
        self.committed: set[int] = set()
        self.synced: set[int] = set()
        self.doubtful: set[int] = set()
        """Committed, but a power loss may take that back for ever, or nobody knows whether it was."""
        self.reopen(power_was_lost=False)

    # -- rules ---------------------------------------------------------------------------------------------------------

    def send(self) -> None:
        """A record in the queue; some are late, many share a millisecond."""
        for _ in range(self.chance.randint(1, 6)):
            size_bytes = self.chance.randint(91, 400)
            deliver_ms = self.now_ms + self.chance.choice([-5000, 0, 1, 999, 1000, 1001, 65_536, 70_000, 200_000])
            self.queue.append(Sent(deliver_ms, self.log_end, size_bytes))
            self.log_end += size_bytes

    def read_queue(self) -> None:
        """Some records on from where the timer is."""
        first = self.timer.queue_offset
        for number, sent in enumerate(self.queue[first : first + self.chance.randint(1, 8)], first):
            self.add(sent)
            self.timer.queue_offset = number + 1

    def add(self, sent: Sent) -> None:
        """As the owner does."""
        self.timer.add(
            sent.deliver_ms,
            sent.physical_offset,
            sent.size_bytes,
            topic_hash=1,
            unique_key=b"%d" % sent.physical_offset,
            store_timestamp_ms=self.now_ms,
        )

    def take(self) -> None:
        """What is due is due, and is nobody's yet."""
        entries = self.timer.due(self.now_ms, self.chance.randint(1, 8))
        out = {entry.physical_offset for entry in self.out}
        times = {sent.physical_offset: sent.deliver_ms for sent in self.queue}
        for entry in entries:
            assert entry.deliver_ms == times[entry.physical_offset] <= self.now_ms
            assert entry.physical_offset not in out | self.committed
        assert entries == sorted(entries)
        self.out += entries

    def commit(self) -> None:
        """Some of those that are out."""
        self.chance.shuffle(self.out)
        count = self.chance.randint(0, len(self.out))
        entries, self.out = self.out[:count], self.out[count:]
        self.doubtful |= {entry.physical_offset for entry in entries}
        self.timer.commit(entries)
        self.doubtful -= {entry.physical_offset for entry in entries}
        self.committed |= {entry.physical_offset for entry in entries}

    def release(self) -> None:
        """All that are out."""
        self.timer.release(self.out)
        self.out.clear()

    def recall(self) -> None:
        """Any record: it works if and only if it is waiting."""
        if self.queue:
            sent = self.chance.choice(self.queue)
            offset = sent.physical_offset
            done = self.committed | self.doubtful | {entry.physical_offset for entry in self.out}
            is_waiting = self.queue.index(sent) < self.timer.queue_offset and offset not in done
            if offset not in self.doubtful:
                self.doubtful.add(offset)
                worked = self.timer.recall(sent.deliver_ms, b"%d" % offset, lambda e: e.physical_offset == offset)
                self.doubtful.discard(offset)
                assert worked == is_waiting
                if worked:
                    self.committed.add(offset)

    def sync(self) -> None:
        """A round of the store's thread."""
        try:
            self.timer.sync(self.now_ms)
        except NotWritable:
            self.doubtful |= self.committed - self.synced
            raise
        self.synced = self.committed - self.doubtful

    def pass_time(self) -> None:
        """Mostly forward."""
        self.now_ms += self.chance.choice([1, 500, 1000, 66_000, 300_000, -100_000])

    def delete_files(self) -> None:
        """Retention."""
        self.timer.delete_before(0)

    def truncate(self) -> None:
        """The log loses records that nobody delivered."""
        first = self.first_that_may_go()
        if first < len(self.queue):
            kept = self.chance.randint(first, len(self.queue))
            end = self.queue[kept].physical_offset if kept < len(self.queue) else self.log_end
            del self.queue[kept:]
            self.log_end = end
            self.timer.truncate(end, kept)

    def first_that_may_go(self) -> int:
        """Number of the first record behind all that were delivered, or are being."""
        used = self.committed | self.doubtful | {entry.physical_offset for entry in self.out}
        return 1 + max((number for number, sent in enumerate(self.queue) if sent.physical_offset in used), default=-1)

    def power_loss_soon(self) -> None:
        """In the middle of some change."""
        self.disk.lose_power_after(self.chance.randint(0, 12))

    def power_loss(self) -> None:
        """Between two calls."""
        self.disk.lose_power()
        raise PowerLoss

    def kill(self) -> None:
        """The process is gone."""
        self.disk.kill_process()
        self.reopen(power_was_lost=False)

    def io_error(self) -> None:
        """A call to come fails."""
        operation = self.chance.choice(["sync", "write", "sync_dir"])
        error = errno.ENOSPC if operation == "write" and self.chance.random() < 0.5 else errno.EIO
        self.disk.fail(operation, error, calls_before=self.chance.randint(0, 3))

    def close(self) -> None:
        """In good order. What was out is with nobody then."""
        self.timer.release(self.out)
        self.out.clear()
        try:
            self.timer.close(self.now_ms)
        except NotWritable:
            self.doubtful |= self.committed - self.synced
            raise
        self.synced = self.committed - self.doubtful
        self.disk.kill_process()
        self.reopen(power_was_lost=False)

    # -- checking ------------------------------------------------------------------------------------------------------

    def step(self, rule: str) -> None:
        """One rule, and what becomes of it."""
        try:
            getattr(self, rule)()
        except PowerLoss:
            self.disk.restart()
            self.reopen(power_was_lost=True)
        except DiskFull:
            pass  # nothing was changed
        except (NotWritable, OSError):
            self.doubtful |= self.committed - self.synced
            self.kill()

    def reopen(self, *, power_was_lost: bool) -> None:
        """Open it, however often it takes; then see what it knows."""
        self.out.clear()
        while True:
            try:
                if power_was_lost:
                    self.lose_end_of_log()
                self.timer = self.open_once()
                self.check(power_was_lost=power_was_lost)
            except PowerLoss:
                self.disk.restart()
                power_was_lost = True
            except (OSError, NotWritable, DiskFull):
                self.doubtful |= self.committed - self.synced
                self.disk.kill_process()
            else:
                return

    def open_once(self) -> TimerStore:
        """As a process does."""
        return TimerStore.open(
            self.disk, DIRECTORY, CONFIG, log_start=0, log_end=self.log_end, queue_end=len(self.queue)
        )

    def lose_end_of_log(self) -> None:
        """Power took some of the log that was not flushed; the copies of what was delivered were."""
        kept = self.chance.randint(min(self.first_that_may_go(), len(self.queue)), len(self.queue))
        if kept < len(self.queue):
            self.log_end = self.queue[kept].physical_offset
            del self.queue[kept:]

    def check(self, *, power_was_lost: bool) -> None:
        """Read the queue to its end; what is live must be what was not committed."""
        for number in range(self.timer.queue_offset, len(self.queue)):
            self.add(self.queue[number])
            self.timer.queue_offset = number + 1
        live = [entry.physical_offset for entry in self.timer.live_before(FAR)]
        assert len(live) == len(set(live)) == self.timer.pending_count
        expected = {sent.physical_offset for sent in self.queue} - self.committed - self.doubtful
        assert expected <= set(live), "a timer was lost"
        may_come_again = self.doubtful | (self.committed - self.synced if power_was_lost else set())
        assert set(live) <= expected | may_come_again, "a timer came to life again"
        self.committed -= set(live)
        self.synced &= self.committed
        self.doubtful -= set(live)
        self.doubtful |= may_come_again - set(live)
        self.committed |= self.doubtful

    def finish(self) -> None:
        """In the end every timer comes that was not committed, once."""
        self.disk.kill_process()
        self.reopen(power_was_lost=False)
        self.now_ms += 10**9
        expected = {sent.physical_offset for sent in self.queue} - self.committed
        delivered: list[int] = []
        while entries := self.timer.due(self.now_ms, 7):
            delivered += offsets(entries)
            self.timer.commit(entries)
        assert sorted(delivered) == sorted(expected)
        assert self.timer.pending_count == 0


RULES = {
    "send": 20,
    "read_queue": 20,
    "take": 20,
    "commit": 15,
    "release": 3,
    "recall": 5,
    "sync": 12,
    "pass_time": 15,
    "delete_files": 5,
    "truncate": 3,
    "power_loss_soon": 4,
    "power_loss": 3,
    "kill": 3,
    "io_error": 3,
}


@pytest.mark.parametrize("first_seed", range(0, 300, 50))
def test_seeded_walks(first_seed: int) -> None:
    """Fifty walks of sixty steps each; the seed of one that fails is in the traceback's locals."""
    for seed in range(first_seed, first_seed + 50):
        model = CrashingTimer(seed)
        for rule in Random(seed).choices(list(RULES), list(RULES.values()), k=60):
            model.step(rule)
        model.finish()


def test_a_clean_stop_in_the_walk() -> None:
    """The wheel is written, with its size; opening finds all as it was."""
    model = CrashingTimer(3)
    for rule in ["send", "read_queue", "read_queue", "take", "commit", "close", "send", "read_queue", "close"]:
        model.step(rule)
    assert model.disk.size_of(DIRECTORY / "timerwheel") == WHEEL_SIZE_BYTES
    model.finish()
