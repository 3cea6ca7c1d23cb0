"""When a queue may be pulled: flow control by count, bytes and span, and the wait after a failure.

The bounds are for the whole consumer and divided among its queues, so that a member that inherits many queues does not
hold more. A pull that was allowed may pass a bound by one answer. Source: Apache pullThresholdForQueue,
pullThresholdSizeForQueue and consumeConcurrentlyMaxSpan, there for each queue.
"""

from dataclasses import dataclass
from typing import Final, TypeVar

from apogeemq.client_remoting.core.process_queue import ProcessQueue

PULL_BATCH_SIZE: Final = 32
"""Messages asked for at once; brokers give no more."""

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """What a consumer may have in hand.

    `messages_max`, `bytes_max`: of all queues together. `span_max`: between the oldest message in hand and the end of
    what was pulled, in one queue: one stuck message does not let the rest run away from it.
    """

    messages_max: int = 4096
    bytes_max: int = 64 * 1024 * 1024
    span_max: int = 2000

    def __post_init__(self) -> None:
        """Refuse bounds under which nothing could be pulled."""
        if self.messages_max < 1 or self.bytes_max < 1 or self.span_max < 1:
            raise ValueError("messages_max, bytes_max and span_max must be 1 or more")


def may_pull(queue: ProcessQueue[T], queue_count: int, limits: FlowLimits) -> bool:
    """Whether one of `queue_count` queues has room for another answer."""
    return (
        len(queue) < max(limits.messages_max // queue_count, 1)
        and queue.size_bytes < max(limits.bytes_max // queue_count, 1)
        and queue.span < limits.span_max
    )


def backoff_s(failures: int, chance: float) -> float:
    """Seconds to wait after the n-th failure in a row (from 1); `chance` in [0, 1) spreads clients by up to half."""
    wait_s = min(BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16), BACKOFF_MAX_S)
    return wait_s * (0.5 + chance / 2)
