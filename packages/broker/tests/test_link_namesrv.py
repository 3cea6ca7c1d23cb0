"""The link to the name servers: scripted name servers, a network in memory, a clock that is moved by hand."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator

import pytest
from apogeemq.broker.links.namesrv import BrokerIdentity, NamesrvLink
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.network import Listening, MeshStream, StreamHandler
from apogeemq.mesh.v1 import namesrv_pb2 as pb
from apogeemq.mesh.v1.methods import NAMESRV_REGISTER
from apogeemq.remoting_codec.bodies import DataVersion, TopicConfig

FIRST = "namesrv-1:9877"
SECOND = "namesrv-2:9877"
Reply = pb.RegistrationReply


class Topics:
    """A topic table as the broker has it."""

    def __init__(self) -> None:
        self.configs: dict[str, TopicConfig] = {}
        self.data_version = DataVersion(counter=0, state_version=0, timestamp=0)

    def put(self, *names: str, queues: int = 4) -> None:
        for name in names:
            self.configs[name] = TopicConfig(topic_name=name, read_queue_nums=queues, write_queue_nums=queues, perm=6)
        self._bump()

    def remove(self, name: str) -> None:
        del self.configs[name]
        self._bump()

    def full_state(self) -> tuple[DataVersion, list[TopicConfig]]:
        return self.data_version, list(self.configs.values())

    def find(self, topic: str) -> TopicConfig | None:
        return self.configs.get(topic)

    def _bump(self) -> None:
        counter = self.data_version.counter + 1
        self.data_version = DataVersion(counter=counter, state_version=0, timestamp=1_000 * counter)


class Namesrv:
    """A name server that keeps the rules of the protocol and nothing else: its twin in the broker's tests.

    `chunk_sizes` has the number of topics of every full state chunk and delta; `streams` counts what was opened.
    """

    def __init__(self, network: MemoryNetwork, target: str) -> None:
        self.host, port = target.split(":")
        self.port = int(port)
        self.network = network
        self.topics: dict[str, int] = {}
        self.version: tuple[int, int, int] | None = None
        self.hellos: list[pb.BrokerIdentity] = []
        self.beats = 0
        self.unregistered = 0
        self.full_states = 0
        self.chunk_sizes: list[int] = []
        self.refuse_with: str | None = None
        self.is_mute = False
        self.stream: MeshStream[pb.RegistrationReply, pb.RegistrationRequest] | None = None
        self._listening: Listening | None = None

    async def start(self) -> None:
        handler = StreamHandler(NAMESRV_REGISTER, self.serve)
        self._listening = await self.network.serve(self.host, self.port, [handler])

    async def stop(self) -> None:
        """Go away and forget everything, as a process does."""
        if self._listening is not None:
            await self._listening.stop(0)
        self._listening = None
        self.topics, self.version = {}, None

    async def serve(self, stream: MeshStream[pb.RegistrationReply, pb.RegistrationRequest]) -> None:
        self.stream = stream
        while (request := await stream.receive()) is not None:
            match request.WhichOneof("kind"):
                case "hello":
                    self.hellos.append(request.hello.identity)
                    if self.refuse_with is not None:
                        refused = Reply.Refused(code=pb.REFUSAL_CODE_NAME_CONFLICT, text=self.refuse_with)
                        await stream.send(Reply(refused=refused))
                        return
                    await self.compare(request.hello.data_version)
                case "full_state":
                    await self.take_full_state(request.full_state)
                case "delta":
                    await self.take_delta(request.delta)
                case "beat":
                    self.beats += 1
                    if numbers(request.beat.data_version) != self.version:
                        await stream.send(Reply(need_full=Reply.NeedFull()))
                case "unregister":
                    self.unregistered += 1
                    self.topics, self.version = {}, None
                    return

    async def compare(self, version: pb.DataVersion) -> None:
        if self.is_mute:
            return
        assert self.stream is not None
        if numbers(version) == self.version:
            await self.stream.send(Reply(accepted=Reply.Accepted(data_version=version)))
        else:
            await self.stream.send(Reply(need_full=Reply.NeedFull()))

    async def take_full_state(self, full: pb.RegistrationRequest.FullState) -> None:
        self.chunk_sizes.append(len(full.topics))
        if full.first:
            self.full_states += 1
            self.topics = {}
        self.topics.update({topic.topic_name: topic.read_queue_nums for topic in full.topics})
        if full.last:
            self.version = numbers(full.data_version)
            await self.compare(full.data_version)

    async def take_delta(self, delta: pb.RegistrationRequest.Delta) -> None:
        self.chunk_sizes.append(len(delta.changed) + len(delta.removed))
        assert numbers(delta.base) == self.version, "a delta must apply to what the name server has"
        self.topics.update({topic.topic_name: topic.read_queue_nums for topic in delta.changed})
        for topic in delta.removed:
            del self.topics[topic]
        self.version = numbers(delta.data_version)


def numbers(version: pb.DataVersion) -> tuple[int, int, int]:
    return version.state_version, version.timestamp_ms, version.counter


class World:
    """A broker's link and two name servers, of which the first is started."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.network = MemoryNetwork(self.clock, SeededChance(1))
        self.topics = Topics()
        self.topics.put("TopicA")
        self.first = Namesrv(self.network, FIRST)
        self.second = Namesrv(self.network, SECOND)
        self.identity = BrokerIdentity("DefaultCluster", "broker-a", 0, 7, "10.0.0.1:10911", "10.0.0.1:10921", "z", 3)
        self.link = self.make_link(FIRST)

    def make_link(self, *targets: str) -> NamesrvLink:
        return NamesrvLink(
            targets,
            network=self.network,
            clock=self.clock,
            chance=SeededChance(2),
            identity=lambda: self.identity,
            topics=self.topics,
        )

    async def settle(self) -> None:
        """Let everything that needs no time happen."""
        await self.clock.run_for(0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.first.start()
    yield world
    stopping = asyncio.create_task(world.link.stop())
    await world.clock.run_for(2)
    await stopping
    await world.first.stop()
    await world.second.stop()


async def test_it_registers_with_identity_and_topics(world: World) -> None:
    """The name server learns who the broker is and what it serves."""
    await world.link.start()
    await world.settle()
    (identity,) = world.first.hellos
    assert identity == pb.BrokerIdentity(
        cluster="DefaultCluster",
        broker_name="broker-a",
        broker_id=0,
        incarnation=7,
        remoting_address="10.0.0.1:10911",
        mesh_address="10.0.0.1:10921",
        zone="z",
        master_epoch=3,
    )
    assert world.first.topics == {"TopicA": 4}
    assert world.link.registered == {FIRST: True}


async def test_a_beat_each_second_carries_the_version(world: World) -> None:
    """Ten seconds, ten beats, and no full state but the first."""
    await world.link.start()
    await world.clock.run_for(10)
    assert world.first.beats == 10
    assert world.first.full_states == 1


async def test_a_change_of_topics_leaves_at_once(world: World) -> None:
    """No time passes between the change and the delta; the next beat agrees with it."""
    await world.link.start()
    await world.settle()
    world.topics.put("TopicB", queues=8)
    world.link.topics_changed(["TopicB"])
    await world.settle()
    assert world.first.topics == {"TopicA": 4, "TopicB": 8}
    await world.clock.run_for(1)
    assert world.first.full_states == 1


async def test_a_removed_topic_is_told_as_removed(world: World) -> None:
    """The table no longer has it, so it goes."""
    await world.link.start()
    await world.settle()
    world.topics.remove("TopicA")
    world.link.topics_changed(["TopicA"])
    await world.settle()
    assert world.first.topics == {}


async def test_a_delta_of_1200_topics_goes_in_chunks(world: World) -> None:
    """500, 500 and 200, each of which applies to what the name server has by then."""
    await world.link.start()
    await world.settle()
    names = [f"T{number}" for number in range(1_200)]
    world.topics.put(*names)
    world.link.topics_changed(names)
    await world.settle()
    assert world.first.chunk_sizes == [1, 500, 500, 200]
    assert len(world.first.topics) == 1_201
    await world.clock.run_for(1)
    assert world.first.full_states == 1


async def test_a_full_state_of_1200_topics_goes_in_chunks(world: World) -> None:
    """At most 500 topics a message."""
    world.topics.put(*[f"T{number}" for number in range(1_199)])
    await world.link.start()
    await world.settle()
    assert world.first.chunk_sizes == [500, 500, 200]
    assert len(world.first.topics) == 1_200


async def test_a_broker_without_topics_registers(world: World) -> None:
    """An empty table is sent as one empty chunk."""
    world.topics.remove("TopicA")
    await world.link.start()
    await world.settle()
    assert world.first.chunk_sizes == [0]
    assert world.link.registered == {FIRST: True}


async def test_changes_during_a_full_state_follow_it(world: World) -> None:
    """What changes while the table is on its way leaves as a delta once the table is accepted."""
    world.network.delay(FIRST, 0.2, 0.3)
    await world.link.start()
    await world.clock.run_for(0.65)
    world.topics.put("TopicB")
    world.link.topics_changed(["TopicB"])
    await world.clock.run_for(3)
    assert world.first.topics == {"TopicA": 4, "TopicB": 4}
    assert world.first.full_states == 1


async def test_need_full_brings_the_whole_table(world: World) -> None:
    """A name server that asks at any time gets everything, and the broker is registered again."""
    await world.link.start()
    await world.settle()
    world.first.topics, world.first.version = {}, None
    await world.clock.run_for(1)
    assert world.first.full_states == 2
    assert world.first.topics == {"TopicA": 4}
    assert world.link.registered == {FIRST: True}


async def test_a_change_that_nobody_announced_is_healed_by_the_beat(world: World) -> None:
    """The version differs, so the name server asks."""
    await world.link.start()
    await world.settle()
    world.topics.put("TopicB")
    await world.clock.run_for(1)
    assert world.first.topics == {"TopicA": 4, "TopicB": 4}


async def test_a_lost_stream_is_opened_again_without_a_full_state(world: World) -> None:
    """The name server still has the table at this version."""
    await world.link.start()
    await world.settle()
    world.network.cut(FIRST)
    await world.settle()
    assert world.link.registered == {FIRST: False}
    world.network.heal(FIRST)
    await world.clock.run_for(0.1)
    assert world.link.registered == {FIRST: True}
    assert (len(world.first.hellos), world.first.full_states) == (2, 1)


async def test_changes_while_there_is_no_stream_are_covered_by_the_next_hello(world: World) -> None:
    """Nothing is remembered for later: the version tells the name server to ask."""
    await world.link.start()
    await world.settle()
    world.network.cut(FIRST)
    await world.settle()
    world.topics.put("TopicB")
    world.link.topics_changed(["TopicB"])
    world.network.heal(FIRST)
    await world.clock.run_for(0.1)
    assert world.first.topics == {"TopicA": 4, "TopicB": 4}
    assert world.first.full_states == 2


async def test_a_restarted_namesrv_gets_everything_anew(world: World) -> None:
    """It has forgotten all; within 3 s of its return the broker is in its routes."""
    await world.link.start()
    await world.settle()
    await world.first.stop()
    await world.clock.run_for(60)
    await world.first.start()
    await world.clock.run_for(3)
    assert world.first.topics == {"TopicA": 4}


async def test_the_back_off_doubles_with_jitter_and_is_bounded(world: World) -> None:
    """Waits lie within half and the whole of 0.1, 0.2, 0.4, 0.8, 1.6, then 3 s for ever."""
    world.first.refuse_with = "no"
    await world.link.start()
    hello_times: list[float] = []
    for _ in range(2_000):
        await world.clock.run_for(0.01)
        while len(hello_times) < len(world.first.hellos):
            hello_times.append(world.clock.monotonic())
    waits = [later - earlier for earlier, later in itertools.pairwise(hello_times)]
    assert len(waits) > 6
    for wait_s, bound_s in zip(waits, [0.1, 0.2, 0.4, 0.8, 1.6, *[3.0] * len(waits)], strict=False):
        assert bound_s / 2 - 0.011 <= wait_s <= bound_s + 0.011


async def test_acceptance_resets_the_back_off(world: World) -> None:
    """After a long outage, the next short one is healed fast again."""
    world.first.refuse_with = "no"
    await world.link.start()
    await world.clock.run_for(30)
    world.first.refuse_with = None
    await world.clock.run_for(3)
    world.network.cut(FIRST)
    await world.settle()
    world.network.heal(FIRST)
    await world.clock.run_for(0.1)
    assert world.link.registered == {FIRST: True}


async def test_a_refusal_is_logged_once_and_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The operator reads the name server's words; the same words do not fill the log."""
    world.first.refuse_with = "'broker-a' id 0 is registered from 10.0.0.9:10911"
    await world.link.start()
    await world.clock.run_for(30)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        f"not registered with name server {FIRST}: NAME_CONFLICT: 'broker-a' id 0 is registered from 10.0.0.9:10911"
    ]
    world.first.refuse_with = None
    await world.clock.run_for(3)
    assert world.link.registered == {FIRST: True}


async def test_a_mute_namesrv_is_given_up_after_10_s(world: World) -> None:
    """No answer to a hello: the stream is dropped and another one tried."""
    world.first.is_mute = True
    await world.link.start()
    await world.clock.run_for(9.9)
    assert len(world.first.hellos) == 1
    world.first.is_mute = False
    await world.clock.run_for(0.3)
    assert world.link.registered == {FIRST: True}


async def test_each_namesrv_is_served_independently(world: World) -> None:
    """One that is down costs the other nothing, and gets everything when it comes."""
    world.link = world.make_link(FIRST, SECOND)
    await world.link.start()
    await world.clock.run_for(5)
    assert world.link.registered == {FIRST: True, SECOND: False}
    world.topics.put("TopicB")
    world.link.topics_changed(["TopicB"])
    await world.second.start()
    await world.clock.run_for(3)
    assert world.link.registered == {FIRST: True, SECOND: True}
    assert world.first.topics == world.second.topics == {"TopicA": 4, "TopicB": 4}


async def test_wait_registered_returns_with_the_first_namesrv(world: World) -> None:
    """Any of them is enough to be found."""
    world.link = world.make_link(SECOND, FIRST)
    await world.link.start()
    await world.link.wait_registered(1)
    assert world.link.registered == {SECOND: False, FIRST: True}
    await world.link.wait_registered(1)


async def test_wait_registered_has_a_deadline(world: World) -> None:
    """Without any name server it raises TimeoutError."""
    world.link = world.make_link(SECOND)
    await world.link.start()
    waiting = asyncio.create_task(world.link.wait_registered(5))
    await world.clock.run_for(5)
    with pytest.raises(TimeoutError):
        await waiting


async def test_stop_unregisters(world: World) -> None:
    """A clean stop takes the broker out of the routes at once."""
    await world.link.start()
    await world.settle()
    await world.link.stop()
    assert world.first.unregistered == 1
    assert world.link.registered == {FIRST: False}


async def test_stop_while_no_namesrv_answers_returns_at_once(world: World) -> None:
    """There is nobody to unregister from."""
    world.link = world.make_link(SECOND)
    await world.link.start()
    await world.settle()
    await world.link.stop()
    assert world.link.registered == {SECOND: False}


async def test_stop_does_not_wait_long_for_a_namesrv_that_hangs(world: World) -> None:
    """At most one second for all of them."""
    await world.link.start()
    await world.settle()
    world.network.delay(FIRST, 60, 61)
    stopping = asyncio.create_task(world.link.stop())
    await world.clock.run_for(1)
    assert stopping.done()


async def test_another_identity_registers_anew(world: World) -> None:
    """After a change of role the name server hears hello again, at once."""
    await world.link.start()
    await world.settle()
    world.identity = BrokerIdentity("DefaultCluster", "broker-a", 1, 7, "10.0.0.1:10911", "")
    world.link.identity_changed()
    await world.settle()
    assert [identity.broker_id for identity in world.first.hellos] == [0, 1]
    assert world.link.registered == {FIRST: True}


async def test_topics_left_out_are_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The operator reads which topics clients will not find, and why."""
    await world.link.start()
    await world.settle()
    assert world.first.stream is not None
    examples = [Reply.TopicsLeftOut.Topic(topic_name="TopicX", reason="perm is 9")]
    await world.first.stream.send(Reply(topics_left_out=Reply.TopicsLeftOut(count=3, examples=examples)))
    await world.settle()
    assert f"name server {FIRST} left 3 topics out of its routes: TopicX: perm is 9" in caplog.text
