"""What the proxy counts and shows under /metrics.

`rocketmq_proxy_up` is Apache's (reference metrics.tsv); the others are our own, since its proxy counts no requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from apogeemq.mesh.metrics import Distribution, Registry, Value
from apogeemq.proxy.service.orphans import Delivery

LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Up to the longest poll."""


class CallMetrics:
    """Counts and times calls; one dict lookup and a few additions each."""

    def __init__(self, registry: Registry, protocol: str) -> None:
        """`protocol` is grpc or remoting, a part of the names."""
        self._counts = registry.counter(
            f"apogeemq_proxy_{protocol}_requests_total",
            f"Requests of {protocol} clients that were answered, by method and code.",
            ("method", "code"),
        )
        self._times = registry.histogram(
            f"apogeemq_proxy_{protocol}_request_seconds",
            "Time from a request to the end of its answer; a receive waits for messages in it.",
            LATENCY_BUCKETS_S,
            ("method",),
        )
        self._children: dict[tuple[str, str], tuple[Value, Distribution]] = {}

    def observe(self, method: str, code: str, seconds: float) -> None:
        """Count one answer."""
        children = self._children.get((method, code))
        if children is None:
            children = self._counts.child(method=method, code=code), self._times.child(method=method)
            self._children[method, code] = children
        count, time = children
        count.value += 1
        time.observe(seconds)


def register_gauges(
    registry: Registry,
    *,
    proxy_mode: str,
    telemetry_streams: Callable[[], int],
    topics: Callable[[], int],
    brokers: Callable[[], int],
    questions: Callable[[], Mapping[Delivery, int]],
) -> None:
    """Declare what is read when scraped. `proxy_mode` is cluster or local."""
    registry.observed_gauges(
        "rocketmq_proxy_up", "1 while the proxy runs.", ("proxy_mode",), lambda: [((proxy_mode,), 1)]
    )
    registry.observed_counters(
        "apogeemq_proxy_transaction_checks_total",
        "Questions of brokers about transactions since start, by what became of them.",
        ("result",),
        lambda: [((delivery.name.lower(),), questions().get(delivery, 0)) for delivery in Delivery],
    )
    for name, help_text, read in (
        ("apogeemq_proxy_telemetry_streams", "Open Telemetry streams.", telemetry_streams),
        ("apogeemq_proxy_kept_routes", "Topics whose routes are kept.", topics),
        ("apogeemq_proxy_known_brokers", "Brokers that can be asked.", brokers),
    ):
        registry.observed_gauge(name, help_text, read)
