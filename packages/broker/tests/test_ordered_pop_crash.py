"""A broker that dies anywhere amid ordered pops: nothing is lost, no group out of order, no message in two hands."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from apogeemq.broker.config import PopConfig
from apogeemq.broker.core.pop import HandleResult, PopHandle, Popped, PopRequest
from apogeemq.remoting_codec.message import decode_properties

from packages.broker.tests.crash_lives import QUEUES, Life, SlowStep, Step, popped_messages
from packages.broker.tests.world import World, send_fields

INVISIBLE_MS = 20_000
GROUPS = "ABC"


@dataclass
class Group:
    """One message group, as a careful observer knows it: bodies in the order of sending."""

    sent: list[int] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    in_hand: tuple[int, PopHandle, int] | None = None
    """Body, newest handle, and until when (ms) nobody else may get anything of the group."""


class OrderedLife(Life):
    """Ordered pops, acknowledgements and new times of messages with message groups."""

    def __init__(self, seed: int, *, keeps_writes: bool) -> None:
        super().__init__(seed, keeps_writes=keeps_writes)
        self.groups = {name: Group() for name in GROUPS}
        self.is_anew = False
        """The power was gone: what is in hand, and what was acknowledged, is not known any more."""
        self.in_doubt: int | None = None

    def open(self) -> World:
        return World(self.disk, clock=self.clock, pop=PopConfig(revive_queue_num=1))

    def steps(self) -> Sequence[Step]:
        return [self.send, self.send, self.pop, self.pop, self.pop, self.ack, self.ack, self.change, self.wait]

    def slow_steps(self) -> Sequence[SlowStep]:
        return [self.save, self.flush]

    async def come_back(self) -> None:
        await super().come_back()
        self.is_anew = not self.keeps_writes
        stored = {int(record.body) for record in self.visible()}
        for group in self.groups.values():
            group.sent = [body for body in group.sent if body in stored]

    def send(self) -> None:
        name = self.chance.choice(GROUPS)
        fields = send_fields("T", ord(name) % QUEUES, f"__SHARDINGKEY\x01{name}\x02")
        body = self.new_body()
        self.groups[name].sent.append(int(body))
        self.expect_success(self.client.request(310, fields, body))

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
        for record, handle in popped_messages(found):
            group = self.groups[decode_properties(record.properties)["__SHARDINGKEY"]]
            body = int(record.body)
            before, until_ms = (group.in_hand[0], group.in_hand[2]) if group.in_hand else (None, 0)
            if not self.is_anew:
                assert body not in group.done or body == self.in_doubt, "it was acknowledged"
                assert until_ms <= now_ms or (is_repeatable and body == before), "somebody else has the group"
            earlier = [each for each in group.sent if each < body and each not in group.done]
            assert earlier == [], "it goes out before its turn"
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

    async def finish(self) -> None:
        """Everything that is there goes out in order, and comes to an end."""
        for _ in range(2 * len(self.sent) + 2):
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
    life = OrderedLife(seed, keeps_writes=True)
    await life.begin()
    for _ in range(3):
        await life.use_until_it_dies()
        await life.come_back()
    await life.finish()
    await life.world.stop()
    for group in life.groups.values():
        assert sorted(group.done) == group.sent


@pytest.mark.parametrize("seed", range(15))
async def test_a_power_loss_amid_ordered_pops(seed: int) -> None:
    """What was not synced may be lost; what is there comes in order, none of it skipped."""
    life = OrderedLife(seed, keeps_writes=False)
    await life.begin()
    await life.use_until_it_dies()
    await life.come_back()
    for group in life.groups.values():
        group.done &= set(group.sent)
        group.in_hand = None  # what is written of it may be lost
    await life.finish()
    await life.world.stop()
    for group in life.groups.values():
        assert sorted(group.done) == group.sent
