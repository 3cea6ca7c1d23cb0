"""Delay levels."""

import pytest
from apogeemq.broker.core.delay import DelayLevels, level_of_queue_id, queue_id_of_level


def test_the_default_levels_are_apaches() -> None:
    """18 levels, from 1 s to 2 h (reference broker_behaviour.md §2)."""
    levels = DelayLevels()
    seconds = [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200]
    assert [levels.delay_ms(level) for level in range(1, 19)] == [s * 1000 for s in seconds]
    assert levels.clamp(99) == 18
    assert levels.clamp(3) == 3


def test_own_levels() -> None:
    """Units are s, m, h and d."""
    levels = DelayLevels("2s 1d")
    assert [levels.delay_ms(1), levels.delay_ms(2)] == [2_000, 86_400_000]


@pytest.mark.parametrize("text", ["", "1", "1w", "s", "-1s", "1s,2s"])
def test_bad_levels_are_named(text: str) -> None:
    """A text that is no list of levels is refused."""
    with pytest.raises(ValueError, match="delay level"):
        DelayLevels(text)


def test_a_level_waits_in_the_queue_before_its_number() -> None:
    """Level 18 waits in queue 17, as recorded from Apache 5.3.3."""
    assert queue_id_of_level(18) == 17
    assert level_of_queue_id(17) == 18
