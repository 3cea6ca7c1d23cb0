"""A proxy put together: its listeners, its links, what a start says, and how it stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import msgspec
import pytest
import trustme
from apogeemq.mesh.addresses import split_address
from apogeemq.mesh.call_streams import call_handlers
from apogeemq.mesh.calls import Answer, CallInfo, CallTable
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import SystemClock
from apogeemq.mesh.config import ListenerConfig, TlsConfig
from apogeemq.mesh.errors import ConfigError, LifecycleError
from apogeemq.mesh.health import Health
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.service_process import World
from apogeemq.mesh.v1 import broker_pb2 as broker
from apogeemq.mesh.v1.methods import BROKER_CHANNELS, QUERY_TOPIC, SEND_MESSAGE
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import ClientType, Code
from apogeemq.proxy import app as app_module
from apogeemq.proxy.app import HEALTH_CHECK, PROGRAM, ProxyApp
from apogeemq.proxy.config import IdentityConfig, ListenersConfig, ProxyConfig, ProxyMode
from apogeemq.remoting_codec.aio.access import AllowAll
from apogeemq.remoting_codec.aio.client import RemotingClient
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.route import TopicRouteData
from opentelemetry.trace import NoOpTracer

from packages.proxy.tests.grpc_client import WAIT_S, call, receive_bytes, telemetry
from packages.proxy.tests.name_server import NameServer, queue_data

LOOPBACK = ListenerConfig(host="127.0.0.1", port=0)
LISTENERS = ListenersConfig(remoting=LOOPBACK, grpc=LOOPBACK, http=LOOPBACK)


def broker_table(sent: list[broker.SendMessageRequest]) -> CallTable:
    """A broker that takes every message and has every topic."""

    def send(request: broker.SendMessageRequest, info: CallInfo) -> broker.SendMessageReply:
        sent.append(request)
        return broker.SendMessageReply(status=broker.SEND_OK, message_id="M", offset_message_id="O")

    def query_topic(request: broker.QueryTopicRequest, info: CallInfo) -> broker.QueryTopicReply:
        return broker.QueryTopicReply(found=True, read_queue_nums=8, write_queue_nums=8, perm=6)

    return CallTable([Answer(SEND_MESSAGE, send), Answer(QUERY_TOPIC, query_topic)])


class Process:
    """A network with a name server and a broker, and proxies in front of them."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.network = MemoryNetwork(self.clock, SeededChance(1))
        self.health = Health()
        self.registry = Registry()
        self.namesrv = NameServer()
        self.namesrv.routes["T"] = [queue_data("b", "b:10921")]
        self.namesrv.brokers["b"] = ("DefaultCluster", "b:10921")
        self.sent: list[broker.SendMessageRequest] = []

    async def listen(self) -> None:
        """Start what the proxy asks."""
        await self.namesrv.listen(self.network)
        handlers = call_handlers(BROKER_CHANNELS, broker_table(self.sent), clock=self.clock)
        await self.network.serve("b", 10921, handlers)

    def app(self, listeners: ListenersConfig = LISTENERS, **more: Any) -> ProxyApp:
        """A proxy that is not started."""
        identity = IdentityConfig(namesrv_addr="ns:9877")
        return ProxyApp(
            ProxyConfig(identity=identity, listeners=listeners),
            network=self.network,
            clock=self.clock,
            chance=SeededChance(2),
            health=self.health,
            registry=self.registry,
            tracer=NoOpTracer(),
            **more,
        )

    @asynccontextmanager
    async def running(self, app: ProxyApp) -> AsyncIterator[ProxyApp]:
        """Run a proxy."""
        lifecycle = Lifecycle()
        app.join(lifecycle)
        async with asyncio.timeout(3 * WAIT_S):
            await lifecycle.start()
            try:
                yield app
            finally:
                await lifecycle.stop()


@pytest.fixture
async def process() -> Process:
    """A world of its own for each test."""
    made = Process()
    await made.listen()
    return made


def channel(app: ProxyApp) -> grpc.aio.Channel:
    """A gRPC client."""
    return grpc.aio.insecure_channel(app.endpoints["grpc"])


def route_request(topic: str) -> v2.QueryRouteRequest:
    """Who serves it?"""
    request = v2.QueryRouteRequest(topic={"name": topic})
    request.endpoints.addresses.add(host="127.0.0.1", port=8081)
    return request


async def remoting(app: ProxyApp, code: int, fields: Mapping[str, str], body: bytes = b"") -> RemotingCommand:
    """Ask over Remoting."""
    client = RemotingClient()
    await client.connect(*split_address(app.endpoints["remoting"]))
    try:
        return await client.request(RemotingCommand(code, ext_fields=dict(fields), body=body), timeout_s=WAIT_S)
    finally:
        await client.close()


async def http(app: ProxyApp, path: str) -> str:
    """Ask over HTTP."""
    reader, writer = await asyncio.open_connection(*split_address(app.endpoints["http"]))
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    try:
        return (await reader.read()).decode()
    finally:
        writer.close()


async def test_all_doors_lead_to_the_broker(process: Process) -> None:
    """A message by gRPC and one by Remoting reach it; health and metrics tell of both."""
    async with process.running(process.app()) as app:
        assert process.health.ready
        assert app.endpoints.keys() == {"grpc", "remoting", "http"}
        async with channel(app) as client:
            route = await call(client, "QueryRoute", route_request("T"), v2.QueryRouteResponse)
            assert route.status.code == Code.OK
            assert {queue.broker.name for queue in route.message_queues} == {"b"}
            request = v2.SendMessageRequest()
            message = request.messages.add(topic={"name": "T"}, body=b"grpc")
            message.system_properties.message_id = "01" * 17
            sent = await call(client, "SendMessage", request, v2.SendMessageResponse)
            assert sent.status.code == Code.OK
        fields = {"a": "P", "b": "T", "c": "", "d": "4", "e": "0", "f": "0", "g": "1", "h": "0", "n": "b"}
        assert (await remoting(app, 310, fields, b"remoting")).code == 0
        assert [request.body for request in process.sent] == [b"grpc", b"remoting"]
        found = TopicRouteData.decode((await remoting(app, 105, {"topic": "T"})).body)
        assert found.broker_datas[0].broker_addrs == {0: app.endpoints["remoting"]}
        assert "HTTP/1.1 200" in await http(app, "/readyz")
        metrics = await http(app, "/metrics")
        for line in (
            'rocketmq_proxy_up{proxy_mode="cluster"} 1',
            'apogeemq_proxy_grpc_requests_total{method="SendMessage",code="OK"} 1',
            'apogeemq_proxy_grpc_request_seconds_count{method="SendMessage"} 1',
            'apogeemq_proxy_remoting_requests_total{method="SEND_MESSAGE_V2",code="SUCCESS"} 1',
            "apogeemq_proxy_kept_routes 1",
            "apogeemq_proxy_known_brokers 1",
            "apogeemq_proxy_telemetry_streams 0",
        ):
            assert line in metrics
    assert app.endpoints == {}
    assert not process.health.ready


async def test_a_broker_in_this_process(process: Process) -> None:
    """`local_brokers` are asked straight, whatever address the routes name."""
    sent: list[broker.SendMessageRequest] = []
    process.namesrv.routes["T"] = [queue_data("inside", "nowhere:1")]
    async with process.running(process.app(local_brokers={"inside": lambda: broker_table(sent)})) as app:
        fields = {"a": "P", "b": "T", "c": "", "d": "4", "e": "0", "f": "0", "g": "1", "h": "0", "n": "inside"}
        assert (await remoting(app, 310, fields, b"x")).code == 0
    assert [request.body for request in sent] == [b"x"]


async def test_name_servers_are_asked_for_at_start(process: Process) -> None:
    """Their ports are known only then, when they are services of the same process."""
    async with process.running(process.app(namesrvs=lambda: ["ns:9877"])):
        assert process.health.ready


async def test_it_is_not_ready_without_a_name_server(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts all the same, says so, and becomes ready when one answers."""
    monkeypatch.setattr(app_module, "REACH_WAIT_S", 0.05)
    process.network.cut("ns:9877")
    async with process.running(process.app()):
        assert not process.health.ready
        assert "no name server" in process.health.checks[HEALTH_CHECK].reason
        ready = asyncio.Event()

        def look() -> None:
            if process.health.ready:
                ready.set()

        process.health.add_listener(look)
        process.network.heal("ns:9877")
        await ready.wait()


async def test_stop_answers_who_waits(process: Process) -> None:
    """Telemetry streams end in good order; a new client finds the port closed."""
    async with process.running(process.app()) as app:
        endpoint = app.endpoints["grpc"]
        client = grpc.aio.insecure_channel(endpoint)
        stream = telemetry(client)
        command = v2.TelemetryCommand()
        command.settings.client_type = ClientType.PRODUCER
        command.settings.publishing.topics.add(name="T")
        await stream.write(command.SerializeToString())
        assert await stream.read() is not grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    await client.close()
    async with grpc.aio.insecure_channel(endpoint) as later:
        with pytest.raises(grpc.aio.AioRpcError):
            await receive_bytes(later, b"", timeout_s=1.0).read()


async def test_listeners_can_be_left_out(process: Process) -> None:
    """`enabled = false` opens no port."""
    off = msgspec.structs.replace(LOOPBACK, enabled=False)
    async with process.running(process.app(ListenersConfig(remoting=off, grpc=LOOPBACK, http=off))) as app:
        assert app.endpoints.keys() == {"grpc"}


async def test_a_taken_port_ends_the_start(process: Process) -> None:
    """With the port in the error, and nothing left behind."""
    async with process.running(process.app()) as app:
        taken = msgspec.structs.replace(LOOPBACK, port=split_address(app.endpoints["grpc"])[1])
        other = Process()
        await other.listen()
        with pytest.raises(LifecycleError, match=str(taken.port)):
            async with other.running(other.app(msgspec.structs.replace(LISTENERS, grpc=taken))):
                pass


@pytest.mark.parametrize(
    ("host", "access", "warned"),
    [("0.0.0.0", None, ["grpc", "remoting"]), ("0.0.0.0", AllowAll(), ["grpc"]), ("127.0.0.1", None, [])],
)
async def test_open_listeners_are_told_loudly(
    process: Process, caplog: pytest.LogCaptureFixture, host: str, access: AllowAll | None, warned: list[str]
) -> None:
    """Reachable from elsewhere with neither access control nor TLS: said at every start."""
    listener = ListenerConfig(host=host, port=0, advertised_host="127.0.0.1")
    listeners = ListenersConfig(remoting=listener, grpc=listener, http=LOOPBACK)
    with caplog.at_level(logging.WARNING):
        async with process.running(process.app(listeners, access=access)):
            pass
    for name in ("grpc", "remoting", "http"):
        assert (f"its {name} listener" in caplog.text) is (name in warned)


def tls_listener(folder: Path, mode: Any) -> tuple[trustme.CA, ListenerConfig]:
    """A listener with a certificate, and who signed it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(str(cert_path))
    certificate.private_key_pem.write_to_path(str(key_path))
    tls = TlsConfig(mode=mode, cert_path=str(cert_path), key_path=str(key_path))
    return authority, ListenerConfig(host="localhost", port=0, tls=tls)


@pytest.mark.parametrize(("mode", "takes_plain"), [("permissive", True), ("enforcing", False)])
async def test_tls_on_the_grpc_port(process: Process, tmp_path: Path, mode: str, takes_plain: bool) -> None:
    """permissive takes plain clients on the same port, enforcing does not."""
    authority, listener = tls_listener(tmp_path, mode)
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    async with process.running(process.app(msgspec.structs.replace(LISTENERS, grpc=listener))) as app:
        async with grpc.aio.secure_channel(app.endpoints["grpc"], credentials) as client:
            route = await call(client, "QueryRoute", route_request("T"), v2.QueryRouteResponse)
            assert route.status.code == Code.OK
        async with channel(app) as client:
            if takes_plain:
                route = await call(client, "QueryRoute", route_request("T"), v2.QueryRouteResponse)
                assert route.status.code == Code.OK
            else:
                with pytest.raises(grpc.aio.AioRpcError):
                    await call(client, "QueryRoute", route_request("T"), v2.QueryRouteResponse)


def test_certificates_are_read_before_anything_starts(process: Process, tmp_path: Path) -> None:
    """A file that is none is a ConfigError."""
    _, listener = tls_listener(tmp_path, "enforcing")
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(ConfigError, match="tls"):
        process.app(msgspec.structs.replace(LISTENERS, remoting=listener))


# -- proxyMode=LOCAL


class Embedded:
    """A broker as another wheel would bring it."""

    name = "inside"

    def __init__(self) -> None:
        self.endpoints: dict[str, str] = {}
        self.sent: list[broker.SendMessageRequest] = []
        self.given: tuple[Any, ...] = ()

    @property
    def calls(self) -> CallTable:
        """What it answers once it is started."""
        assert self.endpoints, "asked for its calls before it was started"
        return broker_table(self.sent)

    def join(self, lifecycle: Lifecycle) -> None:
        """Start and stop with the process."""

        async def start() -> None:
            self.endpoints["mesh"] = "127.0.0.1:1"

        async def stop() -> None:
            self.endpoints.clear()

        lifecycle.add("inside", start=start, stop=stop)

    def factory(self, *given: Any) -> Embedded:
        """Note what it was made of."""
        self.given = given
        return self


def world_of(process: Process) -> World:
    """The world that a service process hands in."""

    def beside(metric_labels: Mapping[str, str]) -> World:
        health, registry = Health(), Registry(metric_labels)
        return World(process.clock, SeededChance(4), process.network, health, registry, NoOpTracer(), beside)

    return World(
        process.clock, SeededChance(3), process.network, process.health, process.registry, NoOpTracer(), beside
    )


async def test_local_mode_runs_a_broker(process: Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The factory gets its settings file, the proxy's name servers, and a world of its own."""
    inside = Embedded()
    asked: list[tuple[str, str]] = []

    def find(service: str, *, asked_by: str) -> Callable[..., Embedded]:
        asked.append((service, asked_by))
        return inside.factory

    monkeypatch.setattr(app_module, "find_embeddable", find)
    process.namesrv.routes["T"] = [queue_data("inside", "nowhere:1")]
    file = tmp_path / "broker.conf"
    file.write_text("")
    identity = IdentityConfig(namesrv_addr="ns:9877", proxy_mode=ProxyMode.LOCAL, broker_config=str(file))
    app = PROGRAM.make_app(ProxyConfig(identity=identity, listeners=LISTENERS), world_of(process))
    assert isinstance(app, ProxyApp)
    async with process.running(app):
        assert app.endpoints["broker.mesh"] == "127.0.0.1:1"
        fields = {"a": "P", "b": "T", "c": "", "d": "4", "e": "0", "f": "0", "g": "1", "h": "0", "n": "inside"}
        assert (await remoting(app, 310, fields, b"x")).code == 0
        assert 'rocketmq_proxy_up{proxy_mode="local"} 1' in await http(app, "/metrics")
    assert asked == [("broker", "proxyMode")]
    given_file, _, settings, world = inside.given
    assert given_file == file
    assert settings == {"identity.namesrv_addr": "ns:9877"}
    assert world.health is not process.health
    assert world.registry is not process.registry
    world.registry.counter("made_here_total", "Of no use but to show the labels.").child().value += 1
    assert 'made_here_total{node_type="broker"} 1' in world.registry.render()
    assert [request.body for request in inside.sent] == [b"x"]


def test_local_mode_without_the_wheel(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the setting and the wheel to install."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **which: [])
    identity = IdentityConfig(proxy_mode=ProxyMode.LOCAL)
    with pytest.raises(ConfigError, match=r"proxyMode.*apogeemq-broker"):
        PROGRAM.make_app(ProxyConfig(identity=identity), world_of(process))


def test_cluster_mode_embeds_nothing(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other wheel is looked for."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **which: [])
    PROGRAM.make_app(ProxyConfig(), world_of(process))
