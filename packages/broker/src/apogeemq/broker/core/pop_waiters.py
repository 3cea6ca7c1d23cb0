"""Who waits for something to pop.

Waiters that would pop the same (topic, group, queue, filter) stand in one line: a message wakes the line, and its head
is served until nothing is left. Each comes out once: served, late, or forgotten since its asker is gone. Bounded in all
and per (topic, group, queue).
"""

import heapq
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

W = TypeVar("W")


@dataclass(slots=True, frozen=True)
class Line:
    """What is waited for. `queue_id` -1 means any queue; `tag_codes` None wants every message."""

    topic: str
    group: str
    queue_id: int
    tag_codes: frozenset[int] | None


@dataclass(slots=True, eq=False)
class PopWaiter(Generic[W]):
    """One that waits, until `deadline` (monotonic seconds). `also` are further topics whose messages wake it."""

    line: Line
    also: Sequence[str]
    deadline: float
    owner: Hashable
    what: W
    waits: bool = False


class PopWaiterTable(Generic[W]):
    """Lines of waiters, with their deadlines in a heap."""

    def __init__(self, *, waiting_max: int, waiting_per_key_max: int) -> None:
        self.waiting_max = waiting_max
        self.waiting_per_key_max = waiting_per_key_max
        self._lines: dict[Line, dict[PopWaiter[W], None]] = {}
        self._woken_by: dict[str, dict[Line, None]] = {}
        self._keys: Counter[tuple[str, str, int]] = Counter()
        self._owners: dict[Hashable, dict[PopWaiter[W], None]] = {}
        self._deadlines: list[tuple[float, int, PopWaiter[W]]] = []
        self._serial = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def count_of(self, topic: str, group: str, queue_id: int) -> int:
        """How many wait under one (topic, group, queue)."""
        return self._keys[topic, group, queue_id]

    def add(self, waiter: PopWaiter[W]) -> bool:
        """Let one wait at the end of its line; False when a bound is reached, and it does not wait."""
        line = waiter.line
        key = line.topic, line.group, line.queue_id
        if self._count >= self.waiting_max or self._keys[key] >= self.waiting_per_key_max:
            return False
        waiter.waits = True
        self._lines.setdefault(line, {})[waiter] = None
        for topic in (line.topic, *waiter.also):
            self._woken_by.setdefault(topic, {})[line] = None
        self._keys[key] += 1
        self._owners.setdefault(waiter.owner, {})[waiter] = None
        self._serial += 1
        heapq.heappush(self._deadlines, (waiter.deadline, self._serial, waiter))
        self._count += 1
        return True

    def woken_by(self, topic: str, queue_id: int, tags_code: int) -> list[Line]:
        """The lines that a message wakes: cheap where nobody waits for its topic."""
        lines = self._woken_by.get(topic)
        if lines is None:
            return []
        return [
            line
            for line in lines
            if line.topic != topic  # a retry topic: one queue, no filter
            or (line.queue_id in (-1, queue_id) and (line.tag_codes is None or tags_code in line.tag_codes))
        ]

    def lines_of(self, topic: str) -> list[Line]:
        """All lines that a message of a topic may wake."""
        return list(self._woken_by.get(topic, ()))

    def first(self, line: Line) -> PopWaiter[W] | None:
        """The head of a line."""
        waiters = self._lines.get(line)
        return None if waiters is None else next(iter(waiters))

    def remove(self, waiter: PopWaiter[W]) -> bool:
        """Let one go; False when it does not wait (any more)."""
        if not waiter.waits:
            return False
        waiter.waits = False
        line = waiter.line
        waiters = self._lines[line]
        del waiters[waiter]
        if not waiters:
            self._remove_line(line, waiter.also)
        key = line.topic, line.group, line.queue_id
        self._keys[key] -= 1
        if not self._keys[key]:
            del self._keys[key]
        owned = self._owners[waiter.owner]
        del owned[waiter]
        if not owned:
            del self._owners[waiter.owner]
        self._count -= 1
        # Busy queues hold and wake thousands of times within one deadline: entries that are gone must not pile up.
        if len(self._deadlines) > 64 and len(self._deadlines) > 4 * self._count:
            self._deadlines = [entry for entry in self._deadlines if entry[2].waits]
            heapq.heapify(self._deadlines)
        return True

    def expire(self, now: float) -> list[PopWaiter[W]]:
        """Take out those whose time is over."""
        expired = []
        while self._deadlines and (not self._deadlines[0][2].waits or self._deadlines[0][0] <= now):
            waiter = heapq.heappop(self._deadlines)[2]
            if self.remove(waiter):
                expired.append(waiter)
        return expired

    def drop_owner(self, owner: Hashable) -> int:
        """Forget all that an owner waits for; gives how many."""
        return sum(self.remove(waiter) for waiter in list(self._owners.get(owner, ())))

    def drain(self) -> list[PopWaiter[W]]:
        """Take out everybody."""
        everybody = [waiter for waiters in self._lines.values() for waiter in waiters]
        for waiter in everybody:
            self.remove(waiter)
        return everybody

    def _remove_line(self, line: Line, also: Sequence[str]) -> None:
        del self._lines[line]
        for topic in (line.topic, *also):
            lines = self._woken_by[topic]
            lines.pop(line, None)
            if not lines:
                del self._woken_by[topic]
