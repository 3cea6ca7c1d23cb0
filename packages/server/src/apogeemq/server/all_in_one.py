"""Every service in one process: they share the event loop and nothing else, and talk as they would between machines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from apogeemq.broker.app import PROGRAM as BROKER
from apogeemq.broker.app import BrokerApp
from apogeemq.broker.config import BrokerConfig, IdentityConfig, StoreSettings
from apogeemq.broker.config import ListenersConfig as BrokerListeners
from apogeemq.mesh.config import ListenerConfig
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.service_process import MakeWorld, World, print_ready_line, serve_until_signal
from apogeemq.namesrv.app import PROGRAM as NAMESRV
from apogeemq.namesrv.config import ListenersConfig as NamesrvListeners
from apogeemq.namesrv.config import NamesrvConfig

ListenersT = TypeVar("ListenersT", NamesrvListeners, BrokerListeners)

LOOPBACK = "127.0.0.1"
PACKAGE = "apogeemq"
BROKER_START_STOP_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class AllInOneConfig:
    """Settings of all services. The broker finds the name server by itself: its `namesrv_addr` has no effect."""

    namesrv: NamesrvConfig
    broker: BrokerConfig

    @classmethod
    def load(
        cls,
        *,
        data: Path,
        free_ports: bool,
        files: Mapping[str, Path | None],
        environ: Mapping[str, str],
        settings: Mapping[str, Mapping[str, str]],
    ) -> AllInOneConfig:
        """Each service's settings: embedded defaults < file < environment < settings. Raises ConfigError."""
        namesrv_defaults = NamesrvConfig(listeners=_on_loopback(NamesrvListeners(), free_ports=free_ports))
        broker_defaults = BrokerConfig(
            identity=IdentityConfig(broker_name="broker-a"),
            listeners=_on_loopback(BrokerListeners(), free_ports=free_ports),
            store=StoreSettings(path=str(data / "broker")),
        )
        return cls(
            NAMESRV.load_config(files["namesrv"], environ, settings["namesrv"], defaults=namesrv_defaults).value,
            BROKER.load_config(files["broker"], environ, settings["broker"], defaults=broker_defaults).value,
        )


async def serve(config: AllInOneConfig) -> None:
    """Serve until SIGINT or SIGTERM; the broker starts last and stops first. Raises ConfigError and LifecycleError."""
    endpoints: list[Callable[[], Mapping[str, str]]] = []

    def assemble(make_world: MakeWorld, lifecycle: Lifecycle) -> Registry:
        namesrv = NAMESRV.make_app(config.namesrv, make_world({"node_type": "namesrv"}))
        namesrv.join(lifecycle)
        world = make_world({"node_type": "broker", **BROKER.metric_labels(config.broker)})
        broker = EmbeddedBroker(config.broker, world, lambda: namesrv.endpoints["mesh"])
        lifecycle.add("broker", start=broker.start, stop=broker.stop, timeout_s=BROKER_START_STOP_TIMEOUT_S)
        endpoints.append(
            lambda: {
                **{f"namesrv.{name}": address for name, address in namesrv.endpoints.items()},
                **{f"broker.{name}": address for name, address in broker.endpoints.items()},
            }
        )
        return world.registry

    def say_ready() -> None:
        listeners = endpoints[0]()
        sys.stdout.write(welcome(listeners, Path(config.broker.store.path)))
        print_ready_line("apogeemq", listeners)

    await serve_until_signal(PACKAGE, assemble, say_ready)


class EmbeddedBroker:
    """A broker that is put together once the name server's mesh address is known."""

    def __init__(self, config: BrokerConfig, world: World, namesrv_mesh: Callable[[], str]) -> None:
        self._config = config
        self._world = world
        self._namesrv_mesh = namesrv_mesh
        self._app: BrokerApp | None = None

    @property
    def endpoints(self) -> Mapping[str, str]:
        """Where it is reached."""
        return {} if self._app is None else self._app.endpoints

    async def start(self) -> None:
        """Put the broker together and start it."""
        identity = msgspec.structs.replace(self._config.identity, namesrv_addr=self._namesrv_mesh())
        config = msgspec.structs.replace(self._config, identity=identity)
        self._app = BrokerApp(
            config,
            network=self._world.network,
            clock=self._world.clock,
            chance=self._world.chance,
            health=self._world.health,
            registry=self._world.registry,
        )
        await self._app.start()

    async def stop(self) -> None:
        """Stop it."""
        if self._app is not None:
            await self._app.stop()


def welcome(listeners: Mapping[str, str], data: Path) -> str:
    """What a person wants to know at start."""
    rows = "".join(f"  {name:<18} {address}\n" for name, address in listeners.items())
    return (
        f"ApogeeMQ serves.\n{rows}"
        f"  {'data':<18} {data}\n"
        f"Try it: give any RocketMQ Remoting client the name server {listeners['namesrv.remoting']};\n"
        "the first message makes its topic. Ctrl-C stops.\n"
        f"Health: http://{listeners['broker.http']}/readyz   Metrics: http://{listeners['broker.http']}/metrics\n"
    )


def _on_loopback(listeners: ListenersT, *, free_ports: bool) -> ListenersT:
    """The same listeners on loopback, each on its own port or on any free one."""
    changed = {}
    for name in listeners.__struct_fields__:
        listener: ListenerConfig = getattr(listeners, name)
        port = 0 if free_ports else listener.port
        changed[name] = msgspec.structs.replace(listener, host=LOOPBACK, port=port)
    return msgspec.structs.replace(listeners, **changed)
