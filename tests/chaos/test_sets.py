"""A broker set under faults: nothing acknowledged is lost, early, or out of order, whoever goes.

All faults, and a report:  ./task chaos
"""

import json
import os
import subprocess
import sys

import pytest

from tests.chaos import network, sets, situations

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


@pytest.mark.verify
def test_seven_published_situations(capsys: pytest.CaptureFixture[str]) -> None:
    """What users lost with Apache's controller mode, on processes; those that need a cut, where one can be made."""
    argv = [sys.executable, "-m", "tests.chaos.sets", "--situations", "-o", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    with capsys.disabled():
        print(f"\n{done.stderr}")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    outcomes = {each["name"]: each["outcome"] for each in json.loads(done.stdout)}
    why = network.why_not()
    assert outcomes == {
        each.name: "not run" if each.needs_cut and why else "passed" for each in situations.SITUATIONS
    }, why
