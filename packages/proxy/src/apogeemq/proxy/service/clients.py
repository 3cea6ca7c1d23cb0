"""The clients of this proxy: their settings, Telemetry streams, and memberships at brokers.

A client is known from its first settings, or from its first receive. It is gone

* when it says so (NotifyClientTermination),
* GONE_AFTER_S after its last Telemetry stream was lost, unless a new one is opened or a request comes,
* when nothing came from it for `client_expiry_s`: Telemetry streams that it still has are ended, so that silent ones
  hold nothing for ever, and a client that only slept opens a new one and sends its settings.

What comes from outside is bounded: clients, the streams of each, the size of their settings. Ids without
settings and streams are forgotten first when there are too many, so that whoever makes up ids keeps nobody out.

As long as it is there, its brokers hear of it every BEAT_S, so that groups and producers show their members; then they
are told that it left, and what it was working on is handed to others (`on_gone`).
Source: reference grpc_v2.md §4, client_demands.md, traps.md 29.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from apogeemq.mesh.clock import Clock, within
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.mesh.v1.methods import CLIENT_HEARTBEAT, UNREGISTER_CLIENT
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import (
    CLIENT_TYPE_UNSPECIFIED,
    PRODUCER,
    PUSH_CONSUMER,
    SIMPLE_CONSUMER,
    ClientType,
    Code,
    Settings,
)
from apogeemq.proxy.core.context import RequestContext
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.core.names import full_name, group_of
from apogeemq.proxy.core.producers import ProducerTable
from apogeemq.proxy.core.settings import GroupPolicy, consumer_settings, kept_size_bytes, producer_settings
from apogeemq.proxy.core.status import OK
from apogeemq.proxy.core.validation import check_settings, filter_of
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.ports import Routes
from apogeemq.proxy.service.background import Background
from apogeemq.proxy.service.broker_calls import BrokerCalls
from apogeemq.proxy.service.metadata import Metadata

GONE_AFTER_S = 5.0
BEAT_S = 20.0
SCAN_S = 1.0
SETTINGS_TIMEOUT_S = 1.0
"""What brokers and name servers may take of the 3 s within which a client wants its settings back, each."""
BEATS_AT_ONCE = 32
FLOOD_WINDOW_S = 10.0

_SERVED_TYPES = (PRODUCER, PUSH_CONSUMER, SIMPLE_CONSUMER)
_CONSUME_TYPES = {SIMPLE_CONSUMER: "CONSUME_ACTIVELY", PUSH_CONSUMER: "CONSUME_PASSIVELY"}

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Client:
    """One client of this proxy. Times are monotonic seconds.

    `settings` are the merged ones, None until the client sent its own. `brokers` know of it.
    """

    client_id: str
    language: str
    last_seen: float
    settings: Settings | None = None
    settings_known: asyncio.Event = field(default_factory=asyncio.Event)
    settings_missed: bool = False
    streams: set[TelemetrySession] = field(default_factory=set)
    stream_lost_at: float | None = None
    beat_due: float = 0.0
    brokers: set[str] = field(default_factory=set)
    is_beating: bool = False

    @property
    def client_type(self) -> ClientType:
        """What it is; CLIENT_TYPE_UNSPECIFIED before its settings."""
        return CLIENT_TYPE_UNSPECIFIED if self.settings is None else self.settings.client_type

    @property
    def group(self) -> str:
        """The consumer group as brokers know it; empty for producers."""
        if self.settings is None or not self.settings.HasField("subscription"):
            return ""
        return full_name(self.settings.subscription.group)

    def topics(self) -> list[str]:
        """What it publishes to or subscribes, as brokers know it."""
        if self.settings is None:
            return []
        if self.settings.HasField("publishing"):
            return [full_name(topic) for topic in self.settings.publishing.topics]
        return [full_name(entry.topic) for entry in self.settings.subscription.subscriptions]


class TelemetrySession:
    """One open Telemetry stream of one client. The face calls on_command for one command after another.

    `send` puts a command on the stream, which a client that does not read loses beyond a bound; so commands that can
    wait are sent only while it `has_room`. `end` ends the stream when the client is given up.
    """

    def __init__(
        self,
        service: ClientService,
        client: Client,
        context: RequestContext,
        send: Callable[[v2.TelemetryCommand], None],
        end: Callable[[ProxyError], None],
        has_room: Callable[[], bool],
    ) -> None:
        self.send = send
        self.end = end
        self.has_room = has_room
        self._service = service
        self._client = client
        self._context = context
        self._window_end = 0.0
        self._commands = 0
        self._is_open = True

    async def on_command(self, command: v2.TelemetryCommand) -> None:
        """A command came; what it brings about is sent through the stream's `send`.

        Raises:
            ProxyError: the stream is to be ended with it. TOO_MANY_REQUESTS for more commands than any client has
                reason to send; BAD_REQUEST for none, or one that only servers send; as settings are refused.
        """
        self._count()
        match command.WhichOneof("command"):
            case "settings":
                settings = await self._service.accept_settings(self._context, command.settings)
                self.send(v2.TelemetryCommand(status=OK, settings=settings))
            case "thread_stack_trace" | "verify_message_result" as answer:
                # Answers to commands; this proxy sends none yet, so that it is to one of its forerunner's.
                _log.debug("%s of %s is to no command of ours", answer, self._context.client_id)
            case other:
                raise ProxyError(Code.BAD_REQUEST, f"command: {other or 'none'} is not for a client to send")

    def closed(self) -> None:
        """The stream is over, however it ended. The last call; once more does nothing."""
        if self._is_open:
            self._is_open = False
            self._service.stream_lost(self._client, self)

    def _count(self) -> None:
        now, most = self._service.clock.monotonic(), self._service.limits.commands_per_10_s_max
        if now >= self._window_end:
            self._window_end, self._commands = now + FLOOD_WINDOW_S, 0
        self._commands += 1
        if self._commands > most:
            text = f"more than {most} commands in {FLOOD_WINDOW_S:g} s on one Telemetry stream; it is closed"
            raise ProxyError(Code.TOO_MANY_REQUESTS, text)


class ClientService:
    """All clients, at most `clients_max`. `on_gone` hears the id of each that leaves."""

    def __init__(
        self,
        calls: BrokerCalls,
        routes: Routes,
        metadata: Metadata,
        background: Background,
        clock: Clock,
        limits: Limits,
        *,
        on_gone: Callable[[str], None] = lambda client_id: None,
    ) -> None:
        self.clock = clock
        self.limits = limits
        self._calls = calls
        self._routes = routes
        self._metadata = metadata
        self._background = background
        self._on_gone = on_gone
        self._clients: dict[str, Client] = {}
        self._passing: dict[str, Client] = {}  # those without settings and streams, in the order of their coming
        self._settings_size_bytes = 0
        self.producers: ProducerTable[Client] = ProducerTable()

    def __len__(self) -> int:
        return len(self._clients)

    # ---- requests ----

    def open_telemetry(
        self,
        context: RequestContext,
        send: Callable[[v2.TelemetryCommand], None],
        end: Callable[[ProxyError], None] = lambda error: None,
        has_room: Callable[[], bool] = lambda: True,
    ) -> TelemetrySession:
        """A client's Telemetry stream is open. `send` puts a command on it, `end` ends it; neither waits or raises.

        `has_room` says whether the client has read enough for commands that can wait.

        Raises:
            ProxyError TOO_MANY_REQUESTS: as many clients are known as may be, or this one has as many streams.
        """
        client = self.seen(context)
        if len(client.streams) >= self.limits.streams_per_client_max:
            text = f"x-mq-client-id: this client has {len(client.streams)} Telemetry streams, which is all it may have"
            raise ProxyError(Code.TOO_MANY_REQUESTS, text)
        session = TelemetrySession(self, client, context, send, end, has_room)
        client.streams.add(session)
        client.stream_lost_at = None
        self._passing.pop(client.client_id, None)
        return session

    def seen(self, context: RequestContext) -> Client:
        """A request of this client came: it is there, and known from now on.

        Raises:
            ProxyError TOO_MANY_REQUESTS: it is new, and as many are known as may be.
        """
        now = self.clock.monotonic()
        client = self._clients.get(context.client_id)
        if client is None:
            if len(self._clients) >= self.limits.clients_max:
                self._make_room()
            client = self._clients[context.client_id] = Client(context.client_id, context.language, now)
            self._passing[context.client_id] = client
        client.last_seen = now
        if client.stream_lost_at is not None:
            client.stream_lost_at = now
        return client

    def _make_room(self) -> None:
        """Forget the id that has been without settings and streams for longest.

        Raises:
            ProxyError TOO_MANY_REQUESTS: there is none.
        """
        if not self._passing:
            text = f"x-mq-client-id: this proxy has {self.limits.clients_max} clients, which is all it may have"
            raise ProxyError(Code.TOO_MANY_REQUESTS, text)
        self._remove(next(iter(self._passing.values())))

    async def settings_of(self, context: RequestContext, wait_s: float) -> Settings | None:
        """A client's merged settings; None when they did not come within `wait_s`, which is waited only once.

        Raises:
            ProxyError TOO_MANY_REQUESTS: as `seen`.
        """
        client = self.seen(context)
        if client.settings is None and not client.settings_missed:
            try:
                await within(self.clock, wait_s, client.settings_known.wait())
            except TimeoutError:
                client.settings_missed = True
        return client.settings

    async def heartbeat(self, request: v2.HeartbeatRequest, context: RequestContext) -> v2.HeartbeatResponse:
        """The client lives.

        Raises:
            ProxyError UNRECOGNIZED_CLIENT_TYPE: no settings are known of it, or it is of a kind that is not served.
            ProxyError ILLEGAL_CONSUMER_GROUP: a consumer that names no group.
        """
        client = self._clients.get(context.client_id)
        if request.client_type not in _SERVED_TYPES:
            text = f"client_type: {int(request.client_type)} is not served; use PRODUCER, PUSH_ or SIMPLE_CONSUMER"
            raise ProxyError(Code.UNRECOGNIZED_CLIENT_TYPE, text)
        if request.client_type != PRODUCER:
            group_of(request.group, "group")
        if client is None or client.settings is None:
            text = f"no settings of {context.client_id} are known; send them on a Telemetry stream first"
            raise ProxyError(Code.UNRECOGNIZED_CLIENT_TYPE, text)
        self.seen(context)
        return v2.HeartbeatResponse(status=OK)

    async def notify_client_termination(
        self, request: v2.NotifyClientTerminationRequest, context: RequestContext
    ) -> v2.NotifyClientTerminationResponse:
        """The client leaves.

        Raises:
            ProxyError UNRECOGNIZED_CLIENT_TYPE: no settings are known of it.
            ProxyError ILLEGAL_CONSUMER_GROUP: a consumer that names no group.
        """
        client = self._clients.get(context.client_id)
        if client is None or client.settings is None:
            text = f"no settings of {context.client_id} are known; it has left already, or never came"
            raise ProxyError(Code.UNRECOGNIZED_CLIENT_TYPE, text)
        if client.group:
            group_of(request.group, "group")
        self._remove(client)
        return v2.NotifyClientTerminationResponse(status=OK)

    async def accept_settings(self, context: RequestContext, settings: Settings) -> Settings:
        """Keep a client's settings, make it known to its brokers, and give what is sent back.

        Brokers that do not answer in time delay that by a second or two, and change nothing else: the group's policy
        is then the default one, and the brokers hear of the client with the next beat.

        Raises:
            ProxyError: as settings are refused. TOO_MANY_REQUESTS: all clients' together would be too large.
        """
        check_settings(settings, self.limits)
        client_type = _client_type(settings)
        merged = Settings()
        merged.CopyFrom(settings)
        merged.client_type = client_type
        if client_type == PRODUCER:
            merged = producer_settings(merged, self.limits)
        else:
            policy = await self._policy(full_name(settings.subscription.group), _subscribed(settings))
            merged = consumer_settings(merged, policy, self.limits)
        client = self.seen(context)  # not earlier: it may have left meanwhile
        self._keep_settings(client, merged)
        if client.is_beating:  # with the former settings; the next scan tells of these, however often they come
            client.beat_due = self.clock.monotonic()
        else:
            client.beat_due = self.clock.monotonic() + BEAT_S
            self._background.start(self._beat(client))
        return merged

    def _keep_settings(self, client: Client, settings: Settings) -> None:
        """Put them in the place of the client's former ones. Raises ProxyError TOO_MANY_REQUESTS."""
        size_bytes = self._settings_size_bytes + kept_size_bytes(settings)
        if client.settings is not None:
            size_bytes -= kept_size_bytes(client.settings)
        if size_bytes > self.limits.all_settings_size_bytes_max:
            text = f"settings: all clients' together are at most {self.limits.all_settings_size_bytes_max} bytes"
            raise ProxyError(Code.TOO_MANY_REQUESTS, text)
        self._settings_size_bytes = size_bytes
        self._passing.pop(client.client_id, None)
        if client.settings is not None:
            self.producers.remove(client.client_id, client.settings)
        client.settings = settings
        self.producers.put(client.client_id, client, settings)
        client.settings_known.set()

    def stream_lost(self, client: Client, session: TelemetrySession) -> None:
        """One of the client's Telemetry streams is over. Nothing comes of it when the client is gone already."""
        client.streams.discard(session)
        if not client.streams:
            client.stream_lost_at = self.clock.monotonic()
            if client.settings is None and self._clients.get(client.client_id) is client:
                self._passing[client.client_id] = client

    def broker_back(self, broker_name: str) -> None:
        """A broker answers again after it was lost: it hears at once of the clients that it may have forgotten."""
        for client in self._clients.values():
            if broker_name in client.brokers:
                client.beat_due = self.clock.monotonic()

    # ---- background ----

    async def run(self) -> None:
        """Expire clients, and tell brokers of the others, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._expire())
            tasks.create_task(self._beat_all())

    async def _expire(self) -> None:
        while True:
            await self.clock.sleep(SCAN_S)
            now = self.clock.monotonic()
            for client in [client for client in self._clients.values() if self._is_gone(client, now)]:
                self._remove(client)
                text = f"nothing came from this client for {self.limits.client_expiry_s:g} s; open the stream again"
                for session in client.streams:
                    session.end(ProxyError(Code.REQUEST_TIMEOUT, text))

    async def _beat_all(self) -> None:
        """Apart from expiry, which brokers that do not answer must not hold up."""
        while True:
            await self.clock.sleep(SCAN_S)
            now = self.clock.monotonic()
            due = [client for client in self._clients.values() if client.beat_due <= now]
            for start in range(0, len(due), BEATS_AT_ONCE):
                await asyncio.gather(*(self._beat(client) for client in due[start : start + BEATS_AT_ONCE]))

    def _is_gone(self, client: Client, now: float) -> bool:
        if client.stream_lost_at is not None and now - client.stream_lost_at >= GONE_AFTER_S:
            return True
        return now - client.last_seen >= self.limits.client_expiry_s

    def _remove(self, client: Client) -> None:
        """Forget a client, and let brokers and renewals know."""
        if self._clients.pop(client.client_id, None) is not None and client.settings is not None:
            self._settings_size_bytes -= kept_size_bytes(client.settings)
            self.producers.remove(client.client_id, client.settings)
        self._passing.pop(client.client_id, None)
        self._on_gone(client.client_id)
        if client.brokers:
            self._background.start(self._unregister(client))

    async def _policy(self, group: str, topics: list[str]) -> GroupPolicy:
        """The group's policy from whatever broker of its topics answers; else the default one."""
        for topic in topics[:1]:
            try:
                route = await self._routes.route(topic, timeout_s=SETTINGS_TIMEOUT_S)
                broker_names = [queues.broker_name for queues in route.queues]
                return await self._metadata.group_policy(group, broker_names, SETTINGS_TIMEOUT_S)
            except ProxyError as error:
                _log.info("group %s gets the default retry policy for now: %s", group, error)
        return GroupPolicy()

    async def _beat(self, client: Client) -> None:
        """Tell the brokers of all its topics that the client lives."""
        client.beat_due = self.clock.monotonic() + BEAT_S
        if client.settings is None:
            return
        client.is_beating = True
        try:
            request = _heartbeat(client)
            broker_names = {name for topic in client.topics() for name in await self._brokers_of(topic)}
            client.brokers |= broker_names
            await asyncio.gather(*(self._tell(name, request) for name in broker_names))
        finally:
            client.is_beating = False

    async def _brokers_of(self, topic: str) -> Iterable[str]:
        try:
            route = await self._routes.route(topic, timeout_s=SETTINGS_TIMEOUT_S)
        except ProxyError:
            return ()  # not there yet: with the beat after its creation
        return [queues.broker_name for queues in route.queues]

    async def _tell(self, broker_name: str, request: mesh.ClientHeartbeatRequest) -> None:
        try:
            await self._calls.call(broker_name, CLIENT_HEARTBEAT, request, timeout_s=SETTINGS_TIMEOUT_S)
        except ProxyError as error:
            _log.debug("%s did not hear of %s: %s", broker_name, request.client_id, error)

    async def _unregister(self, client: Client) -> None:
        heartbeat = _heartbeat(client)
        request = mesh.UnregisterClientRequest(
            client_id=client.client_id,
            producer_groups=heartbeat.producer_groups,
            consumer_groups=[consumer.group for consumer in heartbeat.consumers],
        )
        for broker_name in client.brokers:
            try:
                await self._calls.call(broker_name, UNREGISTER_CLIENT, request, timeout_s=SETTINGS_TIMEOUT_S)
            except ProxyError as error:
                _log.debug("%s did not hear that %s left: %s", broker_name, client.client_id, error)


def _client_type(settings: Settings) -> ClientType:
    """What a client is, by what it says, else by what it does.

    Raises:
        ProxyError UNRECOGNIZED_CLIENT_TYPE: of a kind that is not served, or of another than its settings are for.
    """
    publishes = settings.HasField("publishing")
    if not settings.HasField("client_type"):
        return PRODUCER if publishes else SIMPLE_CONSUMER
    if settings.client_type not in _SERVED_TYPES:
        text = f"settings.client_type: {int(settings.client_type)} is not served"
        raise ProxyError(Code.UNRECOGNIZED_CLIENT_TYPE, text)
    if publishes != (settings.client_type == PRODUCER):
        text = "settings.client_type: producers have publishing settings, consumers a subscription"
        raise ProxyError(Code.UNRECOGNIZED_CLIENT_TYPE, text)
    return settings.client_type


def _subscribed(settings: Settings) -> list[str]:
    return [full_name(entry.topic) for entry in settings.subscription.subscriptions]


def _heartbeat(client: Client) -> mesh.ClientHeartbeatRequest:
    """What brokers are told: producers by one group per topic, named like it; consumers by group and subscriptions."""
    request = mesh.ClientHeartbeatRequest(client_id=client.client_id, language=client.language)
    if client.settings is None:
        return request
    if client.client_type == PRODUCER:
        request.producer_groups.extend(client.topics())
        return request
    request.consumers.add(
        group=client.group,
        consume_type=_CONSUME_TYPES[client.client_type],
        message_model="CLUSTERING",
        consume_from_where="CONSUME_FROM_LAST_OFFSET",
        subscriptions=[
            mesh.ClientHeartbeatRequest.SubscriptionData(
                topic=full_name(entry.topic), expression_type=wanted.expression_type, sub_string=wanted.expression
            )
            for entry in client.settings.subscription.subscriptions
            for wanted in [filter_of(entry.expression)]
        ],
    )
    return request
