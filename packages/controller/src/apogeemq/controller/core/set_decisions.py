"""The decisions about one broker set, one after the other, each a transaction of etcd: a step machine.

```
 requests ──▶ line ──head──▶ rules(view) ──▶ nothing to change ───────────────▶ Answer
               ▲                 │ Commit(active key, state, replicas unchanged?)
               │                 ▼
               │             in flight ──succeeded──▶ view ──▶ Answer, Changed
               └── again ◀── failed: view from what it read; unknown: Commit that only reads
```

The view is a copy of what etcd holds, each key with the revision that wrote it; every transaction compares those it
rests on and the active controller's key (architecture §6.1). A failed one brings back the keys as they are, and the
rules look again. What others change arrives through a watch (`Seen`).
A vacancy is filled by the machine itself: when the master is gone, then every ELECT_AGAIN_MS until it is filled.
Times are milliseconds of a clock that never goes back. Effects are run in their order. Not durable: etcd is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from apogeemq.controller.core.broker_set import NEW_SET, NO_MASTER, Replica, SetKeys, SyncState, decode, encode
from apogeemq.controller.core.election import Candidate, Refusal
from apogeemq.controller.core.etcd import (
    Compare,
    Delete,
    Operation,
    Outcome,
    Put,
    Read,
    StoredKey,
    Transaction,
    end_of_prefix,
    is_same_key,
    is_unchanged,
)
from apogeemq.controller.core.requests import (
    Accepted,
    Answer,
    AskElection,
    ChangeSet,
    CleanBroker,
    Leave,
    RecoverSet,
    Refused,
    Register,
    Request,
    SetLearner,
)
from apogeemq.controller.core.set_rules import Decision, SetRules, View

WAITING_MAX = 64
"""Requests in line; more are refused, and come again."""
TRIES_MAX = 5
"""Looks at one request; only a set that changes all the time needs more."""
ELECT_AGAIN_MS = 200
"""Between two looks at a vacancy."""
_BY_ITSELF = 0


@dataclass(frozen=True, slots=True)
class Begin:
    """This controller is active, by the key of this revision: read the set."""

    create_revision: int


@dataclass(frozen=True, slots=True)
class End:
    """It is active no longer."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A broker's beat: how far its log goes."""

    broker_id: int
    incarnation: int
    epoch: int
    end_offset: int


@dataclass(frozen=True, slots=True)
class Alive:
    """Who counts as alive now, and whose stream is open."""

    broker_ids: frozenset[int]
    connected: frozenset[int]


@dataclass(frozen=True, slots=True)
class Committed:
    """A transaction ended; None where nobody knows how, or, with a `refusal`, where etcd would not do it."""

    ticket: int
    outcome: Outcome | None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A watch saw a key of the set written."""

    stored: StoredKey


@dataclass(frozen=True, slots=True)
class Gone:
    """A watch saw a key of the set deleted."""

    key: bytes
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event: TypeAlias = Begin | End | Reported | Alive | Committed | Seen | Gone | Tick | Request


@dataclass(frozen=True, slots=True)
class Commit:
    """Run the transaction and say how it ended, by its ticket."""

    ticket: int
    transaction: Transaction


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a request."""

    request_id: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Changed:
    """etcd holds this state now: tell the brokers (§6.6).

    `request` is the one that this controller carried out by it; None where somebody else wrote it, or nobody knows.
    """

    state: SyncState
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """The set was read: who is known to it."""

    broker_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Switched:
    """A broker became a learner, or stopped being one, which may leave the state as it was: tell the brokers anew."""


Effect: TypeAlias = Commit | Reply | Changed | Loaded | Switched


@dataclass(slots=True)
class _Head:
    """The request at work."""

    request: Request
    tries: int = 0
    decision: Decision | None = None


class SetDecisions:
    """The decisions about one broker set."""

    def __init__(self, keys: SetKeys, rules: SetRules) -> None:
        self._keys = keys
        self._rules = rules
        self._active_revision = 0
        self._loaded = False
        self._stored: dict[bytes, StoredKey] = {}
        self._unreadable: dict[bytes, str] = {}
        self._state = NEW_SET
        self._replicas: dict[int, Replica] = {}
        self._reports: dict[int, Reported] = {}
        self._alive: frozenset[int] = frozenset()
        self._connected: frozenset[int] = frozenset()
        self._line: deque[Request] = deque()
        self._head: _Head | None = None
        self._ticket = 0
        self._in_flight = False
        self._elect_due_ms = 0

    @property
    def state(self) -> SyncState:
        """The set as this controller saw it last."""
        return self._state

    @property
    def replicas(self) -> Mapping[int, Replica]:
        """Its brokers by id, likewise."""
        return self._replicas

    @property
    def reports(self) -> Mapping[int, Reported]:
        """What they said last of their logs."""
        return self._reports

    @property
    def is_quiet(self) -> bool:
        """Whether a Tick changes nothing, whenever it comes: nobody waits, and the master is alive."""
        waits = self._head is not None or self._line
        return not waits and bool(self._state.members) and self._state.master_id in self._alive

    @property
    def trouble(self) -> str:
        """Why nothing can be decided about this set; empty where all is well."""
        return next(iter(self._unreadable.values()), "")

    def step(self, event: Event, now_ms: int) -> tuple[Effect, ...]:
        """What to do now."""
        effects: list[Effect] = []
        match event:
            case Begin():
                self._begin(event, effects)
            case End():
                self._end(effects)
            case Reported():
                self._reports[event.broker_id] = event
            case Alive():
                if self._state.master_id not in event.broker_ids:
                    self._elect_due_ms = min(self._elect_due_ms, now_ms)
                self._alive, self._connected = event.broker_ids, event.connected
            case Committed():
                self._committed(event, effects)
            case Seen():
                self._see(event.stored, effects)
            case Gone():
                self._gone(event, effects)
            case Tick():
                pass
            case _:
                self._enqueue(event, effects)
        self._fill_vacancy(now_ms)
        self._work(effects)
        return tuple(effects)

    def _begin(self, event: Begin, effects: list[Effect]) -> None:
        self._end(effects)
        self._active_revision = event.create_revision
        self._head = None
        self._read(effects)

    def _end(self, effects: list[Effect]) -> None:
        """Whoever waits is sent to the next active controller."""
        waiting = [self._head.request] if self._head is not None else []
        waiting += self._line
        refused = Refused(Refusal.NOT_LEADER, "another controller is active")
        effects += [Reply(each.request_id, refused) for each in waiting if each.request_id != _BY_ITSELF]
        self._line.clear()
        self._head = None
        self._active_revision = 0
        self._loaded = False
        self._in_flight = False

    def _enqueue(self, request: Request, effects: list[Effect]) -> None:
        if not self._active_revision:
            effects.append(Reply(request.request_id, Refused(Refusal.NOT_LEADER, "another controller is active")))
        elif len(self._line) >= WAITING_MAX:
            text = f"{WAITING_MAX} requests of this broker set are waiting: ask again"
            effects.append(Reply(request.request_id, Refused(Refusal.ELECT_MASTER_FAILED, text)))
        else:
            self._line.append(request)

    def _fill_vacancy(self, now_ms: int) -> None:
        state = self._state
        if not self._loaded or self._head is not None or self._line or now_ms < self._elect_due_ms:
            return
        if self._replicas and self._is_vacant():
            asker_id = state.master_id or min(self._replicas)
            self._line.append(AskElection(_BY_ITSELF, asker_id, state.master_epoch))
        self._elect_due_ms = now_ms + ELECT_AGAIN_MS

    def _is_vacant(self) -> bool:
        """Whether the set needs a master, and somebody is there for it."""
        if not self._state.members:
            return self._rules.may_refound(self._view())
        return self._state.master_id not in self._alive and bool(self._rules.candidates(self._view()))

    def _work(self, effects: list[Effect]) -> None:
        while self._loaded and not self._in_flight and (self._head is not None or self._line):
            if self._head is None:
                self._head = _Head(self._line.popleft())
            self._look(self._head, effects)

    def _look(self, head: _Head, effects: list[Effect]) -> None:
        head.tries += 1
        decided = self._decide(head.request)
        if isinstance(decided, Refused):
            self._answer(decided, effects)
        elif decided.changes_nothing:
            self._answer(Accepted(decided.broker_id, self._state), effects)
        elif head.tries > TRIES_MAX:
            text = f"the broker set changed {TRIES_MAX} times meanwhile: ask again"
            self._answer(Refused(Refusal.ELECT_MASTER_FAILED, text), effects)
        else:
            head.decision = decided
            self._commit(self._transaction(decided), effects)

    def _decide(self, request: Request) -> Decision | Refused:
        if self._unreadable:
            return Refused(Refusal.STORE_FAILED, self.trouble)
        view = self._view()
        match request:
            case Register():
                return self._rules.register(view, request)
            case AskElection():
                return self._rules.ask_election(view, request)
            case ChangeSet():
                return self._rules.change_set(view, request)
            case SetLearner():
                return self._rules.set_learner(view, request)
            case Leave():
                return self._rules.leave(view, request)
            case CleanBroker():
                return self._rules.clean_broker(view, request)
            case RecoverSet():
                return self._rules.recover(view, request)

    def _view(self) -> View:
        reachable = tuple(
            Candidate(self._replicas[each.broker_id], each.epoch, each.end_offset)
            for each in self._reports.values()
            if each.broker_id in self._alive & self._connected
            and each.broker_id in self._replicas
            and each.incarnation == self._replicas[each.broker_id].incarnation
        )
        return View(self._state, self._replicas, self._alive, reachable)

    def _transaction(self, decision: Decision) -> Transaction:
        """Both the state and the replicas that it rests on are compared, whatever is written."""
        keys = [self._keys.state]
        keys += [self._keys.replica(each) for each in dict.fromkeys((decision.broker_id, *decision.rests_on))]
        conditions: list[Compare] = [is_same_key(self._keys.active, self._active_revision)]
        conditions += [is_unchanged(key, self._revision_of(key)) for key in keys]
        puts: list[Operation] = [Delete(self._keys.replica(each)) for each in decision.removes]
        if decision.clears:
            puts.append(Delete(self._keys.prefix, end_of_prefix(self._keys.prefix)))
        if decision.state is not None:
            puts.append(Put(self._keys.state, encode(decision.state)))
        if decision.replica is not None:
            puts.append(Put(self._keys.replica(decision.broker_id), encode(decision.replica)))
        return Transaction(tuple(conditions), (*puts, self._all()), (self._all(),))

    def _all(self) -> Read:
        return Read(self._keys.prefix, end_of_prefix(self._keys.prefix))

    def _revision_of(self, key: bytes) -> int:
        return self._stored[key].mod_revision if key in self._stored else 0

    def _read(self, effects: list[Effect]) -> None:
        self._commit(Transaction((), (self._all(),)), effects)

    def _commit(self, transaction: Transaction, effects: list[Effect]) -> None:
        self._ticket += 1
        self._in_flight = True
        effects.append(Commit(self._ticket, transaction))

    def _committed(self, event: Committed, effects: list[Effect]) -> None:
        if event.ticket != self._ticket or not self._in_flight:
            return
        self._in_flight = False
        if event.outcome is None:
            if event.refusal and self._head is not None:
                self._answer(Refused(Refusal.STORE_FAILED, event.refusal), effects)
            else:
                self._read(effects)
            return
        first = not self._loaded
        self._loaded = True
        self._take_over(event.outcome, effects)
        if first:
            # Whom a stand-by took for gone has a full TTL from here on too: Alive, which Loaded brings, says the same.
            self._alive |= frozenset(self._replicas)
            effects += [Loaded(tuple(sorted(self._replicas))), Changed(self._state)]
        head = self._head
        if head is not None and head.decision is not None and event.outcome.succeeded and not first:
            self._settle(head.decision, effects)

    def _settle(self, decision: Decision, effects: list[Effect]) -> None:
        """Only if the state is what was decided: a plain read succeeds too, and then the rules look again."""
        state_holds = decision.state in (None, self._state)
        replica_holds = decision.replica in (None, self._replicas.get(decision.broker_id))
        removed = not any(each in self._replicas for each in decision.removes)
        cleared = not decision.clears or not self._replicas
        if state_holds and replica_holds and removed and cleared:
            self._answer(Accepted(decision.broker_id, self._state), effects)

    def _answer(self, answer: Answer, effects: list[Effect]) -> None:
        assert self._head is not None
        if self._head.request.request_id != _BY_ITSELF:
            effects.append(Reply(self._head.request.request_id, answer))
        self._head = None

    def _take_over(self, outcome: Outcome, effects: list[Effect]) -> None:
        """The whole set as it is at the outcome's revision; what is not there any more is forgotten."""
        found = outcome.found[-1]
        there = {stored.key for stored in found}
        for key, known in list(self._stored.items()):
            if key not in there and known.mod_revision <= outcome.revision:
                self._forget(key, effects)
                del self._stored[key]
        for stored in found:
            self._see(stored, effects)
        effects.sort(key=lambda effect: isinstance(effect, Switched))  # the state that goes with it is told first

    def _see(self, stored: StoredKey, effects: list[Effect]) -> None:
        """Take over what etcd holds, unless something newer is known already.

        A value that nobody can read stops all decisions about the set until somebody wrote another.
        """
        if stored.mod_revision <= self._revision_of(stored.key):
            return
        self._stored[stored.key] = stored
        self._unreadable.pop(stored.key, None)
        try:
            self._take(stored, effects)
        except ValueError as error:
            self._unreadable[stored.key] = str(error)

    def _take(self, stored: StoredKey, effects: list[Effect]) -> None:
        if stored.key == self._keys.state:
            self._state = decode(SyncState, stored)
            if self._state.master_id == NO_MASTER:
                self._elect_due_ms = 0
            effects.append(Changed(self._state, self._request_behind(self._state)))
        else:
            replica = decode(Replica, stored)
            known = self._replicas.get(replica.broker_id)
            if known is not None and known.is_learner != replica.is_learner:
                effects.append(Switched())
            self._replicas[replica.broker_id] = replica

    def _request_behind(self, state: SyncState) -> Request | None:
        """The request at work, where this is what was decided about it: the watch may tell before the transaction."""
        head = self._head
        if head is None or head.decision is None or head.decision.state != state:
            return None
        return head.request

    def _gone(self, event: Gone, effects: list[Effect]) -> None:
        """A key without a value stands for the deleted one, so that an older read does not bring it back.

        The next transaction compares its revision, fails, reads that there is no such key, and goes on from there.
        """
        if event.key in self._stored and self._revision_of(event.key) < event.mod_revision:
            self._forget(event.key, effects)
            self._stored[event.key] = StoredKey(event.key, b"", 0, event.mod_revision, 0)

    def _forget(self, key: bytes, effects: list[Effect]) -> None:
        self._unreadable.pop(key, None)
        if key == self._keys.state:
            self._state = NEW_SET
            effects.append(Changed(NEW_SET))
            return
        for broker_id in [each for each in self._replicas if self._keys.replica(each) == key]:
            del self._replicas[broker_id]
            self._reports.pop(broker_id, None)
