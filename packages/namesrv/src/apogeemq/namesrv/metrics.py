"""What the name server counts and shows under /metrics."""

from __future__ import annotations

from collections.abc import Callable

from apogeemq.mesh.metrics import Registry, Value
from apogeemq.namesrv.core.registrar import Registrar
from apogeemq.namesrv.core.route_table import RouteTable
from apogeemq.remoting_codec.aio.stats import ServerStats
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode

UNKNOWN_REQUEST = "unknown"
"""Label of request codes that RocketMQ does not have: any number may come, but not each with a line of its own."""

_KNOWN_REQUESTS = frozenset(RequestCode)


class RequestCounter:
    """Counts requests by request code and result; one dict lookup and one addition each."""

    def __init__(self, registry: Registry) -> None:
        self._family = registry.counter(
            "rocketmq_namesrv_requests_total",
            "Remoting requests handled, by request code and response code",
            ("request_code", "response_code"),
        )
        self._children: dict[tuple[int, int], Value] = {}

    def count(self, request_code: int, response_code: ResponseCode) -> None:
        """Count one request; what is no request code of RocketMQ counts as UNKNOWN_REQUEST."""
        key = (request_code if request_code in _KNOWN_REQUESTS else 0, int(response_code))
        child = self._children.get(key)
        if child is None:
            name = RequestCode(request_code).name if key[0] else UNKNOWN_REQUEST
            child = self._children[key] = self._family.child(request_code=name, response_code=response_code.name)
        child.value += 1


def observe(
    registry: Registry,
    table: RouteTable,
    registrar: Registrar,
    connections: ServerStats,
    watch_count: Callable[[], int],
) -> None:
    """Declare the gauges, which are read when scraped."""
    registry.observed_gauge("rocketmq_namesrv_brokers", "registered brokers", lambda: table.member_count)
    registry.observed_gauge("rocketmq_namesrv_topics", "topics with a registered broker", lambda: table.topic_count)
    registry.observed_gauge(
        "rocketmq_namesrv_registration_streams",
        "open registration streams of brokers",
        lambda: registrar.session_count,
    )
    registry.observed_gauge(
        "rocketmq_namesrv_connections", "open Remoting connections", lambda: connections.connections_open
    )
    registry.observed_gauge("rocketmq_namesrv_route_watches", "open watches of routes", watch_count)
