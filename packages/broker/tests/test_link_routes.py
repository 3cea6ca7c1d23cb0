"""What name servers tell of other brokers: asked once a moment, kept while none answers."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from apogeemq.broker.links.routes import FRESH_S, RouteLink
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.network import CallContext, Listening, UnaryHandler
from apogeemq.mesh.v1.methods import QUERY_ROUTES
from apogeemq.mesh.v1.routes_pb2 import QueryRoutesReply, QueryRoutesRequest, QueueData, TopicRoute
from apogeemq.remoting_codec.bodies import MessageQueue

T = TypeVar("T")


class Namesrv:
    """A name server that has brokers a, b and c, of which c may only be written to."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._listening: Listening | None = None
        self.asked: list[str] = []

    async def start(self, port: int) -> None:
        self._listening = await self._network.serve("127.0.0.1", port, [UnaryHandler(QUERY_ROUTES, self._answer)])

    async def stop(self) -> None:
        if self._listening is not None:
            await self._listening.stop(0)

    async def _answer(self, request: QueryRoutesRequest, context: CallContext) -> QueryRoutesReply:
        (topic,) = request.topics
        self.asked.append(topic)
        queues = [
            QueueData(broker_name=name, read_queue_nums=2, write_queue_nums=4, perm=perm)
            for name, perm in (("a", 6), ("b", 6), ("c", 2))
        ]
        return QueryRoutesReply(routes=[TopicRoute(topic=topic, queues=queues)])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def network(clock: ManualClock) -> MemoryNetwork:
    return MemoryNetwork(clock, SeededChance(1))


def link(network: MemoryNetwork, clock: ManualClock, *ports: int) -> RouteLink:
    return RouteLink([f"127.0.0.1:{port}" for port in ports], network=network, clock=clock, broker_name="a")


async def answered(clock: ManualClock, asking: Coroutine[Any, Any, T]) -> T:
    """What comes of it, the clock moving on."""
    task = asyncio.create_task(asking)
    while not task.done():
        await clock.run_for(0.1)
    return await task


async def test_readable_queues_of_others(network: MemoryNetwork, clock: ManualClock) -> None:
    """Not this broker's own, nor what can't be read; asked again only after a moment."""
    namesrv = Namesrv(network)
    await namesrv.start(9_001)
    routes = link(network, clock, 9_001)
    expected = [MessageQueue("T", "b", 0), MessageQueue("T", "b", 1)]
    assert await answered(clock, routes.queues("T")) == expected
    assert await answered(clock, routes.queues("T")) == expected
    assert namesrv.asked == ["T"]
    await clock.run_for(FRESH_S)
    await answered(clock, routes.queues("T"))
    assert namesrv.asked == ["T", "T"]
    await routes.close()
    await namesrv.stop()


async def test_the_next_one_is_asked_and_what_was_told_is_kept(network: MemoryNetwork, clock: ManualClock) -> None:
    """The first name server is away from the start, the second one later: nothing is known of a new topic then."""
    namesrv = Namesrv(network)
    await namesrv.start(9_002)
    routes = link(network, clock, 9_001, 9_002)
    found = await answered(clock, routes.queues("T"))
    assert found == [MessageQueue("T", "b", 0), MessageQueue("T", "b", 1)]
    await namesrv.stop()
    await clock.run_for(FRESH_S)
    assert await answered(clock, routes.queues("T")) == found
    assert await answered(clock, routes.queues("New")) is None
    await routes.close()
