"""Sleeping until something is due, woken sooner by what is due sooner."""

import asyncio

from apogeemq.mesh.clock import Clock, within


class DueSleep:
    """The sleep of a service that works when things are due; one sleeper at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_ms: int | None = None
        self._woken = asyncio.Event()

    def planned(self, due_ms: int) -> None:
        """Something new is due at a time (milliseconds since 1970): whoever sleeps past it wakes up now."""
        if self._until_ms is not None and due_ms < self._until_ms:
            self._woken.set()

    async def sleep(self, wait_ms: int) -> None:
        """Sleep for so many milliseconds from now on, or until something is planned before then."""
        self._until_ms = self._clock.now_ms() + wait_ms
        try:
            await within(self._clock, wait_ms / 1000, self._wait_for_word())
        except TimeoutError:
            return
        finally:
            self._until_ms = None
            self._woken.clear()

    async def _wait_for_word(self) -> None:
        await self._woken.wait()
