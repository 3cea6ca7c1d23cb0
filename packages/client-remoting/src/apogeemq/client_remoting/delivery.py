"""From pulled messages to handlers: a line of messages that wait, and workers that take from it.

There are as many workers as handlers may run at once, for as long as the consumer lives: no task, timer or queue object
is made per message. What bounds the line is flow control (core/pull_schedule.py).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from apogeemq.client_api.handling import Handler, Reject, Retry, RetryLater, settlement_of
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_api.tracing import Tracing
from apogeemq.client_remoting.claims import Claims
from apogeemq.client_remoting.messages import receipt_of
from apogeemq.client_remoting.settling import Settling
from apogeemq.remoting_codec.bodies import MessageQueue

logger = logging.getLogger(__name__)


HandOver: TypeAlias = Callable[[Iterable[ReceivedMessage]], None]
"""Takes messages that were read, in the order of their offsets."""


class Delivery(Protocol):
    """The way of messages from readers to handlers."""

    @property
    def claims(self) -> Claims:
        """What must be had before a queue is read."""
        ...

    def start(self, lost: Callable[[MessageQueue], None]) -> None:
        """Begin. `lost` is called for a queue that another member may have had meanwhile."""
        ...

    def open(self, queue: MessageQueue) -> HandOver:
        """Where to put a queue's messages."""
        ...

    def put_back(self, messages: Iterable[ReceivedMessage]) -> None:
        """Messages that no broker takes back, to be tried again."""
        ...

    async def finish(self, timeout_s: float) -> None:
        """Begin nothing more; handlers that run on after `timeout_s` are cancelled."""
        ...

    async def leave(self) -> None:
        """Give back what was claimed, the offsets being committed."""
        ...


class ReadyMessages:
    """Messages that nobody handles yet, in the order in which they came."""

    def __init__(self) -> None:
        self._messages: deque[ReceivedMessage] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, messages: Iterable[ReceivedMessage]) -> None:
        """Add messages and wake as many takers. Does nothing once closed."""
        if self._is_closed:
            return
        before = len(self._messages)
        self._messages.extend(messages)
        self._wake(len(self._messages) - before)

    async def take(self) -> ReceivedMessage | None:
        """The next message that is still this consumer's; None when the line is closed."""
        while True:
            while self._messages and not self._is_closed:
                message = self._messages.popleft()
                if receipt_of(message).is_current(message.queue_offset):
                    return message
            if self._is_closed:
                return None
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():  # woken for a message that it cannot take any more
                    self._wake(1)
                raise

    def close(self) -> None:
        """Give nothing out any more; what still waits was not begun and is somebody else's soon."""
        self._is_closed = True
        self._messages.clear()
        self._wake(len(self._waiters))

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1


class HandlerCalls:
    """Runs the handler for one message, inside its span. Whatever it raises concerns its message and nothing else."""

    def __init__(self, handler: Handler, tracing: Tracing) -> None:
        self._handler = handler
        self._tracing = tracing

    async def call(self, message: ReceivedMessage) -> Exception | None:
        """Gives what the handler raised."""
        with self._tracing.process(message) as span:
            try:
                await self._handler(message)
            except (RetryLater, Reject) as word:
                logger.info("message %s from %s: %s: %s", message.message_id, message.topic, type(word).__name__, word)
                return word
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                span.failed(error)
                return _failed(message, RuntimeError("the handler was cancelled by something that it called"))
            except Exception as error:  # noqa: BLE001 — the retry policy decides what becomes of it; it is logged
                span.failed(error)
                return _failed(message, error)
        return None


class Workers:
    """Call the handler for each message, `concurrency` at a time, in any order."""

    def __init__(
        self,
        *,
        ready: ReadyMessages,
        calls: HandlerCalls,
        retry: Retry,
        settler: Settling,
        concurrency: int,
    ) -> None:
        self._ready = ready
        self._calls = calls
        self._retry = retry
        self._settler = settler
        self._concurrency = concurrency
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to take messages."""
        self._tasks = [
            asyncio.create_task(self._work(), name=f"apogeemq worker {number}") for number in range(self._concurrency)
        ]

    async def finish(self, timeout_s: float) -> None:
        """Wait for the handlers that run, the line being closed; those that run on after `timeout_s` are cancelled."""
        if not self._tasks:
            return
        _, running = await asyncio.wait(self._tasks, timeout=timeout_s)
        if running:
            logger.warning("%d handlers did not end within %g s and are cancelled", len(running), timeout_s)
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    async def _work(self) -> None:
        while (message := await self._ready.take()) is not None:
            await self._handle(message)

    async def _handle(self, message: ReceivedMessage) -> None:
        error = await self._calls.call(message)
        await self._settler.settle(message, settlement_of(error, message.delivery_attempt, self._retry))


class ConcurrentDelivery:
    """Messages of all queues in one line, for workers or, without a handler, for an `async for`."""

    def __init__(self, ready: ReadyMessages, workers: Workers | None, claims: Claims) -> None:
        self._ready = ready
        self._workers = workers
        self._claims = claims

    @property
    def claims(self) -> Claims:
        """What must be had before a queue is read."""
        return self._claims

    def start(self, _lost: Callable[[MessageQueue], None]) -> None:
        """Begin to handle messages."""
        if self._workers is not None:
            self._workers.start()

    def open(self, _queue: MessageQueue) -> HandOver:
        """Where to put a queue's messages."""
        return self._ready.put

    def put_back(self, messages: Iterable[ReceivedMessage]) -> None:
        """Messages that no broker takes back, to be tried again."""
        self._ready.put(messages)

    async def finish(self, timeout_s: float) -> None:
        """Begin nothing more, and let the handlers that run end."""
        self._ready.close()
        if self._workers is not None:
            await self._workers.finish(timeout_s)

    async def leave(self) -> None:
        """Nothing was claimed."""


def _failed(message: ReceivedMessage, error: Exception) -> Exception:
    logger.warning(
        "the handler failed on message %s from %s (delivery %d)",
        message.message_id,
        message.topic,
        message.delivery_attempt,
        exc_info=error,
    )
    return error
