"""Tables between brokers: a replica's files say what its master's tables say."""

import asyncio
from pathlib import Path

import pytest
from apogeemq.broker.core.queue_locks import QueueLockTable
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.metadata_files import metadata_files
from apogeemq.broker.service.saved_tables import SavedQueueLocks, SavedTopics
from apogeemq.broker.service.table_copies import (
    CONSUMER_OFFSETS,
    GROUPS,
    QUEUE_LOCKS,
    TOPICS,
    TableCopies,
    tell_changes,
)
from apogeemq.remoting_codec.bodies import (
    ConsumerOffsetSerializeWrapper,
    SubscriptionGroupConfig,
    SubscriptionGroupWrapper,
    TopicConfig,
    TopicConfigSerializeWrapper,
)
from apogeemq.remoting_codec.errors import BodyInvalid
from apogeemq.store.memory_disk import MemoryDisk

ROOT = Path("/store")


class Replica:
    """The files of one broker, as it would load them when it is promoted."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.copies = TableCopies(lambda: metadata_files(self.disk, ROOT))

    def topics(self) -> TopicTable:
        table = a_topic_table()
        metadata_files(self.disk, ROOT).load_topics(table)
        return table

    def groups(self) -> SubscriptionGroupTable:
        table = a_group_table()
        metadata_files(self.disk, ROOT).load_groups(table)
        return table

    def offset(self, group: str, topic: str, queue_id: int) -> int | None:
        return metadata_files(self.disk, ROOT).load_consumer_offsets().query(topic, group, queue_id)


def a_topic_table() -> TopicTable:
    return TopicTable(now_ms=lambda: 1_700_000_000_000, auto_create=True, default_queue_nums=8, topics_max=100_000)


def a_group_table() -> SubscriptionGroupTable:
    return SubscriptionGroupTable(now_ms=lambda: 1_700_000_000_000, auto_create=True, groups_max=1_000)


def offsets_body(**queues: dict[int, int]) -> bytes:
    return ConsumerOffsetSerializeWrapper(offset_table={f"{topic}@G": each for topic, each in queues.items()}).encode()


async def test_a_whole_table_and_then_its_changes() -> None:
    """What a promoted replica loads is what the master had, with the same DataVersion."""
    master, replica = a_topic_table(), Replica()
    master.put(TopicConfig(topic_name="Before", read_queue_nums=3, write_queue_nums=3))
    whole = (await SavedTopics(master).whole()).encode()
    await replica.copies.take(TOPICS, whole, True)
    told: list[tuple[str, bytes]] = []
    groups = a_group_table()
    tell_changes(master, groups, QueueLockTable(), lambda name, data: told.append((name, data)))
    master.put(TopicConfig(topic_name="After", read_queue_nums=5, write_queue_nums=5))
    groups.find_or_create("G_new")
    assert [name for name, _ in told] == [TOPICS, GROUPS]
    for name, data in told:
        await replica.copies.take(name, data, False)
    loaded = replica.topics()
    assert {topic.name: topic.config for topic in loaded} == {topic.name: topic.config for topic in master}
    assert loaded.data_version == master.data_version
    assert replica.groups().get("G_new") == groups.get("G_new")


async def test_queue_locks_and_their_changes() -> None:
    """A promoted replica knows each owner, with 30 s for it to renew; what was given back is free."""
    master, replica = QueueLockTable(), Replica()
    master.lock("G", "a", [("T", 0), ("T", 1)], 0)
    await replica.copies.take(QUEUE_LOCKS, (await SavedQueueLocks(master).whole()).encode(), True)
    told: list[bytes] = []
    tell_changes(a_topic_table(), a_group_table(), master, lambda _name, data: told.append(data))
    master.lock("G", "a", [("T", 0), ("T", 1)], 20)
    assert told == [], "nobody else owns anything after a renewal"
    master.unlock("G", "a", [("T", 1), ("T", 1)])
    master.lock("G", "b", [("T", 2), ("T", 0)], 20)
    for data in told:
        await replica.copies.take(QUEUE_LOCKS, data, False)
    promoted = QueueLockTable()
    assert metadata_files(replica.disk, ROOT).load_queue_locks(promoted, 1000)
    assert len(promoted) == 2
    assert promoted.lock("G", "c", [("T", 0), ("T", 1), ("T", 2)], 1030) == [("T", 1)]
    assert promoted.lock("G", "a", [("T", 0)], 1030) == [("T", 0)]
    assert promoted.lock("G", "c", [("T", 0), ("T", 2)], 1031) == [("T", 2)]


async def test_another_masters_whole_table_takes_the_place_of_all() -> None:
    """What was copied from the one before it goes."""
    replica = Replica()
    await replica.copies.take(CONSUMER_OFFSETS, offsets_body(T={0: 90}, Gone={0: 5}), True)
    await replica.copies.take(CONSUMER_OFFSETS, offsets_body(T={0: 70}), True)
    assert replica.offset("G", "T", 0) == 70
    assert replica.offset("G", "Gone", 0) is None


async def test_changes_go_on_when_the_journal_is_full() -> None:
    """Then the whole goes into the file, each entry and each queue as it is now; a dict is the dumb twin."""
    replica, twin = Replica(), dict[tuple[str, int], int]()
    for number in range(3_000):
        topic, queue_id = f"Topic_with_a_long_name_{number % 40:0150d}", number % 7
        await replica.copies.take(CONSUMER_OFFSETS, offsets_body(**{topic: {queue_id: number}}), False)
        twin[topic, queue_id] = number
    assert replica.disk.size_of(ROOT / "config" / "consumerOffset.json") is not None
    loaded = metadata_files(replica.disk, ROOT).load_consumer_offsets()
    assert {(topic, each): loaded.query(topic, "G", each) for topic, each in twin} == twin


async def test_a_broker_without_tables_gives_its_files() -> None:
    """While its epoch has only begun: whole, with what the journals say."""
    replica, other = Replica(), Replica()
    await replica.copies.take(CONSUMER_OFFSETS, offsets_body(T={0: 1, 1: 2}), True)
    await replica.copies.take(CONSUMER_OFFSETS, offsets_body(T={1: 3}, U={0: 4}), False)
    for name, data in await TableCopies(lambda: metadata_files(replica.disk, ROOT)).wholes():
        await other.copies.take(name, data, True)
    assert [other.offset("G", *key) for key in (("T", 0), ("T", 1), ("U", 0))] == [1, 3, 4]


async def test_what_is_no_table_is_refused() -> None:
    """Nothing of it is written."""
    replica = Replica()
    with pytest.raises(BodyInvalid):
        await replica.copies.take(TOPICS, b"{", True)
    assert replica.disk.size_of(ROOT / "config" / "topics.json") is None


async def test_a_newer_masters_table_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """And told once."""
    replica = Replica()
    for _ in range(2):
        await replica.copies.take("somethingNew", b"{}", True)
    assert caplog.text.count("somethingNew") == 1


async def test_the_copy_of_many_topics_holds_the_loop_for_no_table() -> None:
    """Both ends work in threads: other tasks have their turns meanwhile."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    configs = {f"T{number}": TopicConfig(topic_name=f"T{number}") for number in range(20_000)}
    body = TopicConfigSerializeWrapper(topic_config_table=configs).encode()
    before = turns
    await Replica().copies.take(TOPICS, body, True)
    counting.cancel()
    assert turns > before


def test_a_group_is_told_as_it_is() -> None:
    """With its settings, whatever was changed."""
    told: list[bytes] = []
    groups = a_group_table()
    tell_changes(a_topic_table(), groups, QueueLockTable(), lambda _, data: told.append(data))
    groups.put(SubscriptionGroupConfig(group_name="G", retry_max_times=3))
    [table] = [SubscriptionGroupWrapper.decode(data).subscription_group_table for data in told]
    assert table == {"G": SubscriptionGroupConfig(group_name="G", retry_max_times=3)}
