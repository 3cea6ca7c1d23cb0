"""Applications that send to a broker set while its master is killed or stopped: no send of theirs fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping

import pytest
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.record import decode_records
from apogeemq.remoting_codec.roles import NOT_MASTER

from tests.e2e.broker_set import CONTROLLERS, BrokerSetDeployment
from tests.e2e.process import poll_until
from tests.e2e.set_clients import (
    PAUSE_S,
    WAIT_S,
    Application,
    Doors,
    doors_of,
    make_topic,
    read_back,
    readers_of,
)
from tests.e2e.wire_client import WireClient, pull_fields, route_of, send_fields

pytestmark = pytest.mark.verify


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerSetDeployment]:
    """One for all tests: each leaves it whole."""
    with BrokerSetDeployment(tmp_path_factory.mktemp("set"), etcd=1) as made:
        made.whole()
        yield made


@pytest.fixture(scope="module")
def proxy(deployment: BrokerSetDeployment) -> Mapping[str, str]:
    """Its listeners."""
    return deployment.start_proxy()


@pytest.fixture(scope="module")
def doors(deployment: BrokerSetDeployment, proxy: Mapping[str, str]) -> Doors:
    """Ways in."""
    return doors_of(deployment, proxy)


@pytest.mark.parametrize("door", ["grpc", "remoting", "proxied"])
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_no_send_fails_when_the_master_goes(
    deployment: BrokerSetDeployment, doors: Doors, door: str, how: str
) -> None:
    """The application waits for the next master without knowing; all that it was told is stored is there."""
    before = await asyncio.to_thread(deployment.whole)
    master = deployment.name_of(before["master_id"])
    topic = f"App_{how}_{door}"
    make_topic(deployment, topic)
    application = Application(topic)
    async with doors[door]() as producer, application.sending(producer):
        process = deployment.process(master)
        await asyncio.to_thread(process.kill if how == "kill" else process.stop)
        await asyncio.to_thread(
            deployment.until, lambda told: told["master_id"] not in {0, before["master_id"]}, "another is master"
        )
        await application.more(100)
        await asyncio.to_thread(deployment.start_broker, master)
        await asyncio.to_thread(deployment.whole)
        await application.more(20)
    assert application.errors == []
    found = await asyncio.to_thread(read_back, deployment, topic)
    assert set(application.sent) - set(found) == set()
    print(f"{how} {door}: slowest send {application.slowest_s:.2f} s, stored twice {len(found) - len(set(found))}")


@pytest.mark.parametrize("door", ["grpc", "remoting"])
async def test_consumers_go_on_with_the_next_master(
    deployment: BrokerSetDeployment, proxy: Mapping[str, str], doors: Doors, door: str
) -> None:
    """Whatever was sent before, meanwhile and afterwards is handled, and nobody was started anew for it."""
    before = await asyncio.to_thread(deployment.whole)
    master = deployment.name_of(before["master_id"])
    topic = f"Read_{door}"
    make_topic(deployment, topic)
    application = Application(topic)
    handled: set[bytes] = set()

    async def handle(message: ReceivedMessage) -> None:
        handled.add(message.body)

    reader = readers_of(deployment, proxy)[door](topic, handle)
    async with reader, doors[door]() as producer, application.sending(producer):
        async with asyncio.timeout(WAIT_S):
            while not handled:  # noqa: ASYNC110 — what is waited for happens in many places
                await asyncio.sleep(PAUSE_S)
        deployment.process(master).kill()
        gone_s = time.monotonic()
        await asyncio.to_thread(
            deployment.until, lambda told: told["master_id"] not in {0, before["master_id"]}, "another is master"
        )
        await application.more(100)
        wanted = set(application.sent)
        async with asyncio.timeout(WAIT_S):
            while wanted - handled:  # noqa: ASYNC110 — the same
                await asyncio.sleep(PAUSE_S)
        print(f"read over {door}: all of {len(wanted)} handled {time.monotonic() - gone_s:.2f} s after the kill")
        await asyncio.to_thread(deployment.start_broker, master)
        await asyncio.to_thread(deployment.whole)
    assert application.errors == []


def test_slaves_are_in_the_routes_and_serve_reads(deployment: BrokerSetDeployment) -> None:
    """Under their ids, the master as 0; what is confirmed is read from each, and nobody but the master takes a send."""
    status = deployment.whole()
    topic = "Slaves"
    with WireClient(deployment.routed()) as client:
        for number in range(20):
            client.request(RequestCode.SEND_MESSAGE_V2, send_fields(topic), b"%d" % number)
    slaves = {each["broker_id"]: each["address"] for each in status["brokers"]}
    del slaves[status["master_id"]]

    def addresses() -> dict[int, str]:
        route = route_of(deployment.namesrv, topic)
        return {} if route is None else dict(route.broker_datas[0].broker_addrs)

    wanted = {0: deployment.routed(), **slaves}
    poll_until(lambda: addresses() == wanted, WAIT_S, lambda: AssertionError(f"{addresses()}, not {wanted}"))
    bodies = [b"%d" % number for number in range(20)]
    for address in slaves.values():
        with WireClient(address) as client:
            reply = client.request(RequestCode.SEND_MESSAGE_V2, send_fields(topic), b"x")
            assert reply.code == ResponseCode.SERVICE_NOT_AVAILABLE
            assert (reply.remark or "").startswith(NOT_MASTER)

            def read(client: WireClient = client) -> list[bytes]:
                reply = client.request(RequestCode.PULL_MESSAGE, pull_fields(topic, "G_slave"))
                return [record.body for record in decode_records(reply.body)] if reply.code == 0 else []

            poll_until(lambda: read() == bodies, WAIT_S, lambda: AssertionError(read()))
    gone = next(iter(slaves))
    name = deployment.name_of(gone)
    deployment.process(name).kill()
    poll_until(lambda: gone not in addresses(), WAIT_S, lambda: AssertionError(f"{gone} is still there: {addresses()}"))
    deployment.start_broker(name)
    deployment.whole()


async def test_consumers_read_from_a_slave_while_there_is_no_master(deployment: BrokerSetDeployment) -> None:
    """Both controllers are gone and then the master: nobody follows, and what is confirmed is still read."""
    before = await asyncio.to_thread(deployment.whole)
    topic = "Orphans"
    make_topic(deployment, topic)
    with WireClient(deployment.routed()) as client:
        for number in range(1, 50):
            client.request(RequestCode.SEND_MESSAGE_V2, send_fields(topic), b"%d" % number)
    await asyncio.sleep(1.0)  # a confirm offset reaches the slaves with the next chunk or sign of life
    for name in CONTROLLERS:
        deployment.controllers.process(name).kill()
    master = deployment.name_from(before, before["master_id"])
    deployment.process(master).kill()
    handled: set[bytes] = set()

    async def handle(message: ReceivedMessage) -> None:
        handled.add(message.body)

    async with readers_of(deployment, {"grpc": "127.0.0.1:1"})["remoting"](topic, handle):
        async with asyncio.timeout(WAIT_S):
            while len(handled) < 50:  # noqa: ASYNC110 — what is waited for happens in many places
                await asyncio.sleep(PAUSE_S)
    for name in CONTROLLERS:
        deployment.controllers.start(name, etcd__endpoints=";".join(deployment.etcd.endpoints))
        await asyncio.to_thread(deployment.controllers.wait_ready, name)
    await asyncio.to_thread(deployment.start_broker, master)
    await asyncio.to_thread(deployment.whole)
