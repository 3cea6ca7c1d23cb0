"""Delay levels: their names, their times, and what a delayed message looks like in the store.

Level n waits in queue n - 1 of SCHEDULE_TOPIC_XXXX with its real topic and queue in properties; the tags code of its
consume-queue unit is the time (ms) at which it is due (trap 14). Source: reference broker_behaviour.md §2.
"""

import re

DEFAULT_DELAY_LEVELS = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"

_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LEVEL = re.compile(r"(\d{1,9})([smhd])")


class DelayLevels:
    """The table of levels; level 1 is the first. Raises ValueError for a text that is not `NUMBER(s|m|h|d)` words."""

    def __init__(self, text: str = DEFAULT_DELAY_LEVELS) -> None:
        self._delays_ms = []
        for word in text.split():
            match = _LEVEL.fullmatch(word)
            if match is None:
                raise ValueError(f"delay level {word!r} is not a number followed by s, m, h or d")
            self._delays_ms.append(int(match[1]) * _UNIT_MS[match[2]])
        if not self._delays_ms:
            raise ValueError("there must be at least one delay level")

    def __len__(self) -> int:
        return len(self._delays_ms)

    def clamp(self, level: int) -> int:
        """A level beyond the last is the last."""
        return min(level, len(self._delays_ms))

    def delay_ms(self, level: int) -> int:
        """How long a level waits; `level` from 1 to len(self)."""
        return self._delays_ms[level - 1]


def queue_id_of_level(level: int) -> int:
    """The queue of SCHEDULE_TOPIC_XXXX in which a level waits."""
    return level - 1


def level_of_queue_id(queue_id: int) -> int:
    """The level that waits in a queue of SCHEDULE_TOPIC_XXXX."""
    return queue_id + 1
