"""Files of the log go although something in them is live: it comes nevertheless, when it should, not lost."""

import asyncio

import pytest
from apogeemq.broker.config import PopConfig, StoreSettings
from apogeemq.broker.core.pop import HandleResult
from apogeemq.broker.service.roll_forward import RollForward
from apogeemq.remoting_codec.bodies import TopicConfig
from apogeemq.store.files import DiskSpace
from apogeemq.store.memory_disk import MemoryDisk

from packages.broker.tests.test_pop import ack, bodies_of, handles_of, let_it_be_over, popped, refuse_to_append
from packages.broker.tests.world import World, send_fields, until

SCHEDULE = "SCHEDULE_TOPIC_XXXX"
SMALL = StoreSettings(commit_log_size_bytes_max=4 * 8192, delete_when="04", clean_resource_interval_ms=1)
"""The log may have four files of 8 KiB: older ones go, whatever their age."""
NO_CHANCE = PopConfig(retry_probability_percent=0)


def make_world(disk: MemoryDisk | None = None, like: World | None = None) -> World:
    clock = None if like is None else like.clock
    world = World(disk, clock=clock, store=SMALL, pop=NO_CHANCE, log_file_size_bytes=8192)
    for name, queues in (("T", 1), ("Filler", 1)):
        world.broker.topics.put(TopicConfig(topic_name=name, read_queue_nums=queues, write_queue_nums=queues))
    world.mark_saved()
    return world


def send(world: World, body: bytes, *, level: int = 0, topic: str = "T") -> None:
    properties = f"DELAY\x01{level}\x02" if level else ""
    assert world.client().request(310, send_fields(topic, 0, properties), body).code == 0


def fill_files(world: World, files: int = 8) -> None:
    """Other messages, until all that was there before lies in files that are to go."""
    for _ in range(files * 8):
        send(world, bytes(1000), topic="Filler")


async def clean(world: World, rounds: int = 40) -> None:
    """Let the store's thread and the broker's tasks have their turns."""
    for _ in range(rounds):
        world.store.flush_once()
        await world.clock.run_for(0.001)


def bodies(world: World, topic: str = "T") -> list[bytes]:
    return [record.body for record in world.records(topic)]


async def test_a_delayed_message_outlives_its_file() -> None:
    """Its copy has the same due time; it is delivered then, once, and not a moment before."""
    async with make_world() as world:
        world.broker.start()
        send(world, b"later", level=5)
        began_ms = world.clock.now_ms()
        fill_files(world)
        await clean(world)
        assert world.store.min_physical_offset >= 4 * 8192
        await world.clock.run_for((began_ms + 59_999 - world.clock.now_ms()) / 1000)
        assert bodies(world) == []
        await world.clock.run_for(0.002)
        assert bodies(world) == [b"later"]
        await world.clock.run_for(200)
        assert bodies(world) == [b"later"]
        assert world.broker.delay.progress[5] == world.store.max_offset(SCHEDULE, 4) == 2


async def test_a_delayed_message_keeps_its_turn() -> None:
    """A copy stands behind messages of its level that are due later, and is delivered before them all the same."""
    async with make_world() as world:
        world.broker.start()
        send(world, b"first", level=5)
        send(world, b"second", level=5)
        await world.clock.run_for(20)
        fill_files(world)
        send(world, b"third", level=5)
        await clean(world)
        await world.clock.run_for(39.98)
        assert bodies(world) == [b"first", b"second"]
        await world.clock.run_for(20)
        assert bodies(world) == [b"first", b"second", b"third"]
        await world.clock.run_for(200)
        assert bodies(world) == [b"first", b"second", b"third"]


async def test_a_delayed_message_outlives_many_files() -> None:
    """It is stored anew again and again, as long as it waits."""
    async with make_world() as world:
        world.broker.start()
        for number in range(5):
            send(world, b"%d" % number, level=14)
        for _ in range(6):
            fill_files(world, 5)
            await clean(world)
        assert world.store.max_offset(SCHEDULE, 13) > 10
        assert bodies(world) == []
        await world.clock.run_for(600)
        assert sorted(bodies(world)) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("is_killed_after", [0.0, 61.0])
async def test_a_delayed_message_outlives_a_kill_too(is_killed_after: float) -> None:
    """After the restart it comes at least once, never early, at most as late again as its level waits."""
    world = make_world()
    await world.broker.popping.restore()
    world.broker.start()
    send(world, b"later", level=5)
    began_ms = world.clock.now_ms()
    fill_files(world)
    await clean(world)
    assert world.store.min_physical_offset >= 4 * 8192
    await world.clock.run_for(is_killed_after)
    before = len(bodies(world))
    await world.kill()
    async with make_world(world.disk, like=world) as again:
        again.broker.start()
        await again.clock.run_for(120)
        copies = again.records("T")
        assert {record.body for record in copies} == {b"later"}
        assert before <= len(copies) <= 2
        assert all(record.store_timestamp_ms >= began_ms + 60_000 for record in copies)


async def test_a_delayed_message_that_cannot_be_read_does_not_hold_the_file() -> None:
    """It is counted and told as lost; nothing could have delivered it either."""
    async with make_world() as world:
        send(world, b"later", level=5)
        world.damage(0)
        world.broker.start()
        fill_files(world)
        await clean(world)
        assert world.store.min_physical_offset >= 4 * 8192
        assert world.broker.delay.undeliverable == 1


async def test_a_popped_message_comes_again_before_its_file_goes() -> None:
    """Un-acknowledged, it goes to the retry topic early, and only once: whoever has it in hand may see it twice."""
    async with make_world() as world:
        send(world, b"in hand")
        send(world, b"acknowledged")
        found = popped(world)
        in_hand, acknowledged = handles_of(found)
        assert ack(world, acknowledged) == [HandleResult.OK]
        world.broker.start()
        fill_files(world)
        await clean(world)
        assert world.store.min_physical_offset >= 4 * 8192
        assert bodies(world, "%RETRY%G_T") == [b"in hand"]
        assert ack(world, in_hand) == [HandleResult.OK]  # taken, and without effect on the copy
        await let_it_be_over(world)
        assert bodies(world, "%RETRY%G_T") == [b"in hand"]
        assert bodies_of(popped(world)) == [b"in hand"]


async def test_pops_of_files_that_stay_are_left_alone() -> None:
    """What is popped from the newest files stays invisible for its time."""
    async with make_world() as world:
        world.broker.start()
        fill_files(world)
        send(world, b"in hand")
        (handle,) = handles_of(popped(world))
        await clean(world)
        assert world.store.min_physical_offset > 0
        assert ack(world, handle) == [HandleResult.OK]


async def test_the_revive_log_is_read_again_after_its_beginning_is_gone() -> None:
    """A restart finds what is popped now, though the group's position points into files that are gone."""
    world = make_world()
    await world.broker.popping.restore()
    world.broker.start()
    for _ in range(6):
        send(world, b"old")
        assert ack(world, *handles_of(popped(world))) == [HandleResult.OK]
        fill_files(world, 3)
        await clean(world)
    send(world, b"in hand")
    (handle,) = handles_of(popped(world))
    world.store.flush()
    await world.kill()
    async with make_world(world.disk, like=world) as again:
        assert again.store.min_physical_offset > 8 * 8192
        assert len(again.broker.popping.log.table) == 1
        assert ack(again, handle) == [HandleResult.OK]


async def test_rolling_forward_works_on_a_disk_that_refuses_sends() -> None:
    """Else the file that has to make room could never go."""
    async with make_world() as world:
        world.broker.start()
        send(world, b"later", level=5)
        fill_files(world, 3)
        world.disk.space = lambda path: DiskSpace(100 << 30, 5 << 30)  # type: ignore[method-assign]  # others fill it
        world.store.flush_once()
        assert world.client().request(310, send_fields(), b"refused").code == 14
        await clean(world)
        assert world.store.min_physical_offset >= 2 * 8192
        assert world.store.max_offset(SCHEDULE, 4) == 2
        assert world.client().request(310, send_fields(), b"refused").code == 14


async def test_a_file_stays_while_nothing_can_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store asks again; once storing works the file goes."""
    async with make_world() as world:
        world.broker.start()
        send(world, b"later", level=5)
        fill_files(world)
        with monkeypatch.context() as patch:
            patch.setattr(world.store, "append", refuse_to_append)
            await clean(world)
            assert world.store.min_physical_offset == 0
        await clean(world)
        assert world.store.min_physical_offset >= 4 * 8192
        assert world.store.max_offset(SCHEDULE, 4) == 2


async def test_after_the_stop_the_store_is_not_answered() -> None:
    """Its thread may ask until it is closed; the loop may be gone by then."""
    world = make_world()
    await world.broker.popping.restore()
    world.broker.start()
    await world.broker.stop()
    assert not world.broker.roll_forward.hook(8192)
    world.store.close()


async def test_a_defect_does_not_keep_files_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    """What nobody expected is logged with its trace, and the next question gets another try."""
    asked: list[int] = []

    async def roller(physical_offset: int) -> None:
        asked.append(physical_offset)
        if len(asked) == 1:
            raise ValueError("a defect")

    rolling = RollForward([roller])
    task = asyncio.create_task(rolling.run())
    assert not rolling.hook(8192)
    await until(lambda: len(asked) == 1)
    assert "anew failed" in caplog.text
    assert not rolling.hook(8192)
    await until(lambda: rolling.hook(8192))
    assert asked == [8192, 8192]
    task.cancel()


def test_a_loop_that_is_gone_keeps_the_file() -> None:
    """The store's thread may ask between the broker's stop and its own."""

    async def make() -> RollForward:
        return RollForward([])

    assert not asyncio.run(make()).hook(8192)
