"""Who becomes master: the order of architecture §6.6, as a function of what is known.

    highest epoch, then highest end of the log, then lowest priority, then lowest broker id

Every member of the SyncStateSet holds all that was acknowledged, so that any of them is safe; the order only keeps
more of what was not. Nobody from outside the set unless unclean elections are allowed; a learner never.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass

from apogeemq.controller.core.broker_set import NO_MASTER, Replica, SyncState


class Refusal(enum.IntEnum):
    """Why a controller says no. Apache's response codes; broker_behaviour.md §11."""

    FENCED_MASTER_EPOCH = 2000
    FENCED_SYNC_STATE_SET_EPOCH = 2001
    INVALID_MASTER = 2002
    INVALID_REPLICAS = 2003
    MASTER_NOT_AVAILABLE = 2004
    INVALID_REQUEST = 2005
    BROKER_NOT_ALIVE = 2006
    NOT_LEADER = 2007
    BROKER_METADATA_NOT_EXIST = 2008
    INVALID_CLEAN_BROKER_METADATA = 2009
    BROKER_NEED_TO_BE_REGISTERED = 2010
    MASTER_STILL_EXIST = 2011
    ELECT_MASTER_FAILED = 2012
    ALTER_SYNC_STATE_SET_FAILED = 2013
    BROKER_ID_INVALID = 2014
    STORE_FAILED = 2015
    """etcd does not take a change, or holds what nobody can read (Java: its Raft log failed)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A broker whose stream is open, with the end of its log as it reported it last."""

    replica: Replica
    epoch: int
    end_offset: int


def electable(state: SyncState, reachable: tuple[Candidate, ...], *, unclean: bool = False) -> tuple[Candidate, ...]:
    """Those who may become master, the best first (§6.6).

    A set without a history takes whoever is there; with one, its members only. `unclean` is
    enableElectUncleanMaster: then others follow where no member is there, and what they lack is lost.
    """
    brokers = [each for each in reachable if not each.replica.is_learner]
    if state.members:
        inside = [each for each in brokers if each.replica.broker_id in state.members]
        brokers = inside or (brokers if unclean else [])
    return tuple(sorted(brokers, key=_rank))


def elect(state: SyncState, master: Candidate, *, stay: Collection[int], reported_epoch: int) -> SyncState:
    """The state that begins with this master: both epochs go up (§6.6).

    Members among `stay` remain: each holds all that was acknowledged, and the new master waits for each. The epoch is
    above all that any broker reported, so that a forgotten etcd brings none back (§6.8).
    """
    epoch = max(state.master_epoch, reported_epoch) + 1
    chosen = master.replica.broker_id
    is_member = chosen in state.members
    others = [each for each in state.members if each in stay] if is_member else []
    lossy = state.possible_loss or (bool(state.members) and not is_member)
    return SyncState(
        master_id=chosen,
        master_epoch=epoch,
        members=tuple(sorted({chosen, *others})),
        set_epoch=state.set_epoch + 1,
        loss_epoch=epoch if lossy else state.loss_epoch,
    )


def vacant(state: SyncState) -> SyncState:
    """The state without its master, who left the set."""
    return SyncState(
        NO_MASTER, state.master_epoch, state.members, state.set_epoch, state.possible_loss, state.loss_epoch
    )


def _rank(candidate: Candidate) -> tuple[int, int, int, int]:
    return (-candidate.epoch, -candidate.end_offset, candidate.replica.priority, candidate.replica.broker_id)
