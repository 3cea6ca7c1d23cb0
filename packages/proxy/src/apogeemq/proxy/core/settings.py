"""What a client is told to do: its own settings, merged with ours.

A producer sends at most three times and waits 10 ms, then twice as long, up to 1 s. A consumer gets its group's retry
policy: one attempt more than the group's retries, the delays of the group's table. A consumer whose answer lacks a
back-off strategy throws, so that one is always set.
Source: reference grpc_v2.md §4, broker_behaviour.md §2 (Apache GrpcClientSettingsManager, CustomizedRetryPolicy).
"""

from __future__ import annotations

from dataclasses import dataclass

from apogeemq.proto.v2.definition_pb2 import (
    CustomizedBackoff,
    ExponentialBackoff,
    RetryPolicy,
    Settings,
)
from apogeemq.proxy.core.durations import duration
from apogeemq.proxy.core.limits import Limits

PRODUCER_ATTEMPTS_MAX = 3
PRODUCER_BACKOFF_INITIAL_MS = 10
PRODUCER_BACKOFF_MS_MAX = 1000
PRODUCER_BACKOFF_MULTIPLIER = 2.0

RETRY_MAX_TIMES_DEFAULT = 16
RETRY_DELAYS_MS = tuple(
    seconds * 1000
    for seconds in (1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200)
)
"""The table of a group without a policy of its own: messageDelayLevel, 1 s to 2 h."""
_SKIPPED_DELAYS = 2
"""The first retry waits for the third delay: index = reconsume times + 2."""
REQUEST_TIMEOUT_MS_DEFAULT = 3_000


SIZE_BYTES_PER_TOPIC = 512
"""What a topic or subscription takes in memory beside its text: three small messages."""


def kept_size_bytes(settings: Settings) -> int:
    """About what settings take in memory for as long as they are kept."""
    topics = len(settings.publishing.topics) + len(settings.subscription.subscriptions)
    return settings.ByteSize() + topics * SIZE_BYTES_PER_TOPIC


@dataclass(frozen=True, slots=True)
class GroupPolicy:
    """What a consumer group's configuration means for its clients."""

    is_fifo: bool = False
    retry_max_times: int = RETRY_MAX_TIMES_DEFAULT


def producer_settings(settings: Settings, limits: Limits) -> Settings:
    """A producer's settings as they are sent back."""
    merged = Settings()
    merged.CopyFrom(settings)
    merged.backoff_policy.CopyFrom(
        RetryPolicy(
            max_attempts=PRODUCER_ATTEMPTS_MAX,
            exponential_backoff=ExponentialBackoff(
                initial=duration(PRODUCER_BACKOFF_INITIAL_MS),
                max=duration(PRODUCER_BACKOFF_MS_MAX),
                multiplier=PRODUCER_BACKOFF_MULTIPLIER,
            ),
        )
    )
    merged.publishing.max_body_size = limits.body_size_bytes_max
    merged.publishing.validate_message_type = True
    merged.metric.on = False
    return merged


def consumer_settings(settings: Settings, policy: GroupPolicy, limits: Limits) -> Settings:
    """A consumer's settings as they are sent back."""
    merged = Settings()
    merged.CopyFrom(settings)
    merged.backoff_policy.CopyFrom(
        RetryPolicy(
            max_attempts=policy.retry_max_times + 1,
            customized_backoff=CustomizedBackoff(next=[duration(delay_ms) for delay_ms in RETRY_DELAYS_MS]),
        )
    )
    merged.subscription.fifo = policy.is_fifo
    merged.subscription.receive_batch_size = limits.receive_batch_size_max
    merged.subscription.long_polling_timeout.CopyFrom(duration(limits.polling_time_ms_max))
    merged.metric.on = False
    return merged


def retry_delay_ms(reconsume_times: int) -> int:
    """How long a message that failed `reconsume_times` times before waits until it is handed out again."""
    index = min(max(reconsume_times, 0) + _SKIPPED_DELAYS, len(RETRY_DELAYS_MS) - 1)
    return RETRY_DELAYS_MS[index]
