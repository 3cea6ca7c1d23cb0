"""The members of an etcd cluster: a channel to each, one of them in use, and the next when that one fails.

gRPC's own round robin would keep handing calls to a frozen member, whose connection looks fine: so there is a channel
for each endpoint, and whoever sees a member fail moves everybody on (architecture §6.13).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from apogeemq.controller.errors import EtcdClosed
from apogeemq.controller.links.etcd.methods import STATUS, Method, Request, Response

if TYPE_CHECKING:
    from apogeemq.mesh.tls import ClientTls

CONNECT_TIMEOUT_S = 1.0
WHY_TIMEOUT_S = 0.2
PING_INTERVAL_MS = 6_000
"""etcd closes the connection of a client that pings oftener than every 5 s."""

_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", PING_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
]


class NotConnected(Exception):  # noqa: N818 — a fact, seen inside this folder only
    """No connection to the member: nothing was sent."""


class Member:
    """One member: its endpoint "host:port" and the channel to it."""

    def __init__(self, endpoint: str, tls: ClientTls | None) -> None:
        self.endpoint = endpoint
        self._channel = _channel(endpoint, tls)

    async def connect(self, timeout_s: float) -> None:
        """Wait for the connection. Raises NotConnected as soon as an attempt has failed, or after the time."""
        try:
            async with asyncio.timeout(min(timeout_s, CONNECT_TIMEOUT_S)):
                while (state := self._channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        raise NotConnected(await self._why())
                    await self._channel.wait_for_state_change(state)
        except TimeoutError:
            raise NotConnected(f"{self.endpoint} did not take the connection in time") from None

    async def _why(self) -> str:
        """What the channel met: it tells that to a call alone, which fails at once and is not sent."""
        try:
            await self.call(STATUS, STATUS.request_type(), WHY_TIMEOUT_S, [])
        except grpc.aio.AioRpcError as error:
            return f"{self.endpoint} takes no connection: {error.details()}"
        return f"{self.endpoint} took no connection a moment ago"

    async def call(
        self, method: Method[Request, Response], request: Request, timeout_s: float, metadata: Sequence[tuple[str, str]]
    ) -> Response:
        """One unary call. Raises grpc.aio.AioRpcError."""
        unary: grpc.aio.UnaryUnaryMultiCallable[Request, Response] = self._channel.unary_unary(
            method.path, method.request_type.SerializeToString, method.response_type.FromString
        )
        return await unary(request, timeout=timeout_s, metadata=tuple(metadata))

    def stream(
        self, method: Method[Request, Response], metadata: Sequence[tuple[str, str]]
    ) -> grpc.aio.StreamStreamCall[Request, Response]:
        """Open a stream in both directions."""
        stream: grpc.aio.StreamStreamMultiCallable[Request, Response] = self._channel.stream_stream(
            method.path, method.request_type.SerializeToString, method.response_type.FromString
        )
        return stream(metadata=tuple(metadata))

    async def close(self) -> None:
        """End the connection and what goes over it."""
        await self._channel.close()


class Members:
    """All members, of which everybody uses the same one."""

    def __init__(self, endpoints: Sequence[str], tls: ClientTls | None = None) -> None:
        self.endpoints = tuple(dict.fromkeys(endpoints))
        if not self.endpoints:
            raise ValueError("etcd has no endpoints")
        self._members = [Member(endpoint, tls) for endpoint in self.endpoints]
        self._turn = 0
        self._closed = False

    @property
    def current(self) -> Member:
        """The member to ask. Raises EtcdClosed."""
        if self._closed:
            raise EtcdClosed
        return self._members[self._turn]

    def give_up(self, member: Member) -> None:
        """Move on to the next member, unless somebody else has seen the same failure before."""
        if self._members[self._turn] is member:
            self._turn = (self._turn + 1) % len(self._members)

    async def close(self) -> None:
        """End all connections; what is under way ends with an error."""
        self._closed = True
        for member in self._members:
            await member.close()


def _channel(endpoint: str, tls: ClientTls | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
    options = list(_OPTIONS)
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.private_key, tls.certificate_chain)
    return grpc.aio.secure_channel(endpoint, credentials, options=options)
