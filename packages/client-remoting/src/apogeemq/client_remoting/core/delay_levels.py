"""From a wanted delay to a delay level: brokers delay a retried message by one of 18 fixed levels.

The times are the default ones (messageDelayLevel); a broker with other levels delays by its own: no client learns them.
"""

from bisect import bisect_left
from typing import Final

from apogeemq.client_api.handling import DELAY_LEVELS_S

DLQ_LEVEL: Final = -1
"""The level that means: no further delivery, to the DLQ."""


def nearest_delay_level(after_s: float) -> int:
    """The level, from 1, whose time is nearest to `after_s`; of two equally near ones the longer.

    So 0 s is level 1 (1 s), 7 s is level 2 (5 s), 20 s is level 4 (30 s), and three hours are level 18 (2 h).
    """
    longer = bisect_left(DELAY_LEVELS_S, after_s)
    if longer == 0:
        return 1
    if longer == len(DELAY_LEVELS_S):
        return longer
    is_shorter_nearer = after_s - DELAY_LEVELS_S[longer - 1] < DELAY_LEVELS_S[longer] - after_s
    return longer if is_shorter_nearer else longer + 1
