"""Transactions: half messages are kept aside until their producer commits them or rolls them back.

    producer ──half message──▶ RMQ_SYS_TRANS_HALF_TOPIC          (nobody consumes there)
    producer ──END_TRANSACTION commit──▶ a copy in the real topic, then an operation record
                               roll back──▶ an operation record   in RMQ_SYS_TRANS_OP_HALF_TOPIC
    producer ◀──CHECK_TRANSACTION_STATE── broker                  when it said nothing (transaction_checks.py)

Both topics have Apache's form; what is pending is read from them at the start. A copy stored, and the record after it
lost in a crash: the producer is asked again and commits once more, so a committed message may come twice, never not.
Differences, on purpose, of the table in core/transactions.py: whoever commits the first half message ends its copies
too (Apache's broker asks on about those, and stores the message twice), and ending a transaction once more in the same
way is no error and does nothing.
Source: reference broker_behaviour.md §4; Apache TransactionalMessageBridge, EndTransactionProcessor 5.3.
"""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable
from apogeemq.broker.core.names import TRANS_GROUP, TRANS_HALF_TOPIC, TRANS_OP_HALF_TOPIC
from apogeemq.broker.core.topics import Topic, TopicTable
from apogeemq.broker.core.transactions import Decision, Transaction, TransactionTable
from apogeemq.broker.errors import MessageIllegal, NoPermission, RequestFailed, TransactionNotFound
from apogeemq.broker.service.log_reads import records_from
from apogeemq.broker.service.real_place import served_queue_id
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.mesh.clock import Clock
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.remoting_codec.record import Record, decode_record
from apogeemq.store.message_store import AppendResult, MessageStore

log = logging.getLogger(__name__)

QUEUE_ID = 0
"""Both topics have one queue."""
_SETTLED_TAG = "d"
_SETTLED_TAGS_CODE = m.tags_code(_SETTLED_TAG)
_SETTLED_PROPERTIES = f"{m.PROPERTY_WAIT}\x01true\x02{m.PROPERTY_TAGS}\x01{_SETTLED_TAG}\x02".encode()
_OFFSET_SEPARATOR = ","
_IMMUNITY_S_MAX = 7 * 86_400
_SECONDS = _QUEUE_ID = re.compile(r"[0-9]{1,9}")
_OFFSET = re.compile(r"[0-9]{1,18}")


class CheckSchedule(NamedTuple):
    """When a producer is asked, and for how long.

    Args:
        timeout_ms: the first time after so long (transactionTimeOut), unless the message says otherwise.
        interval_ms: the second time so long after the first (transactionCheckInterval), then after twice as long,
        interval_ms_max: but never longer than this.
        checks_max: after so many questions it is given up (transactionCheckMax).
        pending_ms_max: and after so long, where no producer of the group was there to be asked.
    """

    timeout_ms: int
    interval_ms: int
    interval_ms_max: int
    checks_max: int
    pending_ms_max: int

    def wait_ms(self, checks: int, immunity_ms: int | None) -> int:
        """How long to wait after the last of so many questions; after none: after the message was stored."""
        if checks == 0:
            return self.timeout_ms if immunity_ms is None else immunity_ms
        return min(self.interval_ms << min(checks - 1, 32), self.interval_ms_max)


class EndRequest(NamedTuple):
    """What a producer says: where the half message is (in the half topic, and in the log), and what becomes of it.

    `message_id` is its UNIQ_KEY; empty: not said, and not looked at.
    """

    group: str
    queue_offset: int
    physical_offset: int
    decision: Decision
    message_id: str = ""


class Ended(NamedTuple):
    """What must be on the disk before the producer is told: the log up to an offset, and the topic's file."""

    end_offset: int
    topic: Topic


class TransactionService:
    """Half messages in, decisions on them.

    Args:
        store, topics, offsets, writer: as elsewhere.
        table: what is pending.
        schedule: when producers are asked.
        clock: wall time.
        store_host: packed; born host of operation records.
        is_rejecting: whether half messages are refused (rejectTransactionMessage).
        broker_name: for remarks.
    """

    def __init__(
        self,
        *,
        store: MessageStore,
        topics: TopicTable,
        offsets: ConsumerOffsetTable,
        writer: MessageWriter,
        table: TransactionTable,
        schedule: CheckSchedule,
        clock: Clock,
        store_host: bytes,
        is_rejecting: bool,
        broker_name: str,
    ) -> None:
        self._store = store
        self._topics = topics
        self._offsets = offsets
        self._writer = writer
        self._table = table
        self._schedule = schedule
        self._clock = clock
        self._store_host = store_host
        self._op_sys_flag = m.with_host_families(0, store_host, store_host)
        self._is_rejecting = is_rejecting
        self._broker_name = broker_name
        self.half_topic = topics.require(TRANS_HALF_TOPIC)
        self._op_topic = topics.require(TRANS_OP_HALF_TOPIC)
        self.ended: Counter[tuple[str, Decision]] = Counter()
        """Transactions that ended since start, by topic."""
        self.unreadable = 0
        """Half messages and operation records that could not be read since start."""
        self.on_due: Callable[[int], None] = lambda due_ms: None
        """Told when each new transaction is due."""

    # -- half messages -------------------------------------------------------------------------------------------------

    def half_properties(self, properties: dict[str, str], topic: str, queue_id: int) -> dict[str, str]:
        """Those of a half message whose real place is a queue of a topic.

        Raises NoPermission where transactions are refused, MessageIllegal, SystemBusy: nothing was stored.
        """
        if self._is_rejecting:
            raise NoPermission(
                f"the broker[{self._broker_name}] sending transaction message is forbidden "
                "(transactions.reject_transaction_message)"
            )
        if not properties.get(m.PROPERTY_PGROUP):
            raise MessageIllegal("property PGROUP is missing: it names the producer group that ends the transaction")
        self._table.check_room()
        half = {**properties, m.PROPERTY_REAL_TOPIC: topic, m.PROPERTY_REAL_QID: str(queue_id)}
        unique_key = properties.get(m.PROPERTY_UNIQ_KEY)
        if unique_key is not None:
            half[m.PROPERTY_TRANSACTION_ID] = unique_key
        for copied in (m.PROPERTY_TRAN_PREPARED_QUEUE_OFFSET, m.PROPERTY_TRANSACTION_CHECK_TIMES):
            half.pop(copied, None)  # only the broker says these
        return half

    def stored(self, result: AppendResult, properties: dict[str, str]) -> None:
        """A half message with these properties was stored for the first time."""
        now_ms = self._clock.now_ms()
        due_ms = now_ms + self._schedule.wait_ms(0, _immunity_ms(properties))
        self._table.add(
            Transaction(
                [result.queue_offset],
                result.physical_offset,
                properties[m.PROPERTY_PGROUP],
                properties[m.PROPERTY_REAL_TOPIC],
                now_ms,
                due_ms,
            )
        )
        self.on_due(due_ms)

    # -- their end -----------------------------------------------------------------------------------------------------

    def read(self, request: EndRequest) -> Record:
        """The half message that a producer names. May wait for the disk. Raises TransactionNotFound.

        It need not be confirmed: a producer may be asked about a copy that its replicas do not hold yet.
        """
        data = self._store.written_record_at(request.physical_offset) if request.physical_offset >= 0 else None
        if data is None:
            raise TransactionNotFound(
                f"Find prepared transaction message failed: no message begins at commitLogOffset "
                f"{request.physical_offset}"
            )
        try:
            return decode_record(data)
        except RecordInvalid as error:
            raise TransactionNotFound(
                f"Find prepared transaction message failed, {request.physical_offset}: {error}"
            ) from error

    def end(self, request: EndRequest, half: Record) -> Ended:
        """Do as the producer says; `half` is what `read` gave.

        Raises TransactionNotFound (1), in Apache's words where it has some, RequestFailed (1) where its topic is gone,
        or StoreError: the transaction is as it was then.
        """
        if half.topic != TRANS_HALF_TOPIC:
            raise TransactionNotFound(f"The commit log offset wrong: {request.physical_offset} is no half message")
        properties = m.decode_properties(half.properties)
        if properties.get(m.PROPERTY_PGROUP) != request.group:
            raise TransactionNotFound("The producer group wrong: the half message has another PGROUP")
        if half.queue_offset != request.queue_offset:
            raise TransactionNotFound(
                f"The transaction state table offset wrong: the half message has {half.queue_offset}"
            )
        if request.message_id and properties.get(m.PROPERTY_UNIQ_KEY) != request.message_id:
            raise TransactionNotFound("The message id wrong: the half message has another UNIQ_KEY")
        topic = self._real_topic(properties)
        origin = _origin(half.queue_offset, properties)
        transaction = self._table.find(origin)
        if transaction is None:
            self._check_repeated(request, origin)
            return Ended(self._store.written_offset, topic)
        end_offset = 0
        if request.decision is Decision.COMMIT:
            sys_flag = m.with_transaction_type(half.sys_flag, MessageSysFlag.TRANSACTION_COMMIT_TYPE)
            committed = self._writer.put_copy(
                topic,
                _real_queue_id(properties, topic),
                msgspec.structs.replace(half, sys_flag=sys_flag),
                properties=half.properties,
                tags_code=m.tags_code(properties.get(m.PROPERTY_TAGS)),
                prepared_transaction_offset=request.physical_offset,
            )
            end_offset = committed.physical_offset + committed.size_bytes
        settled = self.settle(transaction, request.decision, topic)
        return Ended(max(end_offset, settled.physical_offset + settled.size_bytes), topic)

    def settle(self, transaction: Transaction, decision: Decision, topic: Topic) -> AppendResult:
        """Write down that a transaction needs no further care. Raises StoreError, and nothing has changed."""
        offsets = "".join(f"{offset}{_OFFSET_SEPARATOR}" for offset in transaction.offsets)
        with self._store.disk_limits_ignored():  # what is stored already must not be stored again for want of this
            result = self._writer.put(
                self._op_topic,
                QUEUE_ID,
                flag=0,
                sys_flag=self._op_sys_flag,
                born_timestamp_ms=self._clock.now_ms(),
                born_host=self._store_host,
                reconsume_times=0,
                body=offsets.encode(),
                properties=_SETTLED_PROPERTIES,
                tags_code=_SETTLED_TAGS_CODE,
            )
        self._table.settle(transaction, decision, result.queue_offset)
        self.ended[topic.name, decision] += 1
        return result

    def _real_topic(self, properties: dict[str, str]) -> Topic:
        name = properties.get(m.PROPERTY_REAL_TOPIC, "")
        topic = self._topics.get(name)
        if topic is None:
            raise RequestFailed(f"the topic {name[:300]!r} of the half message does not exist any more")
        return topic

    def _check_repeated(self, request: EndRequest, origin: int) -> None:
        """Raise TransactionNotFound unless the transaction ended, not long ago, as the producer wants it to end."""
        decision = self._table.decision(origin)
        if decision is request.decision:
            return
        if decision is None:
            raise TransactionNotFound(
                f"Find prepared transaction message failed: the half message at tranStateTableOffset "
                f"{request.queue_offset} is not pending: it was decided before"
            )
        raise TransactionNotFound(
            f"the transaction has ended already ({decision.name.lower()}), it can't {request.decision.name.lower()} now"
        )

    # -- the start, and how far it must read ---------------------------------------------------------------------------

    def commit_progress(self) -> None:
        """Say from where on a start must read; the saver writes it with other offsets."""
        half_end = self._store.max_offset(TRANS_HALF_TOPIC, QUEUE_ID)
        half_needed = self._table.first_needed_half(half_end)
        op_needed = self._table.first_needed_op(half_needed, self._store.max_offset(TRANS_OP_HALF_TOPIC, QUEUE_ID))
        for topic, needed in ((TRANS_HALF_TOPIC, half_needed), (TRANS_OP_HALF_TOPIC, op_needed)):
            if needed != self._read_from(topic):  # what never held a message needs no entry in the file
                self._offsets.commit(topic, TRANS_GROUP, QUEUE_ID, needed)

    def _read_from(self, topic: str) -> int:
        """Where a start begins to read, by what was said last."""
        return self._offsets.query(topic, TRANS_GROUP, QUEUE_ID) or 0

    async def restore(self) -> None:
        """Read both topics; to be called once, before the first request. Raises StoreError, RecordInvalid, OSError."""
        decided = await asyncio.to_thread(self._read_ops)
        next_offset = self._read_from(TRANS_HALF_TOPIC)
        queue_offset = -1
        while next_offset != queue_offset:
            queue_offset = next_offset
            records, next_offset = await asyncio.to_thread(self._read, TRANS_HALF_TOPIC, queue_offset)
            for record in records:
                self._replay(record, decided)
        if len(self._table):
            log.info("%d transactions are pending", len(self._table))

    def _read_ops(self) -> set[int]:
        decided: set[int] = set()
        next_offset = self._read_from(TRANS_OP_HALF_TOPIC)
        queue_offset = -1
        while next_offset != queue_offset:
            queue_offset = next_offset
            records, next_offset = self._read(TRANS_OP_HALF_TOPIC, queue_offset)
            for record in records:
                offsets = self._settled_offsets(record)
                self._table.replay_op(record.queue_offset, offsets)
                decided.update(offsets)
        return decided

    def _settled_offsets(self, record: Record) -> list[int]:
        try:
            return [int(word) for word in record.body.decode().split(_OFFSET_SEPARATOR) if word]
        except ValueError:
            self.unreadable += 1
            log.error("offset %d of %s holds no list of offsets", record.queue_offset, TRANS_OP_HALF_TOPIC)  # noqa: TRY400 — the trace says nothing more
            return []

    def _read(self, topic: str, queue_offset: int) -> tuple[list[Record], int]:
        """Some records from an offset on, and where to go on: the same offset at the end. Waits for the disk."""
        start = max(queue_offset, self._store.min_offset(topic, QUEUE_ID))
        records, next_offset = records_from(self._store, topic, QUEUE_ID, start)
        return records, next_offset if records else queue_offset

    def _replay(self, record: Record, decided: set[int]) -> None:
        try:
            properties = m.decode_properties(record.properties)
            group = properties.get(m.PROPERTY_PGROUP, "")
            checks = int(properties.get(m.PROPERTY_TRANSACTION_CHECK_TIMES, 0))
            origin = _origin(record.queue_offset, properties)
        except ValueError as error:
            self.unreadable += 1
            log.error("offset %d of %s is no half message: %s", record.queue_offset, TRANS_HALF_TOPIC, error)  # noqa: TRY400 — the trace says nothing more
            return
        if origin in decided or record.queue_offset in decided:
            return
        due_ms = record.store_timestamp_ms + self._schedule.wait_ms(checks, _immunity_ms(properties))
        transaction = self._table.find(origin)
        if transaction is not None:
            self._table.renew(transaction, record.queue_offset, record.physical_offset, due_ms)
        else:
            offsets = sorted({origin, record.queue_offset})
            topic = properties.get(m.PROPERTY_REAL_TOPIC, "")
            transaction = Transaction(offsets, record.physical_offset, group, topic, record.store_timestamp_ms, due_ms)
            self._table.add(transaction)
        transaction.checks = checks


def _immunity_ms(properties: dict[str, str]) -> int | None:
    """For how long a producer does not want to be asked, by its own word; as in Apache, no number is no word."""
    text = properties.get(m.PROPERTY_CHECK_IMMUNITY_TIME_IN_SECONDS, "")
    return min(int(text), _IMMUNITY_S_MAX) * 1000 if _SECONDS.fullmatch(text) else None


def _origin(queue_offset: int, properties: dict[str, str]) -> int:
    """Of a half message, or of any copy of one: the offset that its transaction is known by.

    Copies say it themselves. The table may not know them all: a start reads from the first needed one on.
    """
    text = properties.get(m.PROPERTY_TRAN_PREPARED_QUEUE_OFFSET, "")
    return int(text) if _OFFSET.fullmatch(text) else queue_offset


def _real_queue_id(properties: dict[str, str], topic: Topic) -> int:
    """The queue that the message goes to."""
    text = properties.get(m.PROPERTY_REAL_QID, "")
    queue_id = int(text) if _QUEUE_ID.fullmatch(text) else 0
    return served_queue_id(topic, queue_id)
