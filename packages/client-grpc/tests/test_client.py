"""What a client does by itself as long as it lives, on a clock that is moved by hand."""

import asyncio

import pytest
from apogeemq.client_api.errors import StartFailed
from apogeemq.client_grpc import Message, Producer, SimpleConsumer
from apogeemq.mesh.clock import ManualClock
from apogeemq.proto.v2 import definition_pb2 as d
from scripted_proxy import ScriptedProxy, until


async def pass_time(clock: ManualClock, seconds: float) -> None:
    """Let time pass second by second, so that nothing that is due between is skipped."""
    for _ in range(round(seconds)):
        await clock.run_for(1.0)


async def test_heartbeats_begin_after_a_second_and_come_every_ten(proxy: ScriptedProxy) -> None:
    """With the group of a consumer: servers want it there."""
    clock = ManualClock()
    async with SimpleConsumer(proxy.address, group="G", subscriptions={"T": "*"}, clock=clock):
        await clock.run_for(0.99)
        assert proxy.requests("Heartbeat") == []
        await clock.run_for(0.02)
        await until(lambda: len(proxy.requests("Heartbeat")) == 1)
        await pass_time(clock, 9)
        assert len(proxy.requests("Heartbeat")) == 1
        await pass_time(clock, 2)
        await until(lambda: len(proxy.requests("Heartbeat")) == 2)
    (first, _) = proxy.requests("Heartbeat")
    assert (first.group.name, first.client_type) == ("G", d.ClientType.SIMPLE_CONSUMER)


async def test_a_proxy_that_forgot_the_client_is_told_at_the_heartbeat(proxy: ScriptedProxy) -> None:
    """40015 means: send the settings again."""
    clock = ManualClock()
    proxy.faults["Heartbeat"].append(d.Status(code="UNRECOGNIZED_CLIENT_TYPE", message="who?"))
    async with Producer(proxy.address, clock=clock):
        await pass_time(clock, 1)
        await until(lambda: len(proxy.requests("Telemetry")) == 2)


async def test_a_refused_heartbeat_does_not_end_them(proxy: ScriptedProxy, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its code, and the next one comes."""
    clock = ManualClock()
    proxy.faults["Heartbeat"].append(d.Status(code="INTERNAL_SERVER_ERROR", message="broken"))
    async with Producer(proxy.address, clock=clock):
        await pass_time(clock, 1)
        await until(lambda: "INTERNAL_SERVER_ERROR: broken" in caplog.text)
        await pass_time(clock, 10)
        await until(lambda: len(proxy.requests("Heartbeat")) == 2)


async def test_settings_are_sent_again_every_five_minutes(proxy: ScriptedProxy) -> None:
    """On the stream that is open anyway."""
    clock = ManualClock()
    async with Producer(proxy.address, clock=clock):
        await clock.run_for(299)
        assert len(proxy.requests("Telemetry")) == 1
        await clock.run_for(2)
        await until(lambda: len(proxy.requests("Telemetry")) == 2)


async def test_routes_are_refreshed_every_thirty_seconds(proxy: ScriptedProxy) -> None:
    """A refresh that fails leaves the last route: sends go on."""
    clock = ManualClock()
    async with Producer(proxy.address, topics=["T"], clock=clock) as producer:
        proxy.missing_topics.add("T")
        await pass_time(clock, 31)
        await until(lambda: len(proxy.requests("QueryRoute")) == 2)
        await producer.send(Message("T", b"body"))


async def test_many_who_ask_for_a_route_ask_once(proxy: ScriptedProxy) -> None:
    """The answer is everybody's, and is kept."""
    async with Producer(proxy.address) as producer:
        await asyncio.gather(*(producer.send(Message("T", b"body")) for _ in range(20)))
    assert len(proxy.requests("QueryRoute")) == 1


async def test_other_places_of_a_route_are_introduced_before_they_are_used() -> None:
    """A route that leads to another proxy: settings go there before the first message does."""
    async with ScriptedProxy() as front, ScriptedProxy() as other:
        leading_there = front.query_route

        async def query_route(request: object) -> object:
            answer = await leading_there(request)  # type: ignore[arg-type]  # as the proxy itself is called
            for queue in answer.message_queues:
                queue.broker.endpoints.addresses[0].port = other.port
            return answer

        front.query_route = query_route  # type: ignore[method-assign, assignment]  # this proxy answers so
        async with Producer(front.address, topics=["T"]) as producer:
            await producer.send(Message("T", b"body"))
    assert other.names()[:2] == ["Telemetry", "SendMessage"]
    assert "SendMessage" not in front.names()
    assert front.names()[-1] == other.names()[-1] == "NotifyClientTermination"


async def test_one_place_that_is_down_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    """A route leads to two proxies and one of them is not there: messages go through the other."""
    async with ScriptedProxy(("a", "b")) as front, ScriptedProxy() as gone:
        await gone.stop()
        leading_there = front.query_route

        async def query_route(request: object) -> object:
            answer = await leading_there(request)  # type: ignore[arg-type]  # as the proxy itself is called
            for queue in answer.message_queues:
                if queue.broker.name == "b":
                    queue.broker.endpoints.addresses[0].port = gone.port
            return answer

        front.query_route = query_route  # type: ignore[method-assign, assignment]  # this proxy answers so
        clock = ManualClock()
        async with Producer(front.address, clock=clock) as producer:
            sending = asyncio.create_task(producer.send(Message("T", b"body"), timeout_s=60))
            await until(lambda: front.requests("QueryRoute"))
            while not sending.done():
                await clock.run_for(1.0)
            await sending
            for _ in range(5):
                await producer.send(Message("T", b"body"))
    assert "a place on the route of topic T is not there" in caplog.text
    assert len(front.held) == 6


async def test_a_proxy_without_answers_fails_the_start(proxy: ScriptedProxy) -> None:
    """3 s without settings are enough to know; the error says what to look at."""
    clock = ManualClock()
    proxy.settings = lambda sent: None
    producer = Producer(proxy.address, clock=clock)
    starting = asyncio.create_task(producer.__aenter__())
    await until(lambda: proxy.requests("Telemetry"))
    await clock.run_for(3.1)
    with pytest.raises(StartFailed, match="sent no settings within 3 s"):
        await starting
