"""What a broker has after it was killed, lost power or was stopped, from the same directory again."""

from random import Random

import pytest
from apogeemq.broker.service.saved_tables import SavedConsumerOffsets
from apogeemq.broker.service.table_saver import TableSaver
from apogeemq.mesh.clock import ManualClock
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss
from apogeemq.store.memory_disk import MemoryDisk

from packages.broker.tests.world import (
    ROOT,
    Client,
    World,
    bodies_of,
    consumer_beat,
    fields_of,
    pull_fields,
    send_fields,
    until,
)


def send(client: Client, body: bytes, queue_id: int = 0) -> None:
    assert client.request(310, send_fields("T", queue_id), body).code == 0


def committed(client: Client, queue_id: int = 0) -> int:
    asked = {"consumerGroup": "G", "topic": "T", "queueId": str(queue_id), "setZeroIfNotFound": "false"}
    return int(fields_of(client.request(14, asked))["offset"])


async def world_with_group(disk: MemoryDisk, clock: ManualClock) -> World:
    """A topic T and a group G, both in their files."""
    world = World(disk, clock=clock)
    await world.save_topic()
    world.broker.groups.find_or_create("G")
    await world.broker.saver.save_groups()
    return world


async def test_after_a_kill_every_acknowledged_message_is_there() -> None:
    """The page cache survives the process: all bodies, in order, readable as before; nothing counts as clean."""
    disk, clock = FaultyDisk(Random(1)), ManualClock()
    world = await world_with_group(disk, clock)
    for number in range(100):
        send(world.client(), b"%d" % number, number % 4)
    await world.kill()
    disk.kill_process()
    async with World(disk, clock=clock) as again:
        assert not again.store.recovery.clean
        client = again.client()
        for queue_id in range(4):
            pulled = bodies_of(client.request(11, pull_fields(queue_id=queue_id)))
            assert pulled == [b"%d" % number for number in range(queue_id, 100, 4)]


async def test_owners_of_queues_are_known_after_a_kill() -> None:
    """Nobody else gets a queue that is consumed in order before its owner has had 30 s to renew."""
    disk, clock = MemoryDisk(), ManualClock()
    world = await world_with_group(disk, clock)
    world.broker.start()
    locks = world.broker.queue_locks
    assert locks.lock("G", "one", [("T", 0)], clock.monotonic()) == [("T", 0)]
    await until(lambda: not locks.changed and world.disk.size_of(ROOT / "config/queueLock.json") is not None)
    await world.kill()
    async with World(disk, clock=clock) as again:
        locks = again.broker.queue_locks
        assert locks.lock("G", "two", [("T", 0), ("T", 1)], clock.monotonic()) == [("T", 1)]
        assert locks.lock("G", "two", [("T", 0)], clock.monotonic() + 31) == [("T", 0)]


async def test_topics_and_groups_are_there_after_a_kill() -> None:
    """Each acknowledged send's topic, each saved group; built-in ones are not made twice."""
    disk, clock = MemoryDisk(), ManualClock()
    world = await world_with_group(disk, clock)
    version = world.broker.topics.data_version
    await world.kill()
    async with World(disk, clock=clock) as again:
        assert again.broker.topics.data_version == version, "the name server must not think that they changed"
        assert again.broker.topics.version == again.broker.topics.saved_version == 0
        assert again.broker.groups.get("G") is not None


@pytest.mark.parametrize("seed", range(10))
async def test_after_a_power_loss_no_offset_is_ahead_of_its_queue(seed: int) -> None:
    """Committed and saved, but the messages were lost: the offset is cut back, or new messages would be skipped."""
    disk, clock = FaultyDisk(Random(seed)), ManualClock()
    world = await world_with_group(disk, clock)
    client = world.client()
    for number in range(5):
        send(client, b"old %d" % number)
    await world.broker.saver.save_consumer_offsets()
    world.store.flush()
    for number in range(20):
        send(client, b"lost %d" % number)
    world.broker.offset_service.commit("T", "G", 0, 25)
    # As a broker that flushes with less care would leave it.
    await TableSaver(SavedConsumerOffsets(world.broker.offsets), world.files.consumer_offsets).save()
    await world.kill()
    disk.lose_power()
    disk.restart()
    async with World(disk, clock=clock) as again:
        end = again.store.max_offset("T", 0)
        assert 5 <= end <= 25
        assert committed(again.client()) == end


async def test_what_was_cut_back_is_saved_before_the_first_request() -> None:
    """A second crash must not bring back the offset that the first one had left ahead."""
    disk, clock = FaultyDisk(Random(3)), ManualClock()
    world = await world_with_group(disk, clock)
    send(world.client(), b"flushed")
    world.broker.offset_service.commit("T", "G", 0, 9)
    await world.broker.saver.save_consumer_offsets()
    world.broker.delay.progress[4] = 9
    world.broker.delay.changed.add(4)
    await world.broker.saver.save_delay_progress()
    await world.kill()
    disk.kill_process()

    world = World(disk, clock=clock)
    await world.broker.settle_tables()
    client = world.client()
    for number in range(20):
        send(client, b"new %d" % number)
        assert client.request(310, send_fields(properties="DELAY\x014\x02"), b"later").code == 0
    await world.kill()
    disk.kill_process()

    async with World(disk, clock=clock) as again:
        assert committed(again.client()) == 1
        assert again.broker.delay.progress[4] == 0


@pytest.mark.parametrize("seed", range(10))
async def test_saved_offsets_survive_a_power_loss_with_their_messages(seed: int) -> None:
    """The log is flushed before the offsets are written: nothing that counts as consumed is missing."""
    disk, clock = FaultyDisk(Random(seed)), ManualClock()
    world = await world_with_group(disk, clock)
    client = world.client()
    for number in range(10):
        send(client, b"%d" % number)
    world.broker.offset_service.commit("T", "G", 0, 10)
    await world.broker.saver.save_consumer_offsets()
    await world.kill()
    disk.lose_power()
    disk.restart()
    async with World(disk, clock=clock) as again:
        assert committed(again.client()) == again.store.max_offset("T", 0) == 10


async def test_after_an_orderly_stop_offsets_are_what_clients_said() -> None:
    """Even ahead of the queue: nothing was lost, so nothing is cut."""
    disk, clock = MemoryDisk(), ManualClock()
    async with await world_with_group(disk, clock) as world:
        send(world.client(), b"x")
        world.broker.offset_service.commit("T", "G", 0, 7)
    async with World(disk, clock=clock) as again:
        assert again.store.recovery.clean
        assert committed(again.client()) == 7


async def test_a_retry_comes_after_a_kill() -> None:
    """Sent back, killed, started again: the message is delivered to the retry topic when its level is over."""
    disk, clock = MemoryDisk(), ManualClock()
    world = await world_with_group(disk, clock)
    client = world.client()
    client.heartbeat(consumer_beat())
    await world.broker.saver.save_topics()
    send(client, b"failed")
    fields = {"offset": str(world.record("T").physical_offset), "group": "G", "delayLevel": "1"}
    assert (await client.later(client.send(36, fields))).code == 0
    await world.kill()
    async with World(disk, clock=clock) as again:
        again.start_deliveries()
        await clock.run_for(1)
        (record,) = again.records("%RETRY%G")
        assert (record.body, record.reconsume_times) == (b"failed", 1)
        assert decode_properties(record.properties)["RETRY_TOPIC"] == "T"


async def test_a_consumer_goes_on_where_it_was() -> None:
    """Kill in the middle: from its last saved offset on, at least once."""
    disk, clock = MemoryDisk(), ManualClock()
    world = await world_with_group(disk, clock)
    client = world.client()
    for number in range(10):
        send(client, b"%d" % number)
    world.broker.offset_service.commit("T", "G", 0, 4)
    await world.broker.saver.save_consumer_offsets()
    world.broker.offset_service.commit("T", "G", 0, 8)  # not saved any more
    await world.kill()
    async with World(disk, clock=clock) as again:
        offset = committed(again.client())
        assert offset == 4
        pulled = bodies_of(again.client().request(11, pull_fields(offset=offset)))
        assert pulled == [b"%d" % number for number in range(4, 10)]


@pytest.mark.parametrize("seed", range(20))
async def test_whenever_the_power_goes_no_saved_offset_is_ahead_or_forgotten(seed: int) -> None:
    """Three lives: sends, commits and saves, cut off in the middle of some call to the disk, journals included."""
    chance = Random(seed)
    disk, clock = FaultyDisk(chance), ManualClock()
    world = await world_with_group(disk, clock)
    saved = 0
    for _ in range(3):
        disk.lose_power_after(chance.randint(0, 25))
        try:
            for number in range(15):
                send(world.client(), b"%d" % number)
                world.broker.offset_service.commit("T", "G", 0, world.store.max_offset("T", 0))
                if chance.random() < 0.5:
                    reached = world.store.max_offset("T", 0)
                    await world.broker.saver.save_consumer_offsets()
                    saved = reached
        except PowerLoss:
            pass
        await world.kill()
        disk.lose_power()
        disk.restart()
        world = World(disk, clock=clock)
        await world.broker.settle_tables()
        end = world.store.max_offset("T", 0)
        found = world.broker.offsets.query("T", "G", 0) or 0
        assert saved <= found <= end
        saved = found
    await world.stop()
