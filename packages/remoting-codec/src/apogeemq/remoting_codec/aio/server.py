"""A Remoting listener: accepts connections, plain and TLS on one port, and keeps them within bounds.

Which of the two a connection speaks is decided by its first byte, looked at without taking it: 0x16 begins a TLS
handshake, while a frame's length begins with 0x00 or 0x01. So connections are accepted here and not by the event loop's
own server, peeked, and then handed to the loop with or without TLS.

    accept ─too many─▶ refused
      │
      ├─ mode disabled ─────────────────────────────▶ open (plain)
      └─ else peek ──0x16──▶ handshake ──failed──▶ refused
              │                  └──────────────────▶ open (TLS)
              ├─ other byte ── mode permissive ─────▶ open (plain)
              │                └ mode enforcing ────▶ refused
              └─ closed, or nothing in time ────────▶ refused

An open channel ends by itself, by its handler, by a broken frame, by `Channel.overdue`, or by `stop`.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from apogeemq.remoting_codec.aio.channel import Channel, ChannelLimits, Handler
from apogeemq.remoting_codec.aio.stats import ServerStats

logger = logging.getLogger(__name__)

TlsMode: TypeAlias = Literal["disabled", "permissive", "enforcing"]
"""disabled: plain only; permissive: both; enforcing: TLS only. Apache's tls.server.mode."""

_TLS_HANDSHAKE: Final = b"\x16"


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds and deadlines of a server. All must be above 0.

    `connections_max`: more are closed on arrival, those not open yet included.
    `first_byte_timeout_s`: with TLS possible, how long a new connection may say nothing.
    `handshake_timeout_s`: how long a TLS handshake may take.
    `check_interval_s`: how often channels are looked at for deadlines; their precision.
    `accept_pause_s`: wait after a failed accept (no descriptors left, say).
    `backlog`: connections that the operating system keeps for us.
    """

    channel: ChannelLimits = field(default_factory=ChannelLimits)
    connections_max: int = 10_000
    first_byte_timeout_s: float = 120.0
    handshake_timeout_s: float = 10.0
    check_interval_s: float = 1.0
    accept_pause_s: float = 0.5
    backlog: int = 1024


class RemotingServer:
    """A listener and its channels.

    `handler` gets every request (see `channel.Handler`). `on_open` and `on_close` are called for each channel.
    `tls` is needed for the modes permissive (without it: as disabled) and enforcing (without it: ValueError).
    """

    def __init__(
        self,
        handler: Handler,
        *,
        limits: ServerLimits | None = None,
        tls: ssl.SSLContext | None = None,
        tls_mode: TlsMode = "permissive",
        on_open: Callable[[Channel], None] | None = None,
        on_close: Callable[[Channel], None] | None = None,
    ) -> None:
        if tls_mode == "enforcing" and tls is None:
            raise ValueError("tls_mode is enforcing, but there is no TLS context")
        self.stats = ServerStats()
        self._handler = handler
        self._limits = limits or ServerLimits()
        self._tls = None if tls_mode == "disabled" else tls
        self._plain_allowed = tls_mode != "enforcing"
        self._on_open = on_open
        self._on_close = on_close
        self._channels: set[Channel] = set()
        self._admitting: set[asyncio.Task[None]] = set()
        self._unopened: set[socket.socket] = set()
        self._peeks: set[asyncio.Future[None]] = set()
        self._stopping = False
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._checking: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    @property
    def channels(self) -> Iterator[Channel]:
        """The open channels, in no order; not to be iterated across an await."""
        return iter(self._channels)

    # -- start and stop

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """`bind`, then `listen`."""
        bound = await self.bind(host, port)
        self.listen()
        return bound

    async def bind(self, host: str, port: int) -> tuple[str, int]:
        """Take an address and return it (port 0: the operating system chose one); connecting to it is still refused.

        `host` may be a name; its first address is taken. `::` listens for IPv4 as well. Raises OSError.
        """
        if self._listener is not None or self._stopping:
            raise RuntimeError("the server is started already, and starts only once")
        self._listener = await _bind(host, port)
        bound = self._listener.getsockname()
        return bound[0], bound[1]

    def listen(self) -> None:
        """Accept connections on the address that `bind` took. Raises OSError."""
        if self._listener is None or self._accepting is not None:
            raise RuntimeError("the server is not bound, or listens already")
        try:
            self._listener.listen(self._limits.backlog)
        except OSError as error:  # another process bound the address too, and was quicker to listen
            raise _with_address(error, self._listener.getsockname()) from error
        self._accepting = asyncio.create_task(self._accept(self._listener), name="accept")
        self._schedule_check()

    async def stop(self, grace_s: float) -> None:
        """Accept no more, close every channel, and return when all are gone.

        What was written is sent if the peers read it within `grace_s`; then the rest is cut. Never raises for that.
        """
        if self._listener is None:
            return
        self._stopping = True
        if self._checking is not None:
            self._checking.cancel()
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        self._listener.close()
        self._listener = None
        await self._finish_admitting(grace_s)
        for channel in list(self._channels):
            channel.close("the server stops")
        if not await self._wait_empty(grace_s):
            for channel in list(self._channels):
                self._cut(channel, "the server stops")
            await self._wait_empty(grace_s + 1.0)

    async def _finish_admitting(self, timeout_s: float) -> None:
        """Refuse the connections that said nothing yet, let the others become channels if they do so in time.

        Only a TLS handshake can take long enough to be cancelled. A plain connection must not be: uvloop would then
        never tell its channel that it was lost.
        """
        for peek in self._peeks:
            if not peek.done():
                peek.set_exception(ConnectionAbortedError("the server stops"))
        if self._admitting:
            _, unfinished = await asyncio.wait(self._admitting, timeout=timeout_s)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    async def _wait_empty(self, timeout_s: float) -> bool:
        """Wait until no channel is left; False when the time did not suffice."""
        if not self._channels:
            return True
        self._empty.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    # -- accepting

    async def _accept(self, listener: socket.socket) -> None:
        """Take connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                logger.error("cannot accept connections, pausing: %s", error)  # noqa: TRY400 — no trace is needed
                await asyncio.sleep(self._limits.accept_pause_s)
                continue
            if len(self._channels) + len(self._unopened) >= self._limits.connections_max:
                self._refuse(connection, f"there are {self._limits.connections_max} connections already")
                continue
            self.stats.connections_accepted += 1
            self._unopened.add(connection)
            task = asyncio.create_task(self._admit(connection))
            self._admitting.add(task)
            task.add_done_callback(self._admitting.discard)

    async def _admit(self, connection: socket.socket) -> None:
        """Find out what a new connection speaks and open a channel for it."""

        def opened(channel: Channel) -> None:
            self._unopened.discard(connection)  # it is among the channels now, and must not count twice
            self._opened(channel)

        try:
            tls = await self._choose_tls(connection)
        except OSError as error:  # TimeoutError is among them
            self._unopened.discard(connection)
            self._refuse(connection, str(error) or "it said nothing in time")
            return
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Channel(self._handler, self._limits.channel, self.stats, opened),
                connection,
                ssl=tls,
                ssl_handshake_timeout=self._limits.handshake_timeout_s if tls else None,
            )
        except OSError as error:  # ssl.SSLError is among them; the socket is the loop's now, and closed
            self._count_refusal(f"TLS handshake failed: {error}")
        finally:
            self._unopened.discard(connection)

    async def _choose_tls(self, connection: socket.socket) -> ssl.SSLContext | None:
        """The TLS context to use for a connection, None for plain. Raises OSError when it may not come in."""
        if self._tls is None:
            return None
        async with asyncio.timeout(self._limits.first_byte_timeout_s):
            first = await self._peek(connection)
        if first == _TLS_HANDSHAKE:
            return self._tls
        if not first:
            raise ConnectionResetError("it closed without a word")
        if not self._plain_allowed:
            raise ConnectionRefusedError("it does not speak TLS")
        return None

    async def _peek(self, connection: socket.socket) -> bytes:
        """The first byte that a connection sends, left where it is; empty when it closed."""
        if self._stopping:
            raise ConnectionAbortedError("the server stops")
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()
        self._peeks.add(readable)
        loop.add_reader(connection, _wake, readable)
        try:
            await readable
        finally:
            loop.remove_reader(connection)
            self._peeks.discard(readable)
        return connection.recv(1, socket.MSG_PEEK)

    def _refuse(self, connection: socket.socket, reason: str) -> None:
        """Close a connection that did not become a channel."""
        connection.close()
        self._count_refusal(reason)

    def _count_refusal(self, reason: str) -> None:
        """Count and log it."""
        self.stats.connections_refused += 1
        logger.info("refused a connection: %s", reason)

    # -- channels

    def _opened(self, channel: Channel) -> None:
        """Keep track of a new channel."""
        self._channels.add(channel)
        self.stats.connections_open += 1
        channel.add_close_listener(self._closed)
        if self._on_open is not None:
            self._on_open(channel)

    def _closed(self, channel: Channel) -> None:
        """Forget a channel that is gone."""
        self._channels.discard(channel)
        self.stats.connections_open -= 1
        if not self._channels:
            self._empty.set()
        if self._on_close is not None:
            self._on_close(channel)

    def check(self, now: float) -> None:
        """Cut every channel that is past a deadline at `now` (the loop's time). Runs by itself while started."""
        for channel in list(self._channels):
            reason = channel.overdue(now)
            if reason is not None:
                self._cut(channel, reason)

    def _cut(self, channel: Channel, reason: str) -> None:
        """End a channel at once."""
        self.stats.connections_cut += 1
        channel.abort(reason)

    def _schedule_check(self) -> None:
        """Have the channels checked again after the interval."""
        loop = asyncio.get_running_loop()
        self._checking = loop.call_later(self._limits.check_interval_s, self._check_and_go_on)

    def _check_and_go_on(self) -> None:
        """One check of the endless row."""
        self.check(asyncio.get_running_loop().time())
        self._schedule_check()


async def _bind(host: str, port: int) -> socket.socket:
    """A non-blocking socket bound to the first address of `host`."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setblocking(False)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _with_address(error, address) from error
    return listener


def _with_address(error: OSError, address: tuple[object, ...]) -> OSError:
    """The same error with the address in its text: the operating system does not say it."""
    return OSError(error.errno, f"cannot listen on {address[0]} port {address[1]}: {error.strerror}")


def _wake(waiter: asyncio.Future[None]) -> None:
    """Let go on who waits; a socket stays readable until it is read."""
    if not waiter.done():
        waiter.set_result(None)
