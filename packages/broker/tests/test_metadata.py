"""The tables' files are kept up to date: when they are written, what waits for them, what they may not run ahead of."""

import asyncio
import errno
import logging
from collections import Counter
from pathlib import Path
from random import Random

import msgspec
import pytest
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.metadata_files import metadata_files
from apogeemq.broker.service.metadata import NotConfirmed
from apogeemq.mesh.clock import ManualClock
from apogeemq.remoting_codec.bodies import (
    SubscriptionGroupWrapper,
    TopicConfigSerializeWrapper,
)
from apogeemq.store.errors import DiskFull, NotWritable
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.memory_disk import Inode, MemoryDisk

from packages.broker.tests.world import ROOT, World, consumer_beat, send_fields, until

SLEEPERS = 9
"""Tasks of a started broker that wait for a time when nothing happens."""


def file(world: World, name: str) -> bytes:
    return world.disk.read_file(ROOT / "config" / name) if has_file(world, name) else b""


def has_file(world: World, name: str) -> bool:
    return world.disk.size_of(ROOT / "config" / name) is not None


def saved_topics(world: World) -> dict[str, int]:
    """Name to write queues, as the next start would find them: file and journal."""
    table = TopicTable(now_ms=lambda: 1, auto_create=False, default_queue_nums=1)
    metadata_files(world.disk, ROOT).load_topics(table)
    return {topic.name: topic.config.write_queue_nums for topic in table}


def saved_offsets(world: World) -> dict[str, dict[int, int]]:
    return metadata_files(world.disk, ROOT).load_consumer_offsets().to_table()


def saved_progress(world: World) -> dict[int, int]:
    return metadata_files(world.disk, ROOT).load_delay_offsets()


async def test_what_a_start_makes_is_written() -> None:
    """Built-in topics and groups are in the files soon after the start, with the versions of the tables."""
    async with World() as world:
        world.broker.start()
        await until(lambda: world.broker.topics.saved_version == world.broker.topics.version > 0)
        await until(lambda: world.broker.groups.saved_version == world.broker.groups.version > 0)
        assert saved_topics(world)["TBW102"] == 8
        assert b'{\n\t"dataVersion":{\n\t\t' in file(world, "topics.json"), "laid out as Apache's"
        groups = SubscriptionGroupWrapper.decode(file(world, "subscriptionGroup.json"))
        assert "TOOLS_CONSUMER" in groups.subscription_group_table
        assert groups.data_version == world.broker.groups.data_version
        topics = TopicConfigSerializeWrapper.decode(file(world, "topics.json"))
        assert topics.data_version == world.broker.topics.data_version


async def test_the_first_message_of_a_topic_is_acknowledged_when_the_topic_is_written() -> None:
    """Not before; and the topic is in the file by then. The second one waits for nothing."""
    async with World() as world:
        client = world.client()
        opaque = client.send(310, send_fields("New"), b"first")
        assert not client.has_reply(opaque)
        world.broker.start()
        reply = await client.later(opaque)
        assert reply.code == 0
        assert saved_topics(world)["New"] == 4
        await until(lambda: world.broker.topics.saved_version == world.broker.topics.version)
        assert client.request(310, send_fields("New"), b"second").code == 0


class CountingDisk(MemoryDisk):
    """Counts how often each file is written whole, and how often a segment is synced."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: Counter[str] = Counter()
        self.syncs: Counter[str] = Counter()

    def write_file(self, path: Path, data: bytes) -> None:
        self.writes[path.name] += 1
        super().write_file(path, data)

    def sync_inode(self, inode: Inode, path: Path) -> None:
        self.syncs[path.name] += 1
        super().sync_inode(inode, path)


async def test_a_thousand_new_topics_are_a_handful_of_files() -> None:
    """While one write runs, changes gather for the next; and they are appended, the file is written once."""
    disk = CountingDisk()
    async with World(disk) as world:
        world.broker.start()
        client = world.client()
        requests = [(310, send_fields(f"New-{number}"), b"x") for number in range(1_000)]
        opaques = client.send_together(requests)
        await until(lambda: all(map(client.has_reply, opaques[-5:])))
        assert [client.reply(opaque).code for opaque in opaques] == [0] * 1_000
        assert disk.writes["topics.json.tmp"] == 1
        assert disk.syncs["topics.journal"] < 10


async def test_whole_files_are_written_now_and_then() -> None:
    """So that a Java broker misses little after a kill; where nothing changed, nothing is written."""
    disk = CountingDisk()
    async with World(disk) as world:
        world.broker.start()
        await until(lambda: world.broker.topics.saved_version == world.broker.topics.version)
        world.create_topic("T")
        await world.broker.saver.save_topics()
        assert b'"T"' not in file(world, "topics.json")
        assert saved_topics(world)["T"] == 4
        await world.clock.run_for(301)
        await until(lambda: b'"T"' in file(world, "topics.json"))
        assert disk.writes["topics.json.tmp"] == 2
        await world.clock.run_for(900)
        assert disk.writes["topics.json.tmp"] == 2


async def test_what_a_crash_left_in_journals_is_in_the_files_before_the_first_request() -> None:
    """The process may have died before its last append was synced: it would be taken for durable."""
    disk, clock = MemoryDisk(), ManualClock()
    world = World(disk, clock=clock)
    await world.broker.saver.save_topics()
    world.create_topic("T")
    await world.broker.saver.save_topics()
    await world.kill()
    async with World(disk, clock=clock) as again:
        assert b'"T"' not in file(again, "topics.json")
        await again.broker.settle_tables()
        assert b'"T"' in file(again, "topics.json")


async def test_a_large_table_is_copied_in_slices() -> None:
    """Others get their turn meanwhile; what changes then is written next."""
    async with World() as world:
        for number in range(3_000):
            world.broker.offsets.commit("T", f"G{number}", 0, 1)
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                world.broker.offsets.commit("T", "G2999", 0, turns)
                await asyncio.sleep(0)

        others = asyncio.ensure_future(take_turns())
        await world.broker.saver.save_consumer_offsets()
        others.cancel()
        assert turns > 30
        await world.broker.saver.save_consumer_offsets()
        assert saved_offsets(world)["T@G2999"] == {0: turns}


async def test_a_topic_that_cannot_be_written_is_tried_again() -> None:
    """The failure is told; the sender waits until it succeeds, or is told that its topic was not written in time."""
    disk = FaultyDisk(Random(1))
    async with World(disk) as world:
        world.broker.start()
        await until(lambda: world.broker.topics.saved_version == world.broker.topics.version)
        client = world.client()
        disk.fail("write", errno.EIO, path_part="topics.journal")
        disk.fail("write_file", errno.EIO, path_part="topics.json")
        opaque = client.send(310, send_fields("New"), b"first")
        for wait_s in (1, 2):  # twice as long after each failure
            await until(lambda: world.clock.sleepers == SLEEPERS + 1)
            assert not client.has_reply(opaque)
            await world.clock.run_for(wait_s)
        assert (await client.later(opaque)).code == 0
        assert saved_topics(world)["New"] == 4


async def test_a_topic_that_is_not_written_in_time_is_told() -> None:
    """FLUSH_DISK_TIMEOUT: the message is stored, its topic may be gone after a crash."""
    async with World() as world:
        world.broker._tasks = []
        client = world.client()
        opaque = client.send(310, send_fields("New"), b"first")
        world.broker.topic_line.expire(world.clock.monotonic() + 5)
        reply = client.reply(opaque)
        assert reply.code == 10
        assert reply.remark == (
            "the message is stored, but its write of the topic's configuration was not done within 5 s"
        )


async def test_groups_are_written_after_their_first_heartbeat() -> None:
    """With their retry topics."""
    async with World() as world:
        world.broker.start()
        world.client().heartbeat(consumer_beat())
        await until(
            lambda: has_file(world, "subscriptionGroup.json") and b'"G"' in file(world, "subscriptionGroup.json")
        )
        await until(lambda: b'"%RETRY%G"' in file(world, "topics.json"))


async def test_offsets_are_written_every_few_seconds_when_they_changed() -> None:
    """flushConsumerOffsetInterval; no change, no write."""
    async with World() as world:
        world.create_topic()
        world.broker.groups.find_or_create("G")
        world.broker.start()
        await world.clock.run_for(6)
        assert not has_file(world, "consumerOffset.json")
        world.broker.offset_service.commit("T", "G", 2, 7)
        await world.clock.run_for(3.9)
        assert not has_file(world, "consumerOffset.json")
        await world.clock.run_for(0.2)
        await until(lambda: has_file(world, "consumerOffset.json"))
        assert saved_offsets(world) == {"T@G": {2: 7}}
        before = world.disk.files[ROOT / "config" / "consumerOffset.json"]
        await world.clock.run_for(20)
        assert world.disk.files[ROOT / "config" / "consumerOffset.json"] is before


async def test_offsets_are_never_saved_ahead_of_what_is_flushed() -> None:
    """A committed offset points into the log: the log is flushed up to there first (architecture §5)."""
    disk = FaultyDisk(Random(1))
    async with World(disk) as world:
        world.create_topic()
        world.broker.groups.find_or_create("G")
        world.client().request(310, send_fields(), b"body")
        world.broker.offset_service.commit("T", "G", 0, 1)
        assert world.store.flushed_offset < world.store.written_offset
        await world.broker.saver.save_consumer_offsets()
        assert world.store.flushed_offset == world.store.written_offset
        assert saved_offsets(world) == {"T@G": {0: 1}}


@pytest.mark.parametrize("name", ["consumerOffset.json", "delayOffset.json"])
async def test_pointers_are_not_saved_when_the_flush_fails(name: str) -> None:
    """Behind means that messages come again, ahead that they are lost."""
    disk = FaultyDisk(Random(1))
    world = World(disk)
    world.create_topic()
    world.broker.groups.find_or_create("G")
    world.client().request(310, send_fields(), b"body")
    world.broker.offset_service.commit("T", "G", 0, 1)
    world.broker.delay.changed.add(1)
    disk.fail("sync", errno.EIO, path_part="commitlog")
    with pytest.raises(NotWritable):
        await world.broker.saver.save_consumer_offsets()
    with pytest.raises(NotWritable):
        await world.broker.saver.save_delay_progress()
    assert not has_file(world, name)
    await world.kill()


async def test_pointers_are_saved_once_the_set_has_confirmed_their_place(caplog: pytest.LogCaptureFixture) -> None:
    """A master's log may be cut where it is not confirmed; at the stop, too, nothing is written that points there."""
    asked: list[int] = []
    is_confirmed = False

    async def until_confirmed(offset: int) -> None:
        asked.append(offset)
        if not is_confirmed:
            raise NotConfirmed("not yet")

    async with World(until_confirmed=until_confirmed) as world:
        world.create_topic()
        world.broker.groups.find_or_create("G")
        world.client().request(310, send_fields(), b"body")
        world.broker.offset_service.commit("T", "G", 0, 1)
        with pytest.raises(NotConfirmed):
            await world.broker.saver.save_consumer_offsets()
        await world.broker.saver.settle()
        assert saved_offsets(world) == {}
        assert [record.message for record in caplog.records] == [
            "offsets and progress of before are written later: not yet"
        ]
        caplog.clear()
        is_confirmed = True
        await world.broker.saver.save_consumer_offsets()
        assert saved_offsets(world) == {"T@G": {0: 1}}
        assert set(asked) == {world.store.written_offset}
        is_confirmed = False
        world.broker.offset_service.commit("T", "G", 0, 0)
    assert saved_offsets(world) == {"T@G": {0: 1}}
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_delay_progress_is_written_after_the_flush() -> None:
    """Nothing counts as delivered whose delivery a power loss could take back."""
    async with World() as world:
        world.create_topic()
        world.broker.start()
        world.client().request(310, send_fields(properties="DELAY\x011\x02"), b"body")
        await world.clock.run_for(2.5)
        await until(lambda: has_file(world, "delayOffset.json"))
        assert saved_progress(world)[1] == 1
        assert world.store.flushed_offset == world.store.written_offset


async def test_a_failed_write_is_told_and_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Each file has its own loop; a full disk for one is no end for any."""
    caplog.set_level(logging.ERROR)
    disk = FaultyDisk(Random(1))
    async with World(disk) as world:
        world.create_topic()
        world.broker.groups.find_or_create("G")
        disk.fail("write_file", errno.ENOSPC, path_part="consumerOffset", times=1)
        world.broker.start()
        world.broker.offset_service.commit("T", "G", 0, 1)
        await world.clock.run_for(5)
        await until(lambda: "metadata could not be written, trying again: no room on the disk" in caplog.text)
        assert not has_file(world, "consumerOffset.json")
        await until(lambda: has_file(world, "subscriptionGroup.json"))
        await until(lambda: world.clock.sleepers == SLEEPERS)
        await world.clock.run_for(5)
        await until(lambda: has_file(world, "consumerOffset.json"))


async def test_a_stop_writes_everything_once_more() -> None:
    """What changed since the last round is in the files."""
    disk, clock = MemoryDisk(), ManualClock()
    async with World(disk, clock=clock) as world:
        world.broker.start()
        await until(lambda: world.broker.topics.saved_version == world.broker.topics.version)
        world.broker.topics.create_for_send("T", "TBW102", 4)
        world.broker.groups.find_or_create("G")
        world.broker.offset_service.commit("T", "G", 1, 5)
    async with World(disk, clock=clock) as again:
        assert again.broker.topics.get("T") is not None
        assert again.broker.groups.get("G") is not None
        assert again.broker.offsets.query("T", "G", 1) == 5


async def test_a_file_that_was_never_written_does_not_stop_a_start() -> None:
    """A new store directory has none."""
    async with World() as world:
        assert world.broker.offsets.to_table() == {}
        assert set(world.broker.delay.progress.values()) == {0}


async def test_settings_of_a_java_brokers_groups_survive_a_save() -> None:
    """What this version does not obey yet is still there when a Java broker reads the file again."""
    disk = MemoryDisk()
    async with World(disk) as world:
        await world.broker.saver.save_groups()
        wrapper = SubscriptionGroupWrapper.decode(file(world, "subscriptionGroup.json"))
    forbidden = {"G": {"T": 2}}
    text = msgspec.structs.replace(wrapper, forbidden_table=forbidden).encode(pretty=True)
    disk.write_file(ROOT / "config" / "subscriptionGroup.json", text)
    async with World(disk) as world:
        world.broker.groups.find_or_create("New")
        await world.broker.saver.save_groups()
        wrapper = SubscriptionGroupWrapper.decode(file(world, "subscriptionGroup.json"))
        assert wrapper.forbidden_table == forbidden
        assert "New" in wrapper.subscription_group_table


async def test_a_full_disk_has_its_own_error() -> None:
    """DiskFull: the old file stays what it was."""
    disk = FaultyDisk(Random(1))
    async with World(disk) as world:
        await world.broker.saver.save_topics()
        before = saved_topics(world)
        world.broker.topics.create_for_send("T", "TBW102", 4)
        disk.fail("write", errno.ENOSPC, path_part="topics.journal")
        with pytest.raises(DiskFull):
            await world.broker.saver.save_topics()
        assert saved_topics(world) == before
        await world.broker.saver.save_topics()
        assert saved_topics(world) == {**before, "T": 4}
