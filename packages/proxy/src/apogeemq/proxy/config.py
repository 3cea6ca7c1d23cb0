"""Settings of a proxy, in sections. Apache's property names are accepted beside ours (the aliases).

All of them are this process's own: proxies know nothing of each other and need not agree.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import msgspec
from apogeemq.mesh.config import ListenerConfig, setting
from apogeemq.mesh.service_process import LogConfig

Positive = msgspec.Meta(ge=1)


class ProxyMode(Enum):
    """Whether the proxy reaches brokers over the mesh, or has one in its own process."""

    CLUSTER = "CLUSTER"
    LOCAL = "LOCAL"


class BrokerTransport(Enum):
    """How brokers of other processes are reached."""

    MESH = "mesh"
    REMOTING = "remoting"


class IdentityConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Who this proxy is, and whom it works for."""

    cluster_name: Annotated[str, setting("rocketMQClusterName")] = "DefaultCluster"
    """The cluster in whose brokers topics are made, and the label of the metrics."""
    namesrv_addr: Annotated[str, setting("namesrvAddr", environment=("NAMESRV_ADDR",))] = "127.0.0.1:9877"
    """Mesh endpoints of the name servers, host:port, separated by semicolons."""
    proxy_mode: Annotated[ProxyMode, setting("proxyMode")] = ProxyMode.CLUSTER
    """CLUSTER: brokers are other processes. LOCAL: a broker runs in this one; needs the wheel apogeemq-broker."""
    broker_config: Annotated[str, setting("brokerConfigPath")] = ""
    """LOCAL: the broker's settings file. Empty: its defaults."""
    broker_transport: Annotated[BrokerTransport, setting("brokerTransport")] = BrokerTransport.MESH
    """mesh is the one that this version has."""
    workers: Annotated[int, Positive] = 1
    """Processes of this proxy; this version runs one."""

    def validate(self) -> None:
        """Raise ValueError naming the setting that can't be served, or that does not go with another one."""
        if not self.cluster_name:
            raise ValueError("cluster_name must not be empty")
        if self.broker_transport is BrokerTransport.REMOTING:
            raise ValueError("broker_transport (brokerTransport) is remoting, which is not served yet; it must be mesh")
        if self.workers != 1:
            reason = "LOCAL has its broker in one process" if self.proxy_mode is ProxyMode.LOCAL else "this version"
            raise ValueError(f"workers is {self.workers}; {reason} runs 1. Start more proxies, with ports of their own")
        if self.broker_config and self.proxy_mode is not ProxyMode.LOCAL:
            raise ValueError("broker_config is set, which only proxy_mode LOCAL uses")
        if self.broker_config and not Path(self.broker_config).is_file():
            raise ValueError(f"broker_config: there is no file {self.broker_config}")
        if not self.namesrvs:
            raise ValueError("namesrv_addr must name at least one name server, host:port")

    @property
    def namesrvs(self) -> list[str]:
        """The name servers, one by one."""
        return [target.strip() for target in self.namesrv_addr.replace(",", ";").split(";") if target.strip()]


class ListenersConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the proxy listens."""

    remoting: Annotated[ListenerConfig, setting(inside={"remotingListenPort": "port"})] = ListenerConfig(port=8080)
    """Remoting clients. Its advertised address is what routes name for every broker."""
    grpc: Annotated[ListenerConfig, setting(inside={"grpcServerPort": "port", "localServeAddr": "advertised_host"})] = (
        ListenerConfig(port=8081)
    )
    """gRPC clients. tls.mode permissive takes plain text and TLS on the one port."""
    http: ListenerConfig = ListenerConfig(host="127.0.0.1", port=8082)
    """/healthz, /readyz, /metrics."""

    def validate(self) -> None:
        """Raise ValueError for a proxy that nobody could talk to."""
        if not self.remoting.enabled and not self.grpc.enabled:
            raise ValueError("remoting.enabled and grpc.enabled are both false: nobody could reach this proxy")


class TopicsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Topics that are not there yet, and what topics take."""

    auto_create: bool = False
    """Whether a topic that a gRPC client asks for is made at a broker. Needs autoCreateTopicEnable of that broker."""
    auto_create_queue_nums: Annotated[int, msgspec.Meta(ge=1, le=16_384)] = 8
    """With how many queues; the broker's defaultTopicQueueNums is an upper bound."""
    message_type_check_enable: Annotated[bool, setting("enableTopicMessageTypeCheck")] = True
    """Whether a message must be of the kind that its topic is for: message.type, NORMAL where it has none."""


class RoutesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How routes are kept."""

    topics_max: Annotated[int, Positive] = 50_000
    """Topics whose routes are kept; the least recently asked for goes first."""
    unknown_topic_ms: Annotated[int, Positive] = 1_000
    """How long "no such topic" is kept."""
    broker_gone_s: Annotated[int, Positive] = 60
    """How long the connection to a broker is kept after it has left the routes."""
    brokers_max: Annotated[int, Positive] = 1_000
    """Brokers to which connections are held."""


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds; whoever reaches one is refused, others do not notice."""

    request_size_bytes_max: Annotated[
        int, msgspec.Meta(ge=4_096, le=128 << 20), setting("grpcMaxInboundMessageSize")
    ] = 16 << 20
    """One gRPC request. Bodies are at most 4 MiB each, but one request may carry several. Apache takes 130 MiB."""
    body_size_bytes_max: Annotated[int, msgspec.Meta(ge=1, le=4 << 20), setting("maxMessageSize")] = 4 << 20
    """One message's body; what producers are told."""
    calls_max: Annotated[int, Positive] = 20_000
    """gRPC calls and streams at a time: each Telemetry stream and each receive that waits is one."""
    connections_max: Annotated[int, Positive] = 20_000
    """Connections of the Remoting listener, and of the gRPC one with tls.mode permissive."""
    clients_max: Annotated[int, Positive] = 50_000
    """gRPC clients known at a time."""
    telemetry_backlog_max: Annotated[int, Positive] = 256
    """Commands that wait for one client to read its Telemetry stream; then the stream is ended."""
    requests_in_flight_max: Annotated[int, Positive] = 20_000
    """Remoting requests that wait for a broker or a name server."""
    frame_size_bytes_max: Annotated[int, msgspec.Meta(ge=4_096, le=16 << 20)] = 16 << 20
    """Largest Remoting frame."""
    idle_s: Annotated[float, msgspec.Meta(gt=0)] = 120.0
    """A connection without traffic (gRPC: without a call) for so long is closed."""
    request_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """The deadline of a gRPC request that names none."""
    broker_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    """One call to a broker, and one to a name server."""
    master_wait_s: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    """How long sends, receives and acknowledgements wait while their broker set has no master, within the client's own
    deadline; for Remoting clients, which name none, at most broker_timeout_s. 0: they are refused at once, and clients
    try again themselves."""
    client_expiry_s: Annotated[float, msgspec.Meta(gt=0)] = 120.0
    """A gRPC client without heartbeat is forgotten after this."""

    def validate(self) -> None:
        """Raise ValueError for bounds that do not go together."""
        if self.body_size_bytes_max > self.request_size_bytes_max - 65_536:
            raise ValueError(
                f"body_size_bytes_max is {self.body_size_bytes_max}; with 65536 for its properties it must fit into "
                f"request_size_bytes_max, which is {self.request_size_bytes_max}"
            )


class ProxyConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a proxy."""

    identity: IdentityConfig = IdentityConfig()
    listeners: ListenersConfig = ListenersConfig()
    topics: TopicsConfig = TopicsConfig()
    routes: RoutesConfig = RoutesConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()


IGNORED_PROPERTIES = frozenset(
    {
        "enableProxyProtocol",
        "grpcBossLoopNum",
        "grpcWorkerLoopNum",
        "grpcThreadPoolNums",
        "grpcThreadPoolQueueCapacity",
        "grpcProducerThreadPoolNums",
        "grpcProducerThreadQueueCapacity",
        "grpcConsumerThreadPoolNums",
        "grpcConsumerThreadQueueCapacity",
        "grpcRouteThreadPoolNums",
        "grpcRouteThreadQueueCapacity",
        "grpcClientManagerThreadPoolNums",
        "grpcClientManagerThreadQueueCapacity",
        "grpcTransactionThreadPoolNums",
        "grpcTransactionThreadQueueCapacity",
        "enableGrpcEpoll",
        "proxyClusterName",
        "proxyName",
        "rocketmqHome",
    }
)
"""Apache's properties that tune its threads, and names that only it shows. They load without effect, so that a file
written for Apache can be used as it is; properties that would change what clients see are not among them."""
