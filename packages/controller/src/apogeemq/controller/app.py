"""A controller put together; the only place that wires. It runs alone (`__main__`) or inside another process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from apogeemq.controller.config import IGNORED_PROPERTIES, ControllerConfig
from apogeemq.controller.core.broker_set import active_key
from apogeemq.controller.core.set_rules import SetRules
from apogeemq.controller.faces.broker_stream import StreamPorts
from apogeemq.controller.faces.mesh import ControllerFace
from apogeemq.controller.links.etcd.client import EtcdClient, boottime_ms
from apogeemq.controller.metrics import ControllerMetrics, Role, observe
from apogeemq.controller.service.broker_sets import BrokerSets
from apogeemq.controller.service.campaign import Campaign
from apogeemq.controller.service.etcd_alarms import EtcdAlarms
from apogeemq.controller.service.set_runner import Ports
from apogeemq.mesh.addresses import advertised_address, is_loopback
from apogeemq.mesh.clock import Clock, SystemClock
from apogeemq.mesh.config import ListenerConfig
from apogeemq.mesh.embedding import EmbeddedService
from apogeemq.mesh.health import Health
from apogeemq.mesh.http import HttpListener, observability_routes
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.network import Listening, Network
from apogeemq.mesh.service_process import ServiceProgram, World
from apogeemq.mesh.tls import server_ssl_context, server_tls
from opentelemetry.trace import NoOpTracer, Tracer

HEALTH_CHECK = "controller"
"""Serves while this controller sees the keys; `etcd` says whether its lease can be kept."""
ETCD_CHECK = "etcd"
STOP_GRACE_S = 2.0
"""How long brokers may take to read what is on its way to them when the controller stops."""

_log = logging.getLogger(__name__)


class ControllerApp:
    """One controller with its listeners.

    What is not handed in is made here: gRPC as the network, the system's clock, no traces, its own health and metrics.
    Raises ConfigError when certificates cannot be used. etcd need not be there at the start: until it answers, the
    controller is not ready and says why.

        app = ControllerApp(ControllerConfig())
        await app.start()
        app.endpoints    # {"mesh": "10.0.0.1:9870", "http": "127.0.0.1:9871"}
        await app.stop()
    """

    def __init__(
        self,
        config: ControllerConfig,
        *,
        network: Network | None = None,
        clock: Clock | None = None,
        health: Health | None = None,
        registry: Registry | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.health = Health() if health is None else health
        self.registry = Registry() if registry is None else registry
        self._config = config
        self._clock: Clock = SystemClock() if clock is None else clock
        self._network = _grpc_network(self.health) if network is None else network
        self._endpoints: dict[str, str] = {}
        self._etcd = EtcdClient(
            config.etcd.members, clock=self._clock, tls=config.etcd.client_tls(), credentials=config.etcd.credentials
        )
        cluster = config.identity.cluster_name
        metrics = ControllerMetrics(self.registry, cluster)
        self._sets = BrokerSets(
            cluster,
            SetRules(unclean=config.election.unclean),
            Ports(
                etcd=self._etcd,
                clock=self._clock,
                elapsed_ms=boottime_ms,
                tracer=NoOpTracer() if tracer is None else tracer,
                metrics=metrics,
                call_timeout_s=config.etcd.call_timeout_ms / 1000,
                broker_ttl_s=config.leases.broker_ttl_s,
            ),
            sets_max=config.limits.broker_sets_max,
            on_standing=self._standing_changed,
            on_watch=self._watch_changed,
        )
        self._face = ControllerFace(
            cluster,
            StreamPorts(self._sets, self._etcd, self._clock, metrics),
            name=lambda: self._endpoints.get("mesh", ""),
            etcd_trouble=self._etcd_trouble,
            streams_max=config.limits.streams_max,
        )
        self._alarms = EtcdAlarms(
            self._etcd,
            self._clock,
            timeout_s=config.etcd.call_timeout_ms / 1000,
            on_change=self._etcd_changed,
        )
        self._http = HttpListener(
            config.listeners.http.host,
            config.listeners.http.port,
            observability_routes(self.health, self.registry),
            tls=server_ssl_context(config.listeners.http.tls),
        )
        self._mesh_tls = server_tls(config.listeners.mesh.tls)
        self._mesh: Listening | None = None
        self._campaign: Campaign | None = None
        self._lifecycle = Lifecycle()
        observe(
            self.registry,
            cluster,
            role=self._role,
            active_brokers=self._active_brokers,
            streams=lambda: self._face.stream_count,
        )
        for check in (HEALTH_CHECK, ETCD_CHECK):
            self.health.set(check, False, "not started")

    @property
    def endpoints(self) -> dict[str, str]:
        """Where each started listener is reached: name → "host:port". Empty before start() and after stop()."""
        return dict(self._endpoints)

    @property
    def is_active(self) -> bool:
        """Whether this controller decides."""
        return self._sets.is_active

    def join(self, lifecycle: Lifecycle) -> None:
        """Add this controller to a process's lifecycle: its failures are then the process's. Instead of start()."""
        if self._config.listeners.http.enabled:
            lifecycle.add("controller http", start=self._start_http, stop=self._stop_http)
        lifecycle.add("etcd client", stop=self._etcd.close)
        lifecycle.add("controller mesh", start=self._start_mesh, stop=self._stop_mesh)
        lifecycle.add("broker sets", stop=self._sets.stop)
        lifecycle.add_task("controller watch", self._sets.watch)
        lifecycle.add("campaign", start=self._start_campaign, stop=self._stop_campaign)
        lifecycle.add_task("etcd alarms", self._alarms.watch)
        lifecycle.add_task("controller deadlines", self._sets.keep_time)

    async def start(self) -> None:
        """Bind all listeners and campaign. Raises LifecycleError, with nothing left bound. Starts only once."""
        self.join(self._lifecycle)
        await self._lifecycle.start()

    async def stop(self) -> None:
        """Resign, so that another controller takes over at once, and end all streams."""
        await self._lifecycle.stop()

    async def _start_http(self) -> None:
        _, port = await self._http.start()
        self._opened("http", self._config.listeners.http, port)

    async def _stop_http(self) -> None:
        del self._endpoints["http"]
        await self._http.stop()

    async def _start_mesh(self) -> None:
        listener = self._config.listeners.mesh
        self._mesh = await self._network.serve(listener.host, listener.port, self._face.handlers, tls=self._mesh_tls)
        self._opened("mesh", listener, self._mesh.port)

    async def _stop_mesh(self) -> None:
        del self._endpoints["mesh"]
        self._face.finish_all()
        if self._mesh is not None:
            await self._mesh.stop(STOP_GRACE_S)

    async def _start_campaign(self) -> None:
        config = self._config
        self._campaign = Campaign(
            self._etcd,
            active_key(config.identity.cluster_name),
            self._endpoints["mesh"],
            ttl_s=config.leases.controller_ttl_s,
            call_timeout_s=config.etcd.call_timeout_ms / 1000,
            elapsed_ms=boottime_ms,
            on_active=self._sets.became_active,
            on_lost=self._sets.lost,
            on_trouble=lambda _: self._etcd_changed(),
        )
        self._sets.campaigned_by(self._campaign)

    async def _stop_campaign(self) -> None:
        for check in (HEALTH_CHECK, ETCD_CHECK):
            self.health.set(check, False, "stopped")
        if self._campaign is not None:
            await self._campaign.stop()

    def _standing_changed(self) -> None:
        self._face.standing_changed()

    def _etcd_trouble(self) -> str:
        """Why etcd cannot be used, or takes no changes; empty where all is well."""
        if self._campaign is None:
            return "not started"
        return self._campaign.trouble or self._alarms.trouble

    def _etcd_changed(self) -> None:
        trouble = self._etcd_trouble()
        self.health.set(ETCD_CHECK, not trouble, trouble or "answers")

    def _watch_changed(self, trouble: str) -> None:
        self.health.set(HEALTH_CHECK, not trouble, trouble or "serving")

    def _role(self) -> Role:
        if self._sets.is_active:
            return Role.LEADER
        return Role.FOLLOWER if self._sets.active_name else Role.CANDIDATE

    def _active_brokers(self) -> Iterable[tuple[str, int]]:
        return [(name, len(runner.alive)) for name, runner in sorted(self._sets.by_name.items())]

    def _opened(self, name: str, listener: ListenerConfig, port: int) -> None:
        self._endpoints[name] = advertised_address(listener, port)
        _log.info("%s listens on %s, port %d", name, listener.host or "all addresses", port)
        if not is_loopback(listener.host) and listener.tls.mode != "enforcing":
            _log.warning(
                "ANYBODY who can reach %s port %d of this machine may use its %s listener: it has no access control and"
                " does not demand TLS. Bind it to 127.0.0.1 (listeners.%s.host) or set listeners.%s.tls",
                listener.host,
                port,
                name,
                name,
                name,
            )


def _grpc_network(health: Health) -> Network:
    from apogeemq.mesh.grpc_network import GrpcNetwork  # slow to import, and not needed where a network is handed in

    return GrpcNetwork(health=health)


def _make_app(config: ControllerConfig, world: World) -> ControllerApp:
    return ControllerApp(
        config,
        network=world.network,
        clock=world.clock,
        health=world.health,
        registry=world.registry,
        tracer=world.tracer,
    )


def embed(file: Path | None, environ: Mapping[str, str], settings: Mapping[str, str], world: World) -> EmbeddedService:
    """Put a controller together for another service (mesh.embedding.EmbeddableFactory). Raises ConfigError."""
    return _make_app(PROGRAM.load_config(file, environ, settings).value, world)


def _metric_labels(config: ControllerConfig) -> dict[str, str]:
    """Java's: its Raft group is the cluster here, and a peer is known by its address."""
    address = advertised_address(config.listeners.mesh, config.listeners.mesh.port)
    return {"address": address, "group": config.identity.cluster_name, "peer_id": address}


PROGRAM = ServiceProgram(
    name="controller",
    package="apogeemq-controller",
    description="ApogeeMQ controller: knows who belongs to a broker set, and elects its master under etcd leases.",
    config_type=ControllerConfig,
    log_of=lambda config: config.log,
    ignored=IGNORED_PROPERTIES,
    make_app=_make_app,
    metric_labels=_metric_labels,
)
"""The controller as a program."""
