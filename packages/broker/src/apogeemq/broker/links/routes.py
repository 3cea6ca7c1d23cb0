"""What the name servers know of topics on other brokers, for whoever divides queues here.

An answer is kept for a moment, since all members of a group ask at the same time; and for longer as what to fall back
on while no name server answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence

from apogeemq.broker.core.topics import PERM_READ
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.errors import MeshError
from apogeemq.mesh.network import MeshChannel, Network
from apogeemq.mesh.v1.methods import QUERY_ROUTES
from apogeemq.mesh.v1.routes_pb2 import QueryRoutesRequest, TopicRoute
from apogeemq.remoting_codec.bodies import MessageQueue

FRESH_S = 3.0
"""A member that asks later may see other queues than the first one did, until its next round in 20 s."""

ASK_TIMEOUT_S = 2.0
"""For each name server; Java's client waits 5 s for its assignment."""

TOPICS_KEPT_MAX = 10_000

log = logging.getLogger(__name__)


class RouteLink:
    """Asks the name servers, one after the other until one answers. close() it.

    targets      mesh endpoints "host:port" of the name servers; at least one
    broker_name  whose queues are left out: this broker knows its own better
    """

    def __init__(self, targets: Sequence[str], *, network: Network, clock: Clock, broker_name: str) -> None:
        self._channels: list[MeshChannel] = [network.channel(target) for target in dict.fromkeys(targets)]
        self._clock = clock
        self._broker_name = broker_name
        self._kept: OrderedDict[str, tuple[float, list[MessageQueue]]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[list[MessageQueue] | None]] = {}

    async def queues(self, topic: str) -> list[MessageQueue] | None:
        """Readable queues of the topic on other brokers; None when no name server answered, now or before."""
        kept = self._kept.get(topic)
        if kept is not None and self._clock.monotonic() - kept[0] < FRESH_S:
            return kept[1]
        asking = self._asking.get(topic)
        if asking is None:
            asking = self._asking[topic] = asyncio.create_task(self._ask(topic))
            asking.add_done_callback(lambda _: self._asking.pop(topic, None))
        found = await asyncio.shield(asking)
        if found is None:
            return None if kept is None else kept[1]
        return found

    async def close(self) -> None:
        """Disconnect."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        for channel in self._channels:
            await channel.close()

    async def _ask(self, topic: str) -> list[MessageQueue] | None:
        for channel in list(self._channels):
            try:
                reply = await channel.unary(QUERY_ROUTES, QueryRoutesRequest(topics=[topic]), timeout_s=ASK_TIMEOUT_S)
            except MeshError as error:
                log.info("name server %s did not tell the route of %.300s: %s", channel.target, topic, error)
                self._channels.append(self._channels.pop(self._channels.index(channel)))  # the next one first from now
            else:
                return self._keep(topic, [queue for route in reply.routes for queue in self._queues_of(route)])
        return None

    def _queues_of(self, route: TopicRoute) -> list[MessageQueue]:
        return [
            MessageQueue(route.topic, queues.broker_name, number)
            for queues in route.queues
            if queues.broker_name != self._broker_name and queues.perm & PERM_READ
            for number in range(queues.read_queue_nums)
        ]

    def _keep(self, topic: str, queues: list[MessageQueue]) -> list[MessageQueue]:
        self._kept[topic] = self._clock.monotonic(), queues
        self._kept.move_to_end(topic)
        if len(self._kept) > TOPICS_KEPT_MAX:
            self._kept.popitem(last=False)
        return queues
