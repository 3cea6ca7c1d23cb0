"""Every service in one process: they share the event loop and nothing else, and talk as they would between machines."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from apogeemq.broker.app import PROGRAM as BROKER
from apogeemq.broker.app import BrokerApp
from apogeemq.broker.config import BrokerConfig, IdentityConfig, StoreSettings
from apogeemq.broker.config import ListenersConfig as BrokerListeners
from apogeemq.mesh.addresses import join_address, split_address
from apogeemq.mesh.config import ListenerConfig, Loaded
from apogeemq.mesh.errors import ConfigError
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.service_process import MakeWorld, print_ready_line, serve_until_signal
from apogeemq.namesrv.app import PROGRAM as NAMESRV
from apogeemq.namesrv.config import ListenersConfig as NamesrvListeners
from apogeemq.namesrv.config import NamesrvConfig
from apogeemq.server.welcome import welcome

ListenersT = TypeVar("ListenersT", NamesrvListeners, BrokerListeners)

LOOPBACK = "127.0.0.1"
PACKAGE = "apogeemq"

_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 — compared with, not bound

_PROCESS_WIDE = ("log.level", "log.json")
_WITHOUT_EFFECT = {"namesrv": _PROCESS_WIDE, "broker": ("identity.namesrv_addr", *_PROCESS_WIDE)}
"""What a service decides in a process of its own, and not here."""


@dataclass(frozen=True, slots=True)
class AllInOneConfig:
    """Settings of all services, each with its origins."""

    namesrv: Loaded[NamesrvConfig]
    broker: Loaded[BrokerConfig]

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

        Embedded are: loopback, the broker's name, its store under `data`, and with `free_ports` port 0 everywhere.
        Raises ConfigError.
        """
        namesrv_defaults = NamesrvConfig(listeners=_on_loopback(NamesrvListeners(), free_ports=free_ports))
        broker_defaults = BrokerConfig(
            identity=IdentityConfig(broker_name="broker-a"),
            listeners=_on_loopback(BrokerListeners(), free_ports=free_ports),
            store=StoreSettings(path=str(data / "broker")),
        )
        with _naming("namesrv"):
            namesrv = NAMESRV.load_config(files["namesrv"], environ, settings["namesrv"], defaults=namesrv_defaults)
            _check_broker_can_register(namesrv.value.listeners.mesh)
        with _naming("broker"):
            broker = BROKER.load_config(files["broker"], environ, settings["broker"], defaults=broker_defaults)
        return cls(namesrv, broker)

    def describe(self) -> list[str]:
        """List every setting as it is written after --set, with its origin; secrets masked."""
        return [
            *(f"namesrv.{line}" for line in self.namesrv.describe()),
            *(f"broker.{line}" for line in self.broker.describe()),
        ]

    def secret_values(self) -> list[str]:
        """List the secrets that are set, for whoever must keep them out of logs."""
        return self.namesrv.secret_values() + self.broker.secret_values()

    def without_effect(self) -> list[str]:
        """List what was set and changes nothing in this process, with where it was set."""
        found = []
        for service, loaded in (("namesrv", self.namesrv), ("broker", self.broker)):
            found += [f"{service}: {name}" for name in loaded.ignored]
            for key in _WITHOUT_EFFECT[service]:
                if loaded.origins[key] != "default":
                    found.append(f"{service}: {key} ({loaded.origins[key]})")
        return found


async def serve(config: AllInOneConfig) -> None:
    """Serve until SIGINT or SIGTERM; the broker starts last and stops first. Raises ConfigError and LifecycleError."""
    listeners: list[Callable[[], Mapping[str, str]]] = []

    def assemble(make_world: MakeWorld, lifecycle: Lifecycle) -> Registry:
        with _naming("namesrv"):
            namesrv = NAMESRV.make_app(config.namesrv.value, make_world({"node_type": "namesrv"}))
        world = make_world({"node_type": "broker", **BROKER.metric_labels(config.broker.value)})
        with _naming("broker"):
            broker = BrokerApp(
                config.broker.value,
                network=world.network,
                clock=world.clock,
                chance=world.chance,
                health=world.health,
                registry=world.registry,
                namesrvs=lambda: [dial_address(config.namesrv.value.listeners.mesh, namesrv.endpoints["mesh"])],
            )
        namesrv.join(lifecycle)
        broker.join(lifecycle)
        listeners.append(
            lambda: {
                **{f"namesrv.{name}": address for name, address in namesrv.endpoints.items()},
                **{f"broker.{name}": address for name, address in broker.endpoints.items()},
            }
        )
        return world.registry

    def say_ready() -> None:
        data = Path(config.broker.value.store.path).resolve()
        sys.stdout.write(welcome(listeners[0](), data, importlib.metadata.version(PACKAGE)))
        print_ready_line(PACKAGE, listeners[0]())

    await serve_until_signal(PACKAGE, assemble, say_ready)


def dial_address(listener: ListenerConfig, advertised: str) -> str:
    """Where this process itself reaches a listener of its own: where it is bound, whatever others are told."""
    host = LOOPBACK if listener.host in _WILDCARDS else listener.host
    return join_address(host, listener.port or split_address(advertised)[1])


def _check_broker_can_register(mesh: ListenerConfig) -> None:
    """Raise ConfigError when the broker of this process could not reach the name server of this process."""
    if not mesh.enabled:
        raise ConfigError("listeners.mesh.enabled", "is false, but the broker registers there")
    if mesh.tls.mode != "disabled":
        raise ConfigError("listeners.mesh.tls.mode", f"is {mesh.tls.mode}, but the broker registers without TLS")


@contextmanager
def _naming(service: str) -> Iterator[None]:
    """Say in a ConfigError which service's setting is wrong."""
    try:
        yield
    except ConfigError as error:
        key = f"{service}: {error.key}"
        raise ConfigError(key, error.problem, origin=error.origin, nearest=error.nearest) from error


def _on_loopback(listeners: ListenersT, *, free_ports: bool) -> ListenersT:
    """The same listeners on loopback, each on its own port or on any free one."""
    changed = {}
    for name in listeners.__struct_fields__:
        listener: ListenerConfig = getattr(listeners, name)
        port = 0 if free_ports else listener.port
        changed[name] = msgspec.structs.replace(listener, host=LOOPBACK, port=port)
    return msgspec.structs.replace(listeners, **changed)
