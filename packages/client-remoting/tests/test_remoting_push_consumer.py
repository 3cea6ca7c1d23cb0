"""The push consumer against one scripted broker with one queue: what it asks, hands over, gives back and commits."""

import asyncio
import zlib
from datetime import UTC, datetime

import pytest
from apogeemq.client_api.errors import NotSupported, SettleFailed
from apogeemq.client_api.handling import Reject, Retry, RetryLater
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_remoting import PushConsumer, settling
from apogeemq.client_remoting.core.offsets import Start
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.bodies import HeartbeatData
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from scripted_cluster import ScriptedCluster, refuse
from scripted_queue import WAIT_S, Queue, pulled, until


@pytest.fixture
def queue(cluster: ScriptedCluster) -> Queue:
    return Queue(cluster)


async def test_what_was_handled_is_committed_at_the_end(queue: Queue) -> None:
    """Two messages, handled in their order by one worker; then the member leaves."""
    queue.add(b"one", tag="a")
    queue.add(b"two")
    seen: list[ReceivedMessage] = []

    async def handle(message: ReceivedMessage) -> None:
        seen.append(message)

    async with PushConsumer(
        queue.namesrv, group="G", subscriptions={"T": "*"}, handler=handle, concurrency=1
    ) as consumer:
        await until(lambda: len(seen) == 2)
        client_id = consumer.client_id
    assert [(message.body, message.tag, message.message_id) for message in seen] == [
        (b"one", "a", "ID0"),
        (b"two", None, "ID1"),
    ]
    assert (seen[0].broker_name, seen[0].queue_offset, seen[0].delivery_attempt, seen[0].group) == ("a", 0, 1, "G")
    assert queue.commits() == [2]
    (goodbye,) = queue.broker.of(RequestCode.UNREGISTER_CLIENT)
    assert goodbye.ext_fields == {"clientID": client_id, "consumerGroup": "G"}


async def test_the_heartbeat_tells_the_subscriptions(queue: Queue) -> None:
    """The group's own retry topic among them; it goes out before anything else."""
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "a||b"}):
        await until(lambda: bool(queue.broker.of(RequestCode.PULL_MESSAGE)))
    assert queue.broker.requests[0].code == RequestCode.HEART_BEAT
    (consumer,) = HeartbeatData.decode(queue.broker.requests[0].body).consumer_data_set
    subscriptions = {each.topic: (each.sub_string, each.code_set) for each in consumer.subscription_data_set}
    assert subscriptions == {"T": ("a || b", [97, 98]), "%RETRY%G": ("*", [])}


async def test_only_wanted_tags_are_handed_over(queue: Queue) -> None:
    """The broker lets a tag with the same hash through; it is passed over, and its offset with it."""
    queue.add(b"other", tag="BB")
    queue.add(b"mine", tag="Aa")
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "Aa"}) as consumer:
        async for message in consumer:
            assert message.body == b"mine"
            await consumer.ack(message)
            break
    assert queue.commits() == [2]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RetryLater(60), (0, 5)),
        (ValueError("x"), (0, 3)),
        (Reject("x"), (0, -1)),
        (KeyError("x"), (0, 3)),
        (asyncio.CancelledError(), (0, 3)),
    ],
    ids=["retry later", "error", "reject", "another error", "cancelled from inside"],
)
async def test_a_failed_message_goes_back(queue: Queue, raised: BaseException, expected: tuple[int, int]) -> None:
    """With the delay level of its time, or to the DLQ; the next message is handled all the same."""
    queue.add(b"bad")
    queue.add(b"good")
    good = asyncio.Event()

    async def handle(message: ReceivedMessage) -> None:
        if message.body == b"bad":
            raise raised
        good.set()

    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}, handler=handle, concurrency=1):
        await asyncio.wait_for(good.wait(), WAIT_S)
    assert queue.sent_back() == [expected]
    assert queue.commits() == [2]


async def test_the_last_attempt(queue: Queue) -> None:
    """The policy's number of deliveries counts the first one; the broker is told the number of retries."""
    queue.add(b"bad", reconsume_times=2)

    async def handle(_message: ReceivedMessage) -> None:
        raise ValueError

    retry = Retry(max_attempts=3)
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}, handler=handle, retry=retry):
        await until(lambda: bool(queue.sent_back()))
    assert queue.sent_back() == [(0, -1)]
    (command,) = queue.broker.of(RequestCode.CONSUMER_SEND_MSG_BACK)
    fields = command.ext_fields or {}
    assert fields["maxReconsumeTimes"] == "2"
    assert fields["failureReason"] == "delivered 3 times; the last failure was ValueError"


async def test_a_message_that_the_broker_does_not_take_back(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is delivered again by the client itself, as the next attempt."""
    monkeypatch.setattr(settling, "LOCAL_RETRY_S", 0.0)
    queue.broker.script[RequestCode.CONSUMER_SEND_MSG_BACK] = [refuse(1)]
    queue.add(b"bad")
    attempts: list[int] = []

    async def handle(message: ReceivedMessage) -> None:
        attempts.append(message.delivery_attempt)
        if message.delivery_attempt == 1:
            raise RetryLater(0)

    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}, handler=handle):
        await until(lambda: len(attempts) == 2)
    assert attempts == [1, 2]
    assert queue.commits() == [1]


async def test_a_body_that_cannot_be_decompressed(queue: Queue) -> None:
    """Goes to the DLQ without being handed over; what comes after it is."""
    queue.add(b"no zlib at all", sys_flag=0x1)
    queue.add(zlib.compress(b"good"), sys_flag=0x1)
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}) as consumer:
        async for message in consumer:
            assert message.body == b"good"
            await consumer.ack(message)
            break
        await until(lambda: queue.pulled_from() == [0, 2])  # the reader goes on once the broker has taken it
    assert queue.sent_back() == [(0, -1)]
    assert queue.commits() == [2]


# -- async for


async def test_asking_for_the_next_acknowledges_the_one_before(queue: Queue) -> None:
    """The one that the loop is left with is not settled: it comes again."""
    queue.add(b"one")
    queue.add(b"two")
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}) as consumer:
        async for message in consumer:
            if message.body == b"two":
                break
    assert queue.commits() == [1]


async def test_giving_a_message_back(queue: Queue) -> None:
    """Settles it; a broker's refusal is told."""
    queue.add(b"one")
    queue.broker.script[RequestCode.CONSUMER_SEND_MSG_BACK] = [refuse(26, "no group")]
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}) as consumer:
        async for message in consumer:
            with pytest.raises(SettleFailed, match="no group") as caught:
                await consumer.retry_later(message, 30)
            assert caught.value.code_name == "SUBSCRIPTION_GROUP_NOT_EXIST"
            await consumer.retry_later(message, 30)
            break
    assert queue.sent_back() == [(0, 4), (0, 4)]
    assert queue.commits() == [1]


async def test_a_consumer_with_a_handler_cannot_be_iterated(queue: Queue) -> None:
    """The handler gets the messages."""

    async def handle(_message: ReceivedMessage) -> None:
        return None

    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}, handler=handle) as consumer:
        with pytest.raises(NotSupported, match="handler"):
            aiter(consumer)


# -- where to begin, and where to go on


@pytest.mark.parametrize(
    ("start", "offset"),
    [("latest", 9), ("earliest", 3), (datetime(2026, 1, 1, tzinfo=UTC), 6), (1_767_225_600_000, 6)],
    ids=str,
)
async def test_a_group_without_offsets(cluster: ScriptedCluster, start: Start, offset: int) -> None:
    """Begins where `start` says, which is committed at once: the next member must not begin elsewhere."""
    queue = Queue(cluster, committed=None)
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}, start=start):
        await until(lambda: bool(queue.pulled_from()))
    assert queue.pulled_from() == [offset]
    assert queue.commits() == [offset]
    (asked,) = queue.broker.of(RequestCode.QUERY_CONSUMER_OFFSET)
    assert (asked.ext_fields or {})["setZeroIfNotFound"] == "false"


async def test_a_committed_offset_counts(cluster: ScriptedCluster) -> None:
    """Whatever `start` says; nothing is committed again."""
    queue = Queue(cluster, committed=5)
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}, start="earliest"):
        await until(lambda: bool(queue.pulled_from()))
    assert queue.pulled_from() == [5]
    assert queue.commits() == []


async def test_an_offset_that_the_queue_does_not_have(queue: Queue) -> None:
    """The broker says where to go on, and that is committed."""

    def moved(_channel: Channel, command: RemotingCommand) -> Reply:
        return pulled(command, ResponseCode.PULL_OFFSET_MOVED, 40)

    queue.broker.script[RequestCode.PULL_MESSAGE] = [moved]
    queue.first = 40
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}):
        await until(lambda: queue.pulled_from() == [0, 40])
    assert queue.commits() == [40]


async def test_a_refused_pull_is_tried_again(queue: Queue) -> None:
    """Consumption never stops for good."""
    queue.broker.script[RequestCode.PULL_MESSAGE] = [refuse(1), refuse(16)]
    queue.add(b"one")
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}) as consumer:
        async for message in consumer:
            assert message.body == b"one"
            break


async def test_a_new_member_takes_the_queue_over(cluster: ScriptedCluster, queue: Queue) -> None:
    """On the broker's notice the queue is let go at once, its offset committed; what is in hand of it is dropped."""
    queue.add(b"one")
    queue.add(b"two")
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}) as consumer:
        async for message in consumer:
            await consumer.ack(message)
            break
        cluster.members.insert(0, "0 sorts before every address")
        notice = RemotingCommand(RequestCode.NOTIFY_CONSUMER_IDS_CHANGED, ext_fields={"consumerGroup": "G"})
        for channel in list(queue.broker.server.channels):
            channel.send_oneway(notice)
        await until(lambda: queue.commits() == [1])


def test_impossible_arguments() -> None:
    """Are refused at once, by name."""
    for group, subscriptions, concurrency, word in [
        ("", {"T": "*"}, 1, "group"),
        ("G", {}, 1, "subscriptions"),
        ("G", {"no topic": "*"}, 1, "topic"),
        ("G", {"T": "*"}, 0, "concurrency"),
    ]:
        with pytest.raises(ValueError, match=word):
            PushConsumer("127.0.0.1:1", group=group, subscriptions=subscriptions, concurrency=concurrency)
    with pytest.raises(NotSupported, match="Sql"):
        PushConsumer("127.0.0.1:1", group="G", subscriptions={"T": "a > 5"})
