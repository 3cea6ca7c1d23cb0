"""What `apogeemq up` tells a person once it serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

_SERVICES = {"namesrv": "name server", "broker": "broker", "proxy": "proxy"}
_LISTENERS = ("grpc", "remoting", "vip", "mesh", "http")
_NOTES = {
    "namesrv.remoting": "clients: this is their name server address",
    "broker.remoting": "clients",
    "broker.vip": "clients",
    "namesrv.mesh": "other services",
    "broker.mesh": "other services",
    "namesrv.http": "/healthz /readyz /metrics",
    "broker.http": "/healthz /readyz /metrics",
    "proxy.grpc": "clients: this is their endpoint",
    "proxy.remoting": "clients, through the proxy",
    "proxy.http": "/healthz /readyz /metrics",
}


def welcome(listeners: Mapping[str, str], data: Path, version: str) -> str:
    """Make the text: what listens where, where the data is, what to try. Ends with a line break.

    Args:
        listeners: "service.listener" to "host:port", of those that are on.
        data: directory of the broker's store.
        version: of the product.
    """
    rows = [*_rows(listeners), ("data", "", str(data), "")]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    address_width = max(map(len, listeners.values()), default=0)
    lines = [f"ApogeeMQ {version} serves.", ""]
    for service, listener, address, note in rows:
        line = f"  {service:<{widths[0]}}  {listener:<{widths[1]}}  {address:<{address_width}}  {note}"
        lines.append(line.rstrip())
    for listener, try_it in (("proxy.grpc", _try_grpc), ("namesrv.remoting", _try_remoting)):
        if listener in listeners:
            lines += ["", *try_it(listeners[listener])]
    lines += ["", "Ctrl-C stops.", ""]
    return "\n".join(lines)


def _rows(listeners: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Service, listener, address and note; the service is named in its first row only."""
    for service, title in _SERVICES.items():
        for listener in _LISTENERS:
            key = f"{service}.{listener}"
            if key in listeners:
                yield title, listener, listeners[key], _NOTES[key]
                title = ""  # noqa: PLW2901 — named once


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
