"""The process fixture itself, tried on small Python programs."""

import pathlib
import sys

import pytest

from tests.e2e.process import ManagedProcess, ProcessError, Ready, fixed_ports, is_ready_line

SERVE = 'print(\'{"ready": true, "listeners": {"remoting": "127.0.0.1:1"}}\', flush=True); input()'


def python(tmp_path: pathlib.Path, program: str) -> ManagedProcess:
    return ManagedProcess("program", [sys.executable, "-c", program], log_directory=tmp_path)


def test_ready_line_is_found_among_other_lines(tmp_path: pathlib.Path) -> None:
    """Lines before the ready line, JSON or not, are passed over."""
    with python(tmp_path, "print('hello'); print('{}');" + SERVE) as process:
        assert process.wait_ready() == Ready(listeners={"remoting": "127.0.0.1:1"})


def test_early_end_shows_the_logs(tmp_path: pathlib.Path) -> None:
    """A process that dies before it is ready fails the wait at once, with what it wrote."""
    with (
        python(tmp_path, "import sys; print('bye'); sys.exit('broken')") as process,
        pytest.raises(ProcessError, match=r"ended with 1 .*\n.*\nbye\n.*\nbroken"),
    ):
        process.wait_ready()


def test_kill_is_sigkill(tmp_path: pathlib.Path) -> None:
    """A killed process reports the signal, and killing it twice is harmless."""
    with python(tmp_path, SERVE) as process:
        process.wait_ready()
        process.kill()
        process.kill()
        assert process.exit_code == -9


def test_stop_wants_exit_code_0(tmp_path: pathlib.Path) -> None:
    """A process that does not handle SIGTERM dies of it, which is not an orderly end."""
    with python(tmp_path, SERVE) as process:
        process.wait_ready()
        with pytest.raises(ProcessError, match="exit code -15"):
            process.stop()


def test_stop_returns_after_an_orderly_end(tmp_path: pathlib.Path) -> None:
    """A process that ends by itself on SIGTERM with code 0 is fine."""
    with python(tmp_path, "import signal, sys; signal.signal(15, lambda *_: sys.exit(0));" + SERVE) as process:
        process.wait_ready()
        process.stop()
        assert process.exit_code == 0


def test_leaving_the_context_ends_the_process(tmp_path: pathlib.Path) -> None:
    """No process outlives its test."""
    with python(tmp_path, SERVE) as process:
        process.wait_ready()
    assert process.exit_code == -9


def test_lines_reach_the_process(tmp_path: pathlib.Path) -> None:
    """`send_line` talks to its stdin."""
    with python(tmp_path, "print(input()[::-1])") as process:
        process.send_line("abc")
        assert process.wait_exit(10) == 0
        assert list(process.lines) == ["cba"]


@pytest.mark.parametrize("line", ["", "ready", '{"ready": true}', '{"ready": false, "listeners": {}}', "{", "{1}"])
def test_other_lines_are_not_the_ready_line(line: str) -> None:
    """Only a JSON object with ready = true and listeners counts."""
    assert not is_ready_line(line)


def test_fixed_ports_of_the_all_in_one() -> None:
    """A listener's service goes in front of the setting."""
    ready = Ready({"broker.remoting": "127.0.0.1:5", "namesrv.mesh": "127.0.0.1:6"})
    assert fixed_ports(ready) == {"broker.listeners.remoting.port": "5", "namesrv.listeners.mesh.port": "6"}


def test_fixed_ports_of_one_service() -> None:
    """A single service's settings have no prefix."""
    assert fixed_ports(Ready({"remoting": "127.0.0.1:5"})) == {"listeners.remoting.port": "5"}
