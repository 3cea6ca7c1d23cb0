"""The door that stands on grpc.aio: the only module of the proxy that knows it.

grpc sees bytes; paths find their handler here, statuses come from DoorRefused, and a call that the client has given up
is cancelled. A stream is read only as fast as its handler asks: what a client sends ahead stays in its own buffers and
in HTTP/2's window, and what it does not read makes the handler's next reply wait.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn, TypeAlias, cast
from urllib.parse import unquote

# grpc reads it once, when it is loaded; its chatter about ordinary disconnects belongs in no one's log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc.aio
from apogeemq.mesh.addresses import join_address
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.errors import RefusalCode
from apogeemq.mesh.grpc_server import GrpcListening, RunningCalls
from apogeemq.mesh.network import Listening
from apogeemq.mesh.tls import ServerTls
from apogeemq.proxy.faces.grpc.port import (
    BidiFunction,
    DoorCall,
    DoorLimits,
    DoorRefused,
    Handlers,
    LocalAddress,
    ServerStreamFunction,
    TcpAddress,
    UnaryFunction,
)

_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"

_CODES = {code.value[0]: code for code in grpc.StatusCode}

_NO_DEADLINE_S = 10 * 365 * 86_400.0
# Telemetry streams of the Java client have a deadline of 60 years; grpc itself tells "none" as a time far away too.

_UNIX = "unix:"

_log = logging.getLogger(__name__)


class GrpcioDoor:
    """Serves by grpc.aio. `clock` gives the deadlines that handlers see."""

    def __init__(self, limits: DoorLimits, *, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock

    async def serve(
        self, address: TcpAddress | LocalAddress, handlers: Handlers, *, tls: ServerTls | None = None
    ) -> Listening:
        """Bind and take calls. Raises OSError when the address cannot be bound."""
        calls = RunningCalls()
        peer_of = address.peer_of if isinstance(address, LocalAddress) else None
        server = grpc.aio.server(options=_options(self._limits), maximum_concurrent_rpcs=self._limits.calls_max)
        server.add_generic_rpc_handlers((_HandlersByPath(handlers, calls, self._clock, peer_of),))
        target = _target(address)
        try:
            port = server.add_secure_port(target, _credentials(tls)) if tls else server.add_insecure_port(target)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {target}: {error}") from error
        await server.start()
        host = address.host if isinstance(address, TcpAddress) else address.path
        return GrpcListening(host, port, server, calls)


class _HandlersByPath(grpc.GenericRpcHandler):
    """Finds a path's function and runs it."""

    def __init__(
        self, handlers: Handlers, calls: RunningCalls, clock: Clock, peer_of: Callable[[str], str] | None
    ) -> None:
        self._calls = calls
        self._clock = clock
        self._peer_of = peer_of
        self._by_path: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
        for path, unary in handlers.unary.items():
            self._add(path, grpc.unary_unary_rpc_method_handler(partial(self._answer, path, unary)))
        for path, streaming in handlers.server_streams.items():
            self._add(path, grpc.unary_stream_rpc_method_handler(partial(self._stream, path, streaming)))
        for path, talking in handlers.bidi.items():
            self._add(path, grpc.stream_stream_rpc_method_handler(partial(self._talk, path, talking)))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Find who serves a path; None lets grpc answer UNIMPLEMENTED."""
        return self._by_path.get(handler_call_details.method)

    def _add(self, path: str, handler: grpc.RpcMethodHandler[bytes, bytes]) -> None:
        if self._by_path.setdefault(path, handler) is not handler:
            raise ValueError(f"two handlers for {path}")

    async def _answer(self, path: str, function: UnaryFunction, request: bytes, context: _Context) -> bytes:
        with self._calls.one():
            try:
                return await function(self._call(path, context), request)
            except Exception as error:  # noqa: BLE001 — becomes a status, and what nobody expected is logged
                await _refuse(context, path, error)

    async def _stream(self, path: str, function: ServerStreamFunction, request: bytes, context: _Context) -> None:
        with self._calls.one():
            await _write_all(path, function(self._call(path, context), request), context)

    async def _talk(self, path: str, function: BidiFunction, _: object, context: _Context) -> None:
        with self._calls.one():
            await _write_all(path, function(self._call(path, context), _requests(context)), context)

    def _call(self, path: str, context: _Context) -> DoorCall:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        remaining_s = context.time_remaining()
        deadline = None
        if remaining_s is not None and remaining_s < _NO_DEADLINE_S:
            deadline = self._clock.monotonic() + remaining_s
        return DoorCall(path, metadata, self._peer(context.peer()), deadline)

    def _peer(self, grpc_peer: str) -> str:
        """Make "127.0.0.1:5000" of grpc's "ipv4:127.0.0.1:5000", and ask for what stands behind a local connection."""
        peer = unquote(grpc_peer)
        if self._peer_of is not None and peer.startswith(_UNIX):
            return self._peer_of(peer.removeprefix(_UNIX))
        return peer.removeprefix("ipv4:").removeprefix("ipv6:")


async def _requests(context: _Context) -> AsyncIterator[bytes]:
    """Read one message after another, each only when it is asked for."""
    while True:
        request: Any = await context.read()
        if request is grpc.aio.EOF:
            return
        yield request


async def _write_all(path: str, replies: AsyncIterator[bytes], context: _Context) -> None:
    """Write what a handler yields; it is closed with the call, however that ends."""
    try:
        if hasattr(replies, "aclose"):
            async with aclosing(cast("Any", replies)):
                await _write_each(replies, context)
        else:
            await _write_each(replies, context)
    except Exception as error:  # noqa: BLE001 — becomes a status, and what nobody expected is logged
        await _refuse(context, path, error)


async def _write_each(replies: AsyncIterator[bytes], context: _Context) -> None:
    async for reply in replies:
        await context.write(reply)


async def _refuse(context: _Context, path: str, error: Exception) -> NoReturn:
    if isinstance(error, DoorRefused):
        await context.abort(_CODES[error.code], error.text)
    _log.error("%s failed", path, exc_info=error)
    await context.abort(_CODES[RefusalCode.INTERNAL], "the proxy failed; its log says how")


def _target(address: TcpAddress | LocalAddress) -> str:
    return join_address(address.host, address.port) if isinstance(address, TcpAddress) else f"{_UNIX}{address.path}"


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(tls.private_key, tls.certificate_chain)],
        root_certificates=tls.client_ca,
        require_client_auth=tls.client_ca is not None,
    )


def _options(limits: DoorLimits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.request_size_bytes_max),
        ("grpc.max_send_message_length", -1),  # what is sent is ours, and bounded where it is made
        ("grpc.max_concurrent_streams", limits.streams_per_connection_max),
        # Calls that the loop has not taken yet: from 1,000 on grpc drops some by lot, whoever's they are.
        ("grpc.server.max_pending_requests", limits.calls_max),
        ("grpc.server.max_pending_requests_hard_limit", limits.calls_max),
        ("grpc.max_metadata_size", limits.metadata_size_bytes_max),
        ("grpc.absolute_max_metadata_size", limits.metadata_size_bytes_max),
        ("grpc.max_connection_idle_ms", _ms(limits.connection_idle_s)),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(limits.client_ping_interval_s_min)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", _ms(limits.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _ms(limits.keepalive_timeout_s)),
        ("grpc.http2.ping_timeout_ms", _ms(limits.keepalive_timeout_s)),  # else 60 s, whatever the line above says
        ("grpc.http2.max_pings_without_data", 0),  # no limit: a silent Telemetry stream is pinged while it is open
        ("grpc.so_reuseport", 0),  # a second proxy on the same port is an error, not a silent share of the calls
    ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
