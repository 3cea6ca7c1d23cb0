"""The broker's tables as the JSON files that Apache writes under config/: topics, subscriptionGroup, consumerOffset and
delayOffset.

Each file is written whole (temporary file, fsync, rename, the old one kept as .bak). Writing happens in a thread; what
is written is copied from the table on the event loop before. Formats: reference broker_behaviour.md §6, §9.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import TopicTable
from apogeemq.remoting_codec.bodies import (
    ConsumerOffsetSerializeWrapper,
    DelayOffsetSerializeWrapper,
    SubscriptionGroupWrapper,
    TopicConfigSerializeWrapper,
)
from apogeemq.store.config_files import ConfigFile
from apogeemq.store.files import Disk


@dataclass(slots=True)
class MetadataFiles:
    """The four files of one broker, and what goes in and out of them."""

    topics: ConfigFile
    groups: ConfigFile
    consumer_offsets: ConfigFile
    delay_offsets: ConfigFile

    def load_topics(self, table: TopicTable) -> None:
        """Read topics.json into the table."""
        data = self.topics.load()
        if data is not None:
            wrapper = TopicConfigSerializeWrapper.decode(data)
            table.load(wrapper.topic_config_table.values(), wrapper.data_version)

    def load_groups(self, table: SubscriptionGroupTable) -> None:
        """Read subscriptionGroup.json into the table."""
        data = self.groups.load()
        if data is not None:
            wrapper = SubscriptionGroupWrapper.decode(data)
            table.load(wrapper.subscription_group_table.values(), wrapper.data_version, wrapper.forbidden_table)

    def load_consumer_offsets(self) -> ConsumerOffsetTable:
        """Read consumerOffset.json."""
        data = self.consumer_offsets.load()
        return ConsumerOffsetTable({} if data is None else ConsumerOffsetSerializeWrapper.decode(data).offset_table)

    def load_delay_offsets(self) -> dict[int, int]:
        """Read delayOffset.json: level to queue offset."""
        data = self.delay_offsets.load()
        return {} if data is None else DelayOffsetSerializeWrapper.decode(data).offset_table

    @staticmethod
    def topics_body(table: TopicTable) -> TopicConfigSerializeWrapper:
        """What topics.json shall hold: a copy, whose text may be made in a thread."""
        configs = {topic.name: topic.config for topic in table}
        return TopicConfigSerializeWrapper(topic_config_table=configs, data_version=table.data_version)

    @staticmethod
    def groups_body(table: SubscriptionGroupTable) -> SubscriptionGroupWrapper:
        """What subscriptionGroup.json shall hold."""
        return SubscriptionGroupWrapper(
            subscription_group_table={group.group_name: group for group in table},
            forbidden_table=table.forbidden,
            data_version=table.data_version,
        )

    @staticmethod
    def consumer_offsets_body(table: ConsumerOffsetTable) -> ConsumerOffsetSerializeWrapper:
        """What consumerOffset.json shall hold."""
        return ConsumerOffsetSerializeWrapper(offset_table=table.to_table())

    @staticmethod
    def delay_offsets_body(progress: Mapping[int, int]) -> DelayOffsetSerializeWrapper:
        """What delayOffset.json shall hold."""
        return DelayOffsetSerializeWrapper(offset_table=dict(progress))


def metadata_files(disk: Disk, root: Path) -> MetadataFiles:
    """The files of the store directory `root`, made on first save."""
    directory = root / "config"
    return MetadataFiles(
        topics=ConfigFile(disk, directory / "topics.json"),
        groups=ConfigFile(disk, directory / "subscriptionGroup.json"),
        consumer_offsets=ConfigFile(disk, directory / "consumerOffset.json"),
        delay_offsets=ConfigFile(disk, directory / "delayOffset.json"),
    )
