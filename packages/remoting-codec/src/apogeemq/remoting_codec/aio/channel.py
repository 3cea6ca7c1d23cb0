"""One open connection on asyncio: the transport's callbacks on one side, requests and replies on the other.

Used by the server for accepted connections and by the client for its own. Works on asyncio and uvloop alike.

Everything that one read brings is handled before anything is written: the handler runs for each request in order, what
it returns and what it writes by the way is collected, and all of it goes out in one call to the transport. That is what
makes pipelined sends cheap (one system call for dozens of replies).

Bounds. When more than `write_buffer_high_bytes` wait for a peer that does not read, nothing more is read from it; when
that lasts `slow_reader_timeout_s`, or when `write_buffer_size_bytes_max` is passed, the connection is cut. Views given
to `write` may be referenced until their bytes are out: cutting slow readers also bounds how long a view pins its file.
Deadlines are looked at by `overdue`, which whoever owns the channel calls from time to time.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from struct import Struct
from typing import Final, TypeAlias, cast

import msgspec
from apogeemq.remoting_codec.aio.stats import TrafficStats
from apogeemq.remoting_codec.codes import ONEWAY_FLAG, RESPONSE_FLAG, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.connection import Connection, ConnectionLimits
from apogeemq.remoting_codec.errors import RemoteProtocolError
from apogeemq.remoting_codec.framing import encode_frame_head, encode_response_frame

logger = logging.getLogger(__name__)

Buffer: TypeAlias = bytes | memoryview
Reply: TypeAlias = Buffer | list[Buffer] | None
"""What a handler returns: whole frames to send, in one piece or several, or None for nothing now."""

Handler: TypeAlias = Callable[["Channel", RemotingCommand], Reply]
"""Called once per request, in order, on the event loop; must not block."""

_LARGE_PIECE_SIZE_BYTES: Final = 32 * 1024
"""Pieces below this on average are cheaper copied together than handed over one by one.

Measured on uvloop: 32 pieces of 300 bytes 9 µs joined and 67 µs apart, 2 pieces of 256 KiB 86 µs and 74 µs.
"""

_PORT: Final = Struct(">i")


class ChannelClosed(ConnectionError):  # noqa: N818 — named like the codec's errors
    """The channel closed before the response came, or is closed already. `reason` says who closed it and why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the channel is closed: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """Bounds and deadlines of a channel. All must be above 0.

    `idle_timeout_s`: nothing read and nothing written for so long ends the channel (Apache: 120 s).
    `frame_timeout_s`: a frame once begun must be complete within this.
    `write_buffer_high_bytes`: with more than this unsent, the channel is not read any more.
    `slow_reader_timeout_s`: being above it for so long ends the channel.
    `write_buffer_size_bytes_max`: more than this unsent ends the channel at once.
    `close_timeout_s`: how long a closing channel may take to send what is left.
    """

    connection: ConnectionLimits = field(default_factory=ConnectionLimits)
    idle_timeout_s: float = 120.0
    frame_timeout_s: float = 120.0
    write_buffer_high_bytes: int = 4 * 1024 * 1024
    slow_reader_timeout_s: float = 30.0
    write_buffer_size_bytes_max: int = 64 * 1024 * 1024
    close_timeout_s: float = 10.0


class Channel(asyncio.BufferedProtocol):
    """An open connection as handlers see it; to the event loop it is the transport's protocol.

    `peer` is "ip:port" (IPv6 in brackets), `peer_host` the same as a record's host field: address (4 or 16 bytes) and
    port (int32). `attributes` is for whoever handles the channel's requests.
    """

    __slots__ = (
        "_active",
        "_batch",
        "_close_listeners",
        "_close_reason",
        "_closing_since",
        "_connection",
        "_frame_since",
        "_handler",
        "_idle_since",
        "_limits",
        "_loop",
        "_lost",
        "_on_open",
        "_paused_since",
        "_room_size_bytes",
        "_stats",
        "_timer",
        "_transport",
        "_writable",
        "attributes",
        "peer",
        "peer_host",
    )

    def __init__(
        self,
        handler: Handler,
        limits: ChannelLimits,
        stats: TrafficStats,
        on_open: Callable[["Channel"], None] | None = None,
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._stats = stats
        self._on_open = on_open
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport  # set by connection_made, before anyone else sees the channel
        self._connection: Connection[asyncio.Future[RemotingCommand]] = Connection(limits.connection)
        self._batch: list[Buffer] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._close_listeners: list[Callable[[Channel], None]] = []
        self._close_reason: str | None = None
        self._lost = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._active = True
        self._idle_since = self._loop.time()
        self._paused_since: float | None = None
        self._room_size_bytes = 0
        self._closing_since: float | None = None
        self._frame_since: tuple[int, float] | None = None
        self.peer = "unconnected"
        self.peer_host = b""
        self.attributes: dict[str, object] = {}

    def __repr__(self) -> str:
        return f"<Channel {self.peer}{' closed' if self.closed else ''}>"

    # -- sending

    def write(self, *buffers: Buffer) -> None:
        """Send whole frames, in one piece or several.

        While a read is handled this joins the replies to it, in order. On a closed channel it does nothing: the peer is
        gone, and close listeners are how one learns of it. A memoryview may be referenced until its bytes are out.
        """
        if self._close_reason is not None:
            return
        if self._batch is not None:
            self._batch.extend(buffers)
        else:
            self._send(buffers)

    def send_oneway(self, command: RemotingCommand) -> None:
        """Send a request that wants no response, with an opaque of this channel's. Raises ChannelClosed."""
        self._write_request(command, self._connection.next_opaque(), command.flag | ONEWAY_FLAG)

    async def request(self, command: RemotingCommand, timeout_s: float) -> RemotingCommand:
        """Send a request and wait for its response. The channel chooses the opaque.

        Raises TimeoutError after `timeout_s`, ChannelClosed, and LocalProtocolError when too many are in flight.
        """
        deadline = self._loop.time() + timeout_s
        opaque = self._connection.next_opaque()
        response: asyncio.Future[RemotingCommand] = self._loop.create_future()
        self._connection.register_request(opaque, deadline, response)
        try:
            self._write_request(command, opaque, command.flag)
            self._set_timer(deadline)
            return await response
        finally:
            self._connection.forget_request(opaque)

    @property
    def writable(self) -> bool:
        """Whether the peer reads fast enough: False while more than `write_buffer_high_bytes` wait for it."""
        return self._writable.is_set()

    async def drain(self) -> None:
        """Wait until the peer has read enough for more to be written. Raises ChannelClosed."""
        await self._writable.wait()
        if self._close_reason is not None:
            raise ChannelClosed(self._close_reason)

    def _write_request(self, command: RemotingCommand, opaque: int, flag: int) -> None:
        """Encode and send a request of ours."""
        if self._close_reason is not None:
            raise ChannelClosed(self._close_reason)
        numbered = msgspec.structs.replace(command, opaque=opaque, flag=flag)
        head = encode_frame_head(numbered, len(command.body))
        if command.body:
            self.write(head, command.body)
        else:
            self.write(head)

    def _send(self, buffers: Sequence[Buffer]) -> None:
        """Hand buffers to the transport in the cheapest way."""
        size_bytes = sum(map(len, buffers))
        self._active = True
        self._stats.bytes_out += size_bytes
        if len(buffers) == 1:
            self._transport.write(buffers[0])
        elif size_bytes < _LARGE_PIECE_SIZE_BYTES * len(buffers):
            self._transport.write(b"".join(buffers))
        else:
            for buffer in buffers:  # not writelines: asyncio's of Python 3.12 and 3.13 never pauses us
                self._transport.write(buffer)
        if not self._writable.is_set() and self.write_buffer_size_bytes > self._limits.write_buffer_size_bytes_max:
            self.abort(f"{self.write_buffer_size_bytes} bytes are unsent, which is above the bound")

    def _flush_batch(self) -> None:
        """Send what was collected so far during a read."""
        if self._batch and self._close_reason is None:
            self._send(self._batch)
            self._batch = []

    @property
    def write_buffer_size_bytes(self) -> int:
        """Bytes written here that the operating system has not taken yet."""
        return self._transport.get_write_buffer_size()

    # -- closing

    @property
    def closed(self) -> bool:
        """Whether the channel is closed or closing: nothing can be sent any more."""
        return self._close_reason is not None

    @property
    def close_reason(self) -> str | None:
        """Why the channel closed; None while it is open."""
        return self._close_reason

    def close(self, reason: str) -> None:
        """Send what was written, then close. Does nothing on a closed channel."""
        self._flush_batch()
        if self._close_reason is None:
            self._close_reason = reason
            self._writable.set()
            logger.debug("closing %s: %s", self.peer, reason)
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Close at once; what is not sent yet is dropped. Also ends a `close` that takes too long."""
        if self._close_reason is None:
            self._close_reason = reason
            self._writable.set()
        if not self._lost:
            logger.info("cutting %s: %s", self.peer, reason)
            self._transport.abort()

    def add_close_listener(self, listener: Callable[["Channel"], None]) -> None:
        """Have `listener` called once when the connection is gone; at once if it is."""
        if self._lost:
            listener(self)
        else:
            self._close_listeners.append(listener)

    # -- deadlines

    def overdue(self, now: float) -> str | None:
        """Why the channel should be cut at `now` (the loop's time, in seconds), or None. To be called periodically."""
        if self._close_reason is not None:
            if self._closing_since is None:
                self._closing_since = now
            late = now - self._closing_since >= self._limits.close_timeout_s
            return "it did not finish closing" if late else None
        if self._slow_for(now) >= self._limits.slow_reader_timeout_s:
            return f"slow reader, {self.write_buffer_size_bytes} bytes unsent"
        if self._frame_begun_for(now) >= self._limits.frame_timeout_s:
            return "a frame was begun and not completed"
        if self._active:
            self._active = False
            self._idle_since = now
        elif now - self._idle_since >= self._limits.idle_timeout_s:
            return "idle"
        return None

    def _slow_for(self, now: float) -> float:
        """For how long the peer has not read what waits for it, in seconds."""
        if self._writable.is_set():
            self._paused_since = None
            return 0.0
        if self._paused_since is None:
            self._paused_since = now
        return now - self._paused_since

    def _frame_begun_for(self, now: float) -> float:
        """For how long the same frame has been incomplete, in seconds."""
        if self._connection.buffered_size_bytes == 0:
            self._frame_since = None
            return 0.0
        frames_in = self._connection.frames_in
        if self._frame_since is None or self._frame_since[0] != frames_in:
            self._frame_since = (frames_in, now)
        return now - self._frame_since[1]

    def _set_timer(self, deadline: float) -> None:
        """Have `_expire_requests` run at the deadline. One timer serves all requests: the earliest deadline's."""
        if self._timer is None or self._timer.when() > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._expire_requests, deadline)

    def _expire_requests(self, deadline: float) -> None:
        """Fail the requests whose deadline has come, at least those of `deadline`: a timer may fire a tick early."""
        self._timer = None
        for response in self._connection.expire(max(deadline, self._loop.time())):
            if not response.done():
                response.set_exception(TimeoutError(f"no response from {self.peer} in time"))
        next_deadline = self._connection.next_deadline()
        if next_deadline is not None:
            self._set_timer(next_deadline)

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn the peer; from here on the channel is open."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer_high_bytes)
        self.peer, self.peer_host = _peer_of(transport)
        logger.debug("opened %s", self.peer)
        if self._on_open is not None:
            self._on_open(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for what the transport is about to read."""
        room = self._connection.get_buffer(sizehint)
        self._room_size_bytes = len(room)
        return room

    def buffer_updated(self, nbytes: int) -> None:
        """Handle everything that this read completed, then send all replies in one call."""
        if self._close_reason is not None:
            return
        connection = self._connection
        commands = connection.buffer_updated(nbytes)
        self._active = True
        self._stats.bytes_in += nbytes
        self._stats.frames_in += len(commands)
        self._batch = []
        try:
            for command in commands:
                self._take(command)
                if self._close_reason is not None:
                    return
            self._flush_batch()
        finally:
            self._batch = None
        if nbytes == self._room_size_bytes:
            self._let_others_read()
        if connection.failure is not None:
            self._stats.protocol_errors += 1
            logger.warning("%s broke the protocol, closing: %s", self.peer, connection.failure)
            self.close(str(connection.failure))

    def _let_others_read(self) -> None:
        """Read on in the next turn of the loop: a full buffer means that more is there already.

        uvloop would go on at once, up to 32 times: one busy peer would hold the loop for hundreds of milliseconds.
        """
        if self._writable.is_set() and not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """Read again, unless something else stops that meanwhile."""
        if self._writable.is_set() and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """The peer sends no more; it still gets what was written, then the connection closes."""
        self.close("the peer closed")
        return False

    def pause_writing(self) -> None:
        """Too much waits for the peer: read nothing more from it until it has caught up."""
        self._writable.clear()
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._writable.set()
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: tell everyone who waits."""
        self._lost = True
        if self._close_reason is None:
            self._close_reason = f"the connection was lost: {exc or 'closed by the peer'}"
        logger.debug("lost %s: %s", self.peer, self._close_reason)
        self._writable.set()
        if self._timer is not None:
            self._timer.cancel()
        for response in self._connection.abandon_requests():
            if not response.done():
                response.set_exception(ChannelClosed(self._close_reason))
        listeners, self._close_listeners = self._close_listeners, []
        for listener in listeners:
            try:
                listener(self)
            except Exception:  # the other listeners must still hear of it
                logger.exception("a close listener of %s failed", self.peer)

    # -- what the peer sent

    def _take(self, command: RemotingCommand) -> None:
        """Settle a response, or have a request handled and collect the reply."""
        if command.flag & RESPONSE_FLAG:
            waiter = self._connection.match_response(command)
            if waiter is not None and not waiter.done():
                waiter.set_result(command)
            return
        reply = self._handle(command)
        if reply is None or command.flag & ONEWAY_FLAG or self._batch is None:
            return
        if isinstance(reply, list):
            self._batch.extend(reply)
        else:
            self._batch.append(reply)

    def _handle(self, command: RemotingCommand) -> Reply:
        """Run the handler. What it raises becomes an answer, so that one bad request does not end the connection."""
        try:
            return self._handler(self, command)
        except RemoteProtocolError as error:
            self._stats.requests_refused += 1
            logger.info("%s: refused %s: %s", self.peer, command, error)
            return encode_response_frame(command.opaque, ResponseCode.SYSTEM_ERROR, remark=str(error))
        except Exception as error:  # a handler's bug is its own, the channel goes on
            self._stats.handler_errors += 1
            logger.exception("%s: the handler failed on %s", self.peer, command)
            remark = f"internal error: {type(error).__name__}"
            return encode_response_frame(command.opaque, ResponseCode.SYSTEM_ERROR, remark=remark)


def _peer_of(transport: asyncio.BaseTransport) -> tuple[str, bytes]:
    """The peer as text and as a record's host field; an IPv4 address inside an IPv6 one counts as IPv4."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):  # already gone
        return "unknown", b""
    address = ip_address(name[0].partition("%")[0])
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    text = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    return f"{text}:{name[1]}", address.packed + _PORT.pack(name[1])
