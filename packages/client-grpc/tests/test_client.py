"""What a client does by itself as long as it lives, on a clock that is moved by hand."""

import asyncio

import pytest
from apogeemq.client_api.errors import StartFailed
from apogeemq.client_grpc import Message, Producer, SimpleConsumer
from apogeemq.proto.v2 import definition_pb2 as d
from passing_time import PassingTime
from scripted_proxy import ScriptedProxy, until


async def test_heartbeats_begin_after_a_second_and_come_every_ten(proxy: ScriptedProxy, time: PassingTime) -> None:
    """With the group of a consumer: servers want it there."""
    proxy.now_s = time.clock.monotonic
    async with SimpleConsumer(proxy.address, group="G", subscriptions={"T": "*"}, clock=time.clock):
        await time.pass_by(25)
    assert proxy.times("Heartbeat") == [1, 11, 21]
    first = proxy.requests("Heartbeat")[0]
    assert (first.group.name, first.client_type) == ("G", d.ClientType.SIMPLE_CONSUMER)


async def test_a_proxy_that_forgot_the_client_is_told_at_the_heartbeat(proxy: ScriptedProxy, time: PassingTime) -> None:
    """40015 means: send the settings again."""
    proxy.faults["Heartbeat"].append(d.Status(code="UNRECOGNIZED_CLIENT_TYPE", message="who?"))
    async with Producer(proxy.address, clock=time.clock):
        await time.pass_by(1)
        await until(lambda: len(proxy.requests("Telemetry")) == 2, proxy.names)


async def test_a_refused_heartbeat_does_not_end_them(
    proxy: ScriptedProxy, time: PassingTime, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its code, and the next one comes."""
    proxy.now_s = time.clock.monotonic
    proxy.faults["Heartbeat"].append(d.Status(code="INTERNAL_SERVER_ERROR", message="broken"))
    async with Producer(proxy.address, clock=time.clock):
        await time.pass_by(1)
        assert "INTERNAL_SERVER_ERROR: broken" in caplog.text
        await time.pass_by(10)
    assert proxy.times("Heartbeat") == [1, 11]


async def test_settings_are_sent_again_every_five_minutes(proxy: ScriptedProxy, time: PassingTime) -> None:
    """On the stream that is open anyway."""
    proxy.now_s = time.clock.monotonic
    async with Producer(proxy.address, clock=time.clock):
        await time.pass_by(300)
        await until(lambda: len(proxy.requests("Telemetry")) == 2, proxy.names)
    assert proxy.times("Telemetry") == [0, 300]


async def test_routes_are_refreshed_every_thirty_seconds(proxy: ScriptedProxy, time: PassingTime) -> None:
    """A refresh that fails leaves the last route: sends go on."""
    proxy.now_s = time.clock.monotonic
    async with Producer(proxy.address, topics=["T"], clock=time.clock) as producer:
        proxy.missing_topics.add("T")
        await time.pass_by(31)
        await producer.send(Message("T", b"body"))
    assert proxy.times("QueryRoute") == [0, 30]


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


async def test_one_place_that_is_down_does_no_harm(time: PassingTime, caplog: pytest.LogCaptureFixture) -> None:
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
        async with Producer(front.address, clock=time.clock) as producer:
            for _ in range(6):  # some may try the place that is gone first, and try again after a pause
                await time.until_done(producer.send(Message("T", b"body"), timeout_s=60), within_s=60)
    assert "a place on the route of topic T is not there" in caplog.text
    assert len(front.held) == 6


async def test_a_proxy_without_answers_fails_the_start(proxy: ScriptedProxy, time: PassingTime) -> None:
    """3 s without settings are enough to know; the error says what to look at."""
    proxy.settings = lambda sent: None
    producer = Producer(proxy.address, clock=time.clock)
    starting = asyncio.create_task(producer.__aenter__())
    await until(lambda: proxy.requests("Telemetry"))
    await time.pass_by(3)
    with pytest.raises(StartFailed, match="sent no settings within 3 s"):
        await starting
