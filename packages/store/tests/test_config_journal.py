"""A table as `.json` and journal: what a reader finds after any crash, failure or foreign hand."""

import errno
import json
from pathlib import Path
from random import Random

import pytest
from apogeemq.remoting_codec.errors import BodyInvalid
from apogeemq.store.config_journal import JOURNAL_SIZE_BYTES_MAX, JournaledFile, TableText
from apogeemq.store.errors import DiskFull, JournalDamaged
from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss
from apogeemq.store.files import Disk, RealDisk
from apogeemq.store.memory_disk import MemoryDisk

CONFIG = Path("/store/config")
PATH = CONFIG / "topics.json"
JOURNAL = CONFIG / "topics.journal"
BASE = b'{"a":1}'


def opened(disk: Disk, path: Path = PATH) -> JournaledFile:
    """As a process opens it."""
    file = JournaledFile(disk, path)
    file.load()
    return file


@pytest.fixture
def disk() -> MemoryDisk:
    """With a table and two changes in its journal."""
    disk = MemoryDisk()
    file = opened(disk)
    file.save(BASE)
    assert file.append(b"one")
    assert file.append(b"two")
    return disk


def test_nothing_is_none() -> None:
    """No file, no change; the whole comes first."""
    file = JournaledFile(MemoryDisk(), PATH)
    assert file.load() == TableText(None, [])
    assert not file.append(b"one")
    assert not file.holds_changes


def test_changes_are_found_in_order(disk: MemoryDisk) -> None:
    """Beside the text, which is as it was."""
    file = JournaledFile(disk, PATH)
    assert file.load() == TableText(BASE, [b"one", b"two"])
    assert file.holds_changes
    assert disk.read_file(PATH) == BASE


def test_layout_is_the_documented_one(disk: MemoryDisk) -> None:
    """Frame 1, byte by byte; the base is by CRC-32 (of any other tool) and size."""
    data = disk.read_file(JOURNAL)
    assert len(data) == JOURNAL_SIZE_BYTES_MAX
    frame = data[24 : 24 + 27]
    assert frame[:8] == b"APJ1" + bytes([0, 0, 0, 3])
    assert frame[8:16] == bytes.fromhex("561bacaf") + bytes([0, 0, 0, 7])
    assert frame[16:20] == bytes([0, 0, 0, 1])
    assert frame[24:] == b"one"
    assert data[24 + 2 * 27 :].strip(b"\0") == b""


def test_the_whole_empties_the_journal(disk: MemoryDisk) -> None:
    """So that a Java broker finds everything in the .json."""
    file = opened(disk)
    file.save(b'{"a":2}')
    assert not file.holds_changes
    assert opened(disk).load() == TableText(b'{"a":2}', [])
    assert disk.list_dir(CONFIG) == ["topics.journal", "topics.journal.bak", "topics.json", "topics.json.bak"]
    assert len(disk.read_file(JOURNAL)) == 24


def test_the_next_process_goes_on_where_the_journal_is_empty() -> None:
    """After a stop in good order the first change is an append; else the whole file comes first."""
    disk = MemoryDisk()
    opened(disk).save(BASE)
    assert opened(disk).append(b"one")
    assert not opened(disk).append(b"two")
    assert opened(disk).load() == TableText(BASE, [b"one"])


def test_a_full_journal_wants_the_whole() -> None:
    """False, and nothing is written."""
    disk = MemoryDisk()
    file = JournaledFile(disk, PATH, journal_size_bytes_max=24 + 2 * 124)
    file.save(BASE)
    assert file.append(b"x" * 100)
    assert not file.append(b"y" * 101)
    assert file.append(b"y" * 100)
    assert not file.append(b"")
    assert file.load().changes == [b"x" * 100, b"y" * 100]


def test_a_real_file(tmp_path: Path) -> None:
    """The same on the operating system's files."""
    path = tmp_path / "store" / "config" / "topics.json"
    disk = RealDisk()
    file = opened(disk, path)
    file.save(BASE)
    assert file.append(b"one")
    file.close()
    assert file.append(b"two")
    file.close()
    again = JournaledFile(disk, path)
    assert again.load() == TableText(BASE, [b"one", b"two"])
    again.save(b"{}")
    assert again.append(b"three")
    again.close()
    assert JournaledFile(disk, path).load() == TableText(b"{}", [b"three"])


@pytest.mark.parametrize("text", [b'{"a":2}', b'{"a":1} ', b"{}"])
def test_a_json_of_another_hand_wins(disk: MemoryDisk, caplog: pytest.LogCaptureFixture, text: bytes) -> None:
    """A Java broker, or an editor, wrote it since: our changes were made to something else. It is told."""
    disk.write_file(PATH, text)
    file = JournaledFile(disk, PATH)
    assert file.load() == TableText(text, [])
    assert "2 changes of the journal are not applied" in caplog.text
    assert not file.append(b"three"), "the journal belongs to another text"
    file.save(b'{"a":3}')
    assert file.append(b"three")
    assert opened(disk).load() == TableText(b'{"a":3}', [b"three"])


def test_a_journal_without_its_json_is_told(disk: MemoryDisk, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody removed the file: it is as empty as Java would find it."""
    disk.remove(PATH)
    assert JournaledFile(disk, PATH).load() == TableText(None, [])
    assert "2 changes of the journal are not applied" in caplog.text


def test_a_damaged_json_is_made_up_for_by_both_backups(disk: MemoryDisk, caplog: pytest.LogCaptureFixture) -> None:
    """The backup with the changes that led from it to the damaged text; later ones are told to be lost."""
    file = opened(disk)
    file.save(b'{"a":2}')
    assert file.append(b"three")
    disk.write_file(PATH, b'{"a":')
    again = JournaledFile(disk, PATH)
    assert again.load() == TableText(BASE, [b"one", b"two"])
    assert "1 changes of the journal are not applied" in caplog.text
    assert not again.append(b"four")


def test_an_old_journal_is_not_applied_to_a_text_that_came_back(disk: MemoryDisk) -> None:
    """The table is again what it was two writes ago, and the crash came before the new journal."""
    file = opened(disk)
    file.save(b'{"a":2}')
    assert file.append(b"back to 1")
    disk.rename(PATH, PATH.with_name("topics.json.bak"))
    disk.write_file(PATH, BASE)
    assert JournaledFile(disk, PATH).load() == TableText(BASE, [])


def test_a_torn_tail_is_dropped_and_told(disk: MemoryDisk, caplog: pytest.LogCaptureFixture) -> None:
    """What was never synced, and so never acknowledged."""
    disk.files[JOURNAL].data[24 + 27 + 26] ^= 1
    file = JournaledFile(disk, PATH)
    assert file.load() == TableText(BASE, [b"one"])
    assert "dropping 27 bytes that a crash tore at byte 51" in caplog.text
    assert not file.append(b"three"), "the journal is not written on behind what was torn"


def test_damage_before_the_end_stops_the_start(disk: MemoryDisk) -> None:
    """A whole change behind it proves that it had been synced. The error says where, and what to do."""
    disk.files[JOURNAL].data[24 + 26] ^= 1
    with pytest.raises(JournalDamaged, match="move the journal away") as raised:
        JournaledFile(disk, PATH).load()
    assert (raised.value.path, raised.value.position) == (JOURNAL, 24)
    disk.remove(JOURNAL)
    assert JournaledFile(disk, PATH).load() == TableText(BASE, [])


def test_a_huge_journal_is_not_read(disk: MemoryDisk) -> None:
    """Nobody wrote it."""
    disk.files[JOURNAL].data.extend(b"x")
    with pytest.raises(JournalDamaged, match="more than a journal ever has"):
        JournaledFile(disk, PATH).load()


def test_two_damaged_texts_are_an_error(disk: MemoryDisk) -> None:
    """Whatever the journal says."""
    disk.write_file(PATH, b"{")
    with pytest.raises(BodyInvalid):
        JournaledFile(disk, PATH).load()


def test_every_flipped_bit_is_reported_or_harmless(caplog: pytest.LogCaptureFixture) -> None:
    """In the journal, each bit of it: no change is lost or altered without a word."""
    disk = MemoryDisk()
    file = JournaledFile(disk, PATH, journal_size_bytes_max=200)
    file.save(BASE)
    for change in (b"one", b"two", b"three"):
        assert file.append(change)
    data = disk.files[JOURNAL].data
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        caplog.clear()
        try:
            changes = JournaledFile(disk, PATH, journal_size_bytes_max=200).load().changes
        except JournalDamaged:
            continue
        finally:
            data[bit // 8] ^= 1 << bit % 8
        assert changes == [b"one", b"two", b"three"][: len(changes)]
        assert len(changes) == 3 or caplog.records, f"bit {bit}"


def test_a_failed_sync_is_never_taken_for_a_success() -> None:
    """Nothing more goes into that journal; the whole file mends it."""
    disk = FaultyDisk(Random(1))
    file = opened(disk)
    file.save(BASE)
    disk.fail("sync", errno.EIO, path_part="journal")
    with pytest.raises(OSError, match="Input/output"):
        file.append(b"one")
    assert not file.append(b"one")
    file.save(b'{"a":2}')
    assert file.append(b"two")


def test_a_full_disk_may_have_room_later() -> None:
    """DiskFull; the same change is taken once there is room."""
    disk = FaultyDisk(Random(1))
    file = opened(disk)
    file.save(BASE)
    for part, operation in (("journal", "write"), ("journal", "open_segment")):
        disk.fail(operation, errno.ENOSPC, path_part=part)
        file.close()
        with pytest.raises(DiskFull):
            file.append(b"one")
    assert file.append(b"two")
    for name in ("topics.json", "topics.journal"):
        disk.fail("write_file", errno.ENOSPC, path_part=name)
        with pytest.raises(DiskFull):
            file.save(b"{}")
    assert opened(disk).load() == TableText(b"{}", [])


class Owner:
    """A table of numbers as a broker keeps one: `states` is the twin, every state that the table ever had."""

    def __init__(self, disk: FaultyDisk) -> None:
        self.disk = disk
        self.table: dict[str, int] = {}
        self.states: list[dict[str, int]] = [{}]
        self.durable = 0
        self.pending: dict[str, int] = {}
        self.file = JournaledFile(disk, PATH, journal_size_bytes_max=400)

    def change(self, key: str, number: int) -> None:
        """In memory; this is what counts."""
        self.table[key] = self.pending[key] = number
        self.states.append(dict(self.table))

    def write(self, *, whole: bool) -> None:
        """Everything so far, as an append where that is possible. Afterwards it is acknowledged."""
        try:
            if whole or not self.file.append(json.dumps(self.pending).encode()):
                self.file.save(json.dumps(self.table).encode())
        except OSError:
            return
        except DiskFull:
            self.disk.capacity_bytes = None
            return
        self.pending = {}
        self.durable = len(self.states) - 1

    def reopen(self) -> None:
        """A new process: what it finds must be a state that the table had, not older than the acknowledged one."""
        self.file = JournaledFile(self.disk, PATH, journal_size_bytes_max=400)
        text, changes = self.file.load()
        found: dict[str, int] = json.loads(text or b"{}")
        for change in changes:
            found.update(json.loads(change))
        assert found in self.states[self.durable :], f"{found} after {self.states[self.durable :]}"
        self.states = self.states[: self.states.index(found, self.durable) + 1]
        self.table = dict(found)
        self.pending = {}
        if self.file.holds_changes:
            self.write(whole=True)


def walk(seed: int) -> None:
    """Forty steps of changes, writes, failures and crashes."""
    chance = Random(seed)
    disk = FaultyDisk(chance)
    disk.write_file(CONFIG.parent / "lock", b"")
    for directory in (CONFIG.parent, CONFIG.parent.parent):
        disk.sync_dir(directory)
    owner = Owner(disk)
    steps = chance.choices(
        ["change", "append", "whole", "fail", "full", "soon", "off", "kill"], [8, 8, 2, 1, 1, 2, 1, 1], k=40
    )
    for number, step in enumerate(steps):
        try:
            if step == "change":
                owner.change(chance.choice("abc"), number % 7)
            elif step in ("append", "whole"):
                owner.write(whole=step == "whole")
            elif step == "fail":
                operation = chance.choice(["sync", "write", "write_file", "rename", "sync_dir", "open_segment"])
                disk.fail(operation, chance.choice([errno.EIO, errno.ENOSPC]), calls_before=chance.randint(0, 2))
            elif step == "full":
                disk.capacity_bytes = disk.used_bytes() + chance.randint(0, 100)
            elif step == "soon":
                disk.lose_power_after(chance.randint(0, 8))
            elif step == "off":
                disk.lose_power()
            else:
                disk.kill_process()
                owner.reopen()
        except PowerLoss:
            while True:
                disk.restart()
                disk.capacity_bytes = None
                try:
                    owner.reopen()
                except PowerLoss:
                    continue
                break


@pytest.mark.parametrize("first_seed", range(0, 1000, 100))
def test_a_crash_leaves_a_prefix_with_all_that_was_acknowledged(first_seed: int) -> None:
    """A hundred walks each; the seed of one that fails is in the traceback's locals."""
    for seed in range(first_seed, first_seed + 100):
        walk(seed)
