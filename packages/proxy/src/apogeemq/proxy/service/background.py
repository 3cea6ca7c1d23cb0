"""Small pieces of work that no request waits for: held, bounded, and their failures logged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from apogeemq.mesh.clock import Clock, within

TASKS_MAX = 10_000
CLOSE_TIMEOUT_S = 2.0

_log = logging.getLogger(__name__)


class Background:
    """Work that goes on after its request was answered."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_dropping = False

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`. Beyond TASKS_MAX it is dropped: what it would have hastened then takes its usual time."""
        if len(self._tasks) >= TASKS_MAX:
            work.close()
            if not self._is_dropping:  # once for each time that it becomes too much: clients bring work about
                self._is_dropping = True
                _log.warning("%d pieces of background work are under way; what comes more is dropped", TASKS_MAX)
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def close(self, clock: Clock) -> None:
        """Give what is left CLOSE_TIMEOUT_S to end, then cancel it: what goes back to a broker should still arrive."""
        tasks = list(self._tasks)
        if not tasks:
            return
        with contextlib.suppress(TimeoutError):
            await within(clock, CLOSE_TIMEOUT_S, _ended(tasks))
        for task in tasks:
            task.cancel()
        await _ended(tasks)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if len(self._tasks) <= TASKS_MAX // 2:
            self._is_dropping = False
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background work failed", exc_info=error)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    """Wait for all; how they ended was noted by each one's callback."""
    await asyncio.wait(tasks)
