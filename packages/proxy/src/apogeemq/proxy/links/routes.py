"""Who serves a topic: answers of the name servers, kept for as long as a watch would tell that they are wrong.

An answer is of one name server process (`instance`). While a watch of that process is open, the answer holds until the
watch names its topic; else it holds for UNWATCHED_S only. What no longer holds is asked again when it is needed, and is
still used when no name server answers: brokers that serve a topic rarely stop doing so at that very moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock, within
from apogeemq.mesh.errors import ChannelClosed, MeshError
from apogeemq.mesh.network import ClientStream
from apogeemq.mesh.v1.broker_pb2 import EnsureTopicRequest
from apogeemq.mesh.v1.methods import ENSURE_TOPIC, QUERY_CLUSTER, QUERY_ROUTES
from apogeemq.mesh.v1.routes_pb2 import (
    QueryClusterReply,
    QueryClusterRequest,
    QueryRoutesRequest,
    TopicRoute,
    WatchReply,
    WatchRequest,
)
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.status import error_of
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.links.brokers import MASTER_ID, BrokerLinks
from apogeemq.proxy.links.namesrv import NameServers

UNWATCHED_S = 5.0
"""How long an answer holds that no watch looks after."""

AWAY_S = 10.0
"""How long a route outlives its brokers: the next master of a set takes a second, at most some."""

WATCH_SILENCE_S = 12.0
"""A watch that says nothing for so long is lost: name servers give a sign of life at least every 10 s."""

WATCH_PAUSE_S = 1.0
"""Between two attempts to watch; half of it by lot, so that proxies do not march."""

CLUSTER_INTERVAL_S = 10.0
CLUSTER_PAUSE_S = 1.0
"""How often the list of the cluster's brokers is asked for: at least, and at most while topics change."""

UNKNOWN_TOPICS_MAX = 10_000
"""Topics known not to exist that are kept; their names come from outside, so there is no end to them."""

CREATED_POLL_S = 0.02
"""How often a name server is asked for a topic that was just made."""

QUESTIONS_MAX = 1_000
"""Topics that are asked for, or made, at the same time; one more is refused with TOO_MANY_REQUESTS."""

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """How routes are kept and topics made; see config.py for units and ranges."""

    cluster_name: str
    auto_create: bool
    auto_create_queue_nums: int
    topics_max: int
    unknown_topic_s: float
    question_timeout_s: float


@dataclass(slots=True)
class _Kept:
    """A route, of which name server process, when it was asked for, and whether something has changed since."""

    route: TopicRoute
    instance: int
    asked_at: float
    is_stale: bool = False
    away_since: float | None = None
    """Since when no name server has named a broker of it."""


class RouteLink:
    """Implements ports.Routes. `run` is its background work: it watches, and keeps the list of brokers.

    Where the name servers are is known at the start of the process only: open() comes before all else, close() last.
    """

    def __init__(self, brokers: BrokerLinks, settings: RouteSettings, *, clock: Clock, chance: Chance) -> None:
        self._opened: NameServers | None = None
        self._brokers = brokers
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._asking: dict[str, asyncio.Task[TopicRoute | None]] = {}
        self._making: dict[str, asyncio.Task[TopicRoute]] = {}
        self._changed_while_asking: set[str] = set()
        self._watched_instance = 0
        self._seen = WatchRequest()
        self._cluster: QueryClusterReply | None = None
        self._reached = asyncio.Event()
        self._brokers_changed = asyncio.Event()

    def open(self, namesrvs: NameServers) -> None:
        """Ask these name servers from now on."""
        self._opened = namesrvs

    async def close(self) -> None:
        """Disconnect from the name servers. Idempotent."""
        if self._opened is not None:
            await self._opened.close()

    @property
    def _namesrvs(self) -> NameServers:
        assert self._opened is not None, "the route link is not open"
        return self._opened

    @property
    def topic_count(self) -> int:
        """Topics whose routes are kept."""
        return len(self._kept)

    @property
    def is_watching(self) -> bool:
        """Whether a watch is open, so that kept routes need no asking."""
        return self._watched_instance != 0

    @property
    def cluster(self) -> QueryClusterReply | None:
        """The cluster's brokers as a name server said last; None before it did."""
        return self._cluster

    # -- ports.Routes

    async def route(self, topic: str, *, timeout_s: float, create: bool = False) -> TopicRoute:
        """See ports.Routes.route."""
        route = self.kept(topic)
        if route is not None:
            return route
        may_make = create and self._settings.auto_create
        deadline = self._clock.monotonic() + timeout_s
        if not self._is_known_missing(topic):
            route = await self._ask_once(topic, self._kept.get(topic), deadline)
        if route is None and may_make:
            route = await self._shared(self._making, topic, lambda: self._make(topic), deadline)
        if route is None:
            raise ProxyError(Code.TOPIC_NOT_FOUND, f"no broker serves topic {topic}: create it, or check its name")
        return route

    def kept(self, topic: str) -> TopicRoute | None:
        """See ports.Routes.kept."""
        kept = self._kept.get(topic)
        if kept is None or not self._holds(kept):
            return None
        self._kept.move_to_end(topic)
        return kept.route

    def brokers_of(self, topic: str) -> Sequence[str]:
        """See ports.Routes.brokers_of."""
        kept = self._kept.get(topic)
        return [] if kept is None else [queue.broker_name for queue in kept.route.queues]

    def forget(self, topic: str) -> None:
        """See ports.Routes.forget."""
        self._changed(topic)

    def doubt(self, topic: str) -> None:
        """See ports.Routes.doubt."""
        kept = self._kept.get(topic)
        if kept is not None and kept.instance != self._watched_instance:
            kept.is_stale = True

    # -- asking

    def _holds(self, kept: _Kept) -> bool:
        if kept.is_stale:
            return False
        if kept.instance == self._watched_instance:
            return True
        return self._clock.monotonic() - kept.asked_at < UNWATCHED_S

    def _is_known_missing(self, topic: str) -> bool:
        until = self._unknown.get(topic)
        if until is None:
            return False
        if until > self._clock.monotonic():
            return True
        del self._unknown[topic]
        return False

    async def _ask_once(self, topic: str, kept: _Kept | None, deadline: float) -> TopicRoute | None:
        """Ask a name server, together with all who want the same; what was kept does when none answers."""
        try:
            return await self._shared(self._asking, topic, lambda: self._ask(topic), deadline)
        except ProxyError as error:
            if kept is None or error.code != Code.PROXY_TIMEOUT:
                raise
            _log.warning("the route of topic %s may be out of date: %s", topic, error.message)
            return kept.route

    async def _shared(
        self, running: dict[str, asyncio.Task[_T]], topic: str, begin: Callable[[], Awaitable[_T]], deadline: float
    ) -> _T:
        """Wait for the one task that does something about a topic; it goes on when this one's time is over."""
        task = running.get(topic)
        if task is None:
            if len(running) >= QUESTIONS_MAX:
                raise ProxyError(
                    Code.TOO_MANY_REQUESTS, f"{QUESTIONS_MAX} topics are asked for at this moment; try again"
                )
            task = running[topic] = asyncio.ensure_future(begin())

            def done(task: asyncio.Task[_T]) -> None:
                running.pop(topic, None)
                if not task.cancelled():
                    task.exception()  # whoever waits has it too; when nobody does any more, it is not news

            task.add_done_callback(done)
        try:
            return await within(self._clock, deadline - self._clock.monotonic(), _await(asyncio.shield(task)))
        except TimeoutError as error:
            raise ProxyError(
                Code.PROXY_TIMEOUT, f"no name server told the route of topic {topic} in time; try again"
            ) from error

    async def _ask(self, topic: str) -> TopicRoute | None:
        """Ask a name server and keep the answer; None when no broker serves the topic."""
        self._changed_while_asking.discard(topic)
        asked_at = self._clock.monotonic()
        reply = await self._namesrvs.ask(
            QUERY_ROUTES, QueryRoutesRequest(topics=[topic]), timeout_s=self._settings.question_timeout_s
        )
        self._reached.set()
        is_stale = topic in self._changed_while_asking
        self._changed_while_asking.discard(topic)
        if not reply.routes or not reply.routes[0].queues:
            return await self._gone(topic, is_stale=is_stale)
        route = _in_order(reply.routes[0])
        for queue in route.queues:
            self._brokers.learn(queue.broker_name, queue.addresses)
        self._unknown.pop(topic, None)
        self._kept[topic] = _Kept(route, reply.instance, asked_at, is_stale)
        self._kept.move_to_end(topic)
        while len(self._kept) > self._settings.topics_max:
            self._kept.popitem(last=False)
        return route

    async def _gone(self, topic: str, *, is_stale: bool) -> TopicRoute | None:
        """What to make of a topic that nobody serves now: its last route, while one of its brokers is away.

        A master that stops in order leaves the routes before the next one of its set is in them.
        """
        kept = self._kept.get(topic)
        now = self._clock.monotonic()
        if kept is not None and (kept.away_since is None or now - kept.away_since < AWAY_S):
            there = {entry.broker_name for entry in (await self._ask_cluster()).brokers}
            if any(queue.broker_name not in there for queue in kept.route.queues):
                if kept.away_since is None:
                    kept.away_since = now
                kept.is_stale = True
                return kept.route
        self._kept.pop(topic, None)
        if not is_stale:
            self._keep_unknown(topic)
        return None

    def _keep_unknown(self, topic: str) -> None:
        self._unknown[topic] = self._clock.monotonic() + self._settings.unknown_topic_s
        self._unknown.move_to_end(topic)
        while len(self._unknown) > UNKNOWN_TOPICS_MAX:
            self._unknown.popitem(last=False)

    # -- making topics

    async def _make(self, topic: str) -> TopicRoute:
        """Have a broker make the topic, and wait until a name server names it."""
        deadline = self._clock.monotonic() + self._settings.question_timeout_s
        broker_name = await self._any_broker()
        request = EnsureTopicRequest(topic=topic, queue_nums=self._settings.auto_create_queue_nums)
        try:
            timeout_s = deadline - self._clock.monotonic()
            await self._brokers.caller(broker_name).call(ENSURE_TOPIC, request, timeout_s=timeout_s)
        except MeshError as error:
            refused = error_of(error)
            text = f"topic {topic} does not exist, and broker {broker_name} did not make it: {refused.message}"
            raise ProxyError(refused.code, text) from error
        pause_s = CREATED_POLL_S
        while self._clock.monotonic() < deadline:
            route = await self._ask(topic)
            if route is not None:
                return route
            await self._clock.sleep(pause_s)
            pause_s *= 2
        raise ProxyError(
            Code.TOPIC_NOT_FOUND,
            f"topic {topic} was made at broker {broker_name}, but no name server names it yet; try again",
        )

    async def _any_broker(self) -> str:
        """The name of a broker of our cluster whose master can be asked."""
        cluster = await self._ask_cluster()
        names = [
            entry.broker_name
            for entry in cluster.brokers
            if entry.cluster == self._settings.cluster_name
            and any(address.broker_id == MASTER_ID and address.mesh_address for address in entry.addresses)
        ]
        if not names:
            raise ProxyError(
                Code.TOPIC_NOT_FOUND,
                f"the topic can't be made: cluster {self._settings.cluster_name} (identity.cluster_name) has no master "
                "with a mesh listener",
            )
        return self._chance.choice(names)

    # -- background

    async def run(self) -> None:
        """Watch, and ask for the brokers from time to time, until cancelled."""
        watching = asyncio.ensure_future(self._watch_for_ever())
        listing = asyncio.ensure_future(self._list_brokers_for_ever())
        try:
            await asyncio.wait({watching, listing}, return_when=asyncio.FIRST_COMPLETED)
            for task in (watching, listing):
                if task.done():
                    task.result()
        finally:
            running: list[asyncio.Future[Any]] = [watching, listing, *self._asking.values(), *self._making.values()]
            for future in running:
                future.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def wait_reached(self) -> None:
        """Wait until a name server has answered for the first time."""
        await self._reached.wait()

    async def _list_brokers_for_ever(self) -> None:
        while True:
            self._brokers_changed.clear()
            try:
                await self._ask_cluster()
            except ProxyError as error:
                _log.debug("the list of brokers is as old as it was: %s", error.message)
            await self._clock.sleep(CLUSTER_PAUSE_S)
            with suppress(TimeoutError):
                await within(self._clock, CLUSTER_INTERVAL_S, _await(self._brokers_changed.wait()))

    async def _ask_cluster(self) -> QueryClusterReply:
        reply = await self._namesrvs.ask(
            QUERY_CLUSTER, QueryClusterRequest(), timeout_s=self._settings.question_timeout_s
        )
        self._reached.set()
        for entry in reply.brokers:
            self._brokers.learn(entry.broker_name, entry.addresses)
        self._brokers.keep_only({entry.broker_name for entry in reply.brokers})
        self._cluster = reply
        return reply

    async def _watch_for_ever(self) -> None:
        while True:
            target = self._namesrvs.current
            try:
                await self._watch(self._namesrvs.watch())
                reason = "it ended the watch"
            except ChannelClosed:
                reason = "the proxy stops"
            except (MeshError, TimeoutError) as error:
                reason = str(error)
            finally:
                self._watched_instance = 0
            self._namesrvs.give_up_on(target, reason)
            await self._clock.sleep(WATCH_PAUSE_S * (1 - self._chance.random() / 2))

    async def _watch(self, stream: ClientStream[WatchRequest, WatchReply]) -> None:
        try:
            await stream.send(self._seen)
            while (reply := await within(self._clock, WATCH_SILENCE_S, _await(stream.receive()))) is not None:
                self._take(reply)
        finally:
            stream.cancel()

    def _take(self, reply: WatchReply) -> None:
        """Note what a name server says has changed."""
        if reply.reset:
            for kept in self._kept.values():
                kept.is_stale = True
            self._changed_while_asking.update(self._asking)
            self._unknown.clear()
        for topic in reply.changed_topics:
            self._changed(topic)
        if reply.reset or reply.changed_topics:  # a broker that comes or goes changes topics, its own ones at least
            self._brokers_changed.set()
        self._watched_instance = reply.instance
        self._seen = WatchRequest(instance=reply.instance, revision=reply.revision)
        self._reached.set()

    def _changed(self, topic: str) -> None:
        kept = self._kept.get(topic)
        if kept is not None:
            kept.is_stale = True
        if topic in self._asking or topic in self._making:
            self._changed_while_asking.add(topic)
        self._unknown.pop(topic, None)


def _in_order(route: TopicRoute) -> TopicRoute:
    """The route with its entries in order of broker name."""
    queues = sorted(route.queues, key=lambda queue: queue.broker_name)
    return TopicRoute(topic=route.topic, queues=queues)


async def _await(awaitable: Awaitable[_T]) -> _T:
    return await awaitable
