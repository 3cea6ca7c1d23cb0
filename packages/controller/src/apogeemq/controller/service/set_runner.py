"""One broker set at one controller: the machines of its decisions, of who lives and of who was told, run together.

```
 a broker's stream ──ask, beaten──▶ decisions ──Commit──▶ etcd ──▶ decisions ──Reply──▶ the stream
 the watch ──saw, gone──▶ decisions, liveness           Changed──▶ notifications ──Tell──▶ streams
 time ──tick──▶ all three
```

A stand-by runs the same: it sees by the watch what the active controller decided, knows who is alive, and tells the
brokers whose streams it has. It decides nothing, and refuses what is asked with NOT_LEADER.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from apogeemq.controller.core import liveness, notifications, set_decisions
from apogeemq.controller.core.broker_set import NEW_SET, Replica, SetKeys, SyncState
from apogeemq.controller.core.election import Refusal
from apogeemq.controller.core.elections import Election, Elections
from apogeemq.controller.core.etcd import Lease, Outcome, Put, StoredKey, Transaction, is_same_key
from apogeemq.controller.core.requests import Accepted, Answer, AskElection, Leave, Refused, Register, Request
from apogeemq.controller.core.set_rules import SetRules
from apogeemq.controller.errors import EtcdError, EtcdOutcomeUnknown
from apogeemq.controller.metrics import ControllerMetrics, ElectionResult
from apogeemq.controller.service.etcd_calls import EtcdCalls
from apogeemq.controller.service.tasks import Tasks
from apogeemq.mesh.clock import Clock
from opentelemetry.trace import Tracer

REFUSED_READ_PAUSE_S = 0.5
"""Before a set is read again that etcd refused to have read."""

_log = logging.getLogger(__name__)


class BrokerSession(Protocol):
    """A broker's stream, as its set sees it."""

    def tell(self, state: SyncState, replicas: tuple[Replica, ...]) -> None:
        """Say what the set is like now."""
        ...

    def register_again(self) -> None:
        """Say that its lease is gone, or that this controller does not know it."""
        ...

    def superseded(self) -> None:
        """End it: another stream of the broker took its place."""
        ...


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a request; `lease` comes with an accepted registration."""

    answer: Answer
    replicas: tuple[Replica, ...]
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class Ports:
    """What all sets of a controller work with.

    elapsed_ms    a clock that goes on while the machine sleeps
    """

    etcd: EtcdCalls
    clock: Clock
    elapsed_ms: Callable[[], int]
    tracer: Tracer
    metrics: ControllerMetrics
    call_timeout_s: float
    broker_ttl_s: int


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that waits; `epoch` is that of the master when it came, `lease_id` ends when it is granted."""

    request: Request
    answered: Callable[[Answered], None]
    epoch: int
    lease_id: int


class SetRunner:
    """The machines of one set. `rules` has the settings of the cluster."""

    def __init__(self, keys: SetKeys, rules: SetRules, ports: Ports) -> None:
        self._keys = keys
        self._ports = ports
        self._decisions = set_decisions.SetDecisions(keys, rules)
        self._liveness = liveness.Liveness()
        self._notifications = notifications.Notifications()
        self._sessions: dict[int, BrokerSession] = {}
        self._asked: dict[int, _Asked] = {}
        self._asked_count = 0
        self._active_revision = 0
        self._is_loaded = False
        self._counted_epoch = 0
        self._elections = Elections()
        self._prolonged_ms: dict[int, int] = {}
        self._tasks = Tasks()

    @property
    def broker_name(self) -> str:
        """The set's name."""
        return self._keys.broker_name

    @property
    def state(self) -> SyncState:
        """As this controller saw it last."""
        return self._decisions.state

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """Its brokers by id, likewise."""
        return tuple(replica for _, replica in sorted(self._decisions.replicas.items()))

    @property
    def alive(self) -> frozenset[int]:
        """Ids of those that count as alive here."""
        return self._liveness.alive

    @property
    def connected(self) -> frozenset[int]:
        """Ids of those whose stream is open here."""
        return self._liveness.connected

    @property
    def reports(self) -> dict[int, set_decisions.Reported]:
        """What its brokers said last of their logs."""
        return dict(self._decisions.reports)

    @property
    def trouble(self) -> str:
        """Why nothing can be decided about it; empty where all is well."""
        return self._decisions.trouble

    @property
    def elections(self) -> tuple[tuple[Election, int], ...]:
        """The last ones that this controller saw, the newest first, each with its age in milliseconds."""
        now_ms = self._ports.elapsed_ms()
        return tuple((each, max(0, now_ms - each.at_ms)) for each in self._elections.newest_first)

    @property
    def now_ms(self) -> int:
        """On the clock by which leases are counted."""
        return self._ports.elapsed_ms()

    def lease_left_ms(self, broker_id: int) -> int | None:
        """How long a broker's lease holds at least, by what this controller prolonged; None where it prolonged none."""
        until_ms = self._prolonged_ms.get(broker_id)
        return None if until_ms is None else max(0, until_ms - self._ports.elapsed_ms())

    def lag(self, broker_id: int) -> int | None:
        """Bytes that the master's log has beyond this broker's, as their last beats told; None where nobody knows.

        Beats come each second, and not at the same time: of a busy set it is above zero, and never below.
        """
        reports = self._decisions.reports
        master, own = reports.get(self.state.master_id), reports.get(broker_id)
        if master is None or own is None:
            return None
        return max(0, master.end_offset - own.end_offset)

    @property
    def is_empty(self) -> bool:
        """Nothing is known of it, and nobody asks: it need not be kept."""
        if self._sessions or self._asked or self._decisions.replicas:
            return False
        return self.state == NEW_SET and not self.alive

    # From the campaign, the watch and the clock

    def begin(self, create_revision: int) -> None:
        """This controller is active, by the key of this revision."""
        self._active_revision = create_revision
        self._is_loaded = False
        self._decide(set_decisions.Begin(create_revision))

    def end(self) -> None:
        """It is active no longer."""
        self._active_revision = 0
        self._is_loaded = False
        self._decide(set_decisions.End())

    def tick(self) -> None:
        """Look at what is due; of a set that is as it should be, that is nothing."""
        if self._liveness.is_quiet and self._decisions.is_quiet and self._notifications.is_quiet:
            return
        self._live(liveness.Tick())
        self._decide(set_decisions.Tick())
        self._tell(notifications.Tick())

    def saw(self, stored: StoredKey) -> None:
        """A key of the set was written."""
        self._decide(set_decisions.Seen(stored))

    def gone(self, key: bytes, mod_revision: int) -> None:
        """A key of the set was deleted."""
        self._decide(set_decisions.Gone(key, mod_revision))

    def lease_seen(self, broker_id: int) -> None:
        """A broker of it has a lease."""
        self._live(liveness.LeaseSeen(broker_id))

    def prolonged(self, broker_id: int, ttl_s: int, asked_ms: int) -> None:
        """etcd prolonged a broker's lease, asked at this time of `now_ms`."""
        self._prolonged_ms[broker_id] = asked_ms + ttl_s * 1000

    def lease_ended(self, broker_id: int) -> None:
        """It has none any more."""
        self._prolonged_ms.pop(broker_id, None)
        self._live(liveness.LeaseEnded(broker_id))

    async def stop(self) -> None:
        """End all calls that are under way."""
        await self._tasks.stop()

    # From brokers and operators

    def ask(self, request: Request, answered: Callable[[Answered], None], *, lease_id: int = 0) -> None:
        """Have something decided; `answered` is called once, unless this controller stops before.

        `lease_id` is that of a broker that leaves: it is given back before the answer.
        """
        self._asked_count += 1
        self._asked[self._asked_count] = _Asked(request, answered, self.state.master_epoch, lease_id)
        # The decisions answer by a number of ours: two brokers may use the same.
        self._decide(replace(request, request_id=self._asked_count))

    def beaten(self, session: BrokerSession, who: Replica, epoch: int, end_offset: int) -> bool:
        """A broker's stream speaks for `who`; False where this controller knows that it may not.

        `who` has id, check code and incarnation. A stand-by whose watch is behind may not know a broker yet: it waits.
        """
        known = self._decisions.replicas.get(who.broker_id)
        if known is None or (known.check_code, known.incarnation) != (who.check_code, who.incarnation):
            if self._is_loaded:
                session.register_again()
            return not self._is_loaded and known is None
        held = self._sessions.get(who.broker_id)
        if held is not session:
            if held is not None:
                held.superseded()
            self._sessions[who.broker_id] = session
            self._live(liveness.StreamOpened(who.broker_id))
            self._tell(notifications.Opened(who.broker_id))
        self._decide(set_decisions.Reported(who.broker_id, who.incarnation, epoch, end_offset))
        return True

    def knows(self, session: BrokerSession, broker_id: int, master_epoch: int, set_epoch: int) -> None:
        """A broker took in a state."""
        if self._sessions.get(broker_id) is session:
            self._tell(notifications.Knows(broker_id, master_epoch, set_epoch))

    def closed(self, session: BrokerSession) -> None:
        """A broker's stream ended."""
        for broker_id, each in list(self._sessions.items()):
            if each is session:
                del self._sessions[broker_id]
                self._live(liveness.StreamBroken(broker_id))
                self._tell(notifications.Closed(broker_id))

    # What the machines want

    def _decide(self, event: set_decisions.Event) -> None:
        for effect in self._decisions.step(event, self._ports.elapsed_ms()):
            match effect:
                case set_decisions.Commit(ticket, transaction):
                    self._tasks.start(self._commit(ticket, transaction))
                case set_decisions.Reply(request_id, answer):
                    self._reply(request_id, answer)
                case set_decisions.Changed(state, decided):
                    self._elections.changed(state, decided, self.alive, self._ports.elapsed_ms())
                    self._changed(state)
                case set_decisions.Switched():
                    self._tell(notifications.Again())
                case set_decisions.Loaded(broker_ids):
                    self._is_loaded = True
                    self._counted_epoch = self.state.master_epoch
                    self._live(liveness.BecameActive(self._ports.broker_ttl_s * 1000, broker_ids))

    def _changed(self, state: SyncState) -> None:
        if self._is_loaded and state.master_epoch > self._counted_epoch:
            self._counted_epoch = state.master_epoch
            self._ports.metrics.elected(self.broker_name, ElectionResult.NEW_MASTER_ELECTED)
            _log.info("broker set %s: %s", self.broker_name, _described(state))
        if state == NEW_SET:  # it was forgotten: one that follows begins to count again
            self._notifications = notifications.Notifications()
            for broker_id in self._sessions:
                self._tell(notifications.Opened(broker_id))
        self._tell(notifications.Changed(state))

    def _live(self, event: liveness.Event) -> None:
        changed = self._liveness.step(event, self._ports.elapsed_ms())
        for effect in changed:
            match effect:
                case liveness.RegisterAgain(broker_id):
                    self._sessions[broker_id].register_again()
                case liveness.Came(broker_id):
                    _log.info("broker %d of set %s is alive", broker_id, self.broker_name)
                case liveness.Gone(broker_id):
                    _log.warning("broker %d of set %s is gone", broker_id, self.broker_name)
        if changed or not isinstance(event, liveness.Tick):
            self._decide(set_decisions.Alive(self._liveness.alive, self._liveness.connected))

    def _tell(self, event: notifications.Event) -> None:
        for effect in self._notifications.step(event, self._ports.elapsed_ms()):
            session = self._sessions.get(effect.broker_id)
            if session is not None:
                session.tell(effect.state, self.replicas)

    async def _commit(self, ticket: int, transaction: Transaction) -> None:
        """Carry a transaction out; one that decides something is a span."""
        ports = self._ports
        if not transaction.conditions:
            outcome, refusal = await self._transact(transaction)
            self._decide(set_decisions.Committed(ticket, outcome, refusal))
            return
        with ports.tracer.start_as_current_span("decide", attributes={"apogeemq.broker_set": self.broker_name}) as span:
            outcome, refusal = await self._transact(transaction)
            self._decide(set_decisions.Committed(ticket, outcome, refusal))
            span.set_attributes(
                {
                    "apogeemq.outcome": refusal or _outcome_text(outcome),
                    "apogeemq.master_id": self.state.master_id,
                    "apogeemq.master_epoch": self.state.master_epoch,
                    "apogeemq.sync_state_set": [str(each) for each in self.state.members],
                }
            )

    async def _transact(self, transaction: Transaction) -> tuple[Outcome | None, str]:
        """Carry it out: how it ended, None where nobody knows, and why etcd would not do it."""
        try:
            return await self._ports.etcd.transact(transaction, timeout_s=self._ports.call_timeout_s), ""
        except EtcdOutcomeUnknown as error:
            _log.warning("broker set %s: %s", self.broker_name, error)
            return None, ""
        except EtcdError as error:
            if not transaction.conditions:
                await self._ports.clock.sleep(REFUSED_READ_PAUSE_S)
            return None, str(error)

    def _reply(self, request_id: int, answer: Answer) -> None:
        asked = self._asked.pop(request_id)
        if isinstance(asked.request, AskElection):
            self._count_election(asked.epoch, answer)
        if isinstance(answer, Refused):
            _log.info("broker set %s refuses %s: %s", self.broker_name, type(asked.request).__name__, answer.text)
        if isinstance(answer, Accepted) and isinstance(asked.request, Register):
            self._tasks.start(self._make_lease(asked, answer))
        elif isinstance(answer, Accepted) and isinstance(asked.request, Leave):
            self._tasks.start(self._end_lease(asked, answer))
        else:
            asked.answered(Answered(answer, self.replicas))

    def _count_election(self, epoch: int, answer: Answer) -> None:
        """A new master is counted where its epoch is seen, whoever asked."""
        if isinstance(answer, Refused) and answer.code is not Refusal.MASTER_STILL_EXIST:
            self._ports.metrics.elected(self.broker_name, ElectionResult.NO_MASTER_ELECTED)
        elif self.state.master_epoch == epoch:
            self._ports.metrics.elected(self.broker_name, ElectionResult.KEEP_CURRENT_MASTER)

    async def _make_lease(self, asked: _Asked, accepted: Accepted) -> None:
        """A broker is registered once its key hangs on a lease; otherwise it has to ask again."""
        ports = self._ports
        try:
            lease = await ports.etcd.grant(ports.broker_ttl_s, timeout_s=ports.call_timeout_s)
            live = Put(self._keys.live(accepted.broker_id), b"", lease.lease_id)
            condition = is_same_key(self._keys.active, self._active_revision)
            outcome = await ports.etcd.transact(Transaction((condition,), (live,)), timeout_s=ports.call_timeout_s)
        except EtcdError as error:
            asked.answered(Answered(Refused(Refusal.STORE_FAILED, str(error)), self.replicas))
            return
        if not outcome.succeeded:
            refused = Refused(Refusal.NOT_LEADER, "another controller is active")
            asked.answered(Answered(refused, self.replicas))
            return
        self.lease_seen(accepted.broker_id)
        self.prolonged(accepted.broker_id, lease.ttl_s, lease.sent_ms)
        asked.answered(Answered(replace(accepted, state=self.state), self.replicas, lease))

    async def _end_lease(self, asked: _Asked, accepted: Accepted) -> None:
        """A lease that cannot be given back ends by itself: the broker need not wait for that."""
        if asked.lease_id:
            try:
                await self._ports.etcd.revoke(asked.lease_id, timeout_s=self._ports.call_timeout_s)
            except EtcdError as error:
                _log.info("lease %x was not given back and ends by itself: %s", asked.lease_id, error)
        asked.answered(Answered(accepted, self.replicas))


def _described(state: SyncState) -> str:
    loss = ", which MAY LACK what was acknowledged before" if state.loss_epoch == state.master_epoch else ""
    return f"broker {state.master_id} is master of epoch {state.master_epoch}, set {list(state.members)}{loss}"


def _outcome_text(outcome: Outcome | None) -> str:
    if outcome is None:
        return "unknown"
    return "done" if outcome.succeeded else "something had changed"
