"""How long to wait before the next attempt: the two strategies that a server's settings can name."""

import dataclasses

from apogeemq.client_api.handling import DELAY_LEVELS_S, Backoff, Retry
from apogeemq.client_grpc.core import durations
from apogeemq.proto.v2 import definition_pb2


@dataclasses.dataclass(frozen=True, slots=True)
class ExponentialBackoff:
    """initial_s, then times `multiplier` at each attempt, up to max_s."""

    initial_s: float
    max_s: float
    multiplier: float

    def __call__(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt` failed; 1 = the first. Never negative."""
        steps = min(max(attempt - 1, 0), 64)  # beyond, the power says no more and would overflow in the end
        return max(min(self.initial_s * self.multiplier**steps, self.max_s), 0.0)


@dataclasses.dataclass(frozen=True, slots=True)
class CustomizedBackoff:
    """A table of waiting times, not empty; after its end the last one stays."""

    delays_s: tuple[float, ...]

    def __call__(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt` failed; 1 = the first. Never negative."""
        return max(self.delays_s[min(max(attempt, 1), len(self.delays_s)) - 1], 0.0)


# Until a server's settings arrive, or where they leave a strategy out: what Apache's proxy sends by default.
PRODUCER_RETRY = Retry(3, ExponentialBackoff(initial_s=0.01, max_s=1.0, multiplier=2.0))
CONSUMER_RETRY = Retry(17, CustomizedBackoff(tuple(float(level_s) for level_s in DELAY_LEVELS_S)))


def retry_policy(sent: definition_pb2.RetryPolicy, default: Retry) -> Retry:
    """A server's policy; what it leaves out, or what makes no sense, is the default's."""
    attempts = sent.max_attempts if sent.max_attempts > 0 else default.max_attempts
    return Retry(attempts, _backoff(sent) or default.backoff)


def _backoff(sent: definition_pb2.RetryPolicy) -> Backoff | None:
    strategy = sent.WhichOneof("strategy")
    if strategy == "exponential_backoff":
        exponential = sent.exponential_backoff
        return ExponentialBackoff(
            durations.seconds(exponential.initial),
            durations.seconds(exponential.max),
            max(exponential.multiplier, 1.0),
        )
    if strategy == "customized_backoff" and sent.customized_backoff.next:
        return CustomizedBackoff(tuple(durations.seconds(each) for each in sent.customized_backoff.next))
    return None
