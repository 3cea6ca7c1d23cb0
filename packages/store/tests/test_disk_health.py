"""What is counted of a disk."""

import errno
from pathlib import Path

import pytest
from apogeemq.store.disk_health import LATENCY_BOUNDS_S, DiskHealth, Running

PATH = Path("/store/f")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def pass_by(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize(
    ("duration_s", "bucket"), [(0, 0), (0.0004, 0), (0.02, 5), (0.75, 10), (9, 13), (11, 14), (1000, 14)]
)
def test_durations_fall_into_buckets(duration_s: float, bucket: int) -> None:
    """Each into the first whose bound is not smaller; the last has none."""
    clock = Clock()
    health = DiskHealth(clock)
    health.measure("sync", PATH, clock.pass_by, duration_s)
    latency = health.latencies()["sync"]
    assert [index for index, count in enumerate(latency.counts) if count] == [bucket]
    assert len(latency.counts) == len(LATENCY_BOUNDS_S) + 1
    assert latency.total_s == pytest.approx(duration_s)
    assert sum(health.latencies()["write"].counts) == 0


def test_work_is_done_and_answered() -> None:
    """What is measured gets its arguments, and its answer comes back."""
    assert DiskHealth().measure("write", PATH, int, "11", base=2) == 3


def test_errors_are_counted_by_name() -> None:
    """They count as durations too, go on to the caller, and leave nothing running. A name that is gone is no error."""

    def fail(number: int) -> None:
        raise OSError(number, "because")

    health = DiskHealth()
    for number in (errno.EIO, errno.EIO, errno.ENOSPC, errno.ENOENT):
        with pytest.raises(OSError, match="because"):
            health.measure("sync", PATH, fail, number)
    assert health.errors() == {("sync", "EIO"): 2, ("sync", "ENOSPC"): 1}
    assert sum(health.latencies()["sync"].counts) == 4
    assert health.longest_running() is None


def test_the_oldest_that_runs_is_known() -> None:
    """Not one that has ended, and not a younger one."""
    clock = Clock()
    health = DiskHealth(clock)
    seen: list[Running | None] = []

    def younger() -> None:
        clock.pass_by(2)
        seen.append(health.longest_running())

    def older() -> None:
        clock.pass_by(1)
        health.measure("write", Path("/younger"), younger)
        clock.pass_by(4)
        seen.append(health.longest_running())

    health.measure("sync", PATH, older)
    assert seen == [Running("sync", PATH, 3), Running("sync", PATH, 7)]
    assert health.longest_running() is None
