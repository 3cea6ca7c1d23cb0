"""Settings of a name server, in sections. Apache's property names are accepted beside ours (the aliases).

All of them are this process's own: name servers know nothing of each other and need not agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from apogeemq.mesh.config import ListenerConfig, setting
from apogeemq.mesh.service_process import LogConfig

Positive = msgspec.Meta(ge=1)

IGNORED_PROPERTIES = frozenset(
    {
        "clientRequestThreadPoolNums",
        "clientRequestThreadPoolQueueCapacity",
        "configBlackList",
        "configStorePath",
        "defaultThreadPoolNums",
        "defaultThreadPoolQueueCapacity",
        "enableShutdownGracefully",
        "kvConfigPath",
        "productEnvName",
        "rocketmqHome",
        "scanNotActiveBrokerInterval",
        "serverAsyncSemaphoreValue",
        "serverCallbackExecutorThreads",
        "serverNettyWorkerGroupEnable",
        "serverOnewaySemaphoreValue",
        "serverPooledByteBufAllocatorEnable",
        "serverSelectorThreads",
        "serverSocketBacklog",
        "serverSocketRcvBufSize",
        "serverSocketSndBufSize",
        "serverWorkerThreads",
        "shutdownWaitTimeSeconds",
        "unRegisterBrokerQueueCapacity",
        "useEpollNativeSelector",
        "writeBufferLowWaterMark",
    }
)
"""Apache's properties that tune its threads, buffers and paths. They load without effect, so that a file written for
Apache can be used as it is; properties that would change what clients see are not among them."""


class ListenersConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the name server listens."""

    remoting: Annotated[ListenerConfig, setting(inside={"listenPort": "port", "bindAddress": "host"})] = ListenerConfig(
        port=9876
    )
    """Clients."""
    mesh: ListenerConfig = ListenerConfig(port=9877)
    """Brokers, which register here, and proxies, which watch the routes."""
    http: ListenerConfig = ListenerConfig(host="127.0.0.1", port=9878)
    """/healthz, /readyz, /metrics."""


class RegistrationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How long brokers stay in the routes, in milliseconds."""

    beat_timeout_ms: Annotated[int, Positive] = 10_000
    """A broker that sends nothing on its open stream for so long leaves; brokers beat each second."""
    grace_ms: Annotated[int, msgspec.Meta(ge=0)] = 3_000
    """How long a broker stays after its stream broke, so that a reconnect costs no client anything."""
    handshake_timeout_ms: Annotated[int, Positive] = 10_000
    """Longest wait for a broker's hello, and for each next chunk of its topic table."""
    need_wait_for_service: Annotated[bool, setting("needWaitForService")] = False
    """Whether routes are refused at first after a start, until the brokers have had time to register."""
    wait_for_service_s: Annotated[int, msgspec.Meta(ge=0), setting("waitSecondsForService")] = 45
    """For how long, in seconds."""

    def validate(self) -> None:
        """Raise ValueError when brokers that beat each second could not stay registered."""
        if self.beat_timeout_ms < 2_000:
            raise ValueError(
                f"beat_timeout_ms is {self.beat_timeout_ms}; brokers beat each 1000 ms, so it must be ≥ 2000"
            )


class ControllerInsideConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A controller in this process."""

    enabled: Annotated[bool, setting("enableControllerInNamesrv")] = False
    """Whether one runs here; needs the wheel apogeemq-controller, and etcd."""
    config_path: str = ""
    """The controller's settings file. Empty: its defaults."""

    def validate(self) -> None:
        """Raise ValueError for a file that nobody would read, or that is not there."""
        if self.config_path and not self.enabled:
            raise ValueError("config_path is set, which only enabled = true uses")
        if self.config_path and not Path(self.config_path).is_file():
            raise ValueError(f"config_path: there is no file {self.config_path}")


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds; whoever reaches one is refused, others do not notice."""

    brokers_max: Annotated[int, Positive] = 1_000
    """Registered brokers, masters and slaves together."""
    topics_per_broker_max: Annotated[int, Positive] = 50_000
    """Topics of one broker; those beyond are left out of the routes."""
    connections_max: Annotated[int, Positive] = 20_000
    """Remoting connections."""
    watchers_max: Annotated[int, Positive] = 1_000
    """Proxies and other services that watch the routes."""
    idle_timeout_s: Annotated[int, Positive, setting("serverChannelMaxIdleTimeSeconds")] = 120
    """A Remoting connection without traffic for so long is closed, in seconds."""
    frame_size_bytes_max: Annotated[int, msgspec.Meta(ge=4_096, le=16 << 20)] = 1 << 20
    """Largest request frame. Clients' requests here have no body, so it may be far below the protocol's 16 MiB."""
    route_cache_size_bytes: Annotated[int, msgspec.Meta(ge=0)] = 64 << 20
    """Encoded routes kept for the next client that asks."""


class NamesrvConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a name server."""

    listeners: ListenersConfig = ListenersConfig()
    registration: RegistrationConfig = RegistrationConfig()
    controller: ControllerInsideConfig = ControllerInsideConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
