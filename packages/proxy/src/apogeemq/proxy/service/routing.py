"""QueryRoute and QueryAssignment: where a client sends to and receives from."""

from __future__ import annotations

from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.context import RequestContext
from apogeemq.proxy.core.message_kinds import accepted_types
from apogeemq.proxy.core.names import group_of, topic_of
from apogeemq.proxy.core.routes import assignments, message_queues, readable_brokers
from apogeemq.proxy.core.status import OK
from apogeemq.proxy.core.validation import check_endpoints
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.ports import Routes
from apogeemq.proxy.service.broker_calls import BrokerCalls
from apogeemq.proxy.service.metadata import Metadata


class Routing:
    """Routes for clients."""

    def __init__(self, routes: Routes, calls: BrokerCalls, metadata: Metadata) -> None:
        self._routes = routes
        self._calls = calls
        self._metadata = metadata

    async def query_route(self, request: v2.QueryRouteRequest, context: RequestContext) -> v2.QueryRouteResponse:
        """All queues of a topic; one that does not exist may be made, where the settings allow it."""
        topic = topic_of(request.topic, "topic")
        check_endpoints(request.endpoints, "endpoints")
        route = await self._routes.route(topic, timeout_s=self._calls.timeout_s(context.deadline), create=True)
        topic_type = await self._metadata.topic_type(route, self._calls.timeout_s(context.deadline))
        accepted = accepted_types(topic_type)
        queues = message_queues(route, request.topic, request.endpoints, accepted)
        return v2.QueryRouteResponse(status=OK, message_queues=queues)

    async def query_assignment(
        self, request: v2.QueryAssignmentRequest, context: RequestContext
    ) -> v2.QueryAssignmentResponse:
        """What a member of a group receives from: every readable broker."""
        topic, group = topic_of(request.topic, "topic"), group_of(request.group, "group")
        check_endpoints(request.endpoints, "endpoints")
        route = await self._routes.route(topic, timeout_s=self._calls.timeout_s(context.deadline))
        readable = readable_brokers(route)
        if not readable:
            raise ProxyError(Code.FORBIDDEN, f"topic: no readable queue of {topic}; look at its permission and masters")
        policy = await self._metadata.group_policy(group, readable, self._calls.timeout_s(context.deadline))
        assigned = assignments(route, request.topic, request.endpoints, is_fifo=policy.is_fifo)
        return v2.QueryAssignmentResponse(status=OK, assignments=assigned)
