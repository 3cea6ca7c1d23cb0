"""What every network does the same way around a handler: bytes ↔ messages, bounds, and errors into refusals."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from apogeemq.mesh.clock import Clock
from apogeemq.mesh.errors import ChannelClosed, MessageTooLarge, PeerRefused, RefusalCode, StreamLost
from apogeemq.mesh.network import (
    LOST_STREAM_GRACE_S,
    MESSAGE_SIZE_BYTES_MAX,
    CallContext,
    CallTracing,
    ClientCall,
    Handler,
    MeshStream,
    Metadata,
    Req,
    Resp,
    StreamHandler,
    UnaryHandler,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

MessageT = TypeVar("MessageT", bound="Message")

_METADATA_KEY = re.compile(r"[0-9a-z_.\-]{1,64}")
_METADATA_VALUE = re.compile(r"[\x20-\x7e]{0,4096}")

_log = logging.getLogger(__name__)


class _UntracedCall:
    metadata: Metadata = {}  # noqa: RUF012 — never written to

    def end(self, error: BaseException | None) -> None:
        return


class Untraced:
    """CallTracing that does nothing: what a network uses until telemetry is set up."""

    def client_call(self, path: str, target: str) -> ClientCall:
        """Add no metadata."""
        return _UntracedCall()

    def server_call(self, path: str, peer: str, metadata: Metadata) -> AbstractContextManager[None]:
        """Make no span."""
        return nullcontext()


def handlers_by_path(handlers: Sequence[Handler]) -> dict[str, Handler]:
    """Index handlers by path; ValueError when two serve the same one."""
    by_path: dict[str, Handler] = {}
    for handler in handlers:
        if by_path.setdefault(handler.method.path, handler) is not handler:
            raise ValueError(f"two handlers for {handler.method.path}")
    return by_path


def joined_metadata(metadata: Metadata | None, traced: Metadata) -> Metadata:
    """Join the caller's metadata with what tracing adds; ValueError names a key or value that can't travel."""
    joined = {**(metadata or {}), **traced}
    for key, value in joined.items():
        if not _METADATA_KEY.fullmatch(key) or key.startswith("grpc-") or key.endswith("-bin"):
            raise ValueError(f"metadata key {key!r}: lower-case letters, digits, '-', '_', '.'; no grpc- and no -bin")
        if not _METADATA_VALUE.fullmatch(value):
            raise ValueError(f"metadata {key}: the value is not printable ASCII")
    return joined


def encode(path: str, message: Message) -> bytes:
    """Encode a message to be sent on `path`; raises MessageTooLarge."""
    data = message.SerializeToString()
    if len(data) > MESSAGE_SIZE_BYTES_MAX:
        raise MessageTooLarge(path, len(data), MESSAGE_SIZE_BYTES_MAX)
    return data


def decode(path: str, message_type: type[MessageT], data: bytes) -> MessageT:
    """Decode what arrived on `path`; raises PeerRefused(INVALID_ARGUMENT) for bytes that are no such message."""
    from google.protobuf.message import DecodeError

    try:
        return message_type.FromString(data)
    except DecodeError as error:
        name = message_type.DESCRIPTOR.full_name
        raise PeerRefused(RefusalCode.INVALID_ARGUMENT, f"bytes on {path} are no {name}: {error}") from error


async def answer(handler: UnaryHandler[Req, Resp], data: bytes, context: CallContext, tracing: CallTracing) -> bytes:
    """Run a unary handler from request bytes to reply bytes. Every failure but a cancellation becomes PeerRefused."""
    path = handler.method.path
    try:
        with tracing.server_call(path, context.peer, context.metadata):
            request = decode(path, handler.method.request_type, data)
            return encode(path, await handler.handle(request, context))
    except PeerRefused:
        raise
    except Exception as error:
        raise _refusal(path, context.peer, error) from error


async def converse(
    handler: StreamHandler[Req, Resp],
    stream: MeshStream[Resp, Req],
    tracing: CallTracing,
    is_gone: Callable[[], bool],
) -> None:
    """Run a stream handler to its end; raises nothing but PeerRefused, which is then to be sent to the opener.

    `is_gone` tells whether this very stream was lost or cancelled: then there is nobody left to tell, and StreamLost or
    ChannelClosed is the ordinary end. From another stream that the handler uses, they are failures like any other.
    """
    path = handler.method.path
    try:
        with tracing.server_call(path, stream.peer, stream.metadata):
            await handler.handle(stream)
    except PeerRefused:
        raise
    except Exception as error:
        if not (isinstance(error, (StreamLost, ChannelClosed)) and is_gone()):
            raise _refusal(path, stream.peer, error) from error


async def wind_down(work: asyncio.Future[None], clock: Clock) -> None:
    """Wait LOST_STREAM_GRACE_S for a handler whose stream is over, then cancel it; returns when it has ended."""
    if work.done():
        return
    timer = asyncio.ensure_future(clock.sleep(LOST_STREAM_GRACE_S))
    try:
        await asyncio.wait({work, timer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        work.cancel()
        await asyncio.wait({work})


def _refusal(path: str, peer: str, error: Exception) -> PeerRefused:
    """Tell the peer what it can use, and the log the rest."""
    if isinstance(error, MessageTooLarge):
        _log.error("reply to %s on %s: %s", peer, path, error)
        return PeerRefused(RefusalCode.RESOURCE_EXHAUSTED, f"the reply is too large: {error}")
    _log.error("handler of %s failed for %s", path, peer, exc_info=error)
    return PeerRefused(RefusalCode.INTERNAL, f"the handler of {path} failed; the reason is in the server's log")
