"""What the controller counts and shows under /metrics, with the names and labels of Java's controller.

Those of its Raft log (`dledger_*`) have no counterpart here: decisions are etcd's transactions. Labels of all lines:
address, group and peer_id, as there.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence

from apogeemq.controller.core.requests import (
    Answer,
    AskElection,
    ChangeSet,
    CleanBroker,
    Leave,
    RecoverSet,
    Refused,
    Register,
    Request,
    SetLearner,
)
from apogeemq.mesh.metrics import Registry

LATENCY_BUCKETS_US = (1e3, 3e3, 5e3, 1e4, 3e4, 5e4, 1e5, 3e5, 5e5, 1e6, 3e6, 5e6)
"""Up to the longest that etcd is asked for."""

BEAT = "CONTROLLER_BROKER_HEARTBEAT"

REQUEST_TYPES: dict[type[Request], str] = {
    Register: "CONTROLLER_REGISTER_BROKER",
    AskElection: "CONTROLLER_ELECT_MASTER",
    ChangeSet: "CONTROLLER_ALTER_SYNC_STATE_SET",
    CleanBroker: "CONTROLLER_CLEAN_BROKER_DATA",
    SetLearner: "CONTROLLER_SET_LEARNER",
    Leave: "CONTROLLER_LEAVE",
    RecoverSet: "CONTROLLER_RECOVER_SET",
}
"""Labels of requests; the last three are ours, Java has no such request."""


class Role(enum.IntEnum):
    """Values of the gauge `role`: those of Java's Raft, of which a stand-by is a follower."""

    CANDIDATE = 1
    FOLLOWER = 2
    LEADER = 3


class ElectionResult(enum.Enum):
    """How a try to elect a master ended."""

    NEW_MASTER_ELECTED = "new_master_elected"
    KEEP_CURRENT_MASTER = "keep_current_master"
    NO_MASTER_ELECTED = "no_master_elected"


class ControllerMetrics:
    """Counters of one controller."""

    def __init__(self, registry: Registry, cluster: str) -> None:
        self._cluster = cluster
        self._requests = registry.counter(
            "request_total",
            "requests of brokers and operators, by type and how they ended",
            ("request_type", "request_handle_status"),
        )
        self._latency = registry.histogram(
            "request_latency",
            "microseconds from a request to its answer, etcd's transactions included",
            LATENCY_BUCKETS_US,
            ("request_type",),
        )
        self._elections = registry.counter(
            "election_total", "tries to elect a master", ("cluster", "broker_set", "election_result")
        )

        self._beats = {
            is_good: self._requests.child(request_type=BEAT, request_handle_status=_status(is_good))
            for is_good in (True, False)
        }
        self._beat_latency = self._latency.child(request_type=BEAT)

    def answered(self, request: Request, answer: Answer, seconds: float) -> None:
        """Count one request of a broker or an operator."""
        self._count(REQUEST_TYPES[type(request)], not isinstance(answer, Refused), seconds)

    def beaten(self, seconds: float, *, is_good: bool) -> None:
        """Count one beat of a broker: what comes oftenest, so nothing is looked up."""
        self._beats[is_good].value += 1
        self._beat_latency.observe(seconds * 1e6)

    def elected(self, broker_set: str, result: ElectionResult) -> None:
        """Count one try to elect a master."""
        child = self._elections.child(cluster=self._cluster, broker_set=broker_set, election_result=result.value)
        child.value += 1

    def _count(self, request_type: str, succeeded: bool, seconds: float) -> None:
        self._requests.child(request_type=request_type, request_handle_status=_status(succeeded)).value += 1
        self._latency.child(request_type=request_type).observe(seconds * 1e6)


def _status(succeeded: bool) -> str:
    return "success" if succeeded else "failed"


def observe(
    registry: Registry,
    cluster: str,
    *,
    role: Callable[[], Role],
    active_brokers: Callable[[], Iterable[tuple[str, int]]],
    streams: Callable[[], int],
) -> None:
    """Declare the gauges, which are read when scraped. `active_brokers` gives broker sets and how many are alive."""

    def read() -> Iterable[tuple[Sequence[str], float]]:
        return [((cluster, broker_set), count) for broker_set, count in active_brokers()]

    registry.observed_gauge("role", "1 looks for etcd or campaigns, 2 is a stand-by, 3 is active", role)
    registry.observed_gauges("active_broker_num", "brokers that are alive", ("cluster", "broker_set"), read)
    registry.observed_gauge("apogeemq_controller_streams", "open streams of brokers", streams)
