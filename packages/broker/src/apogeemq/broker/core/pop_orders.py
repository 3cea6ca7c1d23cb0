"""Ordered pops: which messages of a queue are in somebody's hands, and which may go out without breaking an order.

    floor                                                                          end of what was looked at
      │  acked     held        held      waiting   held       waiting               │
      ▼                                                                             ▼
    ──┬─────────┬───────────┬─────────┬─────────┬──────────┬─────────┬──────────────┬──────────▶ queue offset
      │ m5      │ m6  (A)   │ m7 (B)  │ m8 (A)  │ m9 (C)   │ m10 (B) │              │
      └─────────┴───────────┴─────────┴─────────┴──────────┴─────────┴──────────────┘
      ▲ the group's committed offset; moves on over what is acknowledged

A message belongs to the order of its message group (property __SHARDINGKEY); those without one are all of one order,
the queue's own. While a message of an order is in hand and its time is not over, nothing else of that order goes out;
other orders go on. When its time is over it goes out again, before what follows it.

    order             goes out in one pop
    a message group   `per_group_max` messages at most (1: nothing follows before the acknowledgement)
    the queue's own   as many as the pop takes, as Apache's brokers do

Bounded: at most WINDOW messages from the floor on are looked at; an order that stands still holds back what lies
beyond.

What is in hand changes by events alone (`apply`), which are written down before they are applied
(service/order_log.py): so a replay of them ends where the broker was. A replay may begin with events that are in the
loaded table already: each says what is so, not what is added. Times are wall-clock ms, handed in.
Source: Apache ConsumerOrderInfoManager 5.3; docs/adr/0021-order-by-message-group.md.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from apogeemq.broker.core.order_events import OrderEvent, Popped, QueueKey, Settled, Timed

WINDOW = 1_024
"""Messages from the floor on that are looked at."""

QUEUE_ORDER = ""
"""The order of messages without a message group."""

EVERY_ORDER = "\x01"
"""Of a message that an Apache broker handed out, whose group its file does not tell: nothing goes out beside it."""


@dataclass(slots=True)
class Held:
    """A message that was popped and not acknowledged. `visible_ms`: from when on it may be popped again."""

    order: str
    pop_time_ms: int
    visible_ms: int
    times: int
    attempt_id: str


@dataclass(slots=True)
class QueueOrder:
    """One queue as one consumer group has it: see the head of this module.

    `looked` is the end of what was looked at; what waits was looked at, is wanted, and is not in hand.
    """

    floor: int
    looked: int = -1
    held: dict[int, Held] = field(default_factory=dict)
    acked: set[int] = field(default_factory=set)
    waiting: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.looked = max(self.looked, self.floor)

    @property
    def has_room(self) -> bool:
        """Whether more messages may be looked at."""
        return self.looked < self.floor + WINDOW

    def look(self, offset: int, order: str) -> None:
        """The message after all that were looked at before; what lies between is unwanted, and done with."""
        self.pass_over(offset)
        if offset not in self.held and offset not in self.acked:
            self.waiting[offset] = order
        self.looked = offset + 1

    def pass_over(self, end: int) -> None:
        """Nothing from `looked` up to `end` is wanted, but for what is in hand."""
        for offset in range(self.looked, end):
            if offset not in self.held:
                self.acked.add(offset)
        self.looked = max(self.looked, end)
        self.advance()

    def advance(self) -> None:
        """Move the floor over what is acknowledged."""
        while self.floor in self.acked:
            self.acked.remove(self.floor)
            self.floor += 1
        self.looked = max(self.looked, self.floor)

    def raise_floor(self, floor: int) -> None:
        """What lies below is gone: its files are."""
        if floor <= self.floor:
            return
        self.floor = floor
        self.looked = max(self.looked, floor)
        self.held = {offset: held for offset, held in self.held.items() if offset >= floor}
        self.waiting = {offset: order for offset, order in self.waiting.items() if offset >= floor}
        self.acked = {offset for offset in self.acked if offset >= floor}
        self.advance()

    def of_attempt(self, attempt_id: str, now_ms: int) -> list[int]:
        """What an attempt was given and still has: it gets the same again, for its answer was lost."""
        if not attempt_id:
            return []
        return sorted(
            offset for offset, held in self.held.items() if held.attempt_id == attempt_id and held.visible_ms > now_ms
        )

    def choose(self, count_max: int, per_group_max: int, now_ms: int) -> list[int]:
        """Offsets that may go out now, ascending."""
        blocked = {held.order for held in self.held.values() if held.visible_ms > now_ms}
        if EVERY_ORDER in blocked:
            return []
        taken: Counter[str] = Counter()
        chosen: list[int] = []
        for offset in sorted([*self.held, *self.waiting]):
            order = self.order_of(offset)
            if order in blocked:
                continue
            if order == EVERY_ORDER and chosen:
                break
            chosen.append(offset)
            if len(chosen) == count_max or order == EVERY_ORDER:
                break
            taken[order] += 1
            if order != QUEUE_ORDER and taken[order] == per_group_max:
                blocked.add(order)
        return chosen

    def order_of(self, offset: int) -> str:
        """The order that a message belongs to, which is in hand or waits."""
        held = self.held.get(offset)
        return self.waiting[offset] if held is None else held.order

    def times_of(self, offset: int) -> int:
        """How often a message went out before."""
        held = self.held.get(offset)
        return 0 if held is None else held.times

    def is_settled(self, offset: int) -> bool:
        """Whether a message needs nobody any more."""
        return offset < self.floor or offset in self.acked


class PopOrders:
    """The ordered queues of all groups.

    `changed` are queues whose entries in the file are to be written.
    """

    def __init__(self) -> None:
        self._queues: dict[QueueKey, QueueOrder] = {}
        self._visible: list[tuple[int, QueueKey]] = []
        self._held = 0
        self.changed: set[QueueKey] = set()

    def __len__(self) -> int:
        """Messages in hand."""
        return self._held

    def get(self, key: QueueKey) -> QueueOrder | None:
        """One queue; None where nothing was popped in order."""
        return self._queues.get(key)

    def begin(self, key: QueueKey, floor: int) -> QueueOrder:
        """One queue, made where the group stands when nothing was popped in order yet."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = QueueOrder(floor)
        return queue

    def queues(self) -> list[QueueKey]:
        """All queues, as of now."""
        return list(self._queues)

    def in_flight(self) -> Iterator[tuple[QueueKey, int]]:
        """How many messages of each queue are in hand."""
        for key, queue in list(self._queues.items()):
            yield key, len(queue.held)

    def load(self, key: QueueKey, queue: QueueOrder) -> None:
        """Take a queue over from the file."""
        self._forget(key)
        self._queues[key] = queue
        self._held += len(queue.held)
        for held in queue.held.values():
            heapq.heappush(self._visible, (held.visible_ms, key))

    def restart(self, min_offset: Callable[[str, int], int], max_offset: Callable[[str, int], int]) -> None:
        """After a start: keep to what the store has; what was acknowledged beyond its end is not known any more."""
        for key, queue in self._queues.items():
            _, topic, queue_id = key
            end = max_offset(topic, queue_id)
            queue.raise_floor(min_offset(topic, queue_id))
            if queue.floor > end or any(offset >= end for offset in (*queue.held, *queue.acked)):
                self._held -= len(queue.held)
                queue.held = {offset: held for offset, held in queue.held.items() if offset < end}
                self._held += len(queue.held)
                queue.acked = {offset for offset in queue.acked if offset < end}
                queue.floor = min(queue.floor, end)
                self.changed.add(key)
            queue.waiting.clear()
            queue.looked = queue.floor

    def apply(self, event: OrderEvent) -> QueueOrder:
        """Make an event so; gives the queue, whose floor may have moved."""
        key = event.key
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = QueueOrder(event.floor)
        before = len(queue.held)
        if isinstance(event, Popped):
            self._popped(key, queue, event)
        elif isinstance(event, Settled):
            _settled(queue, event)
        elif isinstance(event, Timed):
            self._timed(key, queue, event)
        else:
            queue = self._queues[key] = QueueOrder(event.floor)
        self._held += len(queue.held) - before
        self.changed.add(key)
        return queue

    def due(self, now_ms: int) -> set[QueueKey]:
        """Queues where a message's time is over since this was asked last: something may go out again."""
        found = set()
        while self._visible and self._visible[0][0] <= now_ms:
            _, key = heapq.heappop(self._visible)
            queue = self._queues.get(key)
            if queue is not None and any(held.visible_ms <= now_ms for held in queue.held.values()):
                found.add(key)
        return found

    def _popped(self, key: QueueKey, queue: QueueOrder, event: Popped) -> None:
        queue.raise_floor(event.floor)
        for offset, order, times in event.messages:
            queue.waiting.pop(offset, None)
            if not queue.is_settled(offset):
                queue.held[offset] = Held(order, event.pop_time_ms, event.visible_ms, times, event.attempt_id)
        heapq.heappush(self._visible, (event.visible_ms, key))

    def _timed(self, key: QueueKey, queue: QueueOrder, event: Timed) -> None:
        for offset in event.offsets:
            held = queue.held.get(offset)
            if held is not None and held.pop_time_ms == event.pop_time_ms:
                held.visible_ms = event.visible_ms
        heapq.heappush(self._visible, (event.visible_ms, key))

    def _forget(self, key: QueueKey) -> None:
        queue = self._queues.pop(key, None)
        if queue is not None:
            self._held -= len(queue.held)


def _settled(queue: QueueOrder, event: Settled) -> None:
    for offset in event.offsets:
        held = queue.held.get(offset)
        if held is not None and held.pop_time_ms == event.pop_time_ms:
            del queue.held[offset]
            queue.acked.add(offset)
    queue.advance()
