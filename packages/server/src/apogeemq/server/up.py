"""`apogeemq up`: every service in one process, or a topology of processes, on loopback, data under ./data.

A topology is a file (`--topology FILE`), or one of the short forms that stand for one: `--processes`, `--brokers N`,
`--ha` (see apogeemq.server.topology).

Settings are each service's own, with other defaults (loopback, one data directory). `--set SERVICE.KEY=VALUE`, the
services' environment variables, and `--SERVICE-config FILE` go over them.

On stdout it tells people what listens where, then the ready line (see apogeemq.mesh.service_process). Exit codes: 0
stopped by SIGINT or SIGTERM, 1 failed, 2 wrong settings or arguments.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from apogeemq.mesh.config import parse_set_flags
from apogeemq.mesh.errors import ConfigError, LifecycleError
from apogeemq.server.set_flags import divided

if TYPE_CHECKING:
    from apogeemq.server.topology import Topology

SERVICES = ("namesrv", "broker", "proxy")
DATA_DIRECTORY = "./data"
INTERRUPTED_EXIT_CODE = 130
BROKERS_MAX = 50
"""Of a short form, all on one machine."""

_log = logging.getLogger(__name__)


class Described(Protocol):
    """Settings of all that shall run."""

    def describe(self) -> list[str]:
        """List every setting as it is written after --set, with its origin; secrets masked."""
        ...

    def secret_values(self) -> list[str]:
        """List the secrets that are set."""
        ...

    def without_effect(self) -> list[str]:
        """List what was set and changes nothing."""
        ...


def add_parser(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subcommands.add_parser(
        "up",
        help="serve: every service in one process, or a topology of processes",
        description="Serve: name server, broker and proxy in one process, or a topology of processes, on loopback.",
        epilog="Settings of a service: embedded defaults < its file < its environment variables < --set. "
        "--print-config lists them all.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(DATA_DIRECTORY),
        metavar="DIR",
        help="where data is kept, each service's in a folder of its own (default: %(default)s)",
    )
    parser.add_argument(
        "--ports",
        choices=("fixed", "free"),
        default="fixed",
        help="the services' own ports, or whatever is free (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SERVICE.KEY=VALUE",
        help="one setting, for example broker.flushDiskType=SYNC_FLUSH; in a topology of all of that service, or of "
        "the process of that name",
    )
    for service in SERVICES:
        parser.add_argument(
            f"--{service}-config",
            type=Path,
            metavar="FILE",
            help=f"settings of the {service}: TOML (.toml) or Java .properties",
        )
    _add_topology_options(parser)
    parser.add_argument("--print-config", action="store_true", help="print all settings with their origins, and exit")
    parser.add_argument(
        "--log-level",
        default="WARNING",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        help="of the log on stderr (default: %(default)s)",
    )
    parser.add_argument("--log-json", action="store_true", help="log JSON lines")
    parser.set_defaults(run=run_up)


def _add_topology_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "topologies", "Each service as a process of its own, as on separate machines, started and stopped together."
    )
    group.add_argument("--topology", type=Path, metavar="FILE", help="the processes that FILE names (TOML)")
    group.add_argument("--processes", action="store_true", help="a name server, a broker and a proxy")
    group.add_argument(
        "--brokers",
        type=_broker_count,
        metavar="N",
        help="with N brokers, each a master by itself; beside --ha N sets of three replicas",
    )
    group.add_argument(
        "--ha",
        action="store_true",
        help="etcd x3, name server x2, controller x2, three replicas whose master is elected, proxy x2; needs etcd. A "
        "process that ends is started again",
    )


def run_up(options: argparse.Namespace) -> int:
    """Serve until a signal; return the exit code."""
    try:
        return _run_topology(options) if _is_topology(options) else _run_in_one_process(options)
    except ConfigError as error:
        sys.stderr.write(f"apogeemq up: {error}\n")
        return 2
    except LifecycleError as error:
        sys.stderr.write(f"apogeemq up: {error}\n")
        return 1
    except KeyboardInterrupt:  # before anything ran that would have to be stopped in order
        return INTERRUPTED_EXIT_CODE


def _run_in_one_process(options: argparse.Namespace) -> int:
    """Raises ConfigError and LifecycleError."""
    from apogeemq.mesh.runtime import run
    from apogeemq.server.all_in_one import AllInOneConfig, serve

    config = AllInOneConfig.load(
        data=options.data,
        free_ports=options.ports == "free",
        files=_config_files(options),
        environ=os.environ,
        settings=settings_by_service(parse_set_flags(options.set)),
    )
    if not _begin(options, config):
        return 0
    run(functools.partial(serve, config))
    return 0


def _run_topology(options: argparse.Namespace) -> int:
    """Raises ConfigError and LifecycleError."""
    from apogeemq.mesh.runtime import run
    from apogeemq.server.planned import plan, settings_of_topology
    from apogeemq.server.processes import ChildLog, serve_processes

    topology = _topology_of(options)
    planned = plan(
        topology,
        data=options.data,
        free_ports=options.ports == "free",
        environ=os.environ,
        settings=settings_of_topology(parse_set_flags(options.set), topology),
    )
    if not _begin(options, planned):
        return 0
    log = ChildLog(options.log_level, json=options.log_json)
    run(functools.partial(serve_processes, planned, os.environ, log))
    return 0


def _is_topology(options: argparse.Namespace) -> bool:
    return bool(options.topology or options.processes or options.brokers or options.ha)


def _topology_of(options: argparse.Namespace) -> Topology:
    """The topology that the options name. Raises ConfigError, also for options that do not go together."""
    from apogeemq.server.topology import ha_topology, plain_topology, read_topology

    configs = _config_files(options)
    if options.topology is None:
        return (ha_topology if options.ha else plain_topology)(brokers=options.brokers or 1, configs=configs)
    short = [f"--{name}" for name in ("processes", "brokers", "ha") if getattr(options, name)]
    files = [f"--{service}-config" for service, file in configs.items() if file is not None]
    for option in (*short, *files):
        raise ConfigError(option, "does not go with --topology: the file says it")
    return read_topology(options.topology)


def _begin(options: argparse.Namespace, config: Described) -> bool:
    """Print the settings, or set up the log and say which of them have no effect; gives whether to go on."""
    from apogeemq.mesh.logs import setup_logging
    from apogeemq.mesh.telemetry import log_trace_fields

    if options.print_config:
        sys.stdout.write("\n".join(config.describe()) + "\n")
        return False
    setup_logging(options.log_level, json=options.log_json, secrets=config.secret_values(), fields=log_trace_fields)
    for name in config.without_effect():
        _log.warning("setting without effect here: %s", name)
    return True


def _config_files(options: argparse.Namespace) -> dict[str, Path | None]:
    return {service: getattr(options, f"{service}_config") for service in SERVICES}


def _broker_count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= BROKERS_MAX:
        raise argparse.ArgumentTypeError(f"must be 1 to {BROKERS_MAX}")
    return number


def settings_by_service(flags: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Divide `SERVICE.KEY` settings by service. Raises ConfigError for a key of no service."""
    prefixes = ", ".join(f"{name}." for name in SERVICES)
    return divided(flags, SERVICES, known=f"a service (one of {prefixes})")
