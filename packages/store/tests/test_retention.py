"""Which files go: pure policy."""

import pytest
from apogeemq.store.files import DiskSpace
from apogeemq.store.retention import LogFile, Reason, RetentionConfig, choose_removals, parse_delete_when

HOUR_MS = 3_600_000
NOW_MS = 1_700_000_000_000
ROOMY = DiskSpace(10_000, 9_000)
CONFIG = RetentionConfig()


def files(*ages_h: float, size_bytes: int = 100) -> list[LogFile]:
    """Files that ended this many hours ago, oldest first."""
    return [LogFile(n * size_bytes, size_bytes, round(NOW_MS - age * HOUR_MS)) for n, age in enumerate(ages_h)]


def choose(
    config: RetentionConfig,
    candidates: list[LogFile],
    *,
    hour: int = 12,
    space: DiskSpace = ROOMY,
    by_hand: bool = False,
) -> list[tuple[int, Reason]]:
    """Start and reason of what goes."""
    removals = choose_removals(
        config,
        candidates,
        rest_size_bytes=100,
        now_ms=NOW_MS,
        local_hour=hour,
        space=space,
        by_hand=by_hand,
    )
    return [(removal.file.start, removal.reason) for removal in removals]


def test_expired_files_go_in_their_hour() -> None:
    """At 4 o'clock files of 72 hours go, not younger ones; at other hours none."""
    candidates = files(100, 72, 71.9)
    assert choose(CONFIG, candidates, hour=4) == [(0, Reason.AGE), (100, Reason.AGE)]
    assert choose(CONFIG, candidates, hour=5) == []
    assert choose(RetentionConfig(delete_when=frozenset({5, 23})), candidates, hour=23) != []


def test_a_disk_above_75_percent_or_a_hand_makes_any_hour_right() -> None:
    """Expired files go at any hour when the disk is fuller than diskMaxUsedSpaceRatio, or when asked for."""
    candidates = files(100, 10)
    assert choose(CONFIG, candidates, space=DiskSpace(10_000, 2_500)) == []
    assert choose(CONFIG, candidates, space=DiskSpace(10_000, 2_400)) == [(0, Reason.AGE)]
    assert choose(CONFIG, candidates, by_hand=True) == [(0, Reason.AGE)]


def test_forced_files_go_until_there_is_room() -> None:
    """Above 85 % files go whatever their age, only as many as it takes, and only if that is allowed."""
    candidates = files(3, 2, 1)
    assert choose(CONFIG, candidates, space=DiskSpace(10_000, 1_350)) == [(0, Reason.FORCED), (100, Reason.FORCED)]
    forbidden = RetentionConfig(clean_file_forcibly=False)
    assert choose(forbidden, candidates, space=DiskSpace(10_000, 0)) == []


def test_a_log_that_is_too_large_loses_its_oldest_files() -> None:
    """log_size_bytes_max counts all files; as many go as it takes, at any hour."""
    candidates = files(3, 2, 1)
    assert choose(RetentionConfig(log_size_bytes_max=250), candidates) == [(0, Reason.SIZE), (100, Reason.SIZE)]
    assert choose(RetentionConfig(log_size_bytes_max=400), candidates) == []


def test_a_round_has_a_bound() -> None:
    """At most deleteFileBatchMax files go in one round."""
    assert len(choose(CONFIG, files(*[100] * 50), hour=4)) == 10


def test_a_young_file_keeps_those_behind_it() -> None:
    """What stays is the end of the log without holes, even where a clock that was set back made files old."""
    assert choose(CONFIG, files(100, 1, 100), hour=4) == [(0, Reason.AGE)]


def test_a_disk_of_unknown_size_forces_nothing() -> None:
    """Before the disk was ever looked at, it does not count as full."""
    assert choose(CONFIG, files(3), space=DiskSpace(0, 0)) == []


@pytest.mark.parametrize(("text", "hours"), [("04", {4}), ("4;16", {4, 16}), (" 00 ; 23;", {0, 23})])
def test_delete_when(text: str, hours: set[int]) -> None:
    """Hours are read as Apache writes them."""
    assert parse_delete_when(text) == hours


@pytest.mark.parametrize("text", ["", ";", "24", "-1", "4,5", "noon"])
def test_delete_when_that_is_none(text: str) -> None:
    """Anything but hours is refused, with the text."""
    with pytest.raises(ValueError, match="hours from 00 to 23"):
        parse_delete_when(text)


@pytest.mark.parametrize(
    "config",
    [
        RetentionConfig(delete_when=frozenset({24})),
        RetentionConfig(disk_max_used_ratio=0),
        RetentionConfig(disk_clean_forcibly_ratio=85),
        RetentionConfig(log_size_bytes_max=-1),
        RetentionConfig(file_reserved_ms=0),
        RetentionConfig(delete_file_batch_max=0),
        RetentionConfig(round_interval_ms=0),
    ],
)
def test_validate(config: RetentionConfig) -> None:
    """Settings outside their range are refused by name."""
    with pytest.raises(ValueError, match=r"^[a-z_]+: "):
        config.validate()
