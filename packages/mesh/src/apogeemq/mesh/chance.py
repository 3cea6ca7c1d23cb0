"""Chance as a port: code that draws lots gets a Chance handed in, so that a seed replays a run.

Not for secrets: those come from the `secrets` module.
"""

from __future__ import annotations

import random
from collections.abc import MutableSequence, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Chance(Protocol):
    """The few ways in which services draw lots."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...

    def randrange(self, stop: int, /) -> int:
        """An int in [0, stop); ValueError when stop < 1."""
        ...

    def choice(self, items: Sequence[T], /) -> T:
        """One of the items; IndexError when there is none."""
        ...

    def shuffle(self, items: MutableSequence[T], /) -> None:
        """Reorder in place."""
        ...


class SeededChance:
    """The same seed draws the same lots, on every machine and Python version we support."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generator = random.Random(seed)  # noqa: S311 — lots, not secrets

    def random(self) -> float:
        """A float in [0, 1)."""
        return self._generator.random()

    def randrange(self, stop: int, /) -> int:
        """An int in [0, stop); ValueError when stop < 1."""
        return self._generator.randrange(stop)

    def choice(self, items: Sequence[T], /) -> T:
        """One of the items; IndexError when there is none."""
        return self._generator.choice(items)

    def shuffle(self, items: MutableSequence[T], /) -> None:
        """Reorder in place."""
        self._generator.shuffle(items)


class SystemChance(SeededChance):
    """Lots that differ from run to run. `seed` is kept for logs, so that a surprising run can be told again."""

    def __init__(self) -> None:
        super().__init__(random.SystemRandom().getrandbits(64))
