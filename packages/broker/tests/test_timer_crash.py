"""A broker that dies anywhere amid timer messages: none is early, lost or delivered twice, nor after its recall."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from packages.broker.tests.crash_lives import QUEUES, Life, SlowStep, Step
from packages.broker.tests.world import World, fields_of, send_fields

SLOT_MS = 1_000
"""A recall must come before the second in which its message is due."""


@dataclass
class Timer:
    """A message whose send was answered."""

    due_ms: int
    handle: str
    is_recalled: bool = False
    """The recall was answered, or may have been stored as the broker died."""


class TimerLife(Life):
    """Timer messages, recalls, deliveries, and files that are to go."""

    def __init__(self, seed: int, *, keeps_writes: bool) -> None:
        super().__init__(seed, keeps_writes=keeps_writes)
        self.due_ms: dict[bytes, int] = {}
        self.timers: dict[bytes, Timer] = {}
        self.recalled: set[bytes] = set()
        """Recalls that were answered."""
        self.recalls_flushed: set[bytes] = set()

    def open(self) -> World:
        return World(self.disk, clock=self.clock)

    def steps(self) -> Sequence[Step]:
        return [self.send, self.send, self.send, self.recall, self.wait]

    def slow_steps(self) -> Sequence[SlowStep]:
        return [self.deliver, self.deliver, self.settle, self.roll_forward, self.save, self.flush]

    async def come_back(self) -> None:
        """What was delivered and not settled is found in the log."""
        await super().come_back()
        await self.world.broker.timers.intake.catch_up()

    def send(self) -> None:
        body = self.new_body()
        due_ms = self.due_ms[body] = self.clock.now_ms() + self.chance.choice((1, 700, 2_500, 20_000, 90_000))
        properties = f"TIMER_DELIVER_MS\x01{due_ms}\x02UNIQ_KEY\x01K{body.decode()}\x02"
        queue_id = self.chance.randrange(QUEUES)
        reply = self.client.request(310, send_fields("T", queue_id, properties), body)
        self.expect_success(reply)
        self.timers[body] = Timer(due_ms, fields_of(reply)["recallHandle"])

    def recall(self) -> None:
        recallable = [
            body
            for body, timer in self.timers.items()
            if not timer.is_recalled and timer.due_ms - SLOT_MS > self.clock.now_ms()
        ]
        if not recallable:
            return
        body = self.chance.choice(recallable)
        self.timers[body].is_recalled = True
        fields = {"producerGroup": "P", "topic": "T", "recallHandle": self.timers[body].handle}
        self.expect_success(self.client.request(370, fields))
        self.recalled.add(body)

    def wait(self) -> None:
        self.clock.advance(self.chance.choice((0.001, 0.5, 3, 30)))

    async def deliver(self) -> None:
        await self.world.broker.timers._deliver_due()

    async def settle(self) -> None:
        await self.world.broker.timers._settle()

    async def roll_forward(self) -> None:
        """All files are to go: what waits is stored anew."""
        await self.world.broker.timers.roll_forward(self.world.store.written_offset)

    def delivered(self) -> Counter[bytes]:
        return Counter(record.body for record in self.visible())

    async def flush(self) -> None:
        await super().flush()
        self.recalls_flushed |= self.recalled

    async def finish(self) -> Counter[bytes]:
        """Wait until all are due; gives how often each came. Fails when one came before its time."""
        for _ in range(4):
            self.clock.advance(30)
            await self.deliver()
            await self.settle()
        assert self.world.store.timer.pending_count == 0
        records = self.visible()
        early = [record.body for record in records if record.store_timestamp_ms < self.due_ms[record.body]]
        assert early == []
        return self.delivered()


@pytest.mark.parametrize("seed", range(20))
async def test_a_kill_amid_timers(seed: int) -> None:
    """kill -9 at any write, three times: all come, and once."""
    life = TimerLife(seed, keeps_writes=True)
    await life.begin()
    for _ in range(3):
        await life.use_until_it_dies()
        await life.come_back()
    came = await life.finish()
    await life.world.kill()
    assert life.recalled & came.keys() == set()
    kept = {body for body, timer in life.timers.items() if not timer.is_recalled}
    assert kept - came.keys() == set()
    assert max(came.values(), default=0) <= 1


@pytest.mark.parametrize("seed", range(40))
async def test_a_power_loss_amid_timers(seed: int) -> None:
    """What was flushed comes, unless its recall was flushed too; nothing is early."""
    life = TimerLife(1_000 + seed, keeps_writes=False)
    await life.begin()
    await life.use_until_it_dies()
    await life.come_back()
    came = await life.finish()
    await life.world.kill()
    assert life.recalls_flushed & came.keys() == set()
    kept = {body for body in life.flushed if body in life.timers and not life.timers[body].is_recalled}
    assert kept - came.keys() == set()
    assert max(came.values(), default=0) <= 1
