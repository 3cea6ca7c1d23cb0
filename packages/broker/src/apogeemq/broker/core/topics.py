"""The topics of this broker: what exists, what may be made, and under which version the name server knows them.

A topic that a client names and nobody made is made from its template (TBW102 by default): as many queues as the client
asks for, never more than the template has, the template's permission without INHERIT. A template without INHERIT makes
nothing. Retry and DLQ topics are made for their group. Source: reference broker_behaviour.md §1, §2.

A request that may make a topic plans it first: a planned topic has its configuration and is not in the table. Once the
request has passed all checks, `keep` puts it there; a request that is refused leaves nothing.

Every change raises `version`; the file's writer reports what it has written through `saved`, so that an
acknowledgement can wait until the topic it belongs to would be found again after a crash.
"""

from collections.abc import Callable, Iterable, Iterator

from apogeemq.broker.core.names import (
    AUTO_CREATE_TOPIC_KEY_TOPIC,
    BENCHMARK_TOPIC,
    NOT_SENDABLE_TOPICS,
    OFFSET_MOVED_EVENT_TOPIC,
    ORDER_TOPIC_PREFIX,
    REVIVE_TOPIC_PREFIX,
    SCHEDULE_TOPIC,
    SELF_TEST_TOPIC,
    TIMER_TOPIC,
    TRACE_TOPIC,
    TRANS_HALF_TOPIC,
    TRANS_OP_HALF_TOPIC,
    illegal_topic_reason,
    revive_topic,
)
from apogeemq.broker.errors import InvalidParameter, SystemBusy, TopicNotExist
from apogeemq.remoting_codec.bodies import DataVersion, TopicConfig

PERM_INHERIT = 1
PERM_WRITE = 2
PERM_READ = 4
PERM_READ_WRITE = PERM_READ | PERM_WRITE

PLANNED = -1
"""The version of a topic that is not in the table yet."""

TOPICS_MAX = 50_000
QUEUES_PER_TOPIC_MAX = 16_384


class Topic:
    """One topic: its configuration and what went through it since start (plain ints, read at scrape time)."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "config",
        "is_sendable",
        "messages_in",
        "messages_out",
        "name",
        "version",
    )

    def __init__(self, config: TopicConfig, version: int) -> None:
        self.config = config
        self.name = config.topic_name
        self.version = version
        # Apache's clients may write into the revive log; whoever does would decide over other groups' messages.
        self.is_sendable = self.name not in NOT_SENDABLE_TOPICS and not self.name.startswith(
            (REVIVE_TOPIC_PREFIX, ORDER_TOPIC_PREFIX)
        )
        self.messages_in = 0
        self.bytes_in = 0
        self.messages_out = 0
        self.bytes_out = 0

    def __str__(self) -> str:
        """The form in which Apache's remarks show a topic."""
        c = self.config
        perm = "".join(letter if c.perm & bit else "-" for letter, bit in (("R", 4), ("W", 2), ("X", 1)))
        attributes = ", ".join(f"{key}={value}" for key, value in sorted(c.attributes.items()))
        return (
            f"TopicConfig [topicName={c.topic_name}, readQueueNums={c.read_queue_nums}, "
            f"writeQueueNums={c.write_queue_nums}, perm={perm}, topicFilterType={c.topic_filter_type}, "
            f"topicSysFlag={c.topic_sys_flag}, order={str(c.order).lower()}, attributes={{{attributes}}}]"
        )


class TopicTable:
    """Topics by name.

    Args:
        now_ms: wall clock, for the DataVersion that the name server compares.
        auto_create: whether clients' sends may make topics (autoCreateTopicEnable).
        default_queue_nums: queues of the template (defaultTopicQueueNums).
        topics_max: how many topics there may be; one more is refused with SystemBusy.
    """

    def __init__(
        self,
        *,
        now_ms: Callable[[], int],
        auto_create: bool,
        default_queue_nums: int,
        topics_max: int = TOPICS_MAX,
    ) -> None:
        self._now_ms = now_ms
        self.auto_create = auto_create
        self.default_queue_nums = default_queue_nums
        self.topics_max = topics_max
        self.data_version = DataVersion(counter=0, state_version=0, timestamp=now_ms())
        self.version = 0
        self.saved_version = 0
        self.changed: set[str] = set()
        """Names of topics that were made or changed and not written since: the file's writer takes them out."""
        self._topics: dict[str, Topic] = {}
        self._listeners: list[Callable[[list[Topic]], None]] = []

    def __len__(self) -> int:
        return len(self._topics)

    def __iter__(self) -> Iterator[Topic]:
        return iter(list(self._topics.values()))

    def get(self, name: str) -> Topic | None:
        """The topic of this name, or None."""
        return self._topics.get(name)

    def require(self, name: str) -> Topic:
        """The topic of this name; TopicNotExist in Apache's words when there is none."""
        topic = self._topics.get(name)
        if topic is None:
            raise TopicNotExist(
                f"topic[{name[:300]}] not exist, apply first please! \n"
                "See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
            )
        return topic

    def on_change(self, listener: Callable[[list[Topic]], None]) -> None:
        """Call `listener` with the topics that were made or changed, after every change."""
        self._listeners.append(listener)

    def load(self, configs: Iterable[TopicConfig], data_version: DataVersion | None) -> None:
        """Take over what the file holds; nobody is told."""
        for config in configs:
            self._topics[config.topic_name] = Topic(config, self.version)
        if data_version is not None:
            self.data_version = data_version

    def saved(self, version: int) -> None:
        """The file holds everything up to `version`."""
        self.saved_version = max(self.saved_version, version)

    def put(self, config: TopicConfig) -> Topic:
        """Make a topic, or give an existing one a new configuration (its counters stay)."""
        return self.put_all([config])[0]

    def put_all(self, configs: Iterable[TopicConfig]) -> list[Topic]:
        """Make or change several topics under one new version."""
        configs = list(configs)
        new = sum(config.topic_name not in self._topics for config in configs)
        if len(self._topics) + new > self.topics_max:
            raise SystemBusy(
                f"this broker already has {len(self._topics)} topics, its limit (limits.topics_max) is "
                f"{self.topics_max}: delete topics or raise the limit",
                limit="limits.topics_max",
            )
        self.version += 1
        changed = []
        for config in configs:
            topic = self._topics.get(config.topic_name)
            if topic is None:
                topic = self._topics[config.topic_name] = Topic(config, self.version)
            else:
                topic.config = config
                topic.version = self.version
            changed.append(topic)
        self.changed.update(topic.name for topic in changed)
        # The name server ignores a state whose DataVersion did not move (trap 26).
        self.data_version = self.data_version.next(self._now_ms())
        for listener in self._listeners:
            listener(changed)
        return changed

    def create_for_send(self, name: str, template_name: str, queue_nums: int) -> Topic:
        """Make the topic that a send names, as `plan_for_send` has it."""
        return self.keep(self.plan_for_send(name, template_name, queue_nums))

    def plan_for_send(self, name: str, template_name: str, queue_nums: int) -> Topic:
        """The topic that a send names, from its template. Raises InvalidParameter (the name is not legal) or
        TopicNotExist (it may not be made).
        """
        reason = illegal_topic_reason(name)
        if reason is not None:
            raise InvalidParameter(reason)
        template = self._topics.get(template_name)
        # TBW102 may be there from a time when topics were made by use: the setting of now decides.
        is_off = template_name == AUTO_CREATE_TOPIC_KEY_TOPIC and not self.auto_create
        if template is None or is_off or not template.config.perm & PERM_INHERIT:
            return self.require(name)
        queues = max(min(queue_nums, template.config.write_queue_nums), 1)
        return Topic(
            TopicConfig(
                topic_name=name,
                read_queue_nums=queues,
                write_queue_nums=queues,
                perm=template.config.perm & ~PERM_INHERIT,
                topic_filter_type=template.config.topic_filter_type,
            ),
            PLANNED,
        )

    def create_for_group(self, name: str, queue_nums: int) -> Topic:
        """The retry or DLQ topic of a group: the one there is, or a new one. Raises as `plan_for_group`."""
        return self.keep(self.plan_for_group(name, queue_nums))

    def plan_for_group(self, name: str, queue_nums: int) -> Topic:
        """The same, but a new one is only planned. Raises InvalidParameter: the name is not legal."""
        topic = self._topics.get(name)
        if topic is not None:
            return topic
        reason = illegal_topic_reason(name)
        if reason is not None:
            raise InvalidParameter(reason)
        return Topic(
            TopicConfig(topic_name=name, read_queue_nums=queue_nums, write_queue_nums=queue_nums, perm=PERM_READ_WRITE),
            PLANNED,
        )

    def keep(self, topic: Topic) -> Topic:
        """What stands in the table for a topic: itself, or for a planned one the topic that is made of it now, unless
        somebody made it meanwhile.

        Raises SystemBusy when there are too many.
        """
        if topic.version != PLANNED:
            return topic
        return self._topics.get(topic.name) or self.put(topic.config)

    def ensure_built_in(
        self, cluster_name: str, broker_name: str, delay_levels: int, revive_queue_nums: int = 8
    ) -> None:
        """Make the topics that every broker has at start, where they are missing (reference broker_behaviour.md §1)."""
        sizes = {
            SELF_TEST_TOPIC: 1,
            BENCHMARK_TOPIC: 1024,
            broker_name: 1,
            OFFSET_MOVED_EVENT_TOPIC: 1,
            SCHEDULE_TOPIC: delay_levels,
            TRACE_TOPIC: 1,
            f"{cluster_name}_REPLY_TOPIC": 1,
            TRANS_HALF_TOPIC: 1,
            TRANS_OP_HALF_TOPIC: 1,
            TIMER_TOPIC: 1,
            revive_topic(cluster_name): revive_queue_nums,
        }
        wanted = [
            TopicConfig(topic_name=name, read_queue_nums=queues, write_queue_nums=queues, perm=PERM_READ_WRITE)
            for name, queues in sizes.items()
        ]
        wanted.append(
            TopicConfig(
                topic_name=cluster_name,
                read_queue_nums=16,
                write_queue_nums=16,
                perm=PERM_READ_WRITE | PERM_INHERIT,
            )
        )
        if self.auto_create:
            wanted.append(
                TopicConfig(
                    topic_name=AUTO_CREATE_TOPIC_KEY_TOPIC,
                    read_queue_nums=self.default_queue_nums,
                    write_queue_nums=self.default_queue_nums,
                    perm=PERM_READ_WRITE | PERM_INHERIT,
                )
            )
        missing = [config for config in wanted if config.topic_name not in self._topics]
        if missing:
            self.put_all(missing)
