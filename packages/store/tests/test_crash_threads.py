"""The store's threads at work while messages come in, interleaved at every lock and disk call, and crashes in between.

As in test_crash_model, against a list of what was appended; but here a flush, the writing of queues and the reserving
of room are half-way when the next append comes, when the power goes, or when the process dies.
"""

import errno
from pathlib import Path
from random import Random

import pytest
from apogeemq.remoting_codec.record import decode_records
from apogeemq.store import (
    consume_queue,
    disk_health,
    disk_watch,
    flush,
    index_files,
    mapped_file_queue,
    queue_flush,
    segment_files,
    store_assembly,
    timer_store,
)
from apogeemq.store.errors import DiskFull, NotWritable
from apogeemq.store.faulty_disk import PowerLoss
from apogeemq.store.message_store import MessageStore, ReadStatus

from packages.store.tests.baton import Actor, TurnDisk, TurnLock
from packages.store.tests.small_store import CONFIG, HOST, QUEUES

MODULES_WITH_LOCKS = [
    consume_queue,
    disk_health,
    disk_watch,
    flush,
    index_files,
    mapped_file_queue,
    queue_flush,
    segment_files,
    store_assembly,
    timer_store,
]
WORKERS = ["store-flush", "store-queues", "store-room"]


@pytest.fixture(autouse=True)
def _locks_that_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in MODULES_WITH_LOCKS:
        monkeypatch.setattr(module, "Lock", TurnLock)


class Run:
    """One store's life, with its threads; `messages` is the twin: topic, queue id, body, end in the log."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.disk = TurnDisk(self.chance)
        self.now_ms = 1_700_000_000_000
        self.messages: list[tuple[str, int, bytes, int]] = []
        self.promised_end = 0
        self.actors: dict[str, Actor] = {}
        self.bodies = 0
        self.store = self.open()

    # -- what happens --------------------------------------------------------------------------------------------------

    def append(self) -> None:
        """A message; while it waits for the disk, the threads go on."""
        queue = self.chance.choice(QUEUES)
        self.bodies += 1
        body = b"%d/" % self.bodies + b"z" * self.chance.choice([0, 10, 100, self.chance.randint(0, 1500)])
        try:
            result = self.store.append(*queue, 0, 0, 1, HOST, 0, 0, body, b"", 0)
        except (DiskFull, NotWritable):
            return
        end = result.physical_offset + result.size_bytes
        assert result.queue_offset == len(self.bodies_of(queue))
        self.messages.append((*queue, body, end))
        if self.chance.random() < 0.3:
            self.store.notify_flushed(end, lambda error: self.answered(error, end))

    def answered(self, error: Exception | None, end: int) -> None:
        """A sender is told; that is a promise."""
        if error is None:
            self.promised_end = max(self.promised_end, end)

    def work(self) -> None:
        """A step or several of some thread; one that was idle begins its work."""
        self.now_ms += self.chance.choice([0, 300, 600, 61_000])
        name = self.chance.choice(WORKERS)
        actor = self.actors.get(name)
        if actor is None or actor.is_done:
            self.check(actor)
            actor = self.actors[name] = Actor(name, self.store._parts.workers[name].step)
        for _ in range(self.chance.choice([1, 1, 2, 5, 20])):
            if not actor.is_done:
                actor.step()

    def while_waiting(self) -> None:
        """The test's own thread is at the disk: half of the times, others run."""
        if self.chance.random() < 0.5 and self.actors:
            actor = self.actors[self.chance.choice(list(self.actors))]
            if not actor.is_done:
                actor.step()

    def read(self) -> None:
        """Any range of a queue, while its tail is being written."""
        queue = self.chance.choice(QUEUES)
        expected = self.bodies_of(queue)
        start = self.chance.randint(0, max(0, len(expected) - 1))
        try:
            result = self.store.read(*queue, start, 32, 1 << 20, None, cold_allowed=True)
        except OSError:
            return
        found = [record.body for record in decode_records(b"".join(result.buffers))]
        assert found == expected[start : start + result.count]
        assert result.count or not expected

    def power_loss(self) -> None:
        """Now."""
        self.disk.lose_power()
        raise PowerLoss

    def power_loss_soon(self) -> None:
        """In the middle of somebody's call."""
        self.disk.lose_power_after(self.chance.randint(0, 12))

    def kill(self) -> None:
        """SIGKILL: the page cache stays, the threads are gone."""
        self.disk.enter("kill", Path())
        self.abandon()
        self.disk.kill_process()
        self.reopen(power_was_lost=False)

    def io_error(self) -> None:
        """Some call to come fails, or has no room."""
        self.disk.fail(
            self.chance.choice(["sync", "write", "reserve", "sync_dir", "open_segment"]),
            self.chance.choice([errno.EIO, errno.ENOSPC]),
            path_part=self.chance.choice(["commitlog", "consumequeue", "checkpoint", ""]),
            calls_before=self.chance.randint(0, 3),
        )

    def close(self) -> None:
        """In good order: the threads end first, as `close` waits for them."""
        for actor in self.actors.values():
            actor.finish()
            self.check(actor)
        end = self.store.written_offset
        try:
            self.store.close()
        except (OSError, NotWritable):
            self.disk.kill_process()
        else:
            self.promised_end = end
        self.reopen(power_was_lost=False)

    # -- crashes -------------------------------------------------------------------------------------------------------

    def do(self, action: str) -> None:
        """One of the above, and what must hold if the power goes meanwhile."""
        try:
            getattr(self, action)()
            self.notice_power_loss()
        except PowerLoss:
            self.promised_end = max(self.promised_end, self.store.flushed_offset)
            self.abandon()
            self.disk.restart()
            self.reopen(power_was_lost=True)

    def notice_power_loss(self) -> None:
        """It may have come while another thread was at the disk."""
        if any(isinstance(actor.failure, PowerLoss) for actor in self.actors.values()):
            raise PowerLoss

    def abandon(self) -> None:
        """No thread of the process runs any more."""
        self.disk.others = lambda: None
        for actor in self.actors.values():
            actor.abandon()
        self.actors = {}

    def reopen(self, *, power_was_lost: bool) -> None:
        """The next process; what was promised is there, what is there was appended."""
        self.disk.others = lambda: None
        self.disk.kill_process()  # takes back what was yet to fail
        self.store = self.open()
        end = self.store.written_offset
        assert end >= self.promised_end, "what was acknowledged as synced is lost"
        if power_was_lost:
            self.messages = [message for message in self.messages if message[3] <= end]
        self.promised_end = end
        for queue in QUEUES:
            assert self.stored(queue) == self.bodies_of(queue)

    def open(self) -> MessageStore:
        """As a process does, without threads of its own: the run has them."""
        store = MessageStore.open(Path("/store"), CONFIG, now_ms=lambda: self.now_ms, disk=self.disk, background=False)
        self.disk.others = self.while_waiting
        return store

    def stored(self, queue: tuple[str, int]) -> list[bytes]:
        """All bodies of a queue."""
        found: list[bytes] = []
        while (result := self.store.read(*queue, len(found), 32, 1 << 20, None, cold_allowed=True)).count:
            assert result.status is ReadStatus.FOUND
            found += [record.body for record in decode_records(b"".join(result.buffers))]
        assert self.store.max_offset(*queue) == len(found)
        return found

    def bodies_of(self, queue: tuple[str, int]) -> list[bytes]:
        """What the twin has in a queue."""
        return [message[2] for message in self.messages if message[:2] == queue]

    @staticmethod
    def check(actor: Actor | None) -> None:
        """No thread ends by an error of its own."""
        if actor is not None and actor.failure is not None:
            raise actor.failure


ACTIONS = {
    "append": 40,
    "work": 60,
    "read": 8,
    "power_loss": 2,
    "power_loss_soon": 3,
    "kill": 2,
    "io_error": 1,
    "close": 1,
}


def live(seed: int) -> None:
    """A hundred steps; a seed replays them."""
    run = Run(seed)
    for action in run.chance.choices(list(ACTIONS), list(ACTIONS.values()), k=100):
        run.do(action)
    run.abandon()


@pytest.mark.parametrize("first_seed", range(0, 150, 30))
def test_threads_and_crashes(first_seed: int) -> None:
    """Thirty lives each; the seed of one that fails is in the traceback's locals."""
    for seed in range(first_seed, first_seed + 30):
        live(seed)
