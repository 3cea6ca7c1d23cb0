"""Starts that can't be: each ends with its exit code and one line that says what is in the way."""

import pathlib
import socket
import sys
from collections.abc import Sequence

import pytest
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode

from tests.e2e.process import ManagedProcess, Ready, console_script, start_all_in_one
from tests.e2e.wire_client import WireClient, send_fields

LISTENERS = [
    f"{service}.listeners.{name}" for service in ("namesrv", "broker") for name in ("remoting", "mesh", "http")
]


def refusal(process: ManagedProcess, exit_code: int) -> str:
    """The last line on stderr of a process that ends by itself, with nothing on stdout."""
    with process:
        assert process.wait_exit(20) == exit_code, process.log
        assert list(process.lines) == []
        assert "Traceback" not in process.log
        return process.log.splitlines()[-1]


def service(name: str, arguments: Sequence[str], log_directory: pathlib.Path) -> ManagedProcess:
    return ManagedProcess(name, [console_script(f"apogeemq-{name}"), *arguments], log_directory=log_directory)


def test_a_directory_is_open_in_one_process_at_a_time(
    server: Ready, server_data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The second process on the same data ends with 1 and names the directory; the first one goes on."""
    second = start_all_in_one(server_data, log_directory=tmp_path, settings={})
    assert refusal(second, 1) == f"apogeemq up: broker did not start: another store has {server_data / 'broker'} open"
    with WireClient(server.listeners["broker.remoting"]) as client:
        assert client.request(RequestCode.SEND_MESSAGE_V2, send_fields("Lock"), b"x").code == ResponseCode.SUCCESS


@pytest.mark.parametrize("listener", [*LISTENERS, "broker.listeners.vip"])
def test_a_port_in_use_is_named(tmp_path: pathlib.Path, listener: str) -> None:
    """Whichever listener it is, the error has host and port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        settings = {f"{listener}.port": port, f"{listener}.enabled": "true"}
        line = refusal(start_all_in_one(tmp_path / "data", log_directory=tmp_path, settings=settings), 1)
    assert line.startswith(f"apogeemq up: {listener.partition('.')[0]}")
    assert "did not start" in line
    assert "127.0.0.1" in line
    assert port in line
    assert not (tmp_path / "data" / "broker" / "abort").exists()


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("broker", ["--set", "flushDiskTyp=SYNC_FLUSH"], "flushDiskTyp is not known; did you mean flushDiskType?"),
        ("broker", ["--config", "/does/not/exist.toml"], "/does/not/exist.toml cannot be read"),
        ("broker", ["--set", "brokerId=1"], "broker_id is 1"),
        ("namesrv", ["--set", "listenPort=99999"], "listenPort (listeners.remoting.port) is '99999'"),
    ],
)
def test_wrong_settings_of_a_service(tmp_path: pathlib.Path, name: str, arguments: list[str], named: str) -> None:
    """Exit code 2 and the key, before anything is opened."""
    line = refusal(service(name, arguments, tmp_path), 2)
    assert line.startswith(f"apogeemq-{name}: ")
    assert named in line


def test_a_port_in_use_of_a_service(tmp_path: pathlib.Path) -> None:
    """A service of its own says it as the all-in-one does."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        arguments = ["--set=listeners.remoting.host=127.0.0.1", f"--set=listenPort={port}"]
        arguments += [f"--set=listeners.{name}.port=0" for name in ("mesh", "http")]
        line = refusal(service("broker", [*arguments, f"--set=store.path={tmp_path / 'store'}"], tmp_path), 1)
    assert line.startswith("apogeemq-broker: broker did not start: ")
    assert f"cannot listen on 127.0.0.1 port {port}: " in line


def test_a_module_is_a_command_too(tmp_path: pathlib.Path) -> None:
    """`python -m apogeemq.server` is `apogeemq`."""
    command = [sys.executable, "-m", "apogeemq.server", "up", "--set", "nothing"]
    line = refusal(ManagedProcess("module", command, log_directory=tmp_path), 2)
    assert line == "apogeemq up: --set nothing is not of the form KEY=VALUE"
