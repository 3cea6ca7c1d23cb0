"""What comes again, when, where, and after how many times no more; what a restart knows of it."""

import asyncio
import json

import pytest
from apogeemq.broker.config import LimitsConfig, StoreSettings
from apogeemq.broker.core.names import REVIVE_GROUP
from apogeemq.broker.core.pop import HandleResult, Popped
from apogeemq.broker.service.pop import NothingPopped
from apogeemq.mesh.clock import ManualClock
from apogeemq.remoting_codec.bodies import SubscriptionGroupConfig
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.store.errors import NotWritable
from apogeemq.store.memory_disk import MemoryDisk

from packages.broker.tests.test_pop import (
    NORMAL_ONLY,
    ack,
    bodies_of,
    handles_of,
    let_it_be_over,
    pop,
    popped,
    refuse_to_append,
    request,
    send,
)
from packages.broker.tests.world import World, properties_of

REVIVE_TOPIC = "rmq_sys_REVIVE_LOG_DefaultCluster"


def revive_records(world: World) -> list[tuple[str, dict[str, object]]]:
    """Tag and body of all records of the revive log, queue by queue."""
    return [
        (decode_properties(record.properties)["TAGS"], json.loads(record.body))
        for queue_id in world.broker.popping.log.queue_ids
        for record in world.records(REVIVE_TOPIC, queue_id)
    ]


async def restart(world: World) -> World:
    """The process is killed; another one opens the same directory."""
    await world.kill()
    again = World(world.disk, clock=world.clock, pop=world.config.pop, store=world.config.store)
    await again.broker.popping.restore()
    return again


# -- what comes again --------------------------------------------------------------------------------------------------


async def test_the_copy_says_where_it_came_from() -> None:
    """Retry topic queue 0, one more failure, first pop time and origin in properties, the body as it was."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 4)
        send(world, b"body", queue_id=3, tag="A")
        original = world.record("T", 3)
        first = popped(world)
        await let_it_be_over(world)
        copy = world.record("%RETRY%G_T")
        assert (copy.queue_id, copy.body, copy.reconsume_times) == (0, b"body", 1)
        assert (copy.born_timestamp_ms, copy.born_host, copy.flag) == (
            original.born_timestamp_ms,
            original.born_host,
            original.flag,
        )
        properties = properties_of(copy)
        assert properties["RETRY_TOPIC"] == "T"
        assert properties["ORIGIN_MESSAGE_ID"] == f"7F00000100002A9F{original.physical_offset:016X}"
        assert properties["1ST_POP_TIME"] == str(first.pop_time_ms)
        assert properties["UNIQ_KEY"] == properties_of(original)["UNIQ_KEY"]
        popped(world)
        await let_it_be_over(world)
        again = world.records("%RETRY%G_T")[1]
        assert again.reconsume_times == 2
        assert properties_of(again) == properties, "of its first pop, and its first place"
        assert world.broker.popping.revive.revived == {("G", "T"): 1, ("G", "%RETRY%G_T"): 1}


async def test_retry_max_times_2_gives_three_deliveries() -> None:
    """Then the group's DLQ, counted as a dead letter (client_demands.md)."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        world.broker.groups._put_all([SubscriptionGroupConfig(group_name="G", retry_max_times=2)])
        send(world, b"a")
        for _ in range(3):
            assert bodies_of(popped(world)) == [b"a"]
            await let_it_be_over(world)
        assert isinstance(pop(world), NothingPopped)
        dead = world.record("%DLQ%G")
        assert (dead.body, dead.reconsume_times) == (b"a", 3)
        assert properties_of(dead)["DLQ_ORIGIN_TOPIC"] == "T"
        reason = "not acknowledged within 20000 ms of delivery 3; the maximum is 2 retries"
        assert properties_of(dead)["APOGEEMQ_FAILURE_REASON"] == reason
        assert world.broker.dead_letters == {("G", "T"): 1}
        await let_it_be_over(world, 1_000)
        assert len(world.records("%RETRY%G_T")) == 2


async def test_it_comes_at_its_time_and_not_before() -> None:
    """The task sleeps until then, and is woken for an earlier one."""
    clock = ManualClock()
    async with World(clock=clock, pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"long", b"short")
        task = world.broker.popping.start()
        await clock.run_for(0.1)
        popped(world, request(count_max=1, invisible_time_ms=2_000))
        popped(world, request(count_max=1, invisible_time_ms=1_050))
        await clock.run_for(1.049)
        assert world.store.max_offset("%RETRY%G_T", 0) == 0
        await clock.run_for(0.001)
        assert [record.body for record in world.records("%RETRY%G_T")] == [b"short"]
        await clock.run_for(1)
        assert [record.body for record in world.records("%RETRY%G_T")] == [b"short", b"long"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_store_that_takes_nothing_is_tried_again() -> None:
    """Nothing is lost meanwhile, nothing is copied twice."""
    clock = ManualClock()
    async with World(clock=clock, pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a", b"b")
        popped(world)
        task = world.broker.popping.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.store, "append", refuse_to_append)
            await clock.run_for(25)
            assert len(world.broker.popping.log.table) == 2
            assert not task.done()
        await clock.run_for(1)
        assert [record.body for record in world.records("%RETRY%G_T")] == [b"a", b"b"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_acks_that_cannot_be_written_fail_and_may_be_repeated() -> None:
    """The message is still the consumer's."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a")
        (handle,) = handles_of(popped(world))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.store, "append", refuse_to_append)
            with pytest.raises(NotWritable):
                ack(world, handle)
        assert ack(world, handle) == [HandleResult.OK]
        assert len(world.broker.popping.log.table) == 0


async def test_one_group_that_is_stuck_does_not_hold_the_others() -> None:
    """Its retry topic can't be made: there are as many topics as may be."""
    async with World(pop=NORMAL_ONLY, limits=LimitsConfig(topics_max=15)) as world:
        world.create_topic("T", 1)
        world.broker.popping.revive._retry_topic("%RETRY%H_T")
        send(world, b"a")
        popped(world)
        popped(world, request(group="H"))
        world.broker.topics.topics_max = len(world.broker.topics)
        await let_it_be_over(world)
        assert [record.body for record in world.records("%RETRY%H_T")] == [b"a"]
        world.broker.topics.topics_max += 1
        await let_it_be_over(world, 1)
        assert [record.body for record in world.records("%RETRY%G_T")] == [b"a"]


async def test_old_messages_are_brought_back_from_the_disk() -> None:
    """Read in a thread, outside the hot window."""
    async with World(pop=NORMAL_ONLY, store=StoreSettings(hot_window_bytes=1)) as world:
        world.create_topic("T", 1)
        send(world, b"a")
        popped(world)
        await let_it_be_over(world)
        assert world.record("%RETRY%G_T").body == b"a"


async def test_a_damaged_message_is_told_and_given_up() -> None:
    """The others of its pop come again."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"first", b"second")
        popped(world)
        unit = world.store.queue_unit("T", 0, 0)
        assert unit is not None
        world.damage(unit[0])
        await let_it_be_over(world)
        assert [record.body for record in world.records("%RETRY%G_T")] == [b"second"]
        assert world.broker.popping.revive.unreadable == 1
        assert len(world.broker.popping.log.table) == 0


# -- what is written down ----------------------------------------------------------------------------------------------


async def test_records_are_written_as_apaches_broker_does() -> None:
    """ck for a pop, bAck for several messages of it, ack for one, ck then ack for a new time."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a", b"b", b"c", b"d")
        first, second, third, fourth = handles_of(popped(world))
        now_ms = first.pop_time_ms
        ack(world, first, second)
        ack(world, third)
        changed = world.broker.popping.service.change_invisible("G", "T", fourth, 7_000)
        common = {"t": "T", "c": "G", "q": 0, "so": 0, "pt": now_ms, "bn": "broker-a"}
        more = {"bm": 0, "ro": 0}
        assert revive_records(world) == [
            ("ck", {**common, **more, "it": 20_000, "n": 4, "d": [0, 1, 2, 3]}),
            ("bAck", {**common, "ao": 0, "aol": [0, 1]}),
            ("ack", {**common, "ao": 2}),
            ("ck", {**common, **more, "so": 3, "pt": changed.pop_time_ms, "it": 7_000, "n": 1, "d": [0]}),
            ("ack", {**common, "ao": 3}),
        ]


async def test_records_say_when_they_came() -> None:
    """Apache's broker takes TIMER_DELIVER_MS for how far it has come, and without one would revive nothing."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a")
        handle = handles_of(popped(world))[0]
        popped_ms = world.clock.now_ms()
        world.clock.advance(5)
        ack(world, handle)
        records = world.records(REVIVE_TOPIC, 0)
        assert [decode_properties(record.properties)["TIMER_DELIVER_MS"] for record in records] == [
            str(popped_ms),
            str(popped_ms + 5_000),
        ]


async def test_more_time_is_a_longer_checkpoint_of_the_same_pop() -> None:
    """Same pop time, longer invisible time; no ack, since the handle lives on."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a", b"b", b"c")
        handles = handles_of(popped(world))
        world.clock.advance(10)
        world.broker.popping.service.extend("G", "T", handles[1:], 30_000)
        tag, body = revive_records(world)[1]
        assert (tag, body["so"], body["d"], body["pt"], body["it"], body["n"]) == (
            "ck",
            1,
            [0, 1],
            handles[0].pop_time_ms,
            40_000,
            2,
        )


async def test_the_revive_group_stands_before_the_oldest_record_that_is_needed() -> None:
    """Its offset is that of the last settled record, as Apache's broker reads it; a stop notes it."""
    world = World(pop=NORMAL_ONLY)
    await world.broker.popping.restore()
    world.create_topic("T", 1)
    send(world, *[b"%d" % number for number in range(9)])
    nine = [handles_of(popped(world, request(count_max=1)))[0] for _ in range(9)]
    revive, offsets = world.broker.popping.revive, world.broker.offsets
    revive.commit_progress()
    assert offsets.query(REVIVE_TOPIC, REVIVE_GROUP, 0) is None, "nothing is settled"
    ack(world, nine[0])
    revive.commit_progress()
    assert offsets.query(REVIVE_TOPIC, REVIVE_GROUP, 0) == 0, "before the ninth pop's checkpoint"
    ack(world, nine[8])
    await world.stop()
    assert offsets.query(REVIVE_TOPIC, REVIVE_GROUP, 0) == 3
    assert offsets.query(REVIVE_TOPIC, REVIVE_GROUP, 1) is None


# -- the start ---------------------------------------------------------------------------------------------------------


async def test_a_restart_knows_who_has_what() -> None:
    """Handles of before acknowledge; nothing is handed out a second time; the rest comes at its time."""
    world = World(MemoryDisk(), pop=NORMAL_ONLY)
    await world.broker.popping.restore()
    await world.save_topic("T", 2)
    send(world, b"a", b"b", queue_id=0)
    send(world, b"c", b"d", queue_id=1)
    handles = handles_of(popped(world))
    ack(world, handles[0])
    world.broker.popping.service.extend("G", "T", [handles[1]], 60_000)
    changed = world.broker.popping.service.change_invisible("G", "T", handles[2], 30_000)
    again = await restart(world)
    assert not bodies_or_nothing(again)
    again.clock.advance(25)
    new = handles[2]._replace(pop_time_ms=changed.pop_time_ms, invisible_time_ms=30_000)
    assert ack(again, handles[1], handles[2], new, handles[3]) == [
        HandleResult.OK,
        HandleResult.EXPIRED,
        HandleResult.OK,
        HandleResult.EXPIRED,
    ]
    await let_it_be_over(again, 100)
    assert bodies_or_nothing(again) == [b"d"]
    await again.stop()


def bodies_or_nothing(world: World) -> list[bytes]:
    found = pop(world)
    return bodies_of(found) if isinstance(found, Popped) else []


async def test_what_was_brought_back_before_a_crash_is_not_brought_back_again() -> None:
    """Its acks are in the log behind the copies; its retry topic is known though no file names it."""
    world = World(MemoryDisk(), pop=NORMAL_ONLY)
    await world.broker.popping.restore()
    await world.save_topic("T", 1)
    send(world, b"a")
    popped(world)
    await let_it_be_over(world)
    again = await restart(world)
    assert again.broker.topics.get("%RETRY%G_T") is not None
    await let_it_be_over(again, 100)
    assert [record.body for record in again.records("%RETRY%G_T")] == [b"a"]
    assert bodies_or_nothing(again) == [b"a"]
    await again.stop()


async def test_a_record_that_is_none_is_told_and_passed() -> None:
    """Whatever lies in the revive topic: the others count."""
    world = World(MemoryDisk(), pop=NORMAL_ONLY)
    await world.broker.popping.restore()
    await world.save_topic("T", 1)
    world.store.append(REVIVE_TOPIC, 0, 0, 0, 0, bytes(8), 0, 0, b"nonsense", b"TAGS\x01ck\x02", 0)
    world.store.append(REVIVE_TOPIC, 0, 0, 0, 0, bytes(8), 0, 0, b"nonsense", b"", 0)
    send(world, b"a")
    popped(world)
    again = await restart(world)
    assert again.broker.popping.revive.unreadable == 2
    assert len(again.broker.popping.log.table) == 1
    await again.stop()


async def test_a_clean_stop_leaves_little_to_read() -> None:
    """The next start reads only from the oldest record that is needed."""
    world = World(MemoryDisk(), pop=NORMAL_ONLY)
    await world.broker.popping.restore()
    await world.save_topic("T", 1)
    send(world, b"a", b"b")
    first = popped(world, request(count_max=1))
    ack(world, *handles_of(first))
    popped(world, request(count_max=1))
    await world.stop()
    again = World(world.disk, clock=world.clock, pop=NORMAL_ONLY)
    assert again.broker.offsets.query(REVIVE_TOPIC, REVIVE_GROUP, 0) == 1
    await again.broker.popping.restore()
    assert len(again.broker.popping.log.table) == 1
    await again.stop()


async def test_a_long_backlog_lets_others_have_their_turn() -> None:
    """The loop is not held while many messages come again at once: time passes, so others are let in between."""

    class Ticking(ManualClock):
        def monotonic(self) -> float:
            self.advance(0.001)
            return super().monotonic()

    async with World(clock=Ticking(), pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, *[b"%d" % number for number in range(32)])
        popped(world)
        world.clock.advance(21)
        reviving = asyncio.create_task(world.broker.popping.revive._revive_due())
        turns = 0
        while not reviving.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 4
        assert len(world.records("%RETRY%G_T")) == 32
