"""What a broker is in its set: master, slave or learner, by the newest epoch that it was told (architecture §6.1–6.7).

```
            Told(me, higher epoch)             EpochSaved
 FOLLOWING ────────────────────────▶ PROMOTED ────────────▶ LEADING
    ▲       SaveEpoch, durably                    Lead          │ Told(another, higher epoch), StopLeading, then Follow
    └───────────────────────────────────────────────────────────┘
```

Who was told of an epoch never obeys an older one. Nobody leads before its epoch is on the disk, nor again in an epoch
that was on its disk when it started: it asks for an election instead (§6.5). A state is (master epoch, set epoch); the
newest counts, and each that arrives is answered with Knows so that the controller stops telling.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

NO_MASTER = 0
ASK_AGAIN_MS = 1_000
"""Between two asks for an election."""


class Role(enum.Enum):
    """Where a broker stands."""

    FOLLOWING = "following"
    PROMOTED = "promoted"
    LEADING = "leading"


@dataclass(frozen=True, slots=True)
class Told:
    """The controller's state of the set."""

    master_id: int
    master_epoch: int
    members: frozenset[int]
    set_epoch: int


@dataclass(frozen=True, slots=True)
class EpochSaved:
    """The epoch file names this epoch and the log's end as its start, durably."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event: TypeAlias = Told | EpochSaved | Tick


@dataclass(frozen=True, slots=True)
class SaveEpoch:
    """Add the epoch to the epoch file, beginning at the log's end; fsync before saying so (§6.7)."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Lead:
    """Serve as master of this epoch, with this set."""

    epoch: int
    members: frozenset[int]
    set_epoch: int


@dataclass(frozen=True, slots=True)
class TakeSet:
    """The set of the epoch that is being led."""

    members: frozenset[int]
    set_epoch: int


@dataclass(frozen=True, slots=True)
class StopLeading:
    """Refuse sends from now on; those that wait are not acknowledged."""


@dataclass(frozen=True, slots=True)
class Follow:
    """Copy from this master; refuse every other and older one."""

    master_id: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Knows:
    """Say to the controller that this state came in."""

    master_epoch: int
    set_epoch: int


@dataclass(frozen=True, slots=True)
class AskElection:
    """The set needs a master in place of the one of this epoch."""

    over_epoch: int


Effect: TypeAlias = SaveEpoch | Lead | TakeSet | StopLeading | Follow | Knows | AskElection


class RoleOfBroker:
    """One start of one broker.

    Args:
        broker_id: its id.
        last_epoch: the newest of its epoch file; 0 for none.
    """

    def __init__(self, broker_id: int, last_epoch: int) -> None:
        self.role = Role.FOLLOWING
        self._broker_id = broker_id
        self._epoch = last_epoch
        self._master_id = NO_MASTER
        self._told = Told(NO_MASTER, 0, frozenset(), -1)
        self._asks = False
        self._ask_due_ms = 0

    @property
    def epoch(self) -> int:
        """The newest that it knows of."""
        return self._epoch

    def step(self, event: Event, now_ms: int) -> tuple[Effect, ...]:
        """What to do now, in this order."""
        match event:
            case Told():
                return self._take(event, now_ms)
            case EpochSaved():
                return self._saved(event)
            case Tick():
                return self._ask(now_ms)

    def _take(self, told: Told, now_ms: int) -> tuple[Effect, ...]:
        knows = Knows(told.master_epoch, told.set_epoch)
        if (told.master_epoch, told.set_epoch) <= (self._told.master_epoch, self._told.set_epoch):
            return (knows,)
        if told.master_epoch < self._epoch:
            return (knows,)
        self._told = told
        if told.master_id == self._broker_id:
            return (*self._mine(told, now_ms), knows)
        return (*self._of_another(told, now_ms), knows)

    def _mine(self, told: Told, now_ms: int) -> tuple[Effect, ...]:
        if told.master_epoch > self._epoch:
            stop: tuple[Effect, ...] = (StopLeading(),) if self.role is Role.LEADING else ()
            self._epoch, self._master_id = told.master_epoch, told.master_id
            self.role, self._asks = Role.PROMOTED, False
            return (*stop, SaveEpoch(told.master_epoch))
        if self.role is Role.LEADING:
            return (TakeSet(told.members, told.set_epoch),)
        self._asks = self.role is Role.FOLLOWING
        return self._ask(now_ms)

    def _of_another(self, told: Told, now_ms: int) -> tuple[Effect, ...]:
        is_news = told.master_epoch > self._epoch or told.master_id != self._master_id
        if not is_news and told.master_id != NO_MASTER:
            return ()
        stop: tuple[Effect, ...] = (StopLeading(),) if self.role is Role.LEADING else ()
        self._epoch, self._master_id = told.master_epoch, told.master_id
        self.role, self._asks = Role.FOLLOWING, told.master_id == NO_MASTER
        if told.master_id == NO_MASTER:
            return (*stop, *self._ask(now_ms))
        return (*stop, Follow(told.master_id, told.master_epoch))

    def _saved(self, event: EpochSaved) -> tuple[Effect, ...]:
        if self.role is not Role.PROMOTED or event.epoch != self._epoch:
            return ()
        self.role = Role.LEADING
        return (Lead(event.epoch, self._told.members, self._told.set_epoch),)

    def _ask(self, now_ms: int) -> tuple[Effect, ...]:
        if not self._asks or now_ms < self._ask_due_ms:
            return ()
        self._ask_due_ms = now_ms + ASK_AGAIN_MS
        return (AskElection(self._epoch),)
