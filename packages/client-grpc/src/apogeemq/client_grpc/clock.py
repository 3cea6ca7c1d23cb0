"""Time as a port: who needs the time or waits gets a Clock handed in, so that a test of a 30 s wait takes no time."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


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


async def within(clock: Clock, timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` with a deadline on `clock`; raises TimeoutError after `work` has been cancelled and has ended.

    `asyncio.timeout` reads the event loop's time, which a clock made for tests does not move.
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
