"""The command apogeemq-namesrv."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from apogeemq.namesrv.__main__ import main

LISTENERS = ("remoting", "mesh", "http")
ON_LOOPBACK = [f"--set=listeners.{name}.{setting}" for name in LISTENERS for setting in ("host=127.0.0.1", "port=0")]


def test_it_serves_until_sigterm(tmp_path: Path) -> None:
    """One line of JSON on stdout when it is ready, exit code 0 after the signal."""
    command = [sys.executable, "-m", "apogeemq.namesrv", *ON_LOOPBACK]
    with (
        (tmp_path / "stderr").open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
    assert (ready["ready"], ready["service"]) == (True, "namesrv")
    assert set(ready["listeners"]) == set(LISTENERS)
    assert (rest, process.returncode) == ("", 0)


def test_print_config_shows_settings_with_their_origins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is started."""
    file = tmp_path / "namesrv.properties"
    file.write_text("listenPort=1234\n")
    assert main(["--config", str(file), "--set", "limits.brokers_max=7", "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"listeners.remoting.port = 1234  (file {file}:1)" in lines
    assert "limits.brokers_max = 7  (flag --set limits.brokers_max)" in lines


@pytest.mark.parametrize("arguments", [["--set", "limits.brokers=7"], ["--set", "x"], ["--config", "/does/not/exist"]])
def test_wrong_settings_end_it_with_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says what is wrong, no traceback."""
    assert main([*arguments, "--print-config"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("apogeemq-namesrv: ")
    assert error.count("\n") == 1
