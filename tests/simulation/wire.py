"""Messages of the simulated wire between brokers, and between brokers and controllers."""

from __future__ import annotations

from dataclasses import dataclass

from apogeemq.broker.core.replication.follower import Chunk
from apogeemq.controller.core.broker_set import SyncState
from apogeemq.controller.core.requests import Answer, Request
from apogeemq.store.epoch_file import EpochEntry


@dataclass(frozen=True)
class Ask:
    """Broker to controller: a request."""

    request: Request


@dataclass(frozen=True)
class Beat:
    """Broker to controller, every half second: it lives, and this far its log goes."""

    broker_id: int
    incarnation: int
    lease_id: int
    epoch: int
    end_offset: int


@dataclass(frozen=True)
class KnowsState:
    """Broker to controller: that state came in."""

    broker_id: int
    master_epoch: int
    set_epoch: int


@dataclass(frozen=True)
class Answered:
    """Controller to broker; `lease_id` with an accepted registration."""

    request_id: int
    answer: Answer
    lease_id: int = 0


@dataclass(frozen=True)
class Notify:
    """Controller to broker: the state of the set."""

    state: SyncState


@dataclass(frozen=True)
class LeaseGone:
    """Controller to broker: register again."""


@dataclass(frozen=True)
class Hello:
    """Replica to master: its id and start, for this epoch."""

    epoch: int
    broker_id: int
    incarnation: int
    is_learner: bool


@dataclass(frozen=True)
class Welcome:
    """Master to replica: its epochs and its log's ends."""

    epoch: int
    entries: tuple[EpochEntry, ...]
    min_offset: int
    end_offset: int


@dataclass(frozen=True)
class AskCrc:
    """Replica to master: the CRC of its own bytes in this range."""

    start: int
    end: int
    crc: int


@dataclass(frozen=True)
class CrcSame:
    """Master to replica."""

    epoch: int
    is_same: bool


@dataclass(frozen=True)
class CopyFrom:
    """Replica to master."""

    offset: int


@dataclass(frozen=True)
class Ack:
    """Replica to master: held up to here; `pointers` is how many of them it has stored of this stream."""

    epoch: int
    offset: int
    pointers: int = 0


@dataclass(frozen=True)
class Consumed:
    """Master to replica: the group consumed the log up to here."""

    offset: int


ToReplica = Welcome | CrcSame | Chunk | Consumed
