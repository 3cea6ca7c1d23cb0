"""A broker that dies anywhere amid ordered pops: nothing is lost, no group out of order, no message in two hands."""

from dataclasses import dataclass, field
from random import Random

import pytest
from apogeemq.broker.config import PopConfig
from apogeemq.broker.core.pop import HandleResult, PopHandle, Popped, PopRequest
from apogeemq.mesh.clock import ManualClock
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.record import decode_records
from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss

from packages.broker.tests.world import World, send_fields

INVISIBLE_MS = 20_000
QUEUES = 2
STEPS = 60
GROUPS = "ABC"


@dataclass
class Group:
    """One message group, as a careful observer knows it: bodies in the order of sending."""

    sent: list[int] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    in_hand: tuple[int, PopHandle, int] | None = None
    """Body, newest handle, and until when (ms) nobody else may get anything of the group."""


class Life:
    """Random use of a broker with message groups, which ends in a crash.

    Args:
        keeps_writes: the process dies and the machine lives: all that was written is there (kill -9). Else the power
            goes, and what was not synced may be lost with it.
    """

    def __init__(self, seed: int, *, keeps_writes: bool) -> None:
        self.chance = Random(seed)
        self.keeps_writes = keeps_writes
        self.disk = FaultyDisk(self.chance)
        self.clock = ManualClock()
        self.groups = {name: Group() for name in GROUPS}
        self.count = 0
        self.is_anew = False
        self.in_doubt: int | None = None
        self.world = self.open()

    def open(self) -> World:
        return World(self.disk, clock=self.clock, pop=PopConfig(revive_queue_num=1))

    async def begin(self) -> None:
        await self.world.save_topic("T", QUEUES)
        await self.world.broker.popping.restore()
        await self.world.broker.saver.save_groups()
        self.world.store.flush_once()

    async def use(self) -> None:
        """Any number of steps; a change of the disk somewhere among them is the last."""
        self.disk.lose_power_after(self.chance.randrange(200))
        steps = [self.send, self.send, self.pop, self.pop, self.pop, self.ack, self.ack, self.change, self.wait]
        try:
            for _ in range(self.chance.randrange(STEPS)):
                self.chance.choice(steps)()
                if self.chance.random() < 0.2:
                    await self.chance.choice([self.save, self.flush])()
        except PowerLoss:
            pass
        await self.world.kill()
        if self.keeps_writes:
            self.disk.kill_process()
        else:
            self.disk.lose_power()
            self.disk.restart()

    async def come_back(self) -> None:
        self.is_anew = not self.keeps_writes
        self.world = self.open()
        await self.world.broker.popping.restore()
        lost = set(range(self.count)) - self.stored()
        for group in self.groups.values():
            group.sent = [body for body in group.sent if body not in lost]

    def send(self) -> None:
        name = self.chance.choice(GROUPS)
        fields = send_fields("T", ord(name) % QUEUES, f"__SHARDINGKEY\x01{name}\x02")
        self.groups[name].sent.append(self.count)
        self.count += 1
        if self.world.client().request(310, fields, b"%d" % (self.count - 1)).code != 0:
            raise PowerLoss  # the connection made an answer of it

    def pop(self) -> None:
        request = PopRequest(
            group="G",
            topic="T",
            queue_id=-1,
            count_max=self.chance.choice((1, 3, 32)),
            invisible_time_ms=INVISIBLE_MS,
            order=True,
            attempt_id=self.chance.choice(("", "x")),
        )
        service = self.world.broker.popping.service
        found = service.pop(service.check(request))
        if isinstance(found, Popped):
            self.take(found, is_repeatable=bool(request.attempt_id))

    def take(self, found: Popped, *, is_repeatable: bool) -> None:
        now_ms = self.clock.now_ms()
        for run in found.runs:
            for record, offset in zip(
                [record for buffer in run.buffers for record in decode_records(buffer)], run.queue_offsets, strict=True
            ):
                group = self.groups[decode_properties(record.properties)["__SHARDINGKEY"]]
                body = int(record.body)
                before, until_ms = (group.in_hand[0], group.in_hand[2]) if group.in_hand else (None, 0)
                if not self.is_anew:
                    assert body not in group.done or body == self.in_doubt, "it was acknowledged"
                    assert until_ms <= now_ms or (is_repeatable and body == before), "somebody else has the group"
                earlier = [each for each in group.sent if each < body and each not in group.done]
                assert earlier == [], "it goes out before its turn"
                handle = PopHandle(
                    run.retry_mark,
                    run.queue_id,
                    offset,
                    run.start_offset,
                    found.pop_time_ms,
                    found.invisible_time_ms,
                    found.revive_queue_id,
                )
                group.in_hand = body, handle, found.pop_time_ms + INVISIBLE_MS

    def ack(self) -> None:
        group = self.groups[self.chance.choice(GROUPS)]
        if group.in_hand is None:
            return
        body, handle, _ = group.in_hand
        group.done.add(body)
        self.in_doubt = body  # until the answer: when the process dies in between, it may be so or not
        (result,) = self.world.broker.popping.service.ack("G", "T", [handle])
        self.in_doubt = None
        assert result is HandleResult.OK or self.is_anew
        group.in_hand = None

    def change(self) -> None:
        group = self.groups[self.chance.choice(GROUPS)]
        if group.in_hand is None:
            return
        body, handle, _ = group.in_hand
        changed = self.world.broker.popping.service.change_invisible("G", "T", handle, 5_000)
        if changed.result is HandleResult.OK:
            group.in_hand = body, handle, self.clock.now_ms() + 5_000

    def wait(self) -> None:
        self.clock.advance(self.chance.choice((1, 4, 19, 21)))

    async def save(self) -> None:
        await self.world.broker.saver.save_consumer_offsets()

    async def flush(self) -> None:
        self.world.store.flush_once()

    def stored(self) -> set[int]:
        """What the broker has kept."""
        return {int(record.body) for queue_id in range(QUEUES) for record in self.world.records("T", queue_id)}

    async def finish(self) -> None:
        """Everything that is there goes out in order, and comes to an end."""
        for _ in range(2 * self.count + 2):
            self.pop()
            for group in self.groups.values():
                if group.in_hand is not None:
                    body, handle, _ = group.in_hand
                    self.world.broker.popping.service.ack("G", "T", [handle])
                    group.done.add(body)
                    group.in_hand = None
            self.clock.advance(INVISIBLE_MS / 1000 + 1)


@pytest.mark.parametrize("seed", range(20))
async def test_a_kill_amid_ordered_pops(seed: int) -> None:
    """kill -9 at any write, three times: what is in hand stays so, as does what is acknowledged, and all comes."""
    life = Life(seed, keeps_writes=True)
    await life.begin()
    for _ in range(3):
        await life.use()
        await life.come_back()
    await life.finish()
    await life.world.stop()
    for group in life.groups.values():
        assert sorted(group.done) == group.sent


@pytest.mark.parametrize("seed", range(15))
async def test_a_power_loss_amid_ordered_pops(seed: int) -> None:
    """What was not synced may be lost; what is there comes in order, none of it skipped."""
    life = Life(seed, keeps_writes=False)
    await life.begin()
    await life.use()
    await life.come_back()
    for group in life.groups.values():
        group.done &= set(group.sent)
        group.in_hand = None  # what is written of it may be lost
    await life.finish()
    await life.world.stop()
    for group in life.groups.values():
        assert sorted(group.done) == group.sent
