"""Seconds and milliseconds ↔ protobuf's Duration and Timestamp, without going through float nanoseconds."""

from google.protobuf import duration_pb2, timestamp_pb2


def duration(seconds: float) -> duration_pb2.Duration:
    """Whole milliseconds: no setting of the API is finer."""
    milliseconds = round(seconds * 1000)
    return duration_pb2.Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def seconds(value: duration_pb2.Duration) -> float:
    """A Duration in seconds."""
    return value.seconds + value.nanos / 1e9


def timestamp(milliseconds: int) -> timestamp_pb2.Timestamp:
    """Milliseconds since 1970 UTC as a Timestamp."""
    return timestamp_pb2.Timestamp(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def milliseconds(value: timestamp_pb2.Timestamp) -> int:
    """A Timestamp in milliseconds since 1970 UTC."""
    return value.seconds * 1000 + value.nanos // 1_000_000
