"""`apogeemq up`: every service in one process, or each in its own, on loopback, data under ./data.

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

from apogeemq.mesh.config import parse_set_flags
from apogeemq.mesh.errors import ConfigError, LifecycleError

SERVICES = ("namesrv", "broker", "proxy")
DATA_DIRECTORY = "./data"

_log = logging.getLogger(__name__)


def add_parser(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subcommands.add_parser(
        "up",
        help="serve: every service, in one process or each in its own",
        description="Serve: name server, broker and proxy in one process, on loopback.",
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
        help="one setting, for example broker.flushDiskType=SYNC_FLUSH",
    )
    for service in SERVICES:
        parser.add_argument(
            f"--{service}-config",
            type=Path,
            metavar="FILE",
            help=f"settings of the {service}: TOML (.toml) or Java .properties",
        )
    parser.add_argument(
        "--processes",
        action="store_true",
        help="run each service as a process of its own, as on separate machines, and stop them together",
    )
    parser.add_argument("--print-config", action="store_true", help="print all settings with their origins, and exit")
    parser.add_argument(
        "--log-level",
        default="WARNING",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        help="of the log on stderr (default: %(default)s)",
    )
    parser.add_argument("--log-json", action="store_true", help="log JSON lines")
    parser.set_defaults(run=run_up)


def run_up(options: argparse.Namespace) -> int:
    """Serve until a signal; return the exit code."""
    from apogeemq.mesh.logs import setup_logging
    from apogeemq.mesh.runtime import run
    from apogeemq.mesh.telemetry import log_trace_fields
    from apogeemq.server.all_in_one import AllInOneConfig, serve
    from apogeemq.server.processes import ChildLog, serve_processes

    try:
        settings = settings_by_service(parse_set_flags(options.set))
        config = AllInOneConfig.load(
            data=options.data,
            free_ports=options.ports == "free",
            files={service: getattr(options, f"{service}_config") for service in SERVICES},
            environ=os.environ,
            settings=settings,
        )
        if options.print_config:
            sys.stdout.write("\n".join(config.describe()) + "\n")
            return 0
        setup_logging(options.log_level, json=options.log_json, secrets=config.secret_values(), fields=log_trace_fields)
        for name in config.without_effect(one_process=not options.processes):
            _log.warning("setting without effect here: %s", name)
        if options.processes:
            log = ChildLog(options.log_level, json=options.log_json)
            run(functools.partial(serve_processes, config, os.environ, log))
        else:
            run(functools.partial(serve, config))
    except ConfigError as error:
        sys.stderr.write(f"apogeemq up: {error}\n")
        return 2
    except LifecycleError as error:
        sys.stderr.write(f"apogeemq up: {error}\n")
        return 1
    return 0


def settings_by_service(flags: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Divide `SERVICE.KEY` settings by service. Raises ConfigError for a key of no service."""
    divided: dict[str, dict[str, str]] = {service: {} for service in SERVICES}
    for key, value in flags.items():
        service, dot, rest = key.partition(".")
        if not dot or service not in divided:
            prefixes = ", ".join(f"{name}." for name in SERVICES)
            raise ConfigError(key, f"does not begin with a service (one of {prefixes})", origin="--set")
        divided[service][rest] = value
    return divided
