"""The MessagingService without its transport: protobuf requests in, protobuf responses out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.context import RequestContext
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.ports import Brokers, Routes
from apogeemq.proxy.service.clients import TelemetrySession

_NOT_YET = ProxyError(Code.NOT_IMPLEMENTED, "this call is not served yet")


class MessagingService:
    """All RPCs of apache.rocketmq.v2.MessagingService that this proxy serves. Each refuses with ProxyError.

    `run` is its background work: one task for as long as the service is used.
    """

    def __init__(
        self, brokers: Brokers, routes: Routes, *, clock: Clock, chance: Chance, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()

    async def run(self) -> None:
        """Renew, expire and beat until cancelled."""
        raise _NOT_YET

    async def query_route(self, request: v2.QueryRouteRequest, context: RequestContext) -> v2.QueryRouteResponse:
        raise _NOT_YET

    async def query_assignment(
        self, request: v2.QueryAssignmentRequest, context: RequestContext
    ) -> v2.QueryAssignmentResponse:
        raise _NOT_YET

    async def send_message(self, request: v2.SendMessageRequest, context: RequestContext) -> v2.SendMessageResponse:
        raise _NOT_YET

    def receive_message(
        self, request: v2.ReceiveMessageRequest, context: RequestContext
    ) -> AsyncIterator[v2.ReceiveMessageResponse]:
        raise _NOT_YET

    async def ack_message(self, request: v2.AckMessageRequest, context: RequestContext) -> v2.AckMessageResponse:
        raise _NOT_YET

    async def change_invisible_duration(
        self, request: v2.ChangeInvisibleDurationRequest, context: RequestContext
    ) -> v2.ChangeInvisibleDurationResponse:
        raise _NOT_YET

    async def heartbeat(self, request: v2.HeartbeatRequest, context: RequestContext) -> v2.HeartbeatResponse:
        raise _NOT_YET

    async def notify_client_termination(
        self, request: v2.NotifyClientTerminationRequest, context: RequestContext
    ) -> v2.NotifyClientTerminationResponse:
        raise _NOT_YET

    async def forward_message_to_dead_letter_queue(
        self, request: v2.ForwardMessageToDeadLetterQueueRequest, context: RequestContext
    ) -> v2.ForwardMessageToDeadLetterQueueResponse:
        raise _NOT_YET

    async def end_transaction(
        self, request: v2.EndTransactionRequest, context: RequestContext
    ) -> v2.EndTransactionResponse:
        raise _NOT_YET

    async def recall_message(
        self, request: v2.RecallMessageRequest, context: RequestContext
    ) -> v2.RecallMessageResponse:
        raise _NOT_YET

    def open_telemetry(self, context: RequestContext, send: Callable[[v2.TelemetryCommand], None]) -> TelemetrySession:
        """A client's Telemetry stream is open. `send` puts a command on it; it never waits and never raises.

        ProxyError TOO_MANY_REQUESTS when as many clients are known as may be.
        """
        raise _NOT_YET
