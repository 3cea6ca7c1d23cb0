"""The real network: grpc.aio with generic handlers.

Every channel has a TCP connection of its own. No HTTP proxy from the environment, no service config from DNS, and no
retries by grpc itself are used: the caller alone knows what may be sent twice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

# grpc reads it once, when it is loaded; its chatter about ordinary disconnects belongs in no one's log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc
import grpc.aio
from apogeemq.mesh.dispatch import Untraced
from apogeemq.mesh.grpc_channel import GrpcChannel
from apogeemq.mesh.grpc_server import GrpcListening, HandlersByPath, RunningCalls
from apogeemq.mesh.health import Health
from apogeemq.mesh.health_service import health_handlers
from apogeemq.mesh.network import MESSAGE_SIZE_BYTES_MAX, CallTracing, Handler, Listening, MeshChannel

if TYPE_CHECKING:
    from apogeemq.mesh.tls import ClientTls, ServerTls

RpcError = grpc.RpcError
"""For stream_thread, which must not load grpc before GRPC_VERBOSITY is set."""

CONCURRENT_CALLS_MAX = 4096
"""Calls and streams that one server runs at the same time; a further one is refused with RESOURCE_EXHAUSTED."""

_COMMON_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MESSAGE_SIZE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_SIZE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),  # a peer that vanished without a word is noticed after 10 + 5 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # else it waits for its pings for 60 s, whatever the line above says
    ("grpc.http2.max_pings_without_data", 0),  # no limit: an idle stream is pinged for as long as it is open
]

_SERVER_OPTIONS: list[tuple[str, int]] = [
    *_COMMON_OPTIONS,
    ("grpc.so_reuseport", 0),  # a second server on the same port is an error, not a silent share of the calls
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]

_CHANNEL_OPTIONS: list[tuple[str, int]] = [
    *_COMMON_OPTIONS,
    ("grpc.use_local_subchannel_pool", 1),  # else channels to the same target share one connection
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 3_000),  # despite its name: how long one attempt to connect may take
]


class GrpcNetwork:
    """Serves and calls over TCP. With `health`, every server also has the standard health service."""

    def __init__(self, *, tracing: CallTracing | None = None, health: Health | None = None) -> None:
        self._tracing: CallTracing = tracing or Untraced()
        self._common_handlers: Sequence[Handler] = health_handlers(health) if health is not None else ()

    async def serve(
        self, host: str, port: int, handlers: Sequence[Handler], *, tls: ServerTls | None = None
    ) -> Listening:
        """Bind and accept calls. Port 0 takes a free one. Raises OSError when the address cannot be bound."""
        server = grpc.aio.server(options=_SERVER_OPTIONS, maximum_concurrent_rpcs=CONCURRENT_CALLS_MAX)
        calls = RunningCalls()
        server.add_generic_rpc_handlers((HandlersByPath([*handlers, *self._common_handlers], calls, self._tracing),))
        address = _address(host, port)
        try:
            if tls is None:
                bound_port = server.add_insecure_port(address)
            else:
                bound_port = server.add_secure_port(address, _server_credentials(tls))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        await server.start()
        return GrpcListening(host, bound_port, server, calls)

    def channel(self, target: str, *, tls: ClientTls | None = None) -> MeshChannel:
        """Make a channel to "host:port" ("[host]:port" for an IPv6 address)."""
        if tls is None:
            return GrpcChannel(target, grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS), self._tracing)
        channel = grpc.aio.secure_channel(target, _channel_credentials(tls), options=_tls_options(tls))
        return GrpcChannel(target, channel, self._tracing)


def sync_channel(target: str, *, tls: ClientTls | None = None) -> grpc.Channel:
    """Make a channel with the same settings for threads, see stream_thread."""
    if tls is None:
        return grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
    return grpc.secure_channel(target, _channel_credentials(tls), options=_tls_options(tls))


def _tls_options(tls: ClientTls) -> list[tuple[str, int | str]]:
    options: list[tuple[str, int | str]] = [*_CHANNEL_OPTIONS]
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(tls.private_key, tls.certificate_chain)],
        root_certificates=tls.client_ca,
        require_client_auth=tls.client_ca is not None,
    )


def _channel_credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(tls.ca, tls.private_key, tls.certificate_chain)
