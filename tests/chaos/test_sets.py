"""A broker set under faults: nothing acknowledged is lost, early, or out of order, whoever goes.

All faults, and a report:  ./task chaos
"""

import json
import os
import subprocess
import sys

import pytest

from tests.chaos import sets

ROUNDS = 3
TIMEOUT_S = 400.0


@pytest.mark.verify
def test_three_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    """Which faults, a seed chooses; another by APOGEEMQ_CHAOS_SEED. On a private network where one can be made."""
    seed = os.environ.get("APOGEEMQ_CHAOS_SEED") or "1"
    argv = [sys.executable, "-m", "tests.chaos.sets", "--rounds", str(ROUNDS), "--seed", seed, "-o", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    with capsys.disabled():
        print(f"\n{done.stderr}")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    report = json.loads(done.stdout)
    assert len(report["rounds"]) == ROUNDS
    assert report["faults"] == []
    assert all(report["delivered"][each.name] for each in sets.WORKERS), f"somebody did nothing: {report}"
