"""Timer messages and delay levels while the machine's clock is set forth and back: never early, and none lost."""

from dataclasses import dataclass
from random import Random

import pytest
from apogeemq.mesh.clock import ManualClock

from packages.broker.tests.world import World, send_fields

HOUR_MS = 3_600_000
TIMERS = 1_000
STEPS_MS = (1, 999, 7_000, 61_000, 600_000)
LEVELS_MS = {1: 1_000, 2: 5_000, 3: 10_000, 5: 60_000}
"""The level and how long it waits, of those that are used here."""


class SetClock(ManualClock):
    """A clock that is set now and then: wall time jumps, elapsed time does not."""

    def __init__(self) -> None:
        super().__init__()
        self._jumped_ms = 0

    def jump(self, by_ms: int) -> None:
        self._jumped_ms += by_ms

    def now_ms(self) -> int:
        return super().now_ms() + self._jumped_ms


@dataclass
class Delayed:
    """A message with a level: when it was sent by both times."""

    delay_ms: int
    sent_ms: int
    sent_s: float


class Jumps:
    """A broker whose clock goes on, and jumps, as chance wants; what is delivered is seen at once."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.clock = SetClock()
        self.world = World(clock=self.clock)
        self.world.create_topic()
        self.client = self.world.client()
        self._seen = 0

    def delay_ms(self) -> int:
        """Often one that ends with a step of the time, or a millisecond after it."""
        if self.chance.random() < 0.2:
            return self.chance.randint(1, HOUR_MS)
        return self.chance.choice(STEPS_MS) + self.chance.randrange(2)

    def time_goes_on(self) -> None:
        self.clock.advance(self.chance.choice(STEPS_MS) / 1000)
        if self.chance.random() < 0.3:
            self.clock.jump(self.chance.choice((-HOUR_MS, -1_001, -1, 1, 2_500, HOUR_MS)))

    def send(self, body: bytes, properties: str) -> None:
        assert self.client.request(310, send_fields("T", 0, properties), body).code == 0

    async def delivered(self) -> list[bytes]:
        """What comes when the broker looks now; the time stands still meanwhile."""
        await self.world.broker.timers._deliver_due()
        await self.world.broker.timers._settle()
        await self.world.broker.delay._deliver_due()
        new = self.world.records("T", start=self._seen)
        self._seen += len(new)
        return [record.body for record in new]


async def test_a_timer_comes_when_the_clock_says_so() -> None:
    """Whichever way it was set: at each look all come that are due by then, and no other."""
    jumps = Jumps(0)
    waiting: dict[bytes, int] = {}
    sent = 0
    while sent < TIMERS or waiting:
        for _ in range(min(TIMERS - sent, jumps.chance.randrange(40))):
            body, due_ms = b"%d" % sent, jumps.clock.now_ms() + jumps.delay_ms()
            jumps.send(body, f"TIMER_DELIVER_MS\x01{due_ms}\x02")
            waiting[body] = due_ms
            sent += 1
        jumps.time_goes_on()
        due = {body for body, due_ms in waiting.items() if due_ms <= jumps.clock.now_ms()}
        came = await jumps.delivered()
        assert len(came) == len(due)
        assert set(came) == due
        for body in came:
            del waiting[body]
    await jumps.world.kill()


@pytest.mark.parametrize("seed", range(2))
async def test_a_level_is_over_by_one_of_both_times(seed: int) -> None:
    """By the wall since it was sent, or truly since then; and a clock that was set back holds nothing for long."""
    jumps = Jumps(1 + seed)
    waiting: dict[bytes, Delayed] = {}
    for number in range(300):
        body, level = b"%d" % number, jumps.chance.choice(list(LEVELS_MS))
        jumps.send(body, f"DELAY\x01{level}\x02")
        waiting[body] = Delayed(LEVELS_MS[level], jumps.clock.now_ms(), jumps.clock.monotonic())
        jumps.time_goes_on()
        for came in await jumps.delivered():
            delayed = waiting.pop(came)
            by_wall_ms = jumps.clock.now_ms() - delayed.sent_ms
            truly_ms = (jumps.clock.monotonic() - delayed.sent_s) * 1000
            assert max(by_wall_ms, truly_ms) >= delayed.delay_ms, came
    for _ in range(3):
        jumps.clock.advance(max(LEVELS_MS.values()) / 1000)
        for came in await jumps.delivered():
            del waiting[came]
    assert waiting == {}
    await jumps.world.kill()
