"""What both producers can do, in the same words."""

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from apogeemq.client_api.message import Message, SendReceipt
from apogeemq.client_api.transactions import Transaction

SEND_TIMEOUT_S: Final = 3.0
"""How long a send may take, retries included, unless told otherwise."""


class Producer(Protocol):
    """Sends messages. Used as `async with`; may be shared by any number of tasks of its event loop."""

    async def __aenter__(self) -> Self:
        """Start. Raises StartFailed when no server answers in time."""
        ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close: sends under way end with ClientClosed."""
        ...

    async def send(self, message: Message, *, timeout_s: float = SEND_TIMEOUT_S) -> SendReceipt:
        """Send one message; the receipt means that the server has stored it as its settings promise.

        A send is tried again elsewhere when the server's answer or a lost connection allows it, within `timeout_s`.
        A retry after a lost connection or a time-out may store a message twice.
        Raises RouteNotFound, SendTimeout, SendFailed, ConnectionBroken, ClientClosed, MessageInvalid.
        """
        ...

    async def send_batch(
        self, messages: Sequence[Message], *, timeout_s: float = SEND_TIMEOUT_S
    ) -> Sequence[SendReceipt]:
        """Send several messages of one topic in one request; they are stored all or none, in one queue.

        The receipts are in the messages' order. Raises as `send`.
        """
        ...

    def transaction(self, message: Message, *, timeout_s: float = SEND_TIMEOUT_S) -> Transaction:
        """A message that is delivered if, and only if, the block of `async with` ends without an error.

        `timeout_s` is for storing the half message, and again for ending the transaction. Needs a checker. Raises
        NotSupported without one, MessageInvalid for a message with a group or a delay.
        """
        ...

    async def recall(self, topic: str, recall_handle: str, *, timeout_s: float = SEND_TIMEOUT_S) -> str:
        """Take back a delayed message that is not delivered yet, by the `recall_handle` of its receipt.

        Gives the message's id. Any producer may do it. Raises RecallFailed, RouteNotFound, SendTimeout,
        ConnectionBroken, ClientClosed, MessageInvalid.
        """
        ...
