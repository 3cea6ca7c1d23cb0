"""What /metrics says of a broker of a set."""

from dataclasses import replace

from apogeemq.broker.replication_metrics import ReplicationState, register_replication_metrics
from apogeemq.broker.service.replica_session import ReplicaStatus
from apogeemq.mesh.metrics import Registry

MASTER = ReplicationState(
    is_master=True,
    is_copying=False,
    master_epoch=4,
    end_offset=1000,
    confirm_offset=900,
    members={1, 2},
    replicas=[
        ReplicaStatus(2, offset=990, lag_bytes=10, silent_ms=250, is_learner=False, peer="two:1"),
        ReplicaStatus(3, offset=0, lag_bytes=1000, silent_ms=4000, is_learner=False, peer="three:1"),
    ],
)


def test_a_master_tells_of_its_log_and_of_each_replica() -> None:
    """In bytes and seconds, by the replica's id; what is read is what is so at the scrape."""
    state = MASTER
    registry = Registry()
    register_replication_metrics(registry, lambda: state)
    lines = {line for line in registry.render().splitlines() if not line.startswith("#")}
    assert lines == {
        "apogeemq_replication_master 1",
        "apogeemq_replication_copying 0",
        "apogeemq_replication_master_epoch 4",
        "apogeemq_replication_log_end_offset_bytes 1000",
        "apogeemq_replication_confirm_offset_bytes 900",
        "apogeemq_replication_in_sync_brokers 2",
        'apogeemq_replication_replica_lag_bytes{replica_id="2"} 10',
        'apogeemq_replication_replica_lag_bytes{replica_id="3"} 1000',
        'apogeemq_replication_replica_silent_seconds{replica_id="2"} 0.25',
        'apogeemq_replication_replica_silent_seconds{replica_id="3"} 4.0',
    }
    state = replace(MASTER, is_master=False, is_copying=True, members=(), replicas=())
    text = registry.render()
    assert "\napogeemq_replication_copying 1\n" in text
    assert "replica_id" not in text
