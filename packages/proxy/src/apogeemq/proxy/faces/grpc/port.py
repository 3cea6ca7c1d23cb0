"""A gRPC server as the face sees it: names of methods, metadata and bytes, whatever carries them.

    handlers = Handlers(unary={"/pkg.Service/Echo": echo})
    listening = await door.serve(TcpAddress("127.0.0.1", 8081), handlers, tls=None)
    await listening.stop(2.0)

A door knows nothing of the messages, the face nothing of HTTP/2: a door made of something else than grpcio passes the
same tests and takes its place (the record docs/adr/0011-grpc-door.md).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from apogeemq.mesh.errors import RefusalCode
from apogeemq.mesh.network import Listening, Metadata
from apogeemq.mesh.tls import ServerTls


class DoorRefused(Exception):  # noqa: N818 — it says what happened, and is no failure of the door
    """A call ends with a gRPC status other than OK. Raised by a handler; `text` is what the client reads."""

    def __init__(self, code: RefusalCode, text: str) -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class DoorCall:
    """One call, as it came in.

    method    the path, "/package.Service/Method"
    metadata  what the client sent along, keys in lower case; binary keys (…-bin) are left out
    peer      where the client connected from, "ip:port" or "[ip]:port"
    deadline  when the client stops waiting, in seconds of the door's clock; None when it did not say
    """

    method: str
    metadata: Metadata
    peer: str
    deadline: float | None


UnaryFunction: TypeAlias = Callable[[DoorCall, bytes], Awaitable[bytes]]
"""One request, one reply."""

ServerStreamFunction: TypeAlias = Callable[[DoorCall, bytes], AsyncIterator[bytes]]
"""One request, any number of replies."""

BidiFunction: TypeAlias = Callable[[DoorCall, AsyncIterator[bytes]], AsyncIterator[bytes]]
"""Any number of both. The requests end when the client has half-closed; the call ends with the replies."""


@dataclass(frozen=True, slots=True)
class Handlers:
    """What a door serves, by path. Other paths are answered UNIMPLEMENTED.

    A function is cancelled when the client cancels, is lost, or its deadline passes. It ends a call by DoorRefused;
    any other exception is logged and reaches the client as INTERNAL, without its text.
    """

    unary: Mapping[str, UnaryFunction] = field(default_factory=dict)
    server_streams: Mapping[str, ServerStreamFunction] = field(default_factory=dict)
    bidi: Mapping[str, BidiFunction] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """Where clients connect. Port 0 takes a free one."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """A unix socket that somebody in this process passes connections on to.

    `peer_of` tells where a connection came from by the path that its local end is bound to.
    """

    path: str
    peer_of: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """Bounds of a door; whoever reaches one is refused, others do not notice.

    request_size_bytes_max       one message of a client. Bodies are at most 4 MiB each, but one SendMessage may carry
                                 several; Apache takes 130 MiB, which a few hundred connections turn into a full memory
    calls_max                    calls and streams at a time, over all connections: RESOURCE_EXHAUSTED beyond
    streams_per_connection_max   calls at a time on one connection; a client's library waits beyond
    metadata_size_bytes_max      all metadata of a call together
    connection_idle_s            a connection without a call for so long is told to go (Apache: 120 s)
    client_ping_interval_s_min   a client that pings oftener while nothing runs is cut off. Official clients ping every
                                 300 s, some ask for 10 s
    keepalive_s, keepalive_timeout_s  how often the door asks whether a client is still there, and how long it waits
    """

    request_size_bytes_max: int = 16 * 1024 * 1024
    calls_max: int = 20_000
    streams_per_connection_max: int = 1_024
    metadata_size_bytes_max: int = 16 * 1024
    connection_idle_s: float = 120.0
    client_ping_interval_s_min: float = 5.0
    keepalive_s: float = 60.0
    keepalive_timeout_s: float = 20.0


class Door(Protocol):
    """Takes calls and gives them to handlers."""

    async def serve(
        self, address: TcpAddress | LocalAddress, handlers: Handlers, *, tls: ServerTls | None = None
    ) -> Listening:
        """Bind and take calls: TLS only with `tls`, plain only without. Raises OSError when it can't be bound."""
        ...
