"""One server: connected when it is first needed, and again whenever the connection was lost.

    IDLE ──request──▶ OPENING ──connected and greeted──▶ OPEN ──lost──▶ IDLE (with back-off) … ──close──▶ CLOSED

All requests that come while it opens wait for the same attempt, each until its own deadline. After a failure the next
attempt waits (0.1 s, doubling up to 1 s, spread by chance): a client never gives up on a server, and never hammers it.
`greet` runs on every new connection before anything else is sent on it: a broker must know who speaks (heartbeat).
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable

from apogeemq.client_api.errors import ClientClosed, ConnectionBroken
from apogeemq.client_remoting.core.addresses import Address
from apogeemq.client_remoting.core.pull_schedule import backoff_s
from apogeemq.remoting_codec.aio.channel import Channel, ChannelClosed, ChannelLimits, Handler
from apogeemq.remoting_codec.aio.client import RemotingClient
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.connection import ConnectionLimits
from apogeemq.remoting_codec.errors import LocalProtocolError

logger = logging.getLogger(__name__)

Greeting = Callable[[RemotingClient], Awaitable[None]]

CONNECT_TIMEOUT_S = 3.0
REQUESTS_IN_FLIGHT_MAX = 65_536
"""A bound on memory, far above what a program has tasks for."""


async def no_greeting(_client: RemotingClient) -> None:
    """For servers that need not know who speaks."""


class Connection:
    """The way to one server.

    Args:
        address: where it is; a host name is looked up again at each connecting.
        handler: gets the requests that the server sends.
        tls: None for plain TCP.
        chance: a number in [0, 1) at each call, to spread attempts.
        greet: see the module.
    """

    def __init__(
        self,
        address: Address,
        *,
        handler: Handler,
        tls: ssl.SSLContext | None,
        chance: Callable[[], float],
        greet: Greeting = no_greeting,
    ) -> None:
        self.address = address
        self._tls = tls
        self._chance = chance
        self._greet = greet
        self._handler = handler
        self._client = self._new_client()
        self._opening: asyncio.Task[None] | None = None
        self._failures = 0
        self._not_before = 0.0
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether a request would go out at once."""
        return self._client.connected

    @property
    def is_backing_off(self) -> bool:
        """Whether the last attempt failed and the next one has to wait."""
        return not self._client.connected and asyncio.get_running_loop().time() < self._not_before

    async def request(self, command: RemotingCommand, timeout_s: float) -> RemotingCommand:
        """Send a request and wait for its response, whatever its code.

        Raises TimeoutError, NotSent (the server cannot be reached: nothing was sent), ConnectionBroken (the connection
        was lost under way) and ClientClosed.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        if not self._client.connected:
            await self._open_until(deadline)
        try:
            return await self._client.request(command, deadline - loop.time())
        except ChannelClosed as error:
            raise self._broken(f"the connection to {self.address} was lost: {error.reason}") from error
        except LocalProtocolError as error:
            raise NotSent(f"cannot send to {self.address}: {error}", broker=str(self.address)) from error

    async def oneway(self, command: RemotingCommand, timeout_s: float) -> None:
        """Send a request that has no response. Raises as `request`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        if not self._client.connected:
            await self._open_until(deadline)
        try:
            await self._client.oneway(command, deadline - loop.time())
        except ChannelClosed as error:
            raise self._broken(f"the connection to {self.address} was lost: {error.reason}") from error

    async def open(self, timeout_s: float) -> None:
        """Connect now, if it is not. Raises NotSent and ClientClosed."""
        if not self._client.connected:
            await self._open_until(asyncio.get_running_loop().time() + timeout_s)

    def cut_overdue(self, now: float) -> None:
        """Cut a connection that does not move; to be called from time to time."""
        if self._client.connected:
            reason = self._client.channel.overdue(now)
            if reason is not None:
                self._client.channel.abort(reason)

    async def close(self) -> None:
        """Close for good."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
        await self._client.close()

    async def _open_until(self, deadline: float) -> None:
        """Wait for the attempt under way, or begin one."""
        if self._is_closed:
            raise ClientClosed(f"the connection to {self.address} is closed")
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name=f"connect {self.address}")
            self._opening.add_done_callback(_observe)
        opening = self._opening
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(opening)
        except TimeoutError as error:
            raise self._not_sent("no connection in time") from error
        except asyncio.CancelledError:
            if opening.cancelled() and self._is_closed:
                raise ClientClosed(f"the connection to {self.address} is closed") from None
            raise

    async def _open(self) -> None:
        """One attempt, after the back-off."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._not_before - loop.time(), 0))
        client = self._new_client()
        try:
            await client.connect(*self.address, tls=self._tls, timeout_s=CONNECT_TIMEOUT_S)
            await self._greet(client)
        except (OSError, TimeoutError) as error:  # ChannelClosed is an OSError too
            await client.close()
            self._failures += 1
            self._not_before = loop.time() + backoff_s(self._failures, self._chance())
            logger.info("cannot connect to %s (attempt %d): %s", self.address, self._failures, error)
            raise self._not_sent(str(error) or type(error).__name__) from error
        except asyncio.CancelledError:
            await client.close()
            raise
        self._client = client
        self._failures = 0
        client.channel.add_close_listener(self._lost)
        logger.debug("connected to %s", self.address)

    def _lost(self, channel: Channel) -> None:
        """A connection that was open is gone: what comes next waits a moment, so that a server that accepts and closes
        is not hammered.
        """
        if not self._is_closed:
            logger.info("lost %s: %s", self.address, channel.close_reason)
            self._not_before = asyncio.get_running_loop().time() + backoff_s(1, self._chance())

    def _new_client(self) -> RemotingClient:
        limits = ChannelLimits(connection=ConnectionLimits(pending_requests_max=REQUESTS_IN_FLIGHT_MAX))
        return RemotingClient(self._handler, limits=limits)

    def _broken(self, text: str) -> ConnectionBroken | ClientClosed:
        if self._is_closed:
            return ClientClosed(f"the connection to {self.address} is closed")
        return ConnectionBroken(text, broker=str(self.address))

    def _not_sent(self, reason: str) -> "NotSent":
        return NotSent(
            f"cannot connect to {self.address}: {reason}",
            broker=str(self.address),
            hint="Check that the server runs and that its advertised address can be reached from here.",
        )


class NotSent(ConnectionBroken):
    """The server cannot be reached; nothing was sent, so trying again cannot do anything twice."""


def _observe(opening: asyncio.Task[None]) -> None:
    """Take the error of an attempt that nobody waits for any more."""
    if not opening.cancelled():
        opening.exception()
