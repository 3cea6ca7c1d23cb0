"""Many deadlines on one clock, watched by one task: a timer per call would cost more than most calls."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from apogeemq.mesh.clock import Clock

RESOLUTION_S = 0.01
"""How late a deadline may be noticed; never early."""

_SLOTS_PER_S = 100

KeyT = TypeVar("KeyT", bound=Hashable)


class Deadlines(Generic[KeyT]):
    """Calls `on_due(key)` when a key's deadline has passed. Deadlines are seconds of the clock's monotonic time.

    Keys wait in slots of RESOLUTION_S, so that adding and removing one costs a set operation each. An emptied slot
    stays until its time, so there are at most as many as the longest deadline has slots.
    """

    def __init__(self, clock: Clock, on_due: Callable[[KeyT], None]) -> None:
        self._clock = clock
        self._on_due = on_due
        self._slots: dict[int, set[KeyT]] = {}
        self._order: list[int] = []
        self._watching: asyncio.Task[None] | None = None
        self._watched_slot = 0

    def add(self, key: KeyT, deadline: float) -> None:
        """Watch a deadline; needs a running event loop."""
        number = math.ceil(deadline * _SLOTS_PER_S)
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            heapq.heappush(self._order, number)
            self._watch_from(number)
        slot.add(key)

    def remove(self, key: KeyT, deadline: float) -> None:
        """Forget a key that was added with that deadline. Harmless when it has passed."""
        slot = self._slots.get(math.ceil(deadline * _SLOTS_PER_S))
        if slot is not None:
            slot.discard(key)

    def close(self) -> None:
        """Forget all of them."""
        self._slots.clear()
        self._order.clear()
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _watch_from(self, number: int) -> None:
        """See to it that the watching task wakes up for a slot."""
        if self._watching is not None and not self._watching.done():
            if self._watched_slot <= number:
                return
            self._watching.cancel()
        self._watched_slot = number
        # An empty context: the task outlives the call, and its trace, that happened to start it.
        self._watching = asyncio.get_running_loop().create_task(self._watch(), context=contextvars.Context())

    async def _watch(self) -> None:
        while self._order:
            self._watched_slot = self._order[0]
            left_s = self._watched_slot / _SLOTS_PER_S - self._clock.monotonic()
            if left_s > 0:
                await self._clock.sleep(left_s)
                continue
            for key in self._slots.pop(heapq.heappop(self._order)):
                self._on_due(key)
