"""Settings of a controller, in sections. Apache's property names are accepted beside ours (the aliases).

Those of `identity`, `leases` and `election` must be the same in all controllers of a cluster; all others are each
process's own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
from apogeemq.controller.links.etcd.calls import Credentials
from apogeemq.mesh.addresses import split_address
from apogeemq.mesh.config import ConfigError, ListenerConfig, setting
from apogeemq.mesh.service_process import LogConfig
from apogeemq.mesh.tls import ClientTls

Positive = msgspec.Meta(ge=1)

NAME = re.compile(r"[A-Za-z0-9._%|-]{1,255}")
"""Names of clusters and of broker sets: they are parts of keys, hence without a slash."""

IGNORED_PROPERTIES = frozenset(
    {
        "configStorePath",
        "controllerDLegerGroup",
        "controllerDLegerPeers",
        "controllerDLegerSelfId",
        "controllerRequestThreadPoolQueueCapacity",
        "controllerStorePath",
        "controllerThreadPoolNums",
        "controllerType",
        "elecTimeoutMs",
        "isProcessReadEvent",
        "mappedFileSize",
        "notifyBrokerRoleChanged",
        "rocketmqHome",
        "scanInactiveMasterInterval",
        "scanNotActiveBrokerInterval",
    }
)
"""Apache's properties about its own Raft group, threads and scans. They load without effect: decisions are in etcd, and
brokers are always told of their role."""


class IdentityConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Whom this controller works for."""

    cluster_name: str = "DefaultCluster"
    """Brokers of another cluster are refused, and the keys in etcd stand below this name."""

    def validate(self) -> None:
        """Raise ValueError for a name that can be no part of a key."""
        if not NAME.fullmatch(self.cluster_name):
            raise ValueError(f"cluster_name {self.cluster_name!r} must be 1 to 255 of A-Z a-z 0-9 . _ % | -")


class ListenersConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the controller listens."""

    mesh: ListenerConfig = ListenerConfig(port=9870)
    """Brokers and operators. Its advertised address is the controller's name: brokers are sent there."""
    http: ListenerConfig = ListenerConfig(host="127.0.0.1", port=9871)
    """/healthz, /readyz, /metrics."""

    def validate(self) -> None:
        """Raise ValueError for a controller that nobody could reach."""
        if not self.mesh.enabled:
            raise ValueError("mesh.enabled must be true: brokers come by that listener")


class EtcdConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where all decisions are kept."""

    endpoints: str = "127.0.0.1:2379"
    """Members, host:port, separated by semicolons."""
    user: str = ""
    """Of etcd's own authentication; empty for none."""
    password: Annotated[str, setting(secret=True)] = ""
    tls: bool = False
    """Whether members are spoken to by TLS."""
    ca_path: str = ""
    """PEM file of the authority that signed the members' certificates; empty: the system's."""
    cert_path: str = ""
    """PEM file of this controller's certificate, where members ask for one."""
    key_path: str = ""
    call_timeout_ms: Annotated[int, msgspec.Meta(ge=500, le=60_000)] = 3_000
    """Longest wait for one answer of the cluster, all members tried."""

    def validate(self) -> None:
        """Raise ValueError for endpoints that are none, and for halves of what goes together."""
        if not self.members:
            raise ValueError("endpoints must name at least one member, host:port")
        for member in self.members:
            split_address(member)
        if bool(self.cert_path) != bool(self.key_path):
            raise ValueError("cert_path and key_path go together")
        if (self.ca_path or self.cert_path) and not self.tls:
            raise ValueError("ca_path and cert_path are for tls = true")
        for path in (self.ca_path, self.cert_path, self.key_path):
            if path and not Path(path).is_file():
                raise ValueError(f"there is no file {path}")
        if self.password and not self.user:
            raise ValueError("password is set without a user")

    @property
    def members(self) -> list[str]:
        """The members, one by one."""
        return [member.strip() for member in self.endpoints.replace(",", ";").split(";") if member.strip()]

    @property
    def credentials(self) -> Credentials | None:
        """The user, where there is one."""
        return Credentials(self.user, self.password) if self.user else None

    def client_tls(self) -> ClientTls | None:
        """Read the certificates; None without TLS. Raises ConfigError."""
        if not self.tls:
            return None
        ca, chain, key = (_read(path) for path in (self.ca_path, self.cert_path, self.key_path))
        return ClientTls(ca, chain, key)


class LeasesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How long nothing is heard before somebody counts as gone, in seconds. etcd may grant more than was asked for."""

    controller_ttl_s: Annotated[int, msgspec.Meta(ge=2, le=60)] = 3
    """Of the active controller: another one takes over so long after it died or froze, and at most 1 s later."""
    broker_ttl_s: Annotated[int, msgspec.Meta(ge=2, le=60)] = 3
    """Of a broker, and what each broker gets when another controller becomes active."""


class ElectionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Who may become master."""

    unclean: Annotated[bool, setting("enableElectUncleanMaster")] = False
    """MAY LOSE ON FAILOVER: whether brokers outside the SyncStateSet may follow where none of its members is there."""


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds; whoever reaches one is refused, others do not notice."""

    broker_sets_max: Annotated[int, Positive] = 2_000
    """Broker sets whose brokers this controller takes."""
    streams_max: Annotated[int, Positive] = 10_000
    """Open streams of brokers."""


class ControllerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a controller."""

    identity: IdentityConfig = IdentityConfig()
    listeners: ListenersConfig = ListenersConfig()
    etcd: EtcdConfig = EtcdConfig()
    leases: LeasesConfig = LeasesConfig()
    election: ElectionConfig = ElectionConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()


def _read(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"etcd: {path}", f"cannot be read: {error}") from error
