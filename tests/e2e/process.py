"""Real processes for tests: started, waited for by their ready line, killed for real, always ended by their own pid.

A service tells that it serves with one line of JSON on stdout that says `"ready": true` and carries its listeners:

    {"ready": true, "service": "broker", "listeners": {"remoting": "127.0.0.1:41234", "mesh": "127.0.0.1:41235"}}

The all-in-one prefixes each listener with its service (`broker.remoting`). Everything here is plain threads, so that
tests with and without an event loop can use it. Every wait has a deadline, and a failing one shows the end of the logs.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Self

LOG_TAIL_LINES = 30
STDOUT_LINES_MAX = 1_000_000
POLL_INTERVAL_S = 0.02
EXIT_TIMEOUT_S = 20.0


class ProcessError(AssertionError):
    """A process did not do what the test relies on; the message ends with the tail of its output."""


@dataclasses.dataclass(frozen=True)
class Ready:
    """What a service said when it was ready: listener name → "host:port"."""

    listeners: Mapping[str, str]


class ManagedProcess:
    """One child process. Its output goes to `<log_directory>/<name>.stdout` and `.stderr`; `lines` has that of stdout.

    Use it as a context manager: on leaving it is killed if it still runs. `stop` is the orderly end, code 0.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        log_directory: pathlib.Path,
        cwd: pathlib.Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.lines: list[str] = []  # read while a thread appends: a list bears that, a deque may raise
        log_directory.mkdir(parents=True, exist_ok=True)
        self._stdout_path = log_directory / f"{name}.stdout"
        self._stderr_path = log_directory / f"{name}.stderr"
        with self._stderr_path.open("ab") as stderr:
            self._child = subprocess.Popen(
                [os.fspath(word) for word in argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=cwd,
                env={**os.environ, **(environ or {})},
                text=True,
                errors="replace",
            )
        assert self._child.stdout is not None
        assert self._child.stdin is not None
        self._stdin: IO[str] = self._child.stdin
        self._reader = threading.Thread(
            target=self._read_stdout, args=(self._child.stdout,), name=f"{name}-stdout", daemon=True
        )
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def log(self) -> str:
        """What it has written to stderr so far, in this and earlier runs under the same name."""
        return self._stderr_path.read_text(errors="replace")

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -N when signal N ended it."""
        return self._child.poll()

    def wait_ready(self, timeout_s: float = 30.0) -> Ready:
        """Returns at the ready line; fails when the process ends first or the time is up."""
        line = self.wait_line(is_ready_line, timeout_s, "the ready line")
        return Ready(listeners=json.loads(line)["listeners"])

    def wait_line(self, matches: Callable[[str], bool], timeout_s: float, what: str) -> str:
        """The first line of stdout, from the start on, that matches."""
        found: list[str] = []

        def is_there() -> bool:
            found.extend(line for line in list(self.lines) if matches(line))
            if not found and self.exit_code is not None and not self._reader.is_alive():
                raise self.failure(f"ended with {self.exit_code} before {what}")
            return bool(found)

        poll_until(is_there, timeout_s, lambda: self.failure(f"did not print {what} within {timeout_s} s"))
        return found[0]

    def send_line(self, text: str) -> None:
        """Writes one line to its stdin."""
        self._stdin.write(text + "\n")
        self._stdin.flush()

    def kill(self) -> None:
        """SIGKILL, as a crash would; nothing happens when it has ended already."""
        if self.exit_code is None:
            self._child.kill()
        self._finish(EXIT_TIMEOUT_S)

    def send_signal(self, number: signal.Signals) -> None:
        """One signal, without waiting for what comes of it; nothing happens when it has ended already."""
        if self.exit_code is None:
            self._child.send_signal(number)

    def stop(self, timeout_s: float = EXIT_TIMEOUT_S, expected_exit_code: int = 0) -> None:
        """SIGTERM, then waits; fails (after a SIGKILL) when it does not end in time, or with another exit code."""
        self.send_signal(signal.SIGTERM)
        exit_code = self.wait_exit(timeout_s)
        if exit_code != expected_exit_code:
            raise self.failure(f"exit code {exit_code} after SIGTERM, expected {expected_exit_code}")

    def wait_exit(self, timeout_s: float) -> int:
        """Its exit code, once it has ended and all of its output was read."""
        try:
            return self._finish(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self.failure(f"still ran after {timeout_s} s; killed") from None

    def failure(self, message: str) -> ProcessError:
        """An error to raise: the message, then the tail of both outputs."""
        return ProcessError(
            f"{self.name} (pid {self.pid}): {message}\n{tail(self._stdout_path)}\n{tail(self._stderr_path)}"
        )

    def _finish(self, timeout_s: float) -> int:
        exit_code = self._child.wait(timeout_s)
        self._reader.join(EXIT_TIMEOUT_S)
        with contextlib.suppress(BrokenPipeError):  # a line for a process just killed: nobody will read it
            self._stdin.close()
        return exit_code

    def _read_stdout(self, stdout: IO[str]) -> None:
        with stdout, self._stdout_path.open("a") as log:
            for line in stdout:
                log.write(line)
                log.flush()
                if len(self.lines) < STDOUT_LINES_MAX:
                    self.lines.append(line.rstrip("\n"))


def is_ready_line(line: str) -> bool:
    """Whether a line of stdout is the one machine-readable ready line."""
    if not line.startswith("{"):
        return False
    try:
        fields = json.loads(line)
    except json.JSONDecodeError:
        return False
    return fields.get("ready") is True and isinstance(fields.get("listeners"), dict)


def poll_until(is_done: Callable[[], bool], timeout_s: float, failure: Callable[[], Exception]) -> None:
    """Asks again and again; raises `failure()` when the time is up."""
    deadline = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() > deadline:
            raise failure()
        time.sleep(POLL_INTERVAL_S)


def tail(path: pathlib.Path) -> str:
    """The last lines of a log file, under a heading."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join([f"--- end of {path.name}:", *lines[-LOG_TAIL_LINES:]])


def console_script(name: str, environment: pathlib.Path | None = None) -> pathlib.Path:
    """The path of a command in a virtual environment (default: the one that runs the tests)."""
    scripts = environment / "bin" if environment else pathlib.Path(sys.executable).parent
    return scripts / name


def set_options(settings: Mapping[str, str]) -> list[str]:
    """`--set key=value` for each setting."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def fixed_ports(ready: Ready) -> dict[str, str]:
    """Settings that bind a service's listeners where `ready` had them: for a restart under the same addresses.

    A listener of the all-in-one is called `broker.remoting` and its setting `broker.listeners.remoting.port`; a single
    service has no prefix in either.
    """
    settings = {}
    for listener, address in ready.listeners.items():
        service, _, name = listener.rpartition(".")
        key = f"{service}.listeners.{name}.port" if service else f"listeners.{name}.port"
        settings[key] = address.rpartition(":")[2]
    return settings


def free_port() -> int:
    """A port of loopback that nobody has now, for settings that can't be left to the system."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_all_in_one(
    data: pathlib.Path,
    *,
    log_directory: pathlib.Path,
    settings: Mapping[str, str],
    ports: str | None = "free",
    command: Sequence[str | os.PathLike[str]] = (),
    arguments: Sequence[str] = (),
    log_level: str = "WARNING",
    environ: Mapping[str, str] | None = None,
) -> ManagedProcess:
    """`apogeemq up` on `data`; `ports="free"` lets it choose every port, None leaves them to `settings`.

    `command` stands in for `apogeemq`, and gets the same arguments; `arguments` are further ones of `up`.
    """
    argv = [*(command or [console_script("apogeemq")]), "up", "--data", data, "--log-level", log_level, *arguments]
    if ports is not None:
        argv += ["--ports", ports]
    return ManagedProcess("up", [*argv, *set_options(settings)], log_directory=log_directory, environ=environ)


def start_service(
    service: str,
    *,
    config: pathlib.Path,
    settings: Mapping[str, str],
    log_directory: pathlib.Path,
    environment: pathlib.Path | None = None,
    name: str | None = None,
    environ: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
) -> ManagedProcess:
    """One service as a process of its own, for example "broker", from the tests' or another virtual environment.

    `name` tells its log files from those of another process of the same service; `before` is a command that executes
    the rest of its line.
    """
    command = console_script(f"apogeemq-{service}", environment)
    argv: list[str | os.PathLike[str]] = [*before, command, "--config", config, *set_options(settings)]
    return ManagedProcess(name or service, argv, log_directory=log_directory, environ=environ)
