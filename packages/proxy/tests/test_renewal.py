"""Auto-renewal: the table's times, and the runner against a broker in memory."""

from __future__ import annotations

import asyncio

import pytest
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.core.receipt_handle import ReceiptHandle
from apogeemq.proxy.core.renewal import RenewalTable
from apogeemq.proxy.service.messaging import MessagingService
from apogeemq.remoting_codec.codes import ResponseCode

from packages.proxy.tests.brokers_in_memory import Cluster, cluster_of, context_of, refuse
from packages.proxy.tests.test_clients import GROUP, TOPIC, consumer, running

MINUTE_MS = 60_000


def handle_of(offset: int, pop_time_ms: int = 0) -> ReceiptHandle:
    return ReceiptHandle(offset, pop_time_ms, MINUTE_MS, 3, mesh.RETRY_MARK_NORMAL, "a", 0, offset, 0)


def test_the_steps_grow_and_end_after_three_hours() -> None:
    """1, 3, 5, 10, 30, 60, 60 … minutes, each asked for ten seconds before the end; then the group's retry delay."""
    table = RenewalTable(Limits())
    table.add("c", "G", "T", handle_of(0), reconsume_times=1, now_ms=0)
    asked = []
    for now_ms in range(0, 6 * 3600 * 1000, 1000):
        for renewal in table.take_due(now_ms):
            extension_ms, is_last = renewal.extension(now_ms)
            asked.append((now_ms // 1000, extension_ms // 1000, is_last))
            if is_last:
                table.drop(renewal)
            else:
                table.renewed(renewal, extension_ms, now_ms)
    expected, now_s = [], 50
    for minutes in (1, 3, 5, 10, 30, 60, 60):
        expected.append((now_s, minutes * 60, False))
        now_s += minutes * 60 - 10
    # 10,080 s of steps until here, less ten seconds for each: a message that failed once before retries after 30 s.
    while now_s < 3 * 3600:
        expected.append((now_s, 3600, False))
        now_s += 3590
    assert asked == [*expected, (now_s, 30, True)]
    assert len(table) == 0


def test_a_settled_message_is_not_renewed() -> None:
    """Whether it is due already or later; settling twice changes nothing."""
    table = RenewalTable(Limits())
    table.add("c", "G", "T", handle_of(0), 0, 0)
    table.add("c", "G", "T", handle_of(1), 0, 0)
    table.settled("c", "G", str(handle_of(0)))
    table.settled("c", "G", str(handle_of(0)))
    table.settled("other", "G", str(handle_of(1)))
    assert [renewal.handle.queue_offset for renewal in table.take_due(55_000)] == [1]
    assert len(table) == 1


def test_one_that_failed_is_tried_again_until_its_time_is_over() -> None:
    """A second later, as long as the broker would still know it."""
    table = RenewalTable(Limits())
    table.add("c", "G", "T", handle_of(0), 0, 0)
    tries = []
    for now_ms in range(0, 120_000, 1000):
        for renewal in table.take_due(now_ms):
            tries.append(now_ms // 1000)
            table.failed(renewal, now_ms)
    assert tries == list(range(50, 61))
    assert len(table) == 0


def test_the_table_is_bounded() -> None:
    """By client and in all; what is beyond is simply not renewed."""
    table = RenewalTable(Limits(renewals_per_client_max=2, renewals_max=3))
    for client in ("c", "d"):
        for offset in range(5):
            table.add(client, "G", "T", handle_of(offset), 0, 0)
    assert len(table) == 3
    assert [r.handle.queue_offset for r in table.client_gone("c")] == [0, 1]
    assert len(table) == 1
    assert table.client_gone("c") == []


def test_handles_that_come_and_go_leave_nothing_behind() -> None:
    """The schedule stays in proportion to the table: most messages are acknowledged long before they are due."""
    table = RenewalTable(Limits())
    for offset in range(10_000):
        table.add("c", "G", "T", handle_of(offset), 0, 0)
        table.settled("c", "G", str(handle_of(offset)))
    assert len(table) == 0
    assert len(table._due) < 100


async def push(service: MessagingService, cluster: Cluster) -> list[str]:
    """Receive as a push consumer does; the handles."""
    request = v2.ReceiveMessageRequest(
        group=GROUP,
        message_queue=defs.MessageQueue(topic=TOPIC, id=-1, broker=defs.Broker(name="a")),
        batch_size=32,
        auto_renew=True,
    )

    async def handles() -> list[str]:
        parts = service.receive_message(request, context_of(cluster.clock, timeout_s=23))
        return [p.message.system_properties.receipt_handle async for p in parts if p.HasField("message")]

    receiving = asyncio.ensure_future(handles())
    await cluster.clock.run_for(0.0)
    return receiving.result()


async def test_a_slow_handler_keeps_its_message_and_acknowledges_with_the_first_handle() -> None:
    """Seven minutes of work: the message is handed to nobody else, and its original handle is still good."""
    cluster = cluster_of(ManualClock(), "a")
    broker = cluster.brokers["a"]
    broker.store("T", b"long work")
    service = MessagingService(cluster, cluster, clock=cluster.clock, chance=SeededChance(1))
    context = context_of(cluster.clock)
    async with running(service):
        await service.open_telemetry(context, lambda command: None).on_command(consumer(defs.PUSH_CONSUMER))
        (handle,) = await push(service, cluster)
        assert handle.split(" ")[2] == "60000"
        for _ in range(42):
            await cluster.clock.run_for(10.0)
            await service.heartbeat(v2.HeartbeatRequest(group=GROUP, client_type=defs.PUSH_CONSUMER), context)
            assert broker.visible("G") == []
        steps = [request.invisible_time_ms for request in broker.asked(mesh.ExtendInvisibleRequest)]
        assert steps == [MINUTE_MS, 3 * MINUTE_MS, 5 * MINUTE_MS]
        ack = v2.AckMessageRequest(group=GROUP, topic=TOPIC, entries=[v2.AckMessageEntry(receipt_handle=handle)])
        later = context_of(cluster.clock)
        assert (await service.ack_message(ack, later)).status.code == Code.OK
        assert len(service.renewals) == 0


@pytest.mark.parametrize("leaves", [True, False])
async def test_what_a_gone_client_was_working_on_comes_again_soon(leaves: bool) -> None:
    """Whether it says that it leaves or its stream is just lost."""
    cluster = cluster_of(ManualClock(), "a")
    broker = cluster.brokers["a"]
    for _ in range(3):
        broker.store("T", b"x")
    service = MessagingService(cluster, cluster, clock=cluster.clock, chance=SeededChance(1))
    context = context_of(cluster.clock)
    async with running(service):
        session = service.open_telemetry(context, lambda command: None)
        await session.on_command(consumer(defs.PUSH_CONSUMER))
        assert len(await push(service, cluster)) == 3
        if leaves:
            await service.notify_client_termination(v2.NotifyClientTerminationRequest(group=GROUP), context)
        else:
            session.closed()
        await cluster.clock.run_for(8.0)
        assert broker.visible("G") == [0, 1, 2]
        changed = broker.asked(mesh.ChangeInvisibleTimeRequest)
        assert [(change.handle.queue_offset, change.invisible_time_ms) for change in changed] == [
            (0, 1000),
            (1, 1000),
            (2, 1000),
        ]


async def test_a_broker_that_fails_for_some_seconds_costs_nothing() -> None:
    """Renewal begins ten seconds before the end, and is tried again every second."""
    cluster = cluster_of(ManualClock(), "a")
    broker = cluster.brokers["a"]
    broker.store("T", b"x")
    service = MessagingService(cluster, cluster, clock=cluster.clock, chance=SeededChance(1))
    async with running(service):
        context = context_of(cluster.clock)
        await service.open_telemetry(context, lambda command: None).on_command(consumer(defs.PUSH_CONSUMER))
        await push(service, cluster)
        broker.before = refuse(ResponseCode.SYSTEM_BUSY, mesh.ExtendInvisibleRequest)
        await cluster.clock.run_for(55.0)
        broker.before = None
        await cluster.clock.run_for(30.0)
        assert broker.visible("G") == []
