"""Delayed messages come due: never early, in order, and again after a crash rather than not at all."""

import errno
import itertools
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from apogeemq.broker.config import StoreSettings
from apogeemq.broker.service.delay import DELIVERIES_PER_TURN_MAX
from apogeemq.mesh.clock import ManualClock
from apogeemq.remoting_codec.bodies import TopicConfig
from apogeemq.remoting_codec.message import PROPERTIES_SIZE_BYTES_MAX
from apogeemq.store.errors import DiskFull
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.memory_disk import MemoryDisk

from packages.broker.tests.test_send_back import send_back
from packages.broker.tests.world import Client, World, bodies_of, properties_of, pull_fields, send_fields, until

SCHEDULE = "SCHEDULE_TOPIC_XXXX"
LEVELS_S = (1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        world.create_topic()
        world.create_topic("%RETRY%G")
        world.start_deliveries()
        yield world


def send(client: Client, level: int, body: bytes = b"body", *, topic: str = "T", more: str = "") -> None:
    reply = client.request(310, send_fields(topic, 0, f"{more}DELAY\x01{level}\x02"), body)
    assert reply.code == 0, reply


def bodies(world: World, topic: str = "T", queue_id: int = 0) -> list[bytes]:
    return [record.body for record in world.records(topic, queue_id)]


@pytest.mark.parametrize("level", range(1, 19))
async def test_a_message_comes_when_its_level_is_over_and_never_early(world: World, level: int) -> None:
    """Not a millisecond before; then within the same one."""
    delay_s = LEVELS_S[level - 1]
    send(world.client(), level)
    await world.clock.run_for(delay_s - 0.001)
    assert bodies(world) == []
    await world.clock.run_for(0.001)
    (record,) = world.records("T")
    (waited,) = world.records(SCHEDULE, level - 1)
    assert record.store_timestamp_ms - waited.store_timestamp_ms == delay_s * 1000


async def test_the_delivered_copy_is_the_message(world: World) -> None:
    """Body, flags, times and host of the client; all properties stay and only WAIT changes, as recorded from Apache."""
    fields = send_fields("T", 3, "KEYS\x01k\x02TAGS\x01TagA\x02DELAY\x011\x02UNIQ_KEY\x01K\x02", h="7", f="1", j="2")
    assert world.client(4_711).request(310, fields, b"body").code == 0
    await world.clock.run_for(1)
    waited, record = world.record(SCHEDULE), world.record("T", 3)
    assert (record.body, record.flag, record.sys_flag, record.reconsume_times) == (b"body", 7, 1, 2)
    assert record.born_host == b"\x0a\x00\x00\x09" + (4_711).to_bytes(4, "big")
    assert record.born_timestamp_ms == 1795356276399
    assert properties_of(record) == properties_of(waited)
    assert properties_of(record)["REAL_TOPIC"] == "T"
    unit = world.store.queue_unit("T", 3, 0)
    assert unit is not None
    assert unit[2] == 2598919, "the hash of TagA, no longer a due time"


async def test_each_level_is_delivered_in_its_order(world: World) -> None:
    """First in, first out; levels do not wait for each other."""
    client = world.client()
    for number in range(250):
        send(client, 2, b"slow %d" % number)
    for number in range(3):
        send(client, 1, b"quick %d" % number)
    await world.clock.run_for(1)
    assert bodies(world) == [b"quick %d" % number for number in range(3)]
    await world.clock.run_for(4)
    assert bodies(world)[3:] == [b"slow %d" % number for number in range(250)]
    assert (world.broker.delay.progress[1], world.broker.delay.progress[2]) == (3, 250)


async def test_a_long_backlog_leaves_the_loop_to_others(world: World) -> None:
    """After a bounded number of deliveries everybody else has a turn."""
    client = world.client()
    for _ in range(3 * DELIVERIES_PER_TURN_MAX):
        send(client, 1)
    world.clock.advance(1)
    steps: list[int] = []

    def is_done() -> bool:
        steps.append(world.store.max_offset("T", 0))
        return steps[-1] == 3 * DELIVERIES_PER_TURN_MAX

    await until(is_done)
    assert max(after - before for before, after in itertools.pairwise(steps)) == DELIVERIES_PER_TURN_MAX


async def test_a_message_that_arrives_while_nothing_waits_is_noticed(world: World) -> None:
    """The service sleeps for long when it is idle; an arrival wakes it."""
    await world.clock.run_for(1_000)
    send(world.client(), 1)
    await world.clock.run_for(1)
    assert bodies(world) == [b"body"]


async def test_a_held_pull_gets_what_comes_due(world: World) -> None:
    """A delivered message wakes whoever waits for its queue, as any other does."""
    client = world.client()
    held = client.send(11, pull_fields(sysFlag="6", suspendTimeoutMillis="20000"))
    send(client, 1)
    await world.clock.run_for(1)
    assert bodies_of(client.reply(held)) == [b"body"]


async def test_after_the_clock_was_set_back_nothing_is_early_and_nothing_waits_for_years() -> None:
    """A due time further off than the level waits can't be right: the level's own time counts, from when it is seen."""
    disk = MemoryDisk()
    ahead = World(disk, clock=ManualClock(start_ms=2_000_000_000_000))
    await ahead.save_topic()
    client = ahead.client()
    for number in range(150):
        send(client, 2, b"%d" % number)
    await ahead.stop()
    async with World(disk, clock=ManualClock(start_ms=1_000_000_000_000)) as world:
        world.start_deliveries()
        await world.clock.run_for(2)
        send(world.client(), 2, b"later")
        await world.clock.run_for(2.9)
        assert bodies(world) == []
        await world.clock.run_for(0.1)
        assert bodies(world) == [b"%d" % number for number in range(150)]
        await world.clock.run_for(1.9)
        assert bodies(world)[150:] == []
        await world.clock.run_for(0.1)
        assert bodies(world)[150:] == [b"later"]


# -- what can't be delivered -------------------------------------------------------------------------------------------


async def test_a_topic_that_is_gone_costs_one_message(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted and told with its place in the log; those behind it come."""
    client = world.client()
    world.create_topic("Gone")
    send(client, 1, topic="Gone")
    send(client, 1)
    del world.broker.topics._topics["Gone"]
    await world.clock.run_for(1)
    assert bodies(world) == [b"body"]
    assert world.broker.delay.undeliverable == 1
    assert "the delayed message at physical offset 0 can't be delivered: its topic Gone does not exist" in caplog.text


async def test_a_retry_topic_that_is_gone_is_made_again(world: World) -> None:
    """A failed message is never lost for want of it."""
    world.broker.groups.find_or_create("G")
    send(world.client(), 1, topic="%RETRY%G")
    del world.broker.topics._topics["%RETRY%G"]
    await world.clock.run_for(1)
    assert bodies(world, "%RETRY%G") == [b"body"]


@pytest.mark.parametrize(
    "properties",
    [
        "",
        "REAL_TOPIC\x01T\x02",
        "REAL_QID\x010\x02",
        "REAL_TOPIC\x01T\x02REAL_QID\x01-1\x02",
        "REAL_TOPIC\x01T\x02REAL_QID\x0199999999999\x02",
        "REAL_TOPIC\x01%RETRY%a b\x02REAL_QID\x010\x02",
    ],
)
async def test_a_record_that_names_no_place_costs_only_itself(world: World, properties: str) -> None:
    """Whatever a store directory from elsewhere holds, the level goes on."""
    due_ms = world.clock.now_ms() + 1_000
    host = b"\x0a\x00\x00\x09\x00\x00\x00\x01"
    world.store.append(SCHEDULE, 0, 0, 0, 1, host, 0, 0, b"odd", properties.encode(), due_ms)
    send(world.client(), 1)
    await world.clock.run_for(1)
    assert bodies(world) == [b"body"]
    assert world.broker.delay.undeliverable == 1
    assert world.broker.failed_task() is None


async def test_a_damaged_message_is_not_delivered(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A copy of it would have a CRC that fits the damage."""
    client = world.client()
    send(client, 1, b"damaged")
    send(client, 1)
    world.damage(world.records(SCHEDULE)[0].physical_offset)
    await world.clock.run_for(1)
    assert bodies(world) == [b"body"]
    assert world.broker.delay.undeliverable == 1
    assert "CRC" in caplog.text


async def test_a_message_whose_record_is_gone_costs_only_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its file of the log was deleted while it waited."""
    client = world.client()
    send(client, 1, b"gone")
    send(client, 1)
    record_at = world.store.record_at
    monkeypatch.setattr(world.store, "record_at", lambda offset: record_at(offset) if offset else None)
    await world.clock.run_for(1)
    assert world.store.max_offset("T", 0) == world.broker.delay.undeliverable == 1


@pytest.mark.parametrize("value", ["a\x01b", "\x01"])
async def test_a_separator_in_a_value_does_no_harm(world: World, value: str) -> None:
    """A client may send it, readers of properties take it: it must not end the deliveries."""
    client = world.client()
    send(client, 1, more=f"odd\x01{value}\x02")
    send(client, 1)
    await world.clock.run_for(1)
    assert len(bodies(world)) == 2
    assert properties_of(world.records("T")[0])["odd"] == value
    assert world.broker.failed_task() is None


async def test_properties_near_their_limit_are_delivered(world: World) -> None:
    """There may be no room to turn WAIT off; the message comes all the same, and blocks nobody."""
    client = world.client()
    wait = "WAIT\x01true\x02"
    send(client, 1, more=wait)
    own_bytes = len(world.record(SCHEDULE).properties)
    for missing in (0, 1):
        large = "y" * (PROPERTIES_SIZE_BYTES_MAX - own_bytes - 3 - missing)
        send(client, 1, b"large", more=f"{wait}x\x01{large}\x02")
    await world.clock.run_for(1)
    assert bodies(world) == [b"body", b"large", b"large"]
    assert [properties_of(record)["WAIT"] for record in world.records("T")] == ["false", "true", "false"]


async def test_a_store_that_takes_nothing_makes_messages_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is lost or given up: they come when it takes writes again."""
    send(world.client(), 1)
    append = world.store.append

    def refuse(*_: object) -> None:
        raise DiskFull(Path("/store/commitlog"))

    monkeypatch.setattr(world.store, "append", refuse)
    await world.clock.run_for(10)
    assert bodies(world) == []
    monkeypatch.setattr(world.store, "append", append)
    await world.clock.run_for(1)
    assert bodies(world) == [b"body"]
    assert world.broker.delay.undeliverable == 0


async def test_a_store_that_failed_ends_nothing() -> None:
    """Deliveries stop with the store; the task does not end."""
    disk = FaultyDisk(Random(1))
    world = World(disk)
    world.create_topic()
    world.start_deliveries()
    send(world.client(), 1)
    disk.fail("sync", errno.EIO, path_part="commitlog")
    world.store.flush_once()
    await world.clock.run_for(10)
    assert bodies(world) == []
    assert world.broker.failed_task() is None
    await world.kill()


# -- crashes and restarts ----------------------------------------------------------------------------------------------


async def test_after_an_orderly_stop_nothing_comes_twice() -> None:
    """Progress is saved; what was not due waits on with its own time."""
    disk, clock = MemoryDisk(), ManualClock()
    async with World(disk, clock=clock) as world:
        await world.save_topic()
        world.start_deliveries()
        client = world.client()
        send(client, 1, b"first")
        send(client, 2, b"second")
        await clock.run_for(1)
        assert bodies(world) == [b"first"]
    async with World(disk, clock=clock) as world:
        world.start_deliveries()
        await clock.run_for(3.999)
        assert bodies(world) == [b"first"]
        await clock.run_for(0.001)
        assert bodies(world) == [b"first", b"second"]


async def test_after_a_kill_everything_comes_at_least_once() -> None:
    """Progress of the last second may be lost: messages come again, in their order, and none is missing."""
    disk, clock = MemoryDisk(), ManualClock()
    world = World(disk, clock=clock)
    await world.save_topic()
    world.start_deliveries()
    client = world.client()
    for number in range(5):
        send(client, 1, b"%d" % number)
        await clock.run_for(0.3)
    assert 0 < len(bodies(world)) < 5
    await world.kill()
    async with World(disk, clock=clock) as world:
        world.start_deliveries()
        await clock.run_for(2)
        assert set(bodies(world)) == {b"%d" % number for number in range(5)}
        assert bodies(world)[-5:] == [b"%d" % number for number in range(5)]


class TickingClock(ManualClock):
    """Each look at the wall clock finds it a millisecond later, or set back by an hour."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.set_back_ms = 0

    def now_ms(self) -> int:
        self.looks += 1
        return super().now_ms() + self.looks - self.set_back_ms


async def test_due_times_are_the_same_when_queues_are_built_anew() -> None:
    """They follow from the records, whatever the clock did meanwhile: of delays, retries, and what was stored anew."""
    clock = TickingClock()
    world = World(clock=clock)
    await world.save_topic()
    world.broker.groups.find_or_create("G")
    client = world.client()
    for set_back_ms in (0, 3_600_000, 5):
        clock.set_back_ms = set_back_ms
        send(client, 5, b"delayed")
        send_back(world, world.records(SCHEDULE, 4)[0], delay_level=5)
    await world.broker.delay.roll_forward(world.store.written_offset)
    before = units(world, SCHEDULE, 4)
    await world.kill()
    for path in [path for path in world.disk.files if "consumequeue" in path.parts]:
        world.disk.remove(path)
    async with World(world.disk, clock=clock) as again:
        assert units(again, SCHEDULE, 4) == before
    assert len(before) == 12
    assert [unit[2] for unit in before[6:]] == [unit[2] for unit in before[:6]]


async def test_what_was_stored_anew_is_not_passed_over_before_it_is_confirmed() -> None:
    """It is due, and no replica has it yet: it waits for that, and comes."""
    async with World() as world:
        world.create_topic()
        send(world.client(), 1)
        world.store.confirm_offset = world.store.written_offset
        await world.broker.delay.roll_forward(world.store.written_offset)
        world.broker.start()
        await world.clock.run_for(5)
        world.store.confirm_offset = world.store.written_offset
        await world.clock.run_for(0.2)
        world.store.confirm_offset = world.store.written_offset
        assert len(world.records("T")) == 1


def units(world: World, topic: str, queue_id: int) -> list[tuple[int, int, int]]:
    """(physical offset, size, tags code) of all messages of a queue."""
    found = [
        world.store.queue_unit(topic, queue_id, offset) for offset in range(world.store.max_offset(topic, queue_id))
    ]
    return [unit for unit in found if unit is not None]


async def test_a_client_cannot_name_its_due_time(world: World) -> None:
    """The property by which a broker keeps the time of what it stores anew is none of theirs, and nobody sees it."""
    send(world.client(), 1, more="APOGEEMQ_DUE_MS\x015\x02")
    await world.clock.run_for(0.999)
    assert bodies(world) == []
    await world.clock.run_for(0.001)
    assert "APOGEEMQ_DUE_MS" not in properties_of(world.record("T"))


async def test_progress_ahead_of_the_queue_is_cut_back_and_said() -> None:
    """As after a power loss with files from a broker that flushed less carefully: nothing new is skipped."""
    disk, clock = MemoryDisk(), ManualClock()
    async with World(disk, clock=clock) as world:
        await world.save_topic()
        send(world.client(), 1)
        world.broker.delay.progress[1] = 99
        world.broker.delay.changed.add(1)
    async with World(disk, clock=clock) as world:
        assert world.broker.delay.progress[1] == 1
        assert world.broker.delay.changed == {1}
        assert world.broker.delay.progress[2] == 0


async def test_old_messages_are_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies outside the hot window may have to be fetched from the disk, which the event loop does not wait for."""
    async with World(store=StoreSettings(hot_window_bytes=1)) as world:
        world.create_topic()
        world.start_deliveries()
        client = world.client()
        send(client, 1, b"old")
        client.request(310, send_fields("T", 1), b"younger")
        threads: list[str] = []
        record_at = world.store.record_at

        def told(physical_offset: int) -> bytes | None:
            threads.append(threading.current_thread().name)
            return record_at(physical_offset)

        monkeypatch.setattr(world.store, "record_at", told)
        world.clock.advance(1)
        await until(lambda: world.store.max_offset("T", 0) == 1)
        assert bodies(world) == [b"old"]
        assert threads[0] != threading.main_thread().name


async def test_levels_can_be_configured() -> None:
    """messageDelayLevel; the topic has a queue for each."""
    async with World(store=StoreSettings(message_delay_level="2s 1d")) as world:
        world.create_topic()
        world.start_deliveries()
        send(world.client(), 1)
        send(world.client(), 9, b"last")
        await world.clock.run_for(2)
        assert bodies(world) == [b"body"]
        await world.clock.run_for(86_398)
        assert bodies(world) == [b"body", b"last"]
        assert world.broker.topics.require(SCHEDULE).config == TopicConfig(
            topic_name=SCHEDULE, read_queue_nums=2, write_queue_nums=2
        )
