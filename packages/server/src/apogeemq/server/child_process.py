"""One process of a topology: started, waited for until it serves, watched, stopped, started again.

Each runs in a session of its own: Ctrl-C reaches this process alone, which stops the children in order. A service's
standard input is a pipe that ends with this process, so that a kill -9 of it leaves nobody behind; etcd is told by the
system. Settings are in the environment, so that secrets stand in no process list.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
from apogeemq.mesh.errors import LifecycleError

START_TIMEOUT_S = 3600.0
"""A broker that recovers may check many gigabytes before it serves."""

STOP_TIMEOUT_S = 60.0
"""A child that has not ended this long after SIGTERM is killed."""

LAST_WORDS_TIMEOUT_S = 5.0
"""How long the end of a child's log is waited for: a child of its own may hold the pipe open."""

READY_LINE_BYTES_MAX = 64 << 10
LOG_LINE_BYTES_MAX = 64 << 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """How a child is started: the whole environment, and which exit codes are an orderly end after SIGTERM."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    orderly_codes: frozenset[int] = frozenset({0})


@dataclass(frozen=True, slots=True)
class ReadyLine:
    """What a service says on stdout once it serves."""

    service: str
    listeners: Mapping[str, str]


WaitsUntilReady: TypeAlias = Callable[[str, Process], Awaitable[Mapping[str, str]]]
"""Gives the listeners of a started process, by its name, once it serves; raises LifecycleError when it ends before."""


class ChildProcess:
    """One process by name.

    Args:
        kind: "etcd", or the short name of the service.
        command: asked at each start.
        ready: how it tells that it serves.
        log_prefix: put before each line of its log, which goes to this process's stderr; None leaves it as it is.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        command: Callable[[], Command],
        ready: WaitsUntilReady,
        *,
        log_prefix: str | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.listeners: dict[str, str] = {}
        self.started_s = 0.0
        """On the event loop's clock."""
        self._command = command
        self._ready = ready
        self._log_prefix = log_prefix
        self._process: Process | None = None
        self._orderly_codes: frozenset[int] = frozenset()
        self._serves = False
        self._reading: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        """Of the process that was started last; 0 before."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start it and wait until it serves. Raises LifecycleError when it ends before, or takes START_TIMEOUT_S."""
        command = self._command()
        self.started_s = asyncio.get_running_loop().time()
        self._orderly_codes, self._serves = command.orderly_codes, False
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *command.argv,
                env=dict(command.environment),
                stdin=PIPE,
                stdout=PIPE,
                stderr=None if self._log_prefix is None else PIPE,
                start_new_session=True,
                limit=READY_LINE_BYTES_MAX,
            )
        except OSError as error:
            raise LifecycleError(self.name, f"could not be run: {error}") from error
        self._reading = [self._task("log", self._relay_log(process))]
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self.listeners = dict(await self._ready(self.name, process))
        except TimeoutError:
            await self.stop()
            raise LifecycleError(self.name, f"did not serve within {START_TIMEOUT_S:g} s and was stopped") from None
        except BaseException:
            await self.stop()
            raise
        self._serves = True
        self._reading.append(self._task("stdout", self._drain(process)))

    async def ended(self) -> int:
        """Wait until it ends; gives its exit code, -N where signal N ended it."""
        assert self._process is not None, "watched before it was started"
        code = await self._process.wait()
        await self._read_rest()
        return code

    async def stop(self) -> None:
        """Ask it to end by SIGTERM, kill it when it does not; raises LifecycleError when it ended in bad order.

        One that does not serve yet may not know of signals yet: the signal itself ends it, which is no bad order.
        """
        process = self._process
        if process is None:
            return
        was_running = process.returncode is None
        if was_running:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                code = await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise LifecycleError(self.name, f"did not end within {STOP_TIMEOUT_S:g} s and was killed") from None
        finally:
            await self._read_rest()
        expected = self._orderly_codes if self._serves else {*self._orderly_codes, -signal.SIGTERM}
        if was_running and code not in expected:
            raise LifecycleError(self.name, f"ended with exit code {code}; its own words are above")

    def _task(self, what: str, running: Awaitable[None]) -> asyncio.Task[None]:
        return asyncio.ensure_future(_done(running, f"{what} of {self.name}"))

    async def _read_rest(self) -> None:
        """What an ended process still said."""
        reading, self._reading = self._reading, []
        if reading:
            _, late = await asyncio.wait(reading, timeout=LAST_WORDS_TIMEOUT_S)
            for task in late:
                task.cancel()

    async def _drain(self, process: Process) -> None:
        """Read what it may still say on stdout, so that it never waits for us."""
        assert process.stdout is not None, "stdout is a pipe"
        while data := await process.stdout.read(READY_LINE_BYTES_MAX):
            _log.warning("%s said on stdout: %s", self.name, data[:200])

    async def _relay_log(self, process: Process) -> None:
        """Write its log's lines to ours, with its name."""
        if process.stderr is None:
            return
        rest = b""
        while data := await process.stderr.read(LOG_LINE_BYTES_MAX):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > LOG_LINE_BYTES_MAX:
                lines, rest = [*lines, rest], b""
            self._write_log(lines)
        if rest:
            self._write_log([rest])

    def _write_log(self, lines: list[bytes]) -> None:
        if lines:
            sys.stderr.write("".join(f"{self._log_prefix}{line.decode(errors='replace')}\n" for line in lines))
            sys.stderr.flush()


async def _done(running: Awaitable[None], what: str) -> None:
    """Read a pipe to its end; one that breaks is told of, and no reason to end anything."""
    try:
        await running
    except OSError as error:
        _log.warning("the %s cannot be read any more: %s", what, error)


async def says_ready_line(name: str, process: Process) -> Mapping[str, str]:
    """Wait for a service's ready line."""
    assert process.stdout is not None, "stdout is a pipe"
    try:
        line = await process.stdout.readline()
    except ValueError as error:
        raise LifecycleError(name, f"said more than {READY_LINE_BYTES_MAX} bytes before it served") from error
    if not line:
        code = await process.wait()
        raise LifecycleError(name, f"ended with exit code {code} before it served; its own words are above")
    try:
        return msgspec.json.decode(line, type=ReadyLine).listeners
    except msgspec.DecodeError as error:
        raise LifecycleError(name, f"said {line[:200]!r} where its ready line was due") from error
