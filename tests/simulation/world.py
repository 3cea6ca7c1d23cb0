"""Virtual time: what happens next, in an order that a seed decides; and the trace of it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable


class InvariantBrokenError(AssertionError):
    """Something happened that must never happen."""


class World:
    """A clock that jumps from event to event, chance from one seed, and a trace that a person can read."""

    def __init__(self, seed: int) -> None:
        self.now_ms = 0
        self.chance = random.Random(seed)
        self.trace: list[str] = []
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay_ms: int, happens: Callable[[], None]) -> None:
        """Let something happen later; those of one moment happen in the order of these calls."""
        self._count += 1
        heapq.heappush(self._events, (self.now_ms + max(0, delay_ms), self._count, happens))

    def run_until(self, end_ms: int) -> None:
        """Let everything happen up to then."""
        while self._events and self._events[0][0] <= end_ms:
            self.now_ms, _, happens = heapq.heappop(self._events)
            happens()
        self.now_ms = end_ms

    def note(self, who: str, text: str) -> None:
        """A line of the trace."""
        self.trace.append(f"{self.now_ms:>7} ms  {who:<4} {text}")


class Process:
    """Something that runs on a machine: it dies, is started anew, freezes, and has a clock of its own.

    Its clock never goes back, but may stand elsewhere than others' and jump ahead, as after a suspend. A frozen process
    does nothing, and then all that came meanwhile in a moment.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.life = 0
        self.is_up = False
        self.is_frozen = False
        self._missed: list[Callable[[], None]] = []
        self._clock_ahead_ms = world.chance.randrange(0, 100_000)

    @property
    def now_ms(self) -> int:
        """This process's own clock."""
        return self.world.now_ms + self._clock_ahead_ms

    def step_clock(self, ahead_ms: int) -> None:
        """Let its clock jump."""
        self._clock_ahead_ms += ahead_ms

    def note(self, text: str) -> None:
        """A line of the trace."""
        self.world.note(self.name, text)

    def run(self, happens: Callable[[], None]) -> Callable[[], None]:
        """The same, but only in this life; later if the process is frozen."""
        life = self.life

        def guarded() -> None:
            if not self.is_up or self.life != life:
                return
            if self.is_frozen:
                self._missed.append(guarded)
            else:
                happens()

        return guarded

    def every(self, interval_ms: int, happens: Callable[[], None]) -> None:
        """Again and again, in this life."""

        def again() -> None:
            happens()
            self.world.after(interval_ms, self.run(again))

        self.world.after(self.world.chance.randrange(interval_ms), self.run(again))

    def start(self) -> None:
        """Begin a life."""
        raise AssertionError("a process without a program")

    def start_if_down(self) -> None:
        """Unless somebody else was quicker."""
        if not self.is_up:
            self.start()

    def freeze(self) -> None:
        """Stop it where it is."""
        self.is_frozen = True

    def thaw(self) -> None:
        """Let it go on."""
        self.is_frozen = False
        missed, self._missed = self._missed, []
        for happens in missed:
            happens()

    def begin_life(self) -> None:
        """It is started."""
        self.life += 1
        self.is_up, self.is_frozen, self._missed = True, False, []

    def end_life(self) -> None:
        """It is killed."""
        self.is_up = False
