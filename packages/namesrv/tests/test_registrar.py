"""The registrar: what registration streams do to the route table."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from apogeemq.namesrv.core.effects import Accepted, Effect, Ended, Left, NeedFull, Refused, Send, TopicsLeftOut
from apogeemq.namesrv.core.registrar import Registrar, RegistrarLimits
from apogeemq.namesrv.core.route_table import RouteTable
from apogeemq.namesrv.core.values import BrokerIdentity, DataVersion, RefusalCode, TopicQueues

MASTER = BrokerIdentity("DefaultCluster", "broker-a", 0, 100, "10.0.0.1:10911", "10.0.0.1:10921")
SLAVE = replace(MASTER, broker_id=1, remoting_address="10.0.0.2:10911", mesh_address="10.0.0.2:10921")
QUEUES = TopicQueues(4, 4, 6, 0)
V1, V2, V3 = (DataVersion(0, 1_700_000_000_000, counter) for counter in (1, 2, 3))


class World:
    """A registrar with its table, and the broker's side of the conversation."""

    def __init__(self, limits: RegistrarLimits | None = None) -> None:
        self.table = RouteTable()
        self.registrar = Registrar(self.table, limits or RegistrarLimits())
        self.now_ms = 1_000_000

    def open(self) -> int:
        opened = self.registrar.open(self.now_ms)
        assert isinstance(opened, int)
        return opened

    def hello(self, session: int, identity: BrokerIdentity, version: DataVersion = V1) -> list[Effect]:
        return self.registrar.hello(session, identity, version, self.now_ms)

    def full(
        self,
        session: int,
        topics: Sequence[str | tuple[str, TopicQueues]],
        version: DataVersion = V1,
        *,
        first: bool = True,
        last: bool = True,
    ) -> list[Effect]:
        announced = [topic if isinstance(topic, tuple) else (topic, QUEUES) for topic in topics]
        return self.registrar.full_state(session, version, announced, self.now_ms, first=first, last=last)

    def delta(
        self,
        session: int,
        changed: Sequence[str],
        removed: Sequence[str] = (),
        *,
        base: DataVersion = V1,
        version: DataVersion = V2,
    ) -> list[Effect]:
        return self.registrar.delta(session, base, version, [(t, QUEUES) for t in changed], removed, self.now_ms)

    def beat(self, session: int, version: DataVersion = V1) -> list[Effect]:
        return self.registrar.beat(session, version, self.now_ms)

    def register(self, identity: BrokerIdentity, *topics: str, version: DataVersion = V1) -> int:
        """Open a stream and go through the whole registration."""
        session = self.open()
        self.hello(session, identity, version)
        assert replies(self.full(session, topics, version), session) == [Accepted(version)]
        return session

    def pass_ms(self, milliseconds: int) -> list[Effect]:
        """Let time pass, with every deadline acted on at its end."""
        self.now_ms += milliseconds
        effects: list[Effect] = []
        while (more := self.registrar.expire_next(self.now_ms)) is not None:
            effects += more
        return effects

    def addresses(self, topic: str) -> dict[int, str]:
        """The addresses that a client would find for a topic that one broker name serves; empty without a route."""
        route = self.table.route(topic)
        return {} if route is None else dict(route.broker_datas[0].broker_addrs)


def replies(effects: Sequence[Effect], session: int) -> list[object]:
    return [effect.reply for effect in effects if isinstance(effect, Send) and effect.session_id == session]


def refusal(effects: Sequence[Effect], session: int) -> RefusalCode | None:
    refused = [reply for reply in replies(effects, session) if isinstance(reply, Refused)]
    return refused[0].code if refused else None


# Registering


def test_an_unknown_broker_is_asked_for_its_topics() -> None:
    """Hello brings NeedFull; nothing is in the routes until the full state is complete."""
    world = World()
    session = world.open()
    assert replies(world.hello(session, MASTER), session) == [NeedFull()]
    assert world.table.member_count == 0


def test_a_complete_full_state_is_accepted() -> None:
    """The broker is in the routes of its topics, and Accepted carries the version."""
    world = World()
    world.register(MASTER, "TopicA")
    assert world.addresses("TopicA") == {0: "10.0.0.1:10911"}


def test_a_full_state_in_chunks_counts_when_its_last_chunk_is_there() -> None:
    """No route shows half a broker."""
    world = World()
    session = world.open()
    world.hello(session, MASTER)
    assert world.full(session, ["TopicA"], last=False) == []
    assert world.addresses("TopicA") == {}
    assert replies(world.full(session, ["TopicB"], first=False), session) == [Accepted(V1)]
    assert world.addresses("TopicA") == world.addresses("TopicB") == {0: "10.0.0.1:10911"}


def test_a_broker_without_topics_registers() -> None:
    """An empty table is one chunk that is first and last."""
    world = World()
    world.register(MASTER)
    assert world.table.member_count == 1


def test_a_full_state_may_begin_again() -> None:
    """A chunk marked first drops what came before it."""
    world = World()
    session = world.open()
    world.hello(session, MASTER)
    world.full(session, ["TopicA"], V1, last=False)
    assert replies(world.full(session, ["TopicB"], V2), session) == [Accepted(V2)]
    assert world.addresses("TopicA") == {}
    assert world.addresses("TopicB") == {0: "10.0.0.1:10911"}


def test_a_delta_changes_topics_without_an_answer() -> None:
    """Changed topics appear, removed ones go, the rest stays."""
    world = World()
    session = world.register(MASTER, "TopicA", "TopicB")
    assert world.delta(session, ["TopicC"], ["TopicA"]) == []
    assert sorted(world.table.topic_names()) == ["TopicB", "TopicC"]
    assert world.beat(session, V2) == []


def test_a_row_of_deltas_moves_the_version_with_its_last() -> None:
    """Those before keep the base version, so that each of them applies."""
    world = World()
    session = world.register(MASTER, "TopicA")
    assert world.delta(session, ["TopicB"], base=V1, version=V1) == []
    assert world.delta(session, ["TopicC"], base=V1, version=V2) == []
    assert sorted(world.table.topic_names()) == ["TopicA", "TopicB", "TopicC"]


def test_a_delta_on_another_version_is_not_applied() -> None:
    """NeedFull is the answer, and the routes stay as they were until the full state."""
    world = World()
    session = world.register(MASTER, "TopicA")
    assert replies(world.delta(session, ["TopicC"], base=V2, version=V3), session) == [NeedFull()]
    assert world.table.topic_names() == ["TopicA"]
    assert replies(world.full(session, ["TopicC"], V3), session) == [Accepted(V3)]
    assert world.table.topic_names() == ["TopicC"]


@pytest.mark.parametrize("version", [V1._replace(state_version=1), V1._replace(timestamp_ms=5), V2])
def test_a_beat_with_another_version_asks_for_the_full_state_once(version: DataVersion) -> None:
    """Each of the three numbers counts; beats and deltas under way meanwhile are not looked at."""
    world = World()
    session = world.register(MASTER, "TopicA")
    assert replies(world.beat(session, version), session) == [NeedFull()]
    assert world.beat(session, version) == []
    assert world.delta(session, ["TopicB"]) == []
    assert world.addresses("TopicA") == {0: "10.0.0.1:10911"}


# Leaving


def test_unregister_takes_effect_at_once() -> None:
    """The broker is gone from the routes, and its stream is ended without a refusal."""
    world = World()
    session = world.register(MASTER, "TopicA")
    effects = world.registrar.unregister(session)
    assert replies(effects, session) == [Ended()]
    assert [effect.identity for effect in effects if isinstance(effect, Left)] == [MASTER]
    assert world.table.member_count == 0
    assert world.table.topic_names() == []


def test_unregister_before_hello_just_ends_the_stream() -> None:
    """There is nothing to take out."""
    world = World()
    session = world.open()
    assert replies(world.registrar.unregister(session), session) == [Ended()]


def test_a_lost_stream_has_a_grace_of_3_s() -> None:
    """The broker stays in the routes for 3 s and leaves then."""
    world = World()
    session = world.register(MASTER, "TopicA")
    world.registrar.lost(session, world.now_ms)
    world.pass_ms(2_999)
    assert world.addresses("TopicA") == {0: "10.0.0.1:10911"}
    assert [type(effect) for effect in world.pass_ms(1)] == [Left]
    assert world.addresses("TopicA") == {}


def test_returning_within_the_grace_needs_no_full_state() -> None:
    """The same process with the same version is accepted at hello, and the old grace no longer counts."""
    world = World()
    world.registrar.lost(world.register(MASTER, "TopicA"), world.now_ms)
    world.pass_ms(1_000)
    session = world.open()
    assert replies(world.hello(session, MASTER), session) == [Accepted(V1)]
    world.pass_ms(9_000)
    assert world.addresses("TopicA") == {0: "10.0.0.1:10911"}


@pytest.mark.parametrize(
    ("identity", "version"), [(MASTER, V2), (replace(MASTER, incarnation=101), V1), (replace(MASTER, zone="z"), V1)]
)
def test_returning_with_another_state_needs_the_full_state(identity: BrokerIdentity, version: DataVersion) -> None:
    """Another version, process or identity: what is known serves until the full state is there."""
    world = World()
    world.registrar.lost(world.register(MASTER, "TopicA"), world.now_ms)
    session = world.open()
    assert replies(world.hello(session, identity, version), session) == [NeedFull()]
    assert world.addresses("TopicA") == {0: "10.0.0.1:10911"}
    world.full(session, ["TopicB"], version)
    assert world.table.topic_names() == ["TopicB"]


def test_a_broker_that_returns_but_never_completes_keeps_its_first_grace() -> None:
    """A hello alone does not prolong the grace of what the last stream left behind."""
    world = World()
    world.registrar.lost(world.register(MASTER, "TopicA"), world.now_ms)
    world.pass_ms(2_000)
    session = world.open()
    world.hello(session, MASTER, V2)
    world.registrar.lost(session, world.now_ms)
    world.pass_ms(1_000)
    assert world.table.member_count == 0


def test_silence_of_10_s_on_an_open_stream_expires_a_broker() -> None:
    """It leaves at once, without a further grace, and its stream is refused."""
    world = World()
    session = world.register(MASTER, "TopicA")
    assert world.pass_ms(9_999) == []
    assert refusal(world.pass_ms(1), session) is RefusalCode.EXPIRED
    assert world.table.member_count == 0


def test_beats_and_deltas_keep_a_broker_alive() -> None:
    """Each gives another 10 s."""
    world = World()
    session = world.register(MASTER, "TopicA")
    world.pass_ms(9_000)
    world.beat(session)
    world.pass_ms(9_000)
    world.delta(session, ["TopicB"])
    world.pass_ms(9_000)
    assert world.addresses("TopicA") == {0: "10.0.0.1:10911"}


def test_a_stream_that_never_says_hello_expires() -> None:
    """An idle connection is not kept open."""
    world = World()
    session = world.open()
    assert refusal(world.pass_ms(10_000), session) is RefusalCode.EXPIRED
    assert world.registrar.session_count == 0


def test_a_full_state_that_stops_halfway_expires() -> None:
    """Each chunk has 10 s; the member that was known before has its grace then."""
    world = World()
    session = world.register(MASTER, "TopicA")
    world.beat(session, V2)
    world.pass_ms(9_000)
    world.full(session, ["TopicB"], V2, last=False)
    assert world.pass_ms(9_999) == []
    assert refusal(world.pass_ms(1), session) is RefusalCode.EXPIRED
    assert world.addresses("TopicA") == {0: "10.0.0.1:10911"}
    world.pass_ms(3_000)
    assert world.addresses("TopicA") == {}


# Order of messages


@pytest.mark.parametrize("message", ["full_state", "delta", "beat"])
def test_a_stream_begins_with_hello(message: str) -> None:
    """Anything else is refused and changes nothing."""
    world = World()
    session = world.open()
    step = {"full_state": lambda: world.full(session, ["T"]), "delta": lambda: world.delta(session, ["T"])}
    effects = step.get(message, lambda: world.beat(session))()
    assert refusal(effects, session) is RefusalCode.OUT_OF_ORDER
    assert world.table.topic_names() == []


def test_a_second_hello_is_refused() -> None:
    """An identity is for the life of a stream; the broker has its grace to come back with another stream."""
    world = World()
    session = world.register(MASTER, "TopicA")
    assert refusal(world.hello(session, MASTER), session) is RefusalCode.OUT_OF_ORDER
    assert world.addresses("TopicA") == {0: "10.0.0.1:10911"}


def test_a_full_state_that_nobody_asked_for_is_refused() -> None:
    """The tables stay as they were."""
    world = World()
    session = world.register(MASTER, "TopicA")
    assert refusal(world.full(session, ["TopicB"], V2), session) is RefusalCode.OUT_OF_ORDER
    assert world.table.topic_names() == ["TopicA"]


def test_a_full_state_begins_with_its_first_chunk() -> None:
    """A chunk from the middle is refused."""
    world = World()
    session = world.open()
    world.hello(session, MASTER)
    assert refusal(world.full(session, ["TopicA"], first=False), session) is RefusalCode.OUT_OF_ORDER


def test_chunks_of_different_versions_are_refused() -> None:
    """They would not be one table."""
    world = World()
    session = world.open()
    world.hello(session, MASTER)
    world.full(session, ["TopicA"], V1, last=False)
    assert refusal(world.full(session, ["TopicB"], V2, first=False), session) is RefusalCode.INVALID_ARGUMENT
    assert world.table.member_count == 0


def test_messages_after_the_end_of_a_session_are_not_looked_at() -> None:
    """They may still be under way when the refusal leaves."""
    world = World()
    session = world.register(MASTER, "TopicA")
    world.registrar.unregister(session)
    assert world.hello(session, MASTER) == world.full(session, ["T"]) == world.delta(session, ["T"]) == []
    assert world.beat(session) == world.registrar.unregister(session) == world.registrar.violated(session, "", 0) == []
    world.registrar.lost(session, world.now_ms)
    assert world.table.member_count == 0


def test_what_is_no_message_is_refused() -> None:
    """The text is the face's."""
    world = World()
    session = world.open()
    effects = world.registrar.violated(session, "kind is not set", world.now_ms)
    assert replies(effects, session) == [Refused(RefusalCode.INVALID_ARGUMENT, "kind is not set")]


# Bounds


def test_an_invalid_identity_is_refused_by_field() -> None:
    """The text names the field."""
    world = World()
    session = world.open()
    (reply,) = replies(world.hello(session, replace(MASTER, broker_name="")), session)
    assert reply == Refused(RefusalCode.INVALID_ARGUMENT, "identity.broker_name is empty")


@pytest.mark.parametrize("count", [500, 501])
def test_a_full_state_chunk_has_at_most_500_topics(count: int) -> None:
    """The 501st breaks the protocol."""
    world = World()
    session = world.open()
    world.hello(session, MASTER)
    effects = world.full(session, [f"T{number}" for number in range(count)])
    assert refusal(effects, session) is (None if count == 500 else RefusalCode.INVALID_ARGUMENT)
    assert world.table.topic_count == (500 if count == 500 else 0)


@pytest.mark.parametrize("removed", [250, 251])
def test_a_delta_has_at_most_500_topics(removed: int) -> None:
    """Changed and removed ones together."""
    world = World()
    session = world.register(MASTER, "TopicA")
    effects = world.delta(session, [f"T{n}" for n in range(250)], [f"gone{n}" for n in range(removed)])
    assert refusal(effects, session) is (None if removed == 250 else RefusalCode.INVALID_ARGUMENT)
    assert world.table.topic_count == (251 if removed == 250 else 1)


def test_topics_beyond_the_bound_are_left_out_and_the_broker_serves_the_rest() -> None:
    """TopicsLeftOut counts them and names ten."""
    world = World(RegistrarLimits(topics_per_broker_max=20))
    session = world.open()
    world.hello(session, MASTER)
    left_out, accepted = replies(world.full(session, [f"T{number}" for number in range(50)]), session)
    assert isinstance(left_out, TopicsLeftOut)
    assert (left_out.count, len(left_out.examples)) == (30, 10)
    assert left_out.examples[0] == ("T20", "more than 20 topics of one broker")
    assert accepted == Accepted(V1)
    assert world.table.topic_count == 20


def test_a_delta_beyond_the_bound_still_changes_known_topics() -> None:
    """Only new topics need room."""
    world = World(RegistrarLimits(topics_per_broker_max=1))
    session = world.register(MASTER, "TopicA")
    wider = TopicQueues(8, 8, 6, 0)
    effects = world.registrar.delta(session, V1, V2, [("TopicA", wider), ("TopicB", wider)], [], world.now_ms)
    assert replies(effects, session) == [TopicsLeftOut(1, (("TopicB", "more than 1 topics of one broker"),))]
    route = world.table.route("TopicA")
    assert route is not None
    assert route.queue_datas[0].write_queue_nums == 8
    assert world.beat(session, V2) == []


def test_an_invalid_topic_is_left_out_by_field() -> None:
    """One bad topic does not cost the broker its others; a name that is too long is not sent back whole."""
    world = World()
    session = world.open()
    world.hello(session, MASTER)
    topics = [("TopicA", QUEUES), ("TopicB", QUEUES._replace(perm=99)), ("x" * 9_999, QUEUES)]
    left_out, _ = replies(world.full(session, topics), session)
    assert isinstance(left_out, TopicsLeftOut)
    assert left_out.examples[0] == ("TopicB", "perm is 99; it must be within 0..7")
    assert left_out.examples[1] == ("x" * 300, "topic_name has 9999 characters; at most 255 are allowed")
    assert world.table.topic_names() == ["TopicA"]


def test_one_more_broker_than_the_bound_is_refused() -> None:
    """Those that are registered, or in their grace, may come again."""
    world = World(RegistrarLimits(brokers_max=2))
    world.register(MASTER, "TopicA")
    slave = world.register(SLAVE, "TopicA")
    session = world.open()
    third = replace(MASTER, broker_name="broker-b", remoting_address="10.0.0.3:10911")
    assert refusal(world.hello(session, third), session) is RefusalCode.LIMIT_EXCEEDED
    world.registrar.lost(slave, world.now_ms)
    session = world.open()
    assert replies(world.hello(session, SLAVE), session) == [Accepted(V1)]


def test_open_streams_are_bounded() -> None:
    """Twice the brokers, so that each may reconnect before its last stream is known to be lost."""
    world = World(RegistrarLimits(brokers_max=2))
    for _ in range(4):
        world.open()
    opened = world.registrar.open(world.now_ms)
    assert isinstance(opened, Refused)
    assert opened.code is RefusalCode.LIMIT_EXCEEDED


# Who may hold a name


def test_a_newer_stream_of_the_same_process_takes_over() -> None:
    """The older stream is told and ended; the routes do not change."""
    world = World()
    older = world.register(MASTER, "TopicA")
    newer = world.open()
    effects = world.hello(newer, MASTER)
    assert refusal(effects, older) is RefusalCode.SUPERSEDED
    assert replies(effects, newer) == [Accepted(V1)]
    world.pass_ms(5_000)
    assert world.addresses("TopicA") == {0: "10.0.0.1:10911"}


def test_a_restarted_process_takes_over_its_address() -> None:
    """Its incarnation is higher; the old process's stream may not be known to be lost yet."""
    world = World()
    older = world.register(MASTER, "TopicA")
    newer = world.open()
    effects = world.hello(newer, replace(MASTER, incarnation=101))
    assert refusal(effects, older) is RefusalCode.SUPERSEDED
    assert replies(effects, newer) == [NeedFull()]


def test_a_process_that_was_restarted_cannot_come_back() -> None:
    """A lower incarnation at the same address is a straggler."""
    world = World()
    world.register(replace(MASTER, incarnation=101), "TopicA")
    session = world.open()
    assert refusal(world.hello(session, MASTER), session) is RefusalCode.STALE_INCARNATION
    assert world.addresses("TopicA") == {0: "10.0.0.1:10911"}


def test_a_second_live_broker_of_the_same_name_and_id_is_refused() -> None:
    """Two masters would flap; the one that is there stays."""
    world = World()
    world.register(MASTER, "TopicA")
    session = world.open()
    other = replace(MASTER, remoting_address="10.0.0.9:10911")
    assert refusal(world.hello(session, other), session) is RefusalCode.NAME_CONFLICT
    assert world.addresses("TopicA") == {0: "10.0.0.1:10911"}


def test_a_broker_may_move_to_another_address_once_its_stream_is_lost() -> None:
    """The grace keeps routes, not rights."""
    world = World()
    world.registrar.lost(world.register(MASTER, "TopicA"), world.now_ms)
    world.register(replace(MASTER, remoting_address="10.0.0.9:10911"), "TopicA")
    assert world.addresses("TopicA") == {0: "10.0.0.9:10911"}


def test_a_broker_name_belongs_to_one_cluster() -> None:
    """A member of another cluster under the same name is refused."""
    world = World()
    world.register(MASTER, "TopicA")
    session = world.open()
    effects = world.hello(session, replace(SLAVE, cluster="Other"))
    assert refusal(effects, session) is RefusalCode.NAME_CONFLICT


def test_a_single_broker_may_change_its_cluster() -> None:
    """Nobody else is there whom it would contradict."""
    world = World()
    world.register(MASTER, "TopicA")
    world.register(replace(MASTER, cluster="Other", incarnation=101), "TopicA")
    assert world.table.cluster_info().cluster_addr_table == {"Other": ["broker-a"]}


def test_a_later_master_takes_over_from_a_live_one() -> None:
    """A higher master epoch wins at once; the old master's stream is ended and cannot come back."""
    world = World()
    old = world.register(replace(MASTER, master_epoch=1), "TopicA")
    new_master = replace(MASTER, remoting_address="10.0.0.2:10911", mesh_address="", master_epoch=2)
    new = world.open()
    effects = world.hello(new, new_master)
    assert refusal(effects, old) is RefusalCode.SUPERSEDED
    world.full(new, ["TopicA"])
    assert world.addresses("TopicA") == {0: "10.0.0.2:10911"}
    again = world.open()
    assert refusal(world.hello(again, replace(MASTER, master_epoch=1)), again) is RefusalCode.FENCED_MASTER_EPOCH


def test_the_highest_master_epoch_outlives_its_master() -> None:
    """An old master that wakes up after the new one has left is still refused as id 0, and welcome as a slave."""
    world = World()
    session = world.register(replace(MASTER, master_epoch=5), "TopicA")
    world.registrar.unregister(session)
    session = world.open()
    old = replace(MASTER, remoting_address="10.0.0.9:10911", master_epoch=4)
    assert refusal(world.hello(session, old), session) is RefusalCode.FENCED_MASTER_EPOCH
    world.register(replace(old, broker_id=2), "TopicA")
    assert world.addresses("TopicA") == {2: "10.0.0.9:10911"}


def test_a_slave_that_becomes_master_leaves_its_old_id() -> None:
    """The same address is in the routes once."""
    world = World()
    world.register(SLAVE, "TopicA")
    world.register(replace(SLAVE, broker_id=0, master_epoch=3), "TopicA")
    assert world.addresses("TopicA") == {0: "10.0.0.2:10911"}


def test_master_and_slave_of_one_name_stand_side_by_side() -> None:
    """Both addresses are in the route; the topics are the master's, and the slave's when it is alone."""
    world = World()
    master = world.register(MASTER, "TopicA", "TopicB")
    world.register(SLAVE, "TopicA")
    assert world.addresses("TopicB") == {0: "10.0.0.1:10911", 1: "10.0.0.2:10911"}
    world.registrar.unregister(master)
    assert world.addresses("TopicA") == {1: "10.0.0.2:10911"}
    assert world.addresses("TopicB") == {}
