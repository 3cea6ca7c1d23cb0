"""The store's figures: how they are judged and shown; and that each case's parts do what they are named for."""

import pathlib

import pytest

from tools.bench import store_cases
from tools.bench.store_cases import Figure, StoreRun


@pytest.mark.parametrize(
    ("figure", "best", "median", "is_met"),
    [
        (Figure("f", "µs", (3.0, 9.0, 5.0), target=4), 3.0, 5.0, True),
        (Figure("f", "µs", (3.0, 9.0, 5.0), target=2), 3.0, 5.0, False),
        (Figure("f", "1/s", (3.0, 9.0, 5.0), target=9, more_is_better=True), 9.0, 5.0, True),
        (Figure("f", "1/s", (3.0, 9.0, 5.0), target=10, more_is_better=True), 9.0, 5.0, False),
        (Figure("f", "1/s", (3.0,)), 3.0, 3.0, None),
    ],
)
def test_best_is_compared_with_the_target(figure: Figure, best: float, median: float, is_met: bool | None) -> None:
    """Best means least, unless more is better."""
    assert (figure.best, figure.median, figure.is_met) == (best, median, is_met)


def test_the_table_has_a_verdict() -> None:
    """Beside the target, with its direction."""
    figures = [
        Figure("append", "µs CPU", (3.25, 4.0, 5.0), target=4),
        Figure("recovery", "messages/s", (250_000.0,), target=300_000, more_is_better=True),
        Figure("sync", "ms", (1.0,)),
    ]
    lines = store_cases.table(figures).splitlines()
    assert lines[1].split() == ["append", "3.25", "4", "≤", "4", "µs", "CPU", "met"]
    assert lines[2].split() == ["recovery", "250,000", "250,000", "≥", "300,000", "messages/s", "MISSED"]
    assert lines[3].split() == ["sync", "1", "1", "-", "ms"]


def test_small_cases_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appends with and without keys, and reads of them, in miniature; nothing stays behind."""
    monkeypatch.setattr(store_cases, "APPENDS_A_ROUND", 10)
    run = StoreRun(str(tmp_path), rounds=1)
    with_units, with_keys = store_cases.append(run)
    assert len(with_units.values) == len(with_keys.values) == 3
    assert all(value > 0 for value in with_units.values + with_keys.values)
    assert len(store_cases.sync(run)[0].values) == 100
    assert list(tmp_path.iterdir()) == []
