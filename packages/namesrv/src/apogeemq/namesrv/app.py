"""A name server put together; the only place that wires. It runs alone (`__main__`) or inside another process."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from apogeemq.mesh.addresses import advertised_address, is_loopback
from apogeemq.mesh.chance import Chance, SystemChance
from apogeemq.mesh.clock import Clock, SystemClock
from apogeemq.mesh.config import ListenerConfig
from apogeemq.mesh.embedding import EmbeddedService, find_embeddable
from apogeemq.mesh.health import Health
from apogeemq.mesh.http import HttpListener, observability_routes
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.network import Listening, Network
from apogeemq.mesh.service_process import ServiceProgram, World
from apogeemq.mesh.tls import server_ssl_context, server_tls
from apogeemq.namesrv.config import IGNORED_PROPERTIES, NamesrvConfig
from apogeemq.namesrv.core.registrar import Registrar, RegistrarLimits
from apogeemq.namesrv.core.route_changes import RouteChanges
from apogeemq.namesrv.core.route_table import RouteTable
from apogeemq.namesrv.faces.mesh import RegistrationFace
from apogeemq.namesrv.faces.remoting import RemotingFace
from apogeemq.namesrv.faces.routes import RouteFace
from apogeemq.namesrv.metrics import RequestCounter, observe
from apogeemq.remoting_codec.aio.access import AccessHook, AllowAll
from apogeemq.remoting_codec.aio.channel import ChannelLimits
from apogeemq.remoting_codec.aio.server import RemotingServer, ServerLimits
from apogeemq.remoting_codec.connection import ConnectionLimits

HEALTH_CHECK = "namesrv"
STOP_GRACE_S = 2.0
"""How long peers may take to read what is on its way to them when the name server stops."""

_log = logging.getLogger(__name__)


class NamesrvApp:
    """One name server with its listeners.

    What is not handed in is made here: gRPC as the network, the system's clock and chance, no access control, its own
    health and metrics. Whoever embeds it hands in what the services of the process share. `embedded` is a controller
    that this name server starts and stops with itself. Raises ConfigError when certificates cannot be used.

        app = NamesrvApp(NamesrvConfig())
        await app.start()
        app.endpoints    # {"remoting": "10.0.0.1:9876", "mesh": "10.0.0.1:9877", "http": "127.0.0.1:9878"}
        await app.stop()
    """

    def __init__(
        self,
        config: NamesrvConfig,
        *,
        network: Network | None = None,
        clock: Clock | None = None,
        chance: Chance | None = None,
        access: AccessHook | None = None,
        health: Health | None = None,
        registry: Registry | None = None,
        embedded: EmbeddedService | None = None,
    ) -> None:
        self._embedded = embedded
        self.health = Health() if health is None else health
        self.registry = Registry() if registry is None else registry
        self.table = RouteTable()
        self._config = config
        self._clock: Clock = SystemClock() if clock is None else clock
        self._network = _grpc_network(self.health) if network is None else network
        self._has_access_control = access is not None
        self._endpoints: dict[str, str] = {}
        self._open_at_s = 0.0
        registrar = Registrar(self.table, _registrar_limits(config))
        self._registrations = RegistrationFace(registrar, self._clock)
        self._routes = RouteFace(
            self.table,
            RouteChanges(_instance(SystemChance() if chance is None else chance)),
            self._clock,
            is_waiting=self._is_waiting,
            watchers_max=config.limits.watchers_max,
        )
        face = RemotingFace(
            self.table,
            access=AllowAll() if access is None else access,
            is_waiting=self._is_waiting,
            count=RequestCounter(self.registry).count,
            route_cache_size_bytes=config.limits.route_cache_size_bytes,
        )
        remoting = config.listeners.remoting
        self._remoting = RemotingServer(
            face.handle,
            limits=_server_limits(config),
            tls=server_ssl_context(remoting.tls),
            tls_mode=remoting.tls.mode,
        )
        self._http = HttpListener(
            config.listeners.http.host,
            config.listeners.http.port,
            observability_routes(self.health, self.registry),
            tls=server_ssl_context(config.listeners.http.tls),
        )
        self._mesh_tls = server_tls(config.listeners.mesh.tls)
        self._mesh: Listening | None = None
        self._lifecycle = Lifecycle()
        observe(self.registry, self.table, registrar, self._remoting.stats, lambda: self._routes.watch_count)
        self.health.set(HEALTH_CHECK, False, "not started")

    @property
    def endpoints(self) -> dict[str, str]:
        """Where each started listener is reached: name → "host:port". Empty before start() and after stop().

        A controller inside has its own, "controller.…".
        """
        inside = {} if self._embedded is None else self._embedded.endpoints
        return {**self._endpoints, **{f"controller.{name}": address for name, address in inside.items()}}

    def join(self, lifecycle: Lifecycle) -> None:
        """Add this name server to a process's lifecycle: its failures are then the process's. Instead of start()."""
        listeners = self._config.listeners
        if self._embedded is not None:
            self._embedded.join(lifecycle)
        if listeners.http.enabled:
            lifecycle.add("namesrv http", start=self._start_http, stop=self._stop_http)
        if listeners.mesh.enabled:
            lifecycle.add("namesrv mesh", start=self._start_mesh, stop=self._stop_mesh)
        lifecycle.add_task("namesrv deadlines", self._registrations.keep_time)
        if listeners.remoting.enabled:
            lifecycle.add("namesrv remoting", start=self._start_remoting, stop=self._stop_remoting)
        lifecycle.add("namesrv readiness", start=self._become_ready, stop=self._become_unready)

    async def start(self) -> None:
        """Bind all listeners and serve. Raises LifecycleError, with nothing left bound. Starts only once."""
        self.join(self._lifecycle)
        await self._lifecycle.start()

    async def stop(self) -> None:
        """End all connections and streams. Brokers that were registered look for this name server again."""
        await self._lifecycle.stop()

    async def _start_http(self) -> None:
        _, port = await self._http.start()
        self._opened("http", self._config.listeners.http, port, has_access_control=False)

    async def _stop_http(self) -> None:
        del self._endpoints["http"]
        await self._http.stop()

    async def _start_mesh(self) -> None:
        listener = self._config.listeners.mesh
        handlers = [self._registrations.handler, *self._routes.handlers]
        self._mesh = await self._network.serve(listener.host, listener.port, handlers, tls=self._mesh_tls)
        self._opened("mesh", listener, self._mesh.port, has_access_control=False)

    async def _stop_mesh(self) -> None:
        del self._endpoints["mesh"]
        self._registrations.finish_all()
        self._routes.finish_all()
        if self._mesh is not None:
            await self._mesh.stop(STOP_GRACE_S)

    async def _start_remoting(self) -> None:
        listener = self._config.listeners.remoting
        _, port = await self._remoting.start(listener.host, listener.port)
        self._opened("remoting", listener, port, has_access_control=self._has_access_control)

    async def _stop_remoting(self) -> None:
        del self._endpoints["remoting"]
        await self._remoting.stop(STOP_GRACE_S)

    async def _become_ready(self) -> None:
        registration = self._config.registration
        if registration.need_wait_for_service:
            self._open_at_s = self._clock.monotonic() + registration.wait_for_service_s
        self.health.set(HEALTH_CHECK, True, "serving")

    async def _become_unready(self) -> None:
        self.health.set(HEALTH_CHECK, False, "stopped")

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

    def _is_waiting(self) -> bool:
        return self._clock.monotonic() < self._open_at_s


def _instance(chance: Chance) -> int:
    """Draw the number of this process: watchers that come from another one must be noticed. 0 means none."""
    return 1 + chance.randrange((1 << 63) - 1)


def _grpc_network(health: Health) -> Network:
    from apogeemq.mesh.grpc_network import GrpcNetwork  # slow to import, and not needed where a network is handed in

    return GrpcNetwork(health=health)


def _registrar_limits(config: NamesrvConfig) -> RegistrarLimits:
    return RegistrarLimits(
        brokers_max=config.limits.brokers_max,
        topics_per_broker_max=config.limits.topics_per_broker_max,
        beat_timeout_ms=config.registration.beat_timeout_ms,
        grace_ms=config.registration.grace_ms,
        handshake_timeout_ms=config.registration.handshake_timeout_ms,
    )


def _server_limits(config: NamesrvConfig) -> ServerLimits:
    limits = config.limits
    connection = ConnectionLimits(frame_size_bytes_max=limits.frame_size_bytes_max)
    channel = ChannelLimits(connection=connection, idle_timeout_s=limits.idle_timeout_s)
    return ServerLimits(channel=channel, connections_max=limits.connections_max)


def _make_app(config: NamesrvConfig, world: World) -> NamesrvApp:
    return NamesrvApp(
        config,
        network=world.network,
        clock=world.clock,
        chance=world.chance,
        health=world.health,
        registry=world.registry,
        embedded=_embedded_controller(config, world) if config.controller.enabled else None,
    )


def _embedded_controller(config: NamesrvConfig, world: World) -> EmbeddedService:
    """The controller of enableControllerInNamesrv, by its own settings. Raises ConfigError."""
    factory = find_embeddable("controller", asked_by="enableControllerInNamesrv")
    file = Path(config.controller.config_path) if config.controller.config_path else None
    # A world of its own: both services have metrics and listeners of one name, and its spans shall bear its name.
    return factory(file, os.environ, {}, world.beside({"node_type": "controller"}))


PROGRAM = ServiceProgram(
    name="namesrv",
    package="apogeemq-namesrv",
    description="ApogeeMQ name server: tells clients which brokers serve a topic.",
    config_type=NamesrvConfig,
    log_of=lambda config: config.log,
    ignored=IGNORED_PROPERTIES,
    make_app=_make_app,
    metric_labels=lambda config: {},
)
"""The name server as a program."""
