"""Reads that may wait for the disk: done in threads, a bounded number at a time, whichever door asks for them."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from apogeemq.broker.errors import SystemBusy

T = TypeVar("T")


class ColdReads:
    """Runs reads. `running_max` may run or wait for a thread; one more is refused with SystemBusy."""

    def __init__(self, *, running_max: int) -> None:
        self.running_max = running_max
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, read: Callable[[], T]) -> "asyncio.Task[T]":
        """Run `read` in a thread. Its place is free again before the first callback of the task is called."""
        if len(self._running) >= self.running_max:
            raise SystemBusy(
                f"[OVERLOAD] {len(self._running)} reads of old messages wait for the disk, "
                f"the limit (limits.cold_reads_max) is {self.running_max}",
                limit="limits.cold_reads_max",
            )
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(read))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def read(self, read: Callable[[], T]) -> T:
        """Run `read` in a thread. Who stops waiting does not stop the thread: it counts until it is done."""
        return await asyncio.shield(self.start(read))

    async def stop(self) -> None:
        """Let what runs come to its end."""
        if self._running:
            await asyncio.wait(self._running)
