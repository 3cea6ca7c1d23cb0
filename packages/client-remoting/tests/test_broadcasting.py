"""A broadcasting consumer against scripted brokers: every queue, offsets in its own file, nothing sent back."""

import asyncio
import pathlib

import pytest
from apogeemq.client_api.errors import NotSupported
from apogeemq.client_api.handling import Reject, RetryLater
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_remoting import PushConsumer
from apogeemq.remoting_codec.bodies import HeartbeatData, MessageModel
from apogeemq.remoting_codec.codes import RequestCode
from scripted_cluster import ScriptedCluster, succeed
from scripted_queue import WAIT_S, Queue, until

AT_ZERO = succeed({"offset": "0"})


async def quiet(_message: ReceivedMessage) -> None:
    """A handler that is content."""


def from_zero(queue: Queue) -> Queue:
    """A queue whose oldest message has offset 0."""
    queue.broker.usual[RequestCode.GET_MIN_OFFSET] = AT_ZERO
    return queue


async def test_every_queue_whoever_else_is_there(cluster: ScriptedCluster, tmp_path: pathlib.Path) -> None:
    """Nobody is asked who the members are, and no broker is asked or told an offset."""
    cluster.members.append("0 sorts before every address")
    first = from_zero(Queue(cluster, is_only=False))
    second = from_zero(Queue(cluster, broker="b", is_only=False))
    first.add(b"of a")
    second.add(b"of b")
    seen: set[bytes] = set()

    async def handle(message: ReceivedMessage) -> None:
        seen.add(message.body)

    async with PushConsumer(
        first.namesrv,
        group="G",
        subscriptions={"T": "*"},
        handler=handle,
        broadcasting=tmp_path,
        start="earliest",
    ):
        await until(lambda: seen == {b"of a", b"of b"})
    for queue in (first, second):
        assert queue.commits() == []
        assert queue.codes(RequestCode.QUERY_CONSUMER_OFFSET, RequestCode.GET_CONSUMER_LIST_BY_GROUP) == []
    (member,) = HeartbeatData.decode(first.broker.of(RequestCode.HEART_BEAT)[0].body).consumer_data_set
    assert member.message_model == MessageModel.BROADCASTING
    assert [each.topic for each in member.subscription_data_set] == ["T"]


@pytest.mark.parametrize("error", [ValueError("x"), RetryLater(1), Reject("x")], ids=["error", "retry later", "reject"])
async def test_a_failed_message_is_dropped(
    cluster: ScriptedCluster, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """It is logged; the next member of this place begins after it."""
    queue = from_zero(Queue(cluster))
    queue.add(b"bad")
    queue.add(b"good")
    good = asyncio.Event()

    async def handle(message: ReceivedMessage) -> None:
        if message.body == b"bad":
            raise error
        good.set()

    async with PushConsumer(
        queue.namesrv,
        group="G",
        subscriptions={"T": "*"},
        handler=handle,
        broadcasting=tmp_path,
        start="earliest",
        concurrency=1,
    ):
        await asyncio.wait_for(good.wait(), WAIT_S)
    assert queue.sent_back() == []
    assert "message ID0 from T is dropped" in caplog.text
    asked = len(queue.pulled_from())
    async with PushConsumer(
        queue.namesrv, group="G", subscriptions={"T": "*"}, handler=quiet, broadcasting=str(tmp_path)
    ):
        await until(lambda: len(queue.pulled_from()) > asked)
    assert queue.pulled_from()[asked] == 2


async def test_nothing_is_given_back(cluster: ScriptedCluster, tmp_path: pathlib.Path) -> None:
    """Asking for it says so."""
    queue = from_zero(Queue(cluster))
    queue.add(b"one")
    async with PushConsumer(
        queue.namesrv, group="G", subscriptions={"T": "*"}, broadcasting=tmp_path, start="earliest"
    ) as consumer:
        async for message in consumer:
            with pytest.raises(NotSupported, match="broadcast"):
                await consumer.retry_later(message, 1)
            break


def test_order_and_broadcasting_exclude_each_other(tmp_path: pathlib.Path) -> None:
    """There is no lock that every member could hold."""
    with pytest.raises(NotSupported, match="any order"):
        PushConsumer(
            "127.0.0.1:1", group="G", subscriptions={"T": "*"}, handler=quiet, orderly=True, broadcasting=tmp_path
        )
