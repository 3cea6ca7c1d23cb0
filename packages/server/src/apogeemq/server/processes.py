"""Services as processes of their own, started and stopped as one: what `apogeemq up --processes` runs.

Each child is the service's own command with its settings in its environment (so that secrets stand in no process list),
in a session of its own: Ctrl-C reaches this process alone, which stops the children in order. A child that ends by
itself ends everything, with its name and exit code. Each child's standard input is a pipe that ends with this process:
so a kill -9 of it leaves nobody behind.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from apogeemq.mesh.config import Loaded
from apogeemq.mesh.errors import LifecycleError
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.service_process import ServiceProgram
from apogeemq.server.all_in_one import PROGRAMS, AllInOneConfig, dial_address, say_what_listens

START_TIMEOUT_S = 3600.0
"""A broker that recovers may check many gigabytes before it serves."""

STOP_TIMEOUT_S = 60.0
"""A child that has not ended this long after SIGTERM is killed."""

READY_LINE_BYTES_MAX = 64 << 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChildLog:
    """The log of every child, where its own settings say nothing."""

    level: str
    json: bool


@dataclass(frozen=True, slots=True)
class ReadyLine:
    """What a service says on stdout once it serves."""

    service: str
    listeners: Mapping[str, str]


class ServiceProcess:
    """One service in a process of its own.

    Args:
        program: which service. Its log goes to this process's stderr.
        environment: asked at start for the whole environment of the child, settings included.
    """

    def __init__(self, program: ServiceProgram[Any], environment: Callable[[], Mapping[str, str]]) -> None:
        self.name = program.name
        self.listeners: dict[str, str] = {}
        self._module = f"apogeemq.{program.name}"
        self._environment = environment
        self._process: Process | None = None
        self._draining: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it and wait until it serves. Raises LifecycleError when it ends before."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            "--stop-with-parent",
            env=self._environment(),
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,
            limit=READY_LINE_BYTES_MAX,
        )
        try:
            self.listeners.update((await self._ready_line(self._process)).listeners)
        except BaseException:
            await self.stop()
            raise
        self._draining = asyncio.create_task(self._drain(self._process), name=f"stdout of {self.name}")

    async def stop(self) -> None:
        """Ask it to end by SIGTERM, kill it when it does not; raises LifecycleError when it ended in bad order."""
        process, self._process = self._process, None
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
            if self._draining is not None:
                self._draining.cancel()
        if was_running and code != 0:
            raise LifecycleError(self.name, f"ended with exit code {code}; its own words are above")

    async def watch(self) -> None:
        """Wait until it ends, which it should not; raises LifecycleError then."""
        assert self._process is not None, "watched before it was started"
        code = await self._process.wait()
        raise LifecycleError(self.name, f"(process {self._process.pid}) ended by itself with exit code {code}")

    async def _ready_line(self, process: Process) -> ReadyLine:
        assert process.stdout is not None, "stdout is a pipe"
        try:
            line = await process.stdout.readline()
        except ValueError as error:
            raise LifecycleError(self.name, f"said more than {READY_LINE_BYTES_MAX} bytes before it served") from error
        if not line:
            code = await process.wait()
            raise LifecycleError(self.name, f"ended with exit code {code} before it served; its own words are above")
        try:
            return msgspec.json.decode(line, type=ReadyLine)
        except msgspec.DecodeError as error:
            raise LifecycleError(self.name, f"said {line[:200]!r} where its ready line was due") from error

    async def _drain(self, process: Process) -> None:
        """Read what it may still say, so that it never waits for us."""
        assert process.stdout is not None, "stdout is a pipe"
        while data := await process.stdout.read(READY_LINE_BYTES_MAX):
            _log.warning("%s said on stdout: %s", self.name, data[:200])


async def serve_processes(config: AllInOneConfig, environ: Mapping[str, str], log: ChildLog) -> None:
    """Run every service as its own process until SIGINT or SIGTERM. Raises LifecycleError."""
    children: dict[str, ServiceProcess] = {}

    def environment_of(service: str) -> dict[str, str]:
        told = {"LOG_LEVEL": log.level, "LOG_JSON": str(log.json).lower()}
        if service != "namesrv":
            mesh = config.namesrv.value.listeners.mesh
            told["IDENTITY_NAMESRV_ADDR"] = dial_address(mesh, children["namesrv"].listeners["mesh"])
        return child_environment(PROGRAMS[service], config.by_service[service], environ, told)

    lifecycle = Lifecycle()
    for service, program in PROGRAMS.items():
        child = children[service] = ServiceProcess(program, functools.partial(environment_of, service))
        lifecycle.add(service, start=child.start, stop=child.stop, timeout_s=START_TIMEOUT_S)
        lifecycle.add_task(f"watch over {service}", child.watch)
    await lifecycle.run_until_signal(
        lambda: say_what_listens(config, {service: child.listeners for service, child in children.items()})
    )


def child_environment(
    program: ServiceProgram[Any], loaded: Loaded[Any], environ: Mapping[str, str], told: Mapping[str, str]
) -> dict[str, str]:
    """Make the environment of a service's process: `environ`, with `loaded` in the place of the service's own settings.

    Settings in `told` (keyed as in the environment, without the prefix) stand behind what somebody set; NAMESRV_ADDR
    stays out, since it names no name server of ours.
    """
    prefix = program.environment_prefix
    kept = {name: value for name, value in environ.items() if not name.startswith(prefix) and name != "NAMESRV_ADDR"}
    settings = {key.replace(".", "_").upper(): value for key, value in loaded.changes().items()}
    settings.pop("IDENTITY_NAMESRV_ADDR", None)
    return {**kept, **{prefix + key: value for key, value in {**told, **settings}.items()}}
