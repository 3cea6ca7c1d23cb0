"""The mesh face: registration streams over a network in memory, on a clock that only moves when told."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.network import ClientStream
from apogeemq.mesh.v1 import namesrv_pb2 as pb
from apogeemq.mesh.v1.methods import NAMESRV_REGISTER
from apogeemq.namesrv.core.registrar import Registrar, RegistrarLimits
from apogeemq.namesrv.core.route_table import RouteTable
from apogeemq.namesrv.faces.mesh import RegistrationFace

TARGET = "namesrv:9877"
Request = pb.RegistrationRequest
V1 = pb.DataVersion(state_version=0, timestamp_ms=1_700_000_000_000, counter=1)
V2 = pb.DataVersion(state_version=0, timestamp_ms=1_700_000_000_500, counter=2)
IDENTITY = pb.BrokerIdentity(
    cluster="DefaultCluster",
    broker_name="broker-a",
    incarnation=1,
    remoting_address="10.0.0.1:10911",
    mesh_address="10.0.0.1:10921",
)


class World:
    """A name server's mesh listener."""

    def __init__(self, limits: RegistrarLimits) -> None:
        self.clock = ManualClock()
        self.network = MemoryNetwork(self.clock, SeededChance(1))
        self.table = RouteTable()
        self.face = RegistrationFace(Registrar(self.table, limits), self.clock)

    def open(self) -> ClientStream[pb.RegistrationRequest, pb.RegistrationReply]:
        return self.network.channel(TARGET).stream(NAMESRV_REGISTER)

    async def register(self, *topics: str) -> ClientStream[pb.RegistrationRequest, pb.RegistrationReply]:
        stream = self.open()
        await stream.send(Request(hello=Request.Hello(identity=IDENTITY, data_version=V1)))
        assert await kind(stream) == "need_full"
        await stream.send(full(*topics))
        assert await kind(stream) == "accepted"
        return stream


def full(*topics: str) -> pb.RegistrationRequest:
    configs = [pb.TopicConfig(topic_name=t, read_queue_nums=4, write_queue_nums=4, perm=6) for t in topics]
    return Request(full_state=Request.FullState(first=True, last=True, data_version=V1, topics=configs))


def beat(version: pb.DataVersion) -> pb.RegistrationRequest:
    return Request(beat=Request.Beat(data_version=version))


async def kind(stream: ClientStream[pb.RegistrationRequest, pb.RegistrationReply]) -> str | None:
    reply = await stream.receive()
    return None if reply is None else reply.WhichOneof("kind")


async def refusal(stream: ClientStream[pb.RegistrationRequest, pb.RegistrationReply]) -> pb.RegistrationReply.Refused:
    """The refusal that comes next; the stream must end after it."""
    reply = await stream.receive()
    assert reply is not None
    assert reply.WhichOneof("kind") == "refused"
    assert await stream.receive() is None
    return reply.refused


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A serving face; its limits may be given as the test's parameter."""
    world = World(getattr(request, "param", RegistrarLimits()))
    listening = await world.network.serve("namesrv", 9877, [world.face.handler])
    timing = asyncio.create_task(world.face.keep_time())
    yield world
    world.face.finish_all()
    timing.cancel()
    await listening.stop(0)


async def test_a_broker_registers_and_is_in_the_routes(world: World) -> None:
    """Hello, the whole table, Accepted: what was announced is what clients see."""
    await world.register("TopicA")
    route = world.table.route("TopicA")
    assert route is not None
    assert route.broker_datas[0].broker_addrs == {0: "10.0.0.1:10911"}
    assert (route.queue_datas[0].read_queue_nums, route.queue_datas[0].perm) == (4, 6)


async def test_a_delta_changes_the_routes(world: World) -> None:
    """Changed topics come, removed ones go; a beat at the new version is not answered."""
    stream = await world.register("TopicA")
    changed = [pb.TopicConfig(topic_name="TopicB", read_queue_nums=1, write_queue_nums=1, perm=6)]
    await stream.send(Request(delta=Request.Delta(base=V1, data_version=V2, changed=changed, removed=["TopicA"])))
    await stream.send(beat(V2))
    await world.clock.run_for(0.1)
    assert world.table.topic_names() == ["TopicB"]


async def test_a_beat_at_another_version_brings_need_full(world: World) -> None:
    """The broker then sends its whole table."""
    stream = await world.register("TopicA")
    await stream.send(beat(V2))
    assert await kind(stream) == "need_full"


async def test_unregister_ends_the_stream_cleanly(world: World) -> None:
    """No refusal, and no route any more."""
    stream = await world.register("TopicA")
    await stream.send(Request(unregister=Request.Unregister()))
    assert await stream.receive() is None
    assert world.table.route("TopicA") is None


@pytest.mark.parametrize("way", ["finish", "cancel", "cut"])
async def test_a_stream_that_ends_without_unregister_has_its_grace(world: World, way: str) -> None:
    """However it ends, the broker leaves 3 s later (and at most one tick of 0.5 s)."""
    stream = await world.register("TopicA")
    if way == "finish":
        await stream.finish()
    elif way == "cancel":
        stream.cancel()
    else:
        world.network.cut(TARGET)
    await world.clock.run_for(2.9)
    assert world.table.route("TopicA") is not None
    await world.clock.run_for(0.7)
    assert world.table.route("TopicA") is None


async def test_a_silent_broker_is_refused_after_10_s(world: World) -> None:
    """Its stream is ended with the reason."""
    stream = await world.register("TopicA")
    await world.clock.run_for(10.5)
    assert (await refusal(stream)).code == pb.REFUSAL_CODE_EXPIRED
    assert world.table.route("TopicA") is None


async def test_a_refusal_names_the_field_and_others_go_on(world: World) -> None:
    """One broker's mistake is its own: neither tables nor other streams notice."""
    good = await world.register("TopicA")
    bad = world.open()
    await bad.send(Request(hello=Request.Hello(identity=pb.BrokerIdentity(cluster="C"), data_version=V1)))
    refused = await refusal(bad)
    assert (refused.code, refused.text) == (pb.REFUSAL_CODE_INVALID_ARGUMENT, "identity.broker_name is empty")
    await good.send(beat(V2))
    assert await kind(good) == "need_full"
    assert world.table.topic_names() == ["TopicA"]


async def test_an_empty_message_is_refused(world: World) -> None:
    """It is no message of this protocol, or one of a later version."""
    stream = world.open()
    await stream.send(Request())
    assert (await refusal(stream)).code == pb.REFUSAL_CODE_INVALID_ARGUMENT


async def test_a_newer_stream_ends_the_older(world: World) -> None:
    """Somebody else's step ends a stream that waits for its next message."""
    older = await world.register("TopicA")
    newer = world.open()
    await newer.send(Request(hello=Request.Hello(identity=IDENTITY, data_version=V1)))
    assert await kind(newer) == "accepted"
    assert (await refusal(older)).code == pb.REFUSAL_CODE_SUPERSEDED


@pytest.mark.parametrize("world", [RegistrarLimits(brokers_max=1)], indirect=True)
async def test_too_many_streams_are_refused_at_once(world: World) -> None:
    """With one broker allowed there may be two streams; the third is told why."""
    waiting = [world.open(), world.open()]
    await world.clock.run_for(0.1)
    assert (await refusal(world.open())).code == pb.REFUSAL_CODE_LIMIT_EXCEEDED
    for stream in waiting:
        stream.cancel()


async def test_topics_left_out_are_told_before_accepted(world: World) -> None:
    """The broker can log which, and why, and goes on with the rest."""
    stream = world.open()
    await stream.send(Request(hello=Request.Hello(identity=IDENTITY, data_version=V1)))
    assert await kind(stream) == "need_full"
    await stream.send(full("TopicA", ""))
    reply = await stream.receive()
    assert reply is not None
    assert (reply.topics_left_out.count, reply.topics_left_out.examples[0].reason) == (1, "topic_name is empty")
    assert await kind(stream) == "accepted"


async def test_finish_all_ends_streams_cleanly(world: World) -> None:
    """A name server that stops does not refuse its brokers; they look for it again."""
    stream = await world.register("TopicA")
    world.face.finish_all()
    assert await stream.receive() is None
