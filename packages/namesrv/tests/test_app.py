"""The name server put together: real listeners on free ports, one broker over gRPC, clients over TCP."""

import asyncio
import logging
from collections.abc import AsyncIterator

import msgspec
import pytest
from apogeemq.mesh.addresses import split_address
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.config import ListenerConfig
from apogeemq.mesh.errors import LifecycleError
from apogeemq.mesh.grpc_network import GrpcNetwork
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.network import MeshChannel
from apogeemq.mesh.v1 import namesrv_pb2 as pb
from apogeemq.mesh.v1 import routes_pb2
from apogeemq.mesh.v1.methods import NAMESRV_REGISTER, QUERY_ROUTES, WATCH_ROUTES
from apogeemq.namesrv.app import NamesrvApp
from apogeemq.namesrv.config import ListenersConfig, NamesrvConfig, RegistrationConfig
from apogeemq.remoting_codec.aio.client import RemotingClient
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand

TIMEOUT_S = 20.0
LOOPBACK = ListenerConfig(host="127.0.0.1", port=0)
LISTENERS = ListenersConfig(remoting=LOOPBACK, mesh=LOOPBACK, http=LOOPBACK)
VERSION = pb.DataVersion(state_version=0, timestamp_ms=1_700_000_000_000, counter=1)


@pytest.fixture
async def app() -> AsyncIterator[NamesrvApp]:
    app = NamesrvApp(NamesrvConfig(listeners=LISTENERS))
    await app.start()
    yield app
    await app.stop()


async def client_of(app: NamesrvApp) -> RemotingClient:
    client = RemotingClient()
    await client.connect(*split_address(app.endpoints["remoting"]))
    return client


async def route(client: RemotingClient, topic: str) -> RemotingCommand:
    request = RemotingCommand(RequestCode.GET_ROUTEINFO_BY_TOPIC, ext_fields={"topic": topic})
    return await client.request(request, timeout_s=TIMEOUT_S)


async def register(channel: MeshChannel, topic: str) -> None:
    """Register a broker that serves one topic; it is in the routes when this returns."""
    request = pb.RegistrationRequest
    identity = pb.BrokerIdentity(cluster="C", broker_name="broker-a", incarnation=1, remoting_address="10.0.0.1:10911")
    stream = channel.stream(NAMESRV_REGISTER)
    await stream.send(request(hello=request.Hello(identity=identity, data_version=VERSION)))
    reply = await stream.receive()
    assert reply is not None
    assert reply.WhichOneof("kind") == "need_full"
    topics = [pb.TopicConfig(topic_name=topic, read_queue_nums=4, write_queue_nums=4, perm=6)]
    full = request.FullState(first=True, last=True, data_version=VERSION, topics=topics)
    await stream.send(request(full_state=full))
    reply = await stream.receive()
    assert reply is not None
    assert reply.WhichOneof("kind") == "accepted"


async def http_get(app: NamesrvApp, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(*split_address(app.endpoints["http"]))
    writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


async def test_a_registered_broker_is_found_by_services(app: NamesrvApp) -> None:
    """Routes are watched and asked for on the listener on which brokers register."""
    channel = GrpcNetwork().channel(app.endpoints["mesh"])
    watch = channel.stream(WATCH_ROUTES)
    await watch.send(routes_pb2.WatchRequest())
    first = await watch.receive()
    assert first is not None
    assert first.reset
    await register(channel, "TopicA")
    told = await watch.receive()
    assert told is not None
    assert (told.instance, list(told.changed_topics)) == (first.instance, ["TopicA"])
    query = routes_pb2.QueryRoutesRequest(topics=["TopicA"])
    reply = await channel.unary(QUERY_ROUTES, query, timeout_s=TIMEOUT_S)
    assert reply.routes[0].queues[0].broker_name == "broker-a"
    await channel.close()


async def test_a_registered_broker_is_found_by_clients(app: NamesrvApp) -> None:
    """From the broker's stream over gRPC to the client's answer over Remoting."""
    channel = GrpcNetwork().channel(app.endpoints["mesh"])
    client = await client_of(app)
    assert (await route(client, "TopicA")).code == ResponseCode.TOPIC_NOT_EXIST
    await register(channel, "TopicA")
    found = await route(client, "TopicA")
    assert found.code == ResponseCode.SUCCESS
    assert msgspec.json.decode(found.body)["brokerDatas"][0]["brokerAddrs"] == {"0": "10.0.0.1:10911"}
    await client.close()
    await channel.close()


async def test_bad_input_costs_only_its_own_connection(app: NamesrvApp) -> None:
    """A broken frame ends its connection; requests that are merely wrong do not; others go on."""
    good, wrong = await client_of(app), await client_of(app)
    reader, writer = await asyncio.open_connection(*split_address(app.endpoints["remoting"]))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    response = await wrong.request(RemotingCommand(9_999), timeout_s=TIMEOUT_S)
    assert (response.code, response.remark) == (3, " request type 9999 not supported")
    assert (await route(wrong, "TopicA")).code == ResponseCode.TOPIC_NOT_EXIST
    assert (await route(good, "TopicA")).code == ResponseCode.TOPIC_NOT_EXIST
    await good.close()
    await wrong.close()


async def test_probes_and_metrics(app: NamesrvApp) -> None:
    """Alive, ready, and the request that was made is counted."""
    client = await client_of(app)
    await route(client, "TopicA")
    assert await http_get(app, "/healthz") == (200, b"alive\n")
    status, body = await http_get(app, "/readyz")
    assert (status, msgspec.json.decode(body)["checks"]["namesrv"]["serving"]) == (200, True)
    status, body = await http_get(app, "/metrics")
    assert status == 200
    assert b'request_code="GET_ROUTEINFO_BY_TOPIC",response_code="TOPIC_NOT_EXIST"} 1' in body
    assert b"rocketmq_namesrv_connections 1" in body
    await client.close()


async def test_the_standard_grpc_health_service_answers(app: NamesrvApp) -> None:
    """Load balancers may ask the mesh port."""
    from apogeemq.mesh.health_service import CHECK

    channel = GrpcNetwork().channel(app.endpoints["mesh"])
    reply = await channel.unary(CHECK, CHECK.request_type(service="namesrv"), timeout_s=TIMEOUT_S)
    assert reply.status == CHECK.response_type.SERVING
    await channel.close()


async def test_it_is_not_ready_before_its_start_and_after_its_stop() -> None:
    """Whoever embeds it sees it in the health that was handed in, and finds no endpoint."""
    app = NamesrvApp(NamesrvConfig(listeners=LISTENERS))
    assert (app.health.ready, app.endpoints) == (False, {})
    await app.start()
    assert (app.health.ready, set(app.endpoints)) == (True, {"remoting", "mesh", "http"})
    await app.stop()
    assert (app.health.ready, app.endpoints) == (False, {})


async def test_a_listener_can_be_switched_off() -> None:
    """A cluster for gRPC clients alone needs no Remoting listener."""
    off = ListenerConfig(enabled=False)
    app = NamesrvApp(NamesrvConfig(listeners=ListenersConfig(remoting=off, mesh=LOOPBACK, http=off)))
    await app.start()
    assert set(app.endpoints) == {"mesh"}
    await app.stop()


async def test_a_port_that_is_taken_fails_the_start_and_leaves_nothing_bound(app: NamesrvApp) -> None:
    """The error names the listener; what was bound before it is free again."""
    _, taken = split_address(app.endpoints["remoting"])
    listeners = ListenersConfig(remoting=ListenerConfig(host="127.0.0.1", port=taken), mesh=LOOPBACK, http=LOOPBACK)
    other = NamesrvApp(NamesrvConfig(listeners=listeners))
    with pytest.raises(LifecycleError, match="namesrv remoting"):
        await other.start()
    assert other.endpoints == {}


async def test_another_network_and_clock_can_be_handed_in() -> None:
    """In memory, on manual time: a broker that falls silent is gone from the routes 10 s later."""
    clock = ManualClock()
    network = MemoryNetwork(clock, SeededChance(1))
    app = NamesrvApp(NamesrvConfig(listeners=LISTENERS), network=network, clock=clock)
    await app.start()
    await register(network.channel(app.endpoints["mesh"]), "TopicA")
    assert app.table.member_count == 1
    await clock.run_for(10.5)
    assert app.table.member_count == 0
    await app.stop()


async def test_routes_wait_for_brokers_if_asked_to() -> None:
    """needWaitForService: "not ready" for the given seconds after the start, then answers."""
    clock = ManualClock()
    registration = RegistrationConfig(need_wait_for_service=True, wait_for_service_s=45)
    network = MemoryNetwork(clock, SeededChance(1))
    app = NamesrvApp(NamesrvConfig(listeners=LISTENERS, registration=registration), network=network, clock=clock)
    await app.start()
    client = await client_of(app)
    await clock.run_for(44.9)
    assert (await route(client, "TopicA")).remark == "name server not ready"
    await clock.run_for(0.1)
    assert (await route(client, "TopicA")).code == ResponseCode.TOPIC_NOT_EXIST
    await client.close()
    await app.stop()


async def test_it_can_join_the_lifecycle_of_a_process() -> None:
    """Its listeners start and stop with the process."""
    app = NamesrvApp(NamesrvConfig(listeners=LISTENERS))
    lifecycle = Lifecycle()
    app.join(lifecycle)
    await lifecycle.start()
    assert (await http_get(app, "/readyz"))[0] == 200
    await lifecycle.stop()
    assert app.endpoints == {}


@pytest.mark.parametrize(("host", "warnings"), [("127.0.0.1", 0), ("0.0.0.0", 2)])
async def test_an_open_listener_is_warned_about(host: str, warnings: int, caplog: pytest.LogCaptureFixture) -> None:
    """Reachable from other machines without access control or TLS: the log says so for each listener."""
    listener = ListenerConfig(host=host, port=0)
    app = NamesrvApp(NamesrvConfig(listeners=ListenersConfig(remoting=listener, mesh=listener, http=LOOPBACK)))
    await app.start()
    await app.stop()
    assert sum("ANYBODY" in r.getMessage() for r in caplog.records if r.levelno == logging.WARNING) == warnings
