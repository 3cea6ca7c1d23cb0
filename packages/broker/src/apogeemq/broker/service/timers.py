"""Timer messages come due: the copy goes to its real topic, and the timer is settled.

```
rmq_sys_wheel_timer 0 ──take in──► TimerStore ──due──► copy in the real topic ──flushed──► commit
```
Each arrow is durable behind the one before it: what a crash cuts off is done again, so a message may come twice then,
but never not at all. Nothing is early: due is what the clock says is due at the moment of looking. The service sleeps
until the next timer is due or a message is stored in the queue. Source: architecture.md §5; ADR 0016.
"""

import asyncio
import logging
from collections import Counter
from itertools import islice

from apogeemq.broker.core.names import TIMER_TOPIC
from apogeemq.broker.core.properties import encode_or_keep
from apogeemq.broker.core.timed import recalled, stored_deliver_ms
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.errors import BrokerError
from apogeemq.broker.service.due_sleep import WakeableSleep
from apogeemq.broker.service.log_reads import LogReads, decoded
from apogeemq.broker.service.real_place import real_place, without_wait
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.mesh.clock import Clock
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.remoting_codec.message import decode_properties, java_string_hash
from apogeemq.remoting_codec.record import Record
from apogeemq.store.delivery_times import PROPERTY_DUE_MS
from apogeemq.store.errors import MessageInvalid, MessageTooLarge, StoreError
from apogeemq.store.message_store import MessageStore
from apogeemq.store.timer_store import TIMER_QUEUE
from apogeemq.store.timer_unit import TimerEntry

log = logging.getLogger(__name__)

PER_TURN_MAX = 100
"""Messages taken in, delivered or settled before everybody else has a turn: a few milliseconds."""
IDLE_WAIT_S_MAX = 60.0
STORE_FAILURE_WAIT_S = 1.0

PROPERTY_TIMER_OFFSET = "APOGEEMQ_TIMER_OFFSET"
"""Of a delivered copy: the physical offset of the record that waited. A replica settles its timer by it."""


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
        self._sleep = WakeableSleep(clock)
        self._turn = asyncio.Lock()
        """Delivering and storing anew both take timers away."""
        self._has_delivered = asyncio.Event()
        self._delivered: list[TimerEntry] = []
        """Copies are in the log, but perhaps not on the disk yet."""
        self.undeliverable = 0
        self.recalls = 0
        """Messages that were taken back."""
        self.taken_in: Counter[str] = Counter()
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
        has_old_recalls = True
        while True:
            try:
                if has_old_recalls:
                    await self._finish_recalls()
                    has_old_recalls = False
                is_full = not await self._deliver_due()
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
        """Settle what was delivered, once it is on the disk, until cancelled."""
        while True:
            await self._has_delivered.wait()
            self._has_delivered.clear()
            try:
                await self._settle()
            except StoreError as error:
                log.warning("delivered timer messages can't be settled yet: %s", error)
                self._has_delivered.set()
                await self._clock.sleep(STORE_FAILURE_WAIT_S)

    async def stop(self) -> None:
        """Settle the rest. Both tasks have ended."""
        try:
            await self._settle()
        except StoreError as error:
            log.warning("%d delivered timer messages will come again: %s", len(self._delivered), error)
            self._timer.release(self._delivered)

    async def _wait(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)  # a timer may be due at once, or in a bucket that is not sorted yet
            return
        await self._sleep.sleep(seconds)

    # -- taking in -----------------------------------------------------------------------------------------------------

    async def _take_in(self) -> None:
        """Read the timer queue from where it was last read to its end."""
        while self._timer.queue_offset < self._store.max_offset(*TIMER_QUEUE):
            begin = max(self._timer.queue_offset, self._store.min_offset(*TIMER_QUEUE))
            units: list[tuple[int, int, int]] = []
            while len(units) < PER_TURN_MAX and (unit := self._store.queue_unit(*TIMER_QUEUE, begin + len(units))):
                units.append(unit)
            if not units:
                return
            records = await self._reads.records_at([unit[0] for unit in units])
            for queue_offset, unit, data in zip(range(begin, begin + len(units)), units, records, strict=True):
                await self._take_in_record(unit[0], unit[1], data)
                self._timer.queue_offset = queue_offset + 1
            await asyncio.sleep(0)  # the loop is never held for a long backlog

    async def _take_in_record(self, physical_offset: int, size_bytes: int, data: bytes | None) -> None:
        try:
            record = decoded(data)
            properties = decode_properties(record.properties)
            deliver_ms = stored_deliver_ms(properties)
            if recalled(properties) is not None:
                self.recalls += await asyncio.to_thread(self._recall, properties)
                return
            topic = properties.get(m.PROPERTY_REAL_TOPIC, "")
            is_news = self._timer.add(
                deliver_ms,
                physical_offset,
                size_bytes,
                topic_hash=java_string_hash(topic),
                unique_key=properties.get(m.PROPERTY_UNIQ_KEY, "").encode(),
                store_timestamp_ms=record.store_timestamp_ms,
            )
            self.taken_in[topic] += is_news
        except (RecordInvalid, LookupError, MessageInvalid) as error:
            self._undeliverable(physical_offset, error)

    def _recall(self, properties: dict[str, str]) -> bool:
        """Take back the message that these properties name. In a thread: it may look at a whole second's timers."""
        wanted = recalled(properties)

        def is_it(entry: TimerEntry) -> bool:
            try:
                found = decode_properties(decoded(self._store.record_at(entry.physical_offset)).properties)
            except RecordInvalid:
                return False
            return (found.get(m.PROPERTY_REAL_TOPIC), found.get(m.PROPERTY_UNIQ_KEY)) == wanted

        if wanted is None:
            return False
        return self._timer.recall(stored_deliver_ms(properties), wanted[1].encode(), is_it)

    async def _finish_recalls(self) -> None:
        """Do what Java's broker had noted and not come to."""
        for entry in self._timer.pending_deletions():
            (data,) = await self._reads.records_at([entry.physical_offset])
            try:
                await asyncio.to_thread(self._recall, decode_properties(decoded(data).properties))
            except (RecordInvalid, LookupError) as error:
                self._undeliverable(entry.physical_offset, error)
            self._timer.commit([entry])

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
            await self._take_in()
            entries = self._timer.due(now_ms, PER_TURN_MAX)
            done = 0
            try:
                records = await self._reads.records_at([entry.physical_offset for entry in entries])
                for entry, data in zip(entries, records, strict=True):
                    self._deliver(entry, data)
                    done += 1
            finally:
                self._delivered += entries[:done]
                self._timer.release(entries[done:])
            if entries:
                self._has_delivered.set()
            return len(entries)

    def _deliver(self, entry: TimerEntry, data: bytes | None) -> None:
        """Store the copy; what can never be stored is counted and left where it is."""
        try:
            record = decoded(data)
            properties = decode_properties(record.properties)
            now_ms = self._clock.now_ms()
            if entry.is_rolled and stored_deliver_ms(properties) > now_ms:
                self._store_anew(record)
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
            self._undeliverable(entry.physical_offset, error)

    async def _settle(self) -> None:
        """Bring the copies to the disk, then settle their timers."""
        delivered, self._delivered = self._delivered, []
        try:
            if delivered:
                await asyncio.to_thread(self._store.flush)
            while delivered:
                self._timer.commit(delivered[-PER_TURN_MAX:])
                del delivered[-PER_TURN_MAX:]
                await asyncio.sleep(0)  # the loop is never held for long
        finally:
            self._delivered += delivered  # cancelled, or failed: to be tried again

    # -- storing anew --------------------------------------------------------------------------------------------------

    async def roll_forward(self, physical_offset: int) -> None:
        """Store anew all messages below a physical offset that still wait, so that their file may go.

        Raises StoreError; those not reached stay as they were.
        """
        async with self._turn:
            await self._take_in()
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
        recalls = self.recalls
        await self._take_in()
        if self.recalls != recalls:
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
                self._timer.commit(done)
        return bool(done)

    def _try_to_store_anew(self, entry: TimerEntry, data: bytes | None) -> None:
        try:
            self._store_anew(decoded(data))
        except RecordInvalid as error:
            self._undeliverable(entry.physical_offset, error)

    def _store_anew(self, record: Record) -> None:
        self._writer.put_copy(
            self._topics.require(TIMER_TOPIC),
            TIMER_QUEUE[1],
            record,
            properties=record.properties,
            tags_code=m.tags_code(decode_properties(record.properties).get(m.PROPERTY_TAGS)),
        )
        self._sleep.wake()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _undeliverable(self, physical_offset: int, error: Exception) -> None:
        self.undeliverable += 1
        log.error("the timer message at physical offset %d can't be delivered: %s", physical_offset, error)
