"""The registrar under any sequence of steps: nobody misbehaves for others, and nothing stays behind."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from apogeemq.namesrv.core.effects import Joined, Left, Refused
from apogeemq.namesrv.core.registrar import Registrar, RegistrarLimits
from apogeemq.namesrv.core.route_table import RouteTable
from apogeemq.namesrv.core.values import BrokerIdentity, DataVersion, MemberKey, TopicQueues
from hypothesis import given
from hypothesis import strategies as st

LIMITS = RegistrarLimits(brokers_max=2, topics_per_broker_max=2)
QUEUES = TopicQueues(4, 4, 6, 0)
BASE = BrokerIdentity("C", "broker-a", 0, 1, "10.0.0.1:10911")

IDENTITIES = st.builds(
    lambda name, broker_id, incarnation, host, epoch, cluster: replace(
        BASE,
        broker_name=name,
        broker_id=broker_id,
        incarnation=incarnation,
        remoting_address=f"{host}:10911",
        master_epoch=epoch,
        cluster=cluster,
    ),
    st.sampled_from(["broker-a", "broker-b", "broker-c", ""]),
    st.integers(0, 1),
    st.integers(1, 2),
    st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    st.integers(0, 1),
    st.sampled_from(["C", "C", "C", "D"]),
)
VERSIONS = st.builds(DataVersion, st.just(0), st.just(0), st.integers(0, 1))
TOPICS = st.lists(st.sampled_from(["A", "B", "C", "no topic"]), max_size=5)
SESSIONS = st.integers(-3, 3)

Step: TypeAlias = tuple[object, ...]
REGISTER: st.SearchStrategy[Step] = st.tuples(st.just("register"), IDENTITIES, VERSIONS, TOPICS)
STEPS: st.SearchStrategy[Step] = st.one_of(
    REGISTER,
    REGISTER,  # twice, and whole: single messages alone would seldom add up to a registration
    st.tuples(st.just("open")),
    st.tuples(st.just("hello"), SESSIONS, IDENTITIES, VERSIONS),
    st.tuples(st.just("full_state"), SESSIONS, VERSIONS, TOPICS, st.booleans(), st.booleans()),
    st.tuples(st.just("delta"), SESSIONS, VERSIONS, VERSIONS, TOPICS, TOPICS),
    st.tuples(st.just("beat"), SESSIONS, VERSIONS),
    st.tuples(st.just("unregister"), SESSIONS),
    st.tuples(st.just("lost"), SESSIONS),
    st.tuples(st.just("pass"), st.sampled_from([1, 1_500, 3_000, 3_000, 10_000])),
)


class World:
    """Runs steps and keeps account of who joined and left, as the effects tell."""

    def __init__(self) -> None:
        self.table = RouteTable()
        self.registrar = Registrar(self.table, LIMITS)
        self.now_ms = 0
        self.sessions: list[int] = []
        self.members: set[MemberKey] = set()

    def run(self, step: Step) -> None:
        match step:
            case ("open",):
                opened = self.registrar.open(self.now_ms)
                if not isinstance(opened, Refused):
                    self.sessions.append(opened)
            case ("register", identity, version, topics):
                self.run(("open",))
                self.run(("hello", -1, identity, version))
                self.run(("full_state", -1, version, topics, True, True))
            case ("pass", int(milliseconds)):
                self.now_ms += milliseconds
                while (effects := self.registrar.expire_next(self.now_ms)) is not None:
                    self.account(effects)
            case (str(message), int(index), *arguments) if self.sessions:
                self.send(message, self.sessions[index % len(self.sessions)], arguments)

    def send(self, message: str, session: int, arguments: Sequence[object]) -> None:
        registrar = self.registrar
        match message, arguments:
            case "hello", [BrokerIdentity() as identity, DataVersion() as version]:
                self.account(registrar.hello(session, identity, version, self.now_ms))
            case "full_state", [DataVersion() as version, list(topics), bool(first), bool(last)]:
                announced = [(topic, QUEUES) for topic in topics]
                self.account(registrar.full_state(session, version, announced, self.now_ms, first=first, last=last))
            case "delta", [DataVersion() as base, DataVersion() as version, list(changed), list(removed)]:
                announced = [(topic, QUEUES) for topic in changed]
                self.account(registrar.delta(session, base, version, announced, removed, self.now_ms))
            case "beat", [DataVersion() as version]:
                self.account(registrar.beat(session, version, self.now_ms))
            case "unregister", []:
                self.account(registrar.unregister(session))
            case "lost", []:
                registrar.lost(session, self.now_ms)

    def account(self, effects: Sequence[object]) -> None:
        for effect in effects:
            if isinstance(effect, Joined):
                self.members.add(effect.identity.key)
            elif isinstance(effect, Left):
                self.members.remove(effect.identity.key)


@given(st.lists(STEPS, min_size=20, max_size=60))
def test_any_steps_keep_the_bounds_and_the_account(steps: list[Step]) -> None:
    """Never more brokers, topics or streams than allowed; who is in the tables is who joined and did not leave."""
    world = World()
    for step in steps:
        world.run(step)
        assert world.table.member_count == len(world.members) <= LIMITS.brokers_max
        assert world.registrar.session_count <= LIMITS.sessions_max
        assert "no topic" not in world.table.topic_names()
        for key in world.members:
            member = world.table.member(key)
            assert member is not None
            assert len(member.topics) <= LIMITS.topics_per_broker_max


@given(st.lists(STEPS, min_size=20, max_size=60))
def test_nothing_stays_behind_when_everybody_falls_silent(steps: list[Step]) -> None:
    """Whatever happened before: without a word from anyone for 13 s, no stream, broker or topic is left."""
    world = World()
    for step in steps:
        world.run(step)
    world.run(("pass", 10_000))
    world.run(("pass", 3_000))
    assert world.registrar.session_count == 0
    assert world.table.member_count == 0
    assert world.table.topic_names() == []
