"""Routes from name servers: kept while watched, asked once, failed over, and topics that are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from apogeemq.mesh.calls import Answer, CallInfo, CallTable
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.v1 import broker_pb2 as broker
from apogeemq.mesh.v1.methods import ENSURE_TOPIC
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.links.brokers import BrokerLinks
from apogeemq.proxy.links.namesrv import NameServers
from apogeemq.proxy.links.routes import (
    AWAY_S,
    CLUSTER_INTERVAL_S,
    QUESTIONS_MAX,
    UNWATCHED_S,
    WATCH_PAUSE_S,
    WATCH_SILENCE_S,
    RouteLink,
    RouteSettings,
)

from packages.proxy.tests.name_server import NameServer, queue_data

SETTINGS = RouteSettings(
    cluster_name="DefaultCluster",
    auto_create=True,
    auto_create_queue_nums=4,
    topics_max=3,
    unknown_topic_s=1.0,
    question_timeout_s=2.0,
)


class World:
    """A network with name servers, and the link under test."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.network = MemoryNetwork(self.clock, SeededChance(1))
        self.ensure: Callable[[broker.EnsureTopicRequest, CallInfo], broker.EnsureTopicReply] = self._never
        table = CallTable([Answer(ENSURE_TOPIC, self._ensure)])
        self.brokers = BrokerLinks(
            network=self.network,
            clock=self.clock,
            chance=SeededChance(2),
            tracer=None,
            local_brokers={"inside": lambda: table},
            brokers_max=100,
            gone_s=60.0,
        )
        self.link = RouteLink(self.brokers, SETTINGS, clock=self.clock, chance=SeededChance(3))

    def _ensure(self, request: broker.EnsureTopicRequest, info: CallInfo) -> broker.EnsureTopicReply:
        return self.ensure(request, info)

    @staticmethod
    def _never(request: broker.EnsureTopicRequest, info: CallInfo) -> broker.EnsureTopicReply:
        raise AssertionError("no topic was to be made")

    @asynccontextmanager
    async def running(self, *targets: str, in_background: bool = True) -> AsyncIterator[RouteLink]:
        """Open the link to these name servers; let it watch."""
        self.link.open(NameServers(targets, network=self.network, clock=self.clock, attempt_s=1.0))
        work = asyncio.ensure_future(self.link.run()) if in_background else None
        await self.clock.run_for(0.1)
        try:
            yield self.link
        finally:
            if work is not None:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
            await self.link.close()
            await self.brokers.close()

    async def tell(self, namesrv: NameServer, *topics: str, reset: bool = False) -> None:
        """Let the name server's watches tell of changes, and let them be heard."""
        await namesrv.change(*topics, reset=reset)
        await self.clock.run_for(0.1)

    async def done(self, topic: str, *, timeout_s: float = 3.0, create: bool = False) -> list[str]:
        """Ask for a route while time passes; the broker names of the answer."""
        asking = asyncio.ensure_future(self.link.route(topic, timeout_s=timeout_s, create=create))
        while not asking.done():
            await self.clock.run_for(0.1)
        return [queue.broker_name for queue in asking.result().queues]


@pytest.fixture
def world() -> World:
    """A world of its own for each test."""
    return World()


@pytest.fixture
async def namesrv(world: World) -> NameServer:
    """One name server at ns:9877 that knows the topic T at two brokers."""
    server = NameServer()
    server.routes["T"] = [queue_data("b", "b:10921"), queue_data("a", "a:10921")]
    await server.listen(world.network)
    return server


async def test_a_route_is_asked_for_once(world: World, namesrv: NameServer) -> None:
    """The answer is in order of broker name, and is kept while the watch says nothing."""
    async with world.running("ns:9877") as link:
        assert await world.done("T") == ["a", "b"]
        for _ in range(10):
            await world.clock.run_for(4.0)
            await world.tell(namesrv)  # a sign of life
        assert await world.done("T") == ["a", "b"]
        assert link.brokers_of("T") == ["a", "b"]
        assert link.is_watching
    assert namesrv.asked == ["T"]


async def test_what_holds_is_given_without_waiting(world: World, namesrv: NameServer) -> None:
    """Only then: neither before it was asked for, nor once it has changed."""
    async with world.running("ns:9877") as link:
        assert link.kept("T") is None
        await world.done("T")
        kept = link.kept("T")
        assert kept is not None
        assert kept is await link.route("T", timeout_s=1.0)
        await world.tell(namesrv, "T")
        assert link.kept("T") is None


async def test_a_change_makes_it_ask_again(world: World, namesrv: NameServer) -> None:
    """A topic that the watch names is asked for when it is needed next; others are not."""
    namesrv.routes["U"] = [queue_data("a")]
    async with world.running("ns:9877") as link:
        await world.done("T")
        await world.done("U")
        namesrv.routes["T"] = [queue_data("c")]
        await world.tell(namesrv, "T")
        assert link.brokers_of("T") == ["a", "b"]  # never waits
        assert await world.done("T") == ["c"]
        assert await world.done("U") == ["a"]
    assert namesrv.asked == ["T", "U", "T"]


async def test_a_reset_makes_it_ask_for_all_again(world: World, namesrv: NameServer) -> None:
    """Whatever is kept may be old."""
    async with world.running("ns:9877"):
        await world.done("T")
        await world.tell(namesrv, reset=True)
        await world.done("T")
    assert namesrv.asked == ["T", "T"]


async def test_a_change_while_it_asks_counts(world: World, namesrv: NameServer) -> None:
    """An answer that may be of before the change is given out, and not kept as good."""
    async with world.running("ns:9877") as link:
        namesrv.answering.clear()
        asking = asyncio.ensure_future(link.route("T", timeout_s=3.0))
        await world.clock.run_for(0.1)
        namesrv.routes["T"] = [queue_data("c")]
        await world.tell(namesrv, "T")
        namesrv.answering.set()
        await world.clock.run_for(0.1)
        assert [queue.broker_name for queue in asking.result().queues] == ["a", "b"]
        assert await world.done("T") == ["c"]


async def test_many_who_want_the_same_ask_once(world: World, namesrv: NameServer) -> None:
    """One question is under way, however many wait for it, and it goes on when one of them gives up."""
    async with world.running("ns:9877") as link:
        namesrv.answering.clear()
        asking = [asyncio.ensure_future(link.route("T", timeout_s=3.0)) for _ in range(100)]
        await world.clock.run_for(0.1)
        asking[0].cancel()
        namesrv.answering.set()
        await world.clock.run_for(0.1)
        for each in asking[1:]:
            assert [queue.broker_name for queue in each.result().queues] == ["a", "b"]
    assert namesrv.asked == ["T"]


async def test_an_unknown_topic(world: World, namesrv: NameServer) -> None:
    """TOPIC_NOT_FOUND that names it; kept for a short while, and forgotten when the watch names it."""
    async with world.running("ns:9877"):
        for _ in range(3):
            with pytest.raises(ProxyError) as raised:
                await world.done("U")
            assert raised.value.code == Code.TOPIC_NOT_FOUND
            assert "U" in raised.value.message
        assert namesrv.asked == ["U"]
        namesrv.routes["U"] = [queue_data("a")]
        await world.tell(namesrv, "U")
        assert await world.done("U") == ["a"]
        await world.clock.run_for(1.5)
        with pytest.raises(ProxyError):
            await world.done("V")
        await world.clock.run_for(1.5)
        with pytest.raises(ProxyError):
            await world.done("V")
    assert namesrv.asked == ["U", "U", "V", "V"]


async def test_a_route_outlives_its_broker_for_a_while(world: World, namesrv: NameServer) -> None:
    """A master that stops in order is in no route until the next one is: the topic is not gone for that."""
    namesrv.routes["T"] = [queue_data("a", "a:1")]
    namesrv.brokers = {"a": ("DefaultCluster", "a:1")}
    async with world.running("ns:9877") as link:
        await link.route("T", timeout_s=1.0)
        namesrv.routes, namesrv.brokers = {}, {}
        await namesrv.change("T")
        await world.clock.run_for(0.1)
        route = await link.route("T", timeout_s=1.0)
        assert [queue.broker_name for queue in route.queues] == ["a"]
        namesrv.routes["T"] = [queue_data("a", "a2:1")]
        namesrv.brokers = {"a": ("DefaultCluster", "a2:1")}
        assert (await link.route("T", timeout_s=1.0)).queues[0].addresses[0].mesh_address == "a2:1"


async def test_a_topic_that_was_deleted_is_gone_at_once(world: World, namesrv: NameServer) -> None:
    """Its brokers are there, and do not have it."""
    namesrv.routes["T"] = [queue_data("a", "a:1")]
    namesrv.brokers = {"a": ("DefaultCluster", "a:1")}
    async with world.running("ns:9877") as link:
        await link.route("T", timeout_s=1.0)
        namesrv.routes = {}
        await namesrv.change("T")
        await world.clock.run_for(0.1)
        with pytest.raises(ProxyError) as caught:
            await link.route("T", timeout_s=1.0)
    assert caught.value.code == Code.TOPIC_NOT_FOUND


async def test_a_broker_that_stays_away_takes_its_topics_along(world: World, namesrv: NameServer) -> None:
    """After AWAY_S its route is no more than a memory."""
    namesrv.routes["T"] = [queue_data("a", "a:1")]
    async with world.running("ns:9877") as link:
        await link.route("T", timeout_s=1.0)
        namesrv.routes = {}
        await namesrv.change("T")
        await world.clock.run_for(0.1)
        await link.route("T", timeout_s=1.0)
        await world.clock.run_for(AWAY_S)
        with pytest.raises(ProxyError) as caught:
            await link.route("T", timeout_s=1.0)
    assert caught.value.code == Code.TOPIC_NOT_FOUND


async def test_doubt_counts_where_nobody_watches(world: World, namesrv: NameServer) -> None:
    """A watch would have told of another master; without one the next look asks anew."""
    namesrv.routes["T"] = [queue_data("a", "a:1")]
    async with world.running("ns:9877") as link:
        await link.route("T", timeout_s=1.0)
        link.doubt("T")
        assert link.kept("T") is not None
    async with world.running("ns:9877", in_background=False) as link:
        await link.route("T", timeout_s=1.0)
        link.doubt("T")
        assert link.kept("T") is None


async def test_forget(world: World, namesrv: NameServer) -> None:
    """A broker said that it does not serve the topic: the next one who wants it asks."""
    async with world.running("ns:9877") as link:
        await world.done("T")
        link.forget("T")
        link.forget("never heard of")
        await world.done("T")
    assert namesrv.asked == ["T", "T"]


async def test_the_least_recently_used_goes(world: World, namesrv: NameServer) -> None:
    """No more than topics_max routes are kept."""
    for topic in "ABCD":
        namesrv.routes[topic] = [queue_data("a")]
    async with world.running("ns:9877") as link:
        for topic in "ABCAD":
            await world.done(topic)
        assert link.topic_count == 3
        assert [topic for topic in "ABCD" if link.brokers_of(topic)] == ["A", "C", "D"]


async def test_without_a_watch_answers_hold_for_a_while_only(world: World, namesrv: NameServer) -> None:
    """Nobody would tell that they are wrong."""
    async with world.running("ns:9877", in_background=False) as link:
        await world.done("T")
        await world.clock.run_for(UNWATCHED_S - 1)
        await world.done("T")
        assert namesrv.asked == ["T"]
        await world.clock.run_for(2.0)
        await world.done("T")
        assert namesrv.asked == ["T", "T"]
        assert not link.is_watching


async def test_a_watch_resumes(world: World, namesrv: NameServer) -> None:
    """After a loss it tells what it saw last, so that nothing has to be asked for again."""
    async with world.running("ns:9877") as link:
        await world.done("T")
        seen = namesrv.revision
        world.network.cut("ns:9877")
        await world.clock.run_for(0.5)
        assert not link.is_watching
        world.network.heal("ns:9877")
        await world.clock.run_for(3 * WATCH_PAUSE_S)
        assert link.is_watching
        assert (namesrv.watches[-1].instance, namesrv.watches[-1].revision) == (1, seen)
        await world.done("T")
    assert namesrv.asked == ["T"]


async def test_a_silent_watch_is_lost(world: World, namesrv: NameServer) -> None:
    """A name server that gives no sign of life is given up, and tried again."""
    namesrv.is_silent = True
    async with world.running("ns:9877") as link:
        assert not link.is_watching
        await world.clock.run_for(WATCH_SILENCE_S + 2 * WATCH_PAUSE_S)
    assert len(namesrv.watches) == 2


async def test_the_next_name_server_takes_over(world: World, namesrv: NameServer) -> None:
    """Questions and the watch go to another one when the first is gone; what was kept of the first is asked again."""
    other = NameServer(instance=2)
    other.routes["T"] = [queue_data("c")]
    await other.listen(world.network, 9887)
    async with world.running("ns:9877", "ns:9887"):
        assert await world.done("T") == ["a", "b"]
        assert other.asked == []
        world.network.cut("ns:9877")
        await world.clock.run_for(UNWATCHED_S + 1)
        assert await world.done("T") == ["c"]
        assert other.watches != []
        await world.done("T")
    assert other.asked == ["T"]


async def test_a_name_server_that_is_not_ready_is_passed_over(world: World, namesrv: NameServer) -> None:
    """A refusal is not the end either."""
    namesrv.is_refusing = True
    other = NameServer(instance=2)
    other.routes["T"] = [queue_data("c")]
    await other.listen(world.network, 9887)
    async with world.running("ns:9877", "ns:9887"):
        assert await world.done("T") == ["c"]


async def test_kept_routes_outlive_the_name_servers(world: World, namesrv: NameServer) -> None:
    """While none answers, what was known last is used; a topic that was not known is PROXY_TIMEOUT."""
    async with world.running("ns:9877"):
        await world.done("T")
        world.network.cut("ns:9877")
        await world.clock.run_for(UNWATCHED_S + 1)
        assert await world.done("T") == ["a", "b"]
        with pytest.raises(ProxyError) as raised:
            await world.done("U")
        assert raised.value.code == Code.PROXY_TIMEOUT


async def test_a_question_has_a_deadline(world: World, namesrv: NameServer) -> None:
    """Whoever asks is told in the time that they gave."""
    namesrv.answering.clear()
    async with world.running("ns:9877"):
        begun = world.clock.monotonic()
        with pytest.raises(ProxyError) as raised:
            await world.done("T", timeout_s=0.5)
        assert raised.value.code == Code.PROXY_TIMEOUT
        assert world.clock.monotonic() - begun < 1.0


async def test_questions_have_a_bound(world: World, namesrv: NameServer) -> None:
    """Names come from outside: only so many are asked for at a time."""
    namesrv.answering.clear()
    async with world.running("ns:9877") as link:
        asking = [asyncio.ensure_future(link.route(f"T{n}", timeout_s=0.5)) for n in range(QUESTIONS_MAX + 1)]
        await world.clock.run_for(0.1)
        error = asking[-1].exception()
        assert isinstance(error, ProxyError)
        assert error.code == Code.TOO_MANY_REQUESTS
        assert not any(each.done() for each in asking[:-1])
        await world.clock.run_for(1.0)
        await asyncio.gather(*asking, return_exceptions=True)


# -- making topics


async def test_an_unknown_topic_is_made(world: World, namesrv: NameServer) -> None:
    """A broker of our cluster is asked, and the answer waits until a name server names the topic."""
    asked: list[broker.EnsureTopicRequest] = []

    def ensure(request: broker.EnsureTopicRequest, info: CallInfo) -> broker.EnsureTopicReply:
        asked.append(request)
        return broker.EnsureTopicReply(created=True)

    async def register_later() -> None:
        await world.clock.sleep(0.3)
        namesrv.routes["New"] = [queue_data("inside", "inside:1")]
        await world.tell(namesrv, "New")

    world.ensure = ensure
    namesrv.brokers = {"other": ("OtherCluster", "o:1"), "inside": ("DefaultCluster", "inside:1")}
    async with world.running("ns:9877"):
        registering = asyncio.ensure_future(register_later())
        assert await world.done("New", create=True) == ["inside"]
        await registering
    assert asked == [broker.EnsureTopicRequest(topic="New", queue_nums=4)]


async def test_a_topic_is_not_made_unasked(world: World, namesrv: NameServer) -> None:
    """`create` is the caller's word; without it the topic stays unknown."""
    namesrv.brokers = {"inside": ("DefaultCluster", "inside:1")}
    async with world.running("ns:9877"):
        with pytest.raises(ProxyError):
            await world.done("New")


async def test_a_topic_that_the_broker_does_not_make(world: World, namesrv: NameServer) -> None:
    """The client reads which broker refused, and why."""

    def refuse(request: broker.EnsureTopicRequest, info: CallInfo) -> broker.EnsureTopicReply:
        raise CallRefused(17, "autoCreateTopicEnable is false")

    world.ensure = refuse
    namesrv.brokers = {"inside": ("DefaultCluster", "inside:1")}
    async with world.running("ns:9877"):
        with pytest.raises(ProxyError) as raised:
            await world.done("New", create=True)
    assert raised.value.code == Code.TOPIC_NOT_FOUND
    assert "inside" in raised.value.message
    assert "autoCreateTopicEnable" in raised.value.message


async def test_a_topic_that_no_name_server_names(world: World, namesrv: NameServer) -> None:
    """It was made, but waiting for its route has an end."""
    world.ensure = lambda request, info: broker.EnsureTopicReply(created=True)
    namesrv.brokers = {"inside": ("DefaultCluster", "inside:1")}
    async with world.running("ns:9877"):
        with pytest.raises(ProxyError) as raised:
            await world.done("New", create=True, timeout_s=10.0)
    assert raised.value.code == Code.TOPIC_NOT_FOUND
    assert "try again" in raised.value.message


async def test_no_broker_to_make_a_topic_at(world: World, namesrv: NameServer) -> None:
    """Brokers of other clusters and those without mesh listener can't be asked; the text names the setting."""
    namesrv.brokers = {"other": ("OtherCluster", "o:1"), "apache": ("DefaultCluster", "")}
    async with world.running("ns:9877"):
        with pytest.raises(ProxyError) as raised:
            await world.done("New", create=True)
    assert raised.value.code == Code.TOPIC_NOT_FOUND
    assert "identity.cluster_name" in raised.value.message


# -- brokers


async def test_brokers_are_learnt(world: World, namesrv: NameServer) -> None:
    """From routes, from the cluster's list at start, and from that list again after a change."""
    namesrv.brokers = {"x": ("DefaultCluster", "x:1")}
    async with world.running("ns:9877"):
        assert world.brokers.names == ["inside", "x"]
        await world.done("T")
        assert world.brokers.caller("a").target == "a:10921"
        namesrv.brokers["y"] = ("DefaultCluster", "y:1")
        await world.tell(namesrv, "anything")
        await world.clock.run_for(2.0)
        assert world.brokers.caller("y").target == "y:1"
        asked = namesrv.clusters_asked
        await world.clock.run_for(CLUSTER_INTERVAL_S + 2)
        assert namesrv.clusters_asked > asked


async def test_reached(world: World, namesrv: NameServer) -> None:
    """A process is ready once a name server answered, and not before."""
    world.network.cut("ns:9877")
    async with world.running("ns:9877") as link:
        reached = asyncio.ensure_future(link.wait_reached())
        await world.clock.run_for(5.0)
        assert not reached.done()
        world.network.heal("ns:9877")
        await world.clock.run_for(5.0)
        assert reached.done()
        assert link.cluster is not None


def test_there_must_be_a_name_server(world: World) -> None:
    """An empty list is a mistake in the settings."""
    with pytest.raises(ValueError, match="name server"):
        NameServers([], network=world.network, clock=world.clock, attempt_s=1.0)
