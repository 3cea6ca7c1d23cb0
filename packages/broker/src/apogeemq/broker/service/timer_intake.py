"""Which timer messages wait: the timer queue is read to its end, and what the log says is delivered does not wait.

```
rmq_sys_wheel_timer 0 ──take in──► TimerStore ◄──settle── copies in the log (APOGEEMQ_TIMER_OFFSET)
```
A master does it for what it will deliver; a slave does it all the time, so that it knows what waits in the moment that
it leads; and every start looks at what was delivered before and not settled yet. Both follow from the log below the
confirm offset alone, which no cut takes back. Source: architecture.md §5; ADR 0016, ADR 0033.
"""

import asyncio
import logging
from collections import Counter

from apogeemq.broker.core.timed import recalled, stored_deliver_ms
from apogeemq.broker.service.log_reads import LogReads, decoded
from apogeemq.mesh.clock import Clock
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.remoting_codec.message import decode_properties, java_string_hash
from apogeemq.store.errors import MessageInvalid, OffsetOutOfRange, RecordCorrupt, StoreError
from apogeemq.store.message_store import MessageStore
from apogeemq.store.timer_copies import TimerCopy, copies_from
from apogeemq.store.timer_store import TIMER_QUEUE
from apogeemq.store.timer_unit import TimerEntry

log = logging.getLogger(__name__)

PER_TURN_MAX = 100
"""Messages taken in, delivered or settled before everybody else has a turn: a few milliseconds."""
HOT_PIECE_SIZE_BYTES = 64 << 10
"""So much of the log is searched at a time: 4 ms where it is full of the smallest copies."""
FOLLOW_S = 0.5
"""How far behind the confirm offset a slave may be: what is left of it waits at a promotion."""


class TimerIntake:
    """Takes timer messages in, and settles those that the log has copies of.

    One at a time may work on a store: the Broker's, or the replica's.

    Args:
        store: whose timer.
        reads: reads records back.
    """

    def __init__(self, store: MessageStore, reads: LogReads) -> None:
        self._store = store
        self._timer = store.timer
        self._reads = reads
        self.undeliverable = 0
        self.recalls = 0
        """Messages that were taken back."""
        self.taken_in: Counter[str] = Counter()
        """Messages by the topic where they go, since start; topics that are gone among them."""
        self.settled_by_copies = 0

    async def catch_up(self) -> None:
        """Take in all, and settle what was delivered, as the log says up to the confirm offset of now.

        Raises StoreError.
        """
        end = self._store.confirm_offset
        await self.take_in()
        await self._settle_by_copies(end)

    async def follow(self, clock: Clock) -> None:
        """Catch up again and again, until cancelled: a slave's part."""
        trouble = ""
        while True:
            try:
                await self.catch_up()
                trouble = ""
            except StoreError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    log.warning("timer messages are not followed, the store refuses it: %s", error)
            await clock.sleep(FOLLOW_S)

    # -- taking in -----------------------------------------------------------------------------------------------------

    async def take_in(self) -> None:
        """Read the timer queue from where it was last read to its end. Raises StoreError."""
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
            self.note_undeliverable(physical_offset, error)

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

    async def finish_recalls(self) -> None:
        """Do what Java's broker had noted and not come to."""
        for entry in self._timer.pending_deletions():
            (data,) = await self._reads.records_at([entry.physical_offset])
            try:
                await asyncio.to_thread(self._recall, decode_properties(decoded(data).properties))
            except (RecordInvalid, LookupError) as error:
                self.note_undeliverable(entry.physical_offset, error)
            self._timer.commit([entry])

    def note_undeliverable(self, physical_offset: int, error: Exception) -> None:
        """Count and tell of a message that can't ever be delivered."""
        self.undeliverable += 1
        log.error("the timer message at physical offset %d can't be delivered: %s", physical_offset, error)

    # -- settling ------------------------------------------------------------------------------------------------------

    async def _settle_by_copies(self, end: int) -> None:
        """Settle the timers of the copies between where this was last done and `end`."""
        start = self._timer.copies_offset
        if end - start > self._reads.hot_window_bytes:
            start = max(start, await asyncio.to_thread(self._first_pending))
        while start < end and self._timer.pending_count:
            try:
                copies, start = await self._copies_from(start, end)
            except (RecordCorrupt, OffsetOutOfRange):
                log.exception("the log can't be searched for delivered timer messages: some may come again")
                break
            for number, copy in enumerate(copies):
                if number % PER_TURN_MAX == PER_TURN_MAX - 1:
                    await asyncio.sleep(0)
                self.settled_by_copies += self._timer.settle_record(
                    copy.timer_offset, topic_hash=copy.topic_hash, unique_key=copy.unique_key
                )
            self._timer.copies_offset = max(self._timer.copies_offset, start)
            await asyncio.sleep(0)  # the loop is never held for long
        self._timer.copies_offset = max(self._timer.copies_offset, end)

    async def _copies_from(self, start: int, end: int) -> tuple[list[TimerCopy], int]:
        """See there; in a thread where the disk may be waited for."""
        if self._reads.is_hot(start):
            return copies_from(self._store, start, end, size_bytes_max=HOT_PIECE_SIZE_BYTES)
        return await asyncio.to_thread(copies_from, self._store, start, end)

    def _first_pending(self) -> int:
        """Where the oldest record lies that waits: no copy lies before it. Reads the timer log."""
        first = next(iter(self._timer.live_before(self._store.written_offset)), None)
        return self._store.written_offset if first is None else first.physical_offset
