"""The official gRPC clients at work: starts a driver per client and hands out what it prints.

The drivers (official_python/driver.py beside the end-to-end tests, java-grpc/ here) take the same words and print the
same lines, so that one set of scenarios judges a cluster with either client.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping

from tests.interop import build, grpc_events
from tests.interop.driver_run import DriverRun
from tests.interop.grpc_events import Sent

LANGUAGES = ("java", "python")
JAVA_VERSION = "5.2.0"
JVM_OPTIONS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
PYTHON_DRIVER = build.ROOT / "tests" / "e2e" / "official_python" / "driver.py"

Option = str | int | bool


@dataclasses.dataclass(frozen=True)
class GrpcClient:
    """One official client, talking to the proxy at `endpoints`; `command` starts its driver."""

    command: tuple[str, ...]
    environ: Mapping[str, str]
    endpoints: str
    log_directory: pathlib.Path
    tls: bool = False

    def produce(self, topic: str, count: int, prefix: str = "message", **options: Option) -> DriverRun:
        """Starts a producer. Its keys are `<prefix>-0` to `<prefix>-<count-1>`."""
        return self._start(f"produce-{prefix}", "produce", topic=topic, count=count, prefix=prefix, **options)

    def simple(self, topic: str, group: str, **options: Option) -> DriverRun:
        """Starts a SimpleConsumer."""
        return self._start(f"simple-{group}", "simple", topic=topic, group=group, **options)

    def push(self, topic: str, group: str, **options: Option) -> DriverRun:
        """Starts a PushConsumer."""
        return self._start(f"push-{group}", "push", topic=topic, group=group, **options)

    def transact(self, topic: str, count: int, prefix: str = "transaction", **options: Option) -> DriverRun:
        """Starts a producer of transactions, which then answers questions about them until it is told to stop."""
        return self._start(f"transact-{prefix}", "transact", topic=topic, count=count, prefix=prefix, **options)

    def send(self, topic: str, count: int, prefix: str = "message", **options: Option) -> list[Sent]:
        """Produces and waits until every message is acknowledged."""
        with self.produce(topic, count, prefix, **options) as run:
            run.end()
            return run.events(Sent)

    def _start(self, name: str, command: str, **options: Option) -> DriverRun:
        """An option `size_bytes=10` becomes `--size-bytes 10`, a True one a bare word."""
        argv = [*self.command, command, "--endpoints", self.endpoints]
        argv += ["--tls"] if self.tls else []
        for key, value in options.items():
            argv.append("--" + key.replace("_", "-"))
            argv += [] if value is True else [str(value)]
        return DriverRun(name, argv, log_directory=self.log_directory, parse=grpc_events.parse, environ=self.environ)


def python_client(endpoints: str, directory: pathlib.Path) -> GrpcClient:
    """The official Python client of this environment; it writes its logs to a home directory in `directory`."""
    home = directory / "home"
    home.mkdir(exist_ok=True)
    return GrpcClient((sys.executable, os.fspath(PYTHON_DRIVER)), {"HOME": os.fspath(home)}, endpoints, directory)


def java_client(java: str, endpoints: str, directory: pathlib.Path) -> GrpcClient:
    """The official Java client, newest of its line."""
    logs = f"-Drocketmq.log.root={directory / 'client'}"
    class_path = build.java_grpc_driver(JAVA_VERSION)
    command = (java, *JVM_OPTIONS, logs, f"-Duser.home={directory}", "-cp", class_path, "apogeemq.interop.GrpcDriver")
    return GrpcClient(command, {}, endpoints, directory)
