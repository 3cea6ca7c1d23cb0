"""The simple consumer against a scripted proxy."""

import asyncio
import logging

import pytest
from apogeemq.client_api.errors import ClientClosed, MessageInvalid, ReceiveFailed, SettleFailed
from apogeemq.client_grpc import AckAllFailed, SimpleConsumer
from apogeemq.mesh.clock import ManualClock
from apogeemq.proto.v2 import definition_pb2 as d
from scripted_proxy import UNTIL_S, ScriptedProxy, until


def consumer(proxy: ScriptedProxy, **subscriptions: str) -> SimpleConsumer:
    return SimpleConsumer(proxy.address, group="G", subscriptions=subscriptions or {"T": "*"})


async def test_a_message_is_received_and_acknowledged(proxy: ScriptedProxy) -> None:
    """The request has group, filter, invisible time and waiting time; the ack has the handle that came with it."""
    await proxy.put("T", b"body", message_id="ID")
    # A clock that stands still: of the time to wait nothing is gone when the question is asked.
    subscriptions = {"T": "a || b"}
    async with SimpleConsumer(proxy.address, group="G", subscriptions=subscriptions, clock=ManualClock()) as simple:
        (message,) = await simple.receive(5, invisible_s=20, await_s=6)
        assert (message.body, message.delivery_attempt, message.broker_name) == (b"body", 1, "broker-a")
        await simple.ack(message)
    assert proxy.held == []
    (request,) = proxy.requests("ReceiveMessage")
    assert (request.group.name, request.filter_expression.expression, request.batch_size) == ("G", "a || b", 5)
    assert request.invisible_duration.seconds == 20
    assert request.long_polling_timeout.ToMilliseconds() == 6_000
    assert not request.auto_renew
    assert proxy.names()[:3] == ["Telemetry", "QueryRoute", "QueryAssignment"]
    assert proxy.requests("Telemetry")[0].settings.client_type == d.ClientType.SIMPLE_CONSUMER


async def test_nothing_there_is_an_empty_answer(proxy: ScriptedProxy) -> None:
    """Once the time to wait is over."""
    async with consumer(proxy) as simple:
        assert await simple.receive(await_s=0.05) == []


async def test_all_brokers_are_asked_at_once() -> None:
    """A message at one of three does not wait for the others' long polls, which end (rocketmq-clients#913)."""
    async with ScriptedProxy(("a", "b", "c")) as proxy, consumer(proxy) as simple:
        for broker in ("c", "a", "b"):
            receiving = asyncio.create_task(simple.receive(await_s=20))
            await until(lambda: proxy.polls == 3)
            await proxy.put("T", broker.encode(), broker=broker)
            (message,) = await asyncio.wait_for(receiving, UNTIL_S)
            assert message.broker_name == broker
            await simple.ack(message)
            await until(lambda: not proxy.polls)


async def test_what_came_beyond_the_wish_is_not_lost() -> None:
    """Two brokers answer at once with more than was asked for: the rest is the next receive's, or, where it was still
    on its way when the first one was enough, comes again after its invisible time.
    """
    async with ScriptedProxy(("a", "b")) as proxy, consumer(proxy) as simple:
        gate = asyncio.Event()

        async def wait(request: object) -> None:
            await gate.wait()

        proxy.before["ReceiveMessage"] = wait
        await proxy.put("T", b"1", broker="a")
        await proxy.put("T", b"2", broker="b")
        receiving = asyncio.create_task(simple.receive(1, await_s=UNTIL_S))
        await until(lambda: len(proxy.requests("ReceiveMessage")) == 2)
        gate.set()
        received = await receiving
        assert len(received) == 1
        received += await simple.receive(1, await_s=0)
        for held in proxy.held:
            if held.message.body not in {message.body for message in received}:
                await proxy.show(held)
                received += await simple.receive(1, await_s=UNTIL_S)
        assert sorted(message.body for message in received) == [b"1", b"2"]


async def test_a_change_gives_a_new_handle(proxy: ScriptedProxy) -> None:
    """The message given back settles; the old one's receipt is void, and says so."""
    await proxy.put("T", b"body")
    async with consumer(proxy) as simple:
        (message,) = await simple.receive()
        changed = await simple.change_invisible(message, 60)
        assert proxy.requests("ChangeInvisibleDuration")[0].invisible_duration.seconds == 60
        with pytest.raises(SettleFailed, match="expired") as failure:
            await simple.ack(message)
        assert failure.value.code_name == "INVALID_RECEIPT_HANDLE"
        await simple.ack(changed)
    assert proxy.held == []


async def test_an_unsettled_message_comes_again(proxy: ScriptedProxy) -> None:
    """With the next number of delivery, once its invisible time is over."""
    await proxy.put("T", b"body")
    async with consumer(proxy) as simple:
        (message,) = await simple.receive()
        await simple.change_invisible(message, 0)
        (again,) = await simple.receive()
    assert (message.delivery_attempt, again.delivery_attempt) == (1, 2)


async def test_ack_all_takes_few_calls_and_names_what_failed(proxy: ScriptedProxy) -> None:
    """40 messages are two requests; one that is void does not spoil the others."""
    for number in range(40):
        await proxy.put("T", b"%d" % number)
    async with consumer(proxy) as simple:
        messages = [*await simple.receive(32), *await simple.receive(32)]
        await simple.ack(messages[3])
        with pytest.raises(AckAllFailed, match="1 of 40") as failure:
            await simple.ack_all(messages)
    assert failure.value.messages == (messages[3],)
    assert proxy.held == []
    assert [len(request.entries) for request in proxy.requests("AckMessage")] == [1, 32, 8]


async def test_a_corrupted_message_is_reported_and_kept_back(
    proxy: ScriptedProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names it; the good one beside it is delivered."""
    wrong = d.Digest(type=d.DigestType.CRC32, checksum="1")
    await proxy.put("T", b"bad", body_digest=wrong, message_id="BAD")
    await proxy.put("T", b"good")
    async with consumer(proxy) as simple:
        with caplog.at_level(logging.ERROR, "apogeemq.client_grpc"):
            assert [message.body for message in await simple.receive()] == [b"good"]
    assert "message BAD of topic T from broker broker-a is corrupted" in caplog.text


async def test_a_mistake_is_raised_at_once(proxy: ScriptedProxy) -> None:
    """Too short an invisible time does not get better by waiting."""
    proxy.faults["ReceiveMessage"].append(d.Status(code="ILLEGAL_INVISIBLE_TIME", message="too short"))
    async with consumer(proxy) as simple:
        with pytest.raises(ReceiveFailed, match="too short"):
            await simple.receive(invisible_s=1, await_s=15)
    assert len(proxy.requests("ReceiveMessage")) == 1


async def test_a_busy_server_is_asked_again(proxy: ScriptedProxy) -> None:
    """After 20 ms, within the time to wait."""
    proxy.faults["ReceiveMessage"].append(d.Status(code="TOO_MANY_REQUESTS", message="full"))
    await proxy.put("T", b"body")
    async with consumer(proxy) as simple:
        assert len(await simple.receive(await_s=10)) == 1


async def test_a_server_that_forgot_the_client_is_told_again(proxy: ScriptedProxy) -> None:
    """The settings go out again on UNRECOGNIZED_CLIENT_TYPE."""
    proxy.faults["ReceiveMessage"].append(d.Status(code="UNRECOGNIZED_CLIENT_TYPE", message="who?"))
    await proxy.put("T", b"body")
    async with consumer(proxy) as simple:
        assert len(await simple.receive(await_s=10)) == 1
    assert len(proxy.requests("Telemetry")) == 2


async def test_a_cancelled_receive_loses_nothing(proxy: ScriptedProxy) -> None:
    """What had come when it was cancelled is there for the next one."""
    async with consumer(proxy) as simple:
        receiving = asyncio.create_task(simple.receive(await_s=10))
        await until(lambda: proxy.polls)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        await until(lambda: not proxy.polls)
        await proxy.put("T", b"body")
        assert [message.body for message in await simple.receive(await_s=10)] == [b"body"]


async def test_subscriptions_change_while_it_runs(proxy: ScriptedProxy) -> None:
    """The proxy is told, and the next receive asks for what is subscribed to then."""
    await proxy.put("U", b"u")
    async with consumer(proxy) as simple:
        await simple.subscribe("U", "a")
        await simple.unsubscribe("T")
        await simple.unsubscribe("never")
        assert [message.body for message in await simple.receive()] == [b"u"]
        await simple.unsubscribe("U")
        with pytest.raises(ValueError, match="nothing is subscribed"):
            await simple.receive()
        with pytest.raises(ValueError, match="empty tag"):
            await simple.subscribe("U", "a || ")
        with pytest.raises(MessageInvalid):
            await simple.subscribe("no topic")
        await until(lambda: len(proxy.requests("Telemetry")) == 4, proxy.names)
    told = [
        {entry.topic.name: entry.expression.expression for entry in sent.settings.subscription.subscriptions}
        for sent in proxy.requests("Telemetry")
    ]
    assert told == [{"T": "*"}, {"T": "*", "U": "a"}, {"U": "a"}, {}]


async def test_closing_ends_a_receive(proxy: ScriptedProxy) -> None:
    """With ClientClosed, at once."""
    async with consumer(proxy) as simple:
        receiving = asyncio.create_task(simple.receive(await_s=20))
        await until(lambda: proxy.polls)
    with pytest.raises(ClientClosed):
        await asyncio.wait_for(receiving, UNTIL_S)
    with pytest.raises(ClientClosed):
        await simple.receive()


@pytest.mark.parametrize(
    ("max_messages", "invisible_s", "await_s", "complaint"),
    [(0, 10, 1, "max_messages"), (1, 0, 1, "invisible_s"), (1, 43_201, 1, "invisible_s"), (1, 10, -1, "await_s")],
)
async def test_impossible_wishes_are_refused(
    proxy: ScriptedProxy, max_messages: int, invisible_s: float, await_s: float, complaint: str
) -> None:
    """Before anything is asked."""
    async with consumer(proxy) as simple:
        with pytest.raises(ValueError, match=complaint):
            await simple.receive(max_messages, invisible_s=invisible_s, await_s=await_s)
    assert proxy.requests("ReceiveMessage") == []
