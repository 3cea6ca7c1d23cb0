"""The tags code of units, from their records alone: tag hash, or the time of delivery.

A broker hands the rule to `MessageStore.open` and leaves the code of delayed messages to the store, so that a unit says
the same when it is written, built anew and checked. Tools that work on a directory alone use the same rule, with the
delay levels that the broker was configured with [messageDelayLevel].
Source: Apache CommitLog.checkMessageAndReturnSize 5.x; broker_behaviour.md §2.
"""

import re

from apogeemq.remoting_codec.message import PROPERTY_DELAY, find_property
from apogeemq.store.recovery import RedispatchTagsCode, tag_hash

DEFAULT_DELAY_LEVELS = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"
SCHEDULE_TOPIC = "SCHEDULE_TOPIC_XXXX"
PROPERTY_DUE_MS = "APOGEEMQ_DUE_MS"
"""When a delayed message is due, where that is not its level's time after it was stored: it was stored anew while it
waited, or the clock was behind the log. Ours alone: Java takes the level's time."""
PROPERTY_TIMER_OFFSET = "APOGEEMQ_TIMER_OFFSET"
"""Of a delivered copy, and of a message stored anew while it waits: the physical offset of the record that waited
before. Whoever finds it in the log settles that timer."""


_DELAY = PROPERTY_DELAY.encode()
_DUE_MS = PROPERTY_DUE_MS.encode()
_DIGITS_MAX = 18
_LEVEL = re.compile(r"(\d{1,9})([smhd])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def tags_code_rule(delay_levels: str = DEFAULT_DELAY_LEVELS) -> RedispatchTagsCode:
    """The rule for these levels, level 1 first; one beyond the last counts as the last.

    Errors: ValueError for a word that is no number followed by s, m, h or d.
    """
    delays_ms = [_delay_ms(word) for word in delay_levels.split()]
    if not delays_ms:
        raise ValueError("there must be at least one delay level")

    def tags_code(topic: str, properties: bytes, store_timestamp_ms: int) -> int:
        if topic == SCHEDULE_TOPIC:
            due_ms = _number_of(properties, _DUE_MS)
            if due_ms > 0:
                return due_ms
            level = _number_of(properties, _DELAY)
            if level > 0:
                return store_timestamp_ms + delays_ms[min(level, len(delays_ms)) - 1]
        return tag_hash(topic, properties, store_timestamp_ms)

    return tags_code


def _number_of(properties: bytes, key: bytes) -> int:
    """0 when there is none."""
    digits = find_property(properties, key)
    return int(digits) if digits is not None and digits.isdigit() and len(digits) <= _DIGITS_MAX else 0


def _delay_ms(word: str) -> int:
    match = _LEVEL.fullmatch(word)
    if match is None:
        raise ValueError(f"delay level {word!r} is not a number followed by s, m, h or d")
    return int(match[1]) * _UNIT_MS[match[2]]
