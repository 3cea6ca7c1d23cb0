"""Both sides of a stream on a MemoryNetwork: two pipes of encoded messages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from apogeemq.mesh.clock import within
from apogeemq.mesh.dispatch import decode, encode
from apogeemq.mesh.errors import ChannelClosed, MeshError, PeerRefused, StreamLost
from apogeemq.mesh.memory_wires import Call, Wires
from apogeemq.mesh.network import Metadata, Req, Resp, Stream

if TYPE_CHECKING:
    from google.protobuf.message import Message

WINDOW_MESSAGES_MAX = 64
"""A sender waits while this many of its messages have not been received."""

OutT = TypeVar("OutT", bound="Message")
InT = TypeVar("InT", bound="Message")


@dataclass(frozen=True, slots=True)
class _End:
    """The last thing in a pipe: a clean end, or a refusal."""

    refusal: PeerRefused | None


class Pipe:
    """One direction of a stream: encoded messages under way, in order, and how it ended.

    An end travels behind the messages; a break drops them.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._under_way: deque[tuple[float, bytes | _End]] = deque()
        self._last_due = 0.0
        self._reader_error: MeshError | None = None
        self._writer_error: MeshError | None = None
        self._waiting: list[asyncio.Future[None]] = []

    async def put(self, data: bytes) -> None:
        """Send a message; waits while the window is full. Raises what stopped the writing."""
        while self._writer_error is None and len(self._under_way) >= WINDOW_MESSAGES_MAX:
            await self._change()
        if self._writer_error is not None:
            raise self._writer_error
        self._append(data)

    async def get(self) -> bytes | None:
        """Return the next message once it has arrived, None after a clean end. Raises a refusal or what broke it."""
        while True:
            if self._reader_error is not None:
                raise self._reader_error
            if not self._under_way:
                await self._change()
                continue
            due, item = self._under_way[0]
            if due > self._call.clock.monotonic():
                await self._change_until(due)
            elif isinstance(item, bytes):
                self._under_way.popleft()
                self._wake()
                return item
            elif item.refusal is not None:
                raise item.refusal
            else:
                return None

    def end(self, refusal: PeerRefused | None, *, writer_error: MeshError) -> None:
        """Let the reader see an end after what is under way; writing is over now. Idempotent."""
        if self._writer_error is None:
            self._append(_End(refusal))
            self.stop_writing(writer_error)

    def stop_writing(self, writer_error: MeshError) -> None:
        """Let every later put(), and one that waits, fail. The first reason given stays."""
        if self._writer_error is None:
            self._writer_error = writer_error
            self._wake()

    def break_off(self, *, reader_error: MeshError, writer_error: MeshError) -> None:
        """Drop what is under way and fail both ends. The first reason given stays."""
        if self._reader_error is None:
            self._reader_error = reader_error
            self._under_way.clear()
            self._wake()
        self.stop_writing(writer_error)

    def _append(self, item: bytes | _End) -> None:
        """Put an item under way: it never arrives before what was sent earlier."""
        self._last_due = max(self._last_due, self._call.clock.monotonic() + self._call.travel_time_s())
        self._under_way.append((self._last_due, item))
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def _change(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    async def _change_until(self, due: float) -> None:
        clock = self._call.clock
        try:
            await within(clock, due - clock.monotonic(), self._change())
        except TimeoutError:
            return


class Side(Generic[OutT, InT]):
    """One side of a conversation; the opener's is a ClientStream, the handler's a MeshStream."""

    def __init__(
        self,
        path: str,
        peer: str,
        metadata: Metadata,
        outgoing: Pipe,
        incoming: Pipe,
        incoming_type: type[InT],
        on_cancel: Callable[[], None],
    ) -> None:
        self.peer = peer
        self.metadata = metadata
        self._path = path
        self._outgoing = outgoing
        self._incoming = incoming
        self._incoming_type = incoming_type
        self._on_cancel = on_cancel
        self._receiving = False

    async def send(self, message: OutT, /) -> None:
        """See MeshStream.send."""
        await self._outgoing.put(encode(self._path, message))

    async def receive(self) -> InT | None:
        """See MeshStream.receive."""
        if self._receiving:
            raise RuntimeError("another task is receiving from this stream")
        self._receiving = True
        try:
            data = await self._incoming.get()
        finally:
            self._receiving = False
        return None if data is None else decode(self._path, self._incoming_type, data)

    async def finish(self) -> None:
        """See ClientStream.finish."""
        self._outgoing.end(None, writer_error=ChannelClosed(self.peer, "the sending side of the stream"))

    def cancel(self) -> None:
        """See MeshStream.cancel."""
        self._on_cancel()


class Conversation(Generic[Req, Resp]):
    """A stream as a whole: who cancels or loses it, and what either side then sees."""

    def __init__(
        self,
        wires: Wires,
        origin: str,
        target: str,
        method: Stream[Req, Resp],
        metadata: Metadata,
        on_end: Callable[[MeshError | None], None],
    ) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._target = target
        self._on_end = on_end
        self._peer = f"memory:{origin}"
        self._call = Call(wires, origin, target, self._on_lost)
        self._up = Pipe(self._call)
        self._down = Pipe(self._call)
        path = method.path
        self.opener = Side[Req, Resp](
            path, target, metadata, self._up, self._down, method.response_type, self._cancelled_by_opener
        )
        self.handler = Side[Resp, Req](
            path, self._peer, metadata, self._down, self._up, method.request_type, self._cancelled_by_handler
        )

    def lose(self, reason: str) -> None:
        """Break it as the network would."""
        self._call.lose(reason)

    def close_opener(self, error: MeshError) -> None:
        """End it from the opener's end, which sees `error`: unreachable, or closed by its own process."""
        self._break_off(opener_error=error, handler_error=StreamLost(self._peer, "cancelled by the peer"))

    def handled(self, refusal: PeerRefused | None) -> None:
        """Finish it from the handler's end, cleanly or with a refusal."""
        self._call.end()
        self._down.end(refusal, writer_error=ChannelClosed(self._peer, "the stream"))
        self._up.stop_writing(StreamLost(self._target, "the peer has ended it"))
        self._on_end(refusal)

    def _cancelled_by_opener(self) -> None:
        self.close_opener(ChannelClosed(self._target, "the stream"))

    def _cancelled_by_handler(self) -> None:
        self._break_off(
            opener_error=StreamLost(self._target, "cancelled by the peer"),
            handler_error=ChannelClosed(self._peer, "the stream"),
        )

    def _on_lost(self, reason: str) -> None:
        self._break_off(opener_error=StreamLost(self._target, reason), handler_error=StreamLost(self._peer, reason))

    def _break_off(self, *, opener_error: MeshError, handler_error: MeshError) -> None:
        self._call.end()
        self._up.break_off(reader_error=handler_error, writer_error=opener_error)
        self._down.break_off(reader_error=opener_error, writer_error=handler_error)
        if not self.lost.done():
            self.lost.set_result(None)
            self._on_end(opener_error)
