"""Transactions: a message that is delivered if, and only if, something else was done.

```
        begin()                     commit()
 new ────────────▶ pending ─────────────────────▶ delivered
       half message   │  │    rollback()
       is stored      │  └──────────────────────▶ dropped
                      │
                      └─ nobody says: the server asks the checker of a producer of the group, again and again
```
The half message is stored before the local work begins, so that whoever has done the work can no longer fail to send.
What a crash or a lost answer leaves open, the checker closes: it looks at what the local work has left behind (a row in
a database), and may be asked in any process of the group, long after the one that began has gone.

An error out of the `async with` block is no rollback: a database whose commit timed out may have committed. The message
stays pending and the checker tells; who knows better calls `rollback()`. Source: reference broker_behaviour.md §4;
Apache TransactionMQProducer, which takes an exception for UNKNOW as well.
"""

import logging
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeAlias

from apogeemq.client_api.calling import awaitable
from apogeemq.client_api.errors import MessageInvalid, NotSupported, TransactionEnded
from apogeemq.client_api.message import Message, ReceivedMessage, SendReceipt
from apogeemq.client_api.tracing import Tracing

logger = logging.getLogger(__name__)

CHECK_TIMEOUT_S: Final = 30.0
"""A checker that takes longer has not answered: by then Apache's broker is about to ask again."""


class Resolution(Enum):
    """How a transaction ends, or that it is not known yet."""

    COMMIT = auto()
    ROLLBACK = auto()
    UNKNOWN = auto()


Checker: TypeAlias = Callable[[ReceivedMessage], Awaitable[Resolution]]
"""Tells how the transaction of a half message ended. May be called several times, in any process of the group."""

PlainChecker: TypeAlias = Callable[[ReceivedMessage], Resolution]
"""A checker that blocks: it runs in a thread of the event loop's own pool."""


class Half(NamedTuple):
    """A half message that is stored: its receipt, and how to end it."""

    receipt: SendReceipt
    end: Callable[[Resolution], Awaitable[None]]


class Transaction:
    """One message that is sent with something else or not at all; made by `Producer.transaction`.

    As an `async with` it begins on entry, commits on leaving, and is left to the checker on an error out of the block.
    Otherwise call `begin`, and then `commit` or `rollback`. For one task.
    """

    def __init__(self, begin: Callable[[], Awaitable[Half]]) -> None:
        self._begin = begin
        self._half: Half | None = None
        self._outcome: Resolution | None = None

    @property
    def receipt(self) -> SendReceipt:
        """Where the half message lies. Raises TransactionEnded before `begin`."""
        if self._half is None:
            raise TransactionEnded("the transaction has not begun", hint="Use `async with`, or call begin() first.")
        return self._half.receipt

    @property
    def is_pending(self) -> bool:
        """Whether it began and has not been ended by this object."""
        return self._half is not None and self._outcome is None

    async def begin(self) -> SendReceipt:
        """Store the half message. Raises as `Producer.send`, and TransactionEnded when it began before."""
        if self._half is not None:
            raise TransactionEnded("the transaction began before", hint="Make a new one for each message.")
        self._half = await self._begin()
        return self._half.receipt

    async def commit(self) -> None:
        """Have the message delivered.

        Raises TransactionEnded; and EndTransactionFailed, ConnectionBroken or SendTimeout, after which it may be called
        again: the message is not lost, the checker is asked about it otherwise.
        """
        await self._end(Resolution.COMMIT)

    async def rollback(self) -> None:
        """Have the message dropped. Raises as `commit`."""
        await self._end(Resolution.ROLLBACK)

    async def __aenter__(self) -> Self:
        """Begin. Raises as `begin`."""
        await self.begin()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Commit what is pending; leave it to the checker when there was an error."""
        if not self.is_pending:
            return
        if exc is None:
            await self.commit()
        else:
            logger.info(
                "the transaction of message %s is left to the checker, after %s",
                self.receipt.message_id,
                type(exc).__name__,
            )

    async def _end(self, resolution: Resolution) -> None:
        message_id = self.receipt.message_id
        if self._half is None or self._outcome is not None:
            raise TransactionEnded(f"the transaction of message {message_id} has ended before")
        await self._half.end(resolution)
        self._outcome = resolution


class Checks:
    """Asks an application's checker, for one producer; whatever it does, the answer is a resolution.

    Args:
        checker: the application's; None when it has none.
        tracing: the producer's spans.
    """

    def __init__(self, checker: Checker | PlainChecker | None, tracing: Tracing) -> None:
        self._checker: Checker | None = None if checker is None else awaitable(checker)
        self._tracing = tracing

    def require(self, message: Message) -> None:
        """Refuse a transaction that could be left open for ever, or that no server takes.

        Raises NotSupported and MessageInvalid.
        """
        if self._checker is None:
            raise NotSupported(
                "this producer has no checker, so nobody could tell how a transaction ended that was left open",
                hint="Give the producer a checker.",
            )
        if message.message_group is not None:
            raise MessageInvalid("message_group", "cannot be set in a transaction")
        if message.delay_field is not None:
            raise MessageInvalid(message.delay_field, "cannot be set in a transaction")

    async def resolve(self, message: ReceivedMessage) -> Resolution:
        """What the checker says of a half message; UNKNOWN, with a line in the log, where it says nothing of use."""
        if self._checker is None:
            logger.warning(
                "the server asks how the transaction of message %s of topic %s ended: this producer has no checker",
                message.message_id,
                message.topic,
            )
            return Resolution.UNKNOWN
        with self._tracing.check(message) as scope:
            try:
                answer: object = await self._checker(message)
                if not isinstance(answer, Resolution):
                    raise TypeError(f"the checker gave {type(answer).__name__} instead of a Resolution")  # noqa: TRY301 — told like the checker's own errors
            except Exception as error:  # a checker may raise what it likes; it is asked again
                scope.failed(error)
                logger.exception("the checker failed with message %s: it stays pending", message.message_id)
                return Resolution.UNKNOWN
            return answer
