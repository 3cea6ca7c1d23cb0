"""What a producer and a consumer have in common: an id, connections, routes, heartbeats, and the tasks that keep them.

Everything runs on the event loop of the `async with`: no thread, no loop of its own.
"""

import asyncio
import logging
import os
import random
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass

from apogeemq.client_api.errors import ClientClosed, ConnectionBroken, RouteNotFound, StartFailed
from apogeemq.client_remoting import link
from apogeemq.client_remoting.connection import Connection, NotSent
from apogeemq.client_remoting.core.addresses import Address, parse_address, parse_addresses
from apogeemq.client_remoting.core.route_cache import RouteCache, TooManyTopics, TopicRoute, borrowed_route, read_route
from apogeemq.client_remoting.name_servers import NameServers, NoNameServer
from apogeemq.remoting_codec.aio.channel import Channel, Handler, Reply
from apogeemq.remoting_codec.aio.client import RemotingClient
from apogeemq.remoting_codec.bodies import HeartbeatData, MessageQueue
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand, request_code_not_supported
from apogeemq.remoting_codec.framing import encode_frame

logger = logging.getLogger(__name__)

HEARTBEAT_INTERVAL_S = 30.0
OVERDUE_INTERVAL_S = 5.0
UNREGISTER_TIMEOUT_S = 1.0
GREETING_TIMEOUT_S = 3.0

_SOMEWHERE = "192.0.2.1"  # an address kept for documentation: only the way to it is looked at

DEFAULT_TOPIC = "TBW102"
"""Its route is that of a topic which brokers make at its first message (autoCreateTopicEnable)."""
DEFAULT_TOPIC_QUEUES = 4
"""How many queues such a topic gets on each broker."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What both clients can be told. `tls` None is plain TCP; `start_timeout_s` bounds the start."""

    tls: ssl.SSLContext | None = None
    start_timeout_s: float = 5.0


@dataclass(slots=True)
class Membership:
    """What a client tells brokers of itself; `beat` makes its heartbeat."""

    beat: Callable[[str], HeartbeatData]
    producer_group: str | None = None
    consumer_group: str | None = None


class ClientInstance:
    """One client at its servers.

    Args:
        address: `host:port;host:port` of the name servers. Raises ValueError when it is not.
        membership: see there.
        settings: see there.
    """

    def __init__(self, address: str, membership: Membership, settings: ClientSettings) -> None:
        self._addresses = parse_addresses(address)
        self._membership = membership
        self._settings = settings
        self._chance = random.Random()  # noqa: S311 — spreads attempts and starting points, keeps no secret
        self.client_id = _client_id(self._addresses[0], self._chance)
        self.routes = RouteCache()
        self._brokers: dict[str, Connection] = {}
        self._asking: dict[str, asyncio.Task[TopicRoute | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._route_wish = asyncio.Event()
        self._name_servers: NameServers | None = None
        self._is_closed = False
        self._requests: dict[int, Handler] = {}
        self.route_listeners: list[Callable[[str], None]] = []

    @property
    def name_server(self) -> Address:
        """The first name server, for spans and messages."""
        return self._addresses[0]

    def chance(self) -> float:
        """A number in [0, 1)."""
        return self._chance.random()

    # -- start and end

    async def start(self) -> None:
        """Reach a name server, and begin to refresh routes and to send heartbeats. Raises StartFailed."""
        connections = [self._connection(address) for address in self._addresses]
        self._name_servers = NameServers(connections, self._chance.randrange(len(connections)))
        try:
            await self._name_servers.open(self._settings.start_timeout_s)
        except NoNameServer as error:
            await self._name_servers.close()
            raise StartFailed(
                f"no name server could be reached within {self._settings.start_timeout_s:g} s: {error}",
                hint="Check the address given to the client, and that a name server runs there.",
            ) from error
        self.run(self._refresh_routes(), "routes")
        self.run(self._send_heartbeats(), "heartbeats")
        self.run(self._cut_overdue(), "overdue")

    async def close(self) -> None:
        """Say good-bye to the brokers and close all connections."""
        if self._is_closed:
            return
        self._is_closed = True
        tasks = [*self._tasks, *self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(self._leave(broker) for broker in self._brokers.values()))
        if self._name_servers is not None:
            await self._name_servers.close()

    def run(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run a task of this client until it ends or the client closes."""
        task = asyncio.create_task(work, name=f"apogeemq {self.client_id} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the client ended: %s", task.get_name(), exc_info=task.exception())

    async def _leave(self, broker: Connection) -> None:
        """Unregister where the client is known, and close."""
        membership = self._membership
        if broker.is_open:
            try:
                await link.unregister_client(
                    broker,
                    self.client_id,
                    membership.producer_group,
                    membership.consumer_group,
                    UNREGISTER_TIMEOUT_S,
                )
            except (ConnectionBroken, ClientClosed, TimeoutError, link.Refusal) as error:
                logger.info("could not unregister at %s, its time-out will do it: %s", broker.address, error)
        await broker.close()

    # -- brokers

    def broker(self, address: str) -> Connection:
        """The connection to a broker; connects when first used."""
        connection = self._brokers.get(address)
        if connection is None:
            connection = self._brokers[address] = self._connection(parse_address(address), greet_as_member=True)
        return connection

    def master(self, queue: MessageQueue) -> Connection:
        """The connection to the master of a queue's broker, by the topic's route as it is known. Raises NotSent."""
        route = self.routes.get(queue.topic)
        address = None if route is None else route.master(queue.broker_name)
        if address is None:
            raise NotSent(f"broker {queue.broker_name} has no master now", broker=queue.broker_name)
        return self.broker(address)

    def _connection(self, address: Address, *, greet_as_member: bool = False) -> Connection:
        if greet_as_member:
            return Connection(
                address, handler=self._serve, tls=self._settings.tls, chance=self.chance, greet=self._greet
            )
        return Connection(address, handler=self._serve, tls=self._settings.tls, chance=self.chance)

    async def _greet(self, client: RemotingClient) -> None:
        """Tell a broker who this is before anything else is asked of it."""
        try:
            await link.heartbeat(client, self._membership.beat(self.client_id))
        except link.Refusal as error:
            raise ConnectionError(f"the broker refused the heartbeat: {error}") from error

    def serve(self, requests: Mapping[int, Handler]) -> None:
        """Have these functions answer what brokers ask, by request code."""
        self._requests.update(requests)

    def _serve(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Answer what a broker asks."""
        answer = self._requests.get(command.code)
        if answer is None:
            return encode_frame(request_code_not_supported(command))
        return answer(channel, command)

    # -- routes

    async def route(self, topic: str, timeout_s: float) -> TopicRoute:
        """The route of a topic, from the cache or asked for. Raises RouteNotFound, ClientClosed."""
        known = self.routes.get(topic)
        if known is not None:
            return known
        self._check_open()
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                route = await asyncio.shield(self._ask(topic))
        except TooManyTopics as error:
            raise RouteNotFound(topic, f"the route of topic {topic} has no place: {error}") from error
        except (NoNameServer, TimeoutError) as error:
            raise RouteNotFound(
                topic,
                f"the route of topic {topic} is not known: {error or 'no name server answered in time'}",
                elapsed_s=loop.time() - started,
                hint="Check that a name server runs at the address given to the client.",
            ) from error
        if route is None:
            raise RouteNotFound(
                topic,
                f"no broker serves topic {topic}",
                code=ResponseCode.TOPIC_NOT_EXIST,
                code_name=ResponseCode.TOPIC_NOT_EXIST.name,
                elapsed_s=loop.time() - started,
                hint="Create the topic, or let brokers do it (autoCreateTopicEnable); a broker that has just started "
                "registers within a moment.",
            )
        return route

    async def route_to_send(self, topic: str, timeout_s: float) -> TopicRoute:
        """The same for a producer: a topic that brokers would make has the route of the default topic."""
        try:
            return await self.route(topic, timeout_s)
        except RouteNotFound as error:
            if error.code is None:
                raise
            try:
                default = await self.route(DEFAULT_TOPIC, timeout_s)
            except RouteNotFound:
                raise error from None
            return borrowed_route(topic, default, DEFAULT_TOPIC_QUEUES)

    def suspect_route(self, topic: str) -> None:
        """A route was seen to be wrong: have it asked for again."""
        self.routes.suspect(topic, asyncio.get_running_loop().time())
        self._route_wish.set()

    def _ask(self, topic: str) -> "asyncio.Task[TopicRoute | None]":
        """Ask a name server; all who want the same route at once share one question."""
        task = self._asking.get(topic)
        if task is None:
            task = self._asking[topic] = asyncio.create_task(self._ask_name_server(topic), name=f"route of {topic}")
            task.add_done_callback(lambda done: self._asked(topic, done))
        return task

    def _asked(self, topic: str, task: "asyncio.Task[TopicRoute | None]") -> None:
        del self._asking[topic]
        if not task.cancelled():
            task.exception()  # whoever still waits gets it; nobody else needs it

    async def _ask_name_server(self, topic: str) -> TopicRoute | None:
        if self._name_servers is None:
            raise ClientClosed("the client was not started: use it with `async with`")
        loop = asyncio.get_running_loop()
        try:
            data = await self._name_servers.route(topic)
        except NoNameServer:
            self.routes.unanswered(topic, loop.time())
            raise
        route = None if data is None else read_route(topic, data)
        if self.routes.take(topic, route, loop.time()):
            self._route_wish.set()  # the refreshing sleeps until the next topic is due, which may be this one now
            for listener in self.route_listeners:
                listener(topic)
        return route

    async def _refresh_routes(self) -> None:
        """Ask again for what is due, for as long as the client lives."""
        loop = asyncio.get_running_loop()
        while True:
            for topic in self.routes.due_topics(loop.time()):
                try:
                    await asyncio.shield(self._ask(topic))
                except (NoNameServer, ClientClosed) as error:
                    logger.info("the route of %s stays as it is: %s", topic, error)
            self._route_wish.clear()
            wait_s = max(self.routes.next_due(loop.time()) - loop.time(), 0.05)
            try:
                async with asyncio.timeout(wait_s):
                    await self._route_wish.wait()
            except TimeoutError:
                pass  # the usual case: nobody was in a hurry

    # -- heartbeats

    async def _send_heartbeats(self) -> None:
        """Keep the client known, and its connections from idling out."""
        while True:
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)
            await self.beat_all()

    async def beat_all(self) -> None:
        """A heartbeat to every broker that is connected."""
        await asyncio.gather(*(self._beat(broker) for broker in self._brokers.values() if broker.is_open))

    async def join(self, addresses: Sequence[str]) -> None:
        """Be known at these brokers: each is greeted with a heartbeat when it is connected to.

        One that cannot be reached is told in the log: it comes with the next heartbeats, or leaves the route.
        """
        await asyncio.gather(*(self._open(self.broker(address)) for address in addresses))

    async def _open(self, broker: Connection) -> None:
        try:
            await broker.open(GREETING_TIMEOUT_S)
        except (ConnectionBroken, ClientClosed) as error:
            logger.info("broker %s is not reached yet: %s", broker.address, error)

    async def _beat(self, broker: Connection) -> None:
        try:
            await link.heartbeat(broker, self._membership.beat(self.client_id))
        except link.UNANSWERED as error:
            logger.info("heartbeat to %s failed: %s", broker.address, error)

    async def _cut_overdue(self) -> None:
        """Cut connections that do not move, and forget brokers that are in no route any more."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(OVERDUE_INTERVAL_S)
            for broker in self._brokers.values():
                broker.cut_overdue(loop.time())
            known = self.routes.addresses()
            for address in [address for address in self._brokers if address not in known]:
                await self._brokers.pop(address).close()

    def _check_open(self) -> None:
        if self._is_closed or self._name_servers is None:
            raise ClientClosed("the client is closed or was not started", hint="Use it with `async with`.")


def _client_id(name_server: Address, chance: random.Random) -> str:
    """`ip@pid#nanoseconds`, as Java's clients in cluster mode; two of one process and moment differ by chance."""
    return f"{local_ip(name_server)}@{os.getpid()}#{time.time_ns()}{chance.randrange(1000):03d}"


def local_ip(towards: Address) -> str:
    """The address that this machine has on the way to another (for a host name: to the world); loopback when it cannot
    be told. Sends nothing and looks no name up.
    """
    for host in (towards.host, _SOMEWHERE):
        try:
            family, kind, protocol, _, target = socket.getaddrinfo(
                host, towards.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
            )[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(target)
                ip: str = probe.getsockname()[0]
                return ip.partition("%")[0]
        except OSError:
            continue
    return "127.0.0.1"
