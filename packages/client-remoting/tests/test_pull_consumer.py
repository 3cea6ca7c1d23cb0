"""The pull consumer against scripted brokers: what polling gives, and what becomes committed by it."""

import asyncio

import pytest
from apogeemq.client_api.errors import ClientClosed, ConnectionBroken, NotSupported, ReceiveFailed, RouteNotFound
from apogeemq.client_api.filters import Sql
from apogeemq.client_remoting import MessageQueue, PullConsumer, assignment, reading
from apogeemq.remoting_codec.bodies import ConsumeType, HeartbeatData
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from scripted_cluster import ScriptedCluster, refuse, succeed
from scripted_queue import WAIT_S, Queue, until

OURS = MessageQueue("T", "a", 0)


@pytest.fixture
def queue(cluster: ScriptedCluster) -> Queue:
    return Queue(cluster)


def subscribed(queue: Queue, *, auto_commit: bool = True) -> PullConsumer:
    return PullConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}, auto_commit=auto_commit)


async def bodies(consumer: PullConsumer, count: int, max_messages: int = 32) -> list[bytes]:
    """So many polled messages."""
    polled: list[bytes] = []
    while len(polled) < count:
        polled += [message.body for message in await consumer.poll(max_messages, WAIT_S)]
    return polled


# -- polling


async def test_messages_come_when_they_are_asked_for(queue: Queue) -> None:
    """At most so many at a time, in order; a poll that finds nothing in time gives nothing."""
    for number in range(5):
        queue.add(b"%d" % number)
    async with subscribed(queue) as consumer:
        assert await bodies(consumer, 2, 2) == [b"0", b"1"]
        assert await bodies(consumer, 3) == [b"2", b"3", b"4"]
        assert await consumer.poll(1, 0) == []
        assert consumer.assigned == [OURS]


async def test_the_heartbeat_of_a_pull_consumer(queue: Queue) -> None:
    """It consumes actively, and has no retry topic: it gives nothing back."""
    async with subscribed(queue):
        await until(lambda: bool(queue.pulled_from()))
    (member,) = HeartbeatData.decode(queue.broker.requests[0].body).consumer_data_set
    assert member.consume_type == ConsumeType.CONSUME_ACTIVELY
    assert [each.topic for each in member.subscription_data_set] == ["T"]


async def test_a_poll_that_waits_when_the_consumer_closes(queue: Queue) -> None:
    """Ends at once."""
    async with subscribed(queue) as consumer:
        waiting = asyncio.create_task(consumer.poll(1, WAIT_S))
        await until(lambda: bool(queue.pulled_from()))
    with pytest.raises(ClientClosed):
        await waiting


# -- commits


async def test_leaving_without_an_error_commits_what_was_polled(queue: Queue) -> None:
    """All of it, and nothing that was only fetched."""
    for number in range(3):
        queue.add(b"%d" % number)
    async with subscribed(queue) as consumer:
        await bodies(consumer, 2, 1)
    assert queue.commits() == [2]


async def test_leaving_with_an_error_does_not_commit_the_last_ones(queue: Queue) -> None:
    """What was polled before them is: the poll after it said so."""
    for number in range(3):
        queue.add(b"%d" % number)

    async def fail() -> None:
        async with subscribed(queue) as consumer:
            await bodies(consumer, 2, 1)
            raise RuntimeError("scripted")

    with pytest.raises(RuntimeError, match="scripted"):
        await fail()
    assert queue.commits() == [1]


async def test_offsets_are_committed_every_few_seconds(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """By themselves, while the application goes on."""
    monkeypatch.setattr(reading, "COMMIT_INTERVAL_S", 0.001)
    queue.add(b"one")
    async with subscribed(queue) as consumer:
        await bodies(consumer, 1)
        assert await consumer.poll(1, 0) == []
        await until(lambda: queue.commits() == [1])


async def test_without_auto_commit_only_commit_commits(queue: Queue) -> None:
    """What was polled until then."""
    for number in range(3):
        queue.add(b"%d" % number)
    async with subscribed(queue, auto_commit=False) as consumer:
        await bodies(consumer, 2, 1)
        assert queue.commits() == []
        await consumer.commit()
        assert queue.commits() == [2]
        await bodies(consumer, 1, 1)
    assert queue.commits() == [2]


async def test_a_commit_that_no_broker_takes(queue: Queue) -> None:
    """Is told, and may be repeated."""
    queue.add(b"one")
    queue.broker.script[RequestCode.UPDATE_CONSUMER_OFFSET] = [refuse(1)]
    async with subscribed(queue, auto_commit=False) as consumer:
        await bodies(consumer, 1)
        with pytest.raises(ConnectionBroken, match="not every offset"):
            await consumer.commit()
        await consumer.commit()
    assert queue.commits() == [1, 1]


async def test_the_committed_offset(cluster: ScriptedCluster) -> None:
    """As the broker has it; None when there is none; a refusal is told."""
    queue = Queue(cluster, committed=5)
    async with PullConsumer(queue.namesrv, group="G") as consumer:
        assert await consumer.committed(OURS) == 5
        queue.committed = None
        assert await consumer.committed(OURS) is None
        queue.broker.script[RequestCode.QUERY_CONSUMER_OFFSET] = [refuse(ResponseCode.NO_PERMISSION, "no")]
        with pytest.raises(ReceiveFailed) as caught:
            await consumer.committed(OURS)
    assert caught.value.code_name == "NO_PERMISSION"


# -- queues of one's own


async def test_queues_that_the_application_names(cluster: ScriptedCluster) -> None:
    """Are read, whoever else is in the group; those that are not named are not."""
    cluster.members.append("somebody else")
    first, second = Queue(cluster, is_only=False), Queue(cluster, broker="b", is_only=False)
    first.add(b"of a")
    second.add(b"of b")
    async with PullConsumer(first.namesrv, group="G") as consumer:
        assert list(await consumer.queues("T")) == [OURS, MessageQueue("T", "b", 0)]
        await consumer.assign([OURS])
        assert await bodies(consumer, 1) == [b"of a"]
        assert second.pulled_from() == []
        await consumer.assign([MessageQueue("T", "b", 0)])
        assert consumer.assigned == [MessageQueue("T", "b", 0)]
        assert await bodies(consumer, 1) == [b"of b"]
    assert (first.commits(), second.commits()) == ([1], [1])
    assert first.broker.of(RequestCode.GET_CONSUMER_LIST_BY_GROUP) == []


async def test_an_assigned_queue_with_a_filter(queue: Queue) -> None:
    """Goes with each pull; SQL is checked first."""
    queue.broker.usual[RequestCode.CHECK_CLIENT_CONFIG] = succeed()
    async with PullConsumer(queue.namesrv, group="G") as consumer:
        await consumer.assign([OURS], {"T": Sql("a > 5")})
        await until(lambda: bool(queue.pulled_from()))
    fields = queue.broker.of(RequestCode.PULL_MESSAGE)[0].ext_fields or {}
    assert (fields["subscription"], fields["expressionType"]) == ("a > 5", "SQL92")
    assert len(queue.broker.of(RequestCode.CHECK_CLIENT_CONFIG)) == 1


async def test_an_assigned_queue_whose_broker_does_not_answer(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is read as soon as it does."""
    monkeypatch.setattr(assignment, "SOON_S", 0.0)
    queue.broker.script[RequestCode.QUERY_CONSUMER_OFFSET] = [refuse(1), refuse(1)]
    queue.add(b"one")
    async with PullConsumer(queue.namesrv, group="G") as consumer:
        await consumer.assign([OURS])
        assert await bodies(consumer, 1) == [b"one"]


async def test_seeking(queue: Queue) -> None:
    """What was fetched before is not given; the new place is committed like any."""
    for number in range(10):
        queue.add(b"%d" % number)
    async with PullConsumer(queue.namesrv, group="G") as consumer:
        await consumer.assign([OURS])
        assert await bodies(consumer, 1, 1) == [b"0"]
        await consumer.seek(OURS, 8)
        assert await bodies(consumer, 2) == [b"8", b"9"]
        await consumer.seek_to_begin(OURS)
        assert await bodies(consumer, 1, 1) == [b"3"]
        await consumer.seek_to_end(OURS)
        assert await bodies(consumer, 1, 1) == [b"9"]
        assert await consumer.offset_for_timestamp(OURS, 1_767_225_600_000) == 6
        asked = queue.broker.of(RequestCode.SEARCH_OFFSET_BY_TIMESTAMP)[0].ext_fields or {}
        assert asked["timestamp"] == "1767225600000"
    assert queue.commits() == [10]


async def test_a_paused_queue(queue: Queue) -> None:
    """Gives nothing until it is resumed, which wakes a poll that waits."""
    queue.add(b"one")
    async with PullConsumer(queue.namesrv, group="G") as consumer:
        consumer.pause([OURS])
        await consumer.assign([OURS])
        await until(lambda: queue.pulled_from() == [0, 1])
        assert await consumer.poll(1, 0) == []
        waiting = asyncio.create_task(consumer.poll(1, WAIT_S))
        await asyncio.sleep(0)
        consumer.resume([OURS])
        assert [message.body for message in await waiting] == [b"one"]


async def test_what_cannot_be(queue: Queue) -> None:
    """Is refused by name."""
    with pytest.raises(ClientClosed):
        await PullConsumer(queue.namesrv, group="G").poll()
    async with subscribed(queue) as consumer:
        with pytest.raises(NotSupported, match="group divides"):
            await consumer.assign([OURS])
        with pytest.raises(ValueError, match="max_messages"):
            await consumer.poll(0)
        with pytest.raises(ValueError, match="offset is -1"):
            await consumer.seek(OURS, -1)
        with pytest.raises(ValueError, match="not read"):
            await consumer.seek(MessageQueue("T", "a", 9), 0)
    async with PullConsumer(queue.namesrv, group="G") as consumer:
        with pytest.raises(RouteNotFound):
            await consumer.assign([MessageQueue("nowhere", "a", 0)])
