"""A broker with its listeners and its link: real sockets on loopback, a network in memory, a clock moved by hand."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import msgspec
import pytest
from apogeemq.broker.app import NAMESRV, REMOTING, STORE, BrokerApp
from apogeemq.broker.config import BrokerConfig, IdentityConfig, ListenersConfig, StoreSettings
from apogeemq.mesh.addresses import split_address
from apogeemq.mesh.call_streams import StreamCaller
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.config import ListenerConfig
from apogeemq.mesh.embedding import find_embeddable
from apogeemq.mesh.health import Health
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.local_caller import LocalCaller
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.service_process import World as ServiceWorld
from apogeemq.mesh.v1 import broker_pb2 as pb
from apogeemq.mesh.v1.methods import (
    ACK_MESSAGE,
    BROKER_CHANNELS,
    CLIENT_HEARTBEAT,
    POP_MESSAGE,
    QUERY_TOPIC,
    SEND_MESSAGE,
)
from apogeemq.remoting_codec.aio.access import AllowAll
from apogeemq.remoting_codec.aio.client import RemotingClient
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.record import decode_records
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.memory_disk import MemoryDisk
from opentelemetry.trace import NoOpTracer

from packages.broker.tests.mesh_asking import handles_of, send_request
from packages.broker.tests.test_link_namesrv import FIRST, Namesrv
from packages.broker.tests.world import consumer_beat, fields_of, pull_fields, send_fields, until

LOOPBACK = ListenerConfig(host="127.0.0.1", port=0)
LISTENERS = ListenersConfig(remoting=LOOPBACK, mesh=LOOPBACK, http=LOOPBACK)
TIMEOUT_S = 20.0


class Process:
    """What surrounds a broker: its app, its clock, the network with a name server that may be started."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.network = MemoryNetwork(self.clock, SeededChance(1))
        self.namesrv = Namesrv(self.network, FIRST)
        self.health = Health()
        self.registry = Registry()
        self.apps: list[BrokerApp] = []

    def app(
        self,
        *,
        listeners: ListenersConfig = LISTENERS,
        namesrv_addr: str = "",
        broker_name: str = "broker-a",
        disk: MemoryDisk | None = None,
        access: AllowAll | None = None,
    ) -> BrokerApp:
        config = BrokerConfig(
            identity=IdentityConfig(broker_name=broker_name, namesrv_addr=namesrv_addr),
            listeners=listeners,
            store=StoreSettings(path="/store", commit_log_file_size_bytes=8 << 20),
        )
        app = BrokerApp(
            config,
            network=self.network,
            clock=self.clock,
            chance=SeededChance(2),
            health=self.health,
            registry=self.registry,
            disk=disk or MemoryDisk(),
            access=access,
        )
        self.apps.append(app)
        return app

    async def run(self, work: "asyncio.Future[None]") -> None:
        """Move the clock until it is done: a start waits for the name server, a stop says good-bye to it."""
        while not work.done():
            await self.clock.run_for(0.1)
        await work

    async def stop(self) -> None:
        for app in self.apps:
            await self.run(asyncio.ensure_future(app.stop()))
        await self.namesrv.stop()


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    process = Process()
    yield process
    await process.stop()


async def connect(app: BrokerApp, listener: str = "remoting") -> RemotingClient:
    client = RemotingClient()
    await client.connect(*split_address(app.endpoints[listener]), timeout_s=TIMEOUT_S)
    return client


async def ask(client: RemotingClient, code: int, fields: dict[str, str], body: bytes = b"") -> RemotingCommand:
    return await client.request(RemotingCommand(code, ext_fields=fields, body=body), timeout_s=TIMEOUT_S)


async def ready(app: BrokerApp) -> tuple[int, dict[str, dict[str, object]]]:
    """What /readyz says."""
    reader, writer = await asyncio.open_connection(*split_address(app.endpoints["http"]))
    writer.write(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), msgspec.json.decode(body)["checks"]


async def test_messages_go_in_and_out(process: Process) -> None:
    """Over a socket, from a started broker; ids name the address that it is reached under."""
    app = process.app()
    await app.start()
    client = await connect(app)
    sent = await ask(client, 310, send_fields(), b"hello")
    assert sent.code == 0
    host, port = split_address(app.endpoints["remoting"])
    packed = socket.inet_aton(host) + port.to_bytes(4, "big")
    assert fields_of(sent)["msgId"] == packed.hex().upper() + "0" * 16
    pulled = await ask(client, 11, pull_fields())
    (record,) = decode_records(pulled.body)
    assert (record.body, record.store_host) == (b"hello", packed)
    await client.close()


async def test_it_is_ready_once_it_serves(process: Process) -> None:
    """Each check says so; before and afterwards none does."""
    app = process.app()
    await app.start()
    status, checks = await ready(app)
    assert (status, set(checks)) == (200, {STORE, NAMESRV, REMOTING})
    assert checks[NAMESRV]["reason"] == "no name server is configured"
    assert checks[REMOTING]["reason"] == app.endpoints["remoting"]
    await process.run(asyncio.ensure_future(app.stop()))
    assert not process.health.ready
    assert {check.reason for check in process.health.checks.values()} == {"stopping"}
    with pytest.raises(RuntimeError, match="not started"):
        _ = app.broker


async def test_it_registers_with_its_topics_and_leaves(process: Process) -> None:
    """A topic that a send makes is told at once; a stop takes the broker out of the routes."""
    await process.namesrv.start()
    app = process.app(namesrv_addr=f" {FIRST} ; ")
    await process.run(asyncio.ensure_future(app.start()))
    (identity,) = process.namesrv.hellos
    assert (identity.broker_name, identity.cluster, identity.broker_id) == ("broker-a", "DefaultCluster", 0)
    assert identity.remoting_address == app.endpoints["remoting"]
    assert identity.mesh_address == app.endpoints["mesh"]
    assert process.namesrv.topics["TBW102"] == 8
    client = await connect(app)
    assert (await ask(client, 310, send_fields("New"), b"x")).code == 0
    await process.clock.run_for(1)
    assert process.namesrv.topics["New"] == 4
    await client.close()
    await process.run(asyncio.ensure_future(app.stop()))
    assert process.namesrv.unregistered == 1


async def test_the_retry_topic_of_a_new_group_is_told_at_once(process: Process) -> None:
    """Before anything failed: a first heartbeat is enough, so that the first retry finds a route when it is due."""
    await process.namesrv.start()
    app = process.app(namesrv_addr=FIRST)
    await process.run(asyncio.ensure_future(app.start()))
    client = await connect(app)
    assert "%RETRY%G" not in process.namesrv.topics
    assert (await ask(client, 34, {}, consumer_beat().encode())).code == 0
    await process.clock.run_for(0.1)
    assert process.namesrv.topics["%RETRY%G"] == 1
    await client.close()
    await process.run(asyncio.ensure_future(app.stop()))


async def test_without_a_name_server_it_serves_and_says_so(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    """The start waits 10 s for the first registration, then goes on; not ready until one answers."""
    app = process.app(namesrv_addr=FIRST)
    starting = asyncio.ensure_future(app.start())
    await until(lambda: "remoting" in app.endpoints and process.clock.sleepers > 0)
    await process.clock.run_for(9.9)
    assert not starting.done()
    await process.run(starting)
    assert "no name server has answered within 10 s" in caplog.text
    await process.clock.run_for(1)
    status, checks = await ready(app)
    assert (status, checks[NAMESRV]["reason"]) == (503, f"{FIRST}: not reached")
    await process.namesrv.start()
    await process.clock.run_for(30)
    assert process.health.checks[NAMESRV] == (True, f"{FIRST}: registered")


async def test_a_store_that_failed_makes_it_not_ready(process: Process) -> None:
    """With the reason; reading goes on, so the process lives on."""
    disk = FaultyDisk(Random(1))
    app = process.app(disk=disk)
    await app.start()
    client = await connect(app)
    await ask(client, 310, send_fields(), b"x")
    disk.fail("sync", errno.EIO, path_part="commitlog")
    await until(lambda: not app.broker.store.is_writable)
    await process.clock.run_for(1)
    status, checks = await ready(app)
    assert status == 503
    assert "Input/output error" in str(checks[STORE]["reason"])
    assert (await ask(client, 11, pull_fields())).code == 0
    assert (await ask(client, 310, send_fields(), b"x")).code == 14
    await client.close()
    with pytest.raises(Exception, match="not writable"):
        await process.run(asyncio.ensure_future(app.stop()))
    process.apps.clear()


async def test_a_background_task_that_ended_is_told(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours: better not ready than half dead in silence."""
    app = process.app()
    await app.start()

    def bug() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(app.broker.pulls, "expire", bug)
    await process.clock.run_for(1)
    assert process.health.checks[REMOTING] == (False, "the background task tick ended")


async def test_the_second_port_serves_the_same(process: Process) -> None:
    """For clients that are told to use the VIP channel."""
    app = process.app(listeners=msgspec.structs.replace(LISTENERS, vip=LOOPBACK))
    await app.start()
    one, two = await connect(app), await connect(app, "vip")
    assert (await ask(one, 310, send_fields(), b"x")).code == 0
    assert decode_records((await ask(two, 11, pull_fields())).body)[0].body == b"x"
    await one.close()
    await two.close()


@pytest.mark.parametrize(
    ("name", "host", "access", "is_open"),
    [
        ("remoting", "0.0.0.0", None, True),
        ("remoting", "0.0.0.0", AllowAll(), False),
        ("remoting", "127.0.0.1", None, False),
        ("mesh", "0.0.0.0", AllowAll(), True),
    ],
)
async def test_an_open_listener_is_warned_of(
    process: Process, caplog: pytest.LogCaptureFixture, name: str, host: str, access: AllowAll | None, *, is_open: bool
) -> None:
    """Reachable from elsewhere, with neither access control (the mesh has none) nor TLS: said at every start."""
    caplog.set_level(logging.WARNING)
    listeners = msgspec.structs.replace(LISTENERS, **{name: ListenerConfig(host=host, port=0)})
    await process.app(listeners=listeners, access=access).start()
    assert ("has neither access control nor enforced TLS" in caplog.text) is is_open


async def test_its_name_is_the_hosts_unless_told(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut to what a name may hold: it names a topic too."""
    monkeypatch.setattr(socket, "gethostname", lambda: "host 1.example/com" + "x" * 200)
    app = process.app(broker_name="")
    name = app.config.identity.broker_name
    assert name == ("host-1-example-com" + "x" * 200)[:100]
    await app.start()
    assert app.broker.topics.get(name) is not None


async def test_an_advertised_name_is_resolved_for_message_ids(process: Process) -> None:
    """Routes say the name, records carry an address."""
    listeners = msgspec.structs.replace(
        LISTENERS, remoting=ListenerConfig(host="127.0.0.1", port=0, advertised_host="localhost", advertised_port=4711)
    )
    app = process.app(listeners=listeners)
    await app.start()
    assert app.endpoints["remoting"] == "localhost:4711"
    assert app.broker.send._offset_message_id(0)[-24:-16] == (4711).to_bytes(4, "big").hex().upper()


def caller_of(process: Process, app: BrokerApp) -> StreamCaller:
    """A proxy's way to the broker over the network."""
    return StreamCaller(process.network, app.endpoints["mesh"], BROKER_CHANNELS, clock=process.clock)


async def test_a_proxy_sends_pops_and_acknowledges_over_the_mesh(process: Process) -> None:
    """On the mesh listener; what it does is there for Remoting clients too."""
    app = process.app()
    await app.start()
    client = await connect(app)
    await ask(client, 310, send_fields(), b"hello")
    caller = caller_of(process, app)
    pop = pb.PopMessageRequest(
        consumer_group="G", topic="T", queue_id=-1, max_msg_nums=32, invisible_time_ms=60_000, poll_time_ms=1_000
    )
    popped = await caller.call(POP_MESSAGE, pop, timeout_s=TIMEOUT_S)
    assert [record.body for run in popped.runs for record in decode_records(run.records)] == [b"hello"]
    ack = pb.AckMessageRequest(consumer_group="G", topic="T", handles=handles_of(popped))
    assert (await caller.call(ACK_MESSAGE, ack, timeout_s=TIMEOUT_S)).results == [pb.HANDLE_OK]
    sent = await caller.call(SEND_MESSAGE, send_request(body=b"back"), timeout_s=TIMEOUT_S)
    assert sent.status == pb.SEND_OK
    assert decode_records((await ask(client, 11, pull_fields())).body)[-1].body == b"back"
    await caller.close()
    await client.close()


async def test_a_proxys_clients_leave_with_its_streams(process: Process) -> None:
    """As Remoting clients do with their connection."""
    app = process.app()
    await app.start()
    caller = caller_of(process, app)
    consumer = pb.ClientHeartbeatRequest.ConsumerData(group="G")
    beat = pb.ClientHeartbeatRequest(client_id="c1", consumers=[consumer])
    await caller.call(CLIENT_HEARTBEAT, beat, timeout_s=TIMEOUT_S)
    assert app.broker.group_service.consumer_ids("G") == ["c1"]
    await caller.close()
    await process.clock.run_for(1.0)
    assert app.broker.clients.consumer_group("G") is None


async def test_it_serves_proxies_without_a_remoting_listener(process: Process) -> None:
    """Routes name its mesh endpoint alone; ids carry the address that Remoting would have."""
    await process.namesrv.start()
    off = ListenerConfig(host="127.0.0.1", port=10911, enabled=False)
    app = process.app(listeners=msgspec.structs.replace(LISTENERS, remoting=off), namesrv_addr=FIRST)
    await process.run(asyncio.ensure_future(app.start()))
    assert set(app.endpoints) == {"mesh", "http"}
    (identity,) = process.namesrv.hellos
    assert (identity.remoting_address, identity.mesh_address) == ("", app.endpoints["mesh"])
    assert process.health.checks[REMOTING] == (True, "off: clients come through a proxy")
    caller = caller_of(process, app)
    sent = await caller.call(SEND_MESSAGE, send_request(), timeout_s=TIMEOUT_S)
    assert sent.offset_message_id == "7F00000100002A9F" + "0" * 16
    await caller.close()


async def test_it_is_embedded_by_its_entry_point(process: Process, tmp_path: Path) -> None:
    """Whoever embeds it asks by the name of the service, and reaches it without a connection."""
    config = tmp_path / "broker.toml"
    config.write_text('[identity]\nbroker_name = "embedded"\n[store]\npath = "elsewhere"\n')

    def beside(_: object) -> ServiceWorld:
        raise AssertionError("a broker runs no other service in its process")

    world = ServiceWorld(
        process.clock, SeededChance(2), process.network, process.health, process.registry, NoOpTracer(), beside
    )
    settings = {
        "store.path": str(tmp_path / "store"),
        "store.commit_log_file_size_bytes": str(1 << 20),
        "namesrvAddr": "",
        **{f"listeners.{name}.port": "0" for name in ("remoting", "mesh", "http")},
        **{f"listeners.{name}.host": "127.0.0.1" for name in ("remoting", "mesh")},
    }
    service = find_embeddable("broker", asked_by="a test")(config, {}, settings, world)
    assert service.name == "embedded"
    lifecycle = Lifecycle()
    service.join(lifecycle)
    await lifecycle.start()
    assert set(service.endpoints) == {"remoting", "mesh", "http"}
    caller = LocalCaller(service.name, service.calls, clock=process.clock)
    found = await caller.call(QUERY_TOPIC, pb.QueryTopicRequest(topic="TBW102"), timeout_s=TIMEOUT_S)
    assert found.write_queue_nums == 8
    await caller.close()
    await process.run(asyncio.ensure_future(lifecycle.stop()))
    with pytest.raises(RuntimeError, match="not started"):
        _ = service.calls


async def test_a_stop_answers_who_waits_before_it_closes(process: Process) -> None:
    """A held pull is answered, then the connection ends; offsets of the last moment are saved."""
    disk = MemoryDisk()
    app = process.app(disk=disk)
    await app.start()
    client = await connect(app)
    await ask(client, 310, send_fields(), b"x")
    held = asyncio.ensure_future(
        ask(client, 11, pull_fields(offset=1) | {"sysFlag": "7", "suspendTimeoutMillis": "15000", "commitOffset": "1"})
    )
    await until(lambda: len(app.broker.long_polling) == 1)
    await process.run(asyncio.ensure_future(app.stop()))
    assert (await held).code == 19
    assert b'"T@G":{0:1' in disk.read_file(Path("/store/config/consumerOffset.json"))
    assert disk.size_of(Path("/store/abort")) is None
    await client.close()


async def test_a_client_that_closes_leaves_its_groups(process: Process) -> None:
    """The app tells the broker of closed connections."""
    app = process.app()
    await app.start()
    client = await connect(app)
    reply = await client.request(RemotingCommand(34, body=consumer_beat().encode()), timeout_s=TIMEOUT_S)
    assert reply.code == 0
    assert app.broker.group_service.consumer_ids("G") == ["c1"]
    await client.close()
    await until(lambda: app.broker.clients.consumer_group("G") is None)


async def test_it_joins_a_lifecycle(process: Process) -> None:
    """As one component with its own start and stop."""
    app = process.app()
    lifecycle = Lifecycle()
    app.join(lifecycle)
    await lifecycle.start()
    assert process.health.ready
    await process.run(asyncio.ensure_future(lifecycle.stop()))
    assert not process.health.ready
