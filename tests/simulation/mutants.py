"""Machines with one rule broken each: a simulator that lets one of them pass would prove nothing.

Where a rule is guarded twice (by the master and by the controller), the mutant breaks both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from apogeemq.broker.core.replication import follower, progress, role
from apogeemq.controller.core.broker_set import Replica
from apogeemq.controller.core.election import Candidate
from apogeemq.controller.core.requests import ChangeSet, Refused, Register, SetLearner
from apogeemq.controller.core.set_rules import Decision, SetRules, View

from tests.simulation.broker_node import BrokerNode, Machines
from tests.simulation.cluster import Settings
from tests.simulation.timed_broker import TIMED, NeverRollsForward
from tests.simulation.topic_broker import TablesNowAndThen


def _machines(**classes: type) -> Machines:
    machines = Machines()
    for name, machine in classes.items():
        setattr(machines, name, machine)
    return machines


class _ByClockOnly(progress.Progress):
    """A master trusts that nobody else is elected while it is: its own copy is enough."""

    def confirmable(self) -> int:
        return self._end_offset


class _ByNumber(progress.Progress):
    """Any minInSyncReplicas copies are enough, whoever holds them."""

    def confirmable(self) -> int:
        held = sorted(self.offsets().values(), reverse=True)
        return held[self._min_in_sync - 1] if len(held) >= self._min_in_sync else 0


class _KnownSetOnly(progress.Progress):
    """A proposal is taken for refused until it is known to be accepted."""

    def union(self) -> frozenset[int]:
        return self._known.members


class _HopefulSet(progress.Progress):
    """A proposal is taken for accepted as soon as it is made."""

    def union(self) -> frozenset[int]:
        return next(reversed(self._in_flight.sets), self._known.members)


class _AnyMayEnter(progress.Progress):
    """A replica is proposed before it caught up."""

    def may_enter(self, broker_id: int) -> bool:
        return not self._positions[broker_id].is_learner


class _LearnersMayEnter(progress.Progress):
    """The master proposes learners too."""

    def may_enter(self, broker_id: int) -> bool:
        return self._positions[broker_id].offset >= self.confirm_offset


class _LearnersAreMembers(SetRules):
    """The controller takes learners for replicas like others."""

    def check_new_member(self, view: View, broker_id: int, incarnation: int) -> Refused | None:
        replicas = {each: replace(replica, is_learner=False) for each, replica in view.replicas.items()}
        return super().check_new_member(replace(view, replicas=replicas), broker_id, incarnation)


class _LearnersStay(SetRules):
    """Who becomes a learner stays in the set."""

    def set_learner(self, view: View, request: SetLearner) -> Decision | Refused:
        decided = super().set_learner(view, request)
        return replace(decided, state=None) if isinstance(decided, Decision) else decided


class _KeepsItsPlace(SetRules):
    """Whoever lost its page cache stays in the set."""

    def lost_its_place(self, known: Replica, request: Register) -> bool:
        return False


class _TrustsUnseenStarts(SetRules):
    """A clean stop clears whatever came before it."""

    def lost_its_place(self, known: Replica, request: Register) -> bool:
        return request.lost_unsynced or (not request.clean_stop and request.boot_id != known.boot_id)


class _OldProposalsCount(SetRules):
    """A proposal counts whenever it arrives, from whichever epoch and set it was made."""

    def change_set(self, view: View, request: ChangeSet) -> Decision | Refused:
        state = view.state
        late = replace(request, master_id=state.master_id, master_epoch=state.master_epoch, set_epoch=state.set_epoch)
        return super().change_set(view, late)


class _FromOutside(SetRules):
    """Anybody with the longest log may be elected."""

    def candidates(self, view: View) -> tuple[Candidate, ...]:
        return tuple(sorted(view.reachable, key=lambda each: -each.end_offset))


class _BeginsWithAnybody(SetRules):
    """A set that etcd forgot begins again with whoever is there."""

    def refound(self, view: View) -> Decision | Refused:
        order = [each for each in view.reachable if not each.replica.is_learner]
        return self.decide(view, order[0]) if order else super().refound(view)


class _ByEpochOnly(follower.Follower):
    """Logs are compared by their epochs alone."""

    def step(self, event: follower.Event, now_ms: int) -> tuple[follower.Effect, ...]:
        if isinstance(event, follower.Compared):
            event = replace(event, is_same=True)
        return super().step(event, now_ms)


class _NeverCuts(follower.Follower):
    """A replica keeps what its master does not have, and copies from its own end."""

    def points(self, log: follower.Log, met: follower.Met) -> Iterator[int]:
        return iter([min(log.end_offset, met.end_offset)])


class _ResumesMastership(role.RoleOfBroker):
    """A master that was started anew goes on in its old epoch."""

    def step(self, event: role.Event, now_ms: int) -> tuple[role.Effect, ...]:
        effects = super().step(event, now_ms)
        if isinstance(event, role.Told) and event.master_id == self._broker_id and self.role is role.Role.FOLLOWING:
            self.role = role.Role.LEADING
            return (role.Lead(event.master_epoch, event.members, event.set_epoch),)
        return effects


class _ObeysOldEpochs(role.RoleOfBroker):
    """Whoever spoke last is believed."""

    def step(self, event: role.Event, now_ms: int) -> tuple[role.Effect, ...]:
        if isinstance(event, role.Told):
            self._told = replace(event, set_epoch=-1)
            self._epoch = min(self._epoch, event.master_epoch)
        return super().step(event, now_ms)


class _FollowsOldEpochs(follower.Follower):
    """Any master's stream is copied."""

    def step(self, event: follower.Event, now_ms: int) -> tuple[follower.Effect, ...]:
        if isinstance(event, follower.Follow):
            self._epoch = 0
        return super().step(event, now_ms)


class _ReadsEverything(BrokerNode):
    """Readers are not stopped at the confirm offset."""

    def readable(self) -> bytes:
        return self.log


class _PointerAhead(BrokerNode):
    """A progress pointer is kept as it is, whatever becomes of the log below it."""

    def safe_pointer(self, offset: int, held_offset: int) -> int:
        return offset


MUTANTS: dict[str, Callable[[], Settings]] = {
    "fencing by clock only": lambda: Settings(machines=_machines(progress=_ByClockOnly)),
    "acknowledged by n replicas": lambda: Settings(machines=_machines(progress=_ByNumber)),
    "confirm over the known set only": lambda: Settings(machines=_machines(progress=_KnownSetOnly)),
    "confirm over the proposed set only": lambda: Settings(machines=_machines(progress=_HopefulSet)),
    "a replica enters before it caught up": lambda: Settings(machines=_machines(progress=_AnyMayEnter)),
    "a learner in the set": lambda: Settings(
        machines=_machines(progress=_LearnersMayEnter), rules=_LearnersAreMembers()
    ),
    "a learner keeps its place in the set": lambda: Settings(rules=_LearnersStay()),
    "an unclean restart keeps its place": lambda: Settings(rules=_KeepsItsPlace()),
    "a clean stop clears a power loss before it": lambda: Settings(rules=_TrustsUnseenStarts()),
    "an old proposal changes the set": lambda: Settings(rules=_OldProposalsCount()),
    "an old epoch is obeyed": lambda: Settings(machines=_machines(role=_ObeysOldEpochs, follower=_FollowsOldEpochs)),
    "election from outside the set": lambda: Settings(rules=_FromOutside()),
    "truncation by epoch only": lambda: Settings(machines=_machines(follower=_ByEpochOnly)),
    "no truncation": lambda: Settings(machines=_machines(follower=_NeverCuts)),
    "mastership resumed": lambda: Settings(machines=_machines(role=_ResumesMastership)),
    "readers beyond confirm": lambda: Settings(broker=_ReadsEverything),
    "progress pointer ahead of the log": lambda: Settings(broker=_PointerAhead),
    "an emptied etcd begins with anybody": lambda: Settings(rules=_BeginsWithAnybody(), etcd_forgets=True),
    "retention without roll-forward": lambda: replace(TIMED, broker=NeverRollsForward),
    "tables now and then": lambda: Settings(broker=TablesNowAndThen),
}
"""What is broken → the cluster that runs with it."""
