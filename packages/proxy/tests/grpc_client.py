"""A gRPC client that knows no generated stubs: bytes and metadata, as any client library would send them."""

from __future__ import annotations

from typing import TypeVar

import grpc.aio
from apogeemq.proto.v2 import service_pb2 as v2
from google.protobuf.message import Message

SERVICE = "apache.rocketmq.v2.MessagingService"
WAIT_S = 10.0

CLIENT = (("x-mq-client-id", "client-1"), ("x-mq-language", "JAVA"), ("x-mq-client-version", "5.2.0"))
"""Metadata of a client."""

Resp = TypeVar("Resp", bound=Message)
Metadata = tuple[tuple[str, str], ...]


async def call_bytes(
    channel: grpc.aio.Channel, method: str, payload: bytes, metadata: Metadata = CLIENT, timeout_s: float = WAIT_S
) -> bytes:
    """Make a unary call of whatever bytes."""
    callable_: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/{method}")
    return await callable_(payload, metadata=metadata, timeout=timeout_s)


async def call(
    channel: grpc.aio.Channel, method: str, request: Message, response_type: type[Resp], metadata: Metadata = CLIENT
) -> Resp:
    """Make a unary call."""
    return response_type.FromString(await call_bytes(channel, method, request.SerializeToString(), metadata))


def receive_bytes(
    channel: grpc.aio.Channel, payload: bytes, metadata: Metadata = CLIENT, timeout_s: float | None = WAIT_S
) -> grpc.aio.UnaryStreamCall[bytes, bytes]:
    """Call ReceiveMessage with whatever bytes."""
    callable_: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{SERVICE}/ReceiveMessage")
    return callable_(payload, metadata=metadata, timeout=timeout_s)


async def receive(
    channel: grpc.aio.Channel, request: v2.ReceiveMessageRequest, metadata: Metadata = CLIENT
) -> list[v2.ReceiveMessageResponse]:
    """Call ReceiveMessage and read all of the answer."""
    stream = receive_bytes(channel, request.SerializeToString(), metadata)
    return [v2.ReceiveMessageResponse.FromString(data) async for data in stream]


def telemetry(channel: grpc.aio.Channel, metadata: Metadata = CLIENT) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    """Open a Telemetry stream."""
    callable_: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"/{SERVICE}/Telemetry")
    return callable_(metadata=metadata)
