"""The tables as files: those of an Apache 5.3.3 broker load, and come back as they were."""

from pathlib import Path

import msgspec
import pytest
from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.metadata_files import MetadataFiles, metadata_files
from apogeemq.broker.service.saved_tables import SavedConsumerOffsets, SavedGroups, SavedTopics
from apogeemq.remoting_codec.errors import BodyInvalid
from apogeemq.store.memory_disk import MemoryDisk

from packages.broker.tests.recordings import VECTORS

ROOT = Path("/store")
NAMES = ("topics", "subscriptionGroup", "consumerOffset", "delayOffset")


@pytest.fixture
def disk() -> MemoryDisk:
    """A store directory with the files of broker-t of TapCluster."""
    disk = MemoryDisk()
    for name in NAMES:
        disk.write_file(ROOT / "config" / f"{name}.json", (VECTORS / "config" / f"{name}.json").read_bytes())
    return disk


@pytest.fixture
def files(disk: MemoryDisk) -> MetadataFiles:
    return metadata_files(disk, ROOT)


def recorded(name: str) -> bytes:
    return (VECTORS / "config" / f"{name}.json").read_bytes()


def topic_table() -> TopicTable:
    return TopicTable(now_ms=lambda: 1, auto_create=True, default_queue_nums=8)


def group_table() -> SubscriptionGroupTable:
    return SubscriptionGroupTable(now_ms=lambda: 1, auto_create=True)


def test_recorded_topics_load(files: MetadataFiles) -> None:
    """Queues, permissions, attributes and the DataVersion; they count as saved."""
    table = topic_table()
    files.load_topics(table)
    normal = table.require("StoreNormal")
    assert (normal.config.read_queue_nums, normal.config.write_queue_nums, normal.config.perm) == (2, 2, 6)
    assert normal.config.attributes == {"message.type": "NORMAL"}
    assert normal.version <= table.saved_version
    assert not table.require("SCHEDULE_TOPIC_XXXX").is_sendable
    assert (table.data_version.counter, table.data_version.timestamp) == (4, 1795356820996)


async def test_recorded_topics_come_back_byte_for_byte(files: MetadataFiles) -> None:
    """What is written is what Apache wrote, so that its broker reads it again."""
    table = topic_table()
    files.load_topics(table)
    assert (await SavedTopics(table).whole()).encode(pretty=True).split() == recorded("topics").split()


async def test_recorded_groups_load_and_come_back(files: MetadataFiles) -> None:
    """All settings, those that this version does not obey too."""
    table = group_table()
    files.load_groups(table)
    group = table.get("G_store")
    assert group is None or group.retry_max_times == 16
    assert table.get("TOOLS_CONSUMER") is not None
    assert (table.data_version.counter, table.version, table.saved_version) == (1, 0, 0)
    assert (await SavedGroups(table).whole()).encode(pretty=True).split() == recorded("subscriptionGroup").split()


def test_recorded_offsets_load(files: MetadataFiles) -> None:
    """With Java's bare integer keys: G_store read up to 3."""
    table = files.load_consumer_offsets()
    assert table.query("StoreNormal", "G_store", 0) == 3
    assert not table.changed
    ours = ConsumerOffsetTable(msgspec.json.decode(b'{"StoreNormal@G_store":{"0":3}}', type=dict[str, dict[int, int]]))
    assert table.to_table() == ours.to_table()


def test_recorded_delay_progress_loads(files: MetadataFiles) -> None:
    """Level 18 had delivered nothing."""
    assert files.load_delay_offsets() == {18: 0}


def test_a_new_directory_has_empty_tables() -> None:
    """No file is no error."""
    files = metadata_files(MemoryDisk(), ROOT)
    table, groups = topic_table(), group_table()
    files.load_topics(table)
    files.load_groups(groups)
    assert (len(table), len(groups)) == (0, 0)
    assert files.load_consumer_offsets().to_table() == {}
    assert files.load_delay_offsets() == {}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_loaded_again(files: MetadataFiles, disk: MemoryDisk, name: str) -> None:
    """Each file, under Apache's name; the one before stays as .bak."""
    file = {
        "topics": files.topics,
        "subscriptionGroup": files.groups,
        "consumerOffset": files.consumer_offsets,
        "delayOffset": files.delay_offsets,
    }[name]
    file.save(b'{"offsetTable":{}}')
    assert file.load().text == b'{"offsetTable":{}}'
    assert disk.read_file(ROOT / "config" / f"{name}.json.bak") == recorded(name)


def test_a_damaged_file_is_replaced_by_its_backup(files: MetadataFiles, disk: MemoryDisk) -> None:
    """As a crash may leave it."""
    files.consumer_offsets.save(b'{"offsetTable":{"T@G":{0:9}}}')
    disk.write_file(ROOT / "config" / "consumerOffset.json", b'{"offsetTable":{"T@G"')
    assert files.load_consumer_offsets().query("StoreNormal", "G_store", 0) == 3


def test_damage_without_backup_stops_the_start(files: MetadataFiles, disk: MemoryDisk) -> None:
    """Going on without would forget what the file says."""
    disk.write_file(ROOT / "config" / "topics.json", b"nonsense")
    with pytest.raises(BodyInvalid):
        files.load_topics(topic_table())


async def test_a_copy_is_written_and_not_the_table() -> None:
    """The text is made in a thread, while the table goes on changing."""
    offsets = ConsumerOffsetTable({"T@G": {0: 1}})
    body = await SavedConsumerOffsets(offsets).whole()
    offsets.commit("T", "G", 0, 2)
    offsets.commit("U", "G", 0, 2)
    assert body.offset_table == {"T@G": {0: 1}}


def test_changes_are_read_after_the_file(files: MetadataFiles, disk: MemoryDisk) -> None:
    """In the file's own form: what they say is so, all else stays as the file says, what is forbidden too."""
    for file, change in (
        (files.topics, b'{"topicConfigTable":{"New":{"topicName":"New","perm":4}},"dataVersion":{"counter":77}}'),
        (files.groups, b'{"subscriptionGroupTable":{"G":{"groupName":"G"}},"dataVersion":{"counter":78}}'),
        (files.consumer_offsets, b'{"offsetTable":{"StoreNormal@G_store":{1:9},"New@G":{0:2}}}'),
        (files.delay_offsets, b'{"offsetTable":{3:7}}'),
    ):
        text = file.load().text
        assert text is not None
        file.save(text.replace(b'"forbiddenTable":{', b'"forbiddenTable":{"F":{"T":2}'))
        assert file.append(change)
    again = metadata_files(disk, ROOT)
    topics, groups = topic_table(), group_table()
    again.load_topics(topics)
    again.load_groups(groups)
    assert topics.require("New").config.perm == 4
    assert topics.require("StoreNormal").config.write_queue_nums == 2
    assert (topics.data_version.counter, groups.data_version.counter) == (77, 78)
    assert groups.get("G") is not None
    assert groups.get("TOOLS_CONSUMER") is not None
    assert groups.forbidden == {"F": {"T": 2}}
    assert again.load_consumer_offsets().to_table() == {"StoreNormal@G_store": {0: 3, 1: 9}, "New@G": {0: 2}}
    assert again.load_delay_offsets() == {18: 0, 3: 7}
    assert not topics.changed
    assert not groups.changed
