"""Where the master of a set without controllers is: the broker of the same name with id 0, by the name servers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from apogeemq.mesh.clock import Clock
from apogeemq.mesh.errors import MeshError
from apogeemq.mesh.network import MeshChannel, Network
from apogeemq.mesh.v1.methods import QUERY_CLUSTER
from apogeemq.mesh.v1.routes_pb2 import QueryClusterReply, QueryClusterRequest

ASK_TIMEOUT_S = 2.0
MASTER_ID = 0

_log = logging.getLogger(__name__)


class StaticMaster:
    """Asks the name servers, one after the other until one knows it. close() it."""

    def __init__(
        self, targets: Sequence[str], *, network: Network, clock: Clock, cluster: str, broker_name: str
    ) -> None:
        self._channels: list[MeshChannel] = [network.channel(target) for target in dict.fromkeys(targets)]
        self._clock = clock
        self._cluster = cluster
        self._broker_name = broker_name

    async def mesh_address(self) -> str:
        """The master's; empty while no name server knows it."""
        for channel in self._channels:
            try:
                reply = await channel.unary(QUERY_CLUSTER, QueryClusterRequest(), timeout_s=ASK_TIMEOUT_S)
            except MeshError as error:
                _log.debug("name server %s did not tell the master of %s: %s", channel.target, self._broker_name, error)
                continue
            address = self._of_master(reply)
            if address:
                return address
        return ""

    async def close(self) -> None:
        """Disconnect."""
        for channel in self._channels:
            await channel.close()

    def _of_master(self, reply: QueryClusterReply) -> str:
        for broker in reply.brokers:
            if (broker.cluster, broker.broker_name) == (self._cluster, self._broker_name):
                for each in broker.addresses:
                    if each.broker_id == MASTER_ID:
                        return str(each.mesh_address)
        return ""
