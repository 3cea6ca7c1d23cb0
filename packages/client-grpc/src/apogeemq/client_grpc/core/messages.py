"""Messages ↔ the API's messages, both ways."""

import dataclasses
import hashlib
import zlib
from collections.abc import Callable
from typing import Final

from apogeemq.client_api.errors import MessageInvalid
from apogeemq.client_api.message import Message, ReceivedMessage
from apogeemq.client_api.propagation import TRACEPARENT
from apogeemq.client_grpc.core import durations
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.proto.v2 import definition_pb2

DECOMPRESSED_SIZE_MAX: Final = 64 * 1024 * 1024
"""Bytes that a compressed body may unfold to; sixteen times what a server takes by default."""

_AS_IT_IS: Final = frozenset({definition_pb2.Encoding.IDENTITY, definition_pb2.Encoding.ENCODING_UNSPECIFIED})
_ANY_HEADER: Final = zlib.MAX_WBITS | 32  # gzip, and the zlib form in which Remoting producers compress


class Corrupted(Exception):  # noqa: N818 — says what the message is
    """A message whose body is not what its sender sent; the text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Receipt:
    """What it takes to settle a message: the handle, and the proxy and broker it came from.

    `expires_s` is the moment on the client's monotonic clock after which the handle can't be trusted any more, unless
    the proxy renews it. `is_readable` is false for a corrupted message, which must not reach the application.
    """

    handle: str
    endpoints: Endpoints
    expires_s: float
    is_readable: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """What a client knows of all messages of one ReceiveMessage."""

    group: str
    broker_name: str
    endpoints: Endpoints
    now_s: float
    invisible_s: float


def to_proto(
    message: Message, *, message_id: str, born_timestamp_ms: int, born_host: str, in_transaction: bool = False
) -> definition_pb2.Message:
    """A message to send. The trace context in its properties is mirrored into the field that the API has for it.

    A delay counts from `born_timestamp_ms` on. Raises MessageInvalid for a delay level, which the API has not.
    """
    system = definition_pb2.SystemProperties(
        keys=message.keys,
        message_id=message_id,
        body_encoding=definition_pb2.Encoding.IDENTITY,
        message_type=definition_pb2.MessageType.TRANSACTION if in_transaction else message_type(message),
        born_timestamp=durations.timestamp(born_timestamp_ms),
        born_host=born_host,
        tag=message.tag,
        message_group=message.message_group,
        trace_context=message.properties.get(TRACEPARENT),
    )
    delivery_ms = _delivery_ms(message, born_timestamp_ms)
    if delivery_ms is not None:
        system.delivery_timestamp.CopyFrom(durations.timestamp(delivery_ms))
    return definition_pb2.Message(
        topic=definition_pb2.Resource(name=message.topic),
        user_properties=message.properties,
        system_properties=system,
        body=message.body,
    )


def message_type(message: Message) -> definition_pb2.MessageType:
    """What kind a message is, by what is set in it."""
    if message.message_group is not None:
        return definition_pb2.MessageType.FIFO
    if message.is_delayed:
        return definition_pb2.MessageType.DELAY
    return definition_pb2.MessageType.NORMAL


def _delivery_ms(message: Message, now_ms: int) -> int | None:
    """When a delayed message is due; None for one that is not delayed."""
    if message.delay_level is not None:
        raise MessageInvalid(
            "delay_level", "is for Remoting only", hint="Use delay_ms or delivery_timestamp_ms over gRPC."
        )
    if message.delay_ms is not None:
        return now_ms + message.delay_ms
    return message.delivery_timestamp_ms


def receipt_of(message: definition_pb2.Message, origin: Origin) -> Receipt:
    """What it takes to settle a received message, be it corrupted or not.

    The invisible time is the message's own where the proxy chose it (auto renew), else the one asked for.
    """
    system = message.system_properties
    own_s = durations.seconds(system.invisible_duration)
    return Receipt(
        handle=system.receipt_handle,
        endpoints=origin.endpoints,
        expires_s=origin.now_s + (own_s if own_s > 0 else origin.invisible_s),
    )


def from_proto(message: definition_pb2.Message, origin: Origin) -> ReceivedMessage:
    """A received message. Raises Corrupted when its digest does not fit or its body can't be decompressed."""
    system = message.system_properties
    check_digest(system.body_digest, message.body)
    return _received(message, origin, _decoded(system.body_encoding, message.body))


def without_body(message: definition_pb2.Message, origin: Origin) -> ReceivedMessage:
    """A corrupted message, for settling it only: its body is empty, and it must not reach the application."""
    unread = _received(message, origin, b"")
    return dataclasses.replace(unread, receipt=dataclasses.replace(receipt_of(message, origin), is_readable=False))


def _received(message: definition_pb2.Message, origin: Origin, body: bytes) -> ReceivedMessage:
    system = message.system_properties
    properties = dict(message.user_properties)
    if system.trace_context:
        properties.setdefault(TRACEPARENT, system.trace_context)
    return ReceivedMessage(
        message_id=system.message_id,
        topic=message.topic.name,
        body=body,
        tag=system.tag if system.HasField("tag") else None,
        keys=tuple(system.keys),
        properties=properties,
        message_group=system.message_group if system.HasField("message_group") else None,
        born_timestamp_ms=durations.milliseconds(system.born_timestamp),
        born_host=system.born_host,
        store_timestamp_ms=durations.milliseconds(system.store_timestamp),
        broker_name=origin.broker_name,
        queue_id=system.queue_id,
        queue_offset=system.queue_offset,
        delivery_attempt=max(system.delivery_attempt, 1),
        group=origin.group,
        receipt=receipt_of(message, origin),
    )


def check_digest(digest: definition_pb2.Digest, body: bytes) -> None:
    """Compare the digest of the bytes as they were sent, that is, compressed where they are. Raises Corrupted.

    A message without a checksum is taken as it is. Letter case and leading zeros of a checksum mean nothing.
    """
    if not digest.checksum:
        return
    compute = _DIGESTS.get(digest.type)
    if compute is None:
        raise Corrupted(f"its digest is of the unknown type {digest.type}")
    try:
        said = int(digest.checksum, 16)
    except ValueError:
        raise Corrupted("its digest is not a hexadecimal number") from None
    if said != compute(body):
        raise Corrupted(f"the digest of its {len(body)} bytes is not the one that it carries")


_DIGESTS: Final[dict[int, Callable[[bytes], int]]] = {
    definition_pb2.DigestType.CRC32: zlib.crc32,
    definition_pb2.DigestType.MD5: lambda body: int(hashlib.md5(body, usedforsecurity=False).hexdigest(), 16),
    definition_pb2.DigestType.SHA1: lambda body: int(hashlib.sha1(body, usedforsecurity=False).hexdigest(), 16),
}


def _decoded(encoding: int, body: bytes) -> bytes:
    if encoding in _AS_IT_IS:
        return body
    if encoding == definition_pb2.Encoding.GZIP:
        return _decompressed(body)
    raise Corrupted(f"its body has the unknown encoding {encoding}")


def _decompressed(body: bytes) -> bytes:
    machine = zlib.decompressobj(_ANY_HEADER)
    try:
        content = machine.decompress(body, DECOMPRESSED_SIZE_MAX)
    except zlib.error as error:
        raise Corrupted(f"its body can't be decompressed: {error}") from error
    if machine.unconsumed_tail:
        raise Corrupted(f"its body unfolds to more than {DECOMPRESSED_SIZE_MAX} bytes")
    if not machine.eof:
        raise Corrupted("its compressed body ends too early")
    return content
