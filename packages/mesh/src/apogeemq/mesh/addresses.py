"""Under which address others are told to reach a listener."""

from __future__ import annotations

import socket

from apogeemq.mesh.config import ListenerConfig

_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 — compared with, not bound
_OUTSIDE = "192.0.2.1"  # TEST-NET-1 (RFC 5737): routed like any outside address, owned by nobody


def advertised_address(listener: ListenerConfig, bound_port: int) -> str:
    """Make "host:port" of a listener's settings and the port it really got; IPv6 addresses in brackets."""
    host = listener.advertised_host or listener.host
    if host in _WILDCARDS:
        host = outbound_host()
    return join_address(host, listener.advertised_port or bound_port)


def join_address(host: str, port: int) -> str:
    """Join host and port, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """Split "host:port" or "[ipv6]:port"; raises ValueError that shows what was given."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535 or (":" in host and not bracketed):
        raise ValueError(f"{address!r} is no address of the form host:port")
    return host[1:-1] if bracketed else host, int(port)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a listener bound to `host`."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def outbound_host() -> str:
    """Find the address of the interface that leads outside, loopback when there is none. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_OUTSIDE, 9))
        except OSError:
            return "127.0.0.1"
        host: str = probe.getsockname()[0]
        return host
