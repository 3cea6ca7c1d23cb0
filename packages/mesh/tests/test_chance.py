"""Chance: both kinds draw from the stated ranges, and a seed replays."""

from __future__ import annotations

import random

import pytest
from apogeemq.mesh.chance import Chance, SeededChance, SystemChance


def _draws(chance: Chance) -> tuple[object, ...]:
    items = list(range(10))
    chance.shuffle(items)
    return chance.random(), chance.randrange(1000), chance.choice("abcdef"), tuple(items)


def test_a_seed_replays() -> None:
    """Two chances with one seed draw the same; another seed draws something else."""
    assert _draws(SeededChance(7)) == _draws(SeededChance(7)) != _draws(SeededChance(8))


def test_a_seed_draws_what_the_standard_library_draws() -> None:
    """Lots are those of random.Random, so that a recorded seed stays good across our versions."""
    twin = random.Random(7)
    assert SeededChance(7).random() == twin.random()


def test_system_chance_differs_and_can_be_told_again() -> None:
    """Two system chances draw differently, and the seed of one replays it."""
    first, second = SystemChance(), SystemChance()
    seed = first.seed
    drawn = _draws(first)
    assert drawn != _draws(second)
    assert drawn == _draws(SeededChance(seed))


@pytest.mark.parametrize("chance", [SystemChance(), SeededChance(1)], ids=["system", "seeded"])
def test_draws_stay_in_range(chance: Chance) -> None:
    """Floats lie in [0, 1), ints in [0, stop), choices among the items."""
    for _ in range(200):
        assert 0 <= chance.random() < 1
        assert 0 <= chance.randrange(3) < 3
        assert chance.choice([1, 2]) in (1, 2)
    with pytest.raises(ValueError, match="empty range"):
        chance.randrange(0)
    with pytest.raises(IndexError):
        chance.choice([])
