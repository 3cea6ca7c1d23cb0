"""Calls over gRPC: one channel for each access point, opened when it is first used, in the event loop that runs then.

gRPC's threads do not survive a fork: a child process that used its parent's channels, or opened its own after its
parent had opened some, would hang. It gets an error instead.
"""

import asyncio
import dataclasses
import itertools
import os
import ssl
from collections.abc import AsyncGenerator
from typing import Final, Protocol

import grpc
import grpc.aio
from apogeemq.client_api.errors import ClientClosed, ClientError, ConnectionBroken, NotSupported
from apogeemq.client_grpc.clock import Clock
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.metadata import Header, Headers
from apogeemq.client_grpc.methods import RECEIVE_MESSAGE, TELEMETRY, Method, Request, Response
from apogeemq.proto.v2 import service_pb2

TelemetryCommand = service_pb2.TelemetryCommand
ReceiveMessageRequest = service_pb2.ReceiveMessageRequest
ReceiveMessageResponse = service_pb2.ReceiveMessageResponse

MESSAGE_SIZE_MAX: Final = 130 * 1024 * 1024  # what Apache's proxy takes in one gRPC message

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_SIZE_MAX),
    ("grpc.max_send_message_length", MESSAGE_SIZE_MAX),
    ("grpc.keepalive_time_ms", 300_000),  # servers refuse a client that asks more often than every 5 minutes
    ("grpc.keepalive_timeout_ms", 30_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),  # gRPC's own 2 minutes would outlast any restart of a proxy
    ("grpc.min_reconnect_backoff_ms", 3_000),  # how long one attempt to connect may take
    ("grpc.enable_retries", 0),  # who calls knows what may be tried again, and where
    ("grpc.use_local_subchannel_pool", 1),  # clients of one process do not share a connection
)


class NoAnswer(ConnectionBroken):
    """No answer within the deadline; what was asked may have happened."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tls:
    """TLS to the proxy, in PEM as gRPC wants it. Without `ca` the roots that gRPC brings are trusted."""

    ca: bytes | None = None
    certificate: bytes | None = None
    private_key: bytes | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse half a key pair, and what only looks like the right thing."""
        if isinstance(self.ca, ssl.SSLContext):
            raise TypeError("gRPC can't use an ssl.SSLContext: give the certificates in PEM, as bytes")
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: give both or none")


class TelemetryStream(Protocol):
    """One open Telemetry stream."""

    async def write(self, command: TelemetryCommand) -> None:
        """Send; one at a time. Raises ConnectionBroken when the stream has ended."""
        ...

    async def read(self) -> TelemetryCommand | None:
        """The next command, None when the server has ended the stream. Raises ConnectionBroken."""
        ...

    def cancel(self) -> None:
        """Give the stream up."""
        ...


class _Process:
    """In which process gRPC was first used: not again in a child."""

    pid: int | None = None

    @classmethod
    def check(cls) -> None:
        if cls.pid is None:
            cls.pid = os.getpid()
        elif cls.pid != os.getpid():
            raise ClientClosed(
                f"gRPC was used in process {cls.pid} before this process was forked from it, and can't be used here",
                hint="Fork before the first client starts, or use the start methods spawn or forkserver.",
            )


class Link:
    """The calls of one client."""

    def __init__(self, headers: Headers, *, clock: Clock, tls: Tls | None) -> None:
        self._headers = headers
        self._clock = clock
        self._tls = tls
        self._places: dict[Endpoints, _Place] = {}
        self._closed = False
        self._requests = itertools.count(1)

    async def unary(
        self,
        method: Method[Request, Response],
        endpoints: Endpoints,
        request: Request,
        *,
        timeout_s: float,
        traceparent: str | None = None,
        wait_for_connection: bool = False,
    ) -> Response:
        """Ask once. With `wait_for_connection` a proxy that can't be reached is waited for until the deadline.

        Raises NoAnswer, ConnectionBroken, NotSupported (the server has no such method), ClientClosed.
        """
        call = self._place(endpoints).unary(method)
        try:
            return await call(
                request,
                timeout=timeout_s,
                metadata=grpc.aio.Metadata(*self._call_headers(traceparent)),
                wait_for_ready=wait_for_connection,
            )
        except grpc.aio.AioRpcError as error:
            raise _failure(error, method.name, endpoints) from error
        except asyncio.CancelledError:
            raise self._unless_cancelled() from None

    async def receive(
        self, endpoints: Endpoints, request: ReceiveMessageRequest, *, timeout_s: float, traceparent: str | None = None
    ) -> AsyncGenerator[ReceiveMessageResponse, None]:
        """The parts of one ReceiveMessage as they come. Raises as `unary`; leaving the iteration cancels the call."""
        call = self._place(endpoints).receive(
            request, timeout=timeout_s, metadata=grpc.aio.Metadata(*self._call_headers(traceparent))
        )
        try:
            async for part in call:
                yield part
        except grpc.aio.AioRpcError as error:
            raise _failure(error, RECEIVE_MESSAGE.name, endpoints) from error
        except asyncio.CancelledError:
            raise self._unless_cancelled() from None
        finally:
            call.cancel()

    def telemetry(self, endpoints: Endpoints) -> TelemetryStream:
        """Open a Telemetry stream. It has no deadline."""
        call = self._place(endpoints).telemetry(metadata=grpc.aio.Metadata(*self._call_headers(None)))
        return _GrpcTelemetry(call, endpoints)

    def check_process(self) -> None:
        """Raises ClientClosed in a forked child of the process that used gRPC first."""
        _Process.check()

    async def close(self) -> None:
        """Close all channels; calls under way end with ClientClosed."""
        self._closed = True
        places, self._places = self._places, {}
        for place in places.values():
            await place.channel.close()

    def _place(self, endpoints: Endpoints) -> "_Place":
        _Process.check()
        if self._closed:
            raise ClientClosed("the client is closed")
        place = self._places.get(endpoints)
        if place is None:
            place = self._places[endpoints] = _Place(_open_channel(endpoints.target, self._tls))
        return place

    def _call_headers(self, traceparent: str | None) -> list[Header]:
        request_id = f"{self._headers.client_id}-{next(self._requests):x}"
        return self._headers.of_call(request_id=request_id, now_ms=self._clock.now_ms(), traceparent=traceparent)

    def _unless_cancelled(self) -> BaseException:
        """A call ends as cancelled both when its task is, and when its channel is closed under it."""
        task = asyncio.current_task()
        if self._closed and (task is None or not task.cancelling()):
            return ClientClosed("the client was closed while the call was under way")
        return asyncio.CancelledError()


class _Place:
    """One channel, and its methods ready to call."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._unary: dict[str, object] = {}
        self.receive: grpc.aio.UnaryStreamMultiCallable[ReceiveMessageRequest, ReceiveMessageResponse] = (
            channel.unary_stream(
                RECEIVE_MESSAGE.path,
                request_serializer=ReceiveMessageRequest.SerializeToString,
                response_deserializer=ReceiveMessageResponse.FromString,
            )
        )
        self.telemetry: grpc.aio.StreamStreamMultiCallable[TelemetryCommand, TelemetryCommand] = channel.stream_stream(
            TELEMETRY.path,
            request_serializer=TelemetryCommand.SerializeToString,
            response_deserializer=TelemetryCommand.FromString,
        )

    def unary(self, method: Method[Request, Response]) -> grpc.aio.UnaryUnaryMultiCallable[Request, Response]:
        call = self._unary.get(method.name)
        if call is None:
            call = self._unary[method.name] = self.channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return call  # type: ignore[return-value]  # the dict holds one type per method name


class _GrpcTelemetry:
    """A Telemetry stream over grpc.aio, with this client's errors."""

    def __init__(
        self, call: grpc.aio.StreamStreamCall[TelemetryCommand, TelemetryCommand], endpoints: Endpoints
    ) -> None:
        self._call = call
        self._endpoints = endpoints

    async def write(self, command: TelemetryCommand) -> None:
        try:
            await self._call.write(command)
        except grpc.aio.AioRpcError as error:
            raise _failure(error, TELEMETRY.name, self._endpoints) from error
        except asyncio.InvalidStateError as error:
            raise ConnectionBroken(f"the Telemetry stream to {self._endpoints} has ended") from error

    async def read(self) -> TelemetryCommand | None:
        try:
            part = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise _failure(error, TELEMETRY.name, self._endpoints) from error
        return part if isinstance(part, TelemetryCommand) else None  # else it is grpc.aio.EOF

    def cancel(self) -> None:
        self._call.cancel()


def _open_channel(target: str, tls: Tls | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.private_key, tls.certificate)
    return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)


def _failure(error: grpc.aio.AioRpcError, method: str, endpoints: Endpoints) -> ClientError:
    """This client's error for a call that ended without the API's own status."""
    what = f"{method} at {endpoints} failed"
    details = error.details() or "no details"
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return NoAnswer(
                f"{what}: no answer in time", hint="The proxy or its broker is slow, or the network lost it."
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return NotSupported(f"{what}: the server has no such method", hint="A newer server may have it.")
        case grpc.StatusCode.UNAVAILABLE:
            return ConnectionBroken(f"{what}: {details}", hint="Check that a proxy listens there, with TLS or without.")
        case code:
            return ConnectionBroken(f"{what}: {code.name}: {details}")
