"""The other ways of consuming, with apogeemq-client-remoting against a real server: SQL, in order, everybody, pull."""

import asyncio
import itertools
import pathlib
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime

import pytest
from apogeemq import client_grpc
from apogeemq.client_remoting import (
    Message,
    Producer,
    PullConsumer,
    PushConsumer,
    ReceivedMessage,
    RetryLater,
    Sql,
)
from apogeemq.client_remoting.errors import StartFailed
from apogeemq.remoting_codec.client_bodies import CMResult, ConsumeMessageDirectlyResult, ConsumerRunningInfo
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.command import RemotingCommand

from tests.e2e.process import Ready
from tests.e2e.wire_client import WireClient, send_fields

WAIT_S = 30.0

_numbers = itertools.count(1)


def fresh(name: str) -> str:
    """A topic or group that no other test of this run has."""
    return f"CC_{name}_{next(_numbers)}"


@pytest.fixture
def namesrv(server: Ready) -> str:
    """The name server's address."""
    return server.listeners["namesrv.remoting"]


class Seen:
    """A handler that keeps what it gets, and tells when there are so many."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.messages: list[ReceivedMessage] = []
        self._complete = asyncio.Event()

    async def handle(self, message: ReceivedMessage) -> None:
        self.messages.append(message)
        if len(self.messages) >= self.count:
            self._complete.set()

    async def bodies(self) -> list[bytes]:
        """The bodies in their order, once all came."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self._complete.wait()
        except TimeoutError:
            raise AssertionError(f"{len(self.messages)} of {self.count} messages came") from None
        return [message.body for message in self.messages]


# -- SQL


async def send_coloured(namesrv: str, topic: str) -> None:
    """Four messages, of which the second and the last are red and large; the last marks the end."""
    async with Producer(namesrv) as producer:
        for colour, size in [("red", 3), ("red", 9), ("blue", 9), ("red", 10)]:
            properties = {"colour": colour, "size": str(size)}
            await producer.send(Message(topic, f"{colour} {size}".encode(), properties=properties))


async def test_sql_chooses_by_properties(namesrv: str, server: Ready) -> None:
    """Over Remoting and through the proxy, by the same word: the same two messages."""
    topic, wanted = fresh("sql"), Sql("colour = 'red' AND size > 5")
    await send_coloured(namesrv, topic)
    over_remoting, through_proxy = Seen(2), Seen(2)
    common = {"group": fresh("sql"), "subscriptions": {topic: wanted}}
    async with PushConsumer(namesrv, handler=over_remoting.handle, start="earliest", **common):  # type: ignore[arg-type]
        assert sorted(await over_remoting.bodies()) == [b"red 10", b"red 9"]
    proxy = server.listeners["proxy.grpc"]
    async with client_grpc.PushConsumer(
        proxy, group=fresh("sql"), subscriptions={topic: wanted}, handler=through_proxy.handle
    ):
        assert sorted(await through_proxy.bodies()) == [b"red 10", b"red 9"]


async def test_wrong_sql_fails_the_start(namesrv: str) -> None:
    """With the place and the reason, as the broker gives them."""
    topic = fresh("wrong")
    await send_coloured(namesrv, topic)
    with pytest.raises(StartFailed, match=r"line 1, column 8") as caught:
        async with PushConsumer(namesrv, group=fresh("wrong"), subscriptions={topic: Sql("colour ~ 1")}):
            pass
    assert caught.value.code_name == "SUBSCRIPTION_PARSE_FAILED"


# -- in order


ORDERED_MESSAGES = 2000


async def test_order_survives_a_member_that_leaves(namesrv: str) -> None:
    """Two members handle every queue's messages in the order of their offsets, also after one of them has left amid
    them; a message that fails once is tried again in its place.
    """
    topic, group = fresh("order"), fresh("order")
    by_queue: dict[int, list[int]] = {}
    by_member: dict[str, int] = {"first": 0, "second": 0}
    handled = asyncio.Event()
    half = asyncio.Event()

    def handler(member: str) -> Callable[[ReceivedMessage], Coroutine[None, None, None]]:
        async def handle(message: ReceivedMessage) -> None:
            if message.body.endswith(b"00") and message.delivery_attempt == 1:
                raise RetryLater(0)
            await asyncio.sleep(0.001)
            by_queue.setdefault(message.queue_id, []).append(message.queue_offset)
            by_member[member] += 1
            count = sum(by_member.values())
            if count >= ORDERED_MESSAGES // 2 and min(by_member.values()) > 0:
                half.set()
            if count >= ORDERED_MESSAGES:
                handled.set()

        return handle

    async with Producer(namesrv) as producer:
        for _ in range(20):
            await producer.send_batch([Message(topic, b"%d" % number) for number in range(100)])
    common = {"group": group, "subscriptions": {topic: "*"}, "start": "earliest", "orderly": True}
    async with PushConsumer(namesrv, handler=handler("second"), **common):  # type: ignore[arg-type]
        async with PushConsumer(namesrv, handler=handler("first"), **common):  # type: ignore[arg-type]
            await asyncio.wait_for(half.wait(), WAIT_S)
        await asyncio.wait_for(handled.wait(), WAIT_S)
    assert by_queue == {queue: list(range(len(offsets))) for queue, offsets in by_queue.items()}
    assert sum(len(offsets) for offsets in by_queue.values()) == ORDERED_MESSAGES
    assert min(by_member.values()) > 0


# -- an operator's requests


async def test_an_operators_requests(namesrv: str, server: Ready) -> None:
    """Through the broker: how the consumer is doing, and one stored message tried on its handler."""
    topic, group = fresh("operator"), fresh("operator")
    seen = Seen(2)
    with WireClient(server.listeners["broker.remoting"]) as operator:
        sent = operator.request(RequestCode.SEND_MESSAGE_V2, send_fields(topic, 0), b"again")
        async with PushConsumer(
            namesrv, group=group, subscriptions={topic: "*"}, handler=seen.handle, start="earliest"
        ) as consumer:
            while not seen.messages:  # noqa: ASYNC110 — what is waited for happens in another task
                await asyncio.sleep(0.02)
            asked = {"consumerGroup": group, "clientId": consumer.client_id}
            info, direct = await asyncio.gather(
                asyncio.to_thread(
                    operator.request, RequestCode.GET_CONSUMER_RUNNING_INFO, asked | {"jstackEnable": "true"}
                ),
                asyncio.to_thread(
                    consume_directly, server, asked | {"msgId": (sent.ext_fields or {})["msgId"], "topic": topic}
                ),
            )
            assert await seen.bodies() == [b"again", b"again"]
            told = ConsumerRunningInfo.decode(info.body)
            async with asyncio.timeout(WAIT_S):
                # The retry topic is made with the group; its queue is taken in a round of its own, a bit later.
                while f"%RETRY%{group}" not in {queue.topic for queue in told.mq_table}:
                    await asyncio.sleep(0.1)
                    question = RequestCode.GET_CONSUMER_RUNNING_INFO, asked | {"jstackEnable": "true"}
                    told = ConsumerRunningInfo.decode((await asyncio.to_thread(operator.request, *question)).body)
    assert told.properties["PROP_CONSUME_ORDERLY"] == "false"
    assert {queue.topic for queue in told.mq_table} == {topic, f"%RETRY%{group}"}
    assert "MainThread" in (told.jstack or "")
    assert ConsumeMessageDirectlyResult.decode(direct.body).consume_result == CMResult.CR_SUCCESS


def consume_directly(server: Ready, fields: dict[str, str]) -> RemotingCommand:
    """Have a consumer try one message now."""
    with WireClient(server.listeners["broker.remoting"]) as client:
        return client.request(RequestCode.CONSUME_MESSAGE_DIRECTLY, fields)


# -- pull


async def test_polling_shares_and_commits(namesrv: str) -> None:
    """Two members poll a topic empty, none is lost, and both get some; a third finds all of it committed."""
    topic, group, count = fresh("poll"), fresh("poll"), 400
    async with Producer(namesrv) as producer:
        for start in range(0, count, 100):
            await producer.send_batch([Message(topic, b"%d" % number) for number in range(start, start + 100)])
    polled: set[bytes] = set()  # a queue may be both members' for a moment while they divide the queues

    async def poll_all(consumer: PullConsumer) -> int:
        own = 0
        async with asyncio.timeout(WAIT_S):
            while len(polled) < count:
                messages = await consumer.poll(10, 0.2)
                polled.update(message.body for message in messages)
                own += len(messages)
                await asyncio.sleep(0)
        return own

    common = {"group": group, "subscriptions": {topic: "*"}, "start": "earliest"}
    async with PullConsumer(namesrv, **common) as first, PullConsumer(namesrv, **common) as second:  # type: ignore[arg-type]
        while not (first.assigned and second.assigned):  # noqa: ASYNC110 — what is waited for happens at the broker
            await asyncio.sleep(0.02)
        counts = await asyncio.gather(poll_all(first), poll_all(second))
    assert polled == {b"%d" % number for number in range(count)}
    assert min(counts) > 0
    async with PullConsumer(namesrv, **common) as third:  # type: ignore[arg-type]
        while not third.assigned:  # noqa: ASYNC110 — as above
            await asyncio.sleep(0.02)
        offsets = [await third.committed(queue) for queue in await third.queues(topic)]
    assert sum(offset or 0 for offset in offsets) == count


async def test_seeking_to_a_time(namesrv: str) -> None:
    """Queues of one's own, begun at the moment after which a message was sent."""
    topic = fresh("seek")
    async with Producer(namesrv) as producer:
        await producer.send_batch([Message(topic, b"before")] * 3)
        await asyncio.sleep(0.01)
        moment = datetime.now(UTC)
        async with PullConsumer(namesrv, group=fresh("seek"), start="earliest") as consumer:
            queues = await consumer.queues(topic)
            await consumer.assign(queues)
            for queue in queues:
                await consumer.seek(queue, await consumer.offset_for_timestamp(queue, moment))
            for _ in queues:
                await producer.send(Message(topic, b"after"))
            polled: list[bytes] = []
            async with asyncio.timeout(WAIT_S):
                while len(polled) < len(queues):
                    polled += [message.body for message in await consumer.poll(timeout_s=WAIT_S)]
    assert polled == [b"after"] * len(queues)


# -- everybody


async def test_every_member_gets_every_message(namesrv: str, tmp_path: pathlib.Path) -> None:
    """And one that was away goes on where it was, by its own file."""
    topic, group = fresh("broadcast"), fresh("broadcast")
    bodies = [b"%d" % number for number in range(20)]
    early, first, second = Seen(20), Seen(30), Seen(10)

    def member(directory: str, seen: Seen) -> PushConsumer:
        return PushConsumer(
            namesrv,
            group=group,
            subscriptions={topic: "*"},
            handler=seen.handle,
            start="earliest",
            broadcasting=tmp_path / directory,
        )

    async with Producer(namesrv) as producer:
        for body in bodies:
            await producer.send(Message(topic, body))
        async with member("first", first):
            async with member("second", early):
                assert sorted(await early.bodies()) == sorted(bodies)
            late = [b"late %d" % number for number in range(10)]
            for body in late:
                await producer.send(Message(topic, body))
            assert sorted(await first.bodies()) == sorted([*bodies, *late])
        async with member("second", second):
            assert sorted(await second.bodies()) == late


# -- namespaces


async def test_a_namespace_has_topics_and_groups_of_its_own(server: Ready, namesrv: str) -> None:
    """For push, retries and pull; outside it the same names are others. Who receives never sees the namespace."""
    topic, group = fresh("orders"), fresh("shop_group")
    inside, outside = Seen(2), Seen(1)

    async def once_more(message: ReceivedMessage) -> None:
        await inside.handle(message)
        if message.delivery_attempt == 1:
            raise RetryLater(1)

    async with (
        Producer(namesrv, namespace="shop") as producer,
        Producer(namesrv) as stranger,
        PushConsumer(
            namesrv,
            namespace="shop",
            group=group,
            subscriptions={topic: "*"},
            handler=once_more,
            start="earliest",
        ),
        PushConsumer(namesrv, group=group, subscriptions={topic: "*"}, handler=outside.handle, start="earliest"),
    ):
        await producer.send(Message(topic, b"inside"))
        await stranger.send(Message(topic, b"outside"))
        assert await inside.bodies() == [b"inside", b"inside"]
        assert await outside.bodies() == [b"outside"]
    assert [(message.topic, message.group, message.delivery_attempt) for message in inside.messages] == [
        (topic, group, 1),
        (topic, group, 2),
    ]
    async with PullConsumer(namesrv, namespace="shop", group=fresh("pull"), start="earliest") as consumer:
        queues = await consumer.queues(topic)
        assert {queue.topic for queue in queues} == {f"shop%{topic}"}
        await consumer.assign(queues, {topic: "*"})
        (message,) = await consumer.poll(timeout_s=WAIT_S)
        assert (message.topic, message.body) == (topic, b"inside")
    with WireClient(server.listeners["broker.remoting"]) as client:
        fields = {"consumerGroup": f"shop%{group}", "topic": f"shop%{topic}", "queueId": str(message.queue_id)}
        assert client.request(RequestCode.QUERY_CONSUMER_OFFSET, fields).ext_fields == {"offset": "1"}
