"""A broker that dies anywhere amid transactions: none of what was committed is lost, nothing rolled back is seen."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from apogeemq.broker.config import TransactionsConfig
from apogeemq.broker.core.names import TRANS_CHECK_MAX_TIME_TOPIC
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.message_id import decode_offset_message_id
from apogeemq.remoting_codec.record import decode_record

from packages.broker.tests.crash_lives import QUEUES, Life, SlowStep, Step
from packages.broker.tests.world import World, fields_of, producer_beat, send_fields

COMMIT, ROLLBACK = 8, 12
TIMEOUT_MS = 6_000
ASKED_AGAIN_MS = 10_000


@dataclass
class Half:
    """A half message, and what its producer does with it sooner or later: he never changes his mind."""

    sent_ms: int
    decision: int
    is_sent: bool = False
    """Its send was answered."""
    place: tuple[int, int] | None = None
    """(queue offset, physical offset) of the newest copy that the producer knows of, until he ends it."""
    is_decided: bool = False
    """Its end was answered."""
    times_max: int = 0
    """How often consumers may see it."""


class TransactionLife(Life):
    """Half messages, commits, roll backs, questions, and files that are to go; one producer, who is always there."""

    def __init__(self, seed: int, *, keeps_writes: bool) -> None:
        super().__init__(seed, keeps_writes=keeps_writes)
        self.halves: dict[bytes, Half] = {}
        self.is_anew = False
        """The power was gone: decisions may be lost."""

    def open(self) -> World:
        settings = TransactionsConfig(
            transaction_timeout_ms=TIMEOUT_MS,
            check_interval_ms=ASKED_AGAIN_MS,
            check_interval_ms_max=ASKED_AGAIN_MS,
            check_max=1_000,
        )
        return World(self.disk, clock=self.clock, transactions=settings)

    def steps(self) -> Sequence[Step]:
        return [self.send_half, self.send_half, self.decide, self.decide, self.wait]

    def slow_steps(self) -> Sequence[SlowStep]:
        return [self.check, self.check, self.roll_forward, self.save, self.flush]

    async def come_back(self) -> None:
        """After a power loss the producer knows of no place any more: only questions tell of his transactions."""
        await super().come_back()
        self.is_anew = not self.keeps_writes
        if self.is_anew:
            for half in self.halves.values():
                half.place = None

    def send_half(self) -> None:
        body = self.new_body()
        half = self.halves[body] = Half(self.clock.now_ms(), self.chance.choice((COMMIT, ROLLBACK)))
        properties = f"TRAN_MSG\x01true\x02PGROUP\x01P\x02UNIQ_KEY\x01U{body.decode()}\x02"
        queue_id = self.chance.randrange(QUEUES)
        reply = self.client.request(310, send_fields("T", queue_id, properties, f="4"), body)
        self.expect_success(reply)
        told = fields_of(reply)
        half.is_sent = True
        half.place = int(told["queueOffset"]), decode_offset_message_id(told["msgId"])[1]

    def decide(self) -> None:
        undecided = [half for half in self.halves.values() if half.place is not None]
        if undecided:
            self.end(self.chance.choice(undecided))

    def end(self, half: Half) -> None:
        """Commit or roll back. What is cut off may be done or not: it is tried again when there is a question."""
        assert half.place is not None
        (queue_offset, physical_offset), half.place = half.place, None
        half.times_max += half.decision == COMMIT
        fields = {
            "producerGroup": "P",
            "tranStateTableOffset": str(queue_offset),
            "commitLogOffset": str(physical_offset),
            "commitOrRollback": str(half.decision),
            "fromTransactionCheck": "false",
            "msgId": "",
        }
        self.expect_success(self.client.request(RequestCode.END_TRANSACTION, fields))
        half.is_decided = True

    def wait(self) -> None:
        self.clock.advance(self.chance.choice((0.5, 4, 11)))

    async def check(self) -> None:
        """Let the broker ask; one half of the questions are answered."""
        await self.ask()
        for half in self.questions():
            if self.chance.random() < 0.5:
                self.end(half)

    async def ask(self) -> None:
        self.client.heartbeat(producer_beat("p1", "P"))
        await self.world.broker.transacting.checks._check_due()
        self.world.broker.transacting.service.commit_progress()

    def questions(self) -> list[Half]:
        """Take those that came. None is about what was decided, unless that may be lost, and none comes too soon."""
        asked = []
        for command in self.client.pushed():
            assert command.code == RequestCode.CHECK_TRANSACTION_STATE
            message = decode_record(command.body)
            half = self.halves[message.body]
            assert self.is_anew or not half.is_decided, "it was decided"
            assert self.clock.now_ms() - half.sent_ms >= TIMEOUT_MS, "its time is not over"
            half.place = message.queue_offset, message.physical_offset
            asked.append(half)
        return asked

    async def roll_forward(self) -> None:
        """All files are to go: what is pending is stored anew."""
        await self.world.broker.transacting.checks.roll_forward(self.world.store.written_offset)

    async def finish(self) -> Counter[bytes]:
        """The producer answers every question until there are none; gives how often each message was seen."""
        for _ in range(3):
            self.clock.advance(60)
            await self.ask()
            for half in self.questions():
                self.end(half)
        assert len(self.world.broker.transacting.table) == 0
        assert self.world.records(TRANS_CHECK_MAX_TIME_TOPIC) == [], "given up"
        return Counter(record.body for record in self.visible())


@pytest.mark.parametrize("seed", range(20))
async def test_a_kill_amid_transactions(seed: int) -> None:
    """kill -9 at any write, three times: what is undecided is asked about again, the rest is as it was decided."""
    life = TransactionLife(seed, keeps_writes=True)
    await life.begin()
    for _ in range(3):
        await life.use_until_it_dies()
        await life.come_back()
    seen = await life.finish()
    await life.world.stop()
    assert seen <= Counter({body: half.times_max for body, half in life.halves.items()})
    assert {body for body, half in life.halves.items() if half.is_sent and half.decision == COMMIT} <= seen.keys()


@pytest.mark.parametrize("seed", range(15))
async def test_a_power_loss_amid_transactions(seed: int) -> None:
    """A decision may be lost, and is asked for again then: what was flushed of commits is seen, no roll back ever."""
    life = TransactionLife(1_000 + seed, keeps_writes=False)
    await life.begin()
    await life.use_until_it_dies()
    await life.come_back()
    seen = await life.finish()
    await life.world.stop()
    assert seen <= Counter({body: half.times_max for body, half in life.halves.items()})
    assert {body for body in life.flushed if life.halves[body].decision == COMMIT} <= seen.keys()
