"""The command apogeemq-controller."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from apogeemq.controller.__main__ import main

ON_LOOPBACK = [
    f"--set=listeners.{name}.{setting}" for name in ("mesh", "http") for setting in ("host=127.0.0.1", "port=0")
]


def test_it_runs_without_etcd_and_is_not_ready(tmp_path: Path) -> None:
    """Services start in any order: one line of JSON when it listens, exit code 0 after the signal."""
    command = [sys.executable, "-m", "apogeemq.controller", *ON_LOOPBACK, "--set=etcd.endpoints=127.0.0.1:1"]
    with (
        (tmp_path / "stderr").open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
    assert (ready["ready"], ready["service"]) == (True, "controller")
    assert set(ready["listeners"]) == {"mesh", "http"}
    assert (rest, process.returncode) == ("", 0)


def test_print_config_masks_the_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Apache's properties load; those of its Raft group have no effect."""
    file = tmp_path / "controller.conf"
    file.write_text("enableElectUncleanMaster=true\ncontrollerDLegerGroup=group1\n")
    secret = ["--set", "etcd.user=u", "--set", "etcd.password=abc"]
    assert main(["--config", str(file), *secret, "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert f"election.unclean = true  (file {file}:1)" in printed.lower()
    assert "abc" not in printed


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("etcd.endpoints=;", "endpoints must name at least one member"),
        ("etcd.endpoints=etcd", "'etcd' is no address of the form host:port"),
        ("etcd.cert_path=/x", "cert_path and key_path go together"),
        ("etcd.ca_path=/x", "are for tls = true"),
        ("etcd.password=x", "password is set without a user"),
        ("identity.cluster_name=a/b", "must be 1 to 255 of"),
        ("listeners.mesh.enabled=false", "brokers come by that listener"),
        ("leases.controller_ttl_s=1", "leases.controller_ttl_s"),
    ],
)
def test_wrong_settings_end_it_with_code_2(setting: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says what is wrong, no traceback."""
    assert main(["--set", setting, "--print-config"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("apogeemq-controller: ")
    assert text in error
