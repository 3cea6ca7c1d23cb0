"""The serving side of GrpcNetwork."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import unquote

import grpc.aio
from apogeemq.mesh.clock import SystemClock
from apogeemq.mesh.dispatch import answer, converse, handlers_by_path, wind_down
from apogeemq.mesh.errors import ChannelClosed, MeshError, PeerRefused, StreamLost
from apogeemq.mesh.grpc_channel import ACCEPTED_KEY
from apogeemq.mesh.grpc_stream import GrpcStream
from apogeemq.mesh.network import (
    CallContext,
    CallTracing,
    Handler,
    Metadata,
    StreamHandler,
    UnaryHandler,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

OutT = TypeVar("OutT", bound="Message")
InT = TypeVar("InT", bound="Message")

_END_OR_LOSS_S = 0.05
# When a client is lost, grpc first reports the end of its messages, just as for a half-close, and the loss in a second
# event right behind. A clean end is believed when no loss has followed within this time.

_GRPC_OWN_KEYS = frozenset({"user-agent"})

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcListening:
    """A running grpc.aio server."""

    def __init__(self, host: str, port: int, server: grpc.aio.Server, calls: RunningCalls) -> None:
        self.host = host
        self.port = port
        self._server = server
        self._calls = calls

    async def stop(self, grace_s: float) -> None:
        """See Listening.stop."""
        await self._server.stop(grace_s)
        await self._calls.cancel()


class RunningCalls:
    """The handlers at work: grpc's own stop() does not wait for them to end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count the current task among them."""
        task = asyncio.current_task()
        assert task is not None, "grpc runs every call in a task"
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def cancel(self) -> None:
        """Cancel them, and return when all have ended."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class HandlersByPath(grpc.GenericRpcHandler):
    """All handlers of one server. grpc itself sees bytes only."""

    def __init__(self, handlers: Sequence[Handler], calls: RunningCalls, tracing: CallTracing) -> None:
        self._calls = calls
        self._tracing = tracing
        self._rpc_handlers = {path: self._rpc_handler(handler) for path, handler in handlers_by_path(handlers).items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Find who serves a path; None lets grpc answer UNIMPLEMENTED."""
        return self._rpc_handlers.get(handler_call_details.method)

    def _rpc_handler(self, handler: Handler) -> grpc.RpcMethodHandler[bytes, bytes]:
        if isinstance(handler, UnaryHandler):
            return grpc.unary_unary_rpc_method_handler(partial(self._answer, handler))
        return grpc.stream_stream_rpc_method_handler(partial(self._converse, handler))

    async def _answer(
        self, handler: UnaryHandler[Any, Any], data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> bytes:
        caller = CallContext(peer_address(context.peer()), _metadata(context), context.time_remaining())
        with self._calls.one():
            try:
                return await answer(handler, data, caller, self._tracing)
            except PeerRefused as refusal:
                await _refuse(context, refusal)

    async def _converse(
        self, handler: StreamHandler[Any, Any], _: object, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        with self._calls.one():
            await context.send_initial_metadata(((ACCEPTED_KEY, "1"),))
            stream = _ServerStream[Any, Any](context, handler.method.path, handler.method.request_type)
            work = asyncio.ensure_future(converse(handler, stream, self._tracing, lambda: stream.gone is not None))
            try:
                await asyncio.wait({work, stream.over}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:  # how grpc tells that the client is gone
                stream.give_up(StreamLost(stream.peer, "the peer is gone"))
                raise
            finally:
                await wind_down(work, SystemClock())
                stream.drop_read()
            refusal = None if work.cancelled() else work.exception()
            if isinstance(refusal, PeerRefused):
                await _refuse(context, refusal)
            if stream.over.done():
                await context.abort(grpc.StatusCode.CANCELLED, "cancelled by the peer")


class _ServerStream(GrpcStream[OutT, InT]):
    """The handler's side of a stream. `over` is done once give_up() was called."""

    def __init__(self, context: grpc.aio.ServicerContext[bytes, bytes], path: str, incoming_type: type[InT]) -> None:
        super().__init__(path, peer_address(context.peer()), _metadata(context), incoming_type)
        self._context = context
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def give_up(self, error: MeshError) -> None:
        super().give_up(error)
        if not self.over.done():
            self.over.set_result(None)

    def cancel(self) -> None:
        self.give_up(ChannelClosed(self.peer, "the stream"))

    def read(self) -> Awaitable[Any]:
        return self._context.read()

    def write(self, data: bytes) -> Awaitable[None]:
        return self._context.write(data)

    async def confirm_end(self) -> None:
        await asyncio.wait({self.over}, timeout=_END_OR_LOSS_S)

    async def read_failure(self, error: BaseException) -> MeshError:
        return self._lose(error)

    async def write_failure(self, error: BaseException) -> MeshError:
        return self._lose(error)

    def _lose(self, error: BaseException) -> MeshError:
        lost = StreamLost(self.peer, str(error) or "the connection broke")
        self.give_up(lost)
        return lost


async def _refuse(context: grpc.aio.ServicerContext[bytes, bytes], refusal: PeerRefused) -> NoReturn:
    await context.abort(_CODES[refusal.code], refusal.message)


def peer_address(grpc_peer: str) -> str:
    """Make "127.0.0.1:5000" of grpc's "ipv4:127.0.0.1:5000" and "[::1]:5000" of its "ipv6:%5B::1%5D:5000"."""
    return unquote(grpc_peer).removeprefix("ipv4:").removeprefix("ipv6:")


def _metadata(context: grpc.aio.ServicerContext[bytes, bytes]) -> Metadata:
    """Keep what the caller sent along, without what grpc adds."""
    pairs = context.invocation_metadata() or ()
    return {key: value for key, value in pairs if isinstance(value, str) and key not in _GRPC_OWN_KEYS}
