"""What `apogeemq up` tells a person once it serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SERVICES = {"namesrv": "name server", "broker": "broker", "proxy": "proxy"}
_LISTENERS = ("client", "peer", "grpc", "remoting", "vip", "mesh", "http")
_PROBES = "/healthz /readyz /metrics"
_NOTES = {
    "etcd.client": "controllers",
    "etcd.peer": "other members",
    "namesrv.remoting": "clients: this is their name server address",
    "namesrv.mesh": "other services",
    "namesrv.http": _PROBES,
    "controller.mesh": "brokers, and apogeemq admin",
    "controller.http": _PROBES,
    "broker.remoting": "clients",
    "broker.vip": "clients",
    "broker.mesh": "other services",
    "broker.http": _PROBES,
    "proxy.grpc": "clients: this is their endpoint",
    "proxy.remoting": "clients, through the proxy",
    "proxy.http": _PROBES,
}


@dataclass(frozen=True, slots=True)
class ShownProcess:
    """A process, or a service within ours: `pid` 0. `kind` is a service's short name or "etcd"."""

    name: str
    kind: str
    pid: int
    listeners: Mapping[str, str]

    @property
    def title(self) -> str:
        """What a person calls it."""
        if self.name == self.kind:
            return _SERVICES.get(self.kind, self.kind)
        return f"{self.name} (process {self.pid})"


def welcome(listeners: Mapping[str, str], data: Path, version: str) -> str:
    """Make the text for services of one process: what listens where, where the data is, what to try.

    Args:
        listeners: "service.listener" to "host:port", of those that are on.
        data: directory of the broker's store.
        version: of the product.
    """
    shown = []
    for service in _SERVICES:
        own = {key.removeprefix(f"{service}."): at for key, at in listeners.items() if key.startswith(f"{service}.")}
        if own:
            shown.append(ShownProcess(service, service, 0, own))
    return welcome_to(shown, data, version)


def welcome_to(processes: Sequence[ShownProcess], data: Path, version: str, notes: Sequence[str] = ()) -> str:
    """Make the text for processes, in their order. Ends with a line break.

    `notes` are what a person has to know besides.
    """
    rows = [row for process in processes for row in _rows(process)] + [("data", "", str(data), "")]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    address_width = max((len(at) for each in processes for at in each.listeners.values()), default=0)
    lines = [f"ApogeeMQ {version} serves.", ""]
    for service, listener, address, note in rows:
        line = f"  {service:<{widths[0]}}  {listener:<{widths[1]}}  {address:<{address_width}}  {note}"
        lines.append(line.rstrip())
    for note in notes:
        lines += ["", f"NOTE: {note}"]
    for kind, listener, try_it in (("proxy", "grpc", _try_grpc), ("namesrv", "remoting", _try_remoting)):
        found = [each.listeners[listener] for each in processes if each.kind == kind and listener in each.listeners]
        if found:
            lines += ["", *try_it(found[0])]
    controllers = [each.listeners["mesh"] for each in processes if each.kind == "controller"]
    if controllers:
        lines += [
            "",
            "Who is master, and of what:",
            f'  apogeemq admin ha status --controller "{";".join(controllers)}"',
        ]
    lines += ["", "Ctrl-C stops.", ""]
    return "\n".join(lines)


def _rows(process: ShownProcess) -> Iterator[tuple[str, str, str, str]]:
    """Service, listener, address and note; the service is named in its first row only."""
    title = process.title
    for listener in _LISTENERS:
        if listener in process.listeners:
            yield title, listener, process.listeners[listener], _NOTES[f"{process.kind}.{listener}"]
            title = ""


def _try_grpc(proxy: str) -> list[str]:
    return [
        "Try it in Python, in a checkout of ApogeeMQ:",
        f"  .venv/bin/python examples/client-grpc-quickstart/quickstart.py {proxy}",
        f"or give any RocketMQ client of the gRPC kind the endpoint {proxy}, without TLS.",
    ]


def _try_remoting(namesrv: str) -> list[str]:
    return [
        "Try it with the official Java client, in a checkout of ApogeeMQ (needs Java and Maven):",
        f"  mvn -q -f examples/java-quickstart compile exec:java -Dexec.args={namesrv}",
        f"or give any RocketMQ client of the Remoting kind the name server {namesrv}.",
    ]
