"""Applications that send to a broker set while its master is killed or stopped: no send of theirs fails.

Each application is one of our clients with its defaults. It sends one message after the other, and notes every error.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Protocol

import pytest
from apogeemq import client_grpc, client_remoting
from apogeemq.client_api.errors import ClientError
from apogeemq.client_api.message import Message, SendReceipt
from apogeemq.remoting_codec.codes import RequestCode

from tests.e2e.broker_set import BrokerSetDeployment
from tests.e2e.wire_client import WireClient, pull_all, send_fields

pytestmark = pytest.mark.verify

PAUSE_S = 0.01
WAIT_S = 30.0


class AnyProducer(Protocol):
    """What both clients' producers can do."""

    async def send(self, message: Message) -> SendReceipt:
        """Send one message."""


class Application:
    """Sends numbers to a topic until it is left."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.sent: list[bytes] = []
        self.errors: list[ClientError] = []
        self.slowest_s = 0.0

    @contextlib.asynccontextmanager
    async def sending(self, producer: AnyProducer) -> AsyncIterator[None]:
        """Send all the while."""
        task = asyncio.create_task(self._send(producer))
        try:
            await self.more(20)
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def more(self, count: int) -> None:
        """Until so many more are stored."""
        goal = len(self.sent) + count
        async with asyncio.timeout(WAIT_S):
            while len(self.sent) < goal:  # noqa: ASYNC110 — what is waited for happens in many places
                await asyncio.sleep(PAUSE_S)

    async def _send(self, producer: AnyProducer) -> None:
        number = 0
        while True:
            number += 1
            body = b"%d" % number
            begun_s = time.monotonic()
            try:
                await producer.send(Message(self.topic, body))
            except ClientError as error:
                self.errors.append(error)
            else:
                self.sent.append(body)
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun_s)
            await asyncio.sleep(PAUSE_S)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerSetDeployment]:
    """One for all tests: each leaves it whole."""
    with BrokerSetDeployment(tmp_path_factory.mktemp("set"), etcd=1) as made:
        made.whole()
        yield made


@pytest.fixture(scope="module")
def doors(
    deployment: BrokerSetDeployment,
) -> Mapping[str, Callable[[], client_grpc.Producer | client_remoting.Producer]]:
    """Ways in, by name: over the proxy, and straight to the brokers."""
    proxy = deployment.start_proxy()
    return {
        "grpc": lambda: client_grpc.Producer(proxy["grpc"]),
        "remoting": lambda: client_remoting.Producer(deployment.namesrv),
        "proxied": lambda: client_remoting.Producer(proxy["remoting"]),
    }


def read_back(deployment: BrokerSetDeployment, topic: str) -> list[bytes]:
    """All bodies of a topic's queues, from who is master now."""
    with WireClient(deployment.routed()) as client:
        return [record.body for queue_id in range(4) for record in pull_all(client, topic, "G_looks", queue_id)]


@pytest.mark.parametrize("door", ["grpc", "remoting", "proxied"])
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_no_send_fails_when_the_master_goes(
    deployment: BrokerSetDeployment,
    doors: Mapping[str, Callable[[], client_grpc.Producer | client_remoting.Producer]],
    door: str,
    how: str,
) -> None:
    """The application waits for the next master without knowing; all that it was told is stored is there."""
    before = await asyncio.to_thread(deployment.whole)
    master = deployment.name_of(before["master_id"])
    topic = f"App_{how}_{door}"
    with WireClient(deployment.routed()) as client:
        client.request(RequestCode.SEND_MESSAGE_V2, send_fields(topic), b"0")  # makes it
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
