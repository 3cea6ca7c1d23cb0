"""Sleeping between two rounds of work, woken sooner by what came in between."""

import asyncio

from apogeemq.mesh.clock import Clock, within


class WakeableSleep:
    """The sleep of a service that looks at everything once more when it is woken; one sleeper at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is something new: whoever sleeps wakes up now, and who works now does not sleep after it."""
        self._woken.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep so long, or until woken."""
        try:
            await within(self._clock, seconds, self._wait_for_word())
        except TimeoutError:
            return

    async def _wait_for_word(self) -> None:
        await self._woken.wait()
        self._woken.clear()


class DueSleep:
    """The sleep of a service that knows when the next thing is due, and asks for that before each sleep."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sleep = WakeableSleep(clock)
        self._until_ms: int | None = None

    def planned(self, due_ms: int) -> None:
        """Something new is due at a time (milliseconds since 1970): whoever sleeps past it wakes up now."""
        if self._until_ms is not None and due_ms < self._until_ms:
            self._sleep.wake()

    async def sleep(self, wait_ms: int) -> None:
        """Sleep for so many milliseconds from now on, or until something is planned before then."""
        self._until_ms = self._clock.now_ms() + wait_ms
        try:
            await self._sleep.sleep(wait_ms / 1000)
        finally:
            self._until_ms = None
