"""A broker that serves clients: the Broker itself, what counts it, and its place at the name servers.

Without controllers it is opened once, at the start. In a broker set it is opened when an epoch begins that this broker
leads, and closed when it ends: to be promoted is to start on a store that is open already (ADR 0028).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from apogeemq.broker.assembly import Broker
from apogeemq.broker.config import BrokerConfig
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.links.namesrv import BrokerIdentity, NamesrvLink
from apogeemq.broker.links.routes import RouteLink
from apogeemq.broker.metadata_files import metadata_files
from apogeemq.broker.metrics import register_metrics
from apogeemq.broker.reading import Reading
from apogeemq.broker.service.confirmation import Confirmation
from apogeemq.broker.service.table_copies import TOPICS
from apogeemq.mesh.calls import CallTable
from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.network import Network
from apogeemq.remoting_codec.aio.access import AccessHook
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.aio.stats import ServerStats
from apogeemq.remoting_codec.bodies import DataVersion, TopicConfig, TopicConfigSerializeWrapper
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.roles import NOT_MASTER
from apogeemq.store.errors import StoreError
from apogeemq.store.files import Disk
from apogeemq.store.message_store import MessageStore
from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

REGISTER_WAIT_S = 10.0
"""How long a start waits for the first name server, before it goes on and leaves the link to try further."""

AWAY = f"{NOT_MASTER}ask the name server for the broker of this set that is"


@dataclass(frozen=True, slots=True)
class ServingWorld:
    """What a Broker is made with, whoever opens it."""

    network: Network
    clock: Clock
    chance: Chance
    registry: Registry
    disk: Disk
    access: AccessHook | None
    tracer: Tracer | None
    namesrvs: Callable[[], Sequence[str]]


@dataclass(slots=True)
class Place:
    """Where this process listens: filled in as its listeners open."""

    store_host: bytes = b""
    endpoints: dict[str, str] = field(default_factory=dict)
    servers: dict[str, ServerStats] = field(default_factory=dict)


class _CallsOfMaster(CallTable):
    """The calls of the Broker that is open; none while none is."""

    def missing(self, number: int) -> CallRefused:
        """Say that another broker is asked rather, where this one serves nobody."""
        if self.by_number:
            return super().missing(number)
        return CallRefused(ResponseCode.SERVICE_NOT_AVAILABLE, AWAY)


class Serving:
    """The Broker of the moment. `config` has the broker's name filled in."""

    def __init__(self, config: BrokerConfig, world: ServingWorld, place: Place) -> None:
        self.link: NamesrvLink | None = None
        self.namesrvs: tuple[str, ...] = ()
        self.calls: CallTable = _CallsOfMaster((), on_owner_gone=self._owner_gone, tracer=world.tracer)
        self._config = config
        self._world = world
        self._place = place
        self._broker: Broker | None = None
        self._reading: Reading | None = None
        self._reading_link: NamesrvLink | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._metrics: Registry | None = None
        self._routes: RouteLink | None = None

    @property
    def broker(self) -> Broker | None:
        """The Broker; None while this process is not a master."""
        return self._broker

    @property
    def is_open(self) -> bool:
        """Whether clients are let in."""
        return self._is_open

    def targets(self) -> tuple[str, ...]:
        """Mesh endpoints of the name servers."""
        return tuple(self._world.namesrvs())

    async def read_along(
        self, store: MessageStore, broker_id: int, master_epoch: int, is_master_there: Callable[[], bool]
    ) -> None:
        """Serve reads as a slave, and be in the routes under this id; goes on where that is so already."""
        if self._reading is not None:
            return
        try:
            reading = Reading(
                self._config,
                store,
                metadata_files(self._world.disk, Path(self._config.store.path)),
                clock=self._world.clock,
                access=self._world.access,
                is_master_there=is_master_there,
            )
        except (OSError, CodecError, StoreError) as error:
            log.error("this slave serves no reads: its tables can't be read: %s", error)  # noqa: TRY400 — known
            return
        self._reading = reading
        reading.start()
        targets = tuple(self._world.namesrvs())
        if not targets:
            return
        identity = self._identity(broker_id, master_epoch)
        link = self._reading_link = self._namesrv_link(targets, identity, reading.topics)
        await link.start()

    async def read_no_more(self) -> None:
        """The same ends. Name servers are told beside it: a master that begins here puts that place out anyway."""
        reading, self._reading = self._reading, None
        link, self._reading_link = self._reading_link, None
        if link is not None:
            leaving = asyncio.create_task(link.stop(), name="leave-routes")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        if reading is not None:
            await reading.stop()

    async def left(self) -> None:
        """Every name server knows that this broker reads along no more, or did not answer in its time."""
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def take_table(self, name: str, data: bytes) -> None:
        """A table came in from the master. Raises BodyInvalid."""
        if self._reading is not None:
            self._reading.take_table(name, data)
            link = self._reading_link
            if link is not None and name == TOPICS:
                link.topics_changed(TopicConfigSerializeWrapper.decode(data).topic_config_table)

    def _identity(self, broker_id: int, master_epoch: int) -> BrokerIdentity:
        return BrokerIdentity(
            cluster=self._config.identity.cluster_name,
            broker_name=self._config.identity.broker_name,
            broker_id=broker_id,
            incarnation=self._world.clock.now_ms(),
            remoting_address=self._place.endpoints.get("remoting", ""),
            mesh_address=self._place.endpoints.get("mesh", ""),
            master_epoch=master_epoch,
        )

    def _namesrv_link(self, targets: Sequence[str], identity: BrokerIdentity, topics: TopicTable) -> NamesrvLink:
        return NamesrvLink(
            targets,
            network=self._world.network,
            clock=self._world.clock,
            chance=self._world.chance,
            identity=lambda: identity,
            topics=RegisteredTopics(topics),
        )

    async def prepare(
        self,
        store: MessageStore,
        *,
        confirmation: Confirmation | None = None,
        on_table_change: Callable[[str, bytes], None] | None = None,
        until_confirmed: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """Put the Broker together from the store and its tables. Its doors are shut until `open_doors`."""
        world = self._world
        targets = self.namesrvs = tuple(world.namesrvs())
        if targets:
            name = self._config.identity.broker_name
            self._routes = RouteLink(targets, network=world.network, clock=world.clock, broker_name=name)
        broker = self._broker = Broker(
            self._config,
            store,
            metadata_files(world.disk, Path(self._config.store.path)),
            store_host=self._place.store_host,
            clock=world.clock,
            chance=world.chance,
            access=world.access,
            tracer=world.tracer,
            other_brokers=self._routes,
            confirmation=confirmation,
            on_table_change=on_table_change,
            until_confirmed=until_confirmed,
            clients=None if self._reading is None else self._reading.clients,
        )
        await broker.restore()
        await broker.settle_tables()
        broker.start()

    def open_doors(self) -> None:
        """Let requests in."""
        if self._broker is not None:
            self.calls.by_number = self._broker.calls.by_number
            self._is_open = True

    async def announce(self, *, master_epoch: int = 0) -> None:
        """Count it, and register at the name servers.

        Waits a while for the first of them: a broker that is ready can be found.
        """
        broker, targets = self._broker, self.namesrvs
        if broker is None:
            return
        self._metrics = self._world.registry.part()
        register_metrics(self._metrics, broker, self._place.servers)
        if not targets:
            return
        link = self.link = self._namesrv_link(targets, self._identity(0, master_epoch), broker.topics)
        broker.topics.on_change(lambda topics: link.topics_changed([topic.name for topic in topics]))
        await link.start()
        try:
            await link.wait_registered(REGISTER_WAIT_S)
        except TimeoutError:
            log.warning("no name server has answered within %g s: clients can't find this broker yet", REGISTER_WAIT_S)

    async def withdraw(self) -> None:
        """Leave the name servers, and let no request in."""
        self.calls.by_number = {}
        self._is_open = False
        link, self.link = self.link, None
        if link is not None:
            await link.stop()

    async def answer_waiting(self) -> None:
        """Answer those who wait for messages."""
        if self._broker is not None:
            self._broker.pulls.stop()
            await self._broker.popping.polls.stop()

    async def close(self) -> None:
        """Write the tables, and forget the Broker; the store stays open."""
        broker, self._broker = self._broker, None
        metrics, self._metrics = self._metrics, None
        routes, self._routes = self._routes, None
        try:
            if broker is not None:
                await broker.stop()
        finally:
            if metrics is not None:
                self._world.registry.drop(metrics)
            if routes is not None:
                await routes.close()

    def handle(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Serve one Remoting request."""
        if self._broker is not None and self._is_open:
            return self._broker.remoting(channel, command)
        if self._reading is not None and self._reading.serves(command.code):
            return self._reading.handle(channel, command)
        if command.is_oneway:
            return None
        return encode_response_frame(command.opaque, ResponseCode.SERVICE_NOT_AVAILABLE, {}, AWAY)

    def channel_closed(self, channel: Channel) -> None:
        """A client's connection is gone."""
        if self._broker is not None:
            self._broker.channel_closed(channel)
        if self._reading is not None:
            self._reading.channel_closed(channel)

    def _owner_gone(self, owner: Hashable) -> None:
        if self._broker is not None:
            self._broker.owner_gone(owner)


class RegisteredTopics:
    """The topic table as the link to the name servers wants to see it."""

    def __init__(self, topics: TopicTable) -> None:
        self._topics = topics

    @property
    def data_version(self) -> DataVersion:
        """The version of the table now."""
        return self._topics.data_version

    def full_state(self) -> tuple[DataVersion, list[TopicConfig]]:
        """The whole table with its version."""
        return self._topics.data_version, [topic.config for topic in self._topics]

    def find(self, topic: str) -> TopicConfig | None:
        """One topic, or None."""
        found = self._topics.get(topic)
        return None if found is None else found.config
