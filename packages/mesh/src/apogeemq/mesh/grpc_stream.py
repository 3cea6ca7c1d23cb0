"""Send and receive on one gRPC stream, the same for both sides.

grpc.aio's own read() and write() have two habits that this hides: a task that is cancelled while it waits in either
takes the whole call down with it, and a second one at the same time breaks the call. So each runs in a task that
outlives its waiter: a receive() that was given up leaves its read running for the next receive().
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc.aio
from apogeemq.mesh.dispatch import decode, encode
from apogeemq.mesh.errors import MeshError
from apogeemq.mesh.network import Metadata

if TYPE_CHECKING:
    from google.protobuf.message import Message

OutT = TypeVar("OutT", bound="Message")
InT = TypeVar("InT", bound="Message")


class GrpcStream(ABC, Generic[OutT, InT]):
    """One side of a stream. Once `gone` is set, by give_up(), it is over for us: waiting and later calls raise it.

    A failed write says only that the peer takes no more messages: what it sent before, and how it ended, is still
    there to be received. So writes and reads fail apart.
    """

    def __init__(self, path: str, peer: str, metadata: Metadata, incoming_type: type[InT]) -> None:
        self.peer = peer
        self.metadata = metadata
        self.gone: MeshError | None = None
        self._path = path
        self._incoming_type = incoming_type
        self._finished = False
        self._read_error: MeshError | None = None
        self._receiving = False
        self._reading: asyncio.Future[Any] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._send_turn = asyncio.Lock()

    @abstractmethod
    def read(self) -> Awaitable[Any]:
        """Read the next encoded message, or grpc.aio.EOF."""

    @abstractmethod
    def write(self, data: bytes) -> Awaitable[None]:
        """Send an encoded message."""

    @abstractmethod
    async def read_failure(self, error: BaseException) -> MeshError:
        """Say what it means that read() raised `error`."""

    @abstractmethod
    async def write_failure(self, error: BaseException) -> MeshError:
        """Say what it means that write() raised `error`."""

    @abstractmethod
    async def confirm_end(self) -> None:
        """Be told that the peer's messages have ended; calls give_up() when this turns out to be no clean end."""

    async def send(self, message: OutT, /) -> None:
        """See MeshStream.send. One that is cancelled while it waits for the peer may still be carried out."""
        data = encode(self._path, message)
        await self.write_in_turn(lambda: self.write(data))

    async def receive(self) -> InT | None:
        """See MeshStream.receive."""
        if self._receiving:
            raise RuntimeError("another task is receiving from this stream")
        self._receiving = True
        try:
            data = await self._next()
        finally:
            self._receiving = False
        return None if data is None else decode(self._path, self._incoming_type, data)

    def give_up(self, error: MeshError) -> None:
        """Let waiting and later calls raise `error`. The first reason given stays."""
        if self.gone is None:
            self.gone = error
            for operation in (self._reading, self._writing):
                if operation is not None:
                    operation.cancel()

    def drop_read(self) -> None:
        """Forget a read that nobody waits for any more, so that its failure is nobody's either."""
        if self._reading is not None:
            self._reading.cancel()

    async def write_in_turn(self, write: Callable[[], Awaitable[None]]) -> None:
        """Run one write when those before it are through, also those whose senders have gone away."""
        async with self._send_turn:
            await self._written()
            if self.gone is not None:
                raise self.gone
            self._writing = asyncio.ensure_future(write())
            await self._written()

    async def _written(self) -> None:
        if self._writing is None:
            return
        await _end_of(self._writing)
        writing, self._writing = self._writing, None
        error = _error_of(writing)
        if error is not None:
            raise (self.gone or await self.write_failure(error)) from error

    async def _next(self) -> bytes | None:
        over = self.gone or self._read_error
        if over is not None:
            raise over
        if self._finished:
            return None
        if self._reading is None:
            self._reading = asyncio.ensure_future(self.read())
        await _end_of(self._reading)
        reading, self._reading = self._reading, None
        error = _error_of(reading)
        if error is not None:
            self._read_error = self.gone or await self.read_failure(error)
            raise self._read_error from error
        if reading.result() is not grpc.aio.EOF:
            data: bytes = reading.result()
            return data
        await self.confirm_end()
        if self.gone is not None:
            raise self.gone
        self._finished = True
        return None


async def _end_of(operation: asyncio.Future[Any]) -> None:
    """Wait until an operation has ended, however that is; it goes on when this wait is cancelled.

    What asyncio.wait() does for one, at a quarter of its cost: it runs twice a frame on either side.
    """
    if operation.done():
        return
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    wake = partial(_wake, ended)
    operation.add_done_callback(wake)
    try:
        await ended
    finally:
        operation.remove_done_callback(wake)


def _wake(ended: asyncio.Future[None], operation: asyncio.Future[Any]) -> None:
    if not ended.done():
        ended.set_result(None)


def _error_of(operation: asyncio.Future[Any]) -> BaseException | None:
    return asyncio.CancelledError() if operation.cancelled() else operation.exception()
