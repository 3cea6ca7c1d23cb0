"""The store against a dumb twin, on a disk that loses power, loses writes and runs full, at any moment.

The twin is a list of what was appended. Held at all times:
- what was acknowledged as synced survives everything;
- what was appended survives the death of the process;
- what survives a power loss is a prefix of what was appended: nothing invented, nothing changed, no gap in a queue;
- opening never takes what a crash does for damage.
"""

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from apogeemq.remoting_codec.record import decode_records
from apogeemq.store.errors import DiskFull, NotWritable
from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss
from apogeemq.store.message_store import AppendResult, MessageStore, ReadStatus
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from packages.store.tests.small_store import CONFIG, HOST, QUEUES

queue_choices = st.sampled_from(QUEUES)
body_sizes = st.one_of(st.integers(0, 40), st.integers(0, 1500))


class Appended(NamedTuple):
    """One message as the twin remembers it."""

    topic: str
    queue_id: int
    body: bytes
    end: int


class CrashingStore(RuleBasedStateMachine):
    """Rules act on the store and on the twin; each ends with the store open, unless it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_700_000_000_000
        self.messages: list[Appended] = []
        self.synced_end = 0
        self.next_body = 0
        self.store: MessageStore | None = None

    @initialize(seed=st.integers(0, 1 << 32))
    def start(self, seed: int) -> None:
        """An empty disk."""
        self.disk = FaultyDisk(Random(seed))
        self.reopen(power_was_lost=False)

    # -- appending -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.store is not None)
    @rule(queue=queue_choices, size=body_sizes)
    def append(self, queue: tuple[str, int], size: int) -> None:
        """One message."""
        body = self.new_body(size)
        try:
            result = self.open_store.append(*queue, 0, 0, 1, HOST, 0, 0, body, b"", 0)
        except (DiskFull, NotWritable):
            return
        except PowerLoss:
            self.restart()
            return
        self.remember(queue, body, result)

    @precondition(lambda self: self.store is not None)
    @rule(queue=queue_choices, sizes=st.lists(st.integers(0, 600), min_size=1, max_size=4))
    def append_batch(self, queue: tuple[str, int], sizes: list[int]) -> None:
        """Several messages, all or none."""
        bodies = [self.new_body(size) for size in sizes]
        try:
            results = self.open_store.append_batch(*queue, 0, 1, HOST, [(0, body, b"", 0) for body in bodies])
        except (DiskFull, NotWritable):
            return
        except PowerLoss:
            self.restart()
            return
        for body, result in zip(bodies, results, strict=True):
            self.remember(queue, body, result)

    def new_body(self, size: int) -> bytes:
        """Unique, so that no message passes for another."""
        self.next_body += 1
        return b"%d/" % self.next_body + b"z" * size

    def remember(self, queue: tuple[str, int], body: bytes, result: AppendResult) -> None:
        """The queue offset must be the number of messages that the queue had."""
        assert result.queue_offset == len(self.bodies_of(queue))
        self.messages.append(Appended(*queue, body, result.physical_offset + result.size_bytes))

    # -- flushing ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.store is not None)
    @rule(passed_ms=st.sampled_from([1, 600, 61_000]))
    def flush(self, passed_ms: int) -> None:
        """A round of the flush thread, after some time; whoever waits for the last message is told the truth."""
        self.now_ms += passed_ms
        store, target = self.open_store, self.open_store.written_offset
        answers: list[Exception | None] = []
        store.notify_flushed(target, answers.append)
        try:
            store.flush_once()
        except PowerLoss:
            self.note(answers, target)
            self.restart()
            return
        assert len(answers) == 1
        self.note(answers, target)
        if answers[0] is not None:
            assert not store.is_writable

    def note(self, answers: list[Exception | None], target: int) -> None:
        """An acknowledgement is a promise."""
        if answers == [None]:
            self.synced_end = max(self.synced_end, target)

    # -- the world -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.store is not None)
    @rule()
    def power_loss(self) -> None:
        """Between two calls."""
        self.disk.lose_power()
        self.restart()

    @precondition(lambda self: self.store is not None)
    @rule(changes=st.integers(0, 12))
    def power_loss_soon(self, changes: int) -> None:
        """In the middle of some call to come."""
        self.disk.lose_power_after(changes)

    @precondition(lambda self: self.store is not None)
    @rule()
    def kill(self) -> None:
        """kill -9: the page cache stays, so everything stays."""
        try:
            self.disk.enter("kill", Path())
        except PowerLoss:  # power was lost before, and nobody had noticed
            self.restart()
            return
        self.disk.kill_process()
        self.reopen(power_was_lost=False)

    @precondition(lambda self: self.store is not None)
    @rule(
        operation=st.sampled_from(["sync", "write", "reserve", "sync_dir"]),
        part=st.sampled_from(["commitlog", "consumequeue", "checkpoint", ""]),
        calls=st.integers(0, 3),
    )
    def io_error(self, operation: str, part: str, calls: int) -> None:
        """Some call to come fails once."""
        self.disk.fail(operation, errno.EIO, path_part=part, calls_before=calls)

    @rule(room=st.sampled_from([0, 3000, None]))
    def disk_room(self, room: int | None) -> None:
        """The disk has so much room left from now on."""
        self.disk.capacity_bytes = None if room is None else self.disk.used_bytes() + room

    @precondition(lambda self: self.store is not None)
    @rule()
    def close_and_open(self) -> None:
        """A stop in good order, where the disk allows it."""
        store, self.store = self.open_store, None
        end = store.written_offset
        try:
            store.close()
        except NotWritable:
            self.disk.kill_process()
        except PowerLoss:
            self.restart()
            return
        except OSError:
            self.disk.kill_process()
        else:
            self.synced_end = max(self.synced_end, end)
        self.reopen(power_was_lost=False)

    # -- checking ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.store is not None)
    @rule(queue=queue_choices, start=st.integers(0, 60), max_count=st.integers(1, 40), cold=st.booleans())
    def read(self, queue: tuple[str, int], start: int, max_count: int, cold: bool) -> None:
        """Any range of a queue, with what is in memory or with the disk."""
        expected = self.bodies_of(queue)
        self.disk.cached = not cold
        try:
            result = self.open_store.read(*queue, start, max_count, 4000, None)
            if result.status is ReadStatus.COLD:
                result = self.open_store.read(*queue, start, max_count, 4000, None, cold_allowed=True)
        except PowerLoss:
            self.restart()
            return
        assert result.max_offset == len(expected)
        if start >= len(expected):
            assert result.status is not ReadStatus.FOUND
            return
        records = decode_records(b"".join(result.buffers))
        assert 0 < len(records) == result.count <= max_count
        assert result.next_offset == start + len(records)
        assert [record.body for record in records] == expected[start : start + len(records)]
        assert [record.queue_offset for record in records] == list(range(start, start + len(records)))

    def check(self) -> None:
        """Every queue holds what the twin says, from the first message to the last."""
        for queue in QUEUES:
            expected, found, at = self.bodies_of(queue), [], 0
            while (result := self.open_store.read(*queue, at, 32, 1 << 20, None, cold_allowed=True)).count:
                assert result.status is ReadStatus.FOUND
                found += [record.body for record in decode_records(b"".join(result.buffers))]
                at = result.next_offset
            assert found == expected
            assert self.open_store.max_offset(*queue) == len(expected)

    def restart(self) -> None:
        """After a power loss."""
        self.disk.restart()
        self.reopen(power_was_lost=True)

    def reopen(self, *, power_was_lost: bool) -> None:
        """Open the store, however often it takes; then the twin forgets what a power loss may take."""
        while True:
            try:
                self.store = self.open_once()
            except PowerLoss:
                self.disk.restart()
                power_was_lost = True
            except (DiskFull, OSError):
                self.disk.kill_process()
                self.disk.capacity_bytes = None
            else:
                break
        self.disk.kill_process()  # takes back what was yet to fail; nobody dies
        end = self.open_store.written_offset
        assert end >= self.synced_end, "a synced message was lost"
        if power_was_lost:
            self.messages = [message for message in self.messages if message.end <= end]
        self.synced_end = end
        self.check()

    def open_once(self) -> MessageStore:
        """As a process does."""
        return MessageStore.open(Path("/store"), CONFIG, now_ms=lambda: self.now_ms, disk=self.disk, background=False)

    @property
    def open_store(self) -> MessageStore:
        """The store, known to be open."""
        assert self.store is not None
        return self.store

    def bodies_of(self, queue: tuple[str, int]) -> list[bytes]:
        """What the twin has in a queue."""
        return [message.body for message in self.messages if (message.topic, message.queue_id) == queue]


TestCrashingStore = CrashingStore.TestCase
TestCrashingStore.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def walk(seed: int, steps: int) -> None:
    """The same rules in an order that a broker's day resembles more than hypothesis' choices do; a seed replays it."""
    chance = Random(seed)
    model = CrashingStore()
    model.start(seed)
    actions: dict[Callable[[], None], int] = {
        lambda: model.append(chance.choice(QUEUES), chance.choice([0, 10, 100, chance.randint(0, 1500)])): 35,
        lambda: model.append_batch(
            chance.choice(QUEUES), [chance.randint(0, 600) for _ in range(chance.randint(1, 4))]
        ): 10,
        lambda: model.flush(chance.choice([1, 600, 61_000])): 20,
        model.power_loss: 5,
        lambda: model.power_loss_soon(chance.randint(0, 12)): 5,
        model.kill: 4,
        lambda: model.io_error(
            chance.choice(["sync", "write", "reserve", "sync_dir"]),
            chance.choice(["commitlog", "consumequeue", "checkpoint", ""]),
            chance.randint(0, 3),
        ): 6,
        lambda: model.disk_room(chance.choice([0, 3000, None])): 3,
        model.close_and_open: 3,
        lambda: model.read(
            chance.choice(QUEUES), chance.randint(0, 60), chance.randint(1, 40), chance.random() < 0.5
        ): 9,
    }
    for action in chance.choices(list(actions), list(actions.values()), k=steps):
        action()


@pytest.mark.parametrize("first_seed", range(0, 500, 50))
def test_seeded_walks(first_seed: int) -> None:
    """Fifty walks of sixty steps each; the seed of one that fails is in the traceback's locals."""
    for seed in range(first_seed, first_seed + 50):
        walk(seed, 60)
