"""Who waits for which queue until when.

A pull that found nothing is held here. It comes out once: when a message that its tags may want is stored in its queue,
when its time is over, or when its connection closes. What comes out is run again by the caller with suspension
forbidden (reference broker_behaviour.md §5). Bounds hold for waiters in all, on one queue and of one owner, and for
what all take of memory; a full table refuses, and says which bound it was. `wake_rounds` tells whom a message wakes.
"""

import heapq
from collections.abc import Callable, Hashable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

W = TypeVar("W")


@dataclass(slots=True, eq=False)
class Waiting(Generic[W]):
    """One held pull. `tag_codes` None wants every message; `owner` is what `drop_owner` knows it by."""

    topic: str
    queue_id: int
    deadline: float
    tag_codes: frozenset[int] | None
    owner: Hashable
    what: W
    size_bytes: int = 0
    gone: bool = field(default=False)

    def wants(self, tag_codes: AbstractSet[int]) -> bool:
        """Whether it may want one of some messages, by their tag codes."""
        return self.tag_codes is None or not self.tag_codes.isdisjoint(tag_codes)


class HeldLimits(NamedTuple):
    """Bounds of what is held: in all, on one queue, of one owner; and bytes in all."""

    waiting_max: int
    waiting_per_queue_max: int
    waiting_per_owner_max: int
    size_bytes_max: int


class ReachedLimit(NamedTuple):
    """A bound (a field of HeldLimits) with its value, and what is held now in its sense."""

    name: str
    value: int
    now: int


class LongPollingTable(Generic[W]):
    """Held pulls by (topic, queue id), with their deadlines in a heap. Times are seconds of one monotonic clock.

    The pulls of a queue are a set in the order of coming: each leaves without a look at the others.
    """

    def __init__(self, limits: HeldLimits) -> None:
        self.limits = limits
        self.size_bytes = 0
        self._queues: dict[tuple[str, int], dict[Waiting[W], None]] = {}
        self._owners: dict[Hashable, set[Waiting[W]]] = {}
        self._deadlines: list[tuple[float, int, Waiting[W]]] = []
        self._serial = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, waiting: Waiting[W]) -> ReachedLimit | None:
        """Hold a pull; the bound that is reached, where it is not held."""
        reached = self._reached(waiting)
        if reached is not None:
            return reached
        self._queues.setdefault((waiting.topic, waiting.queue_id), {})[waiting] = None
        self.size_bytes += waiting.size_bytes
        self._owners.setdefault(waiting.owner, set()).add(waiting)
        self._serial += 1
        heapq.heappush(self._deadlines, (waiting.deadline, self._serial, waiting))
        self._count += 1
        return None

    def has_waiting(self, topic: str, queue_id: int) -> bool:
        """Whether anybody waits for this queue: the cheap question of the send path."""
        return (topic, queue_id) in self._queues

    def queues(self) -> list[tuple[str, int]]:
        """The queues that anybody waits for, as of now."""
        return list(self._queues)

    def waiting_on(self, topic: str, queue_id: int) -> list[Waiting[W]]:
        """Who waits for this queue, in the order of coming."""
        return list(self._queues.get((topic, queue_id), ()))

    def take_out(self, waiting: Waiting[W]) -> bool:
        """Take out one; False when it is gone already."""
        if waiting.gone:
            return False
        self._remove(waiting)
        return True

    def take(self, topic: str, queue_id: int, is_wanted: Callable[[W], bool]) -> list[Waiting[W]]:
        """Take out those of a queue for whose `what` this holds."""
        taken = [waiting for waiting in self._queues.get((topic, queue_id), ()) if is_wanted(waiting.what)]
        for waiting in taken:
            self._remove(waiting)
        return taken

    def expire(self, now: float, count_max: int) -> list[Waiting[W]]:
        """Take out those whose time is over, at most so many; fewer come when nobody else's is."""
        expired: list[Waiting[W]] = []
        while self._deadlines and len(expired) < count_max and self._is_over(self._deadlines[0], now):
            waiting = heapq.heappop(self._deadlines)[2]
            if self.take_out(waiting):
                expired.append(waiting)
        return expired

    @staticmethod
    def _is_over(entry: tuple[float, int, Waiting[W]], now: float) -> bool:
        return entry[2].gone or entry[0] <= now

    def next_deadline(self) -> float | None:
        """When `expire` has something to do again, or None while nobody waits."""
        while self._deadlines and self._deadlines[0][2].gone:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def drop_owner(self, owner: Hashable) -> int:
        """Forget all that an owner holds (its connection closed); gives how many."""
        waitings = list(self._owners.get(owner, ()))
        for waiting in waitings:
            self._remove(waiting)
        return len(waitings)

    def drain(self) -> list[Waiting[W]]:
        """Take out everybody: the broker stops."""
        everybody = [waiting for queue in self._queues.values() for waiting in queue]
        for waiting in everybody:
            self._remove(waiting)
        self._deadlines.clear()
        return everybody

    def _reached(self, waiting: Waiting[W]) -> ReachedLimit | None:
        limits = self.limits
        if self._count >= limits.waiting_max:
            return ReachedLimit("waiting_max", limits.waiting_max, self._count)
        on_queue = len(self._queues.get((waiting.topic, waiting.queue_id), ()))
        if on_queue >= limits.waiting_per_queue_max:
            return ReachedLimit("waiting_per_queue_max", limits.waiting_per_queue_max, on_queue)
        of_owner = len(self._owners.get(waiting.owner, ()))
        if of_owner >= limits.waiting_per_owner_max:
            return ReachedLimit("waiting_per_owner_max", limits.waiting_per_owner_max, of_owner)
        if self.size_bytes + waiting.size_bytes > limits.size_bytes_max:
            return ReachedLimit("size_bytes_max", limits.size_bytes_max, self.size_bytes)
        return None

    def _remove(self, waiting: Waiting[W]) -> None:
        waiting.gone = True
        self.size_bytes -= waiting.size_bytes
        key = (waiting.topic, waiting.queue_id)
        queue = self._queues[key]
        del queue[waiting]
        if not queue:
            del self._queues[key]
        owned = self._owners[waiting.owner]
        owned.discard(waiting)
        if not owned:
            del self._owners[waiting.owner]
        self._count -= 1
        # Entries that are gone leave the heap when they reach its top; a heap of mostly gone ones is made anew, so that
        # busy queues (held and woken thousands of times within one deadline) do not grow it.
        if len(self._deadlines) > 64 and len(self._deadlines) > 4 * self._count:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].gone]
            heapq.heapify(self._deadlines)
