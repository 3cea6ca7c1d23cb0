"""What becomes of a message after its handler ran: done, again later, or given up.

A handler that returns is done with its message. One that raises gets it again, as the `Retry` policy says, or says so
itself by `RetryLater` and `Reject`. Both clients decide by `settlement_of`; how a decision reaches a server is theirs.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from apogeemq.client_api.calling import awaitable
from apogeemq.client_api.errors import PayloadInvalid
from apogeemq.client_api.message import ReceivedMessage

Handler: TypeAlias = Callable[[ReceivedMessage], Awaitable[None]]
"""Called for each message, several at a time."""

PlainHandler: TypeAlias = Callable[[ReceivedMessage], None]
"""A handler that blocks: it runs in a thread of the event loop's own pool."""

Backoff: TypeAlias = Callable[[int], float]
"""Seconds to wait after the n-th delivery failed, n counted from 1."""

MAX_ATTEMPTS_DEFAULT: Final = 17
"""The first delivery and RocketMQ's 16 retries."""

DELAY_LEVELS_S: Final[tuple[int, ...]] = (
    *(1, 5, 10, 30),
    *(60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800),
    *(3600, 7200),
)
"""RocketMQ's delay levels 1 to 18 in seconds, as brokers have them unless configured otherwise."""


class RetryLater(Exception):  # noqa: N818 — a handler's word to its consumer, not an error
    """Raised by a handler: deliver this message again, not before `after_s` seconds."""

    def __init__(self, after_s: float) -> None:
        if not after_s >= 0:
            raise ValueError(f"after_s is {after_s}; it must be 0 or more seconds")
        super().__init__(f"to be delivered again after {after_s} s")
        self.after_s = after_s


class Reject(Exception):  # noqa: N818 — a handler's word to its consumer, not an error
    """Raised by a handler: no further attempt can help; the message goes to the group's DLQ."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def exponential(*, first_s: float = 1.0, factor: float = 2.0, max_s: float = 7200.0) -> Backoff:
    """`first_s` after the first failure, then `factor` times more each, never above `max_s`."""
    if first_s < 0 or factor < 1 or max_s < first_s:
        raise ValueError("a back-off needs first_s >= 0, factor >= 1 and max_s >= first_s")

    def delay_s(attempt: int) -> float:
        # The exponent has a bound too: a float overflows beyond some hundreds.
        return min(first_s * factor ** min(attempt - 1, 64), max_s)

    return delay_s


def rocketmq_levels(attempt: int) -> float:
    """RocketMQ's own: 10 s after the first failure (delay level 3), then level by level up to 2 h."""
    return float(DELAY_LEVELS_S[min(attempt + 1, len(DELAY_LEVELS_S) - 1)])


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed message is delivered again.

    Args:
        max_attempts: deliveries in all, 1 or more; the last failure moves the message to the DLQ.
        backoff: seconds until the next delivery, from the number of the one that failed.
        on: what is worth another attempt; anything else moves the message to the DLQ at once.
    """

    max_attempts: int = MAX_ATTEMPTS_DEFAULT
    backoff: Backoff = field(default=rocketmq_levels)
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        """Refuse a policy under which nothing would ever be delivered."""
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts is {self.max_attempts}; the first delivery counts, so it must be 1 or more")


@dataclass(frozen=True, slots=True)
class Done:
    """The message is dealt with."""


@dataclass(frozen=True, slots=True)
class Again:
    """Deliver it again after `after_s` seconds."""

    after_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Move it to the DLQ."""

    reason: str


Settlement: TypeAlias = Done | Again | GiveUp


def settlement_of(error: Exception | None, attempt: int, retry: Retry) -> Settlement:
    """What becomes of a message whose `attempt`-th delivery (from 1) ended with `error`; None: it was handled.

    `Reject` and a body that cannot be read are given up at once, everything else after `retry.max_attempts`.
    """
    match error:
        case None:
            return Done()
        case Reject():
            return GiveUp(error.reason)
        case PayloadInvalid():
            return GiveUp(error.text)
        case _ if attempt >= retry.max_attempts:
            return GiveUp(f"delivered {attempt} times; the last failure was {type(error).__name__}")
        case RetryLater():
            return Again(error.after_s)
        case _ if isinstance(error, retry.on):
            return Again(retry.backoff(attempt))
        case _:
            return GiveUp(f"{type(error).__name__} is not worth another attempt by the retry policy")


def as_handler(handler: Handler | PlainHandler) -> Handler:
    """The same handler, awaitable: one that is no coroutine function runs in a thread of the event loop's pool."""
    return awaitable(handler)
