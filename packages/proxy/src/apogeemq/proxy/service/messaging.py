"""The MessagingService without its transport: protobuf requests in, protobuf responses out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.context import RequestContext
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.core.renewal import RenewalTable
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.ports import Brokers, Routes
from apogeemq.proxy.service.background import Background
from apogeemq.proxy.service.broker_calls import BrokerCalls
from apogeemq.proxy.service.clients import ClientService, TelemetrySession
from apogeemq.proxy.service.failover import MasterWaits
from apogeemq.proxy.service.metadata import Metadata
from apogeemq.proxy.service.orphans import GrpcProducers, Orphans
from apogeemq.proxy.service.recalling import Recalling
from apogeemq.proxy.service.receiving import Receiving
from apogeemq.proxy.service.renewing import Renewing
from apogeemq.proxy.service.routing import Routing
from apogeemq.proxy.service.sending import Sending
from apogeemq.proxy.service.settling import Settling
from apogeemq.proxy.service.transactions import Transactions


class MessagingService:
    """All RPCs of apache.rocketmq.v2.MessagingService that this proxy serves. Each refuses with ProxyError.

    `run` is its background work: one task for as long as the service is used.
    """

    def __init__(
        self, brokers: Brokers, routes: Routes, *, clock: Clock, chance: Chance, limits: Limits | None = None
    ) -> None:
        self.limits = limits = limits or Limits()
        self._clock = clock
        self._background = Background()
        self.renewals = RenewalTable(limits)
        calls = BrokerCalls(brokers, clock, limits)
        self._routes = routes
        self._metadata = metadata = Metadata(calls, clock)
        self._renewing = Renewing(self.renewals, calls, self._background, clock, limits)
        self.clients = ClientService(
            calls, routes, metadata, self._background, clock, limits, on_gone=self._renewing.client_gone
        )
        calls.on_back = self.clients.broker_back
        self._routing = Routing(routes, calls, metadata)
        waits = MasterWaits(routes, clock, chance, limits.master_wait_s)
        self._sending = Sending(routes, calls, metadata, waits, clock, chance, limits)
        self._receiving = Receiving(
            routes, calls, self.clients, metadata, self.renewals, waits, self._background, clock, chance, limits
        )
        self._recalling = Recalling(calls)
        self._settling = Settling(calls, self.renewals, waits, limits)
        self._transactions = Transactions(calls)
        grpc_producers = GrpcProducers(self.clients, routes.brokers_of, chance)
        self.orphans = Orphans(calls, self._background, clock, [grpc_producers])

    async def run(self) -> None:
        """Renew invisible times, expire clients and tell brokers of them, ask about transactions, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.clients.run())
                tasks.create_task(self._renewing.run())
                tasks.create_task(self.orphans.run())
        finally:
            await self._background.close(self._clock)

    async def topic_type(self, topic: str) -> str | None:
        """The message.type of a topic, empty for none and for an unknown topic; None while nobody can be asked."""
        kept = self._metadata.kept_topic_type(topic)
        if kept is not None:
            return kept
        try:
            route = await self._routes.route(topic, timeout_s=self.limits.broker_timeout_s)
            return await self._metadata.topic_type(route, self.limits.broker_timeout_s)
        except ProxyError as error:
            return "" if error.code == Code.TOPIC_NOT_FOUND else None

    def query_route(self, request: v2.QueryRouteRequest, context: RequestContext) -> Awaitable[v2.QueryRouteResponse]:
        """The queues of a topic, at the endpoints that the client came by."""
        return self._routing.query_route(request, context)

    def query_assignment(
        self, request: v2.QueryAssignmentRequest, context: RequestContext
    ) -> Awaitable[v2.QueryAssignmentResponse]:
        """What a member of a group receives from."""
        return self._routing.query_assignment(request, context)

    def send_message(
        self, request: v2.SendMessageRequest, context: RequestContext
    ) -> Awaitable[v2.SendMessageResponse]:
        """Store messages; one entry each."""
        return self._sending.send_message(request, context)

    def receive_message(
        self, request: v2.ReceiveMessageRequest, context: RequestContext
    ) -> AsyncIterator[v2.ReceiveMessageResponse]:
        """Status, messages, delivery_timestamp. Refusals come before the first part; close it when the client goes."""
        return self._receiving.receive_message(request, context)

    def ack_message(self, request: v2.AckMessageRequest, context: RequestContext) -> Awaitable[v2.AckMessageResponse]:
        """Messages are done with; one entry each."""
        return self._settling.ack_message(request, context)

    def change_invisible_duration(
        self, request: v2.ChangeInvisibleDurationRequest, context: RequestContext
    ) -> Awaitable[v2.ChangeInvisibleDurationResponse]:
        """A message is to come again after some other time; answers its new handle."""
        return self._settling.change_invisible_duration(request, context)

    def heartbeat(self, request: v2.HeartbeatRequest, context: RequestContext) -> Awaitable[v2.HeartbeatResponse]:
        """A client lives."""
        return self.clients.heartbeat(request, context)

    def notify_client_termination(
        self, request: v2.NotifyClientTerminationRequest, context: RequestContext
    ) -> Awaitable[v2.NotifyClientTerminationResponse]:
        """A client leaves."""
        return self.clients.notify_client_termination(request, context)

    def forward_message_to_dead_letter_queue(
        self, request: v2.ForwardMessageToDeadLetterQueueRequest, context: RequestContext
    ) -> Awaitable[v2.ForwardMessageToDeadLetterQueueResponse]:
        """A message is given up: it goes to its group's dead letters."""
        return self._settling.forward_to_dead_letter_queue(request, context)

    def end_transaction(
        self, request: v2.EndTransactionRequest, context: RequestContext
    ) -> Awaitable[v2.EndTransactionResponse]:
        """A producer commits a message that it sent as a half one, or rolls it back."""
        return self._transactions.end_transaction(request, context)

    def recall_message(
        self, request: v2.RecallMessageRequest, context: RequestContext
    ) -> Awaitable[v2.RecallMessageResponse]:
        """A DELAY message is taken back before its time."""
        return self._recalling.recall_message(request, context)

    def open_telemetry(
        self,
        context: RequestContext,
        send: Callable[[v2.TelemetryCommand], None],
        end: Callable[[ProxyError], None] = lambda error: None,
        has_room: Callable[[], bool] = lambda: True,
    ) -> TelemetrySession:
        """A client's Telemetry stream is open. `send` puts a command on it, `end` ends it; neither waits or raises.

        `has_room` says whether the client has read enough for commands that can wait.

        Raises:
            ProxyError TOO_MANY_REQUESTS: as many clients are known as may be, or this one has as many streams.
        """
        return self.clients.open_telemetry(context, send, end, has_room)
