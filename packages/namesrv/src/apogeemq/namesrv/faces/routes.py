"""The route service: proxies ask who serves a topic, and are told when that changes.

See proto/apogeemq/mesh/v1/routes.proto. A watch holds nothing but the revision that its peer has been told: while the
peer does not read, changes gather in the history of core/route_changes.py, which all watches share.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from apogeemq.mesh.clock import Clock, within
from apogeemq.mesh.errors import MeshError, PeerRefused, RefusalCode
from apogeemq.mesh.network import CallContext, Handler, MeshStream, StreamHandler, UnaryHandler
from apogeemq.mesh.v1 import routes_pb2 as pb
from apogeemq.mesh.v1.methods import QUERY_CLUSTER, QUERY_ROUTES, WATCH_ROUTES
from apogeemq.namesrv.core.route_changes import RouteChanges
from apogeemq.namesrv.core.route_table import RouteChange, RouteTable
from apogeemq.namesrv.core.values import TOPIC_LENGTH_MAX, BrokerIdentity, TopicQueues

QUERY_TOPICS_MAX = 500
"""Topics in one query."""

REPLY_SIZE_BYTES_MAX = 8 * 1024 * 1024
"""Of a query's answer, half of what the mesh carries: who asks for more is told to ask for fewer topics at a time."""

HEARTBEAT_INTERVAL_S = 5.0
"""Longest silence on a watch; peers may count on 10 s."""

OPENING_TIMEOUT_S = 10.0
"""How long the one request of a watch may take."""

SLOW_PEER_TIMEOUT_S = 30.0
"""A peer that takes no message for so long loses its watch."""

WatchStream: TypeAlias = MeshStream[pb.WatchReply, pb.WatchRequest]

_log = logging.getLogger(__name__)


class RouteFace:
    """Answers queries and runs watches.

    is_waiting    tells whether brokers still have to register after a start: routes are then refused, and so are
                  watches, whose reset would have peers drop routes that they could not get again yet
    watchers_max  watches open at a time; one more is refused
    """

    def __init__(
        self,
        table: RouteTable,
        changes: RouteChanges,
        clock: Clock,
        *,
        is_waiting: Callable[[], bool],
        watchers_max: int,
    ) -> None:
        self._table = table
        self._changes = changes
        self._clock = clock
        self._is_waiting = is_waiting
        self._watchers_max = watchers_max
        self._watches: set[asyncio.Task[Any]] = set()
        self._news: set[asyncio.Event] = set()
        self.handlers: list[Handler] = [
            UnaryHandler(QUERY_ROUTES, self._query_routes),
            UnaryHandler(QUERY_CLUSTER, self._query_cluster),
            StreamHandler(WATCH_ROUTES, self._watch),
        ]
        table.add_listener(self._record)

    @property
    def watch_count(self) -> int:
        """Open watches."""
        return len(self._watches)

    def finish_all(self) -> None:
        """End every watch cleanly, as the name server stops; peers then look for it again, or for another one."""
        for watch in self._watches:
            watch.cancel()

    def _record(self, change: RouteChange) -> None:
        self._changes.record(change)
        for news in self._news:
            news.set()

    async def _query_routes(self, request: pb.QueryRoutesRequest, context: CallContext) -> pb.QueryRoutesReply:
        if len(request.topics) > QUERY_TOPICS_MAX:
            raise _invalid(f"topics: {len(request.topics)} in one query; at most {QUERY_TOPICS_MAX} are allowed")
        self._refuse_while_waiting()
        # The revision is that of the beginning: what changes while this answer is made, a watch will tell.
        reply = pb.QueryRoutesReply(instance=self._changes.instance, revision=self._changes.revision)
        size_bytes = 0
        for number, topic in enumerate(request.topics):
            if len(topic) > TOPIC_LENGTH_MAX:
                raise _invalid(f"topics[{number}] has {len(topic)} characters; at most {TOPIC_LENGTH_MAX} are allowed")
            if number:
                await self._clock.sleep(0)  # a route is a look at every broker set: let others run between two
            route = _route(topic, self._table.serving(topic))
            size_bytes += route.ByteSize()
            if size_bytes > REPLY_SIZE_BYTES_MAX:
                raise PeerRefused(
                    RefusalCode.RESOURCE_EXHAUSTED,
                    f"topics: the routes of these {len(request.topics)} are above {REPLY_SIZE_BYTES_MAX} bytes; "
                    "ask for fewer at a time",
                )
            reply.routes.append(route)
        return reply

    async def _query_cluster(self, request: pb.QueryClusterRequest, context: CallContext) -> pb.QueryClusterReply:
        brokers = [
            pb.QueryClusterReply.BrokerEntry(
                cluster=members[0].cluster, broker_name=members[0].broker_name, addresses=_addresses(members)
            )
            for members in self._table.broker_sets()
        ]
        return pb.QueryClusterReply(brokers=brokers, instance=self._changes.instance, revision=self._changes.revision)

    async def _watch(self, stream: WatchStream) -> None:
        """Run one watch until its peer ends it or is lost, or the name server stops."""
        self._refuse_while_waiting()
        if len(self._watches) >= self._watchers_max:
            raise PeerRefused(
                RefusalCode.RESOURCE_EXHAUSTED,
                f"{len(self._watches)} watches are open, the limit (limits.watchers_max) is {self._watchers_max}",
            )
        watch = asyncio.ensure_future(self._serve(stream))
        self._watches.add(watch)
        try:
            await asyncio.wait({watch})
        finally:
            self._watches.discard(watch)
            watch.cancel()
            await asyncio.wait({watch})
        if not watch.cancelled():  # cancelled is how finish_all ends it
            watch.result()

    async def _serve(self, stream: WatchStream) -> None:
        try:
            request = await within(self._clock, OPENING_TIMEOUT_S, _received(stream))
        except TimeoutError as error:
            raise _invalid(f"the request of this watch was not there within {OPENING_TIMEOUT_S:g} s") from error
        if request is None:
            return
        reading = asyncio.ensure_future(_received(stream))
        telling = asyncio.ensure_future(self._tell(stream, request.instance, request.revision))
        try:
            await asyncio.wait({reading, telling}, return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
            elif reading.result() is not None:
                raise _invalid("a watch takes one request; open another stream for another watch")
        except MeshError as error:
            _log.info("watch of routes from %s ended: %s", stream.peer, error)
            raise
        finally:
            for task in (reading, telling):
                task.cancel()
            await asyncio.wait({reading, telling})

    async def _tell(self, stream: WatchStream, instance: int, revision: int) -> None:
        """Send what the peer missed, then what changes, and a sign of life in between; never returns."""
        news = asyncio.Event()
        self._news.add(news)
        try:
            while True:
                news.clear()
                for tidings in self._changes.since(instance, revision):
                    instance, revision = self._changes.instance, tidings.revision
                    reply = pb.WatchReply(
                        instance=instance,
                        revision=revision,
                        reset=tidings.is_reset,
                        changed_topics=tidings.topics,
                    )
                    await self._send(stream, reply)
                await self._wait(news)
        finally:
            self._news.discard(news)

    async def _wait(self, news: asyncio.Event) -> None:
        """Wait for a change, at most HEARTBEAT_INTERVAL_S."""
        try:
            await within(self._clock, HEARTBEAT_INTERVAL_S, news.wait())
        except TimeoutError:
            return

    async def _send(self, stream: WatchStream, reply: pb.WatchReply) -> None:
        try:
            await within(self._clock, SLOW_PEER_TIMEOUT_S, stream.send(reply))
        except TimeoutError as error:
            text = f"this watch took no message for {SLOW_PEER_TIMEOUT_S:g} s; resume from the last revision seen"
            raise PeerRefused(RefusalCode.ABORTED, text) from error

    def _refuse_while_waiting(self) -> None:
        if self._is_waiting():
            raise PeerRefused(RefusalCode.FAILED_PRECONDITION, "name server not ready: brokers still register")


async def _received(stream: WatchStream) -> pb.WatchRequest | None:
    return await stream.receive()


def _invalid(text: str) -> PeerRefused:
    return PeerRefused(RefusalCode.INVALID_ARGUMENT, text)


def _route(topic: str, serving: Iterable[tuple[TopicQueues, list[BrokerIdentity]]]) -> pb.TopicRoute:
    queues = [
        pb.QueueData(
            broker_name=members[0].broker_name,
            cluster=members[0].cluster,
            read_queue_nums=announced.read_queue_nums,
            write_queue_nums=announced.write_queue_nums,
            perm=announced.perm,
            topic_sys_flag=announced.topic_sys_flag,
            addresses=_addresses(members),
        )
        for announced, members in serving
    ]
    return pb.TopicRoute(topic=topic, queues=queues)


def _addresses(members: Iterable[BrokerIdentity]) -> list[pb.BrokerAddress]:
    return [
        pb.BrokerAddress(
            broker_id=member.broker_id,
            remoting_address=member.remoting_address,
            mesh_address=member.mesh_address,
            zone=member.zone,
        )
        for member in members
    ]
