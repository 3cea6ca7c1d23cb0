"""A broker with its listeners and links, as one component of a process.

Start: open the store (in a thread; it recovers), load the tables, listen, register at the name servers. Clients come in
by Remoting, proxies by the mesh; either listener may be off. In a broker set (replication.enabled) the tables are
loaded and the name servers told once the controllers made this broker master.
Stop: leave the name servers, answer who waits, close the listeners, write the tables, close the store with everything
flushed.
"""

import asyncio
import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from apogeemq.broker.assembly import Broker
from apogeemq.broker.config import IGNORED_PROPERTIES, BrokerConfig
from apogeemq.broker.serving import Place, Serving, ServingWorld
from apogeemq.mesh.addresses import advertised_address, is_loopback, split_address
from apogeemq.mesh.call_streams import call_handlers
from apogeemq.mesh.calls import CallTable
from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.config import ListenerConfig
from apogeemq.mesh.embedding import EmbeddedBroker
from apogeemq.mesh.health import Health
from apogeemq.mesh.http import HttpListener, observability_routes
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.network import Handler, Listening, Network
from apogeemq.mesh.service_process import ServiceProgram, World
from apogeemq.mesh.tls import server_ssl_context, server_tls
from apogeemq.mesh.v1.methods import BROKER_CHANNELS
from apogeemq.remoting_codec.aio.access import AccessHook
from apogeemq.remoting_codec.aio.channel import ChannelLimits
from apogeemq.remoting_codec.aio.server import RemotingServer, ServerLimits
from apogeemq.remoting_codec.connection import ConnectionLimits
from apogeemq.remoting_codec.record import encode_host
from apogeemq.store.config import StoreConfig
from apogeemq.store.delivery_times import tags_code_rule
from apogeemq.store.errors import StoreError
from apogeemq.store.files import Disk, RealDisk
from apogeemq.store.message_store import MessageStore
from apogeemq.store.timer_config import TimerConfig
from opentelemetry.trace import Tracer

if TYPE_CHECKING:
    from apogeemq.broker.replicating import Replicating

log = logging.getLogger(__name__)

STOP_GRACE_S = 2.0
"""How long clients may take to read their last answers."""

MESH_STOP_GRACE_S = 0.5
"""The same for proxies, whose streams do not end by themselves."""

HEALTH_INTERVAL_S = 0.5

START_STOP_TIMEOUT_S = 3600.0
"""Opening a store may check many gigabytes; the log shows how far it is."""

STORE, NAMESRV, REMOTING, REPLICATION = "store", "namesrv", "remoting", "replication"
"""Names of the health checks."""

REMOTING_OFF = "off: clients come through a proxy"


class BrokerApp:
    """One broker process's worth: `start`, `stop`, and where it listens.

    Args:
        config: settings.
        network, clock, chance, disk: the world.
        health, registry: where it reports; shared with whoever runs it.
        access: asked before each Remoting request; everybody may do everything without.
        namesrvs: asked at start for the name servers' mesh endpoints; those of the settings without.
        tracer: makes the spans of sampled traces; none without.

    Raises ConfigError when certificates cannot be used.
    """

    def __init__(
        self,
        config: BrokerConfig,
        *,
        network: Network,
        clock: Clock,
        chance: Chance,
        health: Health,
        registry: Registry,
        disk: Disk | None = None,
        access: AccessHook | None = None,
        namesrvs: Callable[[], Sequence[str]] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.config = _with_broker_name(config)
        self.endpoints: dict[str, str] = {}
        self._network = network
        self._clock = clock
        self._chance = chance
        self._disk = disk or RealDisk()
        self._health = health
        self._registry = registry
        self._access = access
        listeners = config.listeners
        self._remoting_tls = server_ssl_context(listeners.remoting.tls)
        self._vip_tls = server_ssl_context(listeners.vip.tls)
        self._http_tls = server_ssl_context(listeners.http.tls)
        self._mesh_tls = server_tls(listeners.mesh.tls)
        self._store: MessageStore | None = None
        self._servers: dict[str, RemotingServer] = {}
        self._mesh: Listening | None = None
        self._http: HttpListener | None = None
        self._place = Place(endpoints=self.endpoints)
        world = ServingWorld(
            network, clock, chance, registry, self._disk, access, tracer, namesrvs or self._configured_namesrvs
        )
        self._serving = Serving(self.config, world, self._place)
        self._replicating: Replicating | None = None
        self._health_task: asyncio.Task[None] | None = None

    @property
    def broker(self) -> Broker:
        """The running broker. RuntimeError before `start` and after `stop`, and while it is not master of its set."""
        if self._serving.broker is None:
            raise RuntimeError("the broker is not started")
        return self._serving.broker

    @property
    def name(self) -> str:
        """The broker's name: what routes call it."""
        return self.config.identity.broker_name

    @property
    def calls(self) -> CallTable:
        """What it answers to services in this process and over the mesh. RuntimeError while it is not started."""
        if self._replicating is None:
            return self.broker.calls
        return self._serving.calls

    def join(self, lifecycle: Lifecycle) -> None:
        """Add this broker to a process's lifecycle."""
        lifecycle.add("broker", start=self.start, stop=self.stop, timeout_s=START_STOP_TIMEOUT_S)

    async def start(self) -> None:
        """Start, in the order that the module names. What a failed start had begun is taken back."""
        for check in (STORE, NAMESRV, REMOTING):
            self._health.set(check, False, "starting")
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop, in the order that the module names; goes on after an error and raises the first one at the end."""
        for check in (STORE, NAMESRV, REMOTING):
            self._health.set(check, False, "stopping")
        errors: list[Exception] = []
        for step in (
            self._stop_replicating,
            self._stop_link,
            self._stop_listeners,
            self._serving.close,
            self._close_store,
            self._stop_http,
        ):
            try:
                await step()
            except Exception as error:
                log.exception("stopping the broker: %s failed", step.__name__)
                errors.append(error)
        if errors:
            raise errors[0]

    async def _start(self) -> None:
        listeners = self.config.listeners
        if listeners.http.enabled:
            self._http = HttpListener(
                listeners.http.host,
                listeners.http.port,
                observability_routes(self._health, self._registry),
                tls=self._http_tls,
            )
            _, port = await self._http.start()
            self.endpoints["http"] = advertised_address(listeners.http, port)
        # Bound first, listening last: the port is part of the store host, which every record carries.
        address = await self._bind_remoting()
        store_host = await _packed_host(address)
        self._place.store_host = store_host
        store = self._store = await self._open_store(store_host)
        self._health.set(STORE, True, self.config.store.path)
        if self.config.replication.enabled or self.config.is_static:
            await self._start_replicating(store, address)
        else:
            await self._serving.prepare(store)
            await self._listen(address, ())
            self._warn_of_open_listeners()
            self._serving.open_doors()
            if not self._serving.namesrvs:
                self._health.set(NAMESRV, True, "no name server is configured")
            await self._serving.announce()
        self._health_task = asyncio.create_task(self._watch_health(store), name="broker-health")

    async def _start_replicating(self, store: MessageStore, address: str) -> None:
        """Open the doors, behind which nobody serves yet, and join the broker set."""
        from apogeemq.broker.replicating import Replicating  # 0.1 s that a broker without a set need not wait
        from apogeemq.broker.replication_metrics import register_replication_metrics
        from apogeemq.broker.static_set import StaticSet

        kind = Replicating if self.config.replication.enabled else StaticSet
        replicating = self._replicating = await kind.open(
            self.config,
            store,
            serving=self._serving,
            endpoints=self.endpoints,
            network=self._network,
            clock=self._clock,
            chance=self._chance,
            disk=self._disk,
        )
        register_replication_metrics(self._registry, replicating.state)
        await self._listen(address, replicating.handlers)
        self._warn_of_open_listeners()
        replicating.start()

    async def _bind_remoting(self) -> str:
        """Take the Remoting port, and give the address that records carry.

        That is the Remoting listener's also when it is off, so that ids stay the same when it is switched on.
        """
        listener = self.config.listeners.remoting
        port = listener.port
        if listener.enabled:
            remoting = self._servers["remoting"] = self._remoting_server(listener, self._remoting_tls)
            _, port = await remoting.bind(listener.host, port)
        return advertised_address(listener, port)

    async def _listen(self, remoting_address: str, more_handlers: Sequence[Handler]) -> None:
        """Let clients and proxies in."""
        listeners = self.config.listeners
        if listeners.remoting.enabled:
            self._servers["remoting"].listen()
            self.endpoints["remoting"] = remoting_address
        if listeners.vip.enabled:
            vip = self._servers["vip"] = self._remoting_server(listeners.vip, self._vip_tls)
            _, port = await vip.start(listeners.vip.host, listeners.vip.port)
            self.endpoints["vip"] = advertised_address(listeners.vip, port)
        if listeners.mesh.enabled:
            handlers = [
                *call_handlers(BROKER_CHANNELS, self._serving.calls, clock=self._clock),
                *more_handlers,
            ]
            self._mesh = await self._network.serve(
                listeners.mesh.host, listeners.mesh.port, handlers, tls=self._mesh_tls
            )
            self.endpoints["mesh"] = advertised_address(listeners.mesh, self._mesh.port)
        self._place.servers.update({name: server.stats for name, server in self._servers.items()})
        self._health.set(REMOTING, True, self.endpoints.get("remoting", REMOTING_OFF))

    async def _watch_health(self, store: MessageStore) -> None:
        """Report what changes by itself: the store's disk, the name servers, the set, a task that ended."""
        while True:
            reason = store.not_writable_reason
            self._health.set(STORE, reason is None, reason or self.config.store.path)
            link, broker = self._serving.link, self._serving.broker
            if link is not None:
                registered = link.registered
                told = ", ".join(
                    f"{target}: {'registered' if ok else 'not reached'}" for target, ok in registered.items()
                )
                self._health.set(NAMESRV, any(registered.values()), told)
            failed = broker.failed_task() if broker is not None else None
            if self._replicating is not None:
                self._health.set(REPLICATION, *self._replicating.health())
                if link is None:
                    self._health.set(NAMESRV, True, "only the master of a set is told to name servers")
                failed = failed or self._replicating.failed_task()
            if failed is not None:
                self._health.set(REMOTING, False, f"the background task {failed} ended")
            await self._clock.sleep(HEALTH_INTERVAL_S)

    def _configured_namesrvs(self) -> list[str]:
        targets = self.config.identity.namesrv_addr.replace(",", ";").split(";")
        return [target.strip() for target in targets if target.strip()]

    def _remoting_server(self, listener: ListenerConfig, tls: ssl.SSLContext | None) -> RemotingServer:
        return RemotingServer(
            self._serving.handle,
            limits=self._server_limits(),
            tls=tls,
            tls_mode=listener.tls.mode,
            on_close=self._serving.channel_closed,
        )

    def _server_limits(self) -> ServerLimits:
        limits = self.config.limits
        return ServerLimits(
            channel=ChannelLimits(
                connection=ConnectionLimits(frame_size_bytes_max=limits.frame_size_bytes_max),
                idle_timeout_s=limits.idle_s,
                slow_reader_timeout_s=limits.slow_reader_s,
                write_buffer_size_bytes_max=limits.write_buffer_bytes_max,
            ),
            connections_max=limits.connections_max,
        )

    async def _open_store(self, store_host: bytes) -> MessageStore:
        """Open the store in a thread. When cancelled, it has the recovery given up and returns once that is so.

        Without that the thread would go on, and the process could not end before the last gigabyte is checked.
        """
        is_given_up = threading.Event()
        opening = asyncio.ensure_future(asyncio.to_thread(self._open_store_blocking, store_host, is_given_up))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            is_given_up.set()
            try:
                self._store = await opening  # too late to be given up: it is closed with everything else
            except (_RecoveryGivenUpError, StoreError, OSError) as error:
                log.warning("stopped while the store was opening: %s", error)
            raise

    def _open_store_blocking(self, store_host: bytes, is_given_up: threading.Event) -> MessageStore:
        """Open the store, which recovers; raises _RecoveryGivenUpError soon after the event was set."""

        def on_progress(scanned_bytes: int, total_bytes: int) -> None:
            if is_given_up.is_set():
                raise _RecoveryGivenUpError(f"recovery was given up after {scanned_bytes >> 20} MiB")
            _log_progress(scanned_bytes, total_bytes)

        settings = self.config.store
        store = MessageStore.open(
            Path(settings.path),
            StoreConfig(
                store_host=store_host,
                flush_interval_ms=settings.flush_interval_ms,
                commit_log_file_size_bytes=settings.commit_log_file_size_bytes,
                consume_queue_file_units=settings.consume_queue_file_size_bytes // 20,
                index_enabled=settings.message_index_enable,
                index_slots=settings.max_hash_slot_num,
                index_entries_max=settings.max_index_num,
                message_size_bytes_max=settings.max_message_size_bytes,
                hot_read_window_bytes=settings.hot_window_bytes,
                disk_stall_limit_ms=settings.disk_stall_limit_ms,
                flush_waiters_max=self.config.limits.waiting_acknowledgements_max,
                disk_limits=settings.disk_limits,
                retention=settings.retention,
                timer=TimerConfig(horizon_ms=self.config.timers.timer_max_delay_sec * 1_000),
            ),
            now_ms=self._clock.now_ms,
            disk=self._disk,
            on_progress=on_progress,
            redispatch_tags_code=tags_code_rule(settings.message_delay_level),
        )
        report = store.recovery
        if not report.clean:
            log.warning("the broker was not stopped in good order; recovery: %s", report)
        return store

    def _warn_of_open_listeners(self) -> None:
        """Say loudly what anybody who reaches this machine can use (architecture §9)."""
        listeners = self.config.listeners
        for name, listener, has_access_control in (
            ("remoting", listeners.remoting, self._access is not None),
            ("vip", listeners.vip, self._access is not None),
            ("mesh", listeners.mesh, False),
        ):
            is_open = listener.enabled and not has_access_control and listener.tls.mode != "enforcing"
            if is_open and not is_loopback(listener.host):
                log.warning(
                    "the listener %s on %s has neither access control nor enforced TLS: whoever reaches it can read "
                    "and write everything; bind it to 127.0.0.1, or set listeners.%s.tls",
                    name,
                    self.endpoints[name],
                    name,
                )

    async def _stop_replicating(self) -> None:
        """Hand the set over first: its next master is to be found before this one leaves the name servers."""
        replicating = self._replicating
        if replicating is not None:
            await replicating.stop()

    async def _stop_link(self) -> None:
        if self._health_task is not None:
            self._health_task.cancel()
            await asyncio.gather(self._health_task, return_exceptions=True)
            self._health_task = None
        link = self._serving.link
        if link is not None:
            await link.stop()

    async def _stop_listeners(self) -> None:
        await self._serving.answer_waiting()
        if self._mesh is not None:
            await self._mesh.stop(MESH_STOP_GRACE_S)
            self._mesh = None
        servers, self._servers = self._servers, {}
        await asyncio.gather(*(server.stop(STOP_GRACE_S) for server in servers.values()))

    async def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            await asyncio.to_thread(store.close)
        replicating, self._replicating = self._replicating, None
        if replicating is not None:
            await replicating.stopped_cleanly()

    async def _stop_http(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.stop()


class _RecoveryGivenUpError(Exception):
    """The process is to stop while the store recovers."""


def _with_broker_name(config: BrokerConfig) -> BrokerConfig:
    """The settings with the broker's name filled in: the host's, cut to what a name may hold."""
    if config.identity.broker_name:
        return config
    name = re.sub(r"[^%|a-zA-Z0-9_-]", "-", socket.gethostname())[:100] or "DEFAULT_BROKER"
    identity = msgspec.structs.replace(config.identity, broker_name=name)
    return msgspec.structs.replace(config, identity=identity)


async def _packed_host(address: str) -> bytes:
    """The advertised address as records carry it. A name is resolved once, at start."""
    host, port = split_address(address)
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return encode_host(str(found[0][4][0]), port)


def _log_progress(scanned_bytes: int, total_bytes: int) -> None:
    if scanned_bytes % (256 << 20) < 1 << 20:
        log.info("recovery: %d of at most %d MiB checked", scanned_bytes >> 20, total_bytes >> 20)


def _make_app(config: BrokerConfig, world: World) -> BrokerApp:
    return BrokerApp(
        config,
        network=world.network,
        clock=world.clock,
        chance=world.chance,
        health=world.health,
        registry=world.registry,
        tracer=world.tracer,
    )


def embed(file: Path | None, environ: Mapping[str, str], settings: Mapping[str, str], world: World) -> EmbeddedBroker:
    """Put a broker together for another service's process (mesh.embedding.EmbeddableFactory). Raises ConfigError."""
    return _make_app(PROGRAM.load_config(file, environ, settings).value, world)


PROGRAM = ServiceProgram(
    name="broker",
    package="apogeemq-broker",
    description="ApogeeMQ broker: takes, keeps and hands out messages.",
    config_type=BrokerConfig,
    log_of=lambda config: config.log,
    ignored=IGNORED_PROPERTIES,
    make_app=_make_app,
    metric_labels=lambda config: {"cluster": config.identity.cluster_name},
)
"""The broker as a program."""
