"""The delay level whose time is nearest."""

import pytest
from apogeemq.client_remoting.core.delay_levels import nearest_delay_level

LEVELS_S = [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200]


@pytest.mark.parametrize(("level", "time_s"), list(enumerate(LEVELS_S, start=1)))
def test_a_levels_own_time(level: int, time_s: int) -> None:
    """Gives the level."""
    assert nearest_delay_level(time_s) == level


@pytest.mark.parametrize(
    ("after_s", "level"), [(0, 1), (2.9, 1), (3, 2), (7, 2), (7.5, 3), (20, 4), (45, 5), (5400, 18), (10_800, 18)]
)
def test_between_the_levels(after_s: float, level: int) -> None:
    """The nearer one; in the middle the longer; beyond both ends the last."""
    assert nearest_delay_level(after_s) == level
