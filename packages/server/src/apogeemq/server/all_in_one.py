"""Every service in one process: they share the event loop and nothing else, and talk as they would between machines.

But for one hop: the proxy asks the broker beside it straight, without a connection (`LocalCaller`).
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from apogeemq.broker.app import PROGRAM as BROKER
from apogeemq.broker.app import BrokerApp
from apogeemq.broker.config import BrokerConfig, IdentityConfig, StoreSettings
from apogeemq.broker.config import ListenersConfig as BrokerListeners
from apogeemq.controller.config import ListenersConfig as ControllerListeners
from apogeemq.mesh.addresses import join_address, split_address
from apogeemq.mesh.config import ListenerConfig, Loaded
from apogeemq.mesh.errors import ConfigError
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.service_process import (
    MakeWorld,
    ServiceApp,
    print_ready_line,
    serve_until_signal,
)
from apogeemq.namesrv.app import PROGRAM as NAMESRV
from apogeemq.namesrv.config import ListenersConfig as NamesrvListeners
from apogeemq.namesrv.config import NamesrvConfig
from apogeemq.proxy.app import PROGRAM as PROXY
from apogeemq.proxy.app import ProxyApp
from apogeemq.proxy.config import IdentityConfig as ProxyIdentity
from apogeemq.proxy.config import ListenersConfig as ProxyListeners
from apogeemq.proxy.config import ProxyConfig
from apogeemq.proxy.config import TopicsConfig as ProxyTopics
from apogeemq.server.welcome import welcome

ListenersT = TypeVar("ListenersT", NamesrvListeners, ControllerListeners, BrokerListeners, ProxyListeners)

LOOPBACK = "127.0.0.1"
PACKAGE = "apogeemq"

_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 — compared with, not bound

_PROCESS_WIDE = ("log.level", "log.json")
_KNOWN_HERE = {"broker": ("identity.namesrv_addr",), "proxy": ("identity.namesrv_addr", "identity.proxy_mode")}
"""What a service has to be told elsewhere, and not here."""


@dataclass(frozen=True, slots=True)
class AllInOneConfig:
    """Settings of all services, each with its origins."""

    namesrv: Loaded[NamesrvConfig]
    broker: Loaded[BrokerConfig]
    proxy: Loaded[ProxyConfig]

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
        """Each service's settings: embedded defaults < file < environment < settings.

        Embedded are: loopback, the broker's name, its store under `data`, topics that gRPC clients make by using them
        as Remoting clients do, and with `free_ports` port 0 everywhere. Raises ConfigError.
        """
        namesrv_defaults = NamesrvConfig(listeners=on_loopback(NamesrvListeners(), free_ports=free_ports))
        broker_defaults = BrokerConfig(
            identity=IdentityConfig(broker_name="broker-a"),
            listeners=on_loopback(BrokerListeners(), free_ports=free_ports),
            store=StoreSettings(path=str(data / "broker")),
        )
        with naming("namesrv"):
            namesrv = NAMESRV.load_config(files["namesrv"], environ, settings["namesrv"], defaults=namesrv_defaults)
            check_broker_can_register(namesrv.value.listeners.mesh)
        with naming("broker"):
            broker = BROKER.load_config(files["broker"], environ, settings["broker"], defaults=broker_defaults)
        proxy_defaults = ProxyConfig(
            identity=ProxyIdentity(cluster_name=broker.value.identity.cluster_name),
            listeners=on_loopback(ProxyListeners(), free_ports=free_ports),
            topics=ProxyTopics(auto_create=True),
        )
        with naming("proxy"):
            proxy = PROXY.load_config(files["proxy"], environ, settings["proxy"], defaults=proxy_defaults)
        return cls(namesrv, broker, proxy)

    @property
    def by_service(self) -> dict[str, Loaded[Any]]:
        """The settings by the service's name, in the order of starting."""
        return {"namesrv": self.namesrv, "broker": self.broker, "proxy": self.proxy}

    def describe(self) -> list[str]:
        """List every setting as it is written after --set, with its origin; secrets masked."""
        return [f"{service}.{line}" for service, loaded in self.by_service.items() for line in loaded.describe()]

    def secret_values(self) -> list[str]:
        """List the secrets that are set, for whoever must keep them out of logs."""
        return [value for loaded in self.by_service.values() for value in loaded.secret_values()]

    def without_effect(self) -> list[str]:
        """List what was set and changes nothing here, with where it was set."""
        found = []
        for service, loaded in self.by_service.items():
            found += [f"{service}: {name}" for name in loaded.ignored]
            for key in (*_KNOWN_HERE.get(service, ()), *_PROCESS_WIDE):
                if loaded.origins[key] != "default":
                    found.append(f"{service}: {key} ({loaded.origins[key]})")
        return found


async def serve(config: AllInOneConfig) -> None:
    """Serve until SIGINT or SIGTERM; what clients talk to starts last and stops first.

    Raises ConfigError and LifecycleError.
    """
    apps: dict[str, ServiceApp] = {}

    def assemble(make_world: MakeWorld, lifecycle: Lifecycle) -> Registry:
        with naming("namesrv"):
            namesrv = NAMESRV.make_app(config.namesrv.value, make_world({"node_type": "namesrv"}))

        def namesrvs() -> list[str]:
            return [dial_address(config.namesrv.value.listeners.mesh, namesrv.endpoints["mesh"])]

        world = make_world({"node_type": "broker", **BROKER.metric_labels(config.broker.value)})
        with naming("broker"):
            broker = BrokerApp(
                config.broker.value,
                network=world.network,
                clock=world.clock,
                chance=world.chance,
                health=world.health,
                registry=world.registry,
                tracer=world.tracer,
                namesrvs=namesrvs,
            )
        proxy = _proxy(config.proxy.value, make_world, namesrvs, broker)
        apps.update(namesrv=namesrv, broker=broker, proxy=proxy)
        for app in apps.values():
            app.join(lifecycle)
        return world.registry

    def say_ready() -> None:
        say_what_listens(config, {service: app.endpoints for service, app in apps.items()})

    await serve_until_signal(PACKAGE, assemble, say_ready)


def _proxy(
    config: ProxyConfig, make_world: MakeWorld, namesrvs: Callable[[], Sequence[str]], broker: BrokerApp
) -> ProxyApp:
    """Put the proxy together, with the broker beside it as one that it asks straight."""
    world = make_world({"node_type": "proxy", **PROXY.metric_labels(config)})
    with naming("proxy"):
        return ProxyApp(
            config,
            network=world.network,
            clock=world.clock,
            chance=world.chance,
            health=world.health,
            registry=world.registry,
            tracer=world.tracer,
            namesrvs=namesrvs,
            local_brokers={broker.name: lambda: broker.calls},
        )


def say_what_listens(config: AllInOneConfig, endpoints: Mapping[str, Mapping[str, str]]) -> None:
    """Tell people and programs, on stdout, that everything serves, and where. `endpoints` are by service."""
    listeners = {f"{service}.{name}": address for service, own in endpoints.items() for name, address in own.items()}
    data = Path(config.broker.value.store.path).resolve()
    sys.stdout.write(welcome(listeners, data, importlib.metadata.version(PACKAGE)))
    print_ready_line(PACKAGE, listeners)


def dial_address(listener: ListenerConfig, advertised: str) -> str:
    """Where this process itself reaches a listener of its own: where it is bound, whatever others are told."""
    host = LOOPBACK if listener.host in _WILDCARDS else listener.host
    return join_address(host, listener.port or split_address(advertised)[1])


def check_broker_can_register(mesh: ListenerConfig) -> None:
    """Raise ConfigError when the broker of this process could not reach the name server of this process."""
    if not mesh.enabled:
        raise ConfigError("listeners.mesh.enabled", "is false, but the broker registers there")
    if mesh.tls.mode != "disabled":
        raise ConfigError("listeners.mesh.tls.mode", f"is {mesh.tls.mode}, but the broker registers without TLS")


@contextmanager
def naming(service: str) -> Iterator[None]:
    """Say in a ConfigError which service's setting is wrong."""
    try:
        yield
    except ConfigError as error:
        key = f"{service}: {error.key}"
        raise ConfigError(key, error.problem, origin=error.origin, nearest=error.nearest) from error


def on_loopback(listeners: ListenersT, *, free_ports: bool, raised_by: int = 0) -> ListenersT:
    """The same listeners on loopback, each on its own port and `raised_by`, or on any free one."""
    changed = {}
    for name in listeners.__struct_fields__:
        listener: ListenerConfig = getattr(listeners, name)
        port = 0 if free_ports else listener.port + raised_by
        changed[name] = msgspec.structs.replace(listener, host=LOOPBACK, port=port)
    return msgspec.structs.replace(listeners, **changed)
