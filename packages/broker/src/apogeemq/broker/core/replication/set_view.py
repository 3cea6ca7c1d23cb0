"""A broker set as the controller tells of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from apogeemq.broker.core.replication.role import Told


@dataclass(frozen=True, slots=True)
class ReplicaInSet:
    """A broker of the set: where clients and where its brokers reach it ("host:port"), and which start it is."""

    address: str
    mesh_address: str
    incarnation: int
    is_learner: bool


@dataclass(frozen=True, slots=True)
class SetView:
    """Who is master, who is in the SyncStateSet, and all brokers of the set by id."""

    told: Told
    replicas: Mapping[int, ReplicaInSet] = field(default_factory=dict)
    possible_loss: bool = False


@dataclass(frozen=True, slots=True)
class Registration:
    """What a broker says of itself when it registers; controller.proto has the fields' meanings."""

    broker_id: int
    address: str
    mesh_address: str
    boot_id: str
    clean_stop: bool
    lost_unsynced: bool
    last_epoch: int
    end_offset: int
    priority: int
    is_learner: bool
    known_members: tuple[int, ...] = ()
    known_master_epoch: int = 0
    known_set_epoch: int = 0
