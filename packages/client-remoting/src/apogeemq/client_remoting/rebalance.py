"""Which queues this member reads: looked at every 20 s, at once when the group or a route changes, and at the start.

One round: for each topic the queues (route) and the members (one of the topic's brokers), the share of this member
(core/assign.py), then let go what is another's and take up what is ours. A topic for which a question was not answered
stays as it is, and the next round comes after a second.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from apogeemq.client_api.errors import ClientClosed, ConnectionBroken, RouteNotFound
from apogeemq.client_remoting import link
from apogeemq.client_remoting.connection import Connection
from apogeemq.client_remoting.core.assign import allocate_averagely
from apogeemq.client_remoting.core.route_cache import TopicRoute
from apogeemq.client_remoting.core.subscription import Subscription
from apogeemq.client_remoting.instance import ClientInstance
from apogeemq.client_remoting.reading import ASK_TIMEOUT_S, ReadQueues
from apogeemq.remoting_codec.bodies import MessageQueue

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 20.0
SOON_S: Final = 1.0


class Share(NamedTuple):
    """The queues of a topic that are this member's; not final while brokers do not know it as a member yet."""

    queues: frozenset[MessageQueue]
    is_final: bool


class Rebalance:
    """Keeps the queues that are read as the group divides them.

    Args:
        instance: the client at its servers.
        group: the consumer group.
        subscriptions: by topic, the retry topic among them.
        reading: reads them.
    """

    def __init__(
        self, instance: ClientInstance, group: str, subscriptions: Mapping[str, Subscription], reading: ReadQueues
    ) -> None:
        self._instance = instance
        self._group = group
        self._subscriptions = subscriptions
        self._reading = reading
        self._at_start: dict[str, frozenset[MessageQueue]] = {}

    async def run(self) -> None:
        """Round after round, until cancelled."""
        while True:
            self._reading.wish.clear()
            is_settled = await self.round()
            try:
                async with asyncio.timeout(INTERVAL_S if is_settled else SOON_S):
                    await self._reading.wish.wait()
            except TimeoutError:
                pass  # the usual case: nothing has changed

    async def round(self) -> bool:
        """One round; gives whether every question was answered."""
        async with self._reading.changing:
            answered = [await self._balance(subscription) for subscription in self._subscriptions.values()]
        return all(answered)

    # -- one topic

    async def _balance(self, subscription: Subscription) -> bool:
        topic = subscription.topic
        try:
            route = await self._route(topic)
            if route is None:
                return True  # there is nothing to read; a new route wakes us
            share = await self._share(route)
        except link.UNANSWERED as error:
            logger.info("the queues of %s stay as they are: %s", topic, error)
            self._instance.suspect_route(topic)  # whoever does not answer may have a successor by now
            return False
        reading = self._reading
        for queue in [queue for queue in reading.queues if queue.topic == topic and queue not in share.queues]:
            await reading.let_go(queue)
        taken = [
            await reading.take_up(queue, subscription, appeared_later=queue not in self._at_start[topic])
            for queue in sorted(share.queues)
            if queue not in reading
        ]
        return all(taken) and share.is_final

    async def _share(self, route: TopicRoute) -> Share:
        """This member's share of a topic. Raises what is in link.UNANSWERED."""
        client_ids = await self._members(route)
        client_id = self._instance.client_id
        ours = allocate_averagely(route.read_queues, client_ids, client_id)
        return Share(frozenset(ours), client_id in client_ids)

    async def _route(self, topic: str) -> TopicRoute | None:
        """The topic's route; None when there is none. Remembers which queues there were in the beginning."""
        try:
            route = await self._instance.route(topic, ASK_TIMEOUT_S)
        except RouteNotFound as error:
            if error.code is None:
                raise ConnectionBroken(error.text) from error
            route = None
        self._at_start.setdefault(topic, frozenset(route.read_queues if route else ()))
        return route

    async def _members(self, route: TopicRoute) -> list[str]:
        """The group's members, as the first of the topic's brokers says that can be reached.

        All brokers are greeted first: each member must be in the list of whichever broker another member asks.
        """
        addresses = [route.any_address(name) for name in sorted(route.addresses)]
        brokers = [self._instance.broker(address) for address in addresses if address is not None]
        await asyncio.gather(*(_reach(broker) for broker in brokers))
        failure: Exception = ConnectionBroken("the topic has no broker now")
        for broker in [broker for broker in brokers if broker.is_open]:
            try:
                return list(await link.consumer_ids(broker, self._group, ASK_TIMEOUT_S))
            except link.UNANSWERED as error:
                failure = error
        raise failure


async def _reach(broker: Connection) -> None:
    """Connect to a broker if it can be reached; whoever needs it sees whether it is."""
    try:
        await broker.open(ASK_TIMEOUT_S)
    except (ConnectionBroken, ClientClosed) as error:
        logger.info("broker %s is left out of this round: %s", broker.address, error)
