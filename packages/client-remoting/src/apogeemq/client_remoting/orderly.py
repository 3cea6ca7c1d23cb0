"""Messages in order: each queue has a lane, in which one message is handled at a time, under the queue's lock.

    reader ─put─▶ lane: 7 8 9 …  ─▶ handler(7) ─▶ done: next │ failed: wait, handler(7) again │ given up: DLQ, next

A message that fails blocks its own queue only. A queue is given to another member once the handler that runs has
ended and its offset is committed; the other one waits for the lock until then, so order survives every change.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from apogeemq.client_api.errors import ClientClosed, ConnectionBroken, SettleFailed
from apogeemq.client_api.handling import Again, Done, GiveUp, Retry, settlement_of
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_remoting.core.delay_levels import DLQ_LEVEL
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.client_remoting.core.suspension import SUSPEND_DEFAULT_S, suspend_s
from apogeemq.client_remoting.delivery import HandlerCalls, HandOver
from apogeemq.client_remoting.instance import ClientInstance
from apogeemq.client_remoting.locking import Locks
from apogeemq.client_remoting.messages import receipt_of
from apogeemq.client_remoting.offset_store import OffsetStore
from apogeemq.client_remoting.settling import Settling
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.errors import RemoteProtocolError

logger = logging.getLogger(__name__)

LOCK_WAIT_S: Final = 0.1
"""How often a lane whose lock lapsed looks at it again."""


class Lane:
    """The messages of one queue that wait for the handler, in the order of their offsets."""

    def __init__(self, queue: MessageQueue) -> None:
        self.queue = queue
        self.is_stopped = False
        self._messages: deque[ReceivedMessage] = deque()
        self._wish = asyncio.Event()
        self._stop = asyncio.Event()

    def put(self, messages: Iterable[ReceivedMessage]) -> None:
        """Add messages."""
        self._messages.extend(messages)
        self._wish.set()

    def stop(self) -> None:
        """Give nothing out any more, and end every pause."""
        self.is_stopped = True
        self._wish.set()
        self._stop.set()

    async def take(self) -> ReceivedMessage | None:
        """The next message that is still in hand; None once stopped.

        A message that was pulled before its queue was set to another offset is not in hand any more, even where one of
        the same offset is.
        """
        while not self.is_stopped:
            while self._messages:
                message = self._messages.popleft()
                receipt = receipt_of(message)
                entry = receipt.in_hand.in_hand.get(message.queue_offset)
                if entry is not None and entry[1] is message and not receipt.in_hand.is_dropped:
                    return message
            self._wish.clear()
            await self._wish.wait()
        return None

    async def pause(self, seconds: float) -> None:
        """Wait, or until stopped."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass  # the usual case: the time is over


class Lanes:
    """Calls the handler for the messages of every lane.

    Args:
        calls: runs the handler.
        retry: how often a message is tried, and how long its queue waits between two tries.
        settler: tells brokers what became of messages.
        locks: what is not locked is not handled.
        concurrency: handlers at once, of all queues together.
    """

    def __init__(self, *, calls: HandlerCalls, retry: Retry, settler: Settling, locks: Locks, concurrency: int) -> None:
        self._calls = calls
        self._retry = retry
        self._settler = settler
        self._locks = locks
        self._room = asyncio.Semaphore(concurrency)
        self._lanes: dict[MessageQueue, tuple[Lane, asyncio.Task[None]]] = {}

    def open(self, queue: MessageQueue) -> HandOver:
        """Begin with a queue; gives where to put its messages."""
        lane = Lane(queue)
        self._lanes[queue] = lane, asyncio.create_task(self._work(lane), name=f"apogeemq lane {queue}")
        return lane.put

    def put_back(self, messages: Iterable[ReceivedMessage]) -> None:
        """Messages that no broker takes back, to be tried again after those that wait."""
        for message in messages:
            lane, _ = self._lanes.get(receipt_of(message).queue, (None, None))
            if lane is not None:
                lane.put([message])

    async def close(self, queue: MessageQueue) -> None:
        """Begin nothing more of a queue, and wait until the handler that runs has ended."""
        opened = self._lanes.get(queue)
        if opened is None:
            return
        lane, task = opened
        lane.stop()
        await asyncio.wait([task])
        self._lanes.pop(queue, None)

    async def finish(self, timeout_s: float) -> None:
        """Close all lanes; handlers that run on after `timeout_s` are cancelled."""
        for lane, _ in self._lanes.values():
            lane.stop()
        tasks = [task for _, task in self._lanes.values()]
        if not tasks:
            return
        _, running = await asyncio.wait(tasks, timeout=timeout_s)
        if running:
            logger.warning("%d handlers did not end within %g s and are cancelled", len(running), timeout_s)
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    async def _work(self, lane: Lane) -> None:
        while (message := await lane.take()) is not None:
            await self._deliver(lane, message)

    async def _deliver(self, lane: Lane, message: ReceivedMessage) -> None:
        """One message until it is done with, or its queue is not this member's any more."""
        receipt = receipt_of(message)
        while not lane.is_stopped and receipt.is_current(message.queue_offset):
            if not self._locks.is_held(lane.queue):
                await lane.pause(LOCK_WAIT_S)
                continue
            async with self._room:
                if lane.is_stopped or not self._locks.is_held(lane.queue):
                    continue  # it waited long for the room
                error = await self._calls.call(message)
            after_s = await self._settle(message, error)
            if after_s is None:
                return
            await lane.pause(suspend_s(after_s))
            message = replace(message, delivery_attempt=message.delivery_attempt + 1)

    async def _settle(self, message: ReceivedMessage, error: Exception | None) -> float | None:
        """What becomes of a message; gives after how many seconds it is tried again, None when it is done with."""
        match settlement_of(error, message.delivery_attempt, self._retry):
            case Done():
                self._settler.done(message)
                return None
            case Again(after_s):
                return after_s
            case GiveUp(reason):
                return await self._give_up(message, reason)

    async def _give_up(self, message: ReceivedMessage, reason: str) -> float | None:
        """To the DLQ; while no broker takes it there, it is tried on."""
        logger.warning("message %s from %s goes to the DLQ: %s", message.message_id, message.topic, reason)
        try:
            await self._settler.send_back(message, DLQ_LEVEL, reason)
        except (SettleFailed, ConnectionBroken, ClientClosed, RemoteProtocolError) as error:
            logger.warning("message %s stays where it is: %s", message.message_id, error)
            return SUSPEND_DEFAULT_S
        return None


class LockedClaims:
    """Queues are read under their locks, and left in order: handler ended, offset committed, lock given back."""

    def __init__(self, instance: ClientInstance, locks: Locks, lanes: Lanes, offsets: OffsetStore) -> None:
        self._instance = instance
        self._locks = locks
        self._lanes = lanes
        self._offsets = offsets
        self._leaving: dict[MessageQueue, asyncio.Task[None]] = {}

    async def claim(self, queue: MessageQueue) -> bool:
        """Whether the lock is given; not while the queue is being left."""
        return queue not in self._leaving and await self._locks.acquire(queue)

    def is_held(self, queue: MessageQueue) -> bool:
        """Whether the lock counts."""
        return self._locks.is_held(queue)

    async def release(self, queue: MessageQueue, in_hand: ProcessQueue[ReceivedMessage]) -> None:
        """Leave a queue to another member. It may take as long as the handler that runs, so nobody waits for it."""
        self._leave(queue, in_hand, is_ours=True)

    def forsake(self, queue: MessageQueue, in_hand: ProcessQueue[ReceivedMessage]) -> None:
        """Leave a queue whose lock is lost, or which begins elsewhere."""
        self._leave(queue, in_hand, is_ours=False)

    async def finish(self) -> None:
        """Wait for the queues that are being left; the lanes have ended."""
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)

    def _leave(self, queue: MessageQueue, in_hand: ProcessQueue[ReceivedMessage], *, is_ours: bool) -> None:
        in_hand.is_dropped = True
        task = self._instance.run(self._end(queue, in_hand, is_ours=is_ours), f"leave {queue}")
        self._leaving[queue] = task

    async def _end(self, queue: MessageQueue, in_hand: ProcessQueue[ReceivedMessage], *, is_ours: bool) -> None:
        try:
            await self._lanes.close(queue)
            if is_ours:
                await self._offsets.commit(queue, in_hand)
                await self._locks.release([queue])
        finally:
            del self._leaving[queue]


class OrderlyDelivery:
    """Lanes under locks."""

    def __init__(self, instance: ClientInstance, locks: Locks, lanes: Lanes, offsets: OffsetStore) -> None:
        self._instance = instance
        self._locks = locks
        self._lanes = lanes
        self._claims = LockedClaims(instance, locks, lanes, offsets)

    @property
    def claims(self) -> LockedClaims:
        """The locks."""
        return self._claims

    def start(self, lost: Callable[[MessageQueue], None]) -> None:
        """Begin to renew locks."""
        self._instance.run(self._locks.keep(lost), "locks")

    def open(self, queue: MessageQueue) -> HandOver:
        """The queue's lane."""
        return self._lanes.open(queue)

    def put_back(self, messages: Iterable[ReceivedMessage]) -> None:
        """Into their lanes."""
        self._lanes.put_back(messages)

    async def finish(self, timeout_s: float) -> None:
        """End all lanes; queues that are being left are left."""
        await self._lanes.finish(timeout_s)
        await self._claims.finish()

    async def leave(self) -> None:
        """Give the locks back: other members can go on at once."""
        await self._locks.release_all()
