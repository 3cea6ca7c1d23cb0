"""The command `apogeemq up`: arguments, settings, exit codes. What it serves is tried in tests/e2e."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from apogeemq.mesh.errors import ConfigError
from apogeemq.server.__main__ import main
from apogeemq.server.up import settings_by_service


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Give the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests."""
    monkeypatch.delenv("NAMESRV_ADDR", raising=False)


def test_settings_are_divided_by_service() -> None:
    """What stands before the first dot is the service, the rest its own key, dots and all."""
    flags = {"broker.flushDiskType": "SYNC_FLUSH", "broker.listeners.http.port": "0", "namesrv.listenPort": "1"}
    assert settings_by_service(flags) == {
        "namesrv": {"listenPort": "1"},
        "broker": {"flushDiskType": "SYNC_FLUSH", "listeners.http.port": "0"},
        "proxy": {},
    }
    assert settings_by_service({}) == {"namesrv": {}, "broker": {}, "proxy": {}}


@pytest.mark.parametrize("key", ["flushDiskType", "brokr.flushDiskType", "broker", ".x", "controller.x"])
def test_a_key_of_no_service_is_refused(key: str) -> None:
    """The error names the key, and the services that there are."""
    with pytest.raises(ConfigError) as caught:
        settings_by_service({key: "1"})
    assert str(caught.value) == f"{key} does not begin with a service (one of namesrv., broker., proxy.) [--set]"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--set", "brokr.flushDiskType=SYNC_FLUSH"], "brokr.flushDiskType does not begin with a service"),
        (["--set", "broker.flushDiskTyp=SYNC_FLUSH"], "broker: flushDiskTyp is not known"),
        (["--set", "broker.flushDiskType"], "--set broker.flushDiskType is not of the form KEY=VALUE"),
        (["--set", "namesrv.listenPort=x"], "namesrv: listenPort"),
        (["--broker-config", "/does/not/exist.toml"], "broker: /does/not/exist.toml cannot be read"),
    ],
)
def test_wrong_settings_exit_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str], named: str) -> None:
    """One line on stderr that names the key, nothing on stdout, nothing started."""
    assert main(["up", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"apogeemq up: {named}")
    assert captured.err.count("\n") == 1


def test_a_wrong_line_in_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """File and line, for whoever has to mend it."""
    file = tmp_path / "broker.conf"
    file.write_text("brokerName=b\nautoCreateTopicEnabled=maybe\n")
    assert main(["up", "--broker-config", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"apogeemq up: broker: autoCreateTopicEnabled is not known; did you mean autoCreateTopicEnable?"
        f" [file {file}:2]\n"
    )


def test_a_wrong_topology_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Process, key, reason and file on stderr; nothing on stdout, nothing started."""
    file = tmp_path / "topology.toml"
    file.write_text("[broker_sets.a.members.one]\nflushDiskTyp = 'SYNC_FLUSH'\n")
    data = tmp_path / "data"
    assert main(["up", "--topology", str(file), "--data", str(data)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "apogeemq up: one: flushDiskTyp is not known; did you mean flushDiskType?"
        f" [file {file}, key broker_sets.a.members.one.flushDiskTyp]\n"
    )
    assert not data.exists()


@pytest.mark.parametrize("option", ["--processes", "--ha", "--brokers=2", "--broker-config=b.conf"])
def test_a_topologys_file_says_all(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    """Short forms and files of single services do not go beside it."""
    assert main(["up", "--topology", str(tmp_path / "t.toml"), option]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"apogeemq up: {option.partition('=')[0]} does not go with --topology")


def test_a_topologys_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Of every process, as they can be given after --set; no etcd is needed for it."""
    assert main(["up", "--ha", "--print-config", "--set", "broker-a-2.listenPort=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "broker-a-2.listeners.remoting.port = 1  (flag --set listenPort)" in lines
    assert "broker-a-3.listeners.remoting.port = 11111  (default)" in lines


def test_ha_without_etcd_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to install; nothing is left behind."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("apogeemq.server.etcd_program.WHEEL_MODULE", "no_such_module_anywhere")
    assert main(["up", "--ha", "--data", str(tmp_path / "data")]) == 2
    assert "apogeemq up: etcd.program is not set, and there is no etcd on PATH" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_certificates_that_are_none_exit_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are a wrong setting too: found before anything listens, and told with their service."""
    pem = tmp_path / "any.pem"
    pem.write_text("no certificate\n")
    tls = {"mode": "enforcing", "cert_path": str(pem), "key_path": str(pem)}
    settings = [f"--set=broker.listeners.remoting.tls.{key}={value}" for key, value in tls.items()]
    data = tmp_path / "data"
    assert main(["up", "--ports", "free", "--data", str(data), *settings]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("apogeemq up: broker: tls.cert_path and tls.key_path are ")
    assert not data.exists()


def test_print_config_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All settings of both services, as they can be given after --set."""
    data = tmp_path / "data"
    assert main(["up", "--data", str(data), "--print-config", "--set", "broker.listenPort=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "broker.listeners.remoting.port = 1  (flag --set listenPort)" in lines
    assert f"broker.store.path = {data / 'broker'}  (default)" in lines
    assert "namesrv.listeners.remoting.port = 9876  (default)" in lines
    assert not data.exists()


def test_a_failed_start_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A data directory that can't be made: one line that names it, no ready line, the name server stopped again."""
    file = tmp_path / "file"
    file.write_text("")
    assert main(["up", "--ports", "free", "--data", str(file)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("apogeemq up: broker did not start: ")
    assert str(file) in captured.err.splitlines()[-1]


@pytest.mark.parametrize(
    "option", ["--data", "--ports", "--set", "--broker-config", "--namesrv-config", "--print-config", "--log-level"]
)
def test_help_tells_every_option(capsys: pytest.CaptureFixture[str], option: str) -> None:
    """With where settings come from, and the defaults."""
    with pytest.raises(SystemExit) as caught:
        main(["up", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert option in text
    assert "(default: data)" in " ".join(text.split())


def test_help_of_the_command_lists_its_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    """`apogeemq --help` shows what there is to run."""
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "up" in capsys.readouterr().out.split()


@pytest.mark.parametrize(
    "arguments", [[], ["down"], ["up", "--ports", "some"], ["up", "--log-level", "LOUD"], ["up", "--brokers", "0"]]
)
def test_wrong_arguments_exit_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Argparse's own refusals have the code that wrong settings have."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: apogeemq")
