"""A topology's processes, started and stopped as one: what `apogeemq up` runs, but for its one-process default.

```
 etcd and name servers ─▶ controllers ─▶ brokers ─▶ proxies      each stage at once; stopped the other way round
```

A child that ends by itself is named with its exit code. Then, by the topology's `restart`, it is started again, or the
others are stopped too. One that keeps ending stays down at last (restarts.py), and the rest goes on; only when nothing
is left of its stage all ends.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import json
import logging
import os
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apogeemq.mesh.config import Loaded
from apogeemq.mesh.errors import LifecycleError
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.service_process import ServiceProgram
from apogeemq.server import etcd_program
from apogeemq.server.all_in_one import PACKAGE, dial_address
from apogeemq.server.child_process import START_TIMEOUT_S, ChildProcess, Command, WaitsUntilReady, says_ready_line
from apogeemq.server.http_probe import status_of
from apogeemq.server.planned import Plan, PlannedEtcd, PlannedService, replaced_ports
from apogeemq.server.restarts import Restarts
from apogeemq.server.welcome import ShownProcess, welcome_to

STAGES = (("etcd", "namesrv"), ("controller",), ("broker",), ("proxy",))
"""Kinds in the order of starting; those of one stage need nothing of each other."""

ETCD_READY_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 30.0
"""How long all is waited for: a broker that waits for others of its set, or for disk space, stops nothing."""
PROBE_TIMEOUT_S = 2.0
PROBE_PERIOD_S = 0.05

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChildLog:
    """The log of every child, where its own settings say nothing."""

    level: str
    json: bool


async def serve_processes(plan: Plan, environ: Mapping[str, str], log: ChildLog) -> None:
    """Run a topology until SIGINT or SIGTERM. Raises ConfigError and LifecycleError."""
    notes: list[str] = []
    program = Path()
    if plan.etcd:
        program = etcd_program.find_etcd(plan.topology.etcd.program, origin=plan.topology.source or None)
        if concern := etcd_program.concerns(await etcd_program.version_of(program)):
            _log.warning("%s", concern)
            notes.append(concern)
    running = RunningTopology(plan, environ, log, program)
    lifecycle = Lifecycle()
    running.join(lifecycle)
    await lifecycle.run_until_signal(lambda: say_what_runs(plan, running.children.values(), notes))


class RunningTopology:
    """The children of a plan. `etcd` is the program of its members."""

    def __init__(self, plan: Plan, environ: Mapping[str, str], log: ChildLog, etcd: Path) -> None:
        self._plan = plan
        self._environ = environ
        self._log = log
        self._etcd_program = etcd
        self._etcd = [etcd_program.with_ports(each, plan.data / each.name) for each in plan.etcd]
        width = max(map(len, plan.topology.names), default=0)
        self.children: dict[str, ChildProcess] = {}
        for member in self._etcd:
            self._add(member.name, "etcd", functools.partial(self._etcd_command, member), _etcd_ready(member), width)
        for service in plan.services:
            command = functools.partial(self._service_command, service)
            self._add(service.name, service.kind, command, says_ready_line, width)

    def _add(self, name: str, kind: str, command: Callable[[], Command], ready: WaitsUntilReady, width: int) -> None:
        prefix = None if self._log.json else f"{name:<{width}} | "
        self.children[name] = ChildProcess(name, kind, command, ready, log_prefix=prefix)

    def join(self, lifecycle: Lifecycle) -> None:
        """Add the stages to a process's lifecycle."""
        for kinds in STAGES:
            stage = [each for each in self.children.values() if each.kind in kinds]
            if stage:
                names = ", ".join(each.name for each in stage)
                lifecycle.add(
                    names,
                    start=functools.partial(start_all, stage),
                    stop=functools.partial(_stop_all, stage),
                    timeout_s=START_TIMEOUT_S,
                )
                lifecycle.add_task(f"watch over {names}", functools.partial(self._watch_all, stage))
        lifecycle.add("readiness", start=self._wait_ready, timeout_s=READY_TIMEOUT_S * 2)

    async def _watch_all(self, stage: Sequence[ChildProcess]) -> None:
        """Returns never but by LifecycleError."""
        await _all_of([self._watch(each) for each in stage])
        raise LifecycleError(", ".join(each.name for each in stage), "ended again and again: nothing is left of them")

    async def _watch(self, child: ChildProcess) -> None:
        """Start it again whenever it ends, or raise LifecycleError, by the topology; returns when it stays down."""
        restarts = Restarts()
        while True:
            code = await child.ended()
            words = f"(process {child.pid}) ended by itself with exit code {code}"
            if self._plan.topology.restart == "never":
                raise LifecycleError(child.name, words)
            pause_s = restarts.pause_s(asyncio.get_running_loop().time() - child.started_s)
            if pause_s is None:
                _log.critical(
                    "%s %s, %d times in a row: it stays down, the others go on", child.name, words, restarts.in_a_row
                )
                return
            when = f"in {pause_s:g} s" if pause_s else "now"
            _log.error("%s %s; it is started again %s", child.name, words, when)
            await asyncio.sleep(pause_s)
            try:
                await child.start()
            except LifecycleError as error:
                _log.error("%s", error)  # it has ended, and ended() gives its exit code once more
            else:
                say_restarted(child)

    async def _wait_ready(self) -> None:
        """Until every /readyz says so: a client may come then. After READY_TIMEOUT_S the others need not wait more."""
        probed = {
            each.name: self.children[each.name].listeners["http"]
            for each in self._plan.services
            if "http" in self.children[each.name].listeners and each.loaded.value.listeners.http.tls.mode == "disabled"
        }
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while probed:
                    name, address = next(iter(probed.items()))
                    if await _answers(address, "/readyz"):
                        del probed[name]
                    else:
                        await asyncio.sleep(PROBE_PERIOD_S)
        except TimeoutError:
            _log.warning("not ready within %g s (see /readyz): %s", READY_TIMEOUT_S, ", ".join(probed))

    def _service_command(self, service: PlannedService) -> Command:
        log = {"LOG_LEVEL": self._log.level, "LOG_JSON": str(self._log.json).lower()}
        given = {key: self._addresses(kind) for key, kind in self._plan.given(service).items()}
        listeners = service.loaded.value.listeners
        kept_ports = replaced_ports(listeners, self.children[service.name].listeners)
        environment = child_environment(
            service.program, service.loaded, self._environ, told=log, given=given, over=kept_ports
        )
        module = f"apogeemq.{service.kind}"
        return Command((sys.executable, "-m", module, "--stop-with-parent"), environment)

    def _addresses(self, kind: str) -> str:
        """Where this machine reaches all of a kind, by semicolons."""
        if kind == "etcd":
            return ";".join(f"{etcd_program.HOST}:{each.client_port}" for each in self._etcd)
        found = []
        for each in self._plan.of_kind(kind):
            said = self.children[each.name].listeners["mesh"]
            found.append(dial_address(each.loaded.value.listeners.mesh, said))
        return ";".join(found)

    def _etcd_command(self, member: PlannedEtcd) -> Command:
        folder = self._plan.data / member.name
        folder.mkdir(parents=True, exist_ok=True)
        shim = (sys.executable, "-m", "apogeemq.server.with_parent", str(os.getpid()))
        argv = (*shim, str(self._etcd_program), *etcd_program.arguments(member, self._etcd, folder))
        # etcd ends by the very signal that it was asked to end by.
        return Command(argv, self._environ, frozenset({0, -15}))


def _etcd_ready(member: PlannedEtcd) -> WaitsUntilReady:
    """Ask the member for its health until it has a leader."""
    client = f"{etcd_program.HOST}:{member.client_port}"

    async def wait(name: str, process: Process) -> Mapping[str, str]:
        try:
            async with asyncio.timeout(ETCD_READY_TIMEOUT_S):
                while not await _answers(client, "/health"):
                    if process.returncode is not None:
                        problem = f"ended with exit code {process.returncode} before it served; its own words are above"
                        raise LifecycleError(name, problem)
                    await asyncio.sleep(PROBE_PERIOD_S)
        except TimeoutError:
            problem = f"has no leader within {ETCD_READY_TIMEOUT_S:g} s; its own words are above"
            raise LifecycleError(name, problem) from None
        return {"client": client, "peer": f"{etcd_program.HOST}:{member.peer_port}"}

    return wait


async def _answers(address: str, path: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        return await status_of(address, path, timeout_s=PROBE_TIMEOUT_S) == 200
    except (OSError, TimeoutError):
        return False


async def start_all(stage: Sequence[ChildProcess]) -> None:
    """Start all at once; where one fails, those that run are stopped again."""
    try:
        await _all_of([each.start() for each in stage])
    except BaseException:
        await _stop_all(stage)
        raise


async def _stop_all(stage: Sequence[ChildProcess]) -> None:
    """Stop all at once; every failure is logged, the first one raised at the end."""
    ends = await asyncio.gather(*(each.stop() for each in stage), return_exceptions=True)
    failures = [each for each in ends if each is not None]
    for failure in failures[1:]:
        _log.error("%s", failure)
    if failures:
        raise failures[0]


async def _all_of(running: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all; the first failure cancels the others, which are waited for, and is raised."""
    tasks = [asyncio.ensure_future(each) for each in running]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def child_environment(
    program: ServiceProgram[Any],
    loaded: Loaded[Any],
    environ: Mapping[str, str],
    *,
    told: Mapping[str, str],
    given: Mapping[str, str],
    over: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Make the environment of a service's process: `environ`, with `loaded` in the place of the service's own settings.

    Settings in `told` stand behind what somebody set, those in `over` before it; both are named as in the environment,
    without the prefix. Those in `given`, by key, are the topology's and nobody's else; NAMESRV_ADDR stays out, since it
    names no name server of ours.
    """
    prefix = program.environment_prefix
    kept = {name: value for name, value in environ.items() if not name.startswith(prefix) and name != "NAMESRV_ADDR"}
    settings = {_variable(key): value for key, value in loaded.changes().items()}
    settings |= {_variable(key): value for key, value in given.items()}
    return {**kept, **{prefix + key: value for key, value in {**told, **settings, **(over or {})}.items()}}


def _variable(key: str) -> str:
    return key.replace(".", "_").upper()


def say_what_runs(plan: Plan, children: Iterable[ChildProcess], notes: Sequence[str]) -> None:
    """Tell people and programs, on stdout, what runs and listens where."""
    shown = [ShownProcess(each.name, each.kind, each.pid, each.listeners) for each in children]
    stores = [each.loaded.value.store.path for each in plan.of_kind("broker")]
    data = Path(stores[0]) if len(stores) == 1 else plan.data
    sys.stdout.write(welcome_to(shown, data.resolve(), importlib.metadata.version(PACKAGE), notes))
    line = {
        "ready": True,
        "service": PACKAGE,
        "listeners": {f"{each.name}.{key}": value for each in shown for key, value in each.listeners.items()},
        "processes": {each.name: {"service": each.kind, "pid": each.pid} for each in shown},
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def say_restarted(child: ChildProcess) -> None:
    """Tell programs, on stdout, the new pid of one that ended and runs again; its listeners are what they were."""
    line = {"restarted": child.name, "service": child.kind, "pid": child.pid, "listeners": child.listeners}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
