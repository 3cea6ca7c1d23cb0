"""The standard gRPC health service (grpc.health.v1), fed by Health: for probes and load balancers.

Service "" is the whole process; any other name is a check's.   Source: grpc/health/v1/health.proto.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from apogeemq.mesh.errors import PeerRefused, RefusalCode
from apogeemq.mesh.health import Health
from apogeemq.mesh.network import CallContext, Handler, MeshStream, Stream, StreamHandler, Unary, UnaryHandler
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse  # type: ignore[import-untyped]

CHECK = Unary("/grpc.health.v1.Health/Check", HealthCheckRequest, HealthCheckResponse)
WATCH = Stream("/grpc.health.v1.Health/Watch", HealthCheckRequest, HealthCheckResponse)
"""On the wire a server-streaming method is a stream whose opener sends one message."""


def health_handlers(health: Health) -> Sequence[Handler]:
    """Serve Check and Watch."""

    async def check(request: HealthCheckRequest, context: CallContext) -> HealthCheckResponse:
        status = _status(health, request.service)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            raise PeerRefused(RefusalCode.NOT_FOUND, f"no check named {request.service!r}")
        return HealthCheckResponse(status=status)

    async def watch(stream: MeshStream[HealthCheckResponse, HealthCheckRequest]) -> None:
        request = await stream.receive()
        if request is None:
            raise PeerRefused(RefusalCode.INVALID_ARGUMENT, "no request came")
        changed = asyncio.Event()
        remove_listener = health.add_listener(changed.set)
        try:
            sent = None
            while True:
                changed.clear()
                status = _status(health, request.service)
                if status != sent:
                    sent = status
                    await stream.send(HealthCheckResponse(status=status))
                await changed.wait()
        finally:
            remove_listener()

    return [UnaryHandler(CHECK, check), StreamHandler(WATCH, watch)]


def _status(health: Health, service: str) -> int:
    if not service:
        serving = health.ready
    elif service in health.checks:
        serving = health.checks[service].serving
    else:
        return int(HealthCheckResponse.SERVICE_UNKNOWN)
    return int(HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING)
