"""What both consumers can do, in the same words.

A push consumer is constructed as `PushConsumer(address, group=…, subscriptions={"T": "a || b", "U": Sql("a > 5")},
handler=…)` and used in one of two ways:

```python
async with PushConsumer(..., handler=handle):        # handle(message) is called, several at a time
    await stop.wait()

async with PushConsumer(...) as consumer:            # or the messages come one by one
    async for message in consumer:
        ...
```
"""

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from apogeemq.client_api.message import ReceivedMessage


class PushConsumer(Protocol):
    """Messages come by themselves and are settled by what the handler does, or explicitly in an `async for`."""

    async def __aenter__(self) -> Self:
        """Start. Raises StartFailed when no server answers in time."""
        ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close: stop fetching, let handlers end (until a deadline), settle what is done, say good-bye."""
        ...

    def __aiter__(self) -> AsyncIterator[ReceivedMessage]:
        """Messages one by one, for a consumer without a handler.

        Asking for the next one acknowledges the one before unless it was settled otherwise. Leaving the loop early
        leaves the last message unsettled: it is delivered again.
        """
        ...

    async def ack(self, message: ReceivedMessage) -> None:
        """The message is dealt with. Raises SettleFailed, ConnectionBroken, ClientClosed."""
        ...

    async def retry_later(self, message: ReceivedMessage, after_s: float) -> None:
        """Deliver the message again after `after_s` seconds. Raises as `ack`."""
        ...


class SimpleConsumer(Protocol):
    """The application asks for messages and settles each."""

    async def __aenter__(self) -> Self:
        """Start. Raises StartFailed when no server answers in time."""
        ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close: receives under way end with ClientClosed; messages not settled are delivered again."""
        ...

    async def receive(self, max_messages: int, *, invisible_s: float, await_s: float) -> Sequence[ReceivedMessage]:
        """Up to `max_messages`; none when none came within `await_s`.

        They are this consumer's for `invisible_s` seconds; what is not settled by then is delivered again.
        Raises ReceiveFailed, ConnectionBroken, ClientClosed.
        """
        ...

    async def ack(self, message: ReceivedMessage) -> None:
        """The message is dealt with. Raises SettleFailed, ConnectionBroken, ClientClosed."""
        ...

    async def change_invisible(self, message: ReceivedMessage, invisible_s: float) -> ReceivedMessage:
        """Keep (or give back) the message: it becomes visible `invisible_s` seconds from now.

        The message given back replaces the old one, whose receipt is void. Raises as `ack`.
        """
        ...
