"""How long a queue that is read in order stands still after its message failed, until the message is tried again.

Source: Apache ConsumeMessageOrderlyService.submitConsumeRequestLater (1 s unless said otherwise, 10 ms to 30 s).
"""

from typing import Final

from apogeemq.client_api.handling import Retry, rocketmq_levels

SUSPEND_DEFAULT_S: Final = 1.0
SUSPEND_MIN_S: Final = 0.01
SUSPEND_MAX_S: Final = 30.0

ATTEMPTS_MAX: Final = 2**31 - 1
"""RocketMQ's own number for queues in order: a message that fails blocks its queue until it is handled."""


def orderly_retry(wanted: Retry | None) -> Retry:
    """The policy for tries in place: without one, a second between tries, for ever.

    Delay levels, a policy's back-off unless it names another, are for messages that go back: in place it is a second.
    """
    if wanted is None:
        return Retry(max_attempts=ATTEMPTS_MAX, backoff=_default_s)
    if wanted.backoff is rocketmq_levels:
        return Retry(max_attempts=wanted.max_attempts, backoff=_default_s, on=wanted.on)
    return wanted


def suspend_s(wanted_s: float) -> float:
    """The wanted time inside the bounds."""
    return min(max(wanted_s, SUSPEND_MIN_S), SUSPEND_MAX_S)


def _default_s(_attempt: int) -> float:
    return SUSPEND_DEFAULT_S
