"""Long polls that are given up while a broker's answer is under way: its messages are there for others at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from apogeemq.mesh.call_streams import StreamCaller, call_handlers
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.network import Listening
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.mesh.v1.methods import BROKER_CHANNELS
from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proxy.core.durations import duration
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.messaging import MessagingService

from packages.proxy.tests.brokers_in_memory import BrokerInMemory, Cluster, cluster_of, context_of

PORT = 10921
INVISIBLE_TIME_MS = 60_000


class World:
    """A proxy's service, and brokers a and b over a network with weather."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.network = MemoryNetwork(self.clock, SeededChance(1))
        self.cluster = cluster_of(self.clock, "a", "b")
        self.service = MessagingService(self.cluster, self.cluster, clock=self.clock, chance=SeededChance(1))
        self.callers: dict[str, StreamCaller] = {}
        self.listening: list[Listening] = []

    async def start(self) -> None:
        for name, broker in self.cluster.brokers.items():
            handlers = call_handlers(BROKER_CHANNELS, broker.table, clock=self.clock)
            self.listening.append(await self.network.serve(name, PORT, handlers))
            self.callers[name] = StreamCaller(self.network, f"{name}:{PORT}", BROKER_CHANNELS, clock=self.clock)
        self.cluster.caller = lambda name: self.callers[name]  # type: ignore[method-assign,assignment]  # others go in process

    async def stop(self) -> None:
        for caller in self.callers.values():
            await caller.close()
        for listening in self.listening:
            await listening.stop(0.0)

    def broker(self, name: str) -> BrokerInMemory:
        return self.cluster.brokers[name]

    def slow_down(self, name: str, seconds: float) -> None:
        """From now on everything to and from a broker takes so long."""
        self.network.delay(f"{name}:{PORT}", seconds, seconds)

    async def waiting(self, broker_name: str = "", timeout_s: float = 30.0) -> asyncio.Future[list[bytes]]:
        """A receive whose polls wait at the brokers."""
        receiving = asyncio.ensure_future(receive(self.service, self.cluster, broker_name, timeout_s))
        await self.clock.run_for(1.5)  # more than settings are waited for
        assert not receiving.done()
        return receiving


async def receive(service: MessagingService, cluster: Cluster, broker_name: str, timeout_s: float) -> list[bytes]:
    """The bodies of what one ReceiveMessage gives."""
    queue = defs.MessageQueue(topic=defs.Resource(name="T"), id=-1, broker=defs.Broker(name=broker_name))
    request = v2.ReceiveMessageRequest(group=defs.Resource(name="G"), message_queue=queue, batch_size=16)
    request.invisible_duration.CopyFrom(duration(INVISIBLE_TIME_MS))
    parts = service.receive_message(request, context_of(cluster.clock, timeout_s=timeout_s))
    return [part.message.body async for part in parts if part.HasField("message")]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A world of its own for each test."""
    world = World()
    await world.start()
    yield world
    await world.stop()


def given_back(broker: BrokerInMemory) -> list[tuple[int, int]]:
    """Offset and new invisible time, as the broker was asked."""
    changes = broker.asked(mesh.ChangeInvisibleTimeRequest)
    return sorted((change.handle.queue_offset, change.invisible_time_ms) for change in changes)


async def test_a_client_that_goes_while_its_messages_are_under_way(world: World) -> None:
    """They are visible again as soon as the proxy has seen them, not after their invisible time."""
    receiving = await world.waiting("a")
    world.slow_down("a", 2.0)
    for body in (b"0", b"1"):
        world.broker("a").store("T", body)
    await world.clock.run_for(1.0)
    assert world.broker("a").visible("G") == []
    receiving.cancel()
    await world.clock.run_for(8.0)
    assert receiving.cancelled()
    assert world.broker("a").visible("G") == [0, 1]
    assert given_back(world.broker("a")) == [(0, 0), (1, 0)]


async def test_another_broker_that_answered_first(world: World) -> None:
    """The client gets what was first; what comes behind is visible again."""
    receiving = await world.waiting()
    world.slow_down("a", 2.0)
    world.broker("a").store("T", b"slow")
    await world.clock.run_for(1.0)
    world.broker("b").store("T", b"fast")
    await world.clock.run_for(0.1)
    assert receiving.result() == [b"fast"]
    await world.clock.run_for(8.0)
    assert world.broker("a").visible("G") == [0]
    assert world.broker("b").visible("G") == []


async def test_a_broker_whose_answer_takes_too_long(world: World) -> None:
    """The client's time is up first; what comes then is visible again."""
    receiving = await world.waiting("a", timeout_s=8.0)
    world.slow_down("a", 2.0)
    await world.clock.run_for(4.5)  # the poll ends 6.5 s after its beginning: half a request timeout is kept back
    world.broker("a").store("T", b"0")
    await world.clock.run_for(1.0)
    assert isinstance(receiving.exception(), ProxyError)
    assert world.broker("a").visible("G") == []
    await world.clock.run_for(8.0)
    assert world.broker("a").visible("G") == [0]


async def test_a_lost_stream_loses_the_answer_and_no_message(world: World) -> None:
    """Nobody knows what was popped: it comes again after its invisible time."""
    receiving = await world.waiting("a")
    world.slow_down("a", 2.0)
    world.broker("a").store("T", b"0")
    await world.clock.run_for(1.0)
    receiving.cancel()
    await world.clock.run_for(0.0)
    world.network.cut(f"a:{PORT}")
    await world.clock.run_for(50.0)
    assert world.broker("a").visible("G") == []
    await world.clock.run_for(10.0)
    assert world.broker("a").visible("G") == [0]


async def test_a_damaged_record_that_comes_late(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It is told in the log, with the broker's name, and the next ones are dealt with as ever."""
    world.broker("a").damages_records = True
    receiving = await world.waiting("a")
    world.slow_down("a", 2.0)
    world.broker("a").store("T", b"0")
    await world.clock.run_for(1.0)
    receiving.cancel()
    await world.clock.run_for(8.0)
    assert "a handed out, late, bytes that are no records" in caplog.text
    assert given_back(world.broker("a")) == []


@pytest.mark.parametrize("way", ["over the mesh", "in process"])
async def test_a_client_that_goes_at_any_turn_of_the_loop(world: World, way: str) -> None:
    """Whenever it goes: a message is either handed over, or visible to the next one without delay."""
    cluster = world.cluster if way == "over the mesh" else cluster_of(world.clock, "a", "b")
    service = MessagingService(cluster, cluster, clock=world.clock, chance=SeededChance(1))
    broker = cluster.brokers["a"]
    outcomes = set()
    for turns in range(30):
        receiving = asyncio.ensure_future(receive(service, cluster, "", 30.0))
        await world.clock.run_for(1.5)
        assert broker.visible("G") == []
        broker.store("T", b"%d" % turns)
        for _ in range(turns):
            await asyncio.sleep(0)
        receiving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert await receiving == [b"%d" % turns]
        await world.clock.run_for(0.0)
        assert broker.visible("G") == ([turns] if receiving.cancelled() else [])
        broker.acked["G"].add(turns)
        outcomes.add((receiving.cancelled(), bool(given_back(broker))))
    assert outcomes >= {(True, True), (False, True)}
