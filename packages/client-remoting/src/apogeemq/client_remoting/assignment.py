"""Queues that the application names itself: read them, whoever else does.

Looked at when they are named, when one was reset, and every second while a broker cannot be asked where to begin.
"""

import asyncio
from typing import Final

from apogeemq.client_remoting.core.subscription import Subscription
from apogeemq.client_remoting.reading import ReadQueues
from apogeemq.remoting_codec.bodies import MessageQueue

INTERVAL_S: Final = 20.0
SOON_S: Final = 1.0


class Assignment:
    """Keeps the queues that are read as the application names them."""

    def __init__(self, reading: ReadQueues) -> None:
        self._reading = reading
        self._wanted: dict[MessageQueue, Subscription] = {}

    @property
    def queues(self) -> list[MessageQueue]:
        """What was named last."""
        return list(self._wanted)

    async def name(self, wanted: dict[MessageQueue, Subscription]) -> None:
        """Read these queues and no others, from now on."""
        self._wanted = wanted
        if not await self._round():
            self._reading.wish.set()  # `run` sleeps long where all was well before

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self._reading.wish.clear()
            is_settled = await self._round()
            try:
                async with asyncio.timeout(INTERVAL_S if is_settled else SOON_S):
                    await self._reading.wish.wait()
            except TimeoutError:
                pass  # the usual case: nothing has changed

    async def _round(self) -> bool:
        """Let go and take up; gives whether every wanted queue is read."""
        reading = self._reading
        async with reading.changing:
            for queue in [queue for queue in reading.queues if queue not in self._wanted]:
                await reading.let_go(queue)
            taken = [
                await reading.take_up(queue, subscription, appeared_later=False)
                for queue, subscription in self._wanted.items()
                if queue not in reading
            ]
        return all(taken)
