"""A proxy with its listeners and links, as components of a process; the only place that wires.

Start: the broker inside (proxyMode=LOCAL), http, the links, the services, the gRPC and the Remoting listener; it is
ready once a name server has answered. Stop: Telemetry streams are ended and waiting receives answered, so that clients
turn to another proxy, then the listeners close, then everything behind them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from apogeemq.mesh.addresses import advertised_address, is_loopback
from apogeemq.mesh.calls import CallTable
from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock, within
from apogeemq.mesh.config import ListenerConfig
from apogeemq.mesh.embedding import EmbeddedBroker, find_embeddable
from apogeemq.mesh.health import Health
from apogeemq.mesh.http import HttpListener, observability_routes
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.network import Listening, Network
from apogeemq.mesh.service_process import ServiceProgram, World
from apogeemq.mesh.tls import server_ssl_context, server_tls
from apogeemq.proxy.config import IGNORED_PROPERTIES, ProxyConfig, ProxyMode
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.faces.grpc.face import MessagingFace
from apogeemq.proxy.faces.grpc.port import Door, DoorLimits, TcpAddress
from apogeemq.proxy.faces.grpc.splice import serve_plain_and_tls
from apogeemq.proxy.faces.remoting.face import RemotingFace
from apogeemq.proxy.faces.remoting.producers import ProducerRequests
from apogeemq.proxy.faces.remoting.routes import RouteRequests
from apogeemq.proxy.faces.remoting.sends import SendRequests
from apogeemq.proxy.faces.remoting.transactions import RemotingProducers, TransactionRequests
from apogeemq.proxy.faces.spans import ServerSpans
from apogeemq.proxy.links.brokers import BrokerLinks
from apogeemq.proxy.links.namesrv import NameServers
from apogeemq.proxy.links.routes import RouteLink, RouteSettings
from apogeemq.proxy.metrics import CallMetrics, register_gauges
from apogeemq.proxy.service.messaging import MessagingService
from apogeemq.remoting_codec.aio.access import AccessHook, AllowAll
from apogeemq.remoting_codec.aio.channel import Channel, ChannelLimits
from apogeemq.remoting_codec.aio.server import RemotingServer, ServerLimits
from apogeemq.remoting_codec.connection import ConnectionLimits
from opentelemetry.trace import Tracer

HEALTH_CHECK = "proxy"
"""Whether a name server was ever reached: kept routes serve on while none answers."""

STOP_GRACE_S = 2.0
"""How long clients may take to read their last answers."""

REACH_WAIT_S = 10.0
"""How long a start waits for the first name server, before it goes on and leaves the link to try further."""

MakeDoor = Callable[[DoorLimits, Clock], Door]

_log = logging.getLogger(__name__)


class ProxyApp:
    """One proxy's worth.

    config         settings
    network, clock, chance, health, registry, tracer  the world, and where it reports
    namesrvs       asked at start for the name servers' mesh endpoints; those of the settings without
    local_brokers  brokers in this process: name → what gives their calls once they are started
    embedded       a broker that this proxy starts and stops with itself
    access         asked before each Remoting request; everybody may do everything without
    make_door      makes what serves gRPC; grpcio's without

    Raises ConfigError when certificates cannot be used.
    """

    def __init__(
        self,
        config: ProxyConfig,
        *,
        network: Network,
        clock: Clock,
        chance: Chance,
        health: Health,
        registry: Registry,
        tracer: Tracer,
        namesrvs: Callable[[], Sequence[str]] | None = None,
        local_brokers: Mapping[str, Callable[[], CallTable]] | None = None,
        embedded: EmbeddedBroker | None = None,
        access: AccessHook | None = None,
        make_door: MakeDoor | None = None,
    ) -> None:
        self._config = config
        self._network = network
        self._clock = clock
        self._health = health
        self._namesrvs = namesrvs or (lambda: config.identity.namesrvs)
        self._embedded = embedded
        self._has_access_control = access is not None
        self._make_door = make_door or _grpcio_door
        self._endpoints: dict[str, str] = {}
        listeners = config.listeners
        grpc_tls = listeners.grpc.tls
        if grpc_tls.mode == "permissive":
            grpc_tls = msgspec.structs.replace(grpc_tls, mode="enforcing")
        self._grpc_tls = server_tls(grpc_tls)
        self._http = HttpListener(
            listeners.http.host,
            listeners.http.port,
            observability_routes(health, registry),
            tls=server_ssl_context(listeners.http.tls),
        )
        local = dict(local_brokers or {})
        if embedded is not None:
            local[embedded.name] = lambda: embedded.calls
        self._brokers = BrokerLinks(
            network=network,
            clock=clock,
            chance=chance,
            tracer=tracer,
            local_brokers=local,
            brokers_max=config.routes.brokers_max,
            gone_s=config.routes.broker_gone_s,
        )
        self._routes = RouteLink(self._brokers, _route_settings(config), clock=clock, chance=chance)
        self._service = MessagingService(
            self._brokers, self._routes, clock=clock, chance=chance, limits=_service_limits(config)
        )
        self._messaging = MessagingFace(
            self._service,
            clock=clock,
            spans=ServerSpans(tracer, "grpc"),
            observe=CallMetrics(registry, "grpc").observe,
            request_timeout_s=config.limits.request_timeout_s,
            telemetry_backlog_max=config.limits.telemetry_backlog_max,
        )
        timeout_s = config.limits.broker_timeout_s
        self._producers = ProducerRequests(self._brokers, lambda: self._brokers.names, timeout_s=timeout_s)
        transactions = TransactionRequests(self._brokers, lambda: self._brokers.names, timeout_s=timeout_s)
        self._service.orphans.doors.append(RemotingProducers(self._producers, lambda: self._brokers.names))
        route_requests = RouteRequests(
            self._routes,
            address=lambda: self._endpoints["remoting"],
            cluster=lambda: self._routes.cluster,
            timeout_s=timeout_s,
        )
        sends = SendRequests(
            self._routes,
            self._brokers,
            clock=clock,
            chance=chance,
            spans=ServerSpans(tracer, "rocketmq"),
            timeout_s=timeout_s,
            master_wait_s=min(timeout_s, config.limits.master_wait_s),
            topic_type=self._service.topic_type if config.topics.message_type_check_enable else None,
        )
        self._remoting_face = RemotingFace(
            {
                **route_requests.functions(),
                **sends.functions(),
                **self._producers.functions(),
                **transactions.functions(),
            },
            access=access or AllowAll(),
            clock=clock,
            observe=CallMetrics(registry, "remoting").observe,
            requests_in_flight_max=config.limits.requests_in_flight_max,
        )
        self._remoting = RemotingServer(
            self._remoting_face.handle,
            limits=_server_limits(config),
            tls=server_ssl_context(listeners.remoting.tls),
            tls_mode=listeners.remoting.tls.mode,
            on_close=self._channel_closed,
        )
        self._grpc: Listening | None = None
        register_gauges(
            registry,
            proxy_mode=config.identity.proxy_mode.value.lower(),
            telemetry_streams=lambda: self._messaging.telemetry_streams,
            topics=lambda: self._routes.topic_count,
            brokers=lambda: len(self._brokers.names),
            questions=lambda: self._service.orphans.questions,
        )
        health.set(HEALTH_CHECK, False, "not started")

    @property
    def endpoints(self) -> dict[str, str]:
        """Where each started listener is reached: name → "host:port". A broker inside has its own, "broker.…"."""
        inside = {} if self._embedded is None else self._embedded.endpoints
        return {**{f"broker.{name}": address for name, address in inside.items()}, **self._endpoints}

    def join(self, lifecycle: Lifecycle) -> None:
        """Add this proxy, and the broker inside, to a process's lifecycle."""
        listeners = self._config.listeners
        if self._embedded is not None:
            self._embedded.join(lifecycle)
        if listeners.http.enabled:
            lifecycle.add("proxy http", start=self._start_http, stop=self._stop_http)
        lifecycle.add("proxy links", start=self._open_links, stop=self._close_links)
        lifecycle.add_task("proxy routes", self._routes.run)
        lifecycle.add_task("proxy clients", self._service.run)
        if listeners.grpc.enabled:
            lifecycle.add("proxy grpc", start=self._start_grpc, stop=self._stop_grpc)
        if listeners.remoting.enabled:
            lifecycle.add("proxy remoting", start=self._start_remoting, stop=self._stop_remoting)
        lifecycle.add("proxy readiness", start=self._become_ready, stop=self._become_unready)
        lifecycle.add_task("proxy health", self._watch_health)

    async def _start_http(self) -> None:
        _, port = await self._http.start()
        self._opened("http", self._config.listeners.http, port, has_access_control=False)

    async def _stop_http(self) -> None:
        del self._endpoints["http"]
        await self._http.stop()

    async def _open_links(self) -> None:
        self._routes.open(
            NameServers(
                self._namesrvs(),
                network=self._network,
                clock=self._clock,
                attempt_s=self._config.limits.broker_timeout_s,
            )
        )

    async def _close_links(self) -> None:
        await self._routes.close()
        await self._brokers.close()

    async def _start_grpc(self) -> None:
        listener = self._config.listeners.grpc
        limits = self._config.limits
        door = self._make_door(
            DoorLimits(
                request_size_bytes_max=limits.request_size_bytes_max,
                calls_max=limits.calls_max,
                connection_idle_s=limits.idle_s,
            ),
            self._clock,
        )
        address = TcpAddress(listener.host, listener.port)
        handlers = self._messaging.handlers
        if self._grpc_tls is not None and listener.tls.mode == "permissive":
            self._grpc = await serve_plain_and_tls(
                door, address, handlers, tls=self._grpc_tls, connections_max=limits.connections_max
            )
        else:
            self._grpc = await door.serve(address, handlers, tls=self._grpc_tls)
        self._opened("grpc", listener, self._grpc.port, has_access_control=False)

    async def _stop_grpc(self) -> None:
        del self._endpoints["grpc"]
        self._messaging.stop()
        if self._grpc is not None:
            await self._grpc.stop(STOP_GRACE_S)

    async def _start_remoting(self) -> None:
        listener = self._config.listeners.remoting
        _, port = await self._remoting.bind(listener.host, listener.port)
        self._opened("remoting", listener, port, has_access_control=self._has_access_control)
        self._remoting.listen()

    async def _stop_remoting(self) -> None:
        await self._remoting_face.stop(STOP_GRACE_S)
        await self._remoting.stop(STOP_GRACE_S)
        await self._producers.stop()
        del self._endpoints["remoting"]

    def _channel_closed(self, channel: Channel) -> None:
        self._producers.channel_closed(channel)

    async def _become_ready(self) -> None:
        try:
            await within(self._clock, REACH_WAIT_S, self._routes.wait_reached())
        except TimeoutError:
            _log.warning("no name server has answered within %g s: this proxy can't serve yet", REACH_WAIT_S)
            self._health.set(HEALTH_CHECK, False, "no name server was reached yet")
        else:
            self._health.set(HEALTH_CHECK, True, "serving")

    async def _become_unready(self) -> None:
        self._health.set(HEALTH_CHECK, False, "stopped")

    async def _watch_health(self) -> None:
        """Become ready later, when the first name server came too late for the start."""
        await self._routes.wait_reached()
        self._health.set(HEALTH_CHECK, True, "serving")
        await asyncio.Event().wait()  # a task of the lifecycle may not end by itself

    def _opened(self, name: str, listener: ListenerConfig, port: int, *, has_access_control: bool) -> None:
        self._endpoints[name] = advertised_address(listener, port)
        _log.info("%s listens on %s, port %d", name, listener.host or "all addresses", port)
        if not is_loopback(listener.host) and not has_access_control and listener.tls.mode != "enforcing":
            _log.warning(
                "ANYBODY who can reach %s port %d of this machine may use its %s listener: it has no access control and"
                " does not demand TLS. Bind it to 127.0.0.1 (listeners.%s.host) or set listeners.%s.tls",
                listener.host,
                port,
                name,
                name,
                name,
            )


def _grpcio_door(limits: DoorLimits, clock: Clock) -> Door:
    from apogeemq.proxy.faces.grpc.door import GrpcioDoor  # slow to import, and not needed for --print-config

    return GrpcioDoor(limits, clock=clock)


def _route_settings(config: ProxyConfig) -> RouteSettings:
    return RouteSettings(
        cluster_name=config.identity.cluster_name,
        auto_create=config.topics.auto_create,
        auto_create_queue_nums=config.topics.auto_create_queue_nums,
        topics_max=config.routes.topics_max,
        unknown_topic_s=config.routes.unknown_topic_ms / 1000,
        question_timeout_s=config.limits.broker_timeout_s,
    )


def _service_limits(config: ProxyConfig) -> Limits:
    limits = config.limits
    return dataclasses.replace(
        Limits(),
        body_size_bytes_max=limits.body_size_bytes_max,
        clients_max=limits.clients_max,
        client_expiry_s=limits.client_expiry_s,
        message_types_checked=config.topics.message_type_check_enable,
        broker_timeout_s=limits.broker_timeout_s,
        master_wait_s=limits.master_wait_s,
    )


def _server_limits(config: ProxyConfig) -> ServerLimits:
    limits = config.limits
    connection = ConnectionLimits(frame_size_bytes_max=limits.frame_size_bytes_max)
    channel = ChannelLimits(connection=connection, idle_timeout_s=limits.idle_s)
    return ServerLimits(channel=channel, connections_max=limits.connections_max)


def _make_app(config: ProxyConfig, world: World) -> ProxyApp:
    return ProxyApp(
        config,
        network=world.network,
        clock=world.clock,
        chance=world.chance,
        health=world.health,
        registry=world.registry,
        tracer=world.tracer,
        embedded=_embedded_broker(config, world) if config.identity.proxy_mode is ProxyMode.LOCAL else None,
    )


def _embedded_broker(config: ProxyConfig, world: World) -> EmbeddedBroker:
    """The broker of proxyMode=LOCAL: by its own settings, but at the proxy's name servers. Raises ConfigError."""
    factory = find_embeddable("broker", asked_by="proxyMode")
    file = Path(config.identity.broker_config) if config.identity.broker_config else None
    # A world of its own: both services have checks and metrics of one name, and its spans shall bear its name.
    own_world = world.beside({"node_type": "broker"})
    return factory(file, os.environ, {"identity.namesrv_addr": config.identity.namesrv_addr}, own_world)


PROGRAM = ServiceProgram(
    name="proxy",
    package="apogeemq-proxy",
    description="ApogeeMQ proxy: the stateless front for gRPC and Remoting clients.",
    config_type=ProxyConfig,
    log_of=lambda config: config.log,
    ignored=IGNORED_PROPERTIES,
    make_app=_make_app,
    metric_labels=lambda config: {"cluster": config.identity.cluster_name},
)
"""The proxy as a program."""
