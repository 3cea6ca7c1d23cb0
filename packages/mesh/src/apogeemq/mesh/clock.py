"""Time as a port: code that needs the time or waits gets a Clock handed in.

`SystemClock` is the machine's. `ManualClock` stands still until a test moves it, so that a test of a 60 s timeout takes
no time. Importing this module costs nothing beyond asyncio.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

_SETTLE_TURNS = 32  # event loop turns given to woken tasks before manual time moves on


class Clock(Protocol):
    """Wall time, elapsed time and waiting."""

    def now_ms(self) -> int:
        """Wall time in milliseconds since 1970 UTC; may jump when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; 0 or less gives other tasks one turn."""
        ...


class SystemClock:
    """The machine's clock, and the running event loop's sleep."""

    def now_ms(self) -> int:
        """Wall time in milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop's timer."""
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that moves only when told.

    Time is kept in whole nanoseconds, so that a thousand steps of 0.1 s are exactly 100 s.
    """

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._start_ms = start_ms
        self._elapsed_ns = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now_ms(self) -> int:
        """`start_ms` plus what the clock was moved by."""
        return self._start_ms + self._elapsed_ns // 1_000_000

    def monotonic(self) -> float:
        """Seconds that the clock was moved by."""
        return self._elapsed_ns / 1e9

    @property
    def sleepers(self) -> int:
        """How many tasks wait in sleep()."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was moved by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        # At least one step: who waits out the rest of a float deadline would else find it not reached, for ever.
        due_ns = self._elapsed_ns + max(_nanoseconds(seconds), 1)
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (due_ns, next(self._order), future))
        await future

    def advance(self, seconds: float) -> None:
        """Jump ahead and wake everyone due, earliest first; they run when the caller next awaits and see the end time.

        For code that only reads the time, or sleeps once. What sleeps again and again needs run_for().
        """
        target_ns = self._elapsed_ns + _nanoseconds(seconds)
        self._elapsed_ns = target_ns
        while self._wake_next(target_ns) is not None:
            pass

    async def run_for(self, seconds: float) -> None:
        """Move ahead sleeper by sleeper: each wakes at its own time, and runs before the clock moves on."""
        await _settle()
        target_ns = self._elapsed_ns + _nanoseconds(seconds)
        while (due_ns := self._wake_next(target_ns)) is not None:
            self._elapsed_ns = max(self._elapsed_ns, due_ns)
            await _settle()
        self._elapsed_ns = target_ns

    def _wake_next(self, until_ns: int) -> int | None:
        """Wake the earliest live sleeper due by `until_ns`; give its due time, None when there is none."""
        while self._sleepers and self._sleepers[0][0] <= until_ns:
            due_ns, _, future = heapq.heappop(self._sleepers)
            if not future.done():  # a sleeper that was cancelled stays in the heap until its time
                future.set_result(None)
                return due_ns
        return None


def _nanoseconds(seconds: float) -> int:
    if seconds < 0:
        raise ValueError(f"time does not go back: {seconds} s")
    return round(seconds * 1e9)


async def _settle() -> None:
    """Let other tasks run. Asyncio does not tell whether it is idle, hence a fixed number of turns."""
    for _ in range(_SETTLE_TURNS):
        await asyncio.sleep(0)


async def within(clock: Clock, timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` with a deadline on `clock`; raises TimeoutError after `work` has been cancelled and has ended.

    `asyncio.timeout` reads the event loop's time, which a ManualClock does not move.
    """
    working = asyncio.ensure_future(work)
    timer = asyncio.ensure_future(clock.sleep(timeout_s))
    try:
        await asyncio.wait({working, timer}, return_when=asyncio.FIRST_COMPLETED)
        late = not working.done()
    finally:
        timer.cancel()
        working.cancel()
        await asyncio.wait({working})
    if late and working.cancelled():
        raise TimeoutError(f"not done within {timeout_s:g} s")
    return working.result()
