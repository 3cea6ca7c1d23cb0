"""Asking producers what becomes of half messages of which they said nothing.

A transaction is asked about when its time is over, then again after growing waits, each time one producer of its group
that is connected, whichever sent it. Before each question the half message is stored once more with the count of
questions, as Apache's broker does: the count survives a restart, and the two topics need not be kept from the oldest
pending message on. After `checks_max` questions the message goes to TRANS_CHECK_MAX_TIME_TOPIC, for people to look at.

While no producer of the group is connected nothing is asked and nothing counted (Apache's broker counts, and gives a
message up although nobody was there to be asked), for `pending_ms_max` at most.
Source: reference broker_behaviour.md §4; traps.md 23.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from apogeemq.broker.core.names import TRANS_CHECK_MAX_TIME_TOPIC
from apogeemq.broker.core.properties import encode_or_keep
from apogeemq.broker.core.topics import PERM_READ_WRITE, Topic, TopicTable
from apogeemq.broker.core.transactions import Decision, Transaction, TransactionTable
from apogeemq.broker.service.dead_letters import with_reason
from apogeemq.broker.service.due_sleep import DueSleep
from apogeemq.broker.service.log_reads import LogReads, decoded
from apogeemq.broker.service.transactions import QUEUE_ID, CheckSchedule, TransactionService
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.mesh.clock import Clock
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.bodies import TopicConfig
from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.remoting_codec.record import Record
from apogeemq.store.errors import StoreError
from apogeemq.store.message_store import MessageStore

log = logging.getLogger(__name__)

TURN_S_MAX = 0.005
"""How long the loop is held for what is due before others have their turn."""
STORE_FAILURE_WAIT_S = 1.0
IDLE_WAIT_S_MAX = 1.0
"""So often it is looked whether a producer is there again, and progress is told."""
UNPARKED_PER_TURN_MAX = 1_000


class TransactionCheck(NamedTuple):
    """A question: the half message, as the producer sent it but for its offsets, which are those of its newest copy."""

    message: Record
    message_id: str
    """UNIQ_KEY, or the offset message id where the producer gave none."""
    offset_message_id: str
    group: str


AskProducer = Callable[[str, TransactionCheck], bool]
"""Asks any live producer of a group; False when none can be asked now."""


class TransactionCheckService:
    """Asks about pending transactions of one broker.

    Args:
        store, topics, writer: as elsewhere.
        transactions, table: what is pending.
        schedule: when producers are asked.
        clock: wall time decides what is due.
        ask: reaches the producers.
        has_producer: whether a group has one.
        offset_message_id: makes the id that names a physical offset.
        reads: reads them back.
    """

    def __init__(
        self,
        *,
        store: MessageStore,
        topics: TopicTable,
        writer: MessageWriter,
        transactions: TransactionService,
        table: TransactionTable,
        schedule: CheckSchedule,
        clock: Clock,
        ask: AskProducer,
        has_producer: Callable[[str], bool],
        offset_message_id: Callable[[int], str],
        reads: LogReads,
    ) -> None:
        self._store = store
        self._topics = topics
        self._writer = writer
        self._transactions = transactions
        self._table = table
        self._schedule = schedule
        self._clock = clock
        self._ask = ask
        self._has_producer = has_producer
        self._offset_message_id = offset_message_id
        self._reads = reads
        self._turn = asyncio.Lock()
        """Asking and rolling forward both store copies."""
        self._turn_began = 0.0
        self._sleep = DueSleep(clock)
        self.asked = 0
        """Questions since start."""
        transactions.on_due = self._sleep.planned

    async def run(self) -> None:
        """Ask when it is time until cancelled."""
        while True:
            try:
                await self._check_due()
            except StoreError as error:
                log.warning("transactions can't be asked about, the store takes no writes: %s", error)
                await self._clock.sleep(STORE_FAILURE_WAIT_S)
                continue
            self._transactions.commit_progress()
            await self._wait()

    async def roll_forward(self, physical_offset: int) -> None:
        """Store anew all half messages whose newest copy lies below an offset of the commit log, which goes.

        Raises StoreError; those not reached stay as they were.
        """
        self._turn_began = self._clock.monotonic()
        async with self._turn:
            while (transaction := self._table.first_below(physical_offset)) is not None:
                half = await self._read(transaction)
                if half is not None and self._is_pending(transaction):
                    with self._store.disk_limits_ignored():
                        self._store_anew(transaction, half, transaction.due_ms)
                await self._let_others_have_their_turn()
        self._transactions.commit_progress()

    # -- when ----------------------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        wait_ms = round(IDLE_WAIT_S_MAX * 1000)
        next_ms = self._table.next_due_ms()
        if next_ms is not None:
            wait_ms = min(wait_ms, max(next_ms - self._clock.now_ms(), 0))
        await self._sleep.sleep(wait_ms)

    async def _let_others_have_their_turn(self) -> None:
        if self._clock.monotonic() - self._turn_began >= TURN_S_MAX:
            await asyncio.sleep(0)
            self._turn_began = self._clock.monotonic()

    # -- asking --------------------------------------------------------------------------------------------------------

    async def _check_due(self) -> None:
        self._turn_began = self._clock.monotonic()
        await self._look_for_producers()
        while (transaction := self._table.due(self._clock.now_ms())) is not None:
            async with self._turn:
                await self._check(transaction)
            await self._let_others_have_their_turn()

    async def _look_for_producers(self) -> None:
        """What waited for a producer of its group is due when there is one, or when it has waited too long."""
        now_ms = self._clock.now_ms()
        for group, oldest in self._table.parked().items():
            if self._has_producer(group) or self._is_too_old(oldest):
                self._table.unpark(group, now_ms, UNPARKED_PER_TURN_MAX)
            await self._let_others_have_their_turn()

    def _is_too_old(self, transaction: Transaction) -> bool:
        return self._clock.now_ms() - transaction.born_ms > self._schedule.pending_ms_max

    def _is_pending(self, transaction: Transaction) -> bool:
        return self._table.find(transaction.origin) is transaction

    async def _check(self, transaction: Transaction) -> None:
        """Ask about one that is due, or give it up."""
        is_over = transaction.checks >= self._schedule.checks_max or self._is_too_old(transaction)
        if not is_over and not self._has_producer(transaction.group):
            self._table.park(transaction)
            return
        half = await self._read(transaction)
        if half is None or not self._is_pending(transaction):
            return  # it was decided while the disk was read, or can't be read any more
        if is_over:
            self._give_up(transaction, half)
            return
        copy = self._store_anew(transaction, half, None)
        properties = m.decode_properties(copy.properties)
        offset_message_id = self._offset_message_id(copy.physical_offset)
        question = TransactionCheck(
            _as_sent(copy, properties),
            properties.get(m.PROPERTY_UNIQ_KEY, offset_message_id),
            offset_message_id,
            transaction.group,
        )
        if self._ask(transaction.group, question):
            self.asked += 1

    def _store_anew(self, transaction: Transaction, half: Record, due_ms: int | None) -> Record:
        """Store a copy of a half message, due at a time or, where that is None, for a question; gives the copy."""
        checks = transaction.checks if due_ms is not None else transaction.checks + 1
        properties = m.decode_properties(half.properties) | {
            m.PROPERTY_TRANSACTION_CHECK_TIMES: str(checks),
            m.PROPERTY_TRAN_PREPARED_QUEUE_OFFSET: str(transaction.origin),
        }
        stored_properties = encode_or_keep(properties, half.properties)
        result = self._writer.put_copy(
            self._transactions.half_topic,
            QUEUE_ID,
            half,
            properties=stored_properties,
            tags_code=m.tags_code(properties.get(m.PROPERTY_TAGS)),
        )
        transaction.checks = checks
        if due_ms is None:
            due_ms = self._clock.now_ms() + self._schedule.wait_ms(checks, None)
        self._table.renew(transaction, result.queue_offset, result.physical_offset, due_ms)
        return msgspec.structs.replace(
            half,
            queue_offset=result.queue_offset,
            physical_offset=result.physical_offset,
            properties=stored_properties,
        )

    def _give_up(self, transaction: Transaction, half: Record) -> None:
        log.warning(
            "the transaction of group %s with the half message at offset %d is given up after %d questions: the "
            "message goes to %s",
            transaction.group,
            transaction.newest,
            transaction.checks,
            TRANS_CHECK_MAX_TIME_TOPIC,
        )
        properties = m.decode_properties(half.properties)
        reason = f"its producer group {transaction.group} decided nothing in {transaction.checks} checks"
        self._writer.put_copy(
            self._given_up_topic(),
            QUEUE_ID,
            half,
            properties=encode_or_keep(with_reason(properties, reason), half.properties),
            tags_code=m.tags_code(properties.get(m.PROPERTY_TAGS)),
        )
        self._transactions.settle(transaction, Decision.GIVEN_UP, self._topic_of(half))

    def _given_up_topic(self) -> Topic:
        topic = self._topics.get(TRANS_CHECK_MAX_TIME_TOPIC)
        if topic is None:
            topic = self._topics.put(
                TopicConfig(
                    topic_name=TRANS_CHECK_MAX_TIME_TOPIC, read_queue_nums=1, write_queue_nums=1, perm=PERM_READ_WRITE
                )
            )
        return topic

    def _topic_of(self, half: Record) -> Topic:
        """Where the message was to go; the half topic where that is not there any more."""
        name = m.decode_properties(half.properties).get(m.PROPERTY_REAL_TOPIC, "")
        return self._topics.get(name) or self._transactions.half_topic

    async def _read(self, transaction: Transaction) -> Record | None:
        """The newest copy, which need not be confirmed; None, counted and told, when it can't be read any more: it is
        then given up."""
        physical_offset = transaction.physical_offset
        try:
            return decoded(await self._reads.written_record_at(physical_offset))
        except RecordInvalid as error:
            self._transactions.unreadable += 1
            log.error("the half message at physical offset %d is lost: %s", physical_offset, error)  # noqa: TRY400 — the trace says nothing more
            self._transactions.settle(transaction, Decision.GIVEN_UP, self._transactions.half_topic)
            return None


def _as_sent(copy: Record, properties: dict[str, str]) -> Record:
    """The half message under its real topic and queue, as the producer knows it."""
    text = properties.get(m.PROPERTY_REAL_QID, "")
    return msgspec.structs.replace(
        copy,
        topic=properties.get(m.PROPERTY_REAL_TOPIC, copy.topic),
        queue_id=int(text) if text.isdecimal() and len(text) < 10 else 0,
    )
