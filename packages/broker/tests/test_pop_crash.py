"""A broker that dies anywhere amid pops, acknowledgements, new times, revivals: nothing is lost, nothing early."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from apogeemq.broker.config import PopConfig
from apogeemq.broker.core.pop import HandleResult, PopHandle, Popped, PopRequest

from packages.broker.tests.crash_lives import QUEUES, Life, SlowStep, Step, popped_messages
from packages.broker.tests.world import World, send_fields

INVISIBLE_MS = 20_000


@dataclass
class Messages:
    """What a careful observer knows, by body."""

    acknowledged: set[bytes] = field(default_factory=set)
    in_doubt: set[bytes] = field(default_factory=set)
    """Acknowledged in the moment of the crash, or due then, so that a second copy may have been made."""
    held: dict[bytes, tuple[PopHandle, int]] = field(default_factory=dict)
    """The newest handle, and until when nobody else may get the message (ms)."""


class PopLife(Life):
    """Pops, acknowledgements, new times, revivals."""

    def __init__(self, seed: int, *, keeps_writes: bool) -> None:
        super().__init__(seed, keeps_writes=keeps_writes)
        self.messages = Messages()

    def open(self) -> World:
        return World(self.disk, clock=self.clock, pop=PopConfig(revive_queue_num=2))

    def steps(self) -> Sequence[Step]:
        return [self.send, self.send, self.pop, self.pop, self.ack, self.extend, self.change, self.wait]

    def slow_steps(self) -> Sequence[SlowStep]:
        return [self.revive, self.save, self.flush]

    def send(self) -> None:
        queue_id = self.chance.randrange(QUEUES)
        self.expect_success(self.client.request(310, send_fields("T", queue_id), self.new_body()))

    def pop(self) -> None:
        request = PopRequest(
            group="G",
            topic="T",
            queue_id=-1,
            count_max=self.chance.choice((1, 3, 32)),
            invisible_time_ms=INVISIBLE_MS,
        )
        service = self.world.broker.popping.service
        popped = service.pop(service.check(request))
        if isinstance(popped, Popped):
            self.take(popped)

    def take(self, popped: Popped) -> None:
        now_ms = self.clock.now_ms()
        for record, handle in popped_messages(popped):
            body = record.body
            assert body in self.sent
            if body not in self.messages.in_doubt:
                assert body not in self.messages.acknowledged, "it was acknowledged"
                _, until_ms = self.messages.held.get(body, (None, 0))
                assert until_ms <= now_ms, "somebody else still has it"
            self.messages.held[body] = handle, now_ms + INVISIBLE_MS

    def some_held(self) -> list[bytes]:
        held = sorted(self.messages.held)
        return self.chance.sample(held, min(len(held), self.chance.randrange(1, 8)))

    def ack(self) -> None:
        chosen = self.some_held()
        self.messages.in_doubt.update(doubtful := set(chosen) - self.messages.in_doubt)
        handles = [self.messages.held[body][0] for body in chosen]
        results = self.world.broker.popping.service.ack("G", "T", handles)
        self.messages.in_doubt -= doubtful
        for body, result in zip(chosen, results, strict=True):
            _, until_ms = self.messages.held.pop(body)
            assert (result is HandleResult.OK) == (until_ms > self.clock.now_ms()) or body in self.messages.in_doubt
            if result is HandleResult.OK:
                self.messages.acknowledged.add(body)

    def extend(self) -> None:
        chosen = self.some_held()
        handles = [self.messages.held[body][0] for body in chosen]
        more_ms = self.chance.choice((5_000, 30_000))
        results = self.world.broker.popping.service.extend("G", "T", handles, more_ms)
        for body, result in zip(chosen, results, strict=True):
            handle, until_ms = self.messages.held[body]
            if result is HandleResult.OK:
                self.messages.held[body] = handle, max(until_ms, self.clock.now_ms() + more_ms)

    def change(self) -> None:
        for body in self.some_held()[:1]:
            handle, _ = self.messages.held[body]
            new_ms = self.chance.choice((0, 1_000, 40_000))
            self.messages.in_doubt.update(doubtful := {body} - self.messages.in_doubt)
            changed = self.world.broker.popping.service.change_invisible("G", "T", handle, new_ms)
            self.messages.in_doubt -= doubtful
            if changed.result is HandleResult.OK:
                new = handle._replace(pop_time_ms=changed.pop_time_ms, invisible_time_ms=new_ms)
                self.messages.held[body] = new, changed.pop_time_ms + new_ms

    def wait(self) -> None:
        self.clock.advance(self.chance.choice((0.5, 5, 21)))

    async def revive(self) -> None:
        now_ms = self.clock.now_ms()
        due = {body for body, (_, until_ms) in self.messages.held.items() if until_ms <= now_ms}
        self.messages.in_doubt.update(doubtful := due - self.messages.in_doubt)
        await self.world.broker.popping.revive._revive_due()
        self.world.broker.popping.revive.commit_progress()
        self.messages.in_doubt -= doubtful

    async def drain(self) -> set[bytes]:
        """Pop and acknowledge until nothing comes any more, long after every time is over; gives all that came."""
        delivered = set()
        for _ in range(40):
            self.clock.advance(100)
            await self.revive()
            while True:
                self.messages.held.clear()
                self.pop()
                if not self.messages.held:
                    break
                bodies = list(self.messages.held)
                delivered.update(bodies)
                handles = [handle for handle, _ in self.messages.held.values()]
                results = self.world.broker.popping.service.ack("G", "T", handles)
                assert set(results) == {HandleResult.OK}
        dead = {record.body for record in self.world.records("%DLQ%G")}
        return delivered | dead


@pytest.mark.parametrize("seed", range(150))
async def test_a_killed_broker_loses_nothing_and_hands_out_nothing_early(seed: int) -> None:
    """kill -9 at any write: what was not acknowledged comes again, none before its time, what was does not."""
    life = PopLife(seed, keeps_writes=True)
    await life.begin()
    for _ in range(1 + seed % 3):
        await life.use_until_it_dies()
        await life.come_back()
    expected = {record.body for record in life.visible()} - life.messages.acknowledged - life.messages.in_doubt
    delivered = await life.drain()
    assert expected <= delivered
    assert not delivered & life.messages.acknowledged - life.messages.in_doubt
    await life.world.stop()


@pytest.mark.parametrize("seed", range(60))
async def test_a_power_loss_loses_no_flushed_message(seed: int) -> None:
    """What was on the disk and not acknowledged comes again; what was acknowledged may, for that may be lost."""
    life = PopLife(1_000 + seed, keeps_writes=False)
    await life.begin()
    await life.use_until_it_dies()
    acknowledged = set(life.messages.acknowledged | life.messages.in_doubt)
    life.messages.in_doubt |= life.sent
    await life.come_back()
    assert life.flushed - acknowledged <= await life.drain()
    await life.world.stop()
