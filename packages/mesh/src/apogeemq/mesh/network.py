"""The network port: how service processes call each other, whatever carries the bytes.

A *method* is declared once (path and protobuf types) and used by both sides:

    REGISTER = Unary("/apogeemq.mesh.v1.NamesrvService/Register", RegisterRequest, RegisterReply)
    BEAT = Stream("/apogeemq.mesh.v1.NamesrvService/Beat", BeatRequest, BeatReply)

    listening = await network.serve("127.0.0.1", 0, [UnaryHandler(REGISTER, on_register), StreamHandler(BEAT, on_beat)])
    channel = network.channel(f"127.0.0.1:{listening.port}")
    reply = await channel.unary(REGISTER, RegisterRequest(...), timeout_s=3.0)

`GrpcNetwork` is the real one, `MemoryNetwork` the one for tests and simulation; both pass the same tests.
Bounds that hold on both: one message ≤ MESSAGE_SIZE_BYTES_MAX; a sender waits when its peer does not read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from apogeemq.mesh.tls import ClientTls, ServerTls
    from google.protobuf.message import Message

MESSAGE_SIZE_BYTES_MAX = 16 * 1024 * 1024
"""Largest protobuf message, encoded, that may travel in one piece (the same bound as a Remoting frame's)."""

LOST_STREAM_GRACE_S = 5.0
"""A stream handler that has not ended this long after its peer was lost is cancelled."""

Metadata: TypeAlias = Mapping[str, str]
"""What goes with a call beside its messages. Keys are lower-case ASCII, values printable ASCII."""

Req = TypeVar("Req", bound="Message")
Resp = TypeVar("Resp", bound="Message")
Out_contra = TypeVar("Out_contra", bound="Message", contravariant=True)
In_co = TypeVar("In_co", bound="Message", covariant=True)


@dataclass(frozen=True, slots=True)
class Unary(Generic[Req, Resp]):
    """A method with one request and one reply. `path` is "/package.Service/Method"."""

    path: str
    request_type: type[Req]
    response_type: type[Resp]


@dataclass(frozen=True, slots=True)
class Stream(Generic[Req, Resp]):
    """A method on which both sides send any number of messages. Requests flow from the opener of the stream."""

    path: str
    request_type: type[Req]
    response_type: type[Resp]


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a unary handler knows about its caller.

    `peer` is for logs ("ip:port" on a real network); `timeout_s` is the time left when the call arrived.
    """

    peer: str
    metadata: Metadata
    timeout_s: float | None


class MeshStream(Protocol[Out_contra, In_co]):
    """One side of an open stream. Messages arrive in the order sent.

    Any number of tasks may send; one task at a time receives (a second one gets RuntimeError).
    Cancelling a task that waits in receive() loses no message.
    """

    @property
    def peer(self) -> str:
        """The other side, for logs: the target that was dialled, or where the stream came from."""
        ...

    @property
    def metadata(self) -> Metadata:
        """What the opener sent along, seen from both sides."""
        ...

    async def send(self, message: Out_contra, /) -> None:
        """Hand one message over; waits while the peer does not read.

        Raises MessageTooLarge, ChannelClosed (finished or cancelled by us) and StreamLost, also when the peer has ended
        the stream: how it ended, and what it sent before, receive() tells. The opener may see PeerUnavailable.
        """
        ...

    async def receive(self) -> In_co | None:
        """Return the next message, or None once the peer has finished cleanly (then always None).

        A handler that must be certain that its peer meant to end, and was not lost at that moment, lets it say so in
        a message: a real network reports the end of messages first and a loss right behind it.

        Raises ChannelClosed, StreamLost, PeerRefused; the opener may also see PeerUnavailable.
        """
        ...

    def cancel(self) -> None:
        """Drop the stream at once; the peer sees StreamLost, later calls on this side ChannelClosed."""
        ...


class ClientStream(MeshStream[Out_contra, In_co], Protocol[Out_contra, In_co]):
    """The opener's side, which can end its sending while it still receives."""

    async def finish(self) -> None:
        """End the sending side (half-close): the handler's receive() gives None after what was already sent.

        Idempotent, and no error on a stream that is over.
        """
        ...


@dataclass(frozen=True, slots=True)
class UnaryHandler(Generic[Req, Resp]):
    """Serves a unary method.

    `handle` returns the reply or raises PeerRefused. Any other exception is logged and reaches the caller as
    PeerRefused(INTERNAL) without its text. It is cancelled when the caller cancels, is lost, or its deadline passes.
    """

    method: Unary[Req, Resp]
    handle: Callable[[Req, CallContext], Awaitable[Resp]]


@dataclass(frozen=True, slots=True)
class StreamHandler(Generic[Req, Resp]):
    """Serves a stream method.

    Returning from `handle` finishes the stream cleanly; PeerRefused refuses it; other exceptions are logged and reach
    the opener as PeerRefused(INTERNAL). When the opener is lost or cancels, pending and later receive() and send()
    raise StreamLost; letting that out of `handle` is the ordinary way to end. A handler that still runs
    LOST_STREAM_GRACE_S later is cancelled.
    """

    method: Stream[Req, Resp]
    handle: Callable[[MeshStream[Resp, Req]], Awaitable[None]]


Handler: TypeAlias = UnaryHandler[Any, Any] | StreamHandler[Any, Any]
"""Any handler: a server is given many, each with message types of its own."""


class Listening(Protocol):
    """A server that accepts calls."""

    @property
    def host(self) -> str:
        """The address that was bound."""
        ...

    @property
    def port(self) -> int:
        """The port that was bound: a real one, also when 0 was asked for."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls at once, let running ones end for `grace_s` seconds, then cancel them. Idempotent."""
        ...


class MeshChannel(Protocol):
    """Calls to one target. Connects on first use and again after a loss; the caller decides about retries."""

    @property
    def target(self) -> str:
        """The "host:port" it was made for."""
        ...

    async def unary(
        self, method: Unary[Req, Resp], request: Req, *, timeout_s: float, metadata: Metadata | None = None
    ) -> Resp:
        """Call and wait for the reply.

        Raises PeerUnavailable, DeadlineExceeded, PeerRefused, MessageTooLarge, ChannelClosed.
        """
        ...

    def stream(self, method: Stream[Req, Resp], *, metadata: Metadata | None = None) -> ClientStream[Req, Resp]:
        """Open a stream; the connection is made in the background, so failures show in send() and receive().

        Raises ChannelClosed.
        """
        ...

    async def close(self) -> None:
        """Cancel what runs on this channel and disconnect. Idempotent."""
        ...


class Network(Protocol):
    """Where servers listen and channels come from."""

    async def serve(
        self,
        host: str,
        port: int,
        handlers: Sequence[Handler],
        *,
        tls: ServerTls | None = None,
    ) -> Listening:
        """Bind and accept calls. Port 0 takes a free one. Raises OSError when the address cannot be bound."""
        ...

    def channel(self, target: str, *, tls: ClientTls | None = None) -> MeshChannel:
        """Make a channel to "host:port"; does no I/O yet. Each channel has a connection of its own."""
        ...


class ClientCall(Protocol):
    """An outgoing call or stream, as tracing sees it."""

    @property
    def metadata(self) -> Metadata:
        """What tracing sends along in the call's metadata."""
        ...

    def end(self, error: BaseException | None) -> None:
        """Tell that it is over, and how; None is success. Idempotent."""
        ...


class CallTracing(Protocol):
    """Hooks by which tracing sees calls, so that networks know no telemetry library."""

    def client_call(self, path: str, target: str) -> ClientCall:
        """Begin an outgoing call."""
        ...

    def server_call(self, path: str, peer: str, metadata: Metadata) -> AbstractContextManager[None]:
        """Enter around a handler; `metadata` is what the caller sent. An exception that leaves it is a failure."""
        ...
