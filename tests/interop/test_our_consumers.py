"""Consumers of apogeemq-client-remoting against Apache's servers and against ours: the same scenarios and answers."""

import asyncio
import pathlib
from collections.abc import Callable, Coroutine, Iterator

import pytest
from apogeemq.client_remoting import (
    Message,
    Producer,
    PullConsumer,
    PushConsumer,
    ReceivedMessage,
    Retry,
    RetryLater,
    Sql,
)
from apogeemq.client_remoting.errors import StartFailed
from apogeemq.remoting_codec.client_bodies import CMResult

from tests.interop.deployments import DEPLOYMENTS, Deployment
from tests.interop.operator_client import QUEUES, Operator

pytestmark = pytest.mark.verify

WAIT_S = 40.0
SETTINGS = {
    "enablePropertyFilter": "true",  # Apache's default is false
    "useServerSideResetOffset": "false",  # a reset is then told to the members, which is what is judged here
}


@pytest.fixture(scope="module", params=["all-in-one", "apache"])
def cluster(
    request: pytest.FixtureRequest, java_command: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A cluster that the tests of this module share."""
    kind: str = request.param
    with DEPLOYMENTS[kind](tmp_path_factory.mktemp(kind), SETTINGS) as started:
        yield started


@pytest.fixture
def operator(cluster: Deployment) -> Iterator[Operator]:
    """A connection to the shared broker."""
    with Operator(cluster.broker) as connected:
        yield connected


class Seen:
    """A handler that keeps what it gets."""

    def __init__(self) -> None:
        self.messages: list[ReceivedMessage] = []

    async def __call__(self, message: ReceivedMessage) -> None:
        self.messages.append(message)

    @property
    def bodies(self) -> list[bytes]:
        """The bodies in the order in which they came."""
        return [message.body for message in self.messages]


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so in this process."""
    async with asyncio.timeout(WAIT_S):
        while not is_so():  # noqa: ASYNC110 — what is waited for happens at a server
            await asyncio.sleep(0.02)


# -- SQL


async def test_sql_chooses_messages(cluster: Deployment, operator: Operator, topic: str, group: str) -> None:
    """By properties; the last message, in each queue, marks the end."""
    for number in range(12):
        properties = {"a": str(number), "b": "x" if number % 2 else "y"}
        operator.send_one(topic, f"message-{number}", properties, queue_id=number % 4)
    for queue_id in range(4):
        operator.send_one(topic, "end", {"a": "100", "b": "x"}, queue_id=queue_id)
    seen = Seen()
    wanted = Sql("a > 5 AND b = 'x'")
    async with PushConsumer(
        cluster.namesrv, group=group, subscriptions={topic: wanted}, handler=seen, start="earliest"
    ):
        await until(lambda: seen.bodies.count(b"end") == 4)
        await until(lambda: len(seen.bodies) >= 7)
    assert sorted(seen.bodies) == [b"end"] * 4 + [b"message-11", b"message-7", b"message-9"]


async def test_wrong_sql_fails_the_start(cluster: Deployment, operator: Operator, topic: str, group: str) -> None:
    """With the broker's words for what is wrong, and where."""
    operator.send(topic, ["one"])
    with pytest.raises(StartFailed, match="line 1, column") as caught:
        async with PushConsumer(cluster.namesrv, group=group, subscriptions={topic: Sql("a >")}):
            pass
    assert caught.value.code_name == "SUBSCRIPTION_PARSE_FAILED"


# -- in order


async def test_order_survives_a_member_that_leaves(
    cluster: Deployment, operator: Operator, topic: str, group: str
) -> None:
    """Every queue's messages are done with in their order, by two members, of which one leaves amid them."""
    operator.send(topic, ["first"])
    by_queue: dict[int, list[int]] = {}
    by_member = {"stays": 0, "leaves": 0}
    total = 600

    def handler(member: str) -> Callable[[ReceivedMessage], Coroutine[None, None, None]]:
        async def handle(message: ReceivedMessage) -> None:
            if message.queue_offset % 50 == 7 and message.delivery_attempt == 1:
                raise RetryLater(0)
            await asyncio.sleep(0.004)
            by_queue.setdefault(message.queue_id, []).append(message.queue_offset)
            by_member[member] += 1

        return handle

    async with Producer(cluster.namesrv) as producer:
        for _ in range(12):
            await producer.send_batch([Message(topic, b"%d" % number) for number in range(50)])
    common = {"group": group, "subscriptions": {topic: "*"}, "start": "earliest", "orderly": True}
    async with PushConsumer(cluster.namesrv, handler=handler("stays"), **common):  # type: ignore[arg-type]
        async with PushConsumer(cluster.namesrv, handler=handler("leaves"), **common):  # type: ignore[arg-type]
            await until(lambda: min(by_member.values()) >= 50)
        await until(lambda: sum(by_member.values()) >= total + 1)
    assert by_queue == {queue: list(range(len(offsets))) for queue, offsets in by_queue.items()}
    assert sum(by_member.values()) == total + 1


async def test_a_message_given_up_in_order(cluster: Deployment, operator: Operator, topic: str, group: str) -> None:
    """Goes to the DLQ after its last attempt, and what comes after it is handled."""
    operator.send(topic, ["bad", "good"], queues=[0])
    tries: list[tuple[bytes, int]] = []

    async def handle(message: ReceivedMessage) -> None:
        tries.append((message.body, message.delivery_attempt))
        if message.body == b"bad":
            raise ValueError("cannot be handled")

    retry = Retry(max_attempts=3, backoff=lambda _attempt: 0.01)
    async with PushConsumer(
        cluster.namesrv,
        group=group,
        subscriptions={topic: "*"},
        handler=handle,
        start="earliest",
        orderly=True,
        retry=retry,
    ):
        await until(lambda: (b"good", 1) in tries)
    assert tries == [(b"bad", 1), (b"bad", 2), (b"bad", 3), (b"good", 1)]
    dead = Seen()
    async with PushConsumer(
        cluster.namesrv, group=f"{group}_dead", subscriptions={f"%DLQ%{group}": "*"}, handler=dead, start="earliest"
    ):
        await until(lambda: dead.bodies == [b"bad"])


# -- an operator's requests


@pytest.mark.parametrize("orderly", [False, True], ids=["concurrent", "orderly"])
async def test_an_operators_requests(
    cluster: Deployment, operator: Operator, topic: str, group: str, orderly: bool
) -> None:
    """Running info, offsets in memory, one message consumed directly, and a reset: asked of the broker."""
    message_id = operator.send_one(topic, "one")
    seen = Seen()
    async with PushConsumer(
        cluster.namesrv, group=group, subscriptions={topic: "*"}, handler=seen, start="earliest", orderly=orderly
    ) as consumer:
        await until(lambda: seen.bodies == [b"one"])
        info = await asyncio.to_thread(operator.running_info, group, consumer.client_id)
        status = await asyncio.to_thread(operator.status, topic, group)
        direct = await asyncio.to_thread(operator.consume_directly, group, consumer.client_id, topic, message_id)
        assert seen.bodies == [b"one", b"one"]
        async with asyncio.timeout(WAIT_S):  # Apache's broker resets nobody who has not committed every queue
            while len(await asyncio.to_thread(operator.committed, topic, group)) < QUEUES:  # noqa: ASYNC110 — a server's
                await asyncio.sleep(0.1)
        await asyncio.to_thread(operator.reset_offsets, topic, group, 0)
        await until(lambda: seen.bodies == [b"one"] * 3)
    assert info.properties["PROP_CONSUME_ORDERLY"] == ("true" if orderly else "false")
    assert topic in {queue.topic for queue in info.mq_table}
    assert {item.locked for queue, item in info.mq_table.items() if queue.topic == topic} == {orderly}
    assert "MainThread" in (info.jstack or "")
    assert status[consumer.client_id][0] == 1
    assert (direct.consume_result, direct.order) == (CMResult.CR_SUCCESS, orderly)


# -- pull


async def test_polling_and_seeking(cluster: Deployment, operator: Operator, topic: str, group: str) -> None:
    """A polled message is committed at the end; queues of one's own are read from where the application says."""
    operator.send(topic, ["message-0", "message-1", "message-2", "message-3"])
    polled: list[bytes] = []
    async with (
        PullConsumer(cluster.namesrv, group=group, subscriptions={topic: "*"}, start="earliest") as consumer,
        asyncio.timeout(WAIT_S),
    ):
        while len(polled) < 4:
            polled += [message.body for message in await consumer.poll(timeout_s=WAIT_S)]
    assert sorted(polled) == [b"message-0", b"message-1", b"message-2", b"message-3"]
    assert operator.committed(topic, group) == dict.fromkeys(range(4), 1)
    async with PullConsumer(cluster.namesrv, group=group) as consumer, asyncio.timeout(WAIT_S):
        (queue,) = [queue for queue in await consumer.queues(topic) if queue.queue_id == 2]
        await consumer.assign([queue])
        assert await consumer.committed(queue) == 1
        await consumer.seek_to_begin(queue)
        assert [message.body for message in await consumer.poll(timeout_s=WAIT_S)] == [b"message-2"]
        assert await consumer.offset_for_timestamp(queue, 0) == 0
        await consumer.seek_to_end(queue)
        operator.send(topic, ["late"], queues=[2])
        assert [message.body for message in await consumer.poll(timeout_s=WAIT_S)] == [b"late"]
    assert operator.committed(topic, group)[2] == 2


# -- everybody


async def test_broadcasting_members_each_get_every_message(
    cluster: Deployment, operator: Operator, topic: str, group: str, tmp_path: pathlib.Path
) -> None:
    """A member that was away goes on where it was, by offsets of its own; the broker keeps none."""
    operator.send(topic, ["early-0", "early-1", "early-2", "early-3"])
    early = [b"early-0", b"early-1", b"early-2", b"early-3"]
    first, second, again = Seen(), Seen(), Seen()

    def member(directory: str, seen: Seen) -> PushConsumer:
        return PushConsumer(
            cluster.namesrv,
            group=group,
            subscriptions={topic: "*"},
            handler=seen,
            start="earliest",
            broadcasting=tmp_path / directory,
        )

    async with member("first", first):
        async with member("second", second):
            await until(lambda: sorted(second.bodies) == early)
        operator.send(topic, ["late"])
        async with member("second", again):
            await until(lambda: again.bodies == [b"late"])
        await until(lambda: sorted(first.bodies) == [*early, b"late"])
    assert operator.committed(topic, group) == {}
