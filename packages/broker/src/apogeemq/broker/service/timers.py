"""Timer messages come due: the copy goes to its real topic, and the timer is settled.

```
TimerIntake ──► TimerStore ──due──► copy in the real topic ──flushed, confirmed──► commit
```
Each arrow is durable behind the one before it: what a crash cuts off is done again, so a message may come twice then,
but never not at all. Nothing is early: due is what the clock says is due at the moment of looking. The service sleeps
until the next timer is due or a message is stored in the queue. Source: architecture.md §5; ADR 0016.
"""

import asyncio
import logging
from collections import Counter
from itertools import islice
from typing import NamedTuple

from apogeemq.broker.core.names import TIMER_TOPIC
from apogeemq.broker.core.properties import encode_or_keep
from apogeemq.broker.core.timed import stored_deliver_ms
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.errors import BrokerError
from apogeemq.broker.service.due_sleep import WakeableSleep
from apogeemq.broker.service.log_reads import LogReads, decoded
from apogeemq.broker.service.real_place import real_place, without_wait
from apogeemq.broker.service.timer_intake import PER_TURN_MAX, TimerIntake
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.mesh.clock import Clock
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.record import Record
from apogeemq.store.delivery_times import PROPERTY_DUE_MS, PROPERTY_TIMER_OFFSET
from apogeemq.store.errors import MessageInvalid, MessageTooLarge, StoreError
from apogeemq.store.message_store import MessageStore
from apogeemq.store.timer_store import TIMER_QUEUE
from apogeemq.store.timer_unit import TimerEntry

log = logging.getLogger(__name__)

IDLE_WAIT_S_MAX = 60.0
STORE_FAILURE_WAIT_S = 1.0
CONFIRM_WAIT_S = 0.05
"""How often is looked whether copies are confirmed, where there are replicas."""


class _Delivered(NamedTuple):
    """A message whose copy lies in the log at [begin, end)."""

    entry: TimerEntry
    begin: int
    end: int


class TimerService:
    """Takes timer messages in, delivers them, settles them.

    Args:
        store, topics, writer: as elsewhere.
        clock: wall time decides what is due.
        reads: reads them back.
    """

    def __init__(
        self, *, store: MessageStore, topics: TopicTable, writer: MessageWriter, clock: Clock, reads: LogReads
    ) -> None:
        self._store = store
        self._timer = store.timer
        self._topics = topics
        self._writer = writer
        self._clock = clock
        self._reads = reads
        self.intake = TimerIntake(store, reads)
        self._sleep = WakeableSleep(clock)
        self._turn = asyncio.Lock()
        """Delivering and storing anew both take timers away."""
        self._has_delivered = asyncio.Event()
        self._delivered: list[_Delivered] = []
        """Copies are in the log, but perhaps not on the disk yet, or not confirmed."""
        self.delivered: Counter[str] = Counter()
        """Messages by the topic where they go, since start; topics that are gone among them."""

    def message_arrived(self) -> None:
        """A message was stored in the timer queue."""
        self._sleep.wake()

    def count_due_within(self, seconds: int) -> int:
        """About how many messages are due by then; of those that were taken back some are counted until their time."""
        return self._timer.count_before(self._clock.now_ms() + seconds * 1_000)

    async def run(self) -> None:
        """Take in and deliver until cancelled."""
        is_begun = False
        while True:
            try:
                if not is_begun:
                    await self.intake.finish_recalls()
                    await self.intake.catch_up()
                    is_begun = True
                is_full = not await self._deliver_due()
                self._note_settled(self._store.confirm_offset)
            except StoreError as error:
                log.warning("timer messages wait, the store takes no writes: %s", error)
                await self._clock.sleep(STORE_FAILURE_WAIT_S)
                continue
            next_due_ms = self._timer.next_due_ms()
            wait_s = IDLE_WAIT_S_MAX
            if is_full:
                wait_s = STORE_FAILURE_WAIT_S  # until some of those that are handed out are settled
            elif next_due_ms is not None:
                wait_s = min(max(next_due_ms - self._clock.now_ms(), 0) / 1000, IDLE_WAIT_S_MAX)
            await self._wait(wait_s)

    async def run_settling(self) -> None:
        """Settle what was delivered, once it is on the disk and confirmed, until cancelled."""
        while True:
            await self._has_delivered.wait()
            self._has_delivered.clear()
            wait_s = CONFIRM_WAIT_S
            try:
                await self._settle()
            except StoreError as error:
                log.warning("delivered timer messages can't be settled yet: %s", error)
                wait_s = STORE_FAILURE_WAIT_S
            if self._delivered:
                self._has_delivered.set()
                await self._clock.sleep(wait_s)

    async def stop(self) -> None:
        """Settle the rest. Both tasks have ended. What is not confirmed may be cut off, and waits again."""
        try:
            await self._settle()
        except StoreError as error:
            log.warning("%d delivered timer messages will come again: %s", len(self._delivered), error)
        finally:
            self._timer.release([each.entry for each in self._delivered])

    async def _wait(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)  # a timer may be due at once, or in a bucket that is not sorted yet
            return
        await self._sleep.sleep(seconds)

    # -- delivering ----------------------------------------------------------------------------------------------------

    async def _deliver_due(self) -> bool:
        """Deliver all that is due; False when timers are due that may not be handed out yet."""
        has_more = True
        while has_more:
            has_more = await self._deliver_some() > 0
            await asyncio.sleep(0)  # the loop is never held for a long backlog
        next_due_ms = self._timer.next_due_ms()
        return not self._delivered or next_due_ms is None or next_due_ms > self._clock.now_ms()

    async def _deliver_some(self) -> int:
        """Deliver at most PER_TURN_MAX due messages; gives how many there were.

        The time is read first, and then the timer queue to its end: a message that was due by then can't be recalled
        any more, and whatever recalled it before stands in the queue.
        """
        async with self._turn:
            now_ms = self._clock.now_ms()
            await self.intake.take_in()
            entries = self._timer.due(now_ms, PER_TURN_MAX)
            done = 0
            try:
                records = await self._reads.records_at([entry.physical_offset for entry in entries])
                for entry, data in zip(entries, records, strict=True):
                    begin = self._store.written_offset
                    self._deliver(entry, data)
                    self._delivered.append(_Delivered(entry, begin, self._store.written_offset))
                    done += 1
            finally:
                self._timer.release(entries[done:])
                if done:
                    self._has_delivered.set()
            return len(entries)

    def _deliver(self, entry: TimerEntry, data: bytes | None) -> None:
        """Store the copy; what can never be stored is counted and left where it is."""
        try:
            record = decoded(data)
            properties = decode_properties(record.properties)
            now_ms = self._clock.now_ms()
            if entry.is_rolled and stored_deliver_ms(properties) > now_ms:
                self._store_anew(entry, record)
                return
            topic, queue_id = real_place(self._topics, properties)
            copied = {
                **without_wait(properties),
                m.PROPERTY_TIMER_ENQUEUE_MS: str(record.store_timestamp_ms),
                m.PROPERTY_TIMER_DEQUEUE_MS: str(now_ms),
                PROPERTY_TIMER_OFFSET: str(entry.physical_offset),
            }
            copied.pop(PROPERTY_DUE_MS, None)
            self._writer.put_copy(
                topic,
                queue_id,
                record,
                properties=encode_or_keep(copied, record.properties),
                tags_code=m.tags_code(properties.get(m.PROPERTY_TAGS)),
            )
            self.delivered[topic.name] += 1
        except (RecordInvalid, LookupError, BrokerError, MessageTooLarge, MessageInvalid) as error:
            self.intake.note_undeliverable(entry.physical_offset, error)

    async def _settle(self) -> None:
        """Bring the copies to the disk, then settle the timers of those that are confirmed."""
        if self._delivered:
            await asyncio.to_thread(self._store.flush)
        confirm_offset = self._store.confirm_offset
        settled = [each.entry for each in self._delivered if each.end <= confirm_offset]
        done: set[TimerEntry] = set()
        try:
            while len(done) < len(settled):
                some = settled[len(done) : len(done) + PER_TURN_MAX]
                self._timer.commit(some)
                done.update(some)
                await asyncio.sleep(0)  # the loop is never held for long
        finally:
            self._delivered = [each for each in self._delivered if each.entry not in done]
        self._note_settled(confirm_offset)

    def _note_settled(self, confirm_offset: int) -> None:
        """Nobody has to search the log for copies before this."""
        self._timer.copies_offset = min([confirm_offset, *(each.begin for each in self._delivered)])

    # -- storing anew --------------------------------------------------------------------------------------------------

    async def roll_forward(self, physical_offset: int) -> None:
        """Store anew all messages below a physical offset that still wait, so that their file may go.

        Raises StoreError; those not reached stay as they were.
        """
        async with self._turn:
            await self.intake.take_in()
        has_more = self._timer.pending_count > 0
        while has_more:
            async with self._turn:
                has_more = await self._roll_some_forward(physical_offset)

    async def _roll_some_forward(self, physical_offset: int) -> bool:
        """Store some anew; gives whether there may be more. Nothing comes due meanwhile."""
        waiting = self._timer.live_before(physical_offset)
        entries = await asyncio.to_thread(lambda: list(islice(waiting, PER_TURN_MAX)))
        entries = [entry for entry in entries if not self._timer.is_handed_out(entry)]
        records = await self._reads.records_at([entry.physical_offset for entry in entries])
        recalls = self.intake.recalls
        await self.intake.take_in()
        if self.intake.recalls != recalls:
            return True  # perhaps of one of these, which must not be stored anew: look again
        done: list[TimerEntry] = []
        try:
            with self._store.disk_limits_ignored():
                for entry, data in zip(entries, records, strict=True):
                    self._try_to_store_anew(entry, data)
                    done.append(entry)
        finally:
            if done:
                await asyncio.to_thread(self._store.flush)
                await self._confirmed(self._store.written_offset)
                self._timer.commit(done)
        return bool(done)

    async def _confirmed(self, end: int) -> None:
        """Wait until no cut can take what is stored below that any more; at once where there are no replicas."""
        while self._store.confirm_offset < end:
            await self._clock.sleep(CONFIRM_WAIT_S)

    def _try_to_store_anew(self, entry: TimerEntry, data: bytes | None) -> None:
        try:
            self._store_anew(entry, decoded(data))
        except RecordInvalid as error:
            self.intake.note_undeliverable(entry.physical_offset, error)

    def _store_anew(self, entry: TimerEntry, record: Record) -> None:
        properties = decode_properties(record.properties)
        told = {**properties, PROPERTY_TIMER_OFFSET: str(entry.physical_offset)}
        self._writer.put_copy(
            self._topics.require(TIMER_TOPIC),
            TIMER_QUEUE[1],
            record,
            properties=encode_or_keep(told, record.properties),
            tags_code=m.tags_code(properties.get(m.PROPERTY_TAGS)),
        )
        self._sleep.wake()
