"""A controller process: the shipped machines, with a shell around them that talks to simulated etcd and brokers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from apogeemq.controller.core import leadership, liveness, notifications, set_decisions
from apogeemq.controller.core.broker_set import SetKeys
from apogeemq.controller.core.etcd import Change, Outcome, Put, StoredKey, Transaction
from apogeemq.controller.core.requests import Accepted, Refused, Register
from apogeemq.controller.core.set_rules import SetRules

from tests.simulation.lease_store import CompactedError, LeaseStore
from tests.simulation.network import Network, Stream
from tests.simulation.wire import Answered, Ask, Beat, KnowsState, LeaseGone, Notify
from tests.simulation.world import Process, World

TTL_MS = 3_000
TICK_MS = 100
WATCH_MS = 40
KEYS = SetKeys("sim", "broker-a")


class ControllerNode(Process):
    """One controller; there may be several."""

    def __init__(self, world: World, name: str, network: Network, etcd: LeaseStore, rules: SetRules) -> None:
        super().__init__(world, name)
        self._network = network
        self._etcd = etcd
        self.rules = rules

    def start(self) -> None:
        """A new process; nothing of the old one is left."""
        self.begin_life()
        self.note("starts")
        self._leadership = leadership.Leadership(KEYS.active, self.name.encode(), ttl_ms=TTL_MS)
        self._liveness = liveness.Liveness()
        self._decisions = set_decisions.SetDecisions(KEYS, self.rules)
        self._notifications = notifications.Notifications()
        self._sessions: dict[int, Session] = {}
        self._asked: dict[int, tuple[Session, int]] = {}
        self._registering: dict[int, Register] = {}
        self._asked_count = 0
        self._is_loaded = False
        self._watch_from = 0
        self.every(TICK_MS, self._tick)
        self.every(WATCH_MS, self._watch)

    def stop(self) -> None:
        """Killed."""
        self.note("is killed")
        self.end_life()
        self._network.dies(self)

    @property
    def is_active(self) -> bool:
        """Whether it believes so."""
        return self.is_up and self._leadership.standing is leadership.Standing.ACTIVE

    def accept(self, stream: Callable[[], Stream]) -> Session:
        """A broker's stream arrives."""
        return Session(self, stream)

    def _ask_etcd(self, does: Callable[[], object], answer: Callable[[object | None], None]) -> None:
        passes = self._network.passes(self.name, "etcd") and self._network.passes("etcd", self.name)
        life = self.life

        def later(result: object | None) -> None:
            if self.life == life:
                self.run(lambda: answer(result))()

        if passes:
            self._etcd.ask(does, later)
        else:
            self.world.after(1_000, lambda: later(None))

    # Leadership

    def _tick(self) -> None:
        self._lead(leadership.Tick())
        self._live(liveness.Tick())
        self._decide(set_decisions.Tick())
        self._tell(notifications.Tick())

    def _lead(self, event: leadership.Event) -> None:
        for effect in self._leadership.step(event, self.now_ms):
            sent_ms = self.now_ms
            match effect:
                case leadership.GrantLease(ttl_ms):
                    self._ask_etcd(
                        lambda ttl_ms=ttl_ms: self._etcd.grant(ttl_ms),  # type: ignore[misc]
                        lambda got, sent_ms=sent_ms: self._granted(got, sent_ms),  # type: ignore[misc]
                    )
                case leadership.Beat(lease_id):
                    self._beat(lease_id, sent_ms)
                case leadership.Campaign(lease_id, transaction):
                    self._campaign(lease_id, transaction)
                case leadership.RevokeLease(lease_id):
                    self._ask_etcd(lambda lease_id=lease_id: self._etcd.revoke(lease_id), lambda _: None)  # type: ignore[misc]
                case leadership.ActiveAs(create_revision):
                    self.note(f"is active, key made at revision {create_revision}")
                    self._decide(set_decisions.Begin(create_revision))
                case leadership.Lost(reason):
                    self.note(f"is active no longer: {reason}")
                    self._is_loaded = False
                    self._decide(set_decisions.End())

    def _granted(self, got: object | None, sent_ms: int) -> None:
        if got is not None:
            lease_id, ttl_ms = cast("tuple[int, int]", got)
            self._lead(leadership.LeaseGranted(lease_id, ttl_ms, sent_ms))

    def _beat(self, lease_id: int, sent_ms: int) -> None:
        def answered(ttl_ms: object | None) -> None:
            if ttl_ms is not None:
                self._lead(leadership.BeatAnswered(lease_id, cast("int", ttl_ms), sent_ms))

        self._ask_etcd(lambda: self._etcd.keep_alive(lease_id), answered)

    def _campaign(self, lease_id: int, transaction: Transaction) -> None:
        self._ask_etcd(
            lambda: self._etcd.transact(transaction),
            lambda outcome: self._lead(leadership.Campaigned(lease_id, cast("Outcome | None", outcome))),
        )

    # The set

    def _decide(self, event: set_decisions.Event) -> None:
        for effect in self._decisions.step(event, self.now_ms):
            match effect:
                case set_decisions.Commit(ticket, transaction):
                    self._commit(ticket, transaction)
                case set_decisions.Reply(request_id, answer):
                    self._reply(request_id, answer)
                case set_decisions.Changed(state):
                    self._tell(notifications.Changed(state))
                case set_decisions.Loaded(broker_ids):
                    self._is_loaded = True
                    self._live(liveness.BecameActive(TTL_MS, broker_ids))

    def _commit(self, ticket: int, transaction: Transaction) -> None:
        self._ask_etcd(
            lambda: self._etcd.transact(transaction),
            lambda outcome: self._decide(set_decisions.Committed(ticket, cast("Outcome | None", outcome))),
        )

    def _live(self, event: liveness.Event) -> None:
        changed = self._liveness.step(event, self.now_ms)
        for effect in changed:
            if isinstance(effect, liveness.RegisterAgain):
                self._sessions[effect.broker_id].send(LeaseGone())
            else:
                self.note(f"sees broker {effect.broker_id} {type(effect).__name__.lower()}")
        if not isinstance(event, liveness.Tick) or changed:
            self._decide(set_decisions.Alive(self._liveness.alive, self._liveness.connected))

    def _tell(self, event: notifications.Event) -> None:
        for effect in self._notifications.step(event, self.now_ms):
            session = self._sessions.get(effect.broker_id)
            if session is not None:
                session.send(Notify(effect.state))

    def _reply(self, request_id: int, answer: Accepted | Refused) -> None:
        session, broker_request_id = self._asked.pop(request_id)
        register = self._registering.pop(request_id, None)
        if register is None or isinstance(answer, Refused):
            session.send(Answered(broker_request_id, answer))
            return
        key = KEYS.live(answer.broker_id)

        def make_lease() -> object:
            lease_id, _ = self._etcd.grant(TTL_MS)
            self._etcd.transact(Transaction((), (Put(key, b"", lease_id),)))
            return lease_id

        def made(lease_id: object | None) -> None:
            if lease_id is not None:
                session.send(Answered(broker_request_id, answer, cast("int", lease_id)))

        self._ask_etcd(make_lease, made)

    # Brokers

    def received(self, session: Session, message: object) -> None:
        """A broker says something on its stream, or beside it."""
        match message:
            case Ask(request):
                self._asked_count += 1
                self._asked[self._asked_count] = (session, request.request_id)
                if isinstance(request, Register):
                    self._registering[self._asked_count] = request
                # The decisions answer by a number of ours: two brokers may use the same.
                self._decide(replace(request, request_id=self._asked_count))
            case Beat():
                self._beaten(session, message)
            case KnowsState(broker_id, master_epoch, set_epoch):
                self._tell(notifications.Knows(broker_id, master_epoch, set_epoch))

    def _beaten(self, session: Session, beat: Beat) -> None:
        if self._is_loaded and beat.broker_id not in self._decisions.replicas:
            session.send(LeaseGone())  # it was cleaned up while it was thought to be dead
            return
        if self._sessions.get(beat.broker_id) is not session:
            self._sessions[beat.broker_id] = session
            self._live(liveness.StreamOpened(beat.broker_id))
            self._tell(notifications.Opened(beat.broker_id))
        self._decide(set_decisions.Reported(beat.broker_id, beat.incarnation, beat.epoch, beat.end_offset))

        def answered(ttl_ms: object | None) -> None:
            if ttl_ms == 0:
                session.send(LeaseGone())

        self._ask_etcd(lambda: self._etcd.keep_alive(beat.lease_id), answered)

    def closed(self, session: Session) -> None:
        """A broker's stream ended."""
        for broker_id, each in list(self._sessions.items()):
            if each is session:
                del self._sessions[broker_id]
                self._live(liveness.StreamBroken(broker_id))
                self._tell(notifications.Closed(broker_id))

    # The watch

    def _watch(self) -> None:
        passes = self._network.passes(self.name, "etcd") and self._network.passes("etcd", self.name)
        if not passes or not self._etcd.is_up:
            return
        for stored, is_gone in self._news():
            self._seen(stored, is_gone=is_gone)
        self._watch_from = self._etcd.revision + 1

    def _news(self) -> list[tuple[StoredKey, bool]]:
        """Keys that were written or are gone, since the last look."""
        if self._watch_from:
            try:
                changes = self._etcd.changes_since(self._watch_from)
                return [(_stored(each), each.value is None) for each in changes]
            except CompactedError:
                self.note("its watch was compacted away")
        return [(stored, False) for stored in self._read_all()]

    def _read_all(self) -> list[StoredKey]:
        """After a compaction the keys themselves are read; leases that are gone meanwhile show by their absence."""
        for broker_id in self._liveness.alive:
            if KEYS.live(broker_id) not in self._etcd.keys:
                self._live(liveness.LeaseEnded(broker_id))
        if self.is_active and KEYS.active not in self._etcd.keys:
            self._lead(leadership.KeyGone())
        return list(self._etcd.keys.values())

    def _seen(self, stored: StoredKey, *, is_gone: bool) -> None:
        if stored.key == KEYS.active:
            if is_gone:
                self._lead(leadership.KeyGone())
        elif stored.key.startswith(KEYS.live_prefix):
            broker_id = int(stored.key.removeprefix(KEYS.live_prefix))
            self._live(liveness.LeaseEnded(broker_id) if is_gone else liveness.LeaseSeen(broker_id))
        elif is_gone:
            self._decide(set_decisions.Gone(stored.key, stored.mod_revision))
        else:
            self._decide(set_decisions.Seen(stored))


class Session:
    """A broker's stream, at the controller's end."""

    def __init__(self, controller: ControllerNode, stream: Callable[[], Stream]) -> None:
        self._controller = controller
        self._stream = stream

    def send(self, message: object) -> None:
        """To the broker."""
        self._stream().send(self._controller, message)

    def received(self, message: object) -> None:
        """From the broker."""
        self._controller.received(self, message)

    def broken(self) -> None:
        """The stream ended."""
        self._controller.closed(self)


def _stored(change: Change) -> StoredKey:
    value = change.value or b""
    return StoredKey(change.key, value, change.create_revision, change.mod_revision, 1, change.lease_id)
