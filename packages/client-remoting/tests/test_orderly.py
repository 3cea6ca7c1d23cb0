"""Messages in order, against scripted brokers: one at a time under the queue's lock, failed ones again in place."""

import asyncio

import pytest
from apogeemq.client_api.errors import NotSupported
from apogeemq.client_api.handling import Reject, Retry, RetryLater
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_remoting import PushConsumer, locking, orderly, rebalance
from apogeemq.client_remoting.core import queue_locks
from apogeemq.remoting_codec.bodies import LockBatchRequestBody, MessageQueue, UnlockBatchRequestBody
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.command import RemotingCommand
from scripted_cluster import ScriptedCluster, refuse
from scripted_queue import WAIT_S, Queue, until

AT_ONCE = Retry(max_attempts=3, backoff=lambda _attempt: 0.0)
LOCKED = MessageQueue("T", "a", 0)


@pytest.fixture
def queue(cluster: ScriptedCluster) -> Queue:
    return Queue(cluster)


class Handled:
    """A handler that keeps bodies and attempts, and raises what it is told for a body, once for each time named."""

    def __init__(self, raising: dict[bytes, list[Exception]] | None = None) -> None:
        self.seen: list[tuple[bytes, int]] = []
        self.running = 0
        self.most = 0
        self._raising = raising or {}

    async def __call__(self, message: ReceivedMessage) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        self.seen.append((message.body, message.delivery_attempt))
        await asyncio.sleep(0)
        self.running -= 1
        errors = self._raising.get(message.body)
        if errors:
            raise errors.pop(0)


def consumer(queue: Queue, handled: Handled, retry: Retry | None = AT_ONCE) -> PushConsumer:
    return PushConsumer(
        queue.namesrv, group="G", subscriptions={"T": "*"}, handler=handled, retry=retry, orderly=True, concurrency=8
    )


async def test_one_message_at_a_time(queue: Queue) -> None:
    """In the order of the queue, with room for more handlers."""
    bodies = [b"%d" % number for number in range(20)]
    for body in bodies:
        queue.add(body)
    handled = Handled()
    async with consumer(queue, handled):
        await until(lambda: len(handled.seen) == 20)
    assert [body for body, _ in handled.seen] == bodies
    assert handled.most == 1
    assert queue.commits() == [20]


@pytest.mark.parametrize("error", [ValueError("x"), RetryLater(0)], ids=["error", "retry later"])
async def test_a_failed_message_is_tried_again_in_place(queue: Queue, error: Exception) -> None:
    """As the next attempt, before what comes after it; nothing goes back to the broker."""
    queue.add(b"one")
    queue.add(b"two")
    handled = Handled({b"one": [error]})
    async with consumer(queue, handled):
        await until(lambda: len(handled.seen) == 3)
    assert handled.seen == [(b"one", 1), (b"one", 2), (b"two", 1)]
    assert queue.sent_back() == []
    assert queue.commits() == [2]


@pytest.mark.parametrize(
    ("errors", "tries"), [([ValueError("x")] * 3, [1, 2, 3]), ([Reject("x")], [1])], ids=["attempts", "reject"]
)
async def test_a_message_that_is_given_up(queue: Queue, errors: list[Exception], tries: list[int]) -> None:
    """Goes to the DLQ after the last attempt or a rejection; the queue goes on."""
    queue.add(b"one")
    queue.add(b"two")
    handled = Handled({b"one": list(errors)})
    async with consumer(queue, handled):
        await until(lambda: (b"two", 1) in handled.seen)
    assert handled.seen == [*((b"one", attempt) for attempt in tries), (b"two", 1)]
    assert queue.sent_back() == [(0, -1)]


async def test_a_message_that_no_broker_takes_to_the_dlq(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not passed over: it is tried on."""
    monkeypatch.setattr(orderly, "SUSPEND_DEFAULT_S", 0.0)
    queue.broker.script[RequestCode.CONSUMER_SEND_MSG_BACK] = [refuse(1)]
    queue.add(b"one")
    queue.add(b"two")
    handled = Handled({b"one": [Reject("x")]})
    async with consumer(queue, handled):
        await until(lambda: len(handled.seen) == 3)
    assert handled.seen == [(b"one", 1), (b"one", 2), (b"two", 1)]


async def test_a_failing_message_blocks_its_own_queue_only(cluster: ScriptedCluster) -> None:
    """The other queue's messages are handled meanwhile."""
    blocked, free = Queue(cluster, is_only=False), Queue(cluster, broker="b", is_only=False)
    blocked.add(b"bad")
    for number in range(3):
        free.add(b"%d" % number)
    handled = Handled({b"bad": [ValueError("x")] * 1000})
    async with consumer(blocked, handled, Retry(max_attempts=10_000, backoff=lambda _attempt: 30.0)):
        await until(lambda: len(handled.seen) == 4)
    assert {body for body, _ in handled.seen} == {b"bad", b"0", b"1", b"2"}
    assert blocked.commits() == []
    assert free.commits() == [3]


# -- locks


async def test_a_queue_is_read_under_its_lock(queue: Queue) -> None:
    """Asked for before the offset is; given back at the end, after the offset is committed and before the good-bye."""
    queue.add(b"one")
    handled = Handled()
    async with consumer(queue, handled) as started:
        await until(lambda: len(handled.seen) == 1)
    asked = LockBatchRequestBody.decode(queue.broker.of(RequestCode.LOCK_BATCH_MQ)[0].body)
    assert (asked.consumer_group, asked.client_id, asked.mq_set) == ("G", started.client_id, [LOCKED])
    given_back = UnlockBatchRequestBody.decode(queue.broker.of(RequestCode.UNLOCK_BATCH_MQ)[0].body)
    assert (given_back.consumer_group, given_back.client_id, given_back.mq_set) == ("G", started.client_id, [LOCKED])
    assert queue.codes(
        RequestCode.LOCK_BATCH_MQ,
        RequestCode.QUERY_CONSUMER_OFFSET,
        RequestCode.UPDATE_CONSUMER_OFFSET,
        RequestCode.UNLOCK_BATCH_MQ,
        RequestCode.UNREGISTER_CLIENT,
    ) == [41, 14, 15, 42, 35]


async def test_a_queue_that_is_anothers_is_not_read(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is asked for again and again, and the queue read once it is given."""
    monkeypatch.setattr(rebalance, "SOON_S", 0.0)
    queue.is_free = False
    queue.add(b"one")
    handled = Handled()
    async with consumer(queue, handled):
        await until(lambda: len(queue.broker.of(RequestCode.LOCK_BATCH_MQ)) >= 3)
        assert queue.pulled_from() == []
        queue.is_free = True
        await until(lambda: handled.seen == [(b"one", 1)])


async def test_a_lock_that_another_member_got(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found at a renewal: the queue is let go without a commit and, the lock given again, read where the group is."""
    monkeypatch.setattr(locking, "RENEW_INTERVAL_S", 0.001)
    monkeypatch.setattr(rebalance, "SOON_S", 0.0)
    queue.add(b"one")
    handled = Handled()
    async with consumer(queue, handled):
        await until(lambda: len(handled.seen) == 1)
        queue.is_free = False
        asked = len(queue.broker.of(RequestCode.LOCK_BATCH_MQ))
        await until(lambda: len(queue.broker.of(RequestCode.LOCK_BATCH_MQ)) > asked + 3)
        assert queue.commits() == []
        queue.is_free = True
        await until(lambda: len(handled.seen) == 2)
    assert handled.seen == [(b"one", 1), (b"one", 1)]
    assert len(queue.broker.of(RequestCode.QUERY_CONSUMER_OFFSET)) == 2


async def test_nothing_is_handled_without_a_lock(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that lapsed: what was pulled waits until it counts again."""
    monkeypatch.setattr(queue_locks, "HELD_S", 0.0)
    monkeypatch.setattr(orderly, "LOCK_WAIT_S", 0.001)
    queue.add(b"one")
    handled = Handled()
    async with consumer(queue, handled):
        await until(lambda: queue.pulled_from() == [0, 1])
        assert handled.seen == []
        monkeypatch.setattr(queue_locks, "HELD_S", 30.0)
        await until(lambda: handled.seen == [(b"one", 1)])


async def test_a_queue_is_left_when_its_handler_has_ended(cluster: ScriptedCluster, queue: Queue) -> None:
    """Another member may have it then: what ran is committed before the lock is given back, and nothing new begun."""
    queue.add(b"one")
    queue.add(b"two")
    may_end = asyncio.Event()
    seen: list[bytes] = []

    async def handle(message: ReceivedMessage) -> None:
        seen.append(message.body)
        await may_end.wait()

    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}, handler=handle, orderly=True):
        await until(lambda: seen == [b"one"])
        cluster.members.insert(0, "0 sorts before every address")
        notice = RemotingCommand(RequestCode.NOTIFY_CONSUMER_IDS_CHANGED, ext_fields={"consumerGroup": "G"})
        members_asked = len(queue.broker.of(RequestCode.GET_CONSUMER_LIST_BY_GROUP))
        for channel in list(queue.broker.server.channels):
            channel.send_oneway(notice)
        await until(lambda: len(queue.broker.of(RequestCode.GET_CONSUMER_LIST_BY_GROUP)) >= members_asked + 2)
        assert queue.codes(RequestCode.UPDATE_CONSUMER_OFFSET, RequestCode.UNLOCK_BATCH_MQ) == []
        may_end.set()
        await until(lambda: queue.codes(RequestCode.UPDATE_CONSUMER_OFFSET, RequestCode.UNLOCK_BATCH_MQ) == [15, 42])
    assert queue.commits() == [1]
    assert seen == [b"one"]


async def test_a_handler_that_does_not_end_is_cancelled_at_the_close(queue: Queue) -> None:
    """Its message is not done with: it comes again."""
    queue.add(b"one")
    begun = asyncio.Event()

    async def handle(_message: ReceivedMessage) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with PushConsumer(
        queue.namesrv, group="G", subscriptions={"T": "*"}, handler=handle, orderly=True, close_timeout_s=0
    ):
        await asyncio.wait_for(begun.wait(), WAIT_S)
    assert queue.commits() == []


def test_order_needs_a_handler() -> None:
    """An `async for` has one message at a time for all queues together."""
    with pytest.raises(NotSupported, match="handler"):
        PushConsumer("127.0.0.1:1", group="G", subscriptions={"T": "*"}, orderly=True)
