"""The calling side of GrpcNetwork."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import grpc.aio
from apogeemq.mesh.dispatch import decode, encode, joined_metadata
from apogeemq.mesh.errors import (
    ChannelClosed,
    DeadlineExceeded,
    MeshError,
    PeerRefused,
    PeerUnavailable,
    RefusalCode,
    StreamLost,
)
from apogeemq.mesh.grpc_stream import GrpcStream
from apogeemq.mesh.network import CallTracing, ClientCall, ClientStream, Metadata, Req, Resp, Stream, Unary

if TYPE_CHECKING:
    from google.protobuf.message import Message

ACCEPTED_KEY = "apogeemq-accepted"
"""Our servers send this key as soon as a stream's handler starts: a stream that fails without it was never opened."""

_REFUSAL_CODES = {int(code): code for code in RefusalCode}

OutT = TypeVar("OutT", bound="Message")
InT = TypeVar("InT", bound="Message")


class GrpcChannel:
    """One connection's worth of calls to one target."""

    def __init__(self, target: str, channel: grpc.aio.Channel, tracing: CallTracing) -> None:
        self.target = target
        self._channel = channel
        self._tracing = tracing
        self._closed = False
        self._unary_methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}
        self._streams: WeakSet[GrpcClientStream[Any, Any]] = WeakSet()

    async def unary(
        self, method: Unary[Req, Resp], request: Req, *, timeout_s: float, metadata: Metadata | None = None
    ) -> Resp:
        """See MeshChannel.unary."""
        traced = self._tracing.client_call(method.path, self.target)
        try:
            data = encode(method.path, request)
            reply = await self._call(method.path, data, timeout_s, joined_metadata(metadata, traced.metadata))
            decoded = decode(method.path, method.response_type, reply)
        except BaseException as error:
            traced.end(error)
            raise
        traced.end(None)
        return decoded

    def stream(self, method: Stream[Req, Resp], *, metadata: Metadata | None = None) -> ClientStream[Req, Resp]:
        """See MeshChannel.stream."""
        if self._closed:
            raise ChannelClosed(self.target, "the channel")
        traced = self._tracing.client_call(method.path, self.target)
        sent_metadata = joined_metadata(metadata, traced.metadata)
        open_call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(method.path)
        call = open_call(metadata=tuple(sent_metadata.items()))
        stream = GrpcClientStream[Req, Resp](
            call, method.path, self.target, sent_metadata, method.response_type, traced
        )
        self._streams.add(stream)
        return stream

    async def close(self) -> None:
        """See MeshChannel.close."""
        self._closed = True
        for stream in list(self._streams):
            stream.close(ChannelClosed(self.target, "the channel"))
        await self._channel.close()

    async def _call(self, path: str, data: bytes, timeout_s: float, metadata: Metadata) -> bytes:
        if self._closed:
            raise ChannelClosed(self.target, "the channel")
        method = self._unary_methods.get(path)
        if method is None:
            method = self._unary_methods[path] = self._channel.unary_unary(path)
        try:
            return await method(data, timeout=timeout_s, metadata=tuple(metadata.items()))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise DeadlineExceeded(self.target, path, timeout_s) from error
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise PeerUnavailable(self.target, error.details() or "the connection broke") from error
            raise refusal_of(error) from error
        except asyncio.CancelledError as error:
            # Either the caller was cancelled, or close() took the call away while its caller still waits.
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise ChannelClosed(self.target, "the channel") from error
            raise


class GrpcClientStream(GrpcStream[OutT, InT]):
    """The opener's side of a stream."""

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall[bytes, bytes],
        path: str,
        target: str,
        metadata: Metadata,
        incoming_type: type[InT],
        traced: ClientCall,
    ) -> None:
        super().__init__(path, target, metadata, incoming_type)
        self._call = call
        self._traced = traced
        self._sending_finished = False

    async def send(self, message: OutT, /) -> None:
        """See MeshStream.send."""
        if self._sending_finished and self.gone is None:
            raise ChannelClosed(self.peer, "the sending side of the stream")
        await super().send(message)

    async def finish(self) -> None:
        """See ClientStream.finish."""
        if not self._sending_finished:
            self._sending_finished = True
            with suppress(MeshError):  # a stream that is over has no sending side left to end
                await self.write_in_turn(self._call.done_writing)

    def cancel(self) -> None:
        """See MeshStream.cancel."""
        self.close(ChannelClosed(self.peer, "the stream"))

    def close(self, error: MeshError) -> None:
        """End it; this side sees `error`, the handler StreamLost."""
        self.give_up(error)
        self._call.cancel()
        self._traced.end(error)

    def read(self) -> Awaitable[Any]:
        """Read the next encoded message, or grpc.aio.EOF."""
        return self._call.read()

    async def write(self, data: bytes) -> None:
        """Send an encoded message."""
        await self._call.wait_for_connection()
        if self._call.done():
            raise asyncio.InvalidStateError("the call is over")
        # Not call.write(): when the server has ended the stream, that one puts "Internal error from Core" in the place
        # of the status that is under way, and the peer's last messages and its refusal would be lost.
        cython_call = self._call._cython_call  # type: ignore[attr-defined]  # noqa: SLF001 — see above
        await cython_call.send_serialized_message(data)

    async def confirm_end(self) -> None:
        """Believe it: grpc gives a client the end of messages only together with a good status."""
        self._traced.end(None)

    async def read_failure(self, error: BaseException) -> MeshError:
        """Read the call's status."""
        failure = _stream_failure(self.peer, error)
        self._traced.end(failure)
        return failure

    async def write_failure(self, error: BaseException) -> MeshError:
        """Tell an unreachable peer from one that has ended the stream; how it ended is for receive() to say."""
        failure = _stream_failure(self.peer, error)
        return failure if isinstance(failure, PeerUnavailable) else StreamLost(self.peer, "the peer has ended it")


def _stream_failure(target: str, error: BaseException) -> MeshError:
    if not isinstance(error, grpc.aio.AioRpcError):
        return StreamLost(target, str(error) or "the connection broke")
    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return refusal_of(error)
    reason = error.details() or "the connection broke"
    if ACCEPTED_KEY in error.initial_metadata():
        return StreamLost(target, reason)
    return PeerUnavailable(target, reason)


def refusal_of(error: grpc.aio.AioRpcError) -> PeerRefused:
    """Turn a status into the refusal it stands for; codes that RefusalCode lacks become UNKNOWN."""
    code = _REFUSAL_CODES.get(error.code().value[0], RefusalCode.UNKNOWN)
    return PeerRefused(code, error.details() or "")
