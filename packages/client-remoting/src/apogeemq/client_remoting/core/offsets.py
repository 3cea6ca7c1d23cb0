"""Where a queue is read from when the group has no offset for it.

What a group committed always counts. Without that, `start` decides, exactly (Apache's clients begin at 0 on a young
topic whatever their setting says, because its broker answers so; ours ask the broker not to).
A queue that appears while the consumer runs is read from its begin whatever `start` says: its messages are all later
than the consumer's start. So is a group's retry topic: what is in it was taken from this group.
"""

from datetime import datetime
from enum import Enum, auto
from typing import Literal, NamedTuple, TypeAlias

Start: TypeAlias = Literal["latest", "earliest"] | datetime
"""`latest`: what is sent from now on; `earliest`: all that is kept; a datetime: what was stored from then on."""


class Boundary(Enum):
    """Which of a queue's offsets to ask the broker for."""

    MIN = auto()
    MAX = auto()
    BY_TIME = auto()


class StartOffset(NamedTuple):
    """What to ask for; `timestamp_ms` counts with BY_TIME only."""

    boundary: Boundary
    timestamp_ms: int = 0


def start_offset(start: Start, *, is_retry_topic: bool, appeared_later: bool) -> StartOffset:
    """What a queue without a committed offset starts at."""
    if is_retry_topic or appeared_later or start == "earliest":
        return StartOffset(Boundary.MIN)
    if isinstance(start, datetime):
        return StartOffset(Boundary.BY_TIME, int(start.timestamp() * 1000))
    return StartOffset(Boundary.MAX)


def check_start(start: Start) -> Start:
    """Raise ValueError for a start that is none; a datetime must have a zone."""
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ValueError("start is a datetime without a zone: give it one, for example datetime.now(UTC)")
    elif start not in ("latest", "earliest"):
        raise ValueError(f"start is {start!r} instead of 'latest', 'earliest' or a datetime with a zone")
    return start
