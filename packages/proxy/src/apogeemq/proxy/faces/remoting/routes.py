"""GET_ROUTEINFO_BY_TOPIC (105) and GET_BROKER_CLUSTER_INFO (106): every broker is at the proxy's own address."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from apogeemq.mesh.v1.routes_pb2 import QueryClusterReply, TopicRoute
from apogeemq.proxy.faces.remoting.face import Answer, Function
from apogeemq.proxy.ports import Routes
from apogeemq.remoting_codec.aio.channel import Channel
from apogeemq.remoting_codec.bodies import ClusterInfo
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import HeaderInvalid
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.route import GetRouteInfoRequestHeader
from apogeemq.remoting_codec.route import MASTER_ID, STANDARD_JSON_VERSION_MIN, BrokerData, QueueData, TopicRouteData

TOPIC_LENGTH_MAX = 255
"""Characters of a topic's name, retry and dead letter topics included."""


class RouteRequests:
    """Answers to who serves what.

    address    where clients reach this proxy's Remoting listener, "host:port"
    cluster    the cluster's brokers as a name server said last; None before it did
    timeout_s  how long a name server may take
    """

    def __init__(
        self,
        routes: Routes,
        *,
        address: Callable[[], str],
        cluster: Callable[[], QueryClusterReply | None],
        timeout_s: float,
    ) -> None:
        self._routes = routes
        self._address = address
        self._cluster = cluster
        self._timeout_s = timeout_s

    def functions(self) -> Mapping[int, Function]:
        """Request code → function."""
        return {
            RequestCode.GET_ROUTEINFO_BY_TOPIC: self.route,
            RequestCode.GET_BROKER_CLUSTER_INFO: self.cluster_info,
        }

    async def route(self, channel: Channel, command: RemotingCommand) -> Answer:
        """The topic's queues."""
        header = GetRouteInfoRequestHeader.decode(command.ext_fields)
        if len(header.topic) > TOPIC_LENGTH_MAX:
            raise HeaderInvalid(
                "topic", f"it has {len(header.topic)} characters, at most {TOPIC_LENGTH_MAX} are allowed"
            )
        route = await self._routes.route(header.topic, timeout_s=self._timeout_s)
        standard = command.version >= STANDARD_JSON_VERSION_MIN or bool(header.accept_standard_json_only)
        return _with_body(command, self._route_data(route).encode(standard=standard))

    async def cluster_info(self, channel: Channel, command: RemotingCommand) -> Answer:
        """All brokers."""
        info = ClusterInfo()
        cluster = self._cluster()
        for entry in () if cluster is None else cluster.brokers:
            info.broker_addr_table[entry.broker_name] = self._broker_data(entry.cluster, entry.broker_name)
            info.cluster_addr_table.setdefault(entry.cluster, []).append(entry.broker_name)
        return _with_body(command, info.encode())

    def _route_data(self, route: TopicRoute) -> TopicRouteData:
        return TopicRouteData(
            queue_datas=[
                QueueData(
                    broker_name=queue.broker_name,
                    read_queue_nums=queue.read_queue_nums,
                    write_queue_nums=queue.write_queue_nums,
                    perm=queue.perm,
                    topic_sys_flag=queue.topic_sys_flag,
                )
                for queue in route.queues
            ],
            broker_datas=[self._broker_data(queue.cluster, queue.broker_name) for queue in route.queues],
        )

    def _broker_data(self, cluster: str, broker_name: str) -> BrokerData:
        return BrokerData(cluster=cluster, broker_name=broker_name, broker_addrs={MASTER_ID: self._address()})


def _with_body(command: RemotingCommand, body: bytes) -> Answer:
    return ResponseCode.SUCCESS, encode_response_frame(command.opaque, ResponseCode.SUCCESS, body=body)
