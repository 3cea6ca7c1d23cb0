"""Messages that were popped and not acknowledged in time come again, or go to the dead letters.

When a checkpoint's time is over, a copy of each message that it still has goes to the pop retry topic of its group,
where the next pop finds it; after the group's retryMaxTimes, to the group's DLQ. Then the message is settled. What the
store can't take now is tried again later; nothing is given up but a record that can't be read any more.

At the start the table is made from the revive log: all records from where the revive group stands, which moves on only
past what is settled and is saved with the other consumer offsets. The same records bring the groups' positions up to
where they were. Source: reference broker_behaviour.md §8.
"""

import asyncio
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence

from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable
from apogeemq.broker.core.names import DLQ_TOPIC_PREFIX, RETRY_TOPIC_PREFIX
from apogeemq.broker.core.pop import RetryMark, pop_retry_topic
from apogeemq.broker.core.pop_records import AckMsg, BatchAckMsg, PopCheckPoint
from apogeemq.broker.core.pop_table import Checkpoint, QueueKey
from apogeemq.broker.core.properties import encode_or_keep
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import PERM_READ_WRITE, Topic, TopicTable
from apogeemq.broker.errors import BrokerError
from apogeemq.broker.service.dead_letters import DeadLetters, with_origin
from apogeemq.broker.service.due_sleep import DueSleep
from apogeemq.broker.service.log_reads import LogReads, decoded
from apogeemq.broker.service.revive_log import ReviveLog, revive_record_of
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.mesh.clock import Clock
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.bodies import TopicConfig
from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.remoting_codec.record import Record
from apogeemq.store.errors import MessageInvalid, MessageTooLarge, StoreError
from apogeemq.store.message_store import MessageStore

log = logging.getLogger(__name__)

TURN_S_MAX = 0.005
"""How long the loop is held for what is due before others have their turn."""
FAILURE_WAIT_MS = 1_000
RETRY_MAX_TIMES = 16
"""Of a group that does not exist any more; Apache's default."""
PROGRESS_INTERVAL_S = 1.0


class ReviveService:
    """Revives due messages of one broker, and restores the table at start.

    Args:
        store, topics, groups, offsets, writer: as elsewhere.
        revive_log: what was written down, and the table of it.
        clock: wall time decides what is due.
        retry_mark: the kind of retry topic that new failures go to.
        reads: reads them back.
        dead_letters: counts messages that failed too often.
        offset_message_id: makes the id that names a physical offset.
    """

    def __init__(
        self,
        *,
        store: MessageStore,
        topics: TopicTable,
        groups: SubscriptionGroupTable,
        offsets: ConsumerOffsetTable,
        writer: MessageWriter,
        revive_log: ReviveLog,
        clock: Clock,
        retry_mark: RetryMark,
        reads: LogReads,
        dead_letters: Counter[tuple[str, str]],
        offset_message_id: Callable[[int], str],
    ) -> None:
        self._store = store
        self._topics = topics
        self._groups = groups
        self._offsets = offsets
        self._writer = writer
        self._log = revive_log
        self._table = revive_log.table
        self._clock = clock
        self._retry_mark = retry_mark
        self._reads = reads
        self._dead_letters = DeadLetters(topics=topics, writer=writer, counts=dead_letters)
        self._offset_message_id = offset_message_id
        self._sleep = DueSleep(clock)
        self._turn_began = 0.0
        self.revived: Counter[tuple[str, str]] = Counter()
        """Messages that went to a retry topic since start, by (group, topic)."""
        self.unreadable = 0
        """Messages and revive records that could not be read any more, since start."""
        revive_log.on_due = self._sleep.planned

    # -- reviving ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Revive what is due until cancelled."""
        while True:
            wait_ms = round(PROGRESS_INTERVAL_S * 1000)
            try:
                await self._revive_due()
            except StoreError as error:
                log.warning("popped messages wait for their revival, the store takes no writes: %s", error)
                await self._clock.sleep(FAILURE_WAIT_MS / 1000)
                continue
            self.commit_progress()
            next_ms = self._table.next_attempt_ms()
            if next_ms is not None:
                wait_ms = min(wait_ms, max(next_ms - self._clock.now_ms(), 0))
            await self._sleep.sleep(wait_ms)

    def commit_progress(self) -> None:
        """Let the revive group stand before its first un-settled record; the saver writes it with other offsets."""
        for queue_id in self._log.queue_ids:
            needed = self._table.first_needed(queue_id)
            if needed is None:
                needed = self._log.max_offset(queue_id)
            if needed != self._first_unsettled(queue_id):
                self._offsets.commit(self._log.topic, self._log.group, queue_id, needed - 1)

    def _first_unsettled(self, queue_id: int) -> int:
        """The queue offset from which on records may be needed, by where the revive group stands."""
        settled = self._offsets.query(self._log.topic, self._log.group, queue_id)
        return 0 if settled is None else settled + 1

    async def _revive_due(self) -> None:
        self._turn_began = self._clock.monotonic()
        while (checkpoint := self._table.due(self._clock.now_ms())) is not None:
            try:
                await self._revive(checkpoint)
            except BrokerError as error:
                log.warning("messages of %s can't come again yet: %s", checkpoint.key, error)
                self._table.postpone(checkpoint, self._clock.now_ms() + FAILURE_WAIT_MS)

    async def _revive(self, checkpoint: Checkpoint) -> None:
        """Bring back all messages that a checkpoint still has.

        A copy in the log counts; the acks behind it only spare a second copy after a crash.
        """
        revived = []
        try:
            for queue_offset in self._table.messages_of(checkpoint):
                record = await self._read(checkpoint.key, queue_offset)
                if self._table.holder(checkpoint.key, queue_offset) is not checkpoint:
                    continue  # popped once more meanwhile: the group's position was set back
                if record is not None:
                    self._bring_back(checkpoint, record)
                self._table.settle(checkpoint, queue_offset, acknowledged=False)
                revived.append(queue_offset)
                await self._let_others_have_their_turn()
        finally:
            if revived:
                self._log.write_acks(checkpoint, revived)

    async def roll_forward(self, physical_offset: int) -> None:
        """Bring back at once what is popped, not acknowledged, and lies below an offset of the commit log, which goes.

        Early, since later there would be nothing to bring back: whoever has it in hand may see it handled twice. No
        checkpoint with a record down there has messages left then, as these were stored before it.
        Raises StoreError, BrokerError; what was not reached stays as it was.
        """
        self._turn_began = self._clock.monotonic()
        for key, offsets in self._table.held():
            count = self._count_below(key, offsets, physical_offset)
            for queue_offset in offsets[:count]:
                checkpoint = self._table.holder(key, queue_offset)
                record = await self._read(key, queue_offset)
                if checkpoint is None or self._table.holder(key, queue_offset) is not checkpoint:
                    continue  # acknowledged or popped anew meanwhile
                with self._store.disk_limits_ignored():
                    if record is not None:
                        self._bring_back(checkpoint, record)
                    self._table.settle(checkpoint, queue_offset, acknowledged=False)
                    self._log.write_acks(checkpoint, [queue_offset])
                await self._let_others_have_their_turn()

    def _count_below(self, key: QueueKey, offsets: Sequence[int], physical_offset: int) -> int:
        """How many of a queue's ascending offsets lie below an offset of the commit log, or nowhere any more."""
        _, topic, queue_id = key

        def is_above(queue_offset: int) -> bool:
            unit = self._store.queue_unit(topic, queue_id, queue_offset)
            return unit is not None and unit[0] >= physical_offset

        return bisect_left(offsets, True, key=is_above)

    async def _let_others_have_their_turn(self) -> None:
        if self._clock.monotonic() - self._turn_began >= TURN_S_MAX:
            await asyncio.sleep(0)
            self._turn_began = self._clock.monotonic()

    async def _read(self, key: QueueKey, queue_offset: int) -> Record | None:
        """The message, from memory or disk; None, counted and told, when there is none that can be read."""
        _, topic, queue_id = key
        try:
            unit = self._store.queue_unit(topic, queue_id, queue_offset)
            return decoded(None if unit is None else await self._reads.record_at(unit[0]))
        except RecordInvalid as error:
            self.unreadable += 1
            log.error("the popped message %d of %s can't come again: %s", queue_offset, key, error)  # noqa: TRY400 — the trace says nothing more
            return None

    def _bring_back(self, checkpoint: Checkpoint, record: Record) -> None:
        group, topic, _ = checkpoint.key
        message_id = self._offset_message_id(record.physical_offset)
        properties = with_origin(m.decode_properties(record.properties), record, message_id)
        properties.setdefault(m.PROPERTY_FIRST_POP_TIME, str(checkpoint.pop_time_ms))
        config = self._groups.get(group)
        retry_max_times = RETRY_MAX_TIMES if config is None else config.retry_max_times
        try:
            if record.reconsume_times + 1 > retry_max_times:
                reason = (
                    f"not acknowledged within {checkpoint.invisible_time_ms} ms of delivery "
                    f"{record.reconsume_times + 1}; the maximum is {retry_max_times} retries"
                )
                self._dead_letters.put(group, record, properties, reason)
            else:
                self._put_retry(group, topic, record, properties)
        except (MessageTooLarge, MessageInvalid) as error:
            self.unreadable += 1
            log.error("the popped message %s can't come again: %s", message_id, error)  # noqa: TRY400 — the trace says nothing more

    def _put_retry(self, group: str, topic: str, record: Record, properties: dict[str, str]) -> None:
        self._writer.put_again(
            self._retry_topic(pop_retry_topic(group, topic, self._retry_mark)),
            0,
            record,
            properties=encode_or_keep(properties, record.properties),
            tags_code=m.tags_code(properties.get(m.PROPERTY_TAGS)),
        )
        self.revived[group, topic] += 1

    def _retry_topic(self, name: str) -> Topic:
        """The retry topic, made at first need. Its name needs no check: it is made of two legal ones."""
        topic = self._topics.get(name)
        if topic is None:
            config = TopicConfig(topic_name=name, read_queue_nums=1, write_queue_nums=1, perm=PERM_READ_WRITE)
            topic = self._topics.put(config)
        return topic

    # -- the start -----------------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Read the revive log; to be called once, before the first pop. Raises StoreError, RecordInvalid, OSError."""
        positions: dict[QueueKey, int] = {}
        for queue_id in self._log.queue_ids:
            next_offset = self._first_unsettled(queue_id)
            queue_offset = -1
            while next_offset != queue_offset:
                queue_offset = next_offset
                records, next_offset = await asyncio.to_thread(self._log.read, queue_id, queue_offset)
                for record in records:
                    self._replay(queue_id, record, positions)
        for (group, topic, queue_id), position in positions.items():
            end = min(position, self._store.max_offset(topic, queue_id))
            if (self._offsets.query(topic, group, queue_id) or 0) < end:
                self._offsets.commit(topic, group, queue_id, end)
        self._restore_topics()
        if len(self._table):
            log.info("%d messages are popped and not acknowledged", len(self._table))

    def _replay(self, queue_id: int, record: Record, positions: dict[QueueKey, int]) -> None:
        try:
            what = revive_record_of(record)
        except ValueError as error:
            self.unreadable += 1
            log.error("queue %d of %s, offset %d: %s", queue_id, self._log.topic, record.queue_offset, error)  # noqa: TRY400 — the trace says nothing more
            return
        key = (what.c, what.t, what.q)
        if isinstance(what, PopCheckPoint):
            offsets = what.offsets()
            positions[key] = max(positions.get(key, 0), offsets[-1] + 1)
            place = (queue_id, record.queue_offset, record.physical_offset)
            self._table.add(Checkpoint(key, what.so, what.pt, what.it, *place, offsets))
            return
        for queue_offset in _acknowledged(what):
            checkpoint = self._table.holder(key, queue_offset)
            if checkpoint is not None and checkpoint.pop_time_ms == what.pt:
                self._table.settle(checkpoint, queue_offset, acknowledged=True)

    def _restore_topics(self) -> None:
        """Retry topics and DLQs whose messages were stored, but whose configuration a crash had come before."""
        for name, _ in self._store.queues():
            if name.startswith((RETRY_TOPIC_PREFIX, DLQ_TOPIC_PREFIX)):
                self._retry_topic(name)


def _acknowledged(record: AckMsg) -> list[int]:
    return record.aol if isinstance(record, BatchAckMsg) else [record.ao]
