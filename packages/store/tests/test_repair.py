"""Repair makes a damaged store open again, loses no more than it says, and keeps copies of what it takes away."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from apogeemq.remoting_codec.record import decode_record, decode_records
from apogeemq.store.checkpoint import CheckpointFile
from apogeemq.store.delivery_times import tags_code_rule
from apogeemq.store.errors import LayoutInvalid, RecordCorrupt
from apogeemq.store.files import RealDisk
from apogeemq.store.message_store import AppendResult, MessageStore
from apogeemq.store.rebuild import rebuild_queues
from apogeemq.store.repair import apply_repair
from apogeemq.store.repair_plan import (
    CutLog,
    FillRange,
    LowerFlushedOffset,
    RepairMode,
    RepairStep,
    RestoreConfig,
    Unrepairable,
    describe_step,
    plan_repair,
)
from apogeemq.store.skip_records import SKIP_SIZE_BYTES_MIN, encode_fill, skip_sizes
from apogeemq.store.store_check import StoreCheck
from apogeemq.store.store_view import StoreView

from packages.store.tests.stopping_disk import Stopped, StoppingDisk

OpenStore = Callable[..., MessageStore]
Send = Callable[..., AppendResult]

QUEUES = [("TopicA", 0), ("TopicA", 1), ("TopicB", 0)]
FILE_SIZE = 8192
MESSAGES = 60


class World:
    """A closed store of three queues in five log files, and what was sent to it."""

    def __init__(self, directory: Path, results: list[AppendResult], open_store: OpenStore, send: Send) -> None:
        self.directory = directory
        self.results = results
        self.open_store = open_store
        self.send = send

    def log_file(self, start: int) -> Path:
        return self.directory / "commitlog" / f"{start:020d}"

    def damage(self, number: int, at: int = 90) -> AppendResult:
        """Change a byte of the n-th message's body."""
        result = self.results[number]
        position = (result.physical_offset + at) % FILE_SIZE
        path = self.log_file(result.physical_offset - result.physical_offset % FILE_SIZE)
        data = bytearray(path.read_bytes())
        data[position] ^= 0xFF
        path.write_bytes(data)
        return result

    def open_after_crash(self) -> MessageStore:
        """Everything is read and checked."""
        (self.directory / "abort").write_text("1")
        file = CheckpointFile(RealDisk(), self.directory / "checkpoint")
        checkpoint = file.load()
        checkpoint.physic_timestamp_ms = checkpoint.logics_timestamp_ms = 0
        file.save(checkpoint)
        return self.open_store(directory=self.directory)

    def repair(self, mode: RepairMode) -> list[RepairStep]:
        with view_of(self.directory, exclusive=True) as view:
            steps = plan_repair(view, mode)
            assert all(describe_step(view, step) for step in steps)
            apply_repair(view, steps, self.directory / "repair-now")
        return steps

    def numbers(self, store: MessageStore) -> list[int]:
        """The numbers of all messages that can be read, in order."""
        found = []
        for topic, queue_id in store.queues():
            offset = store.min_offset(topic, queue_id)
            while (result := store.read(topic, queue_id, offset, 100, 1 << 20, None, cold_allowed=True)).count:
                found += [int(record.body.split(b":")[0]) for record in decode_records(b"".join(result.buffers))]
                offset = result.next_offset
        return sorted(found)


@pytest.fixture
def world(tmp_path: Path, open_store: OpenStore, send: Send) -> World:
    store = open_store()
    results = [send(store, *QUEUES[n % 3], b"%d:" % n + b"z" * 500) for n in range(MESSAGES)]
    store.close()
    return World(tmp_path / "store", results, open_store, send)


def view_of(directory: Path, *, exclusive: bool = False) -> StoreView:
    return StoreView.open(
        directory, commit_log_file_size_bytes=FILE_SIZE, consume_queue_file_size_bytes=320, exclusive=exclusive
    )


def is_fine(directory: Path) -> bool:
    with view_of(directory) as view:
        check = StoreCheck(view)
        sys.stdout.writelines(f"{finding}\n" for finding in check)  # shown when a test fails
        return check.summary.is_fine


@pytest.mark.parametrize("mode", RepairMode)
def test_a_good_store_needs_nothing(world: World, mode: RepairMode) -> None:
    """No steps, no change, no directory for copies."""
    assert world.repair(mode) == []
    assert not (world.directory / "repair-now").exists()
    assert len(world.numbers(world.open_store(directory=world.directory))) == MESSAGES


def test_skip_loses_only_what_is_damaged(world: World) -> None:
    """Three damaged messages, two of them neighbours: all others are there, before and behind, after any stop."""
    for number in (0, 20, 21):
        world.damage(number)
    with pytest.raises(RecordCorrupt):
        world.open_after_crash()
    steps = world.repair(RepairMode.SKIP)
    assert [type(step) for step in steps] == [FillRange, FillRange]
    good = [n for n in range(MESSAGES) if n not in (0, 20, 21)]
    assert is_fine(world.directory)
    store = world.open_after_crash()
    assert world.numbers(store) == good
    world.send(store, "TopicA", 0, b"60:new")
    store.close()
    assert is_fine(world.directory)
    assert world.numbers(world.open_store(directory=world.directory)) == [*good, 60]


def test_skip_survives_a_rebuild_of_the_queues(world: World) -> None:
    """Recovery bridges the gaps behind such records with padding, also below the flushed offset."""
    world.damage(3)
    world.damage(30)
    world.repair(RepairMode.SKIP)
    with view_of(world.directory, exclusive=True) as view:
        report = rebuild_queues(view, tags_code_of=tags_code_rule())
    assert report.irregular_records == 2
    assert is_fine(world.directory)
    good = [n for n in range(MESSAGES) if n not in (3, 30)]
    assert world.numbers(world.open_store(directory=world.directory)) == good


def test_skip_keeps_a_copy(world: World) -> None:
    """The damaged bytes lie in the repair's directory, named by their physical offset."""
    result = world.damage(20)
    start = result.physical_offset - result.physical_offset % FILE_SIZE
    position = result.physical_offset - start
    damaged = world.log_file(start).read_bytes()[position : position + result.size_bytes]
    world.repair(RepairMode.SKIP)
    copy = world.directory / "repair-now/commitlog" / f"{result.physical_offset:020d}"
    assert copy.read_bytes() == damaged


def test_skip_up_to_the_end_of_a_file(world: World) -> None:
    """The last message of a file and the filler behind it."""
    last = max(n for n, result in enumerate(world.results) if result.physical_offset < FILE_SIZE)
    world.damage(last, at=1)
    path = world.log_file(0)
    data = bytearray(path.read_bytes())
    filler = world.results[last].physical_offset + world.results[last].size_bytes
    data[filler : filler + 8] = b"rubbish!"
    path.write_bytes(data)
    (step,) = world.repair(RepairMode.SKIP)
    assert isinstance(step, FillRange)
    assert (step.start, step.end, step.is_file_end) == (world.results[last].physical_offset, FILE_SIZE, True)
    assert is_fine(world.directory)
    assert world.numbers(world.open_after_crash()) == [n for n in range(MESSAGES) if n != last]


def test_skip_of_a_missing_file(world: World) -> None:
    """A file in its place holds nothing; the messages of all others are there."""
    world.log_file(FILE_SIZE).unlink()
    with pytest.raises(LayoutInvalid):
        world.open_store(directory=world.directory)
    (step,) = world.repair(RepairMode.SKIP)
    assert isinstance(step, FillRange)
    assert (step.start, step.end, step.is_missing) == (FILE_SIZE, 2 * FILE_SIZE, True)
    good = [n for n, result in enumerate(world.results) if not FILE_SIZE <= result.physical_offset < 2 * FILE_SIZE]
    assert is_fine(world.directory)
    assert world.numbers(world.open_after_crash()) == good


def test_truncate_ends_the_log_and_says_what_goes(world: World) -> None:
    """Messages behind the damage are counted by queue, their bytes are kept aside, and sending goes on."""
    result = world.damage(20)
    (step, *rest) = world.repair(RepairMode.TRUNCATE)
    assert isinstance(step, CutLog)
    assert step.physical_offset == result.physical_offset
    assert step.lost == {("TopicA", 0): 13, ("TopicA", 1): 13, ("TopicB", 0): 13}
    assert [type(other) for other in rest] == [LowerFlushedOffset]
    start = result.physical_offset - result.physical_offset % FILE_SIZE
    copies = sorted(path.name for path in (world.directory / "repair-now/commitlog").iterdir())
    assert copies[0] == f"{result.physical_offset:020d}"
    assert copies[1:] == [f"{n:020d}" for n in range(start + FILE_SIZE, 5 * FILE_SIZE, FILE_SIZE)]
    behind = world.results[21].physical_offset - result.physical_offset
    kept = (world.directory / "repair-now/commitlog" / copies[0]).read_bytes()
    assert decode_record(kept, behind).body.startswith(b"21:")

    store = world.open_store(directory=world.directory)
    assert world.numbers(store) == list(range(20))
    assert world.send(store, "TopicA", 0, b"99:").physical_offset == result.physical_offset
    store.close()
    assert is_fine(world.directory)
    assert world.numbers(world.open_after_crash()) == [*range(20), 99]


def test_truncate_at_a_missing_file(world: World) -> None:
    """The files behind the gap go to the copies."""
    world.log_file(FILE_SIZE).unlink()
    (step, *_) = world.repair(RepairMode.TRUNCATE)
    assert isinstance(step, CutLog)
    assert step.physical_offset == FILE_SIZE
    assert sum(step.lost.values()) == sum(result.physical_offset >= 2 * FILE_SIZE for result in world.results)
    good = [n for n, result in enumerate(world.results) if result.physical_offset < FILE_SIZE]
    assert world.numbers(world.open_store(directory=world.directory)) == good


def test_a_log_that_lost_its_synced_end(world: World) -> None:
    """Zeros where the checkpoint knows synced records: opening stops until somebody accepts the loss."""
    last = world.results[-1]
    start = last.physical_offset - last.physical_offset % FILE_SIZE
    position = last.physical_offset - start
    data = world.log_file(start).read_bytes()
    world.log_file(start).write_bytes(data[:position] + bytes(FILE_SIZE - position))
    with pytest.raises(RecordCorrupt):
        world.open_after_crash()
    (step,) = world.repair(RepairMode.SKIP)
    assert step == LowerFlushedOffset(
        flushed_offset=last.physical_offset + last.size_bytes, physical_offset=last.physical_offset
    )
    assert world.numbers(world.open_after_crash()) == list(range(MESSAGES - 1))


def test_config_from_its_backup(world: World) -> None:
    """The damaged table is kept aside; one without a whole backup is named and left."""
    config = world.directory / "config"
    config.mkdir()
    (config / "topics.json").write_text("{broken")
    (config / "topics.json.bak").write_text('{"topicConfigTable":{}}')
    (config / "delayOffset.json").write_text("?")
    lonely, restore = world.repair(RepairMode.SKIP)
    assert isinstance(lonely, Unrepairable)
    assert isinstance(restore, RestoreConfig)
    assert (config / "topics.json").read_text() == '{"topicConfigTable":{}}'
    assert (world.directory / "repair-now/config/topics.json").read_text() == "{broken"
    assert (config / "delayOffset.json").read_text() == "?"


def test_a_torn_tail_is_the_openings_business(world: World) -> None:
    """After a crash what lies behind the flushed offset is no damage."""
    (world.directory / "abort").write_text("1")
    end = world.results[-1].physical_offset + world.results[-1].size_bytes
    with world.log_file(end - end % FILE_SIZE).open("r+b") as file:
        file.seek(end % FILE_SIZE)
        file.write(b"torn")
    assert world.repair(RepairMode.TRUNCATE) == []


@pytest.mark.parametrize("mode", RepairMode)
def test_interrupted_anywhere(world: World, tmp_path: Path, mode: RepairMode) -> None:
    """Repairing again after a stop at any step comes to the same end; what goes is in the copies before it is gone."""
    world.damage(20)
    world.damage(40)
    expected = list(range(20)) if mode is RepairMode.TRUNCATE else [n for n in range(MESSAGES) if n not in (20, 40)]
    calls = 0
    while True:
        copy = Path(shutil.copytree(world.directory, tmp_path / f"{mode}{calls}"))
        again = World(copy, world.results, world.open_store, world.send)
        with view_of(copy, exclusive=True) as view:
            try:
                apply_repair(view, plan_repair(view, mode), copy / "repair-1", disk=StoppingDisk(calls))
                is_done = True
            except Stopped:
                is_done = False
        if not is_done:
            again.repair(mode)
        store = again.open_store(directory=copy)
        assert again.numbers(store) == expected
        store.close()
        if is_done:
            break
        calls += 1
    assert calls > 3


@pytest.mark.parametrize("size_bytes", [92, 200, 5000, 12_345])
def test_fill_is_made_of_records(size_bytes: int) -> None:
    """Back to back, exactly as long as the range, none larger than allowed, of no queue and no index."""
    fill = encode_fill(1000, 1000 + size_bytes, is_file_end=False, record_size_bytes_max=4000, store_timestamp_ms=5)
    data = b"".join(piece for _, piece in fill)
    assert len(data) == size_bytes
    records = decode_records(data)
    assert [record.physical_offset for record in records] == [offset for offset, _ in fill]
    assert all(record.sys_flag == 12 and record.topic == "!" for record in records)
    assert max(record.size_bytes for record in records) <= 4000


def test_what_is_too_small_to_fill() -> None:
    """Less than a record, less than a filler."""
    assert skip_sizes(SKIP_SIZE_BYTES_MIN, 4000) == [92]
    assert skip_sizes(4050, 4000) == [3958, 92]
    with pytest.raises(ValueError, match="less than a record"):
        skip_sizes(91, 4000)
    with pytest.raises(ValueError, match="blank filler"):
        encode_fill(0, 7, is_file_end=True, record_size_bytes_max=4000, store_timestamp_ms=0)
