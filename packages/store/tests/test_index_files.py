"""The index against a dumb twin, in files so small that slots collide and files roll over all the time."""

import errno
import struct
import time
from pathlib import Path
from random import Random
from threading import Lock

import pytest
from apogeemq.store.errors import LayoutInvalid
from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss
from apogeemq.store.files import Disk
from apogeemq.store.index_file import ENTRY, HEADER
from apogeemq.store.index_files import IndexFiles
from apogeemq.store.memory_disk import MemoryDisk
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

DIRECTORY = Path("/store/index")
SLOTS, ENTRIES_MAX = 3, 6
NOW_MS = 1_795_356_821_752
FOREVER_MS = 1 << 60
# "Aa" and "BB" have one hash in Java, so have these with any common beginning.
KEYS = ["Aa", "BB", "AaAa", "BBBB", "C", "ключ"]


def new_index(disk: Disk) -> IndexFiles:
    """An index that is not loaded yet."""
    return IndexFiles(disk, DIRECTORY, slots=SLOTS, entries_max=ENTRIES_MAX, lock=Lock(), now_ms=lambda: NOW_MS)


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


@pytest.fixture
def index(disk: MemoryDisk) -> IndexFiles:
    """An empty one."""
    index = new_index(disk)
    assert not index.load(clean=True, sure_timestamp_ms=None)
    return index


def properties_of(keys: list[str]) -> bytes:
    """As a client writes them."""
    return f"KEYS\x01{' '.join(keys)}\x02".encode() if keys else b""


def java_hash(text: str) -> int:
    """Java's String.hashCode, made positive as IndexFile does."""
    total = 0
    for unit in struct.unpack(f">{len(text)}H", text.encode("utf-16-be")):
        total = (31 * total + unit) % 2**32
    return abs(total - 2**32 if total >= 2**31 else total) % 2**31


class IndexAgainstTwin(RuleBasedStateMachine):
    """The twin is the list of what was put: (topic, keys, physical offset, time)."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[tuple[str, list[str], int, int]] = []
        self.next_offset = 0
        self.now_ms = 1_000_000
        self.deleted_below = 0

    @initialize()
    def start(self) -> None:
        """An empty disk."""
        self.disk = MemoryDisk()
        self.index = new_index(self.disk)
        self.index.load(clean=True, sure_timestamp_ms=None)

    @rule(
        topic=st.sampled_from(["T", "U"]),
        keys=st.lists(st.sampled_from(KEYS), max_size=4),
        size=st.integers(1, 50),
        passed_ms=st.integers(0, 3000),
    )
    def put(self, topic: str, keys: list[str], size: int, passed_ms: int) -> None:
        """The next record of the log."""
        self.now_ms += passed_ms
        self.index.put(topic, properties_of(keys), 0, self.next_offset, self.now_ms)
        self.puts.append((topic, keys, self.next_offset, self.now_ms))
        self.next_offset += size

    @rule()
    def put_again(self) -> None:
        """What recovery replays is passed over."""
        for topic, keys, physical_offset, time_ms in self.puts:
            self.index.put(topic, properties_of(keys), 0, physical_offset, time_ms)

    @rule()
    def write(self) -> None:
        """Tails go to the files."""
        self.index.write()

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        """After a sync; the last record is put again if the files were not left in good order."""
        self.index.write()
        self.index.sync()
        self.index.close()
        self.index = new_index(self.disk)
        self.index.load(clean=clean, sure_timestamp_ms=None)
        self.index.remove_doomed()
        if not clean:
            self.index.mend()
            self.put_again()

    @rule(back=st.integers(0, 5))
    def truncate(self, back: int) -> None:
        """The last records are taken back."""
        keep = max(0, len(self.puts) - back)
        if keep < len(self.puts):
            self.next_offset = self.puts[keep][2]
            del self.puts[keep:]
        self.index.truncate(self.next_offset)

    @rule(share=st.floats(0, 1))
    def delete_before(self, share: float) -> None:
        """Files whose every record is older go; others stay, with whatever is in them."""
        limit = int(self.next_offset * share)
        self.index.delete_before(limit)
        self.deleted_below = max(self.deleted_below, limit)

    @invariant()
    def every_query_is_right(self) -> None:
        """Newest first, each record once, all that match, and only such as have the hash."""
        times = [(0, FOREVER_MS)]
        if self.puts:
            middle_ms = self.puts[len(self.puts) // 2][3]
            times += [(0, middle_ms), (middle_ms, middle_ms), (middle_ms + 1, FOREVER_MS)]
        for begin_ms, end_ms in times:
            for key in KEYS:
                self.check("T", key, begin_ms, end_ms)

    def check(self, topic: str, key: str, begin_ms: int, end_ms: int) -> None:
        """One query."""
        found = self.index.query(topic, key, 1000, begin_ms, end_ms).physical_offsets
        wanted = java_hash(f"{topic}#{key}")
        of_hash = {
            physical_offset: time_ms
            for topic, keys, physical_offset, time_ms in self.puts
            if any(java_hash(f"{topic}#{other}") == wanted for other in keys)
        }
        must = {at for at, time_ms in of_hash.items() if begin_ms <= time_ms <= end_ms and at >= self.deleted_below}
        may = {at for at, time_ms in of_hash.items() if begin_ms - 1000 < time_ms < end_ms + 1000}
        assert found == sorted(set(found), reverse=True)
        assert must <= set(found) <= may


TestIndexAgainstTwin = IndexAgainstTwin.TestCase
TestIndexAgainstTwin.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def fill(index: IndexFiles, records: int, *, write_every: int = 1000) -> None:
    """Records of 100 bytes, stored 700 ms after each other, with the keys k0, k1, … and `all`."""
    for n in range(records):
        index.put("T", properties_of([f"k{n}", "all"]), 0, n * 100, NOW_MS + n * 700)
        if n % write_every == write_every - 1:
            index.write()
    index.write()


def bring_to_disk(index: IndexFiles) -> None:
    """What the thread for queues does."""
    index.write()
    index.sync()


def files_of(disk: MemoryDisk) -> list[bytes]:
    """What the index files hold, in the order of their names."""
    return [bytes(disk.files[DIRECTORY / name].data) for name in disk.list_dir(DIRECTORY)]


def test_files_are_named_by_local_time(disk: MemoryDisk, index: IndexFiles) -> None:
    """yyyyMMddHHmmssSSS; files made in one millisecond get ascending names all the same."""
    fill(index, 6)
    first, *others = disk.list_dir(DIRECTORY)
    assert first == time.strftime("%Y%m%d%H%M%S", time.localtime(NOW_MS // 1000)) + "752"
    assert others == [str(int(first) + n + 1) for n in range(len(others))]
    assert len(others) == 2


def test_the_layout_is_javas(disk: MemoryDisk, index: IndexFiles) -> None:
    """Header, slots and entries of a file by a twin that follows the reference."""
    fill(index, 5)
    index.sync()
    first, second = files_of(disk)
    hashes = [java_hash(f"T#{key}") for n in range(5) for key in (f"k{n}", "all")]
    for data, begin in ((first, 0), (second, 5)):
        slots, entries = [0] * SLOTS, []
        for number, at in enumerate(range(begin, begin + 5), 1):
            slot = hashes[at] % SLOTS
            seconds = (at // 2 - begin // 2) * 700 // 1000
            entries.append((hashes[at], at // 2 * 100, seconds, slots[slot]))
            slots[slot] = number
        records = (begin // 2, (begin + 4) // 2)
        header = (*(NOW_MS + n * 700 for n in records), *(n * 100 for n in records), 3 - slots.count(0), 6)
        assert HEADER.unpack_from(data) == header
        assert list(struct.unpack_from(">3i", data, 40)) == slots
        assert list(ENTRY.iter_unpack(data[52:])) == [(0, 0, 0, 0), *entries]
        assert len(data) == 40 + 3 * 4 + 6 * 20


@pytest.mark.parametrize("write_every", [1, 2, 3, 7])
def test_bytes_do_not_depend_on_when_they_are_written(write_every: int) -> None:
    """The same records give the same files."""
    disks = MemoryDisk(), MemoryDisk()
    for disk, every in zip(disks, (1000, write_every), strict=True):
        index = new_index(disk)
        fill(index, 20, write_every=every)
        index.sync()
    assert files_of(disks[0]) == files_of(disks[1])


@pytest.mark.parametrize(("passed_ms", "seconds"), [(-5000, 0), (999, 0), (1000, 1), (5_000_000_000_000, 0x7FFFFFFF)])
def test_seconds_are_kept_within_their_bounds(
    disk: MemoryDisk, index: IndexFiles, passed_ms: int, seconds: int
) -> None:
    """As Java does: never negative, never more than 2³¹ - 1."""
    index.put("T", properties_of(["a"]), 0, 0, NOW_MS)
    index.put("T", properties_of(["b"]), 0, 100, NOW_MS + passed_ms)
    index.write()
    assert ENTRY.unpack_from(files_of(disk)[0], 52 + 2 * 20)[2] == seconds


@pytest.mark.parametrize(("sys_flag", "is_indexed"), [(0, True), (4, True), (8, True), (12, False), (0x1 | 4, True)])
def test_which_records_are_indexed(index: IndexFiles, sys_flag: int, is_indexed: bool) -> None:
    """Ordinary, prepared and committed messages; not rolled back ones."""
    index.put("T", properties_of(["a"]), sys_flag, 0, NOW_MS)
    assert index.query("T", "a", 1, 0, FOREVER_MS).physical_offsets == ([0] if is_indexed else [])


def test_the_last_update_is_told(index: IndexFiles) -> None:
    """Time and offset of the newest record with a key."""
    assert index.last_update() == (0, 0)
    fill(index, 3)
    index.put("T", b"", 0, 999, NOW_MS + 9999)
    answer = index.query("T", "all", 2, 0, FOREVER_MS)
    assert answer.physical_offsets == [200, 100]
    assert (answer.last_update_timestamp_ms, answer.last_update_physical_offset) == (NOW_MS + 1400, 200)


def test_records_are_found_whatever_their_number(index: IndexFiles) -> None:
    """They are hashed many at a time; those that wait for it are found too, each once."""
    for n in range(150):
        index.put("T", properties_of([f"k{n}", "all"]), 0, n * 100, NOW_MS)
        index.put("T", properties_of([f"k{n}", "all"]), 0, n * 100, NOW_MS)
        if n % 37 == 0:
            found = index.query("T", "all", 200, 0, FOREVER_MS).physical_offsets
            assert found == [at * 100 for at in reversed(range(n + 1))]


def test_an_offset_that_was_cut_is_put_again(index: IndexFiles) -> None:
    """Also when the first record there had no keys, and nothing was hashed meanwhile."""
    index.put("T", properties_of(["a"]), 0, 0, NOW_MS)
    index.put("T", b"", 0, 100, NOW_MS)
    index.truncate(100)
    index.put("T", properties_of(["b"]), 0, 100, NOW_MS)
    index.put("T", properties_of(["c"]), 0, 200, NOW_MS)
    index.truncate(200)
    found = {key: index.query("T", key, 1, 0, FOREVER_MS).physical_offsets for key in "abc"}
    assert found == {"a": [0], "b": [100], "c": []}


def test_a_first_record_without_keys_makes_a_file(disk: MemoryDisk, index: IndexFiles) -> None:
    """As with Java: a store without an index file is one whose index was lost."""
    index.write()
    assert disk.list_dir(DIRECTORY) == []
    index.put("T", b"", 0, 0, NOW_MS)
    index.write()
    index.sync()
    assert len(disk.list_dir(DIRECTORY)) == 1
    assert new_index(disk).load(clean=True, sure_timestamp_ms=None)


@pytest.mark.parametrize("room", range(0, 400, 20))
def test_a_full_disk_loses_no_key(room: int) -> None:
    """Writing fails until there is room; then everything is found, in the bytes that it would have had anyway."""
    disk, other = MemoryDisk(capacity_bytes=room), MemoryDisk()
    index, twin = new_index(disk), new_index(other)
    for each in (index, twin):
        for n in range(12):
            each.put("T", properties_of([f"k{n}", "all"]), 0, n * 100, NOW_MS)
    with pytest.raises(OSError, match="No space"):
        bring_to_disk(index)
    assert index.query("T", "all", 100, 0, FOREVER_MS).physical_offsets == [n * 100 for n in reversed(range(12))]
    disk.capacity_bytes = None
    for each in (index, twin):
        each.write()
        each.sync()
    assert files_of(disk) == files_of(other)
    assert index.tail == b""


@pytest.mark.parametrize("operation", ["pread", "write"])
def test_a_failed_write_changes_nothing(operation: str) -> None:
    """What was not written stays in memory, and slots are as before."""
    disk = FaultyDisk(Random(0))
    index = new_index(disk)
    fill(index, 1)
    index.sync()
    index.put("T", properties_of(["k1", "all"]), 0, 100, NOW_MS)
    disk.fail(operation, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        index.write()
    index.write()
    for key, offsets in (("all", [100, 0]), ("k0", [0]), ("k1", [100])):
        assert index.query("T", key, 10, 0, FOREVER_MS).physical_offsets == offsets


def test_files_of_another_size_are_refused(disk: MemoryDisk) -> None:
    """A larger file was made with other settings: LayoutInvalid names it."""
    disk.write_file(DIRECTORY / "20261122141341752", bytes(40 + 3 * 4 + 6 * 20 + 1))
    with pytest.raises(LayoutInvalid, match="20261122141341752"):
        new_index(disk).load(clean=True, sure_timestamp_ms=None)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_damage_to_a_file_removes_it_and_later_ones(disk: MemoryDisk, number: int) -> None:
    """They are derived: the records after the last good file are put again."""
    index = new_index(disk)
    fill(index, 7)
    index.sync()
    name = disk.list_dir(DIRECTORY)[number]
    disk.files[DIRECTORY / name].data[24:32] = bytes.fromhex("7777777777777777")
    index = new_index(disk)
    assert not index.load(clean=True, sure_timestamp_ms=None)
    assert len(disk.list_dir(DIRECTORY)) == 3, "nothing goes before the owner says so"
    index.remove_doomed()
    assert len(disk.list_dir(DIRECTORY)) == number
    assert index.mend() == (None, 200, 400)[number], "the last record's keys may have been in two files"
    fill(index, 7)
    assert index.query("T", "all", 10, 0, FOREVER_MS).physical_offsets == [600, 500, 400, 300, 200, 100, 0]


def test_expired_files_go_and_the_last_one_stays(disk: MemoryDisk, index: IndexFiles) -> None:
    """A file goes when its newest record is before the offset."""
    fill(index, 7)
    assert len(disk.list_dir(DIRECTORY)) == 3
    assert index.delete_before(200) == 0
    assert index.delete_before(201) == 1
    assert index.delete_before(1 << 60) == 1
    assert index.delete_before(1 << 60) == 0
    assert len(disk.list_dir(DIRECTORY)) == 1
    index.sync()
    assert index.query("T", "all", 10, 0, FOREVER_MS).physical_offsets == [600, 500]


def test_a_query_goes_on_while_files_change(disk: MemoryDisk, index: IndexFiles) -> None:
    """What a reader began to walk through does not break when more is written, synced, or expired."""
    fill(index, 7)
    reader = index.candidates("T", "all", 0, FOREVER_MS)
    assert next(reader) == 600
    for n in range(7, 20):
        index.put("T", properties_of(["all"]), 0, n * 100, NOW_MS)
    index.write()
    index.sync()
    index.delete_before(300)
    assert list(reader)[:2] == [500, 400]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kept", [3, 7, 11])
def test_taking_back_survives_power_loss_at_every_change(kept: int, seed: int) -> None:
    """Before, after, or in the middle: every record that the files claim to have is found, and no other."""

    def spread(disk: Disk) -> IndexFiles:
        return IndexFiles(disk, DIRECTORY, slots=300, entries_max=40, lock=Lock(), now_ms=lambda: NOW_MS)

    struck, changes = True, 0
    while struck:
        disk = FaultyDisk(Random(100 * changes + seed))
        index = spread(disk)
        index.load(clean=True, sure_timestamp_ms=None)
        fill(index, 5)
        index.sync()
        disk.sync_dir(Path("/"))
        for n in range(5, 15):
            index.put("T", properties_of([f"k{n}", "all"]), 0, n * 100, NOW_MS + n * 700)
        index.write()
        disk.lose_power_after(changes)
        struck = False
        try:
            index.truncate(kept * 100)
        except PowerLoss:
            struck = True
        else:
            disk.lose_power()
        disk.restart()
        index = spread(disk)
        index.load(clean=False, sure_timestamp_ms=None)
        last = index.mend()
        assert last is not None
        assert last // 100 in (4, kept - 1)
        assert struck or last // 100 == kept - 1
        for n in range(15):
            found = index.query("T", f"k{n}", 10, 0, FOREVER_MS).physical_offsets
            assert found == ([n * 100] if n * 100 < last else [])
        index.put("T", properties_of(["new", "all"]), 0, last, NOW_MS)
        index.write()
        expected = [n * 100 for n in reversed(range(last // 100 + 1))]
        assert index.query("T", "all", 100, 0, FOREVER_MS).physical_offsets == expected
        changes += 1
    assert changes > 5
