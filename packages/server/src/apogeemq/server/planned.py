"""What each process of a topology runs with: its settings from all sources, its ports, and whom it is told of.

    embedded defaults < the group's config file < the group's settings < the process's own < environment < --set

Embedded are: loopback; the services' own ports, each further process of a kind 100 higher, or free ones; a folder of
its name below the data directory. Told, once they listen, are: brokers and proxies the name servers, brokers the
controllers, controllers the members of etcd. Nothing runs here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from apogeemq.broker.app import PROGRAM as BROKER
from apogeemq.broker.config import BrokerConfig, ReplicationConfig, StoreSettings
from apogeemq.broker.config import IdentityConfig as BrokerIdentity
from apogeemq.broker.config import ListenersConfig as BrokerListeners
from apogeemq.controller.app import PROGRAM as CONTROLLER
from apogeemq.controller.config import ControllerConfig
from apogeemq.controller.config import IdentityConfig as ControllerIdentity
from apogeemq.controller.config import ListenersConfig as ControllerListeners
from apogeemq.mesh.config import ListenerConfig, Loaded, RawSetting, flatten
from apogeemq.mesh.errors import ConfigError
from apogeemq.mesh.service_process import ServiceProgram
from apogeemq.namesrv.app import PROGRAM as NAMESRV
from apogeemq.namesrv.config import ListenersConfig as NamesrvListeners
from apogeemq.namesrv.config import NamesrvConfig
from apogeemq.proxy.app import PROGRAM as PROXY
from apogeemq.proxy.config import IdentityConfig as ProxyIdentity
from apogeemq.proxy.config import ListenersConfig as ProxyListeners
from apogeemq.proxy.config import ProxyConfig
from apogeemq.proxy.config import TopicsConfig as ProxyTopics
from apogeemq.server.all_in_one import check_broker_can_register, naming, on_loopback
from apogeemq.server.set_flags import divided
from apogeemq.server.topology import Group, Topology

PROGRAMS: dict[str, ServiceProgram[Any]] = {
    "namesrv": NAMESRV,
    "controller": CONTROLLER,
    "broker": BROKER,
    "proxy": PROXY,
}
PORT_STEP = 100
"""From one process of a kind to the next, where ports are fixed and the topology names none."""
ETCD_PORTS = (2379, 2380)

NAMESRV_ADDR = "identity.namesrv_addr"
TOLD_OF: dict[str, dict[str, str]] = {
    "controller": {"etcd.endpoints": "etcd"},
    "broker": {NAMESRV_ADDR: "namesrv", "replication.controllers": "controller"},
    "proxy": {NAMESRV_ADDR: "namesrv"},
}
"""The settings that a topology gives itself, by service: key → kind of those whose addresses it has."""


@dataclass(frozen=True, slots=True)
class PlannedService:
    """A service's process. `group` is the broker set of a broker, else empty."""

    name: str
    kind: str
    loaded: Loaded[Any]
    group: str = ""

    @property
    def program(self) -> ServiceProgram[Any]:
        """Which service it is."""
        return PROGRAMS[self.kind]


@dataclass(frozen=True, slots=True)
class PlannedEtcd:
    """A member of etcd; port 0 is chosen at its first start, and kept in its folder."""

    name: str
    client_port: int
    peer_port: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All processes in the order of starting, and where their data is."""

    topology: Topology
    data: Path
    etcd: tuple[PlannedEtcd, ...]
    services: tuple[PlannedService, ...]

    def of_kind(self, kind: str) -> list[PlannedService]:
        """The services of one kind."""
        return [each for each in self.services if each.kind == kind]

    def has(self, kind: str) -> bool:
        """Whether the topology runs any of this kind, "etcd" included."""
        return bool(self.etcd) if kind == "etcd" else bool(self.of_kind(kind))

    def given(self, service: PlannedService) -> dict[str, str]:
        """The settings that the topology gives this service: key → kind of those whose addresses it has."""
        return {key: kind for key, kind in TOLD_OF.get(service.kind, {}).items() if self.has(kind)}

    def describe(self) -> list[str]:
        """List every setting as it is written after --set, with its origin; secrets masked."""
        return [f"{each.name}.{line}" for each in self.services for line in each.loaded.describe()]

    def secret_values(self) -> list[str]:
        """List the secrets that are set, for whoever must keep them out of logs."""
        return [value for each in self.services for value in each.loaded.secret_values()]

    def without_effect(self) -> list[str]:
        """List what was set and changes nothing here, with where it was set."""
        found = []
        for each in self.services:
            found += [f"{each.name}: {name}" for name in each.loaded.ignored]
            known = [*self.given(each), *(["identity.proxy_mode"] if each.kind == "proxy" else [])]
            for key in known:
                if each.loaded.origins[key] != "default":
                    found.append(f"{each.name}: {key} ({each.loaded.origins[key]})")
        return found


def plan(
    topology: Topology,
    *,
    data: Path,
    free_ports: bool,
    environ: Mapping[str, str],
    settings: Mapping[str, Mapping[str, str]],
) -> Plan:
    """Load every process's settings. `settings` are those of --set by kind of service or name of process.

    Raises ConfigError that names the process and the key.
    """
    planner = _Planner(topology, data, environ, settings, free_ports=free_ports)
    planned = Plan(topology, data, tuple(planner.etcd()), tuple(planner.services()))
    _check_registrations(planned)
    _check_sets(planned)
    _check_ports(planned)
    return planned


class _Planner:
    def __init__(
        self,
        topology: Topology,
        data: Path,
        environ: Mapping[str, str],
        settings: Mapping[str, Mapping[str, str]],
        *,
        free_ports: bool,
    ) -> None:
        self._topology = topology
        self._data = data
        self._environ = environ
        self._settings = settings
        self._free_ports = free_ports

    def etcd(self) -> Iterator[PlannedEtcd]:
        for number, (name, member) in enumerate(self._topology.etcd.members.items()):
            chosen = [
                own if isinstance(own, int) else 0 if self._free_ports else default + number * PORT_STEP
                for own, default in zip((member.client_port, member.peer_port), ETCD_PORTS, strict=True)
            ]
            yield PlannedEtcd(name, *chosen)

    def services(self) -> Iterator[PlannedService]:
        cluster = self._topology.cluster_name
        for number, name, own, where in self._members("namesrv", self._topology.namesrv):
            listeners = on_loopback(NamesrvListeners(), free_ports=self._free_ports, raised_by=number * PORT_STEP)
            defaults = NamesrvConfig(listeners=listeners)
            yield self._service("namesrv", name, defaults, self._topology.namesrv, own, where)
        for number, name, own, where in self._members("controller", self._topology.controller):
            controller = ControllerConfig(
                identity=ControllerIdentity(cluster_name=cluster),
                listeners=on_loopback(ControllerListeners(), free_ports=self._free_ports, raised_by=number * PORT_STEP),
            )
            yield self._service("controller", name, controller, self._topology.controller, own, where)
        brokers: list[PlannedService] = []
        for set_name, group in self._topology.broker_sets.items():
            for _, name, own, where in self._members(f"broker_sets.{set_name}", group):
                broker = self._broker_defaults(set_name, name, len(brokers))
                brokers.append(self._service("broker", name, broker, group, own, where, set_name))
        yield from brokers
        if brokers:  # a broker's file may name another
            cluster = brokers[0].loaded.value.identity.cluster_name
        for number, name, own, where in self._members("proxy", self._topology.proxy):
            proxy = ProxyConfig(
                identity=ProxyIdentity(cluster_name=cluster),
                listeners=on_loopback(ProxyListeners(), free_ports=self._free_ports, raised_by=number * PORT_STEP),
                topics=ProxyTopics(auto_create=True),
            )
            yield self._service("proxy", name, proxy, self._topology.proxy, own, where)

    def _broker_defaults(self, set_name: str, name: str, number: int) -> BrokerConfig:
        return BrokerConfig(
            identity=BrokerIdentity(cluster_name=self._topology.cluster_name, broker_name=set_name),
            listeners=on_loopback(BrokerListeners(), free_ports=self._free_ports, raised_by=number * PORT_STEP),
            store=StoreSettings(path=str(self._data / name)),
            replication=ReplicationConfig(enabled=bool(self._topology.controller.members)),
        )

    def _members(self, where: str, group: Group) -> Iterator[tuple[int, str, Mapping[str, Any], str]]:
        for number, (name, own) in enumerate(group.members.items()):
            yield number, name, own, where

    def _service(
        self,
        kind: str,
        name: str,
        defaults: Any,  # noqa: ANN401 — the settings of any service
        group: Group,
        own: Mapping[str, Any],
        where: str,
        set_name: str = "",
    ) -> PlannedService:
        around = [
            self._raw(f"{where}.settings", group.settings),
            self._raw(f"{where}.members.{name}", own),
        ]
        flags = {**self._settings.get(kind, {})}
        if name != kind:
            flags |= self._settings.get(name, {})
        with naming(name):
            loaded = PROGRAMS[kind].load_config(
                Path(group.config) if group.config else None, self._environ, flags, defaults=defaults, around=around
            )
        return PlannedService(name, kind, loaded, set_name)

    def _raw(self, where: str, table: Mapping[str, Any]) -> list[RawSetting]:
        origin = f"file {self._topology.source}, key {where}"
        return [RawSetting(key, value, f"{origin}.{key}") for key, value in flatten("", table)]


def _check_registrations(planned: Plan) -> None:
    """Brokers and proxies of the topology must reach its name servers, and its brokers the controllers."""
    for each in planned.of_kind("namesrv"):
        if planned.has("broker") or planned.has("proxy"):
            with naming(each.name):
                check_broker_can_register(each.loaded.value.listeners.mesh)
    for each in planned.of_kind("controller"):
        mode = each.loaded.value.listeners.mesh.tls.mode
        if mode != "disabled" and planned.has("broker"):
            raise ConfigError(f"{each.name}: listeners.mesh.tls.mode", f"is {mode}, but brokers come without TLS")


def _check_sets(planned: Plan) -> None:
    """Two brokers of one name need controllers that say who of them is master, or ids of their own."""
    for name in planned.topology.broker_sets:
        brokers = [each for each in planned.of_kind("broker") if each.group == name]
        apart = {each.loaded.value.identity.broker_id for each in brokers}
        if len(apart) < len(brokers) and not all(each.loaded.value.replication.enabled for each in brokers):
            problem = "has several brokers of one id, and no controllers that would say who of them is master"
            raise ConfigError(f"broker_sets.{name}", problem, origin=_origin(planned))
        clusters = {each.loaded.value.identity.cluster_name for each in planned.of_kind("controller")}
        for each in brokers:
            own = each.loaded.value.identity.cluster_name
            if clusters - {own}:
                problem = f"is {own!r}, but the controllers' is {min(clusters - {own})!r}: set cluster_name"
                raise ConfigError(f"{each.name}: identity.cluster_name", problem)
            given_name = each.loaded.value.identity.broker_name
            if len(brokers) > 1 and given_name != name:
                problem = f"is {given_name!r}, but it is a member of broker_sets.{name}"
                raise ConfigError(f"{each.name}: identity.broker_name", problem)


def _check_ports(planned: Plan) -> None:
    """One port on one host is for one listener: said before anything runs."""
    taken: dict[tuple[str, int], str] = {}
    for name, host, port in _fixed_ports(planned):
        other = taken.setdefault((host, port), name)
        if other is not name:
            raise ConfigError(f"{name}.port", f"is {port}, which {other} has on {host} as well")


def _fixed_ports(planned: Plan) -> Iterable[tuple[str, str, int]]:
    for member in planned.etcd:
        for key, port in (("client", member.client_port), ("peer", member.peer_port)):
            if port:
                yield f"{member.name}: {key}", "127.0.0.1", port
    for each in planned.services:
        section = each.loaded.value.listeners
        for key in section.__struct_fields__:
            listener: ListenerConfig = getattr(section, key)
            if listener.enabled and listener.port:
                yield f"{each.name}: listeners.{key}", listener.host, listener.port


def _origin(planned: Plan) -> str | None:
    return f"file {planned.topology.source}" if planned.topology.source else None


def settings_of_topology(flags: Mapping[str, str], topology: Topology) -> dict[str, dict[str, str]]:
    """Divide `PREFIX.KEY` settings by prefix: a kind of service, or a process's name. Raises ConfigError."""
    names = [name for name in topology.names if name not in topology.etcd.members]
    known = ", ".join(f"{each}." for each in PROGRAMS)
    return divided(flags, (*PROGRAMS, *names), known=f"a service ({known}) or the name of a process")


def replaced_ports(listeners: msgspec.Struct, bound: Mapping[str, str]) -> dict[str, str]:
    """Settings that let a process that took free ports take the same ones again: variable → port.

    `bound` is what it said that it listens on. Where another port is advertised than bound, nothing is known.
    """
    found = {}
    for key in listeners.__struct_fields__:
        listener: ListenerConfig = getattr(listeners, key)
        if key in bound and listener.port == 0 and listener.advertised_port == 0:
            found[f"LISTENERS_{key.upper()}_PORT"] = bound[key].rpartition(":")[2]
    return found
