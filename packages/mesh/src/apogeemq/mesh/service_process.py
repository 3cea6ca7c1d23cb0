"""What `apogeemq-<service>` does, whatever the service: arguments, settings, logs, telemetry, lifecycle, ready line.

On stdout it prints one line of JSON once it serves, and nothing else:

    {"ready": true, "service": "broker", "listeners": {"remoting": "10.0.0.1:10911", "http": "127.0.0.1:10931"}}

Exit codes: 0 stopped by SIGINT or SIGTERM, 1 failed, 2 wrong settings or arguments.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import logging
import os
import sys
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeAlias, TypeVar

import msgspec
from apogeemq.mesh.chance import Chance, SystemChance
from apogeemq.mesh.clock import Clock, SystemClock
from apogeemq.mesh.config import Loaded, RawSetting, load, parse_set_flags
from apogeemq.mesh.errors import ConfigError, LifecycleError
from apogeemq.mesh.health import Health
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.logs import setup_logging
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.runtime import LoopStallMonitor, run, settle_garbage_collector

if TYPE_CHECKING:
    from apogeemq.mesh.network import Network
    from apogeemq.mesh.telemetry import Telemetry
    from opentelemetry.trace import Tracer

_log = logging.getLogger(__name__)


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The log, on stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    json: bool = False
    """One JSON object per line, for collectors."""


@dataclass(frozen=True, slots=True)
class World:
    """What a service gets handed in.

    tracer   makes spans that bear the service's name, or none at all
    beside   makes the world of another service that this one runs in its process (see MakeWorld)
    """

    clock: Clock
    chance: Chance
    network: Network
    health: Health
    registry: Registry
    tracer: Tracer
    beside: MakeWorld


class ServiceApp(Protocol):
    """A service put together."""

    @property
    def endpoints(self) -> Mapping[str, str]:
        """Where each started listener is reached: name → "host:port"."""
        ...

    def join(self, lifecycle: Lifecycle) -> None:
        """Add what starts and stops to a process's lifecycle."""
        ...


ConfigT = TypeVar("ConfigT", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class ServiceProgram(Generic[ConfigT]):
    """One service as a program.

    name           short, "broker"; its environment variables begin with APOGEEMQ_BROKER_
    package        the distribution and the command, "apogeemq-broker"
    description    one sentence for --help
    config_type    its settings
    log_of         their section about the log
    ignored        Apache's property names that load without effect
    make_app       puts the service together; may raise ConfigError
    metric_labels  labels on every metric
    """

    name: str
    package: str
    description: str
    config_type: type[ConfigT]
    log_of: Callable[[ConfigT], LogConfig]
    ignored: Collection[str]
    make_app: Callable[[ConfigT, World], ServiceApp]
    metric_labels: Callable[[ConfigT], Mapping[str, str]]

    @property
    def environment_prefix(self) -> str:
        """What its environment variables begin with."""
        return f"APOGEEMQ_{self.name.upper()}_"

    def load_config(
        self,
        file: Path | None = None,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, str] | None = None,
        *,
        defaults: ConfigT | None = None,
        around: Sequence[Sequence[RawSetting]] = (),
    ) -> Loaded[ConfigT]:
        """Load settings: defaults (the service's own when None) < file < `around` < environment < flags.

        Raises ConfigError.
        """
        return load(
            self.config_type,
            file=file,
            around=around,
            environ=environ,
            prefix=self.environment_prefix,
            flags=flags,
            ignored=self.ignored,
            defaults=defaults,
        )


def service_main(program: ServiceProgram[ConfigT], arguments: Sequence[str] | None = None) -> int:
    """Run a service until a signal; return the exit code."""
    options = _parser(program).parse_args(arguments)
    try:
        loaded = program.load_config(options.config, os.environ, parse_set_flags(options.set))
        if options.print_config:
            sys.stdout.write("\n".join(loaded.describe()) + "\n")
            return 0
        from apogeemq.mesh.telemetry import log_trace_fields

        log_config = program.log_of(loaded.value)
        setup_logging(log_config.level, json=log_config.json, secrets=loaded.secret_values(), fields=log_trace_fields)
        for ignored in loaded.ignored:
            _log.info("setting without effect here: %s", ignored)
        run(functools.partial(_serve, program, loaded.value, with_parent=options.stop_with_parent))
    except ConfigError as error:
        sys.stderr.write(f"{program.package}: {error}\n")
        return 2
    except LifecycleError as error:
        sys.stderr.write(f"{program.package}: {error}\n")
        return 1
    return 0


async def _serve(program: ServiceProgram[ConfigT], config: ConfigT, *, with_parent: bool) -> None:
    apps: list[ServiceApp] = []

    def assemble(make_world: MakeWorld, lifecycle: Lifecycle) -> Registry:
        if with_parent:
            lifecycle.stop_at_end_of(sys.stdin.fileno())
        world = make_world({"node_type": program.name, **program.metric_labels(config)})
        app = program.make_app(config, world)
        app.join(lifecycle)
        apps.append(app)
        return world.registry

    def say_ready() -> None:
        print_ready_line(program.name, apps[0].endpoints)

    await serve_until_signal(program.package, assemble, say_ready)


MakeWorld: TypeAlias = Callable[[Mapping[str, str]], World]
"""Makes one service's world: labels of its metrics → health, metrics, network and tracer of its own, on a shared clock.

The label `node_type` is there: the service's short name, for example "broker"; its spans have service.name
"apogeemq-broker", also where several services share a process.
"""


async def serve_until_signal(
    package: str, assemble: Callable[[MakeWorld, Lifecycle], Registry], on_ready: Callable[[], None]
) -> None:
    """Let `assemble` put services together in the real world, and run them until SIGINT or SIGTERM.

    `assemble` adds them to the lifecycle and gives the registry that shall have the metrics of the process itself.
    Raises ConfigError and LifecycleError.
    """
    from apogeemq.mesh.grpc_network import GrpcNetwork
    from apogeemq.mesh.telemetry import exporting_processors, service_telemetry

    clock, chance = SystemClock(), SystemChance()
    processors = exporting_processors()
    telemetries: list[Telemetry] = []

    def make_world(metric_labels: Mapping[str, str]) -> World:
        telemetry = service_telemetry(
            f"apogeemq-{metric_labels['node_type']}",
            service_version=importlib.metadata.version(package),
            instance_id=uuid.uuid4().hex,
            processors=processors,
        )
        telemetries.append(telemetry)
        health = Health()
        network = GrpcNetwork(tracing=telemetry.tracing, health=health)
        return World(clock, chance, network, health, Registry(metric_labels), telemetry.tracer, make_world)

    async def stop_telemetry() -> None:
        for telemetry in telemetries:
            await telemetry.shutdown()

    lifecycle = Lifecycle()
    lifecycle.add("telemetry", stop=stop_telemetry)
    registry = assemble(make_world, lifecycle)
    lifecycle.add_task("loop stall monitor", LoopStallMonitor(clock, registry).run)

    def started() -> None:
        settle_garbage_collector()
        on_ready()

    await lifecycle.run_until_signal(started)


def print_ready_line(service: str, listeners: Mapping[str, str]) -> None:
    """Print the one machine-readable line."""
    sys.stdout.write(json.dumps({"ready": True, "service": service, "listeners": dict(listeners)}) + "\n")
    sys.stdout.flush()


def _parser(program: ServiceProgram[ConfigT]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program.package,
        description=program.description,
        epilog=f"Settings: defaults < --config < environment {program.environment_prefix}* < --set. "
        "--print-config lists them all.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings: TOML (.toml) or Java .properties")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, for example listeners.http.port=0"
    )
    parser.add_argument("--print-config", action="store_true", help="print all settings with their origins, and exit")
    parser.add_argument(
        "--stop-with-parent",
        action="store_true",
        help="stop when standard input, a pipe, ends: for whoever starts this as a child and may be killed",
    )
    parser.add_argument(
        "--version", action="version", version=f"{program.package} {importlib.metadata.version(program.package)}"
    )
    return parser
