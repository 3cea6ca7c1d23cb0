"""Before a file of the commit log goes, what is live in it is stored anew at the log's end.

Live are delayed messages that were not delivered yet, and messages that are popped and not acknowledged. The store asks
from a thread of its own (`MessageStore.add_roll_forward`); appends belong to the event loop's thread. So the question
is handed over and answered with "not yet" until the work is done; the store asks again every second. Appending works
here even where the disk is so full that sends are refused: it is what lets a file go.

A copy and its original may both be there after a crash: then the message comes twice. The progress that skips the
originals is saved like any other, only after the copies are flushed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from apogeemq.broker.errors import BrokerError
from apogeemq.store.errors import StoreError

log = logging.getLogger(__name__)

Roller = Callable[[int], Awaitable[None]]
"""Stores anew what is live below a physical offset. Raises StoreError, BrokerError; what is done until then counts."""


class RollForward:
    """Answers the store, and has the rollers work one after the other. Needs a running event loop."""

    def __init__(self, rollers: Sequence[Roller]) -> None:
        self._rollers = rollers
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()
        self._wanted_offset = 0
        self._done_offset = 0
        self._is_stopped = False

    def hook(self, physical_offset: int) -> bool:
        """Whether nothing is live below an offset; else the work begins. Called in the store's thread.

        Once that is so it stays so: what becomes live later is written at the log's end.
        """
        if self._done_offset >= physical_offset:
            return True
        if not self._is_stopped:
            # A loop that has closed since refuses. The broker is gone then, and the file simply stays.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ask, physical_offset)
        return False

    def stop(self) -> None:
        """Keep away from the loop: it will end soon."""
        self._is_stopped = True

    async def run(self) -> None:
        """Work when asked, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            wanted_offset = self._wanted_offset
            try:
                for roller in self._rollers:
                    await roller(wanted_offset)
            except (StoreError, BrokerError) as error:
                log.warning("live messages below physical offset %d can't be stored anew yet: %s", wanted_offset, error)
                continue  # the store asks again
            except Exception:  # a bug must not keep every file for ever: the next question gets another try
                log.exception("storing live messages below physical offset %d anew failed", wanted_offset)
                continue
            self._done_offset = wanted_offset

    def _ask(self, physical_offset: int) -> None:
        if physical_offset > self._done_offset:
            self._wanted_offset = max(self._wanted_offset, physical_offset)
            self._asked.set()
