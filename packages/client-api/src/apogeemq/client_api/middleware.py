"""What runs around each send and each handler: logging, metrics, encryption, deduplication.

```python
class Timing(Middleware):
    async def on_process(self, message, proceed):
        started = time.perf_counter()
        try:
            await proceed(message)
        finally:
            observe(time.perf_counter() - started)
```
The first in the list is the outermost. One that does not call `proceed` ends the matter there: a send needs a receipt
of its own then, a received message counts as handled.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

from apogeemq.client_api.handling import Handler
from apogeemq.client_api.message import Message, ReceivedMessage, SendReceipt

Send: TypeAlias = Callable[[Message], Awaitable[SendReceipt]]
"""Sends one message."""


class Middleware(Protocol):
    """Base of middleware: override what is wanted; both pass everything on as they are."""

    async def on_send(self, message: Message, proceed: Send) -> SendReceipt:
        """Around one send; `proceed` takes the same message or another."""
        return await proceed(message)

    async def on_process(self, message: ReceivedMessage, proceed: Handler) -> None:
        """Around one handler call. What is raised settles the message as if the handler had raised it."""
        await proceed(message)


def around_send(middleware: Sequence[Middleware], send: Send) -> Send:
    """`send` with the middleware around it."""
    for one in reversed(middleware):
        send = _send_through(one, send)
    return send


def around_handler(middleware: Sequence[Middleware], handler: Handler) -> Handler:
    """`handler` with the middleware around it."""
    for one in reversed(middleware):
        handler = _process_through(one, handler)
    return handler


def _send_through(middleware: Middleware, proceed: Send) -> Send:
    def send(message: Message) -> Awaitable[SendReceipt]:
        return middleware.on_send(message, proceed)

    return send


def _process_through(middleware: Middleware, proceed: Handler) -> Handler:
    def process(message: ReceivedMessage) -> Awaitable[None]:
        return middleware.on_process(message, proceed)

    return process
