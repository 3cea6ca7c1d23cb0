"""The route service over a network in memory, on a clock that only moves when told."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.errors import PeerRefused, RefusalCode
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.network import ClientStream, Req, Resp, Unary
from apogeemq.mesh.v1 import routes_pb2 as pb
from apogeemq.mesh.v1.methods import QUERY_CLUSTER, QUERY_ROUTES, WATCH_ROUTES
from apogeemq.namesrv.core.route_changes import RouteChanges
from apogeemq.namesrv.core.route_table import RouteTable
from apogeemq.namesrv.core.values import BrokerIdentity, DataVersion, TopicQueues
from apogeemq.namesrv.faces.routes import RouteFace

TARGET = "namesrv:9877"
INSTANCE = 77
QUEUES = TopicQueues(8, 4, 6, 1)
VERSION = DataVersion(0, 0, 1)
MASTER = BrokerIdentity("C", "broker-a", 0, 1, "10.0.0.1:10911", "10.0.0.1:10921", zone="z1")
SLAVE = replace(MASTER, broker_id=1, remoting_address="", mesh_address="10.0.0.2:10921")


class World:
    """A name server's route service."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.network = MemoryNetwork(self.clock, SeededChance(1))
        self.table = RouteTable()
        self.changes = RouteChanges(INSTANCE)
        self.is_waiting = False
        self.face = RouteFace(self.table, self.changes, self.clock, is_waiting=lambda: self.is_waiting, watchers_max=2)

    def put(self, identity: BrokerIdentity, *topics: str) -> None:
        self.table.put_member(identity, VERSION, dict.fromkeys(topics, QUEUES))

    async def ask(self, method: Unary[Req, Resp], request: Req) -> Resp:
        return await self.network.channel(TARGET).unary(method, request, timeout_s=3.0)

    def open(self) -> ClientStream[pb.WatchRequest, pb.WatchReply]:
        return self.network.channel(TARGET).stream(WATCH_ROUTES)

    async def watch(self, instance: int = 0, revision: int = 0) -> ClientStream[pb.WatchRequest, pb.WatchReply]:
        stream = self.open()
        await stream.send(pb.WatchRequest(instance=instance, revision=revision))
        return stream


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    listening = await world.network.serve("namesrv", 9877, world.face.handlers)
    yield world
    world.face.finish_all()
    await listening.stop(0)


async def told(stream: ClientStream[pb.WatchRequest, pb.WatchReply]) -> tuple[int, bool, set[str]]:
    reply = await stream.receive()
    assert reply is not None
    assert reply.instance == INSTANCE
    return reply.revision, reply.reset, set(reply.changed_topics)


async def refusal_of(stream: ClientStream[pb.WatchRequest, pb.WatchReply]) -> PeerRefused:
    with pytest.raises(PeerRefused) as refused:
        await stream.receive()
    return refused.value


async def test_routes_come_in_the_order_asked_for(world: World) -> None:
    """With every member's addresses, those of brokers without a Remoting listener too; nobody serves the unknown."""
    world.put(MASTER, "TopicA")
    world.put(SLAVE)
    reply = await world.ask(QUERY_ROUTES, pb.QueryRoutesRequest(topics=["TopicX", "TopicA"]))
    assert (reply.instance, reply.revision) == (INSTANCE, 2)
    assert [(route.topic, len(route.queues)) for route in reply.routes] == [("TopicX", 0), ("TopicA", 1)]
    assert reply.routes[1].queues[0] == pb.QueueData(
        broker_name="broker-a",
        cluster="C",
        read_queue_nums=8,
        write_queue_nums=4,
        perm=6,
        topic_sys_flag=1,
        addresses=[
            pb.BrokerAddress(broker_id=0, remoting_address="10.0.0.1:10911", mesh_address="10.0.0.1:10921", zone="z1"),
            pb.BrokerAddress(broker_id=1, mesh_address="10.0.0.2:10921", zone="z1"),
        ],
    )


async def test_the_cluster_has_every_broker(world: World) -> None:
    """By name, each with its members' addresses."""
    world.put(replace(MASTER, broker_name="broker-b"), "TopicA")
    world.put(SLAVE)
    reply = await world.ask(QUERY_CLUSTER, pb.QueryClusterRequest())
    assert (reply.instance, reply.revision) == (INSTANCE, 2)
    assert [(entry.cluster, entry.broker_name) for entry in reply.brokers] == [("C", "broker-a"), ("C", "broker-b")]
    assert [address.broker_id for address in reply.brokers[0].addresses] == [1]


@pytest.mark.parametrize(
    ("topics", "text"),
    [
        (["T"] * 501, "topics: 501 in one query; at most 500 are allowed"),
        (["T", "x" * 256], "topics[1] has 256 characters; at most 255 are allowed"),
    ],
)
async def test_a_query_beyond_its_bounds_is_refused(world: World, topics: list[str], text: str) -> None:
    """The refusal names the field."""
    with pytest.raises(PeerRefused) as refused:
        await world.ask(QUERY_ROUTES, pb.QueryRoutesRequest(topics=topics))
    assert (refused.value.code, refused.value.message) == (RefusalCode.INVALID_ARGUMENT, text)


async def test_an_answer_beyond_its_bound_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks can ask for fewer topics at a time; one topic fits."""
    world.put(MASTER, "TopicA")
    monkeypatch.setattr("apogeemq.namesrv.faces.routes.REPLY_SIZE_BYTES_MAX", 120)
    assert len((await world.ask(QUERY_ROUTES, pb.QueryRoutesRequest(topics=["TopicA"]))).routes) == 1
    with pytest.raises(PeerRefused, match="ask for fewer at a time") as refused:
        await world.ask(QUERY_ROUTES, pb.QueryRoutesRequest(topics=["TopicA", "TopicA"]))
    assert refused.value.code is RefusalCode.RESOURCE_EXHAUSTED


async def test_routes_are_refused_while_brokers_register(world: World) -> None:
    """And watches; the cluster is told, as Remoting clients are."""
    world.is_waiting = True
    with pytest.raises(PeerRefused, match="name server not ready"):
        await world.ask(QUERY_ROUTES, pb.QueryRoutesRequest(topics=["TopicA"]))
    assert (await refusal_of(await world.watch())).code is RefusalCode.FAILED_PRECONDITION
    assert (await world.ask(QUERY_CLUSTER, pb.QueryClusterRequest())).instance == INSTANCE


async def test_a_watch_tells_every_change(world: World) -> None:
    """A reset first for who has seen nothing; then topics that change, and those of brokers that come and go."""
    stream = await world.watch()
    assert await told(stream) == (0, True, set())
    world.put(MASTER, "TopicA")
    assert await told(stream) == (1, False, {"TopicA"})
    world.table.change_topics(MASTER.key, VERSION, {"TopicB": QUEUES}, ["TopicA"])
    assert await told(stream) == (2, False, {"TopicA", "TopicB"})
    world.table.remove_member(MASTER.key)
    assert await told(stream) == (3, False, {"TopicB"})


async def test_a_watch_resumes_where_it_was(world: World) -> None:
    """What changed while there was no stream is told first."""
    world.put(MASTER, "TopicA")
    world.put(replace(MASTER, broker_name="broker-b"), "TopicB")
    assert await told(await world.watch(INSTANCE, 1)) == (2, False, {"TopicB"})


async def test_a_quiet_watch_gives_signs_of_life(world: World) -> None:
    """At least every 10 s."""
    stream = await world.watch(INSTANCE, 0)
    assert await told(stream) == (0, False, set())
    await world.clock.run_for(10.0)
    assert await told(stream) == (0, False, set())


async def test_changes_gather_for_a_peer_that_does_not_read(world: World) -> None:
    """Each topic is told once, whatever happened to it meanwhile."""
    stream = await world.watch(INSTANCE, 0)
    assert await told(stream) == (0, False, set())
    for _ in range(1_000):
        world.put(MASTER, "TopicA")
    await asyncio.sleep(0)
    assert await told(stream) == (1_000, False, {"TopicA"})


async def test_a_peer_that_never_reads_loses_its_watch(world: World) -> None:
    """After 30 s in which it took nothing; it may resume."""
    stream = await world.watch(INSTANCE, 0)
    for number in range(400):
        world.put(MASTER, *(f"{number}-{topic}-{'x' * 200}" for topic in range(500)))
        await world.clock.run_for(0.1)
    await world.clock.run_for(31.0)
    assert world.face.watch_count == 0
    stream.cancel()


async def test_a_second_request_ends_the_watch(world: World) -> None:
    """One on each stream."""
    stream = await world.watch(INSTANCE, 0)
    assert await told(stream) == (0, False, set())
    await stream.send(pb.WatchRequest())
    refused = await refusal_of(stream)
    assert refused.code is RefusalCode.INVALID_ARGUMENT
    assert "one request" in refused.message


async def test_a_watch_without_request_ends(world: World) -> None:
    """A peer that opens a stream and says nothing holds no place for ever."""
    stream = world.open()
    await world.clock.run_for(10.5)
    assert (await refusal_of(stream)).code is RefusalCode.INVALID_ARGUMENT
    assert world.face.watch_count == 0


async def test_watches_are_bounded(world: World) -> None:
    """The refusal names the limit; a place is free again when a watch ends."""
    first, second = await world.watch(), await world.watch()
    await told(first)
    await told(second)
    refused = await refusal_of(await world.watch())
    assert refused.code is RefusalCode.RESOURCE_EXHAUSTED
    assert "limits.watchers_max" in refused.message
    await first.finish()
    await world.clock.run_for(0.1)
    assert (await told(await world.watch()))[1] is True


@pytest.mark.parametrize("way", ["finish", "cancel"])
async def test_a_watch_ends_with_its_peer(world: World, way: str) -> None:
    """However the peer leaves, nothing stays behind."""
    stream = await world.watch()
    await told(stream)
    if way == "finish":
        await stream.finish()
        assert await stream.receive() is None
    else:
        stream.cancel()
    await world.clock.run_for(0.1)
    assert world.face.watch_count == 0


async def test_finish_all_ends_watches_cleanly(world: World) -> None:
    """A name server that stops does not refuse its peers."""
    stream = await world.watch()
    await told(stream)
    world.face.finish_all()
    assert await stream.receive() is None
