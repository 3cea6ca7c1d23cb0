"""What the crash properties share: a broker that is used at random until its disk dies, and comes back.

A property refines Life with what may be done (steps) and with what a careful observer knows of it. A test then lets it
begin, use the broker until it dies, come back, as often as it likes, and judges what is there in the end. All chance
comes from the seed, so a run that fails is run again by its number.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from random import Random
from typing import TypeAlias

from apogeemq.broker.core.pop import PopHandle, Popped
from apogeemq.mesh.clock import ManualClock
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.record import Record, decode_records
from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss

from packages.broker.tests.world import ROOT, World

QUEUES = 2
"""Of topic T, which every life has."""
STEPS = 60
CHANGES_MAX = 100
"""So many changes of the disk a life survives at most. STEPS make about as many: most lives end amid a change."""
SLOW_SHARE = 0.3
"""So many steps are followed by one of those that wait for something."""

Step: TypeAlias = Callable[[], None]
SlowStep: TypeAlias = Callable[[], Awaitable[None]]


class Life(ABC):
    """Random use of a broker, which ends in a crash.

    Args:
        seed: of all chance.
        keeps_writes: the process dies and the machine lives: all that was written is there (kill -9). Else the power
            goes, and what was not synced may be lost with it.
    """

    def __init__(self, seed: int, *, keeps_writes: bool) -> None:
        self.chance = Random(seed)
        self.keeps_writes = keeps_writes
        self.disk = FaultyDisk(self.chance)
        self.clock = ManualClock()
        self.sent: set[bytes] = set()
        """Bodies of all that was sent, answered or not: numbers, ascending."""
        self.flushed: set[bytes] = set()
        """Those of them that were sent before a flush that ended well."""
        self._open()

    @abstractmethod
    def open(self) -> World:
        """A broker on the life's disk, with its clock."""

    @abstractmethod
    def steps(self) -> Sequence[Step]:
        """What may be done; what is there twice is done twice as often."""

    @abstractmethod
    def slow_steps(self) -> Sequence[SlowStep]:
        """The same of what waits for something."""

    def _open(self) -> None:
        self.world = self.open()
        self.client = self.world.client()

    # -- life and death ------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Start for the first time; nothing dies yet."""
        await self.world.save_topic("T", QUEUES)
        await self.world.broker.restore()
        await self.world.broker.saver.save_groups()
        self.world.store.flush_once()

    async def use_until_it_dies(self) -> None:
        """Some steps; a change of the disk somewhere among them is the last."""
        self.disk.lose_power_after(self.chance.randrange(CHANGES_MAX))
        steps, slow_steps = self.steps(), self.slow_steps()
        try:
            for _ in range(STEPS):
                self.chance.choice(steps)()
                if self.chance.random() < SLOW_SHARE:
                    await self.chance.choice(slow_steps)()
        except PowerLoss:
            pass
        await self.world.kill()
        if self.keeps_writes:
            self.disk.kill_process()
        else:
            self.disk.lose_power()
            self.disk.restart()

    async def come_back(self) -> None:
        """Start on what is left."""
        self._open()
        await self.world.broker.restore()

    def expect_success(self, reply: RemotingCommand) -> None:
        """Fail unless a request was done; PowerLoss when it was not because the disk has died."""
        if reply.code != 0:
            self.disk.enter("look", ROOT)  # the face made an answer of PowerLoss: here it comes once more
            raise AssertionError(reply.remark)

    # -- steps that all have -------------------------------------------------------------------------------------------

    def new_body(self) -> bytes:
        """That of the next message."""
        body = b"%d" % len(self.sent)
        self.sent.add(body)
        return body

    async def save(self) -> None:
        """Write the consumer offsets, and the progress that is kept as such."""
        await self.world.broker.saver.save_consumer_offsets()

    async def flush(self) -> None:
        """A round of the store's threads."""
        self.world.store.flush_once()
        self.flushed |= self.sent

    # -- looking -------------------------------------------------------------------------------------------------------

    def visible(self) -> list[Record]:
        """All that is in the queues of T."""
        return [record for queue_id in range(QUEUES) for record in self.world.records("T", queue_id)]


def popped_messages(popped: Popped) -> Iterator[tuple[Record, PopHandle]]:
    """What a pop brought, each with its handle."""
    for run in popped.runs:
        records = [record for buffer in run.buffers for record in decode_records(buffer)]
        assert [record.queue_offset for record in records] == list(run.queue_offsets)
        for record in records:
            yield (
                record,
                PopHandle(
                    run.retry_mark,
                    run.queue_id,
                    record.queue_offset,
                    run.start_offset,
                    popped.pop_time_ms,
                    popped.invisible_time_ms,
                    popped.revive_queue_id,
                ),
            )
