"""Popping in order: messages of a message group go out one after the other, those of others meanwhile.

What may go out is decided by core/pop_orders.py; here the queues are read, events written, and the groups' positions
moved: a group's position in a queue is its first message that is not acknowledged.

The order of the steps makes a crash harmless: nothing goes out before it is written down, and a position follows what
is written. An attempt that is repeated, because its answer was lost, gets the same messages again under new handles.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable
from apogeemq.broker.core.order_events import Moved, QueueKey, Settled, Timed
from apogeemq.broker.core.order_events import Popped as PoppedEvent
from apogeemq.broker.core.pop import (
    ORDER_REVIVE_QUEUE_ID,
    Changed,
    HandleResult,
    PopHandle,
    Popped,
    PoppedRun,
    RetryMark,
)
from apogeemq.broker.core.pop_orders import QUEUE_ORDER, QueueOrder
from apogeemq.broker.filter.message_filter import MessageFilter, read_filtered, records_of, slice_time
from apogeemq.broker.service.order_log import OrderLog
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.record import peek_properties
from apogeemq.store.errors import StoreError
from apogeemq.store.message_store import MessageStore, ReadResult, ReadStatus

log = logging.getLogger(__name__)

READS_PER_POP_MAX = 16
LOOK_AHEAD = 32
"""Messages that are looked at in one read."""
READING_S_MAX = 0.001
"""How long one pop looks for what may go out before the loop has its turn."""

_SHARDING_KEY = m.PROPERTY_SHARDING_KEY.encode()


@dataclass(slots=True, frozen=True, kw_only=True)
class OrderedPop:
    """A pop that passed the checks; `queues` are looked at in turn, each from where the group stands in it."""

    group: str
    topic: str
    queues: Iterable[int]
    count_max: int
    invisible_time_ms: int
    attempt_id: str
    wanted: MessageFilter
    position: Callable[[QueueKey], int]


@dataclass(slots=True, frozen=True)
class ColdRead:
    """What a pop needs lies on the disk: have it read in a thread, then pop again with what was read.

    `start` is the first offset. `looks` for what may go out, or reads what was chosen.
    """

    key: QueueKey
    start: int
    looks: bool
    read: Callable[[], ReadResult]


@dataclass(slots=True, frozen=True)
class _Fetched:
    """What a thread has read for a pop. It need not be in memory any more when somebody reads it again."""

    cold: ColdRead
    result: ReadResult

    def look(self, key: QueueKey, start: int) -> ReadResult | None:
        """The look that begins there, if it is that."""
        return self.result if self.cold.looks and (self.cold.key, self.cold.start) == (key, start) else None

    def records(self, key: QueueKey, start: int, count: int) -> list[tuple[memoryview, int]]:
        """(record, offset) of these offsets, as far as they were read."""
        if self.cold.looks or self.cold.key != key or self.result.status is not ReadStatus.FOUND:
            return []
        found = [(record, offset) for record, offset in records_of(self.result) if start <= offset < start + count]
        return found if found and found[0][1] == start else []


@dataclass(slots=True)
class _Basket:
    pop: OrderedPop
    now_ms: int
    pop_time_ms: int
    count_left: int
    size_bytes_left: int
    reading_end: float
    fetched: _Fetched | None = None
    reads_left: int = READS_PER_POP_MAX
    rest_num: int = 0
    more: bool = False
    runs: list[PoppedRun] = field(default_factory=list)
    cold: ColdRead | None = None


class OrderedPops:
    """Pops in order, and settles what was popped so.

    Args:
        store, offsets: as elsewhere.
        log: where it writes down what it did; its table knows what is in hand.
        now_ms: wall clock; monotonic: seconds.
        size_bytes_max: bytes of one pop; the first message always goes out.
        per_group_max: un-acknowledged messages of a message group (pop.message_group_in_flight_max).
    """

    def __init__(
        self,
        *,
        store: MessageStore,
        offsets: ConsumerOffsetTable,
        log: OrderLog,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
        size_bytes_max: int,
        per_group_max: int,
    ) -> None:
        self._store = store
        self._offsets = offsets
        self._log = log
        self._orders = log.orders
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._size_bytes_max = size_bytes_max
        self._per_group_max = per_group_max
        self._pop_time_ms = 0
        self.on_freed: Callable[[str, str, int], None] = lambda topic, group, queue_id: None
        """Told topic, group and queue where something may go out that could not before."""

    def __len__(self) -> int:
        return len(self._orders)

    async def restore(self) -> None:
        """Read back what was in hand before this start, and bring the groups' positions up to it."""
        await self._log.restore()
        for key in self._orders.queues():
            queue = self._orders.begin(key, 0)
            times_ms = [held.pop_time_ms for held in queue.held.values()]
            self._pop_time_ms = max(self._pop_time_ms, *times_ms, 0)
            committed = self._offsets.query(key[1], key[0], key[2])
            if committed is None or committed < queue.floor:
                self._commit(key, queue)

    # -- popping -------------------------------------------------------------------------------------------------------

    def pop(self, pop: OrderedPop) -> Popped | ColdRead | bool:
        """Take messages; never waits. False: there are none; True: there may be more, ask after a turn of the loop.

        Raises StoreError when it could not be written down, and nothing is popped.
        """
        return self._pop(pop, self._basket(pop))

    def go_on(self, pop: OrderedPop, cold: ColdRead, result: ReadResult) -> Popped | ColdRead | bool:
        """The same with what a thread has read: each time it is nearer to an answer, whatever memory keeps."""
        basket = self._basket(pop)
        basket.fetched = _Fetched(cold, result)
        return self._pop(pop, basket)

    def _pop(self, pop: OrderedPop, basket: _Basket) -> Popped | ColdRead | bool:
        keys = [(pop.group, pop.topic, queue_id) for queue_id in pop.queues]
        if basket.fetched is not None:
            read = basket.fetched.cold.key
            keys.sort(key=lambda key: key != read)  # first: another queue on the disk would be read before, in turn
        if not pop.attempt_id or not self._repeat(keys, basket):
            for key in keys:
                if basket.count_left == 0 or basket.size_bytes_left <= 0 or basket.cold is not None:
                    break
                self._take(key, basket)
        if basket.cold is not None and not basket.runs:
            return basket.cold
        if not basket.runs:
            return basket.more
        self._pop_time_ms = basket.pop_time_ms
        return Popped(basket.pop_time_ms, pop.invisible_time_ms, ORDER_REVIVE_QUEUE_ID, basket.rest_num, basket.runs)

    def has_message(self, pop: OrderedPop) -> bool:
        """Whether a pop would take something now, or would have to look further to know; takes nothing."""
        basket = self._basket(pop)
        keys = [(pop.group, pop.topic, queue_id) for queue_id in pop.queues]
        return any(self._has_one(key, basket) for key in keys) or basket.more or basket.cold is not None

    def _has_one(self, key: QueueKey, basket: _Basket) -> bool:
        _, topic, queue_id = key
        end = self._store.max_offset(topic, queue_id)
        if end == 0:
            return False
        queue = self._queue(key, basket.pop.position(key))
        return bool(queue.of_attempt(basket.pop.attempt_id, basket.now_ms) or self._choose(key, queue, end, basket))

    def _basket(self, pop: OrderedPop) -> _Basket:
        now_ms = self._now_ms()
        return _Basket(
            pop,
            now_ms,
            max(now_ms, self._pop_time_ms + 1),  # never the same time twice: by it a new handle differs from the old
            pop.count_max,
            self._size_bytes_max,
            self._monotonic() + READING_S_MAX,
        )

    def tick(self) -> None:
        """Tell where the time of messages is over."""
        for group, topic, queue_id in self._orders.due(self._now_ms()):
            self.on_freed(topic, group, queue_id)

    def position_set(self, topic: str, group: str, queue_id: int) -> None:
        """A group's position was set from outside: what is in hand belongs to the old one."""
        key = group, topic, queue_id
        queue = self._orders.get(key)
        position = self._offsets.query(topic, group, queue_id)
        if queue is None or position is None or queue.floor == position:
            return
        try:
            self._log.write(Moved(key=key, floor=position))
        except StoreError as error:  # the next pop sees it too, and writes it then; only a crash before undoes it
            log.warning("%s was set to %d, which is not in the order log yet: %s", key, position, error)

    def _repeat(self, keys: Sequence[QueueKey], basket: _Basket) -> bool:
        """Hand out once more what this attempt has; whether it has something."""
        found = False
        for key in keys:
            queue = self._orders.get(key)
            offsets = [] if queue is None else queue.of_attempt(basket.pop.attempt_id, basket.now_ms)
            if queue is not None and offsets:
                found = True
                self._hand_out(key, queue, offsets, basket, is_repeated=True)
        return found

    def _take(self, key: QueueKey, basket: _Basket) -> None:
        _, topic, queue_id = key
        end = self._store.max_offset(topic, queue_id)
        if end == 0:
            return
        queue = self._queue(key, basket.pop.position(key))
        chosen = self._choose(key, queue, end, basket)
        if chosen:
            self._hand_out(key, queue, chosen, basket)
        basket.rest_num += max(0, end - queue.looked) + len(queue.waiting)

    def _queue(self, key: QueueKey, position: int) -> QueueOrder:
        """What is known of a queue, as of where the group stands; below the store's first message there is nothing."""
        _, topic, queue_id = key
        queue = self._orders.begin(key, position)
        if queue.floor != position:
            queue = self._log.write(Moved(key=key, floor=position))
        first = self._store.min_offset(topic, queue_id)
        if queue.floor < first:
            queue.raise_floor(first)
            self._commit(key, queue)
        return queue

    def _choose(self, key: QueueKey, queue: QueueOrder, end: int, basket: _Basket) -> list[int]:
        """Offsets that may go out, after looking at as many further messages as that takes."""
        while True:
            chosen = queue.choose(basket.count_left, self._per_group_max, basket.now_ms)
            if len(chosen) == basket.count_left or not queue.has_room or queue.looked >= end:
                return chosen
            if basket.reads_left == 0 or self._monotonic() >= basket.reading_end:
                basket.more = basket.more or not chosen
                return chosen
            basket.reads_left -= 1
            if not self._look(key, queue, basket):
                return chosen

    def _look(self, key: QueueKey, queue: QueueOrder, basket: _Basket) -> bool:
        """Look at some more messages; False when there are none to be had now."""
        _, topic, queue_id = key
        start, wanted = queue.looked, basket.pop.wanted

        def read(is_over: Callable[[], bool], *, cold_allowed: bool = False) -> ReadResult:
            return read_filtered(
                self._store,
                topic,
                queue_id,
                start,
                LOOK_AHEAD,
                self._size_bytes_max,
                wanted,
                cold_allowed=cold_allowed,
                is_over=is_over,
            )

        fetched = None if basket.fetched is None else basket.fetched.look(key, start)
        result = read(lambda: self._monotonic() >= basket.reading_end) if fetched is None else fetched
        if result.status is ReadStatus.COLD:
            is_over = slice_time(self._monotonic, READING_S_MAX)
            basket.cold = ColdRead(key, start, True, lambda: read(is_over, cold_allowed=True))
            return False
        if result.next_offset <= start:
            return False
        floor = queue.floor
        for record, offset in records_of(result):
            order = m.find_property(peek_properties(record), _SHARDING_KEY)
            queue.look(offset, QUEUE_ORDER if order is None else order.decode("utf-8", "replace"))
        queue.pass_over(result.next_offset)
        if queue.floor != floor:
            self._commit(key, queue)
        return True

    def _hand_out(
        self, key: QueueKey, queue: QueueOrder, offsets: list[int], basket: _Basket, *, is_repeated: bool = False
    ) -> None:
        """Read these messages, write down that they are in hand, and put them into the basket."""
        buffers: list[bytes | memoryview] = []
        fitting: list[int] = []
        size_bytes = 0
        for record, offset in self._read(key, offsets, basket):
            if (fitting or basket.runs) and size_bytes + len(record) > basket.size_bytes_left:
                break
            buffers.append(record)
            fitting.append(offset)
            size_bytes += len(record)
        if not fitting:
            return
        pop = basket.pop
        times = [queue.times_of(offset) + (not is_repeated) for offset in fitting]
        orders = [queue.order_of(offset) for offset in fitting]
        event = PoppedEvent(
            key=key,
            floor=queue.floor,
            pop_time_ms=basket.pop_time_ms,
            visible_ms=basket.pop_time_ms + pop.invisible_time_ms,
            attempt_id=pop.attempt_id,
            messages=tuple(zip(fitting, orders, times, strict=True)),
        )
        try:
            self._log.write(event)
        except StoreError:
            if not basket.runs:
                raise
            basket.count_left = 0  # what was taken before goes out
            return
        basket.count_left -= len(fitting)
        basket.size_bytes_left -= size_bytes
        basket.runs.append(PoppedRun(RetryMark.NORMAL, key[2], fitting[0], len(fitting), buffers, fitting, times))

    def _read(self, key: QueueKey, offsets: list[int], basket: _Basket) -> Iterator[tuple[memoryview, int]]:
        """(record, offset) at these offsets, read by stretches without gaps, up to the first not to be had now."""
        _, topic, queue_id = key
        for start, count in _stretches(offsets):
            fetched = [] if basket.fetched is None else basket.fetched.records(key, start, count)
            if fetched:
                yield from fetched
                if len(fetched) < count:
                    return
                continue
            result = self._store.read(topic, queue_id, start, count, basket.size_bytes_left, None)
            if result.status is ReadStatus.COLD:
                basket.cold = self._cold(key, start, count)
                return
            if result.status is not ReadStatus.FOUND:
                return
            yield from records_of(result)
            if result.count < count:
                return

    def _cold(self, key: QueueKey, start: int, count: int) -> ColdRead:
        _, topic, queue_id = key
        size_bytes_max = self._size_bytes_max
        return ColdRead(
            key,
            start,
            False,
            lambda: self._store.read(topic, queue_id, start, count, size_bytes_max, None, cold_allowed=True),
        )

    # -- handles -------------------------------------------------------------------------------------------------------

    def was_acknowledged(self, key: QueueKey, handle: PopHandle) -> bool:
        """Whether a handle's message needs nobody any more."""
        queue = self._orders.get(key)
        return queue is not None and queue.is_settled(handle.queue_offset)

    def ack(self, key: QueueKey, handles: Sequence[PopHandle]) -> list[bool]:
        """Acknowledge messages of one queue; whether each was in hand under its handle, or is done with already.

        Raises StoreError, and nothing has changed.
        """
        queue = self._orders.get(key)
        if queue is None:
            return [False] * len(handles)
        results = [self._is_held(queue, handle) or queue.is_settled(handle.queue_offset) for handle in handles]
        by_time: dict[int, dict[int, None]] = {}
        for handle in handles:
            if self._is_held(queue, handle):
                by_time.setdefault(handle.pop_time_ms, {})[handle.queue_offset] = None
        for pop_time_ms, offsets in by_time.items():
            event = Settled(key=key, floor=queue.floor, pop_time_ms=pop_time_ms, offsets=tuple(offsets))
            queue = self._log.write(event)
            self._commit(key, queue)
        if by_time:
            self.on_freed(key[1], key[0], key[2])
        return results

    def change_invisible(self, key: QueueKey, handle: PopHandle, invisible_time_ms: int) -> Changed | None:
        """Give a message another time from now on; None when it is not in hand under this handle, which lives on.

        Raises StoreError, and nothing has changed.
        """
        queue = self._orders.get(key)
        if queue is None or not self._is_held(queue, handle):
            return None
        visible_ms = self._now_ms() + invisible_time_ms
        self._time(key, queue, handle, visible_ms)
        if invisible_time_ms == 0:
            self.on_freed(key[1], key[0], key[2])
        return Changed(HandleResult.OK, handle.pop_time_ms, visible_ms - handle.pop_time_ms, ORDER_REVIVE_QUEUE_ID)

    def extend(self, key: QueueKey, handle: PopHandle, invisible_time_ms: int) -> bool:
        """Give a message more time; never less. Whether it is in hand under this handle. Raises StoreError."""
        queue = self._orders.get(key)
        if queue is None or not self._is_held(queue, handle):
            return False
        visible_ms = self._now_ms() + invisible_time_ms
        if visible_ms > queue.held[handle.queue_offset].visible_ms:
            self._time(key, queue, handle, visible_ms)
        return True

    def _time(self, key: QueueKey, queue: QueueOrder, handle: PopHandle, visible_ms: int) -> None:
        offsets = (handle.queue_offset,)
        self._log.write(
            Timed(key=key, floor=queue.floor, pop_time_ms=handle.pop_time_ms, offsets=offsets, visible_ms=visible_ms)
        )

    @staticmethod
    def _is_held(queue: QueueOrder, handle: PopHandle) -> bool:
        held = queue.held.get(handle.queue_offset)
        return held is not None and held.pop_time_ms == handle.pop_time_ms

    def _commit(self, key: QueueKey, queue: QueueOrder) -> None:
        group, topic, queue_id = key
        self._offsets.commit(topic, group, queue_id, queue.floor)


def _stretches(offsets: list[int]) -> Iterator[tuple[int, int]]:
    """(first, count) of each stretch without gaps."""
    start = 0
    for index in range(1, len(offsets) + 1):
        if index == len(offsets) or offsets[index] != offsets[index - 1] + 1:
            yield offsets[start], index - start
            start = index
