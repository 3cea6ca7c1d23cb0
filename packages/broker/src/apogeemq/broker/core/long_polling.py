"""Who waits for which queue until when.

A pull that found nothing is held here. It comes out once: when a message that its tags may want is stored in its queue,
when its time is over, or when its connection closes. What comes out is run again by the caller with suspension
forbidden (reference broker_behaviour.md §5). Two bounds hold: waiters in all, and waiters on one queue; a full table
refuses, and the caller answers at once that there is nothing, which every client understands.
"""

import heapq
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

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
    gone: bool = field(default=False)


class LongPollingTable(Generic[W]):
    """Held pulls by (topic, queue id), with their deadlines in a heap. Times are seconds of one monotonic clock.

    The pulls of a queue are a set in the order of coming: each leaves without a look at the others.
    """

    def __init__(self, *, waiting_max: int, waiting_per_queue_max: int) -> None:
        self.waiting_max = waiting_max
        self.waiting_per_queue_max = waiting_per_queue_max
        self._queues: dict[tuple[str, int], dict[Waiting[W], None]] = {}
        self._owners: dict[Hashable, set[Waiting[W]]] = {}
        self._deadlines: list[tuple[float, int, Waiting[W]]] = []
        self._serial = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, waiting: Waiting[W]) -> bool:
        """Hold a pull; False when a bound is reached (nothing is held then)."""
        queue = self._queues.setdefault((waiting.topic, waiting.queue_id), {})
        if self._count >= self.waiting_max or len(queue) >= self.waiting_per_queue_max:
            if not queue:
                del self._queues[waiting.topic, waiting.queue_id]
            return False
        queue[waiting] = None
        self._owners.setdefault(waiting.owner, set()).add(waiting)
        self._serial += 1
        heapq.heappush(self._deadlines, (waiting.deadline, self._serial, waiting))
        self._count += 1
        return True

    def has_waiting(self, topic: str, queue_id: int) -> bool:
        """Whether anybody waits for this queue: the cheap question of the send path."""
        return (topic, queue_id) in self._queues

    def wake(self, topic: str, queue_id: int, tag_codes: Iterable[int]) -> list[Waiting[W]]:
        """Take out those who may want one of these new messages (by their tag codes)."""
        queue = self._queues.get((topic, queue_id))
        if queue is None:
            return []
        codes = set(tag_codes)
        woken = [w for w in queue if w.tag_codes is None or not codes.isdisjoint(w.tag_codes)]
        for waiting in woken:
            self._remove(waiting)
        return woken

    def take(self, topic: str, queue_id: int, is_wanted: Callable[[W], bool]) -> list[Waiting[W]]:
        """Take out those of a queue for whose `what` this holds."""
        taken = [waiting for waiting in self._queues.get((topic, queue_id), ()) if is_wanted(waiting.what)]
        for waiting in taken:
            self._remove(waiting)
        return taken

    def expire(self, now: float) -> list[Waiting[W]]:
        """Take out those whose time is over."""
        expired = []
        while self._deadlines and (self._deadlines[0][2].gone or self._deadlines[0][0] <= now):
            waiting = heapq.heappop(self._deadlines)[2]
            if not waiting.gone:
                self._remove(waiting)
                expired.append(waiting)
        return expired

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

    def _remove(self, waiting: Waiting[W]) -> None:
        waiting.gone = True
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
