"""A broker is killed again and again under pops, message groups, timers and transactions, and no promise is broken.

Another seed by hand:  APOGEEMQ_CHAOS_SEED=7 ./task verify -- tests/chaos/test_kills.py
"""

import os
import pathlib
import time

import pytest

from tests.chaos import kills

SEED_VARIABLE = "APOGEEMQ_CHAOS_SEED"


def judge(directory: pathlib.Path, capsys: pytest.CaptureFixture[str], count: int) -> None:
    """Run, print the report, and fail with what was found and where its history is."""
    seed = int(os.environ.get(SEED_VARIABLE) or (1 if "CI" in os.environ else time.time_ns() // 1_000_000_000))
    report = kills.run(directory, kills=count, seed=seed)
    with capsys.disabled():
        print(f"\n{report}")
    shown = "\n".join(map(str, report.faults[: kills.FAULTS_SHOWN]))
    assert not report.faults, f"{report}\n{shown}\nhistory: {directory / kills.HISTORY}"
    idle = [worker.name for worker in kills.WORKERS if not report.delivered[worker.name]]
    assert not idle, f"{idle} did nothing: {report}"


@pytest.mark.verify
def test_five_kills(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing lost, early or out of order; nothing delivered that was rolled back or taken back in time."""
    judge(tmp_path, capsys, 5)


@pytest.mark.soak
def test_fifty_kills(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same, for minutes."""
    judge(tmp_path, capsys, 50)
