"""Timers on a slave: what waits there is what its master would deliver, by the confirmed log alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from apogeemq.broker.service.log_reads import LogReads
from apogeemq.broker.service.timer_intake import TimerIntake
from apogeemq.store.message_store import AppendResult

from packages.broker.tests.replicas import HOST, SetBroker, SetWorld

WHEEL = "rmq_sys_wheel_timer"


@pytest.fixture
async def world() -> AsyncIterator[SetWorld]:
    world = SetWorld()
    yield world
    await world.close()


async def two(world: SetWorld) -> tuple[SetBroker, SetBroker]:
    """A master of epoch 1 with a slave in its set that copies."""
    master, slave = [await world.broker(number) for number in (1, 2)]
    await master.lead(1, {1, 2})
    slave.follow(master, 1)
    await world.run()
    return master, slave


def intake(broker: SetBroker) -> TimerIntake:
    return TimerIntake(broker.store, LogReads(broker.store, 1 << 20))


def store(master: SetBroker, topic: str, **properties: object) -> AppendResult:
    text = "".join(f"{key}\x01{value}\x02" for key, value in properties.items()).encode()
    result = master.store.append(topic, 0, 0, 0, 1, HOST, 0, 0, b"body", text, 0)
    assert master.leading is not None
    master.leading.written()
    return result


def wait(master: SetBroker, key: str, deliver_ms: int, **properties: object) -> int:
    """A message that waits; gives its record's offset."""
    out_ms = (deliver_ms - 1) // 1000 * 1000
    told = {"TIMER_OUT_MS": out_ms, "APOGEEMQ_DUE_MS": deliver_ms, "REAL_TOPIC": "T", "REAL_QID": 0, "UNIQ_KEY": key}
    return store(master, WHEEL, **told, **properties).physical_offset


def pending(broker: SetBroker) -> list[int]:
    return [entry.physical_offset for entry in broker.store.timer.live_before(broker.store.written_offset)]


async def test_a_slave_knows_what_waits_and_what_was_delivered(world: SetWorld) -> None:
    """Each record of the timer queue waits, until its copy comes, it is taken back, or stored anew."""
    master, slave = await two(world)
    first, second, third, fourth = [wait(master, key, 1_700_000_100_000) for key in "ABCD"]
    await world.run(1)
    following = intake(slave)
    await following.catch_up()
    assert pending(slave) == [first, second, third, fourth]
    store(master, "T", UNIQ_KEY="B", APOGEEMQ_TIMER_OFFSET=second)
    wait(master, "R", 1_700_000_100_000, TIMER_DEL_UNIQKEY="T+C")
    anew = wait(master, "D", 1_700_000_100_000, APOGEEMQ_TIMER_OFFSET=fourth)
    await world.run(1)
    await following.catch_up()
    assert pending(slave) == [first, anew]
    assert slave.store.timer.copies_offset == slave.store.confirm_offset == slave.store.written_offset


async def test_a_copy_that_is_not_confirmed_settles_nothing(world: SetWorld) -> None:
    """It may be cut off, and then nobody would deliver the message."""
    master, slave = await two(world)
    first = wait(master, "A", 1_700_000_100_000)
    await world.run(1)
    confirmed = slave.store.confirm_offset
    world.network.cut(master.address, origin="host-2")
    store(master, "T", UNIQ_KEY="A", APOGEEMQ_TIMER_OFFSET=first)
    assert master.log.confirm_offset == confirmed < master.log.end_offset
    leading = intake(master)
    await leading.catch_up()
    assert pending(master) == [first]
    assert master.store.timer.copies_offset == confirmed
    await slave.lead(2, {2})
    await master.stop_leading()
    master.follow(slave, 2)
    world.network.heal(master.address)
    await world.run(2)
    assert master.held() == slave.held()
    await leading.catch_up()
    await intake(slave).catch_up()
    assert pending(master) == pending(slave) == [first]


async def test_a_slave_that_starts_anew_goes_on_where_it_was(world: SetWorld) -> None:
    """What it knew is on its disk; what came meanwhile it reads."""
    master, slave = await two(world)
    first = wait(master, "A", 1_700_000_100_000)
    second = wait(master, "B", 1_700_000_100_000)
    await world.run(1)
    await intake(slave).catch_up()
    await slave.stop()
    store(master, "T", UNIQ_KEY="A", APOGEEMQ_TIMER_OFFSET=first)
    third = wait(master, "C", 1_700_000_100_000)
    await slave.start()
    slave.follow(master, 1)
    await world.run(1)
    await intake(slave).catch_up()
    assert pending(slave) == [second, third]
