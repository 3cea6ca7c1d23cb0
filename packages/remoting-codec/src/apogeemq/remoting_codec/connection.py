"""One Remoting connection without its socket: bytes in → commands out, requests matched with their responses.

Theory. The stream is frames back to back (framing.py), in both directions, and either side may send requests: a client
its calls, a broker its notices. So one machine serves both roles. It has two parts that do not know each other:

*Reading.* Bytes go into one buffer: a shell asks `get_buffer` for room and tells `buffer_updated` how much it filled
(the shape of asyncio.BufferedProtocol), or hands bytes to `receive_data`. Either returns every command that is complete
by now, in order, because a server's speed comes from handling all commands of one read together. The buffer starts at
`buffer_size_bytes_min`; for a larger frame it grows fourfold whenever more than half of it is filled, up to that
frame's size, so that a peer cannot make us reserve what it only announces; it shrinks when it is empty again.

A frame above the bound is refused on its length field alone. The first broken frame ends the reading for good: the good
commands before it are still returned, `failure` is set, and every later call raises it. The shell then closes.

    READING ──broken frame──▶ FAILED (failure is not None)

*Requests in flight.* `register_request` remembers an opaque with its deadline and whatever the shell wants back;
`match_response`, `expire` and the like hand that back, once. Time comes in as numbers from one clock of the caller's
choice, in seconds. The number of requests in flight is bounded; a response that nobody waits for (late, or never asked
for) is answered with None and counted.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final, Generic, TypeVar

from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import FrameInvalid, FrameTooLarge, LocalProtocolError, RemoteProtocolError
from apogeemq.remoting_codec.framing import (
    FRAME_SIZE_BYTES_MAX,
    LENGTH_SIZE_BYTES,
    MARK_SIZE_BYTES,
    decode_frame_between,
)

_BUFFER_GROWTH: Final = 4
_OPAQUE_MAX: Final = 2**31 - 1
_unpack_length = Struct(">I").unpack_from

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of one connection.

    `frame_size_bytes_max`: largest frame accepted, length field included (8 .. 16,777,216).
    `buffer_size_bytes_min`: the buffer's size at rest, hence the most that one read takes at rest (at least 8).
    `pending_requests_max`: requests of ours that may wait for a response at once.
    """

    frame_size_bytes_max: int = FRAME_SIZE_BYTES_MAX
    buffer_size_bytes_min: int = 64 * 1024
    pending_requests_max: int = 1024

    def __post_init__(self) -> None:
        if not LENGTH_SIZE_BYTES + MARK_SIZE_BYTES <= self.frame_size_bytes_max <= FRAME_SIZE_BYTES_MAX:
            raise ValueError(f"frame_size_bytes_max must be in 8..{FRAME_SIZE_BYTES_MAX}")
        if self.buffer_size_bytes_min < LENGTH_SIZE_BYTES + MARK_SIZE_BYTES:
            raise ValueError("buffer_size_bytes_min must be at least 8")
        if self.pending_requests_max < 1:
            raise ValueError("pending_requests_max must be at least 1")


class Connection(Generic[T]):
    """Both directions of one connection. T is what the shell keeps per request in flight (a future, say).

    Counters for the shell's metrics: `frames_in`, `unmatched_responses`.
    """

    __slots__ = (
        "_buffer",
        "_end",
        "_last_opaque",
        "_limits",
        "_pending",
        "_view",
        "failure",
        "frames_in",
        "unmatched_responses",
    )

    def __init__(self, limits: ConnectionLimits | None = None) -> None:
        self._limits = limits or ConnectionLimits()
        self._view = memoryview(bytearray(self._limits.buffer_size_bytes_min))
        self._end = 0
        self._last_opaque = 0
        self._pending: dict[int, tuple[float, T]] = {}
        self.failure: RemoteProtocolError | None = None
        self.frames_in = 0
        self.unmatched_responses = 0

    # -- reading

    def get_buffer(self, size_hint: int = -1) -> memoryview:
        """Room for the next bytes, never empty. Valid until the next call of any method here."""
        return self._view[self._end :]

    def buffer_updated(self, size_bytes: int) -> list[RemotingCommand]:
        """Take the first `size_bytes` bytes of the last `get_buffer` as received; return the commands now complete.

        Raises the earlier failure when there was one. Sets `failure` instead of raising at the frame that breaks.
        """
        if self.failure is not None:
            raise self.failure
        end = self._end + size_bytes
        commands: list[RemotingCommand] = []
        view = self._view
        start = 0
        needed = 0
        try:
            while end - start >= LENGTH_SIZE_BYTES:
                needed = self._frame_size(view, start)
                if end - start < needed:
                    break
                commands.append(decode_frame_between(view, start + LENGTH_SIZE_BYTES, start + needed))
                start += needed
                needed = 0
        except RemoteProtocolError as error:
            self.failure = error
            start = end
        self.frames_in += len(commands)
        self._keep(start, end, needed)
        return commands

    def receive_data(self, data: bytes | memoryview) -> list[RemotingCommand]:
        """Feed bytes that came by another way than `get_buffer`; return the commands now complete.

        Raises as `buffer_updated` does. A failure in the midst of `data` drops the rest of it.
        """
        commands: list[RemotingCommand] = []
        data = memoryview(data)
        position = 0
        while position < len(data):
            if self.failure is not None:
                if commands:
                    break
                raise self.failure
            room = self.get_buffer()
            size_bytes = min(len(room), len(data) - position)
            room[:size_bytes] = data[position : position + size_bytes]
            position += size_bytes
            commands += self.buffer_updated(size_bytes)
        return commands

    @property
    def buffered_size_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return self._end

    @property
    def buffer_capacity_bytes(self) -> int:
        """Bytes reserved for reading."""
        return len(self._view)

    def _frame_size(self, view: memoryview, start: int) -> int:
        """Size of the frame at `start`, length field included, once that field is known to be sane."""
        (length,) = _unpack_length(view, start)
        if length < MARK_SIZE_BYTES:
            raise FrameInvalid(f"length {length} has no room for the mark")
        size_bytes: int = LENGTH_SIZE_BYTES + length
        if size_bytes > self._limits.frame_size_bytes_max:
            raise FrameTooLarge(size_bytes, self._limits.frame_size_bytes_max)
        return size_bytes

    def _keep(self, start: int, end: int, needed: int) -> None:
        """Move the bytes [start, end) to the front of a buffer with room for more of their frame.

        `needed` is that frame's size, 0 when not known yet.
        """
        view = self._view
        rest = end - start
        self._end = rest
        if rest == 0:
            if len(view) > self._limits.buffer_size_bytes_min:
                self._view = memoryview(bytearray(self._limits.buffer_size_bytes_min))
        elif needed > len(view) and rest * 2 > len(view):
            grown = memoryview(bytearray(min(needed, len(view) * _BUFFER_GROWTH)))
            grown[:rest] = view[start:end]
            self._view = grown
        elif start > 0:
            view[:rest] = view[start:end]

    # -- requests in flight

    @property
    def pending_requests(self) -> int:
        """How many requests of ours wait for a response."""
        return len(self._pending)

    def next_opaque(self) -> int:
        """An opaque that no request in flight has: counts up from 1 and wraps at 2^31 - 1."""
        while True:
            self._last_opaque = self._last_opaque % _OPAQUE_MAX + 1
            if self._last_opaque not in self._pending:
                return self._last_opaque

    def register_request(self, opaque: int, deadline: float, waiter: T) -> None:
        """Remember a request that is about to be sent.

        Raises LocalProtocolError when `pending_requests_max` are in flight, or one with this opaque.
        """
        if len(self._pending) >= self._limits.pending_requests_max:
            raise LocalProtocolError(f"{len(self._pending)} requests are in flight already, which is the bound")
        if opaque in self._pending:
            raise LocalProtocolError(f"a request with opaque {opaque} is in flight already")
        self._pending[opaque] = (deadline, waiter)

    def match_response(self, response: RemotingCommand) -> T | None:
        """The waiter of the request that `response` answers, or None when nobody waits for it (any more)."""
        waiter = self.forget_request(response.opaque)
        if waiter is None:
            self.unmatched_responses += 1
        return waiter

    def forget_request(self, opaque: int) -> T | None:
        """Give up waiting for a response; returns the waiter, or None when there was none."""
        entry = self._pending.pop(opaque, None)
        return None if entry is None else entry[1]

    def next_deadline(self) -> float | None:
        """The earliest deadline in flight."""
        return min((deadline for deadline, _ in self._pending.values()), default=None)

    def expire(self, now: float) -> list[T]:
        """Give up on every request whose deadline is not after `now`; returns their waiters, in order of sending."""
        late = [opaque for opaque, (deadline, _) in self._pending.items() if deadline <= now]
        return [self._pending.pop(opaque)[1] for opaque in late]

    def abandon_requests(self) -> list[T]:
        """Give up on every request, because the connection is gone; returns their waiters."""
        waiters = [waiter for _, waiter in self._pending.values()]
        self._pending.clear()
        return waiters
