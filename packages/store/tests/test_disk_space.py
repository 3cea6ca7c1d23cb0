"""The limits of a nearly full disk: pure policy."""

from itertools import pairwise
from pathlib import Path

import pytest
from apogeemq.store.disk_space import DiskLimits, DiskState, disk_state, refusal
from apogeemq.store.files import DiskSpace
from hypothesis import given
from hypothesis import strategies as st

OK, WARN, REFUSE = DiskState
APACHE = DiskLimits(warn_used_ratio=0.85, refuse_used_ratio=0.9)
IN_BYTES = DiskLimits(warn_free_bytes=1000, refuse_free_bytes=100)


def used(percent: float) -> DiskSpace:
    """A disk of a million bytes with this share used."""
    return DiskSpace(1_000_000, round(1_000_000 - percent * 10_000))


def free(free_bytes: int) -> DiskSpace:
    """A disk of a million bytes with this much free."""
    return DiskSpace(1_000_000, free_bytes)


@pytest.mark.parametrize(
    ("before", "percent", "after"),
    [
        (OK, 85, OK),
        (OK, 85.5, WARN),
        (OK, 90, WARN),
        (OK, 90.5, REFUSE),
        (WARN, 84.5, WARN),
        (WARN, 84, OK),
        (WARN, 90.5, REFUSE),
        (REFUSE, 89.5, REFUSE),
        (REFUSE, 89, WARN),
        (REFUSE, 84.5, WARN),
        (REFUSE, 10, OK),
    ],
)
def test_ratio(before: DiskState, percent: float, after: DiskState) -> None:
    """Above 90 % used nothing is stored, above 85 % that is warned of; each ends one point below where it began."""
    assert disk_state(APACHE, before, used(percent)) is after


@pytest.mark.parametrize(
    ("before", "free_bytes", "after"),
    [
        (OK, 1000, OK),
        (OK, 999, WARN),
        (OK, 99, REFUSE),
        (REFUSE, 105, REFUSE),
        (REFUSE, 110, WARN),
        (WARN, 1050, WARN),
        (WARN, 1100, OK),
    ],
)
def test_free_bytes(before: DiskState, free_bytes: int, after: DiskState) -> None:
    """Limits in bytes need a tenth more than themselves before they count as kept again."""
    assert disk_state(IN_BYTES, before, free(free_bytes)) is after


def test_worse_limit_counts() -> None:
    """Of share and bytes the one that is broken counts, whichever it is."""
    both = DiskLimits(warn_used_ratio=0.5, refuse_free_bytes=100_000)
    assert disk_state(both, OK, used(60)) is WARN
    assert disk_state(both, OK, used(95)) is REFUSE


def test_off() -> None:
    """Limits of 1 and 0 allow a disk that is full to the last byte."""
    assert DiskLimits().is_off
    assert disk_state(DiskLimits(), OK, free(0)) is OK


@given(st.lists(st.integers(0, 1000), min_size=1), st.sampled_from(DiskState))
def test_small_changes_do_not_flap(per_mille: list[int], before: DiskState) -> None:
    """Whatever happens, a disk that moves by less than the margin around a limit changes the state once at most."""
    state = before
    for value in per_mille:
        state = disk_state(APACHE, state, used(value / 10))
    states = [state]
    for percent in (89.6, 90.4, 89.6, 90.4, 89.6):
        states.append(disk_state(APACHE, states[-1], used(percent)))
    assert sum(one is not other for one, other in pairwise(states[2:])) == 0


def test_refusal_says_what_to_do() -> None:
    """The error names the path, how full its disk is, the setting, and what helps."""
    error = refusal(APACHE, Path("/data/store"), DiskSpace(100 << 30, 8 << 30))
    assert (error.path, error.used_ratio, error.free_bytes) == (Path("/data/store"), 0.92, 8 << 30)
    assert (error.setting, error.threshold) == ("diskSpaceWarningLevelRatio", "90")
    assert str(error) == (
        "the disk of /data/store is 92.0% full with 8192 MiB free: nothing more is stored (limit: "
        "diskSpaceWarningLevelRatio = 90). Free some space, or move the limit; storing then goes on by itself"
    )
    assert refusal(IN_BYTES, Path("/data"), free(50)).setting == "disk_refuse_free_bytes"


@pytest.mark.parametrize(
    "limits",
    [DiskLimits(warn_used_ratio=0), DiskLimits(refuse_used_ratio=1.1), DiskLimits(refuse_free_bytes=-1)],
)
def test_validate(limits: DiskLimits) -> None:
    """Limits outside their range are refused by name."""
    with pytest.raises(ValueError, match=r"_used_ratio|_free_bytes"):
        limits.validate()
