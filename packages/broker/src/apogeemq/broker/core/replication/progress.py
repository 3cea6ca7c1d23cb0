"""How far a master's log is confirmed: replicas' acknowledgements, the SyncStateSet, and proposals to change it.

```
 known set S (set epoch n) ──┐
 proposals in flight P1, P2 ─┴─▶ union U of them all
 positions: own end, and per replica what it acknowledged under this epoch
 confirm offset = min of the positions of U, never back                                  (architecture §6.4)

 member silent for 1.5 s ───▶ Propose(S without it)
 replica with a position ≥ confirm offset ───▶ Propose(S with it)
 TakeSet with set epoch > n ───▶ S; proposals made from an older set are over, whoever won
```

A proposal is in flight until the controller's state has gone on, not until an answer or a refusal comes: a copy of it
may still be on its way. So the confirm offset never rests on guessing which set holds. Readers stop at it, and an
acknowledgement in class replicas waits for it (§6.3): no clock has a say in that.

Offsets are physical ones, in bytes. Times are milliseconds of a clock that never goes back. One machine for one epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

SILENT_AFTER_MS = 1_500
"""A member that acknowledged nothing for so long is to leave the set."""
PROPOSE_AGAIN_MS = 500
"""Until a proposal that has not come true is made again."""
PROPOSALS_MAX = 8
"""Different sets in flight at once; then only those are proposed again."""


@dataclass(frozen=True, slots=True)
class Member:
    """A replica as the controller tells starts apart: broker id and incarnation."""

    broker_id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Written:
    """The master's own log ends here."""

    end_offset: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A replica holds the master's log up to here, says its stream of this epoch. May be less than before.

    `has_tables`: and has stored all tables of this master since it began to copy. Who comes into the set may be elected
    next: not with tables of its own, from a log that was cut off since. What it holds of the log counts all the same:
    a proposal in flight may make it a member, and tables wait for what is confirmed.
    """

    epoch: int
    replica: Member
    offset: int
    is_learner: bool = False
    has_tables: bool = True


@dataclass(frozen=True, slots=True)
class TakeSet:
    """The controller's SyncStateSet of this epoch."""

    members: frozenset[int]
    set_epoch: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event: TypeAlias = Written | Acknowledged | TakeSet | Tick


@dataclass(frozen=True, slots=True)
class Confirm:
    """Readers may see, and senders be told, up to here."""

    offset: int


@dataclass(frozen=True, slots=True)
class Propose:
    """Ask the controller for another set, made from the one of `set_epoch`."""

    epoch: int
    set_epoch: int
    members: tuple[Member, ...]


Effect: TypeAlias = Confirm | Propose


@dataclass(slots=True)
class _Position:
    """Of one replica: what it holds, since which start, heard when."""

    replica: Member
    offset: int
    heard_ms: int
    is_learner: bool
    has_tables: bool


@dataclass(slots=True)
class _InFlight:
    """Proposals made from the known set."""

    sets: dict[frozenset[int], None] = field(default_factory=dict)
    again_ms: int = 0


class Progress:
    """One epoch of one master.

    Args:
        own: the master itself.
        end_offset: of its log, which holds the first epoch entry of this epoch.
        confirm_offset: what is known to be confirmed; at least the records below it are held by the set.
        min_in_sync: minInSyncReplicas, 1 and up: with a smaller set nothing is acknowledged.
    """

    def __init__(
        self,
        epoch: int,
        own: Member,
        known: TakeSet,
        *,
        end_offset: int,
        confirm_offset: int,
        min_in_sync: int,
        now_ms: int,
    ) -> None:
        self.epoch = epoch
        self.confirm_offset = confirm_offset
        self._own = own
        self._known = known
        self._end_offset = end_offset
        self._start_offset = end_offset
        self._min_in_sync = min_in_sync
        self._began_ms = now_ms
        self._positions: dict[int, _Position] = {}
        self._in_flight = _InFlight()

    @property
    def members(self) -> frozenset[int]:
        """The known set."""
        return self._known.members

    @property
    def set_epoch(self) -> int:
        """Its epoch."""
        return self._known.set_epoch

    @property
    def takes_writes(self) -> bool:
        """Whether the set is large enough; a send is refused otherwise, before anything is stored (§6.4)."""
        return len(self._known.members) >= self._min_in_sync

    def may_acknowledge(self, end_offset: int) -> bool:
        """Whether a message that ends here may be acknowledged in class replicas (§6.3, §6.4).

        The set is what the controller said last: smaller than minInSyncReplicas, and nothing is.
        """
        return self.takes_writes and end_offset <= self.confirm_offset

    def step(self, event: Event, now_ms: int) -> tuple[Effect, ...]:
        """What to do now."""
        match event:
            case Written():
                self._end_offset = max(self._end_offset, event.end_offset)
            case Acknowledged():
                self._acknowledged(event, now_ms)
            case TakeSet():
                self._take(event)
            case Tick():
                pass
        return (*self._confirm(), *self._propose(now_ms))

    def confirmable(self) -> int:
        """The minimum over the union of the known set and every proposal in flight (§6.4)."""
        return min(self.positions(self.union()))

    def union(self) -> frozenset[int]:
        """Whoever may be a member, as far as this master can know."""
        return self._known.members.union(*self._in_flight.sets)

    def positions(self, broker_ids: Collection[int]) -> list[int]:
        """Offsets of these; 0 for one that was not heard of in this epoch."""
        held = self.offsets()
        return [held.get(broker_id, 0) for broker_id in broker_ids]

    def offsets(self) -> Mapping[int, int]:
        """Who holds how much."""
        replicas = {broker_id: min(each.offset, self._end_offset) for broker_id, each in self._positions.items()}
        return {**replicas, self._own.broker_id: self._end_offset}

    def _acknowledged(self, event: Acknowledged, now_ms: int) -> None:
        if event.epoch != self.epoch or event.replica.broker_id == self._own.broker_id:
            return
        position = _Position(event.replica, event.offset, now_ms, event.is_learner, event.has_tables)
        self._positions[event.replica.broker_id] = position

    def _take(self, event: TakeSet) -> None:
        if event.set_epoch > self._known.set_epoch:
            self._known = event
            self._in_flight = _InFlight()

    def _confirm(self) -> tuple[Confirm, ...]:
        offset = self.confirmable()
        if offset <= self.confirm_offset:
            return ()
        self.confirm_offset = offset
        return (Confirm(offset),)

    def _propose(self, now_ms: int) -> tuple[Propose, ...]:
        wanted = self._wanted(now_ms)
        is_new = wanted not in self._in_flight.sets
        if wanted == self._known.members or (now_ms < self._in_flight.again_ms and not is_new):
            return ()
        if is_new and len(self._in_flight.sets) >= PROPOSALS_MAX:
            return ()
        self._in_flight.sets[wanted] = None
        self._in_flight.again_ms = now_ms + PROPOSE_AGAIN_MS
        members = tuple(self._member(broker_id) for broker_id in sorted(wanted))
        return (Propose(self.epoch, self._known.set_epoch, members),)

    def _wanted(self, now_ms: int) -> frozenset[int]:
        """The set as it ought to be (§6.4): without who is silent, with who caught up."""
        stay = {each for each in self._known.members if not self._is_silent(each, now_ms)}
        come = {each for each in self._positions if not self._is_silent(each, now_ms) and self.may_enter(each)}
        return frozenset(stay | come | {self._own.broker_id})

    def may_enter(self, broker_id: int) -> bool:
        """A member is added only when it holds all that is confirmed, this epoch's beginning, and the tables; a learner
        never.
        """
        position = self._positions[broker_id]
        return (
            not position.is_learner
            and position.has_tables
            and position.offset >= max(self.confirm_offset, self._start_offset)
        )

    def _is_silent(self, broker_id: int, now_ms: int) -> bool:
        if broker_id == self._own.broker_id:
            return False
        position = self._positions.get(broker_id)
        heard_ms = position.heard_ms if position is not None else self._began_ms
        return now_ms - heard_ms >= SILENT_AFTER_MS

    def _member(self, broker_id: int) -> Member:
        position = self._positions.get(broker_id)
        if broker_id == self._own.broker_id:
            return self._own
        return position.replica if position is not None else Member(broker_id, 0)
