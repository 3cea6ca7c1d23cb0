"""The small HTTP listener for probes and scrapes: GET and HEAD of a few fixed paths.

HTTP itself is h11's work; here are the socket and the bounds: CONNECTIONS_MAX connections, REQUEST_SIZE_BYTES_MAX of
request line and headers, EXCHANGE_S for a whole exchange, one request per connection, no body read.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import h11
import msgspec
from apogeemq.mesh import metrics
from apogeemq.mesh.health import Health
from apogeemq.mesh.metrics import Registry

REQUEST_SIZE_BYTES_MAX = 16 * 1024
CONNECTIONS_MAX = 64
EXCHANGE_S = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What a route answers."""

    status: int
    content_type: str
    body: bytes


Route = Callable[[], Awaitable[HttpReply]]


def observability_routes(health: Health, registry: Registry) -> dict[str, Route]:
    """Make the routes that every service has.

    /healthz 200 while the process can answer at all; /readyz 200, or 503 while a check is not serving, with all checks
    and their reasons as JSON either way; /metrics Prometheus text.
    """

    async def healthz() -> HttpReply:
        return HttpReply(200, "text/plain; charset=utf-8", b"alive\n")

    async def readyz() -> HttpReply:
        checks = {name: {"serving": check.serving, "reason": check.reason} for name, check in health.checks.items()}
        body = msgspec.json.encode({"ready": health.ready, "checks": checks}) + b"\n"
        return HttpReply(200 if health.ready else 503, "application/json", body)

    async def metrics_text() -> HttpReply:
        return HttpReply(200, metrics.CONTENT_TYPE, (await registry.render_in_turns()).encode())

    return {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics_text}


class HttpListener:
    """Serves `routes` by path; a query string is ignored."""

    def __init__(self, host: str, port: int, routes: Mapping[str, Route], *, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._port = port
        self._routes = dict(routes)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self) -> tuple[str, int]:
        """Bind and serve; returns host and the real port. Raises OSError."""
        self._server = await asyncio.start_server(
            self._connected,
            self._host,
            self._port,
            ssl=self._tls,
            ssl_handshake_timeout=EXCHANGE_S if self._tls else None,
            limit=REQUEST_SIZE_BYTES_MAX,
        )
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def stop(self) -> None:
        """Stop listening and break off what runs. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        for writer in self._connections:
            writer.transport.abort()
        await self._server.wait_closed()
        self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._connections.add(writer)
        try:
            async with asyncio.timeout(EXCHANGE_S):
                await self._exchange(reader, writer)
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, ssl.SSLError) as error:
            _log.debug("connection from %s ended: %r", writer.get_extra_info("peername"), error)
        finally:
            self._connections.discard(writer)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and answer it."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_SIZE_BYTES_MAX)
        method = b"GET"
        try:
            request = await _request(connection, reader)
            if request is None:
                return
            method = request.method
            reply = await self._answer(request)
        except h11.RemoteProtocolError as error:
            reply = _text(error.error_status_hint, str(error))
        headers = [
            ("content-type", reply.content_type),
            ("content-length", str(len(reply.body))),
            ("connection", "close"),
        ]
        if reply.status == 405:
            headers.append(("allow", "GET, HEAD"))
        writer.write(connection.send(h11.Response(status_code=reply.status, headers=headers)) or b"")
        if method != b"HEAD":
            writer.write(connection.send(h11.Data(data=reply.body)) or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()

    async def _answer(self, request: h11.Request) -> HttpReply:
        if request.method not in (b"GET", b"HEAD"):
            return _text(405, "only GET and HEAD")
        path = request.target.split(b"?", 1)[0].decode("latin-1")
        route = self._routes.get(path)
        if route is None:
            return _text(404, "there is " + ", ".join(sorted(self._routes)))
        try:
            return await route()
        except Exception:  # noqa: BLE001 — a probe must get an answer, and the log the reason, whatever a route does
            _log.exception("%s failed", path)
            return _text(500, "failed; the reason is in the log")


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Read until the request's headers are complete; None when the client left before it asked anything."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(REQUEST_SIZE_BYTES_MAX))
        else:
            return None


def _text(status: int, text: str) -> HttpReply:
    return HttpReply(status, "text/plain; charset=utf-8", f"{text}\n".encode())
