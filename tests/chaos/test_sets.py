"""A broker set under faults: nothing acknowledged is lost, early, or out of order, whoever goes.

All faults, and a report:  ./task chaos
"""

import os
import pathlib

import pytest

from tests.chaos import kills, sets

ROUNDS = 3


@pytest.mark.verify
def test_three_rounds(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which faults, a seed chooses; another by APOGEEMQ_CHAOS_SEED."""
    seed = int(os.environ.get("APOGEEMQ_CHAOS_SEED") or 1)
    report = sets.run(tmp_path, rounds=ROUNDS, seed=seed)
    with capsys.disabled():
        print(f"\n{report}")
    shown = "\n".join(map(str, report.faults[: kills.FAULTS_SHOWN]))
    assert not report.faults, f"{report}\n{shown}\nhistory: {tmp_path / kills.HISTORY}"
    assert all(report.delivered[each.name] for each in kills.WORKERS), f"somebody did nothing: {report}"
