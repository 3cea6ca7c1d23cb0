"""Durations and timestamps of the API in milliseconds, and back."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

SECONDS_MAX = 315_576_000_000
"""10,000 years: protobuf's own bound for both types."""


def milliseconds(value: Duration | Timestamp) -> int:
    """The value in whole milliseconds, rounded down; whatever numbers a peer wrote, the sum stays a plain int."""
    return value.seconds * 1000 + value.nanos // 1_000_000


def duration(value_ms: int) -> Duration:
    """A Duration. `value_ms` is not negative."""
    return Duration(seconds=value_ms // 1000, nanos=value_ms % 1000 * 1_000_000)


def timestamp(value_ms: int) -> Timestamp:
    """A Timestamp. `value_ms` counts from 1970 and is not negative."""
    return Timestamp(seconds=value_ms // 1000, nanos=value_ms % 1000 * 1_000_000)
