"""Clients of the proxy: settings, streams, heartbeats, leaving; what brokers hear of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.messaging import MessagingService
from apogeemq.remoting_codec.codes import ResponseCode

from packages.proxy.tests.brokers_in_memory import Cluster, cluster_of, context_of, refuse

GROUP = defs.Resource(name="G")
TOPIC = defs.Resource(name="T")


def service_of(cluster: Cluster, limits: Limits | None = None) -> MessagingService:
    return MessagingService(cluster, cluster, clock=cluster.clock, chance=SeededChance(1), limits=limits)


@asynccontextmanager
async def running(service: MessagingService) -> AsyncIterator[None]:
    """The service with its background work."""
    task = asyncio.create_task(service.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def consumer(client_type: defs.ClientType = defs.SIMPLE_CONSUMER) -> v2.TelemetryCommand:
    entry = defs.SubscriptionEntry(topic=TOPIC, expression=defs.FilterExpression(type=defs.TAG, expression="A"))
    subscription = defs.Subscription(group=GROUP, subscriptions=[entry])
    return v2.TelemetryCommand(settings=defs.Settings(client_type=client_type, subscription=subscription))


def producer() -> v2.TelemetryCommand:
    settings = defs.Settings(client_type=defs.PRODUCER, publishing=defs.Publishing(topics=[TOPIC]))
    return v2.TelemetryCommand(settings=settings)


async def settings_back(service: MessagingService, cluster: Cluster, command: v2.TelemetryCommand) -> defs.Settings:
    sent: list[v2.TelemetryCommand] = []
    await service.open_telemetry(context_of(cluster.clock), sent.append).on_command(command)
    (answer,) = sent
    assert answer.status.code == Code.OK
    return answer.settings


async def test_a_producer_is_told_how_often_to_try_and_how_much_it_may_send() -> None:
    """The values that Apache's proxy was seen to send."""
    cluster = cluster_of(ManualClock(), "a")
    settings = await settings_back(service_of(cluster), cluster, producer())
    backoff = settings.backoff_policy
    assert (settings.client_type, backoff.max_attempts) == (defs.PRODUCER, 3)
    assert (backoff.exponential_backoff.initial.nanos, backoff.exponential_backoff.max.seconds) == (10_000_000, 1)
    assert backoff.exponential_backoff.multiplier == 2
    assert [topic.name for topic in settings.publishing.topics] == ["T"]
    assert (settings.publishing.max_body_size, settings.publishing.validate_message_type) == (4_194_304, True)
    assert settings.HasField("metric")
    assert not settings.metric.on


@pytest.mark.parametrize("client_type", [defs.SIMPLE_CONSUMER, defs.PUSH_CONSUMER])
async def test_a_consumer_gets_its_groups_policy_and_always_a_strategy(client_type: defs.ClientType) -> None:
    """Attempts are the group's retries and one; the delays are the 18 of the group's table."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].orderly_groups = {"G"}
    cluster.brokers["a"].retry_max_times = 2
    settings = await settings_back(service_of(cluster), cluster, consumer(client_type))
    assert settings.backoff_policy.max_attempts == 3
    delays_s = [delay.seconds for delay in settings.backoff_policy.customized_backoff.next]
    minutes = [60 * n for n in range(1, 11)]
    assert delays_s == [1, 5, 10, 30, *minutes, 1200, 1800, 3600, 7200]
    subscription = settings.subscription
    assert (subscription.fifo, subscription.receive_batch_size) == (True, 32)
    assert subscription.long_polling_timeout.seconds == 20
    assert [(e.topic.name, e.expression.expression) for e in subscription.subscriptions] == [("T", "A")]


async def test_settings_come_back_when_no_broker_answers() -> None:
    """With the default policy, within the three seconds for which a client waits."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].before = lambda request: asyncio.Event().wait()  # type: ignore[assignment,return-value]
    asking = asyncio.ensure_future(settings_back(service_of(cluster), cluster, consumer()))
    await cluster.clock.run_for(2.5)
    assert asking.result().backoff_policy.max_attempts == 17


async def test_settings_twice_are_fine() -> None:
    """Push consumers of the Java client send them twice at start."""
    cluster = cluster_of(ManualClock(), "a")
    sent: list[v2.TelemetryCommand] = []
    session = service_of(cluster).open_telemetry(context_of(cluster.clock), sent.append)
    await session.on_command(consumer())
    await session.on_command(consumer())
    assert [command.status.code for command in sent] == [Code.OK, Code.OK]


async def test_a_stream_that_floods_is_ended() -> None:
    """More commands in ten seconds than any client sends are refused; a calm stream goes on for ever."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster, Limits(commands_per_10_s_max=3))
    session = service.open_telemetry(context_of(cluster.clock), lambda command: None)
    for _ in range(10):
        await session.on_command(producer())
        await cluster.clock.run_for(5.0)
    await cluster.clock.run_for(10.0)
    for _ in range(3):
        await session.on_command(producer())
    with pytest.raises(ProxyError) as caught:
        await session.on_command(producer())
    assert caught.value.code == Code.TOO_MANY_REQUESTS


async def test_no_more_clients_than_may_be() -> None:
    """The one above the bound is refused, those that are known go on."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster, Limits(clients_max=2))
    for client_id in ("1", "2", "1"):
        service.open_telemetry(context_of(cluster.clock, client_id=client_id), lambda command: None)
    with pytest.raises(ProxyError) as caught:
        service.open_telemetry(context_of(cluster.clock, client_id="3"), lambda command: None)
    assert caught.value.code == Code.TOO_MANY_REQUESTS


async def test_made_up_ids_keep_no_client_out() -> None:
    """Ids without settings and streams make room, the oldest first; clients with settings or streams stay."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster, Limits(clients_max=3))
    settled = service.open_telemetry(context_of(cluster.clock, client_id="settled"), lambda command: None)
    await settled.on_command(producer())
    settled.closed()
    streaming = service.open_telemetry(context_of(cluster.clock, client_id="streaming"), lambda command: None)
    for number in range(1_000):
        service.clients.seen(context_of(cluster.clock, client_id=f"made up {number}"))
    assert len(service.clients) == 3
    beat = v2.HeartbeatRequest(client_type=defs.PRODUCER)
    assert (await service.heartbeat(beat, context_of(cluster.clock, client_id="settled"))).status.code == Code.OK
    newcomer = service.open_telemetry(context_of(cluster.clock, client_id="newcomer"), lambda command: None)
    with pytest.raises(ProxyError) as caught:
        service.clients.seen(context_of(cluster.clock, client_id="one more"))
    assert caught.value.code == Code.TOO_MANY_REQUESTS
    newcomer.closed()
    streaming.closed()
    for number in range(1_000):
        service.clients.seen(context_of(cluster.clock, client_id=f"made up {number}"))
    assert len(service.clients) == 3


async def test_what_is_kept_of_ids_that_come_and_go_has_an_end() -> None:
    """Whatever order streams, settings and leaving come in, a client that is gone leaves nothing behind."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster, Limits(clients_max=1, all_settings_size_bytes_max=1_000))
    for number in range(100):
        context = context_of(cluster.clock, client_id=f"c{number}")
        session = service.open_telemetry(context, lambda command: None)
        for command in (producer(), consumer()):
            await session.on_command(command)
        if number % 2:
            session.closed()
        await service.notify_client_termination(v2.NotifyClientTerminationRequest(group=GROUP), context)
        session.closed()
    assert len(service.clients) == 0


async def test_a_client_has_so_many_streams_and_no_more() -> None:
    """Each open one holds a call of the door; there is room again when one is over."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster, Limits(streams_per_client_max=2))
    sessions = [service.open_telemetry(context_of(cluster.clock), lambda command: None) for _ in range(2)]
    with pytest.raises(ProxyError) as caught:
        service.open_telemetry(context_of(cluster.clock), lambda command: None)
    assert caught.value.code == Code.TOO_MANY_REQUESTS
    assert "streams" in caught.value.message
    sessions[0].closed()
    service.open_telemetry(context_of(cluster.clock), lambda command: None)


async def test_settings_have_a_size() -> None:
    """They are kept: those of one client are refused by the field, and there is a bound for all clients together."""
    cluster = cluster_of(ManualClock(), "a")
    large = producer()
    large.settings.user_agent.hostname = "x" * 10_000
    service = service_of(cluster, Limits(settings_size_bytes_max=9_999))
    with pytest.raises(ProxyError) as caught:
        await service.open_telemetry(context_of(cluster.clock), lambda command: None).on_command(large)
    assert (caught.value.code, "settings" in caught.value.message) == (Code.BAD_REQUEST, True)
    service = service_of(cluster, Limits(all_settings_size_bytes_max=25_000))
    sessions = [
        service.open_telemetry(context_of(cluster.clock, client_id=client_id), lambda command: None)
        for client_id in ("1", "2", "3")
    ]
    for session in (sessions[0], sessions[1], sessions[0]):  # the same ones again take no more room
        await session.on_command(large)
    with pytest.raises(ProxyError) as caught:
        await sessions[2].on_command(large)
    assert caught.value.code == Code.TOO_MANY_REQUESTS
    await service.notify_client_termination(
        v2.NotifyClientTerminationRequest(), context_of(cluster.clock, client_id="1")
    )
    await sessions[2].on_command(large)


async def test_settings_that_come_often_are_told_one_at_a_time() -> None:
    """While brokers hang only one piece of work tells them of a client; afterwards they hear of its last settings."""
    cluster = cluster_of(ManualClock(), "a")
    service, gate = service_of(cluster), asyncio.Event()
    async with running(service):
        cluster.brokers["a"].before = lambda request: (
            gate.wait() if isinstance(request, mesh.ClientHeartbeatRequest) else None  # type: ignore[assignment,return-value]
        )
        session = service.open_telemetry(context_of(cluster.clock), lambda command: None)
        await session.on_command(consumer())
        await cluster.clock.run_for(0.0)
        for _ in range(100):
            await session.on_command(consumer())
        await session.on_command(producer())
        await cluster.clock.run_for(0.0)
        assert len(cluster.brokers["a"].asked(mesh.ClientHeartbeatRequest)) == 1
        gate.set()
        await cluster.clock.run_for(2.5)
        assert list(cluster.brokers["a"].asked(mesh.ClientHeartbeatRequest)[-1].producer_groups) == ["T"]


async def test_answers_to_commands_that_nobody_sent_are_ignored() -> None:
    """A client may answer what the proxy before us asked."""
    cluster = cluster_of(ManualClock(), "a")
    sent: list[v2.TelemetryCommand] = []
    session = service_of(cluster).open_telemetry(context_of(cluster.clock), sent.append)
    await session.on_command(v2.TelemetryCommand(thread_stack_trace=v2.ThreadStackTrace(nonce="n")))
    await session.on_command(v2.TelemetryCommand(verify_message_result=v2.VerifyMessageResult(nonce="n")))
    assert sent == []


async def test_heartbeat_and_termination_need_settings() -> None:
    """UNRECOGNIZED_CLIENT_TYPE before the settings, OK after them, and again refused once the client left."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster)
    context = context_of(cluster.clock)
    beat = v2.HeartbeatRequest(group=GROUP, client_type=defs.SIMPLE_CONSUMER)
    leave = v2.NotifyClientTerminationRequest(group=GROUP)

    async def codes() -> list[int]:
        found: list[int] = []
        for asking in (service.heartbeat(beat, context), service.notify_client_termination(leave, context)):
            try:
                found.append((await asking).status.code)
            except ProxyError as error:
                found.append(error.code)
        return found

    assert await codes() == [Code.UNRECOGNIZED_CLIENT_TYPE] * 2
    await service.open_telemetry(context, lambda command: None).on_command(consumer())
    assert await codes() == [Code.OK, Code.OK]
    assert await codes() == [Code.UNRECOGNIZED_CLIENT_TYPE] * 2


async def test_brokers_hear_of_consumers_again_and_again_and_of_their_leaving() -> None:
    """All brokers of the topic: at once, every 20 s, and when the client says that it leaves."""
    cluster = cluster_of(ManualClock(), "a", "b")
    service = service_of(cluster)
    async with running(service):
        context = context_of(cluster.clock)
        await service.open_telemetry(context, lambda command: None).on_command(consumer(defs.PUSH_CONSUMER))
        await cluster.clock.run_for(0.0)
        for broker in cluster.brokers.values():
            (beat,) = broker.asked(mesh.ClientHeartbeatRequest)
            (data,) = beat.consumers
            assert (beat.client_id, beat.language) == ("c@1", "JAVA")
            assert (data.group, data.consume_type, data.message_model) == ("G", "CONSUME_PASSIVELY", "CLUSTERING")
            assert [(s.topic, s.sub_string) for s in data.subscriptions] == [("T", "A")]
        await cluster.clock.run_for(45.0)
        assert [len(broker.asked(mesh.ClientHeartbeatRequest)) for broker in cluster.brokers.values()] == [3, 3]
        await service.notify_client_termination(v2.NotifyClientTerminationRequest(group=GROUP), context)
        await cluster.clock.run_for(60.0)
        for broker in cluster.brokers.values():
            assert len(broker.asked(mesh.ClientHeartbeatRequest)) == 3
            (left,) = broker.asked(mesh.UnregisterClientRequest)
            assert (left.client_id, list(left.consumer_groups)) == ("c@1", ["G"])


async def test_a_broker_that_comes_back_hears_of_its_clients_at_once() -> None:
    """It may be another process, which knows nobody; a broker that was there all along hears at its usual times."""
    cluster = cluster_of(ManualClock(), "a", "b")
    service = service_of(cluster)
    async with running(service):
        await service.open_telemetry(context_of(cluster.clock), lambda command: None).on_command(producer())
        await cluster.clock.run_for(5.0)
        cluster.down.add("a")
        await cluster.clock.run_for(27.0)  # the call that waits for questions ends, and the next one fails
        before = {name: len(broker.asked(mesh.ClientHeartbeatRequest)) for name, broker in cluster.brokers.items()}
        cluster.down.discard("a")
        await cluster.clock.run_for(3.0)
        after = {name: len(broker.asked(mesh.ClientHeartbeatRequest)) for name, broker in cluster.brokers.items()}
    assert after["a"] == before["a"] + 1


async def test_producers_are_members_of_a_group_named_like_their_topic() -> None:
    """As in Apache's proxy: gRPC producers have no group of their own."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster)
    await service.open_telemetry(context_of(cluster.clock), lambda command: None).on_command(producer())
    await cluster.clock.run_for(0.0)
    (beat,) = cluster.brokers["a"].asked(mesh.ClientHeartbeatRequest)
    assert (list(beat.producer_groups), list(beat.consumers)) == (["T"], [])


async def test_a_client_is_gone_some_time_after_its_last_stream() -> None:
    """A stream that comes back within five seconds keeps it; silence of two minutes ends it in any case."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster)
    async with running(service):
        first = service.open_telemetry(context_of(cluster.clock), lambda command: None)
        await first.on_command(producer())
        first.closed()
        await cluster.clock.run_for(4.0)
        second = service.open_telemetry(context_of(cluster.clock), lambda command: None)
        await cluster.clock.run_for(30.0)
        assert len(service.clients) == 1
        second.closed()
        second.closed()
        await cluster.clock.run_for(7.0)
        assert len(service.clients) == 0
        service.open_telemetry(context_of(cluster.clock), lambda command: None)
        await cluster.clock.run_for(119.0)
        assert len(service.clients) == 1
        await cluster.clock.run_for(2.0)
        assert len(service.clients) == 0


async def test_a_client_that_is_silent_loses_its_streams() -> None:
    """After two minutes, with or without settings: they would hold a place for ever. What it opens then is new."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster)
    ended: list[ProxyError] = []
    async with running(service):
        context = context_of(cluster.clock)
        session = service.open_telemetry(context, lambda command: None, ended.append)
        await session.on_command(producer())
        service.open_telemetry(context_of(cluster.clock, client_id="silent"), lambda command: None, ended.append)
        await cluster.clock.run_for(100.0)
        await service.heartbeat(v2.HeartbeatRequest(client_type=defs.PRODUCER), context)
        await cluster.clock.run_for(22.0)
        assert [error.code for error in ended] == [Code.REQUEST_TIMEOUT]
        await cluster.clock.run_for(100.0)
        assert len(ended) == 2
        reopened = service.open_telemetry(context, lambda command: None, ended.append)
        await reopened.on_command(producer())
        session.closed()  # late, and of the client as it was
        await cluster.clock.run_for(30.0)
        assert len(service.clients) == 1


async def test_brokers_that_do_not_answer_hold_up_no_expiry() -> None:
    """Clients go when they go, whoever listens; and brokers that refuse to hear of one change nothing."""
    cluster = cluster_of(ManualClock(), "a", "b")
    service = service_of(cluster)
    cluster.brokers["a"].before = lambda request: asyncio.Event().wait()  # type: ignore[assignment,return-value]
    cluster.brokers["b"].before = refuse(ResponseCode.SYSTEM_BUSY, object)
    async with running(service):
        for number in range(100):
            context = context_of(cluster.clock, client_id=f"c@{number}")
            session = service.open_telemetry(context, lambda command: None)
            await session.on_command(producer())
            session.closed()
        await cluster.clock.run_for(7.0)
        assert len(service.clients) == 0


async def test_a_client_that_leaves_while_its_settings_are_merged_is_there_again() -> None:
    """Settings are the last word: whoever sends them wants to be known."""
    cluster = cluster_of(ManualClock(), "a")
    service, context = service_of(cluster), context_of(cluster.clock)
    gate = asyncio.Event()
    await service.open_telemetry(context, lambda command: None).on_command(producer())
    cluster.brokers["a"].before = lambda request: (
        gate.wait() if isinstance(request, mesh.QueryGroupRequest) else None  # type: ignore[assignment,return-value]
    )
    session = service.open_telemetry(context, lambda command: None)
    merging = asyncio.ensure_future(session.on_command(consumer()))
    await cluster.clock.run_for(0.0)
    await service.notify_client_termination(v2.NotifyClientTerminationRequest(), context)
    gate.set()
    await merging
    beat = v2.HeartbeatRequest(group=GROUP, client_type=defs.SIMPLE_CONSUMER)
    assert (await service.heartbeat(beat, context)).status.code == Code.OK
