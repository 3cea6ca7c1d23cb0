"""Applications that send to a broker set by our own clients, over each door, and note every error."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Protocol, TypeAlias

from apogeemq import client_grpc, client_remoting
from apogeemq.client_api.errors import ClientError
from apogeemq.client_api.message import Message, ReceivedMessage, SendReceipt
from apogeemq.remoting_codec.codes import RequestCode

from tests.e2e.broker_set import BrokerSetDeployment
from tests.e2e.wire_client import WireClient, pull_all, send_fields

PAUSE_S = 0.01
WAIT_S = 30.0
QUEUES = 4

Doors: TypeAlias = Mapping[str, Callable[[], client_grpc.Producer | client_remoting.Producer]]
"""Ways in, by name; each makes a producer with its defaults."""


class AnyProducer(Protocol):
    """What both clients' producers can do."""

    async def send(self, message: Message) -> SendReceipt:
        """Send one message."""


class Application:
    """Sends numbers to a topic until it is left."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.sent: list[bytes] = []
        self.sent_s: list[float] = []
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

    def longest_pause_s(self, since_s: float) -> float:
        """Between two sends that were acknowledged, from then on."""
        times = [since_s, *(each for each in self.sent_s if each > since_s)]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

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
                self.sent_s.append(time.monotonic())
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun_s)
            await asyncio.sleep(PAUSE_S)


def doors_of(deployment: BrokerSetDeployment, proxy: Mapping[str, str]) -> Doors:
    """Over the proxy with these listeners, and straight to the brokers."""
    return {
        "grpc": lambda: client_grpc.Producer(proxy["grpc"]),
        "remoting": lambda: client_remoting.Producer(deployment.namesrv),
        "proxied": lambda: client_remoting.Producer(proxy["remoting"]),
    }


Handling: TypeAlias = Callable[[ReceivedMessage], Coroutine[None, None, None]]

Readers: TypeAlias = Mapping[str, Callable[[str, Handling], client_grpc.PushConsumer | client_remoting.PushConsumer]]
"""The same to read a topic from its beginning, given what handles a message."""


def readers_of(deployment: BrokerSetDeployment, proxy: Mapping[str, str]) -> Readers:
    """Over the proxy, and straight from the brokers."""
    return {
        "grpc": lambda topic, handling: client_grpc.PushConsumer(
            proxy["grpc"], group=f"G_{topic}", subscriptions={topic: "*"}, handler=handling
        ),
        "remoting": lambda topic, handling: client_remoting.PushConsumer(
            deployment.namesrv,
            group=f"G_{topic}",
            subscriptions={topic: "*"},
            handler=handling,
            start="earliest",
        ),
    }


def make_topic(deployment: BrokerSetDeployment, topic: str) -> None:
    """By a message to the master, whose body is 0."""
    with WireClient(deployment.routed()) as client:
        client.request(RequestCode.SEND_MESSAGE_V2, send_fields(topic), b"0")


def read_back(deployment: BrokerSetDeployment, topic: str) -> list[bytes]:
    """All bodies of a topic's queues, from who is master now."""
    with WireClient(deployment.routed()) as client:
        return [record.body for queue_id in range(QUEUES) for record in pull_all(client, topic, "G_looks", queue_id)]
