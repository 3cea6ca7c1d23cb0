"""The store, killed and crashed again and again: the models of its own tests with seeds that those do not have."""

from pathlib import Path

import pytest

from packages.store.tests import test_config_journal, test_crash_model, test_crash_threads
from packages.store.tests.baton import TurnLock
from packages.store.tests.test_kill import kill_again_and_again

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("seed", range(100, 110))
def test_two_hundred_kills(seed: int, tmp_path: Path) -> None:
    """A writer killed with SIGKILL twenty times, on each of ten directories."""
    kill_again_and_again(tmp_path / "s", 20, seed)


def test_crashes_with_threads_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three thousand lives; the seed of one that fails is in the traceback's locals."""
    for module in test_crash_threads.MODULES_WITH_LOCKS:
        monkeypatch.setattr(module, "Lock", TurnLock)
    for seed in range(10_000, 13_000):
        test_crash_threads.live(seed)


def test_crashes_between_calls() -> None:
    """Five thousand walks of sixty steps."""
    for seed in range(10_000, 15_000):
        test_crash_model.walk(seed, 60)


def test_crashes_of_journaled_tables() -> None:
    """Fifty thousand walks of forty steps."""
    for seed in range(10_000, 60_000):
        test_config_journal.walk(seed)
