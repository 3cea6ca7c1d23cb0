"""What a request makes of a broker set: functions from what etcd holds to what it shall hold, without I/O.

Each is asked again after a transaction whose end nobody knows, with what etcd holds then: a request that was carried
out the first time changes nothing the second time and is accepted (architecture §6.13: never blindly again).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from apogeemq.controller.core.broker_set import NO_MASTER, Replica, SyncState
from apogeemq.controller.core.election import Candidate, Refusal, elect, electable, vacant
from apogeemq.controller.core.history import highest_epoch, is_behind, last_members
from apogeemq.controller.core.requests import (
    BY_OPERATOR,
    EVERY_BROKER,
    AskElection,
    ChangeSet,
    CleanBroker,
    Leave,
    RecoverSet,
    Refused,
    Register,
    SetLearner,
)

RECOVER = "`apogeemq-controller recover BROKER_NAME --from BROKER_ID`"

REPLICAS_MAX = 64
"""Brokers that a set may know of; each is compared in a transaction, which has 128 operations at most."""


@dataclass(frozen=True, slots=True)
class View:
    """A broker set as etcd holds it, who of it is alive, and who of those can be told that it is master."""

    state: SyncState
    replicas: Mapping[int, Replica]
    alive: frozenset[int]
    reachable: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What shall hold. None is "as it is"; `rests_on` are the brokers whose keys must not have changed meanwhile."""

    broker_id: int
    state: SyncState | None = None
    replica: Replica | None = None
    rests_on: tuple[int, ...] = ()
    removes: tuple[int, ...] = ()
    """Brokers that are forgotten."""
    clears: bool = False
    """The set is forgotten as a whole."""

    @property
    def changes_nothing(self) -> bool:
        """All is so already."""
        return self.state is None and self.replica is None and not self.removes and not self.clears


class SetRules:
    """The rules, with the settings of the cluster.

    Args:
        unclean: enableElectUncleanMaster: elections may go outside the SyncStateSet, and lose what was acknowledged.
    """

    def __init__(self, *, unclean: bool = False) -> None:
        self._unclean = unclean

    def register(self, view: View, request: Register) -> Decision | Refused:
        """Who the broker is, and whether it keeps its place (§6.5).

        A new broker gets the next id, and none that others remember a member by; its check code finds it again when the
        answer was lost. Another broker's id, and a start older than the last one seen, are refused: two brokers claim
        one id, or a directory was copied.
        """
        broker_id = request.broker_id or _id_of(view, request.check_code)
        known = view.replicas.get(broker_id)
        if known is not None and known.check_code != request.check_code:
            return Refused(Refusal.BROKER_ID_INVALID, f"broker id {broker_id} belongs to {known.address}")
        if known is not None and request.incarnation < known.incarnation:
            text = f"broker {broker_id} started {known.incarnation} times already, this is start {request.incarnation}"
            return Refused(Refusal.BROKER_ID_INVALID, text)
        if known is not None and request.incarnation == known.incarnation and request.address != known.address:
            text = f"start {known.incarnation} of broker {broker_id} is at {known.address}: is this a copied directory?"
            return Refused(Refusal.BROKER_ID_INVALID, text)
        if known is None and len(view.replicas) >= REPLICAS_MAX:
            text = f"the broker set knows {REPLICAS_MAX} brokers already: clean up those that are gone for ever"
            return Refused(Refusal.BROKER_ID_INVALID, text)
        replica = Replica(
            broker_id,
            request.check_code,
            request.address,
            request.incarnation,
            request.boot_id,
            max(request.last_epoch, known.last_epoch if known else 0),
            request.priority,
            known.is_learner if known is not None else request.is_learner,
            request.mesh_address,
            *_newest_known(known, request),
        )
        if replica == known:
            return Decision(broker_id)
        state = view.state
        if known is not None and known.incarnation != request.incarnation and self.lost_its_place(known, request):
            state = _without(state, broker_id)
        return Decision(broker_id, state if state != view.state else None, replica)

    def lost_its_place(self, known: Replica, request: Register) -> bool:
        """Whether what it acknowledged may be gone: an unclean stop with another boot, or bytes dropped (§6.5).

        A clean stop speaks for the start before it only: where starts lie between that no controller saw, one of them
        may have come after a power loss.
        """
        if request.boot_id == known.boot_id:
            return request.lost_unsynced
        saw_the_last = request.incarnation == known.incarnation + 1
        return request.lost_unsynced or not request.clean_stop or not saw_the_last

    def ask_election(self, view: View, request: AskElection) -> Decision | Refused:
        """A master for the set (§6.6), unless it has one that is alive and did not itself ask.

        A master that asks was started anew: nobody resumes mastership in its old epoch (§6.5).
        """
        state = view.state
        by_operator = request.asker_id == BY_OPERATOR
        if not by_operator and state.master_epoch > request.over_epoch:
            return Decision(state.master_id)
        if not by_operator and request.asker_id not in view.replicas:
            return Refused(Refusal.BROKER_NEED_TO_BE_REGISTERED, f"broker {request.asker_id} has to register first")
        if not by_operator and state.master_id not in {NO_MASTER, request.asker_id} and state.master_id in view.alive:
            return Refused(Refusal.MASTER_STILL_EXIST, f"broker {state.master_id} is master, and alive")
        if is_behind(state, view.replicas, view.reachable):
            return self.refound(view)
        order = self.candidates(view)
        if request.designated_id:
            order = tuple(each for each in order if each.replica.broker_id == request.designated_id)
        if not order:
            text = f"none of the SyncStateSet {list(state.members)} is alive and may be elected"
            return Refused(Refusal.MASTER_NOT_AVAILABLE, text)
        return self.decide(view, order[0])

    def refound(self, view: View) -> Decision | Refused:
        """A master for a set with a history that etcd does not know (§6.8): only where all its last members are there.

        The set begins with the master alone: whether the others lost their page cache, nobody knows any more. They
        come back by its proposals.
        """
        members = last_members(view.replicas, view.reachable)
        there = {each.replica.broker_id for each in view.reachable}
        missing = [each for each in members if each not in there]
        if view.state.members:
            why = "etcd was restored from an old backup, or they are of another set (clean-broker)"
        elif not members:
            why = "it was emptied, and they do not remember who was in the SyncStateSet"
        elif missing:
            why = f"it was emptied, and of the SyncStateSet {list(members)} brokers {missing} are not there: start them"
        else:
            order = electable(replace(view.state, members=members), view.reachable)
            if order:
                state = elect(view.state, order[0], stay=(), reported_epoch=self._reported(view))
                return Decision(order[0].replica.broker_id, state, rests_on=members)
            why = f"it was emptied, and all of the SyncStateSet {list(members)} are learners now"
        text = f"brokers remember epochs that etcd does not: {why}. To begin anew with one of them: {RECOVER}"
        return Refused(Refusal.ELECT_MASTER_FAILED, text)

    def may_refound(self, view: View) -> bool:
        """Whether an emptied etcd has all that it takes, so that nobody need ask."""
        is_lost = not view.state.members and is_behind(view.state, view.replicas, view.reachable)
        return is_lost and isinstance(self.refound(view), Decision)

    def recover(self, view: View, request: RecoverSet) -> Decision | Refused:
        """The broker becomes master and only member, in an epoch above every one reported that says what may be lost.

        For a set of which etcd knows less than its brokers alone (§6.8): any other has elections.
        """
        state, broker_id = view.state, request.broker_id
        if broker_id not in view.replicas:
            text = f"broker {broker_id} is not registered, {sorted(view.replicas)} are: start it first"
            return Refused(Refusal.BROKER_METADATA_NOT_EXIST, text)
        if not is_behind(state, view.replicas, view.reachable):
            if (state.master_id, state.members, state.loss_epoch) == (broker_id, (broker_id,), state.master_epoch):
                return Decision(broker_id)
            text = "etcd knows all that the set's brokers remember: there is nothing to recover (see elect-master)"
            return Refused(Refusal.INVALID_REQUEST, text)
        if view.replicas[broker_id].is_learner:
            return Refused(Refusal.INVALID_REQUEST, f"broker {broker_id} is a learner, which never is master")
        chosen = [each for each in view.reachable if each.replica.broker_id == broker_id]
        if not chosen:
            text = f"broker {broker_id} is not alive, or not connected to the active controller: start it first"
            return Refused(Refusal.BROKER_NOT_ALIVE, text)
        flagged = replace(state, members=(), possible_loss=True)
        begun = elect(flagged, chosen[0], stay=(), reported_epoch=self._reported(view))
        return Decision(broker_id, begun, rests_on=tuple(sorted(view.replicas)))

    def _reported(self, view: View) -> int:
        return highest_epoch(view.replicas, view.reachable)

    def candidates(self, view: View) -> tuple[Candidate, ...]:
        """Whom an election may choose, the best first."""
        return electable(view.state, view.reachable, unclean=self._unclean)

    def decide(self, view: View, master: Candidate) -> Decision:
        """Elect this one. Who stays in the set must still be the start that was looked at (§6.5)."""
        learners = {each.broker_id for each in view.replicas.values() if each.is_learner}
        state = elect(view.state, master, stay=view.alive - learners, reported_epoch=self._reported(view))
        return Decision(master.replica.broker_id, state, rests_on=state.members)

    def change_set(self, view: View, request: ChangeSet) -> Decision | Refused:
        """Another SyncStateSet by compare-and-swap (§6.3–6.6): of this master, this epoch and this set only.

        Who is new in it must be registered, alive, no learner, and the very start that copied the log.
        """
        state = view.state
        wanted = tuple(sorted(each.broker_id for each in request.members))
        refused = self.fence(state, request)
        if refused is not None:
            return refused
        if request.set_epoch + 1 == state.set_epoch and wanted == state.members:
            return Decision(request.master_id)
        if request.set_epoch != state.set_epoch:
            text = f"the set is at epoch {state.set_epoch}, the proposal was made at {request.set_epoch}"
            return Refused(Refusal.FENCED_SYNC_STATE_SET_EPOCH, text)
        if request.master_id not in wanted or wanted == state.members:
            return Refused(Refusal.ALTER_SYNC_STATE_SET_FAILED, "the set has to change, and to hold its master")
        new = [each for each in request.members if each.broker_id not in state.members]
        for each in new:
            refused = self.check_new_member(view, each.broker_id, each.incarnation)
            if refused is not None:
                return refused
        changed = replace(state, members=wanted, set_epoch=state.set_epoch + 1)
        return Decision(request.master_id, changed, rests_on=tuple(each.broker_id for each in new))

    def fence(self, state: SyncState, request: ChangeSet) -> Refused | None:
        """None for the master of this epoch."""
        if request.master_epoch != state.master_epoch:
            text = f"the master epoch is {state.master_epoch}, not {request.master_epoch}"
            return Refused(Refusal.FENCED_MASTER_EPOCH, text)
        if request.master_id != state.master_id:
            return Refused(Refusal.INVALID_MASTER, f"broker {state.master_id} is master, not {request.master_id}")
        return None

    def check_new_member(self, view: View, broker_id: int, incarnation: int) -> Refused | None:
        """None for one that may enter the set."""
        replica = view.replicas.get(broker_id)
        if replica is None or replica.is_learner or replica.incarnation != incarnation:
            text = f"broker {broker_id} is unknown, a learner, or was started anew since it copied the log"
            return Refused(Refusal.INVALID_REPLICAS, text)
        if broker_id not in view.alive:
            return Refused(Refusal.BROKER_NOT_ALIVE, f"broker {broker_id} is not alive")
        return None

    def set_learner(self, view: View, request: SetLearner) -> Decision | Refused:
        """A learner copies only: it leaves the set by the same transaction that makes it one (§6.6)."""
        replica = view.replicas.get(request.broker_id)
        if replica is None:
            return Refused(Refusal.BROKER_NEED_TO_BE_REGISTERED, f"broker {request.broker_id} has to register first")
        if request.is_learner and view.state.master_id == request.broker_id:
            return Refused(Refusal.ALTER_SYNC_STATE_SET_FAILED, "it is master: elect another one first")
        if request.is_learner and view.state.members == (request.broker_id,):
            return Refused(Refusal.ALTER_SYNC_STATE_SET_FAILED, "it is the only member of the SyncStateSet")
        if replica.is_learner == request.is_learner:
            return Decision(request.broker_id)
        if is_behind(view.state, view.replicas, view.reachable):
            text = "etcd knows less of the set than its brokers do: nobody joins or leaves it before it has begun again"
            return Refused(Refusal.ALTER_SYNC_STATE_SET_FAILED, text)
        state = _without(view.state, request.broker_id) if request.is_learner else view.state
        changed = replace(replica, is_learner=request.is_learner)
        return Decision(request.broker_id, state if state != view.state else None, changed)

    def leave(self, view: View, request: Leave) -> Decision | Refused:
        """A broker that stops cleanly: nobody has to find out by waiting that it is gone (§6.4).

        A master hands over to the best other member that is reachable; without one it stays master in name, and is
        elected again when it comes back. Whoever else leaves is out of the set, unless it is its only member.
        """
        state, leaver_id = view.state, request.broker_id
        replica = view.replicas.get(leaver_id)
        if replica is None or replica.incarnation != request.incarnation:
            return Refused(Refusal.BROKER_NEED_TO_BE_REGISTERED, f"broker {leaver_id} is not known by this start")
        if leaver_id not in state.members or state.members == (leaver_id,):
            return Decision(leaver_id)
        if leaver_id != state.master_id:
            return Decision(leaver_id, _without(state, leaver_id))
        if is_behind(state, view.replicas, view.reachable):
            return Decision(leaver_id)
        heirs = [each for each in electable(state, view.reachable) if each.replica.broker_id != leaver_id]
        if not heirs:
            return Decision(leaver_id)
        rest = replace(view, alive=view.alive - {leaver_id})
        return replace(self.decide(rest, heirs[0]), broker_id=leaver_id)

    def clean_broker(self, view: View, request: CleanBroker) -> Decision | Refused:
        """Forget a broker, or the set, for ever: of the dead alone, never the last with all that was acknowledged.

        Errors: Refused. What is forgotten already is accepted, so that an answer that was lost does no harm.
        """
        cleaned = tuple(sorted(view.replicas)) if request.broker_id == EVERY_BROKER else (request.broker_id,)
        living = [each for each in cleaned if each in view.alive]
        if living:
            text = f"brokers {living} are alive: stop them first, and wait until their leases have ended"
            return Refused(Refusal.INVALID_CLEAN_BROKER_METADATA, text)
        if request.broker_id == EVERY_BROKER:
            return Decision(EVERY_BROKER, rests_on=cleaned, clears=bool(cleaned or view.state.members))
        if request.broker_id not in view.replicas:
            return Decision(request.broker_id)
        if view.state.members == cleaned:
            text = f"broker {request.broker_id} is the only member of the SyncStateSet: without it the set is lost"
            return Refused(Refusal.INVALID_CLEAN_BROKER_METADATA, text)
        state = _without(view.state, request.broker_id)
        return Decision(request.broker_id, state if state != view.state else None, removes=cleaned)


def _id_of(view: View, check_code: str) -> int:
    for broker_id, replica in view.replicas.items():
        if replica.check_code == check_code:
            return broker_id
    taken = {*view.replicas, *(one for each in view.replicas.values() for one in each.known_members)}
    return max(taken, default=0) + 1


def _newest_known(known: Replica | None, request: Register) -> tuple[tuple[int, ...], int, int]:
    """Members and epochs of the newer state: that of this registration, or of one before."""
    told = (request.known_members, request.known_master_epoch, request.known_set_epoch)
    before = ((), 0, 0) if known is None else (known.known_members, known.known_master_epoch, known.known_set_epoch)
    return max(before, told, key=lambda each: each[1:])


def _without(state: SyncState, broker_id: int) -> SyncState:
    """The set without one member; the last one stays, with a warning (§6.5).

    If it was master, or elected and not told yet, its epoch is over: the next one says what may be lost.
    """
    if broker_id not in state.members:
        return state
    rest = vacant(state) if state.master_id == broker_id else state
    if state.members == (broker_id,):
        return replace(rest, possible_loss=True, set_epoch=state.set_epoch + 1)
    members = tuple(each for each in state.members if each != broker_id)
    return replace(rest, members=members, set_epoch=state.set_epoch + 1)
