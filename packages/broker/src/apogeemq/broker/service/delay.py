"""Delayed messages come due: the copy goes to its real topic, and the level's progress moves on.

Each level's queue is in the order of due times, since all its messages wait equally long; so only its head is looked
at. The service sleeps until the earliest head is due, or until a delayed message arrives. A delivered copy comes never
early. Progress is a pointer into the log (architecture §5): it may be saved only after what was delivered is flushed;
after a crash the messages since the last saved progress are delivered again. Source: reference broker_behaviour.md §2.
"""

import asyncio
import logging
import math
from collections.abc import Mapping

from apogeemq.broker.core.delay import DelayLevels, level_of_queue_id, queue_id_of_level
from apogeemq.broker.core.names import SCHEDULE_TOPIC
from apogeemq.broker.core.out_of_turn import OutOfTurn
from apogeemq.broker.core.properties import encode_or_keep, join_properties
from apogeemq.broker.core.topics import Topic, TopicTable
from apogeemq.broker.errors import BrokerError
from apogeemq.broker.service.due_sleep import WakeableSleep
from apogeemq.broker.service.log_reads import LogReads, decoded
from apogeemq.broker.service.real_place import real_place, without_wait
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.mesh.clock import Clock
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.remoting_codec.record import Record
from apogeemq.store.delivery_times import PROPERTY_DUE_MS
from apogeemq.store.errors import MessageInvalid, MessageTooLarge, StoreError
from apogeemq.store.message_store import MessageStore

log = logging.getLogger(__name__)

DELIVERIES_PER_TURN_MAX = 100
IDLE_WAIT_S_MAX = 60.0
STORE_FAILURE_WAIT_S = 1.0
CONFIRM_WAIT_MS = 50
"""How often is looked whether what was stored anew is confirmed, where there are replicas."""


class DelayService:
    """Delivers due messages of all levels.

    Args:
        store, topics, writer, levels: as elsewhere.
        clock: wall time decides what is due.
        reads: reads them back.
        progress: level → queue offset of its first undelivered message, as saved.
    """

    def __init__(
        self,
        *,
        store: MessageStore,
        topics: TopicTable,
        writer: MessageWriter,
        levels: DelayLevels,
        clock: Clock,
        reads: LogReads,
        progress: Mapping[int, int],
    ) -> None:
        self._store = store
        self._topics = topics
        self._writer = writer
        self._levels = levels
        self._clock = clock
        self._reads = reads
        self._sleep = WakeableSleep(clock)
        self._turn = asyncio.Lock()
        """Delivering and rolling forward both move progress on."""
        self._out_of_turn = OutOfTurn()
        self.progress = {level: progress.get(level, 0) for level in range(1, len(levels) + 1)}
        self.changed: set[int] = set()
        """Levels whose progress moved and was not written since: the file's writer takes them out."""
        self.undeliverable = 0
        self._at_latest: dict[int, tuple[int, float]] = {}
        """Level to where a correction ends, as a queue offset, and when all before that is due (monotonic seconds)."""
        for level, offset in self.progress.items():
            end = store.max_offset(SCHEDULE_TOPIC, queue_id_of_level(level))
            if offset > end:
                log.warning(
                    "delay level %d was delivered up to %d, but its queue ends at %d: going on there",
                    level,
                    offset,
                    end,
                )
                self.progress[level] = end
                self.changed.add(level)

    def message_arrived(self, queue_id: int) -> None:
        """A message was stored in the queue of a level."""
        if 1 <= level_of_queue_id(queue_id) <= len(self._levels):
            self._sleep.wake()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            try:
                next_due_ms = await self._deliver_due()
            except StoreError as error:
                log.warning("delayed messages wait, the store takes no writes: %s", error)
                await self._clock.sleep(STORE_FAILURE_WAIT_S)
                continue
            wait_s = IDLE_WAIT_S_MAX
            if next_due_ms is not None:
                wait_s = min(max(next_due_ms - self._clock.now_ms(), 0) / 1000, IDLE_WAIT_S_MAX)
            if wait_s > 0:
                await self._sleep.sleep(wait_s)

    async def _deliver_due(self) -> int | None:
        """Deliver all that is due; gives when the next one is, or None when nothing waits."""
        next_due_ms: int | None = None
        for level in self.progress:
            head_due_ms = await self._deliver_level(level)
            while head_due_ms is not None and head_due_ms <= self._clock.now_ms():
                await asyncio.sleep(0)  # the loop is never held for a long backlog
                head_due_ms = await self._deliver_level(level)
            if head_due_ms is not None:
                next_due_ms = head_due_ms if next_due_ms is None else min(next_due_ms, head_due_ms)
        return next_due_ms

    async def _deliver_level(self, level: int) -> int | None:
        """Deliver some due messages of a level; gives when to look again, None when nothing waits."""
        async with self._turn:
            due_ms = [await self._deliver_out_of_turn(level), await self._deliver_head(level)]
        return min((due for due in due_ms if due is not None), default=None)

    async def _deliver_out_of_turn(self, level: int) -> int | None:
        for _ in range(DELIVERIES_PER_TURN_MAX):
            first = self._out_of_turn.first(level, self.progress[level])
            if first is None:
                return None
            due_ms, offset = first
            if due_ms > self._clock.now_ms():
                return due_ms
            queue_id = queue_id_of_level(level)
            if offset >= self._store.max_offset(SCHEDULE_TOPIC, queue_id):
                return self._clock.now_ms() + CONFIRM_WAIT_MS  # it was stored anew, and is not confirmed yet
            unit = self._store.queue_unit(SCHEDULE_TOPIC, queue_id, offset)
            if unit is not None:
                self._deliver(unit[0], await self._reads.record_at(unit[0]))
            self._out_of_turn.delivered(level)
        return self._clock.now_ms()

    async def _deliver_head(self, level: int) -> int | None:
        """Deliver at most DELIVERIES_PER_TURN_MAX due messages of a level; gives the due time of its head, if any."""
        queue_id = queue_id_of_level(level)
        for _ in range(DELIVERIES_PER_TURN_MAX):
            offset = max(self.progress[level], self._store.min_offset(SCHEDULE_TOPIC, queue_id))
            unit = self._store.queue_unit(SCHEDULE_TOPIC, queue_id, offset)
            if unit is None:
                return None
            physical_offset, _, due_ms = unit
            if not self._out_of_turn.pass_over(level, offset):
                now_ms = self._clock.now_ms()
                if due_ms > now_ms + self._levels.delay_ms(level):
                    due_ms = self._corrected_due_ms(level, offset, now_ms)
                if due_ms > now_ms:
                    return due_ms
                self._deliver(physical_offset, await self._reads.record_at(physical_offset))
            self._move_on(level, offset)
        return self._clock.now_ms()

    def _move_on(self, level: int, offset: int) -> None:
        self.progress[level] = offset + 1
        self.changed.add(level)

    async def roll_forward(self, physical_offset: int) -> None:
        """Store anew, with their due times, all messages below a physical offset that were not delivered.

        Each is delivered once it is due, in its turn or not. Raises StoreError; those not reached stay as they were.
        """
        for level in self.progress:
            has_more = True
            while has_more:
                has_more = await self._roll_level_forward(level, physical_offset)
                await asyncio.sleep(0)  # the loop is never held for long

    async def _roll_level_forward(self, level: int, physical_offset: int) -> bool:
        """Store some messages of a level anew; gives whether there may be more."""
        queue_id = queue_id_of_level(level)
        async with self._turn:
            for _ in range(DELIVERIES_PER_TURN_MAX):
                offset = max(self.progress[level], self._store.min_offset(SCHEDULE_TOPIC, queue_id))
                unit = self._store.queue_unit(SCHEDULE_TOPIC, queue_id, offset)
                if unit is None or unit[0] >= physical_offset:
                    return False
                if not self._out_of_turn.pass_over(level, offset):
                    self._store_anew(level, unit[0], unit[2], await self._reads.record_at(unit[0]))
                self._move_on(level, offset)
        return True

    def _store_anew(self, level: int, physical_offset: int, due_ms: int, data: bytes | None) -> None:
        try:
            record = decoded(data)
        except RecordInvalid as error:
            self.undeliverable += 1
            log.error("the delayed message at physical offset %d can't be kept: %s", physical_offset, error)  # noqa: TRY400 — the trace says nothing more
            return
        with self._store.disk_limits_ignored():
            stored = self._writer.put_copy(
                self._topics.require(SCHEDULE_TOPIC),
                record.queue_id,
                record,
                properties=_with_due_time(record.properties, due_ms),
                tags_code=None,
                prepared_transaction_offset=record.prepared_transaction_offset,
            )
        if due_ms <= self._clock.now_ms() + self._levels.delay_ms(level):  # else the clock was set back: see below
            self._out_of_turn.add(level, stored.queue_offset, due_ms)

    def _corrected_due_ms(self, level: int, offset: int, now_ms: int) -> int:
        """When a message is due whose due time is further off than its level waits: the clock was set back.

        All that the level held when this was seen first comes when the level's time has passed since then, by the clock
        that is never set. So none is early, and none waits for the hours that were set back. (Java hands them out at
        once, which even a step of a millisecond brings about.)
        """
        monotonic = self._clock.monotonic()
        end, deadline = self._at_latest.get(level, (0, 0.0))
        if offset >= end:
            end = self._store.max_offset(SCHEDULE_TOPIC, queue_id_of_level(level))
            deadline = monotonic + self._levels.delay_ms(level) / 1000
            self._at_latest[level] = end, deadline
        return now_ms + math.ceil((deadline - monotonic) * 1000)

    def _deliver(self, physical_offset: int, data: bytes | None) -> None:
        """Store the copy; what can never be stored is counted and left where it is."""
        try:
            record = decoded(data)
            properties = m.decode_properties(record.properties)
            topic, queue_id = real_place(self._topics, properties)
            self._put(record, properties, topic, queue_id)
        except (RecordInvalid, LookupError, BrokerError, MessageTooLarge, MessageInvalid) as error:
            self.undeliverable += 1
            log.error("the delayed message at physical offset %d can't be delivered: %s", physical_offset, error)  # noqa: TRY400 — the trace says nothing more

    def _put(self, record: Record, properties: dict[str, str], topic: Topic, queue_id: int) -> None:
        self._writer.put_copy(
            topic,
            queue_id,
            record,
            properties=_delivered(record.properties, properties),
            tags_code=m.tags_code(properties.get(m.PROPERTY_TAGS)),
        )


def _delivered(stored: bytes, properties: dict[str, str]) -> bytes:
    """As recorded from Apache 5.3.3: all properties stay, DELAY and REAL_… too; only WAIT is turned off.

    WAIT stays as it was where turning it off would make the properties too long: nobody waits for a delivered copy.
    """
    copied = without_wait(properties)
    copied.pop(PROPERTY_DUE_MS, None)
    encoded = join_properties(copied).encode()
    return encoded if len(encoded) <= m.PROPERTIES_SIZE_BYTES_MAX else stored


def _with_due_time(stored: bytes, due_ms: int) -> bytes:
    """The same with the due time that a message keeps when it is stored anew.

    Where there is no room for it all stays as it was: after a restart the message waits its level's time once more.
    """
    return encode_or_keep({**m.decode_properties(stored), PROPERTY_DUE_MS: str(due_ms)}, stored)
