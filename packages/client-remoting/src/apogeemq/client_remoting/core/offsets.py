"""Where a queue is read from when the group has no offset for it.

What a group committed always counts. Without that, `start` decides, exactly (Apache's clients begin at 0 on a young
topic whatever their setting says, because its broker answers so; ours ask the broker not to).
A queue that appears while the consumer runs is read from its begin whatever `start` says: its messages are all later
than the consumer's start. So is a group's retry topic: what is in it was taken from this group.
"""

from datetime import datetime
from enum import Enum, auto
from typing import Literal, NamedTuple, TypeAlias

Start: TypeAlias = Literal["latest", "earliest"] | datetime | int
"""`latest`: what is sent from now on; `earliest`: all that is kept; a datetime, or milliseconds since 1970: what was
stored from then on."""


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
    if isinstance(start, datetime | int):
        return StartOffset(Boundary.BY_TIME, timestamp_ms(start))
    return StartOffset(Boundary.MAX)


def check_start(start: Start) -> Start:
    """Raise ValueError for a start that is none; a datetime must have a zone."""
    if isinstance(start, datetime | int) and not isinstance(start, bool):
        timestamp_ms(start)
    elif start not in ("latest", "earliest"):
        raise ValueError(
            f"start is {start!r} instead of 'latest', 'earliest', a datetime with a zone or milliseconds since 1970"
        )
    return start


def timestamp_ms(moment: datetime | int) -> int:
    """Milliseconds since 1970. Raises ValueError for a datetime without a zone and for what is before 1970."""
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError(f"{moment} is a datetime without a zone: give it one, for example datetime.now(UTC)")
        moment = int(moment.timestamp() * 1000)
    if moment < 0:
        raise ValueError(f"{moment} ms is before 1970")
    return moment
