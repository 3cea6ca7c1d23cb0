"""Small pieces of work that no request waits for: held, bounded, and their failures logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

TASKS_MAX = 10_000

_log = logging.getLogger(__name__)


class Background:
    """Work that goes on after its request was answered."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`. Beyond TASKS_MAX it is dropped: what it would have hastened then takes its usual time."""
        if len(self._tasks) >= TASKS_MAX:
            work.close()
            _log.warning("%d pieces of background work are under way; one more was dropped", TASKS_MAX)
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def close(self) -> None:
        """Cancel what is left and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background work failed", exc_info=error)
