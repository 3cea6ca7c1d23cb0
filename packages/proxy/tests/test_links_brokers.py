"""Ways to brokers: over the mesh, into this process, and when they are given up."""

from __future__ import annotations

import asyncio

import pytest
from apogeemq.mesh.call_streams import StreamCaller, call_handlers
from apogeemq.mesh.calls import Answer, CallInfo, CallTable
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.errors import ChannelClosed
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.v1 import broker_pb2 as broker
from apogeemq.mesh.v1.methods import BROKER_CHANNELS, QUERY_TOPIC
from apogeemq.mesh.v1.routes_pb2 import BrokerAddress
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.errors import MasterAway, ProxyError
from apogeemq.proxy.links.brokers import BrokerLinks


def master(mesh_address: str) -> list[BrokerAddress]:
    """A master with a slave beside it."""
    return [
        BrokerAddress(broker_id=1, mesh_address="slave:1"),
        BrokerAddress(broker_id=0, mesh_address=mesh_address),
    ]


def table(queues: int) -> CallTable:
    """A broker whose every topic has so many queues."""

    def query_topic(request: broker.QueryTopicRequest, info: CallInfo) -> broker.QueryTopicReply:
        return broker.QueryTopicReply(found=True, read_queue_nums=queues)

    return CallTable([Answer(QUERY_TOPIC, query_topic)])


class World:
    """A network, and the links under test with one broker inside."""

    def __init__(self, brokers_max: int = 100) -> None:
        self.clock = ManualClock()
        self.network = MemoryNetwork(self.clock, SeededChance(1))
        self.links = BrokerLinks(
            network=self.network,
            clock=self.clock,
            chance=SeededChance(2),
            tracer=None,
            local_brokers={"inside": lambda: table(1)},
            brokers_max=brokers_max,
            gone_s=60.0,
        )

    async def queues(self, broker_name: str) -> int:
        """Ask a broker for a topic while time passes."""
        asking = asyncio.ensure_future(
            self.links.caller(broker_name).call(QUERY_TOPIC, broker.QueryTopicRequest(topic="T"), timeout_s=2.0)
        )
        while not asking.done():
            await self.clock.run_for(0.1)
        return asking.result().read_queue_nums


@pytest.fixture
def world() -> World:
    """A world of its own for each test."""
    return World()


async def test_a_broker_over_the_mesh(world: World) -> None:
    """Calls reach the master's mesh address; the caller is the same as long as that stays."""
    handlers = call_handlers(BROKER_CHANNELS, table(8), clock=world.clock)
    listening = await world.network.serve("b", 10921, handlers)
    world.links.learn("b", master("b:10921"))
    caller = world.links.caller("b")
    assert caller.target == "b:10921"
    assert await world.queues("b") == 8
    world.links.learn("b", master("b:10921"))
    assert world.links.caller("b") is caller
    await world.links.close()
    await listening.stop(0.0)


async def test_a_broker_inside(world: World) -> None:
    """It needs no address, and no name server to name it; a route that names it changes nothing."""
    assert await world.queues("inside") == 1
    caller = world.links.caller("inside")
    world.links.learn("inside", master("elsewhere:1"))
    assert world.links.caller("inside") is caller
    await world.links.close()


def test_an_unknown_broker(world: World) -> None:
    """BAD_REQUEST that names it."""
    with pytest.raises(ProxyError) as raised:
        world.links.caller("nobody")
    assert raised.value.code == Code.BAD_REQUEST
    assert "nobody" in raised.value.message


def test_a_broker_without_a_master(world: World) -> None:
    """A name whose master is away is nobody to ask, and does not take a known master's address away."""
    world.links.learn("b", [BrokerAddress(broker_id=1, mesh_address="slave:1")])
    with pytest.raises(ProxyError):
        world.links.caller("b")
    world.links.learn("b", master("b:1"))
    world.links.learn("b", [BrokerAddress(broker_id=1, mesh_address="slave:1")])
    assert world.links.caller("b").target == "b:1"


def test_a_broker_of_apaches(world: World) -> None:
    """Without a mesh listener the error names the setting that would be needed, and that it is not served yet."""
    world.links.learn("apache", master(""))
    with pytest.raises(ProxyError) as raised:
        world.links.caller("apache")
    assert raised.value.code == Code.NOT_IMPLEMENTED
    assert "brokerTransport=remoting" in raised.value.message
    assert "not served yet" in raised.value.message


async def test_a_master_that_moves(world: World) -> None:
    """There is another caller, and the old one is closed."""
    world.links.learn("b", master("b:1"))
    old = world.links.caller("b")
    world.links.learn("b", master("b:2"))
    assert world.links.caller("b").target == "b:2"
    await world.clock.run_for(0.1)
    with pytest.raises(ChannelClosed):
        await old.call(QUERY_TOPIC, broker.QueryTopicRequest(), timeout_s=1.0)
    await world.links.close()


async def test_a_broker_that_leaves_for_long_is_forgotten(world: World) -> None:
    """Not at once: messages of it may be in the hands of clients, and it may come back."""
    for name in ("a", "b"):
        world.links.learn(name, master(f"{name}:1"))
    old = world.links.caller("a")
    world.links.keep_only({"b"})
    await world.clock.run_for(59.0)
    world.links.keep_only({"b"})
    assert world.links.caller("a") is old
    world.links.keep_only({"a", "b"})  # it came back: its time begins anew
    world.links.keep_only({"b"})
    await world.clock.run_for(59.0)
    world.links.keep_only({"b"})
    assert world.links.names == ["a", "b", "inside"]
    await world.clock.run_for(1.0)
    world.links.keep_only({"b"})
    assert world.links.names == ["b", "inside"]
    await world.clock.run_for(0.1)
    assert isinstance(old, StreamCaller)
    with pytest.raises(ChannelClosed):
        await old.call(QUERY_TOPIC, broker.QueryTopicRequest(), timeout_s=1.0)
    await world.links.close()


def test_brokers_have_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    """One more than brokers_max is left out, and the log names the setting."""
    world = World(brokers_max=1)
    world.links.learn("a", master("a:1"))
    world.links.learn("b", master("b:1"))
    world.links.learn("a", master("a:2"))
    assert world.links.names == ["a", "inside"]
    assert world.links.caller("a").target == "a:2"
    assert "routes.brokers_max" in caplog.text


async def test_close_ends_all_callers(world: World) -> None:
    """Also the one into this process; a second time it does nothing."""
    world.links.learn("b", master("b:1"))
    callers = [world.links.caller("b"), world.links.caller("inside")]
    await world.links.close()
    await world.links.close()
    for caller in callers:
        with pytest.raises(ChannelClosed):
            await caller.call(QUERY_TOPIC, broker.QueryTopicRequest(), timeout_s=1.0)


async def test_a_set_without_a_master_is_no_unknown_broker(world: World) -> None:
    """Its slaves are known: whoever wants its master waits for the next one, and keeps the last one's way meanwhile."""
    slaves = [BrokerAddress(broker_id=2, mesh_address="slave:1")]
    world.links.learn("b", slaves)
    with pytest.raises(MasterAway):
        world.links.caller("b")
    handlers = call_handlers(BROKER_CHANNELS, table(8), clock=world.clock)
    listening = await world.network.serve("b", 10921, handlers)
    world.links.learn("b", master("b:10921"))
    assert await world.queues("b") == 8
    caller = world.links.caller("b")
    world.links.learn("b", slaves)
    assert world.links.caller("b") is caller
    await world.links.close()
    await listening.stop(0.0)
