"""Clusters under faults by seeds that `./task test` does not have, for three minutes; prints seeds per hour."""

import time

import pytest

from tests.simulation.cluster import run

pytestmark = pytest.mark.soak

SECONDS = 180


def test_seeds_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    """The seed of a run that fails is in the error's notes."""
    began = time.monotonic()
    seed = 100_000
    while time.monotonic() - began < SECONDS:
        run(seed)
        seed += 1
    with capsys.disabled():
        print(f"\n{(seed - 100_000) * 3600 / (time.monotonic() - began):,.0f} seeds per hour")
