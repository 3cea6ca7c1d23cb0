"""A name server of the mesh that says what a test tells it to, and is told what it was asked."""

from __future__ import annotations

import asyncio

from apogeemq.mesh.errors import PeerRefused, RefusalCode
from apogeemq.mesh.network import CallContext, Handler, Listening, MeshStream, Network, StreamHandler, UnaryHandler
from apogeemq.mesh.v1 import routes_pb2 as pb
from apogeemq.mesh.v1.methods import QUERY_CLUSTER, QUERY_ROUTES, WATCH_ROUTES


def queue_data(broker_name: str, mesh_address: str = "", cluster: str = "DefaultCluster") -> pb.QueueData:
    """Eight queues at one broker."""
    return pb.QueueData(
        broker_name=broker_name,
        cluster=cluster,
        read_queue_nums=8,
        write_queue_nums=8,
        perm=6,
        addresses=[pb.BrokerAddress(broker_id=0, remoting_address="r:1", mesh_address=mesh_address)],
    )


class NameServer:
    """Routes are in `routes`, brokers in `brokers`; `change` tells the watches."""

    def __init__(self, instance: int = 1) -> None:
        self.instance = instance
        self.revision = 1
        self.routes: dict[str, list[pb.QueueData]] = {}
        self.brokers: dict[str, tuple[str, str]] = {}
        self.asked: list[str] = []
        self.clusters_asked = 0
        self.watches: list[pb.WatchRequest] = []
        self.is_silent = False
        self.is_refusing = False
        self.answering = asyncio.Event()
        self.answering.set()
        self._streams: set[MeshStream[pb.WatchReply, pb.WatchRequest]] = set()

    @property
    def handlers(self) -> list[Handler]:
        """What it serves."""
        return [
            UnaryHandler(QUERY_ROUTES, self._query_routes),
            UnaryHandler(QUERY_CLUSTER, self._query_cluster),
            StreamHandler(WATCH_ROUTES, self._watch),
        ]

    async def listen(self, network: Network, port: int = 9877) -> Listening:
        """Serve at "ns:port"."""
        return await network.serve("ns", port, self.handlers)

    async def change(self, *topics: str, reset: bool = False) -> None:
        """Tell the watches that these topics changed."""
        self.revision += 1
        for stream in self._streams:
            await stream.send(self._reply(topics, reset=reset))

    def _reply(self, topics: tuple[str, ...] = (), *, reset: bool = False) -> pb.WatchReply:
        return pb.WatchReply(instance=self.instance, revision=self.revision, reset=reset, changed_topics=topics)

    async def _query_routes(self, request: pb.QueryRoutesRequest, context: CallContext) -> pb.QueryRoutesReply:
        self.asked.extend(request.topics)
        reply = pb.QueryRoutesReply(instance=self.instance, revision=self.revision)
        for topic in request.topics:
            reply.routes.append(pb.TopicRoute(topic=topic, queues=self.routes.get(topic, [])))
        await self.answering.wait()
        if self.is_refusing:
            raise PeerRefused(RefusalCode.FAILED_PRECONDITION, "not ready")
        return reply

    async def _query_cluster(self, request: pb.QueryClusterRequest, context: CallContext) -> pb.QueryClusterReply:
        self.clusters_asked += 1
        entries = [
            pb.QueryClusterReply.BrokerEntry(
                cluster=cluster,
                broker_name=name,
                addresses=[pb.BrokerAddress(broker_id=0, remoting_address="r:1", mesh_address=address)],
            )
            for name, (cluster, address) in self.brokers.items()
        ]
        return pb.QueryClusterReply(brokers=entries, instance=self.instance, revision=self.revision)

    async def _watch(self, stream: MeshStream[pb.WatchReply, pb.WatchRequest]) -> None:
        request = await stream.receive()
        assert request is not None
        self.watches.append(request)
        if self.is_silent:
            await stream.receive()
            return
        self._streams.add(stream)
        try:
            await stream.send(self._reply(reset=request.instance != self.instance))
            await stream.receive()
        finally:
            self._streams.discard(stream)
