"""Official clients with their defaults that send and receive all the while, several of a kind in one process.

Each driver's `steady` prints the same lines, whatever the language and the protocol; times are Unix ms of this machine.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections import defaultdict
from typing import Self

import msgspec

from tests.interop import build, grpc_clients
from tests.interop.driver_run import DriverRun

JVM_OPTIONS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
"""What keeps a JVM small; nothing of a client's."""


class Started(msgspec.Struct, frozen=True):
    """All clients have started."""

    command: str = msgspec.field(name="started")
    at_ms: int


class Acked(msgspec.Struct, frozen=True):
    """A send that succeeded for the application, when that was, and how long it took."""

    key: str = msgspec.field(name="acked")
    client: str
    at_ms: int
    took_ms: int


class Failed(msgspec.Struct, frozen=True):
    """A send that failed for the application, after what the client tries of its own accord."""

    key: str = msgspec.field(name="failed")
    client: str
    at_ms: int
    took_ms: int
    error: str


class Got(msgspec.Struct, frozen=True):
    """A delivery."""

    key: str = msgspec.field(name="got")
    client: str
    at_ms: int


Event = Started | Acked | Failed | Got

TYPES: dict[str, type[Event]] = {"started": Started, "acked": Acked, "failed": Failed, "got": Got}


def parse(line: str) -> Event:
    """The event that one line of a driver tells; a ValueError (of msgspec) for anything else."""
    fields = msgspec.json.decode(line, type=dict[str, object])
    return msgspec.convert(fields, TYPES[next(iter(fields))])


@dataclasses.dataclass(frozen=True)
class Load:
    """What the clients of one process do: so many producers send to the topic, so many consumers read it.

    Each producer waits `interval_ms` before each message. `start_every_ms` lies between the starts of Remoting clients,
    who count from theirs when they ask for routes; `poll_ms` is how often their producers do, instead of their default.
    Their consumers read the topic `feed` where that is set.
    """

    topic: str
    prefix: str
    producers: int = 1
    consumers: int = 0
    interval_ms: int = 50
    start_every_ms: int = 0
    poll_ms: int = 0
    feed: str = ""


class SteadyClients:
    """One such process, and what its clients said so far: `look` reads on. On leaving it is killed."""

    def __init__(self, run: DriverRun, load: Load) -> None:
        self.load = load
        self.acked_ms: dict[str, list[int]] = defaultdict(list)
        """When each producer's sends were acknowledged, by its name."""
        self.got_ms: dict[str, list[int]] = defaultdict(list)
        """When each consumer got something, by its name."""
        self.acked: dict[str, int] = {}
        """When a message was acknowledged, by its key."""
        self.got: dict[str, list[str]] = defaultdict(list)
        """The keys that a consumer got, by its name."""
        self.failures: list[Failed] = []
        self._run = run
        self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._run.kill()

    def wait_started(self) -> None:
        """Returns when all clients have started."""
        self._run.wait_started()

    def failure(self, message: str) -> Exception:
        """An error to raise."""
        return self._run.failure(message)

    def look(self) -> None:
        """Take in what was said since the last time."""
        events = self._run.events_from(self._seen)
        self._seen += len(events)
        for event in events:
            match event:
                case Acked():
                    self.acked_ms[event.client].append(event.at_ms)
                    self.acked[event.key] = event.at_ms
                case Failed():
                    self.failures.append(event)
                case Got():
                    self.got_ms[event.client].append(event.at_ms)
                    self.got[event.client].append(event.key)

    def are_all_on(self, since_ms: int) -> bool:
        """Whether each producer had a send acknowledged and each consumer got something after that time."""
        self.look()
        on = [times for times in (*self.acked_ms.values(), *self.got_ms.values()) if times[-1] > since_ms]
        return len(on) == self.load.producers + self.load.consumers


def java_remoting(java: str, version: str, namesrv: str, directory: pathlib.Path, load: Load) -> SteadyClients:
    """The official Remoting client of that version; of a proxy's Remoting door, `namesrv` is its address."""
    logs = [f"-D{name}={directory / load.prefix}" for name in ("rocketmq.client.logRoot", "rocketmq.log.root")]
    argv = [java, *JVM_OPTIONS, *logs, f"-Drocketmq.client.localOffsetStoreDir={directory / 'offsets'}"]
    argv += ["-cp", build.java_driver(version), "apogeemq.interop.Driver", "steady", "--namesrv", namesrv]
    argv += ["--stagger-ms", str(load.start_every_ms), "--poll-ms", str(load.poll_ms)]
    argv += ["--from", load.feed] if load.feed else []
    return _start(argv, directory, load)


def java_grpc(java: str, endpoints: str, directory: pathlib.Path, load: Load) -> SteadyClients:
    """The official Java gRPC client."""
    argv = [java, *JVM_OPTIONS, f"-Drocketmq.log.root={directory / load.prefix}", f"-Duser.home={directory}"]
    argv += ["-cp", build.java_grpc_driver(grpc_clients.JAVA_VERSION), "apogeemq.interop.GrpcDriver", "steady"]
    return _start([*argv, "--endpoints", endpoints], directory, load)


def python_grpc(endpoints: str, directory: pathlib.Path, load: Load) -> SteadyClients:
    """The official Python gRPC client of this environment."""
    argv = [sys.executable, str(grpc_clients.PYTHON_DRIVER), "steady", "--endpoints", endpoints]
    return _start(argv, directory, load)


def _start(argv: list[str], directory: pathlib.Path, load: Load) -> SteadyClients:
    home = directory / f"home-{load.prefix}"
    home.mkdir(parents=True, exist_ok=True)
    options = {
        "topic": load.topic,
        "prefix": load.prefix,
        "producers": load.producers,
        "consumers": load.consumers,
        "interval-ms": load.interval_ms,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    run = DriverRun(load.prefix, [*argv, *words], log_directory=directory, parse=parse, environ={"HOME": str(home)})
    return SteadyClients(run, load)
