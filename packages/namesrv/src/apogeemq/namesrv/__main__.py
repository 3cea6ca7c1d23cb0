"""`apogeemq-namesrv`: a name server as a process of its own.

On stdout it prints one line of JSON once it serves, and nothing else:

    {"ready": true, "service": "namesrv", "listeners": {"remoting": "127.0.0.1:9876", "mesh": "127.0.0.1:9877"}}

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
from collections.abc import Sequence
from pathlib import Path

from apogeemq.mesh.clock import SystemClock
from apogeemq.mesh.config import parse_set_flags
from apogeemq.mesh.errors import ConfigError, LifecycleError
from apogeemq.mesh.grpc_network import GrpcNetwork
from apogeemq.mesh.health import Health
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.logs import setup_logging
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.runtime import LoopStallMonitor, run, settle_garbage_collector
from apogeemq.mesh.telemetry import log_trace_fields, setup_telemetry
from apogeemq.namesrv.app import NamesrvApp
from apogeemq.namesrv.config import NamesrvConfig, load_config

SERVICE = "namesrv"
PACKAGE = "apogeemq-namesrv"

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        loaded = load_config(options.config, environ=os.environ, flags=parse_set_flags(options.set))
        if options.print_config:
            sys.stdout.write("\n".join(loaded.describe()) + "\n")
            return 0
        setup_logging(loaded.value.log.level, json=loaded.value.log.json, fields=log_trace_fields)
        for ignored in loaded.ignored:
            _log.info("setting without effect here: %s", ignored)
        run(functools.partial(serve, loaded.value))
    except ConfigError as error:
        sys.stderr.write(f"{PACKAGE}: {error}\n")
        return 2
    except LifecycleError as error:
        sys.stderr.write(f"{PACKAGE}: {error}\n")
        return 1
    return 0


async def serve(config: NamesrvConfig) -> None:
    """Serve until SIGINT or SIGTERM. Raises ConfigError and LifecycleError."""
    clock, health, registry = SystemClock(), Health(), Registry({"node_type": SERVICE})
    version = importlib.metadata.version(PACKAGE)
    telemetry = setup_telemetry(PACKAGE, service_version=version, instance_id=uuid.uuid4().hex)
    network = GrpcNetwork(tracing=telemetry.tracing, health=health)
    app = NamesrvApp(config, network=network, clock=clock, health=health, registry=registry)
    lifecycle = Lifecycle()
    lifecycle.add("telemetry", stop=telemetry.shutdown)
    lifecycle.add_task("loop stall monitor", LoopStallMonitor(clock, registry).run)
    app.join(lifecycle)

    def say_ready() -> None:
        settle_garbage_collector()
        sys.stdout.write(json.dumps({"ready": True, "service": SERVICE, "listeners": app.endpoints}) + "\n")
        sys.stdout.flush()

    await lifecycle.run_until_signal(say_ready)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PACKAGE,
        description="ApogeeMQ name server: tells clients which brokers serve a topic.",
        epilog="Settings: defaults < --config < environment APOGEEMQ_NAMESRV_* < --set. --print-config lists them all.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings: TOML (.toml) or Java .properties")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, for example listeners.http.port=0"
    )
    parser.add_argument("--print-config", action="store_true", help="print all settings with their origins, and exit")
    parser.add_argument("--version", action="version", version=f"{PACKAGE} {importlib.metadata.version(PACKAGE)}")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
