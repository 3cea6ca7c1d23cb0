"""Routes of topics: which queues there are, where the brokers are, and when to ask the name server again.

A table. `take` stores an answer, `is_due` says whether to ask (again), `suspect` that a route was seen to be wrong.
Producers see queues with write permission, consumers queues with read permission. A broker set without a master stays
among the former: the next one is near, and the queue of a message group may not depend on who is master.
Bounded by the topics that the client uses. `now` is of one monotonic clock, in seconds.
"""

from dataclasses import dataclass
from typing import Final

from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.route import MASTER_ID, TopicRouteData

REFRESH_INTERVAL_S: Final = 30.0
"""A known route is asked for again after so long (Apache: pollNameServerInterval)."""
MISSING_INTERVAL_S: Final = 1.0
"""A topic without route is asked for again after so long."""
SUSPECT_INTERVAL_S: Final = 0.25
"""A suspected route is asked for again after so long."""
KEPT_S: Final = 10.0
"""How long a route outlives the name server's word that nobody serves its topic. A master that stops in order leaves
the routes before the next one of its set is in them; Java's clients keep such a route for ever.
"""

TOPICS_MAX: Final = 10_000

_PERM_READ: Final = 4
_PERM_WRITE: Final = 2


@dataclass(frozen=True, slots=True)
class TopicRoute:
    """A topic's route as clients use it. Queues are sorted as Java sorts them; addresses by broker name and id."""

    write_queues: tuple[MessageQueue, ...]
    read_queues: tuple[MessageQueue, ...]
    addresses: dict[str, dict[int, str]]
    clusters: frozenset[str] = frozenset()
    """Those of its brokers."""

    def master(self, broker_name: str) -> str | None:
        """Where the broker's master is; None when it has none now."""
        return self.addresses.get(broker_name, {}).get(MASTER_ID)

    def any_address(self, broker_name: str) -> str | None:
        """Where to read from: the master, else the slave with the lowest id."""
        addresses = self.addresses.get(broker_name)
        return addresses[min(addresses)] if addresses else None


@dataclass(slots=True)
class _Entry:
    route: TopicRoute | None
    due: float
    asked: float
    gone: float | None = None
    """Since when nobody serves the topic."""


class TooManyTopics(Exception):  # noqa: N818 — named like the client's errors
    """The bound of the cache is reached."""


class RouteCache:
    """Topic → route."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def get(self, topic: str) -> TopicRoute | None:
        """The route, however old; None for a topic without one."""
        entry = self._entries.get(topic)
        return None if entry is None else entry.route

    def is_due(self, topic: str, now: float) -> bool:
        """Whether the name server should be asked (again)."""
        entry = self._entries.get(topic)
        return entry is None or now >= entry.due

    def due_topics(self, now: float) -> list[str]:
        """The known topics whose time has come."""
        return [topic for topic, entry in self._entries.items() if now >= entry.due]

    def next_due(self, now: float) -> float:
        """When the next topic is due; a refresh interval from now when there is none."""
        return min((entry.due for entry in self._entries.values()), default=now + REFRESH_INTERVAL_S)

    def take(self, topic: str, route: TopicRoute | None, now: float) -> bool:
        """Store the name server's answer; None: nobody serves the topic. Gives whether anything changed.

        A route that is known stays for KEPT_S then.

        Raises TooManyTopics beyond TOPICS_MAX.
        """
        entry = self._entries.get(topic)
        if entry is None and len(self._entries) >= TOPICS_MAX:
            raise TooManyTopics(f"{TOPICS_MAX} topics are in use already, which is the bound")
        if route is None and entry is not None and entry.route is not None:
            gone = now if entry.gone is None else entry.gone
            if now - gone < KEPT_S:
                self._entries[topic] = _Entry(entry.route, now + MISSING_INTERVAL_S, now, gone)
                return False
        interval_s = MISSING_INTERVAL_S if route is None else REFRESH_INTERVAL_S
        self._entries[topic] = _Entry(route, now + interval_s, now)
        return entry is None or entry.route != route

    def unanswered(self, topic: str, now: float) -> None:
        """No name server answered: what is known stays, and is asked for again soon."""
        entry = self._entries.get(topic)
        if entry is not None:
            entry.due = now + MISSING_INTERVAL_S
            entry.asked = now

    def suspect(self, topic: str, now: float) -> None:
        """The route was seen to be wrong: ask at once, but not more often than every SUSPECT_INTERVAL_S."""
        entry = self._entries.get(topic)
        if entry is not None:
            entry.due = min(entry.due, max(now, entry.asked + SUSPECT_INTERVAL_S))

    def addresses(self) -> set[str]:
        """Every broker address in any route."""
        routes = [entry.route for entry in self._entries.values() if entry.route is not None]
        return {address for route in routes for ids in route.addresses.values() for address in ids.values()}

    def broker_names(self) -> set[str]:
        """Every broker in any route."""
        return {name for entry in self._entries.values() if entry.route is not None for name in entry.route.addresses}


def read_route(topic: str, data: TopicRouteData) -> TopicRoute:
    """The name server's answer as clients use it."""
    addresses = {broker.broker_name: dict(broker.broker_addrs) for broker in data.broker_datas if broker.broker_addrs}
    write_queues: list[MessageQueue] = []
    read_queues: list[MessageQueue] = []
    for queues in data.queue_datas:
        name = queues.broker_name
        if queues.perm & _PERM_WRITE and name in addresses:
            write_queues += [MessageQueue(topic, name, number) for number in range(queues.write_queue_nums)]
        if queues.perm & _PERM_READ and name in addresses:
            read_queues += [MessageQueue(topic, name, number) for number in range(queues.read_queue_nums)]
    clusters = frozenset(broker.cluster for broker in data.broker_datas if broker.cluster)
    return TopicRoute(tuple(sorted(write_queues)), tuple(sorted(read_queues)), addresses, clusters)


def borrowed_route(topic: str, default: TopicRoute, queues_max: int) -> TopicRoute:
    """A route for a topic that brokers will make at its first message: that of the default topic (TBW102), with at
    most `queues_max` queues a broker, which is how many they will make.
    """
    queues = tuple(
        MessageQueue(topic, queue.broker_name, queue.queue_id)
        for queue in default.write_queues
        if queue.queue_id < queues_max
    )
    return TopicRoute(queues, (), default.addresses, default.clusters)
