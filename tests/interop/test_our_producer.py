"""Our Remoting producer with Java's clients at the other end, at our servers and at Apache's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from apogeemq.client_remoting import Message, Producer, PushConsumer, ReceivedMessage
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode

from tests.e2e.process import poll_until
from tests.e2e.wire_client import WireClient
from tests.interop.deployments import DEPLOYMENTS, Deployment
from tests.interop.driver_run import wait_for
from tests.interop.events import Answered, Delivery, Replied
from tests.interop.group_deliveries import numbered, wait_keys
from tests.interop.java import JavaClient
from tests.interop.operator_client import Operator

pytestmark = [pytest.mark.verify, pytest.mark.usefixtures("only_newest")]

TIMEOUT_S = 45.0
"""Longer than a broker of Apache's takes from one registration to the next (30 s)."""


@pytest.fixture(scope="module", params=["all-in-one", "apache"])
def deployment(
    request: pytest.FixtureRequest, java_command: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A cluster that the tests of this module share."""
    kind: str = request.param
    with DEPLOYMENTS[kind](tmp_path_factory.mktemp(kind), {}) as started:
        yield started


async def test_a_java_consumer_answers_our_requests(
    client: JavaClient, deployment: Deployment, operator: Operator, running: contextlib.ExitStack, topic: str
) -> None:
    """Ten at a time; the broker takes each reply well."""
    make_topic(deployment, operator, topic)
    replier = running.enter_context(client.replier(topic, "group_" + topic))
    async with Producer(deployment.namesrv) as producer:
        questions = [Message(topic, b"request-%d" % number) for number in range(10)]
        replies = await asyncio.gather(*(producer.request(question, timeout_s=TIMEOUT_S) for question in questions))
    assert [reply.body for reply in replies] == [b"re: request-%d" % number for number in range(10)]
    wait_for(lambda: len(replier.events(Replied)) == 10, [replier], TIMEOUT_S, "not every reply was acknowledged")
    replier.stop_consuming()
    assert [reply.status for reply in replier.events(Replied)] == ["SEND_OK"] * 10


async def test_we_answer_the_requests_of_a_java_producer(
    client: JavaClient, deployment: Deployment, operator: Operator, topic: str
) -> None:
    """By a consumer of ours, and a producer for the replies."""
    make_topic(deployment, operator, topic)
    async with Producer(deployment.namesrv) as producer, our_replier(deployment, producer, topic):
        outcomes = await asyncio.to_thread(client.request, topic, 5)
    assert outcomes == [Answered(f"request-{number}", f"re: request-{number}") for number in range(5)]


def make_topic(deployment: Deployment, operator: Operator, topic: str) -> None:
    """Has a first message make the topic, and waits until the name server knows it: Apache's broker tells it later."""
    operator.send(topic, numbered("old"))

    def is_known() -> bool:
        with WireClient(deployment.namesrv) as namesrv:
            return namesrv.request(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": topic}).code == ResponseCode.SUCCESS

    poll_until(is_known, TIMEOUT_S, lambda: AssertionError(f"no route of {topic} within {TIMEOUT_S} s"))


@contextlib.asynccontextmanager
async def our_replier(deployment: Deployment, producer: Producer, topic: str) -> AsyncIterator[None]:
    """A consumer that answers every request."""

    async def answer(message: ReceivedMessage) -> None:
        if message.body.startswith(b"request"):
            await producer.reply(message, b"re: " + message.body)

    async with PushConsumer(
        deployment.namesrv, group="group_" + topic, subscriptions={topic: "*"}, handler=answer, start="earliest"
    ):
        yield


async def test_a_java_consumer_gets_our_groups_in_order(
    client: JavaClient, deployment: Deployment, operator: Operator, running: contextlib.ExitStack, topic: str
) -> None:
    """Each in the queue that Java's own producers choose for that text; compressed bodies and batches too."""
    make_topic(deployment, operator, topic)
    consumer = running.enter_context(client.consume(topic, "group_" + topic, orderly=True))
    names = [f"shard-{number}" for number in range(6)]
    async with Producer(deployment.namesrv, compress_from_bytes=100) as producer:
        for number in range(5):
            for name in names:
                body = f"{name}.{number} ".encode().ljust(500)
                await producer.send(Message(topic, body, message_group=name, keys=(f"{name}.{number}",)))
        await producer.send_batch([Message(topic, key.encode(), keys=(key,)) for key in ("batch-0", "batch-1")])
    keys = [f"{name}.{number}" for name in names for number in range(5)]
    wait_keys([*keys, "batch-0", "batch-1"], consumer)
    consumer.stop_consuming()
    deliveries = consumer.events(Delivery)
    for name in names:
        mine = [delivery for delivery in deliveries if delivery.key.startswith(name)]
        assert [delivery.key for delivery in mine] == [f"{name}.{number}" for number in range(5)]
        assert {delivery.queue_id for delivery in mine} == {java_hash(name) % 4}


def java_hash(text: str) -> int:
    """The absolute value of String.hashCode, the plain way."""
    value = 0
    for letter in text:
        value = (31 * value + ord(letter)) & 0xFFFFFFFF
    return abs(value - (1 << 32) if value >= 1 << 31 else value)
