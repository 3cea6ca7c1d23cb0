"""Where a slave without controllers finds its master."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from apogeemq.broker.links.static_master import StaticMaster
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.network import CallContext, UnaryHandler
from apogeemq.mesh.v1.methods import QUERY_CLUSTER
from apogeemq.mesh.v1.routes_pb2 import BrokerAddress, QueryClusterReply, QueryClusterRequest


async def answered(clock: ManualClock, asking: Coroutine[Any, Any, str]) -> str:
    """What comes of it, the clock moving on."""
    task = asyncio.ensure_future(asking)
    while not task.done():
        await clock.run_for(0.1)
    return task.result()


async def serve(network: MemoryNetwork, port: int, *entries: tuple[str, str, int, str]) -> None:
    """A name server with these brokers: cluster, name, id, mesh address."""

    async def answer(_request: QueryClusterRequest, _context: CallContext) -> QueryClusterReply:
        brokers = [
            QueryClusterReply.BrokerEntry(
                cluster=cluster,
                broker_name=name,
                addresses=[BrokerAddress(broker_id=broker_id, mesh_address=address)],
            )
            for cluster, name, broker_id, address in entries
        ]
        return QueryClusterReply(brokers=brokers)

    await network.serve("127.0.0.1", port, [UnaryHandler(QUERY_CLUSTER, answer)])


def asked(network: MemoryNetwork, clock: ManualClock, *ports: int) -> StaticMaster:
    targets = [f"127.0.0.1:{port}" for port in ports]
    return StaticMaster(targets, network=network, clock=clock, cluster="c", broker_name="a")


async def test_the_master_is_the_broker_of_this_name_and_cluster_with_id_0() -> None:
    """Another name, another cluster, or a slave is not it; the first name server that knows it tells."""
    clock = ManualClock()
    network = MemoryNetwork(clock, SeededChance(1))
    await serve(network, 1, ("c", "b", 0, "b:1"), ("d", "a", 0, "d:1"), ("c", "a", 1, "slave:1"))
    await serve(network, 2, ("c", "a", 0, "master:1"))
    link = asked(network, clock, 9, 1, 2)
    assert await answered(clock, link.mesh_address()) == "master:1"
    await link.close()


async def test_a_master_that_nobody_knows_has_no_address() -> None:
    """Nor where no name server answers."""
    clock = ManualClock()
    network = MemoryNetwork(clock, SeededChance(1))
    await serve(network, 1, ("c", "a", 1, "slave:1"))
    link = asked(network, clock, 1, 9)
    assert await answered(clock, link.mesh_address()) == ""
    await link.close()
