"""What happens on registration streams: a step machine over the route table.

Each open stream is a *session*. Its messages, its loss and the passing of time are steps; a step changes the tables at
once and returns what is to be sent, in order.

    state        hello          full state          delta, beat               deadline reached
    NEW          ▶ FILLING or   out of order        out of order              expired
                   REGISTERED
    FILLING      out of order   last: ▶ REGISTERED  not looked at             expired; member, if any, has its grace
    REGISTERED   out of order   out of order        version differs:          expired; member leaves at once
                                                      ▶ FILLING (NeedFull)

FILLING means: NeedFull was sent and the whole topic table is on its way. What was sent before the broker saw NeedFull
still arrives, hence deltas and beats are not looked at meanwhile. A full state is staged beside the tables and put in
by its last chunk, so that a route never shows half a broker.

A member of the route table is kept alive by its session, or it is in its *grace* after that session was lost. A session
that returns within the grace at the version known here needs no full state.

Rules of admission, the first that matches refuses; none of them changes anything:

 1. a field is missing, malformed or out of range                                   INVALID_ARGUMENT
 2. the broker name is in use in another cluster                                    NAME_CONFLICT
 3. id 0 with a master epoch below the highest known of its name                    FENCED_MASTER_EPOCH
 4. the same address is known with a higher incarnation: this process is an old one STALE_INCARNATION
 5. name and id are claimed from another address, and this is no later master       NAME_CONFLICT
 6. one more broker than the bound                                                  LIMIT_EXCEEDED

Admitted, it supersedes the older sessions of its name and id, and of its address under another id of the name (the
broker's role changed). Time is `now_ms`, milliseconds of a clock that never goes back.

Source: architecture §3, §6.9; reference broker_behaviour §12 for what Apache's name server does with a registration.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from apogeemq.namesrv.core.effects import Accepted, Effect, Ended, Joined, Left, NeedFull, Refused, Send, TopicsLeftOut
from apogeemq.namesrv.core.liveness import Deadlines
from apogeemq.namesrv.core.route_table import RouteTable
from apogeemq.namesrv.core.values import (
    BrokerIdentity,
    DataVersion,
    MemberKey,
    RefusalCode,
    TopicQueues,
    identity_problem,
    topic_problem,
)

CHUNK_TOPICS_MAX = 500
"""Most topics in one message, changed and removed together; keeps one step well below 10 ms."""

LEFT_OUT_EXAMPLES_MAX = 10
"""Most topics named in one TopicsLeftOut."""

LEFT_OUT_TOPIC_LENGTH_MAX = 300
"""A topic may be left out because its name is too long; that name is not sent back whole."""

Announced: TypeAlias = Sequence[tuple[str, TopicQueues]]
"""Topics as one message announces them."""


@dataclass(frozen=True, slots=True)
class RegistrarLimits:
    """Bounds and waits.

    brokers_max            registered brokers, masters and slaves together
    topics_per_broker_max  topics of one broker; those beyond are left out of the routes
    beat_timeout_ms        a registered broker that sends nothing for so long is taken out
    grace_ms               how long a broker stays in the routes after its stream broke
    handshake_timeout_ms   longest wait for the hello, and for each next chunk of a full state
    """

    brokers_max: int = 1_000
    topics_per_broker_max: int = 50_000
    beat_timeout_ms: int = 10_000
    grace_ms: int = 3_000
    handshake_timeout_ms: int = 10_000

    @property
    def sessions_max(self) -> int:
        """Open streams: every broker may open its next one before its last is known to be lost."""
        return 2 * self.brokers_max


class _State(Enum):
    NEW = auto()
    FILLING = auto()
    REGISTERED = auto()


class _LeftOut:
    """Counts topics that are not taken, and keeps the first few for the broker's log."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[tuple[str, str]] = []

    def add(self, topic: str, reason: str) -> None:
        self.count += 1
        if len(self.examples) < LEFT_OUT_EXAMPLES_MAX:
            self.examples.append((topic[:LEFT_OUT_TOPIC_LENGTH_MAX], reason))

    def sends(self, session_id: int) -> list[Effect]:
        if not self.count:
            return []
        return [Send(session_id, TopicsLeftOut(self.count, tuple(self.examples)))]


class _Staged:
    """A full state on its way."""

    def __init__(self, data_version: DataVersion) -> None:
        self.data_version = data_version
        self.topics: dict[str, TopicQueues] = {}
        self.left_out = _LeftOut()


class _Session:
    """One open stream. `identity` is set from FILLING on; `staged` while the chunks of a full state arrive."""

    __slots__ = ("identity", "session_id", "staged", "state")

    def __init__(self, session_id: int) -> None:
        self.session_id = session_id
        self.state = _State.NEW
        self.identity: BrokerIdentity | None = None
        self.staged: _Staged | None = None


class Registrar:
    """The step machine of all registration streams. Messages of sessions that are over are not looked at."""

    def __init__(self, table: RouteTable, limits: RegistrarLimits) -> None:
        self._table = table
        self._limits = limits
        self._sessions: dict[int, _Session] = {}
        self._session_ids = itertools.count(1)
        self._claims: dict[MemberKey, _Session] = {}
        self._silence: Deadlines[int] = Deadlines()
        self._grace: Deadlines[MemberKey] = Deadlines()

    @property
    def session_count(self) -> int:
        """Open streams."""
        return len(self._sessions)

    def open(self, now_ms: int) -> int | Refused:
        """Begin a session and return its id, or refuse it when too many are open."""
        if len(self._sessions) >= self._limits.sessions_max:
            return Refused(
                RefusalCode.LIMIT_EXCEEDED, f"{len(self._sessions)} registration streams are open, the most allowed"
            )
        session = _Session(next(self._session_ids))
        self._sessions[session.session_id] = session
        self._expect(session, now_ms)
        return session.session_id

    def hello(self, session_id: int, identity: BrokerIdentity, data_version: DataVersion, now_ms: int) -> list[Effect]:
        """Admit or refuse a broker; ask for its topics unless the tables have them at this version."""
        session = self._sessions.get(session_id)
        if session is None:
            return []
        if session.state is not _State.NEW:
            return self._refuse(session, RefusalCode.OUT_OF_ORDER, "hello came twice on one stream", now_ms)
        refused = self._admission(identity)
        if refused is not None:
            return self._refuse(session, refused.code, refused.text, now_ms)
        effects = self._supersede(identity, now_ms)
        session.identity = identity
        self._claims[identity.key] = session
        if identity.broker_id == 0:
            self._table.raise_master_epoch(identity.broker_name, identity.master_epoch)
        member = self._table.member(identity.key)
        if member is not None and member.identity == identity and member.data_version == data_version:
            return [*effects, *self._register(session, data_version, now_ms)]
        return [*effects, self._ask_full(session, now_ms)]

    def full_state(
        self, session_id: int, data_version: DataVersion, topics: Announced, now_ms: int, *, first: bool, last: bool
    ) -> list[Effect]:
        """Take one chunk of a topic table; the last one puts the table in place of what was known."""
        session = self._sessions.get(session_id)
        if session is None:
            return []
        if session.state is not _State.FILLING:
            return self._refuse(session, RefusalCode.OUT_OF_ORDER, "full_state was not asked for", now_ms)
        if first:
            session.staged = _Staged(data_version)
        staged = session.staged
        if staged is None:
            return self._refuse(session, RefusalCode.OUT_OF_ORDER, "full_state must begin with first = true", now_ms)
        if staged.data_version != data_version:
            text = "full_state.data_version differs from that of the first chunk"
            return self._refuse(session, RefusalCode.INVALID_ARGUMENT, text, now_ms)
        if len(topics) > CHUNK_TOPICS_MAX:
            return self._refuse_chunk(session, "full_state.topics", len(topics), now_ms)
        staged.topics.update(self._acceptable(topics, staged.topics, staged.left_out))
        self._expect(session, now_ms)
        return self._put_in(session, staged, now_ms) if last else []

    def delta(
        self,
        session_id: int,
        base: DataVersion,
        data_version: DataVersion,
        changed: Announced,
        removed: Collection[str],
        now_ms: int,
    ) -> list[Effect]:
        """Change some topics, provided that the tables hold the version that the change starts from."""
        session = self._sessions.get(session_id)
        if session is None or session.state is _State.FILLING:
            return []
        if session.identity is None:
            return self._refuse(session, RefusalCode.OUT_OF_ORDER, "delta came before hello", now_ms)
        if len(changed) + len(removed) > CHUNK_TOPICS_MAX:
            return self._refuse_chunk(session, "delta.changed and delta.removed", len(changed) + len(removed), now_ms)
        member = self._table.member(session.identity.key)
        assert member is not None, "a registered session has its member in the tables"
        if member.data_version != base:
            return [self._ask_full(session, now_ms)]
        left_out = _LeftOut()
        taken = dict(self._acceptable(changed, member.topics, left_out))
        self._table.change_topics(session.identity.key, data_version, taken, removed)
        self._expect(session, now_ms)
        return left_out.sends(session_id)

    def beat(self, session_id: int, data_version: DataVersion, now_ms: int) -> list[Effect]:
        """Keep a broker alive, and ask for its topics when its version is not the one known here."""
        session = self._sessions.get(session_id)
        if session is None or session.state is _State.FILLING:
            return []
        if session.identity is None:
            return self._refuse(session, RefusalCode.OUT_OF_ORDER, "beat came before hello", now_ms)
        member = self._table.member(session.identity.key)
        assert member is not None, "a registered session has its member in the tables"
        if member.data_version != data_version:
            return [self._ask_full(session, now_ms)]
        self._expect(session, now_ms)
        return []

    def unregister(self, session_id: int) -> list[Effect]:
        """Take a broker out of the routes at once and end its session."""
        session = self._sessions.get(session_id)
        if session is None:
            return []
        self._close(session)
        effects: list[Effect] = []
        if session.identity is not None:
            effects = self._remove(session.identity.key, "it unregistered")
        return [*effects, Send(session_id, Ended())]

    def lost(self, session_id: int, now_ms: int) -> None:
        """End a session whose stream broke; its broker stays in the routes for the grace."""
        session = self._sessions.get(session_id)
        if session is not None:
            self._lose(session, now_ms)

    def violated(self, session_id: int, text: str, now_ms: int) -> list[Effect]:
        """End a session whose peer sent what is no message of this protocol."""
        session = self._sessions.get(session_id)
        return [] if session is None else self._refuse(session, RefusalCode.INVALID_ARGUMENT, text, now_ms)

    def expire_next(self, now_ms: int) -> list[Effect] | None:
        """Act on one deadline that has passed; None when there is none.

        One at a time, because a broker with many topics leaving is work: the caller lets others run in between.
        """
        session_id = self._silence.take_expired(now_ms)
        if session_id is not None:
            return self._expire(self._sessions[session_id], now_ms)
        key = self._grace.take_expired(now_ms)
        if key is not None:
            return self._remove(key, f"its stream was lost and it did not return within {self._limits.grace_ms} ms")
        return None

    # Admission

    def _admission(self, identity: BrokerIdentity) -> Refused | None:
        """Judge a hello by the rules in this module's head."""
        if problem := identity_problem(identity):
            return Refused(RefusalCode.INVALID_ARGUMENT, f"identity.{problem}")
        known = self._identities_named(identity.broker_name)
        for other in known:
            if other.key != identity.key and other.cluster != identity.cluster:
                text = f"broker name {identity.broker_name!r} is in use in cluster {other.cluster!r}"
                return Refused(RefusalCode.NAME_CONFLICT, text)
        highest = self._table.master_epoch(identity.broker_name)
        if identity.broker_id == 0 and identity.master_epoch < highest:
            text = f"master_epoch is {identity.master_epoch}; {identity.broker_name!r} has had {highest} already"
            return Refused(RefusalCode.FENCED_MASTER_EPOCH, text)
        for other in known:
            if other.address == identity.address and other.incarnation > identity.incarnation:
                text = f"a later process at {identity.address} is registered (incarnation {other.incarnation})"
                return Refused(RefusalCode.STALE_INCARNATION, text)
        return self._conflict(identity) or self._over_limit(identity)

    def _conflict(self, identity: BrokerIdentity) -> Refused | None:
        claim = self._claims.get(identity.key)
        if claim is None or claim.identity is None or claim.identity.address == identity.address:
            return None
        if identity.broker_id == 0 and identity.master_epoch > claim.identity.master_epoch:
            return None
        text = f"{identity.broker_name!r} id {identity.broker_id} is registered from {claim.identity.address}"
        return Refused(RefusalCode.NAME_CONFLICT, text)

    def _over_limit(self, identity: BrokerIdentity) -> Refused | None:
        known = {*self._claims, *self._grace}
        if identity.key in known or len(known) < self._limits.brokers_max:
            return None
        return Refused(RefusalCode.LIMIT_EXCEEDED, f"{len(known)} brokers are registered, the most allowed")

    def _identities_named(self, broker_name: str) -> list[BrokerIdentity]:
        """Return who is or registers under a broker name, with and without an open stream."""
        claims = [
            s.identity for k, s in self._claims.items() if k.broker_name == broker_name and s.identity is not None
        ]
        return claims + [member.identity for member in self._table.members_named(broker_name)]

    def _supersede(self, identity: BrokerIdentity, now_ms: int) -> list[Effect]:
        """End the older sessions of this broker; their members keep serving for their grace, until replaced."""
        effects: list[Effect] = []
        for key, session in list(self._claims.items()):
            if key.broker_name != identity.broker_name or session.identity is None:
                continue
            if key == identity.key or session.identity.address == identity.address:
                text = f"a newer stream of this broker came from {identity.address}"
                effects += self._refuse(session, RefusalCode.SUPERSEDED, text, now_ms)
        return effects

    # Steps shared by several messages

    def _register(self, session: _Session, data_version: DataVersion, now_ms: int) -> list[Effect]:
        assert session.identity is not None, "only an admitted session registers"
        self._grace.forget(session.identity.key)
        session.state = _State.REGISTERED
        session.staged = None
        self._expect(session, now_ms)
        return [Send(session.session_id, Accepted(data_version))]

    def _ask_full(self, session: _Session, now_ms: int) -> Effect:
        session.state = _State.FILLING
        session.staged = None
        self._expect(session, now_ms)
        return Send(session.session_id, NeedFull())

    def _put_in(self, session: _Session, staged: _Staged, now_ms: int) -> list[Effect]:
        """Put a complete topic table into the routes; the same address under another id of the name leaves them."""
        identity = session.identity
        assert identity is not None, "only an admitted session sends a full state"
        effects: list[Effect] = []
        for member in self._table.members_named(identity.broker_name):
            if member.identity.address == identity.address and member.identity.key != identity.key:
                effects += self._remove(member.identity.key, f"it registered as id {identity.broker_id}")
        self._table.put_member(identity, staged.data_version, staged.topics)
        self._table.forget_master_epochs(2 * self._limits.brokers_max)
        effects.append(Joined(identity, len(staged.topics)))
        effects += staged.left_out.sends(session.session_id)
        return effects + self._register(session, staged.data_version, now_ms)

    def _acceptable(
        self, topics: Announced, present: Collection[str], left_out: _LeftOut
    ) -> Iterable[tuple[str, TopicQueues]]:
        """Return the topics that are valid and within the bound; the broker keeps serving when some are not."""
        room = self._limits.topics_per_broker_max - len(present)
        taken: dict[str, TopicQueues] = {}
        for topic, queues in topics:
            if problem := topic_problem(topic, queues):
                left_out.add(topic, problem)
            elif topic in present or topic in taken:
                taken[topic] = queues
            elif room > 0:
                room -= 1
                taken[topic] = queues
            else:
                left_out.add(topic, f"more than {self._limits.topics_per_broker_max} topics of one broker")
        return taken.items()

    def _expect(self, session: _Session, now_ms: int) -> None:
        registered = session.state is _State.REGISTERED
        wait_ms = self._limits.beat_timeout_ms if registered else self._limits.handshake_timeout_ms
        self._silence.set(session.session_id, now_ms + wait_ms)

    def _expire(self, session: _Session, now_ms: int) -> list[Effect]:
        if session.state is not _State.REGISTERED or session.identity is None:
            text = f"the next message was not there within {self._limits.handshake_timeout_ms} ms"
            return self._refuse(session, RefusalCode.EXPIRED, text, now_ms)
        text = f"no beat within {self._limits.beat_timeout_ms} ms"
        self._close(session)
        return [*self._remove(session.identity.key, text), Send(session.session_id, Refused(RefusalCode.EXPIRED, text))]

    def _refuse_chunk(self, session: _Session, field: str, count: int, now_ms: int) -> list[Effect]:
        text = f"{field}: {count} topics in one message; at most {CHUNK_TOPICS_MAX} are allowed"
        return self._refuse(session, RefusalCode.INVALID_ARGUMENT, text, now_ms)

    def _refuse(self, session: _Session, code: RefusalCode, text: str, now_ms: int) -> list[Effect]:
        self._lose(session, now_ms)
        return [Send(session.session_id, Refused(code, text))]

    def _lose(self, session: _Session, now_ms: int) -> None:
        self._close(session)
        if session.identity is None:
            return
        key = session.identity.key
        # A session that was still filling may have found its predecessor's member in its grace: that one goes on.
        if self._table.member(key) is not None and key not in self._grace:
            self._grace.set(key, now_ms + self._limits.grace_ms)

    def _close(self, session: _Session) -> None:
        del self._sessions[session.session_id]
        self._silence.forget(session.session_id)
        if session.identity is not None and self._claims.get(session.identity.key) is session:
            del self._claims[session.identity.key]

    def _remove(self, key: MemberKey, reason: str) -> list[Effect]:
        member = self._table.member(key)
        self._grace.forget(key)
        self._table.remove_member(key)
        return [] if member is None else [Left(member.identity, reason)]
