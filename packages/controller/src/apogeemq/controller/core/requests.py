"""What brokers ask a controller about their set, and what it answers. Plain values; the wire is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from apogeemq.controller.core.broker_set import SyncState
from apogeemq.controller.core.election import Refusal


@dataclass(frozen=True, slots=True)
class Register:
    """A broker started, or came back to this controller.

    `broker_id` is 0 where it has none yet. `lost_unsynced` says that recovery dropped bytes, at this start or at any
    since a registration was accepted; `clean_stop` that the stop before this start synced everything.
    """

    request_id: int
    broker_id: int
    check_code: str
    address: str
    incarnation: int
    boot_id: str
    clean_stop: bool
    lost_unsynced: bool
    last_epoch: int
    end_offset: int
    priority: int = 2**31 - 1
    is_learner: bool = False
    """Of a new broker; later `SetLearner` decides."""
    mesh_address: str = ""
    """Where the set's other brokers reach it."""
    known_members: tuple[int, ...] = ()
    """With the two epochs, the newest state of the set on its disk; see Replica."""
    known_master_epoch: int = 0
    known_set_epoch: int = 0


BY_OPERATOR = 0
"""Stands where a broker id would: somebody at a terminal asks."""


@dataclass(frozen=True, slots=True)
class AskElection:
    """A broker of the set, or an operator, wants a master in place of the one of `over_epoch`.

    Where another epoch began meanwhile, that is the answer. An operator's call passes over a master that is alive,
    whatever its epoch. `designated_id` names who shall follow; 0 leaves it to the order.
    """

    request_id: int
    asker_id: int
    over_epoch: int
    designated_id: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """A member that a master proposes: which start of which broker copied the log."""

    broker_id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """The master proposes another SyncStateSet, made from the one of `set_epoch`."""

    request_id: int
    master_id: int
    master_epoch: int
    set_epoch: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class SetLearner:
    """A broker becomes a learner, or stops being one (architecture §6.6)."""

    request_id: int
    broker_id: int
    is_learner: bool


@dataclass(frozen=True, slots=True)
class Leave:
    """A broker stops cleanly: it takes no more sends, and asks to be waited for by nobody."""

    request_id: int
    broker_id: int
    incarnation: int


EVERY_BROKER = 0
"""Stands where a broker id would: the set as a whole."""


@dataclass(frozen=True, slots=True)
class CleanBroker:
    """An operator says that a broker is gone for ever, or, by EVERY_BROKER, the whole set."""

    request_id: int
    broker_id: int


@dataclass(frozen=True, slots=True)
class RecoverSet:
    """An operator says that a set of which etcd knows less than its brokers begins again with this one alone."""

    request_id: int
    broker_id: int


Request: TypeAlias = Register | AskElection | ChangeSet | SetLearner | Leave | CleanBroker | RecoverSet


@dataclass(frozen=True, slots=True)
class Accepted:
    """It holds in etcd; `broker_id` is who it was about."""

    broker_id: int
    state: SyncState


@dataclass(frozen=True, slots=True)
class Refused:
    """It does not, and nothing changed; the text says why and what to do."""

    code: Refusal
    text: str


Answer: TypeAlias = Accepted | Refused
