"""Locks of queues at their brokers: asked for before a queue is read in order, renewed every 20 s, given back.

Only a master gives locks, and keeps them in memory: after its restart they are asked for anew like everything else.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

from apogeemq.client_remoting import link
from apogeemq.client_remoting.core.queue_locks import RENEW_INTERVAL_S, QueueLocks
from apogeemq.client_remoting.instance import ClientInstance
from apogeemq.remoting_codec.bodies import MessageQueue

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_S: Final = 3.0


class Locks:
    """The locks of one group's member."""

    def __init__(self, instance: ClientInstance, group: str) -> None:
        self._instance = instance
        self._group = group
        self._table = QueueLocks()

    def is_held(self, queue: MessageQueue) -> bool:
        """Whether nobody else can have the queue now."""
        return self._table.is_held(queue, asyncio.get_running_loop().time())

    async def acquire(self, queue: MessageQueue) -> bool:
        """Ask for a lock; gives whether this member has it."""
        asked = asyncio.get_running_loop().time()
        try:
            given = await self._ask([queue])
        except link.UNANSWERED as error:
            logger.info("the lock of %s cannot be asked for yet: %s", queue, error)
            return False
        if queue in given:
            self._table.given(queue, asked)
        return queue in given

    async def renew(self, lost: Callable[[MessageQueue], None]) -> None:
        """Ask again for every lock. `lost` is called for queues that another member may have had meanwhile: a broker
        says that somebody else has the lock, or gives it after it lapsed.
        """
        await asyncio.gather(*(self._renew(queues, lost) for queues in _by_broker(self._table.queues)))

    async def keep(self, lost: Callable[[MessageQueue], None]) -> None:
        """Renew every 20 s, until cancelled."""
        while True:
            await asyncio.sleep(RENEW_INTERVAL_S)
            await self.renew(lost)

    async def release(self, queues: Iterable[MessageQueue]) -> None:
        """Give locks back. Where a broker does not hear of it, they lapse there."""
        held = [queue for queue in queues if queue in self._table]
        for queue in held:
            self._table.forget(queue)
        await asyncio.gather(*(self._release(together) for together in _by_broker(held)))

    async def release_all(self) -> None:
        """Give all locks back."""
        await self.release(self._table.queues)

    async def _renew(self, queues: list[MessageQueue], lost: Callable[[MessageQueue], None]) -> None:
        """One broker's locks. Without an answer they stay as they are, and lapse."""
        asked = asyncio.get_running_loop().time()
        try:
            given = await self._ask(queues)
        except link.UNANSWERED as error:
            logger.info("the locks at broker %s are not renewed: %s", queues[0].broker_name, error)
            return
        for queue in queues:
            if queue not in self._table:
                continue  # given back while this was asked
            had_lapsed = not self._table.is_held(queue, asked)
            if queue in given:
                self._table.given(queue, asked)
            else:
                self._table.forget(queue)
            if had_lapsed or queue not in given:
                logger.warning("the lock of %s was lost; the queue is taken up anew", queue)
                lost(queue)

    async def _release(self, queues: list[MessageQueue]) -> None:
        try:
            master = self._instance.master(queues[0])
            await link.unlock_queues(master, self._group, self._instance.client_id, queues, LOCK_TIMEOUT_S)
        except link.UNANSWERED as error:
            logger.info("the locks at broker %s are not given back, they lapse: %s", queues[0].broker_name, error)

    async def _ask(self, queues: list[MessageQueue]) -> Collection[MessageQueue]:
        """Ask the broker of these queues for their locks; gives those that this member has."""
        master = self._instance.master(queues[0])
        return await link.lock_queues(master, self._group, self._instance.client_id, queues, LOCK_TIMEOUT_S)


def _by_broker(queues: Iterable[MessageQueue]) -> list[list[MessageQueue]]:
    together: dict[str, list[MessageQueue]] = {}
    for queue in queues:
        together.setdefault(queue.broker_name, []).append(queue)
    return list(together.values())
