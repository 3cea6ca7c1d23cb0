"""A client's connection to one server. Connecting again, choosing servers and retrying are its caller's business."""

import asyncio
import ssl
from types import TracebackType
from typing import Self

from apogeemq.remoting_codec.aio.channel import Channel, ChannelClosed, ChannelLimits, Handler, Reply
from apogeemq.remoting_codec.aio.stats import TrafficStats
from apogeemq.remoting_codec.command import RemotingCommand, request_code_not_supported
from apogeemq.remoting_codec.framing import encode_frame


class RemotingClient:
    """One connection, many requests at once.

    `handler` gets the requests that the server sends (see `channel.Handler`); without one they are answered as not
    supported. Usable as `async with await RemotingClient().connect(host, port) as client`.
    """

    def __init__(self, handler: Handler | None = None, *, limits: ChannelLimits | None = None) -> None:
        self.stats = TrafficStats()
        self._handler = handler or _refuse
        self._limits = limits or ChannelLimits()
        self._channel: Channel | None = None

    async def connect(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        timeout_s: float = 3.0,
    ) -> Self:
        """Open the connection. Raises TimeoutError after `timeout_s` and OSError (ssl.SSLError included).

        `server_hostname` is the name that the server's certificate must have, `host` unless given.
        """
        if self._channel is not None and not self._channel.closed:
            raise RuntimeError("the client is connected already")
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout_s):
            _, self._channel = await loop.create_connection(
                self._make_channel, host, port, ssl=tls, server_hostname=(server_hostname or host) if tls else None
            )
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def channel(self) -> Channel:
        """The open channel. Raises ChannelClosed before `connect`; afterwards it may itself be closed."""
        if self._channel is None:
            raise ChannelClosed("it was never connected")
        return self._channel

    @property
    def connected(self) -> bool:
        """Whether requests can be sent."""
        return self._channel is not None and not self._channel.closed

    async def request(self, command: RemotingCommand, timeout_s: float = 3.0) -> RemotingCommand:
        """Send a request and wait for its response; both waits, for room and for the response, end at `timeout_s`.

        Raises TimeoutError, ChannelClosed, and LocalProtocolError when too many requests are in flight.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        await self._wait_for_room(timeout_s)
        return await self.channel.request(command, deadline - loop.time())

    async def oneway(self, command: RemotingCommand, timeout_s: float = 3.0) -> None:
        """Send a request that wants no response, once there is room. Raises TimeoutError and ChannelClosed."""
        await self._wait_for_room(timeout_s)
        self.channel.send_oneway(command)

    async def _wait_for_room(self, timeout_s: float) -> None:
        """Wait until the server reads what was sent."""
        if not self.channel.writable:
            async with asyncio.timeout(timeout_s):
                await self.channel.drain()

    async def close(self) -> None:
        """Send what was written, close, and wait until the connection is gone (at most `limits.close_timeout_s`)."""
        channel = self._channel
        if channel is None:
            return
        gone = asyncio.Event()
        channel.add_close_listener(lambda _: gone.set())
        channel.close("the client closes")
        try:
            async with asyncio.timeout(self._limits.close_timeout_s):
                await gone.wait()
        except TimeoutError:
            channel.abort("it did not finish closing")

    def _make_channel(self) -> Channel:
        """The protocol of a new connection."""
        return Channel(self._handler, self._limits, self.stats)


def _refuse(_channel: Channel, command: RemotingCommand) -> Reply:
    """The handler of a client that serves nothing."""
    return encode_frame(request_code_not_supported(command))
