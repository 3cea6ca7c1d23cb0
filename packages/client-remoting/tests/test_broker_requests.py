"""What brokers ask a consumer for an operator: a reset, offsets, how it is doing, one message tried on its handler."""

import asyncio
import zlib

import pytest
from apogeemq.client_api.handling import Reject, RetryLater
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_remoting import PushConsumer, broker_requests
from apogeemq.remoting_codec.bodies import MessageQueue, ResetOffsetBody
from apogeemq.remoting_codec.client_bodies import (
    CMResult,
    ConsumeMessageDirectlyResult,
    ConsumerRunningInfo,
    GetConsumerStatusBody,
)
from apogeemq.remoting_codec.codes import ONEWAY_FLAG, RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from scripted_cluster import ScriptedCluster
from scripted_queue import WAIT_S, Queue, until

OURS = MessageQueue("T", "a", 0)


@pytest.fixture
def queue(cluster: ScriptedCluster) -> Queue:
    return Queue(cluster)


async def ask(queue: Queue, code: RequestCode, fields: dict[str, str], body: bytes = b"") -> RemotingCommand:
    """Ask the consumer over its own connection to the broker."""
    (channel,) = queue.broker.server.channels
    return await channel.request(RemotingCommand(code, ext_fields=fields, body=body), WAIT_S)


async def quiet(_message: ReceivedMessage) -> None:
    """A handler that is content."""


# -- 220


@pytest.mark.parametrize("orderly", [False, True], ids=["concurrent", "orderly"])
async def test_a_reset(queue: Queue, orderly: bool) -> None:
    """The queue begins anew at the new offset, which the broker gets; what was in hand does not come any more."""
    for number in range(4):
        queue.add(b"%d" % number)
    seen: list[bytes] = []
    may_end = asyncio.Event()

    async def handle(message: ReceivedMessage) -> None:
        seen.append(message.body)
        await may_end.wait()

    async with PushConsumer(
        queue.namesrv, group="G", subscriptions={"T": "*"}, handler=handle, orderly=orderly, concurrency=1
    ):
        await until(lambda: seen == [b"0"])
        queue.committed = 2
        offsets = {OURS: 2, MessageQueue("T", "a", 7): 5}
        (channel,) = queue.broker.server.channels
        channel.send_oneway(
            RemotingCommand(
                RequestCode.RESET_CONSUMER_CLIENT_OFFSET,
                flag=ONEWAY_FLAG,
                ext_fields={"group": "G", "topic": "T", "timestamp": "0", "isForce": "true"},
                body=ResetOffsetBody(offset_table=offsets).encode(),
            )
        )
        await until(lambda: queue.commits() == [2])
        may_end.set()
        await until(lambda: seen == [b"0", b"2", b"3"])
    assert queue.commits() == [2, 4]


# -- 221


async def test_the_offsets_of_a_topic(queue: Queue) -> None:
    """Up to where each queue is done: the message in hand holds it."""
    queue.add(b"one")
    queue.add(b"two")
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}) as consumer:
        async for message in consumer:
            if message.body == b"two":
                break
        told = await ask(queue, RequestCode.GET_CONSUMER_STATUS_FROM_CLIENT, {"group": "G", "topic": "T"})
        other = await ask(queue, RequestCode.GET_CONSUMER_STATUS_FROM_CLIENT, {"group": "G", "topic": "U"})
    assert GetConsumerStatusBody.decode(told.body).message_queue_table == {OURS: 1}
    assert GetConsumerStatusBody.decode(other.body).message_queue_table == {}


# -- 307


@pytest.mark.parametrize("orderly", [False, True], ids=["concurrent", "orderly"])
async def test_how_a_consumer_is_doing(queue: Queue, orderly: bool) -> None:
    """Settings under Java's names, subscriptions, and each queue with what is in hand of it."""
    queue.add(b"x" * 1024 * 1024 * 3, tag="a")
    queue.add(b"two", tag="b")

    async def handle(_message: ReceivedMessage) -> None:
        await asyncio.Event().wait()

    async with PushConsumer(
        queue.namesrv,
        group="G",
        subscriptions={"T": "a || b"},
        handler=handle,
        orderly=orderly,
        concurrency=3,
        close_timeout_s=0,
    ) as consumer:
        await until(lambda: queue.pulled_from() == [0, 2])
        fields = {"consumerGroup": "G", "clientId": consumer.client_id, "jstackEnable": "false"}
        answer = await ask(queue, RequestCode.GET_CONSUMER_RUNNING_INFO, fields)
        stacks = await ask(queue, RequestCode.GET_CONSUMER_RUNNING_INFO, fields | {"jstackEnable": "true"})
    info = ConsumerRunningInfo.decode(answer.body)
    expected = {
        "PROP_NAMESERVER_ADDR": queue.namesrv,
        "PROP_CONSUME_TYPE": "CONSUME_PASSIVELY",
        "PROP_CONSUME_ORDERLY": "true" if orderly else "false",
        "PROP_THREADPOOL_CORE_SIZE": "3",
    }
    assert expected.items() <= info.properties.items()
    assert int(info.properties["PROP_CONSUMER_START_TIMESTAMP"]) > 1_600_000_000_000
    assert {each.topic: each.sub_string for each in info.subscription_set} == {"T": "a || b", "%RETRY%G": "*"}
    ours = info.mq_table[OURS]
    assert (ours.commit_offset, ours.cached_msg_count, ours.cached_msg_size_in_mi_b) == (0, 2, 3)
    assert (ours.cached_msg_min_offset, ours.cached_msg_max_offset) == (0, 1)
    assert (ours.locked, ours.droped) == (orderly, False)
    assert info.jstack is None
    assert "MainThread" in (ConsumerRunningInfo.decode(stacks.body).jstack or "")


# -- 309


@pytest.fixture
def record(queue: Queue) -> bytes:
    """A stored message that the consumer does not pull by itself."""
    queue.add(zlib.compress(b"tried"), tag="t", sys_flag=0x1)
    return queue.records.pop()


DIRECT = {"consumerGroup": "G", "brokerName": "a", "topic": "T"}


@pytest.mark.parametrize(
    ("raised", "result", "remark"),
    [
        (None, CMResult.CR_SUCCESS, None),
        (RetryLater(5), CMResult.CR_LATER, "RetryLater: to be delivered again after 5 s"),
        (Reject("no"), CMResult.CR_THROW_EXCEPTION, "Reject: no"),
        (KeyError("k"), CMResult.CR_THROW_EXCEPTION, "KeyError: 'k'"),
    ],
    ids=["success", "later", "reject", "error"],
)
async def test_one_message_is_tried_on_the_handler(
    queue: Queue, record: bytes, raised: Exception | None, result: CMResult, remark: str | None
) -> None:
    """The answer says what it did; nothing is sent back or committed for it."""
    seen: list[ReceivedMessage] = []

    async def handle(message: ReceivedMessage) -> None:
        seen.append(message)
        if raised is not None:
            raise raised

    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}, handler=handle):
        await until(lambda: bool(queue.pulled_from()))
        answer = await ask(queue, RequestCode.CONSUME_MESSAGE_DIRECTLY, DIRECT, record)
    told = ConsumeMessageDirectlyResult.decode(answer.body)
    assert (told.consume_result, told.remark, told.order, told.auto_commit) == (result, remark, False, True)
    assert [(message.body, message.tag, message.broker_name) for message in seen] == [(b"tried", "t", "a")]
    assert queue.sent_back() == []
    assert queue.commits() == []


async def test_too_many_at_once(queue: Queue, record: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are refused; the first one's answer comes all the same."""
    monkeypatch.setattr(broker_requests, "DIRECT_MAX", 1)
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def handle(_message: ReceivedMessage) -> None:
        begun.set()
        await may_end.wait()

    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}, handler=handle):
        await until(lambda: bool(queue.pulled_from()))
        first = asyncio.create_task(ask(queue, RequestCode.CONSUME_MESSAGE_DIRECTLY, DIRECT, record))
        await asyncio.wait_for(begun.wait(), WAIT_S)
        second = await ask(queue, RequestCode.CONSUME_MESSAGE_DIRECTLY, DIRECT, record)
        may_end.set()
        answer = await first
    assert second.code == ResponseCode.SYSTEM_BUSY
    assert ConsumeMessageDirectlyResult.decode(answer.body).consume_result == CMResult.CR_SUCCESS


async def test_a_consumer_without_a_handler_tries_nothing(queue: Queue, record: bytes) -> None:
    """It says so."""
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}):
        await until(lambda: bool(queue.pulled_from()))
        answer = await ask(queue, RequestCode.CONSUME_MESSAGE_DIRECTLY, DIRECT, record)
    assert (answer.code, answer.remark) == (1, "this consumer has no handler to try the message on")


# -- what is wrong


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        (RequestCode.GET_CONSUMER_STATUS_FROM_CLIENT, {"group": "other", "topic": "T"}),
        (RequestCode.GET_CONSUMER_RUNNING_INFO, {"consumerGroup": "other", "clientId": "c"}),
        (RequestCode.CONSUME_MESSAGE_DIRECTLY, {"consumerGroup": "other"}),
    ],
)
async def test_another_groups_request_is_refused(queue: Queue, code: RequestCode, fields: dict[str, str]) -> None:
    """With both names."""
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}, handler=quiet):
        await until(lambda: bool(queue.pulled_from()))
        answer = await ask(queue, code, fields)
    assert (answer.code, answer.remark) == (1, "the consumer group other is not this client's, which is G")


@pytest.mark.parametrize(
    ("code", "fields", "body", "word"),
    [
        (RequestCode.GET_CONSUMER_STATUS_FROM_CLIENT, {"group": "G"}, b"", "topic"),
        (RequestCode.GET_CONSUMER_RUNNING_INFO, {"clientId": "c"}, b"", "consumerGroup"),
        (RequestCode.CONSUME_MESSAGE_DIRECTLY, DIRECT, b"", "no stored message"),
        (
            RequestCode.RESET_CONSUMER_CLIENT_OFFSET,
            {"group": "G", "topic": "T", "timestamp": "0", "isForce": "true"},
            b"[",
            "invalid body",
        ),
    ],
)
async def test_a_request_that_cannot_be_read(
    queue: Queue, code: RequestCode, fields: dict[str, str], body: bytes, word: str
) -> None:
    """Is refused with what is wrong; consumption goes on."""
    queue.add(b"one")
    handled = asyncio.Event()

    async def handle(_message: ReceivedMessage) -> None:
        handled.set()

    async with PushConsumer(queue.namesrv, group="G", subscriptions={"T": "*"}, handler=handle):
        await asyncio.wait_for(handled.wait(), WAIT_S)
        answer = await ask(queue, code, fields, body)
    assert answer.code == 1
    assert word in (answer.remark or "")
