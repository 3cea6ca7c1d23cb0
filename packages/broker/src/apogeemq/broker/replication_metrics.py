"""Metrics of a broker of a set: its part, how much is confirmed, and how far each replica is behind.

They stand for the whole process, while those of metrics.py live for one epoch. Apache's broker has none of these: the
names are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from apogeemq.broker.service.replica_session import ReplicaStatus
from apogeemq.mesh.metrics import Registry


@dataclass(frozen=True, slots=True)
class ReplicationState:
    """What a scrape reads; offsets are bytes of the log.

    master_epoch     that it knows last; 0 before it knows any
    is_copying       a slave that takes what its master sends
    members, replicas   of the epoch that it leads: ids of the SyncStateSet, and who has a stream; else empty
    """

    is_master: bool
    is_copying: bool
    master_epoch: int
    end_offset: int
    confirm_offset: int
    members: Collection[int]
    replicas: Sequence[ReplicaStatus]


def register_replication_metrics(registry: Registry, read: Callable[[], ReplicationState]) -> None:
    """Declare them; `read` is asked when they are scraped."""
    for name, help_text, value in (
        ("master", "1 while this broker leads its set, else 0.", lambda state: int(state.is_master)),
        ("copying", "1 while this broker copies its master's log, else 0.", lambda state: int(state.is_copying)),
        ("master_epoch", "Master epoch that this broker knows.", lambda state: state.master_epoch),
        ("log_end_offset_bytes", "Where the log ends here.", lambda state: state.end_offset),
        ("confirm_offset_bytes", "Up to here readers see the log.", lambda state: state.confirm_offset),
        ("in_sync_brokers", "Brokers in the SyncStateSet, where this one leads.", lambda state: len(state.members)),
    ):
        _gauge(registry, f"apogeemq_replication_{name}", help_text, read, value)
    _replica_gauge(
        registry,
        "apogeemq_replication_replica_lag_bytes",
        "What a replica has not acknowledged of the log of this master.",
        read,
        lambda replica: replica.lag_bytes,
    )
    _replica_gauge(
        registry,
        "apogeemq_replication_replica_silent_seconds",
        "Since a replica was last heard by this master.",
        read,
        lambda replica: replica.silent_ms / 1000,
    )


def _gauge(
    registry: Registry,
    name: str,
    help_text: str,
    read: Callable[[], ReplicationState],
    value: Callable[[ReplicationState], float],
) -> None:
    registry.observed_gauge(name, help_text, lambda: value(read()))


def _replica_gauge(
    registry: Registry,
    name: str,
    help_text: str,
    read: Callable[[], ReplicationState],
    value: Callable[[ReplicaStatus], float],
) -> None:
    def samples() -> list[tuple[Sequence[str], float]]:
        return [((str(each.broker_id),), value(each)) for each in read().replicas]

    registry.observed_gauges(name, help_text, ("replica_id",), samples)
