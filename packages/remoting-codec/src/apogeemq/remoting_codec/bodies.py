"""JSON bodies of requests and answers, and the tables under config/, except routes (route.py).

Field names and defaults are Java's. A Java Set is a list here: its order carries no meaning, but keeping it lets a
recorded body be written back to the same bytes. Enums are the Apache names.
Source: json_bodies.tsv and enums.tsv (Apache remoting/protocol/{body,heartbeat,subscription}, common/TopicConfig),
remoting.md §8, recorded bodies and config files of 5.3.3.
"""

import base64
import struct
from enum import StrEnum
from typing import ClassVar

import msgspec
from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.remoting_codec.compression import decompress
from apogeemq.remoting_codec.errors import BodyInvalid
from apogeemq.remoting_codec.fastjson import BODY_SIZE_BYTES_MAX, FILE_SIZE_BYTES_MAX, JsonBody, JsonValue
from apogeemq.remoting_codec.java_numbers import Int32, Int64
from apogeemq.remoting_codec.route import BrokerData, TopicQueueMappingDetail, TopicQueueMappingInfo

# --------------------------------------------------------------------------------------------------------------------
# Enums
# --------------------------------------------------------------------------------------------------------------------


class ConsumeType(StrEnum):
    """How a consumer gets its messages."""

    CONSUME_ACTIVELY = "CONSUME_ACTIVELY"
    CONSUME_PASSIVELY = "CONSUME_PASSIVELY"
    CONSUME_POP = "CONSUME_POP"


class MessageModel(StrEnum):
    """Whether every consumer of a group gets each message, or one of them."""

    BROADCASTING = "BROADCASTING"
    CLUSTERING = "CLUSTERING"


class ConsumeFromWhere(StrEnum):
    """Where a group without offsets begins. The three in the middle are deprecated but still sent."""

    CONSUME_FROM_LAST_OFFSET = "CONSUME_FROM_LAST_OFFSET"
    CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST"
    CONSUME_FROM_MIN_OFFSET = "CONSUME_FROM_MIN_OFFSET"
    CONSUME_FROM_MAX_OFFSET = "CONSUME_FROM_MAX_OFFSET"
    CONSUME_FROM_FIRST_OFFSET = "CONSUME_FROM_FIRST_OFFSET"
    CONSUME_FROM_TIMESTAMP = "CONSUME_FROM_TIMESTAMP"


class TopicFilterType(StrEnum):
    """Whether messages of a topic have one tag or several."""

    SINGLE_TAG = "SINGLE_TAG"
    MULTI_TAG = "MULTI_TAG"


class GroupRetryPolicyType(StrEnum):
    """Which of a group's two retry policies holds."""

    EXPONENTIAL = "EXPONENTIAL"
    CUSTOMIZED = "CUSTOMIZED"


# --------------------------------------------------------------------------------------------------------------------
# Queues and versions
# --------------------------------------------------------------------------------------------------------------------


class MessageQueue(JsonBody, frozen=True, order=True):
    """One queue of a topic on one broker. Sorts as Java's does, which all members of a group must agree on."""

    topic: str
    broker_name: str
    queue_id: Int32


class DataVersion(JsonBody, frozen=True, kw_only=True):
    """Version of a table; a name server takes a table over only when this changed. `timestamp`: ms since 1970."""

    state_version: int = 0
    timestamp: int = 0
    counter: int = 0

    def next(self, now_ms: int, state_version: int | None = None) -> "DataVersion":
        """The version after a change at `now_ms`."""
        state = self.state_version if state_version is None else state_version
        return DataVersion(state_version=state, timestamp=now_ms, counter=self.counter + 1)


class TableBody(JsonBody, frozen=True):
    """A body that is also a file under config/, and may grow with it."""

    SIZE_BYTES_MAX: ClassVar[int] = FILE_SIZE_BYTES_MAX
    TOLERANT_SIZE_BYTES_MAX: ClassVar[int] = FILE_SIZE_BYTES_MAX


# --------------------------------------------------------------------------------------------------------------------
# Heartbeats and subscriptions
# --------------------------------------------------------------------------------------------------------------------


class SubscriptionData(JsonBody, frozen=True, kw_only=True):
    """What a group wants of a topic.

    `sub_string` is the expression ("*", "A || B", or SQL when `expression_type` is "SQL92"); `tags_set` and `code_set`
    are its tags and their hashes; `sub_version` is when the subscription was made, in ms since 1970.
    """

    topic: str
    sub_string: str = "*"
    tags_set: list[str] = msgspec.field(default_factory=list)
    code_set: list[Int32] = msgspec.field(default_factory=list)
    sub_version: Int64 = 0
    expression_type: str = "TAG"
    class_filter_mode: bool = False


class ProducerData(JsonBody, frozen=True, kw_only=True):
    """A producer group that a client takes part in."""

    group_name: str


class ConsumerData(JsonBody, frozen=True, kw_only=True):
    """A consumer group that a client takes part in, and what it subscribes to."""

    group_name: str
    consume_type: ConsumeType
    message_model: MessageModel
    consume_from_where: ConsumeFromWhere
    subscription_data_set: list[SubscriptionData] = msgspec.field(default_factory=list)
    unit_mode: bool = False


_ORDINAL_FIELDS: tuple[tuple[str, type[StrEnum]], ...] = (
    ("consumeType", ConsumeType),
    ("messageModel", MessageModel),
    ("consumeFromWhere", ConsumeFromWhere),
)


class HeartbeatData(JsonBody, frozen=True, kw_only=True):
    """What a client tells a broker every 30 s (HEART_BEAT).

    With `heartbeat_fingerprint` ≠ 0 it is of the second version: `without_sub` True then means that the subscriptions
    are those of the last heartbeat with the same fingerprint.
    """

    client_id: str = msgspec.field(name="clientID")
    producer_data_set: list[ProducerData] = msgspec.field(default_factory=list)
    consumer_data_set: list[ConsumerData] = msgspec.field(default_factory=list)
    heartbeat_fingerprint: Int32 = 0
    without_sub: bool = False

    @classmethod
    def _repair(cls, value: JsonValue) -> JsonValue:
        """The C++ client writes a consumer's three enums by ordinal, which fastjson takes for the name."""
        consumers = value.get("consumerDataSet") if isinstance(value, dict) else None
        for consumer in consumers if isinstance(consumers, list) else ():
            if not isinstance(consumer, dict):
                continue
            for field, enum in _ORDINAL_FIELDS:
                ordinal = consumer.get(field)
                names = list(enum)
                if type(ordinal) is int and 0 <= ordinal < len(names):
                    consumer[field] = names[ordinal].name
        return value


class CheckClientRequestBody(JsonBody, frozen=True, kw_only=True):
    """A client asks whether the broker can compile its subscription (CHECK_CLIENT_CONFIG)."""

    client_id: str | None = None
    group: str | None = None
    subscription_data: SubscriptionData
    namespace: str | None = None


class GetConsumerListByGroupResponseBody(JsonBody, frozen=True, kw_only=True):
    """Client ids of a group's members. An empty group has no such answer, but code 1."""

    consumer_id_list: list[str]


# --------------------------------------------------------------------------------------------------------------------
# Queue locks
# --------------------------------------------------------------------------------------------------------------------


class LockBatchRequestBody(JsonBody, frozen=True, kw_only=True):
    """A client of an ordered group wants to be the only one on these queues (LOCK_BATCH_MQ)."""

    consumer_group: str
    client_id: str
    only_this_broker: bool = False
    mq_set: list[MessageQueue] = msgspec.field(default_factory=list)


class LockBatchResponseBody(JsonBody, frozen=True, kw_only=True):
    """The queues that the client holds now."""

    lock_ok_mq_set: list[MessageQueue] = msgspec.field(default_factory=list, name="lockOKMQSet")


class UnlockBatchRequestBody(JsonBody, frozen=True, kw_only=True):
    """A client gives its queues back (UNLOCK_BATCH_MQ)."""

    consumer_group: str
    client_id: str
    only_this_broker: bool = False
    mq_set: list[MessageQueue] = msgspec.field(default_factory=list)


# --------------------------------------------------------------------------------------------------------------------
# Pop
# --------------------------------------------------------------------------------------------------------------------


class BatchAck(JsonBody, frozen=True, kw_only=True):
    """Messages of one pop of one queue that are acknowledged together.

    `bit_set` is Base64 of little-endian bytes: bit i stands for the message at `start_offset` + i. `topic` is the one
    that was popped; `retry` says by its mark (0, 1, 2) whether they lay in a retry topic of it.
    """

    consumer_group: str = msgspec.field(name="c")
    topic: str = msgspec.field(name="t")
    retry: str = msgspec.field(name="r", default="0")
    start_offset: Int64 = msgspec.field(name="so")
    queue_id: Int32 = msgspec.field(name="q")
    revive_queue_id: Int32 = msgspec.field(name="rq")
    pop_time: Int64 = msgspec.field(name="pt")
    invisible_time: Int64 = msgspec.field(name="it")
    bit_set: str = msgspec.field(name="b")

    def offsets(self, count_max: int) -> list[int]:
        """Queue offsets of the messages. BodyInvalid when it is no bit set, or one of more than `count_max` bits."""
        if len(self.bit_set) > 4 * (count_max // 24 + 2):
            raise BodyInvalid(f"BatchAck: the bit set b has more than {count_max} bits")
        try:
            bits = int.from_bytes(base64.b64decode(self.bit_set, validate=True), "little")
        except ValueError as error:
            raise BodyInvalid("BatchAck: the bit set b is not Base64") from error
        if bits.bit_length() > count_max:
            raise BodyInvalid(f"BatchAck: the bit set b has more than {count_max} bits")
        return [self.start_offset + bit for bit in range(bits.bit_length()) if bits >> bit & 1]


class BatchAckMessageRequestBody(JsonBody, frozen=True, kw_only=True):
    """Acknowledgements for one broker (BATCH_ACK_MESSAGE)."""

    broker_name: str | None = None
    acks: list[BatchAck] = msgspec.field(default_factory=list)


# --------------------------------------------------------------------------------------------------------------------
# Topics
# --------------------------------------------------------------------------------------------------------------------


class TopicConfig(JsonBody, frozen=True, kw_only=True):
    """One topic on one broker. `perm`: 4 read, 2 write, 1 inherit, added up."""

    topic_name: str
    read_queue_nums: int = 16
    write_queue_nums: int = 16
    perm: int = 6
    topic_filter_type: TopicFilterType = TopicFilterType.SINGLE_TAG
    topic_sys_flag: int = 0
    order: bool = False
    attributes: dict[str, str] = msgspec.field(default_factory=dict)


class TopicConfigAndQueueMapping(TopicConfig, frozen=True, kw_only=True):
    """One topic as GET_TOPIC_CONFIG answers it; only static topics have a mapping."""

    mapping_detail: TopicQueueMappingDetail | None = None


class TopicConfigSerializeWrapper(TableBody, frozen=True, kw_only=True):
    """All topics of a broker by name: config/topics.json."""

    topic_config_table: dict[str, TopicConfig] = msgspec.field(default_factory=dict)
    data_version: DataVersion = DataVersion()


class TopicConfigAndMappingSerializeWrapper(TopicConfigSerializeWrapper, frozen=True, kw_only=True):
    """The same with the mappings of static topics: GET_ALL_TOPIC_CONFIG and registrations of 5.x brokers."""

    topic_queue_mapping_info_map: dict[str, TopicQueueMappingInfo] = msgspec.field(default_factory=dict)
    topic_queue_mapping_detail_map: dict[str, TopicQueueMappingDetail] = msgspec.field(default_factory=dict)
    mapping_data_version: DataVersion = DataVersion()


class TopicList(JsonBody, frozen=True, kw_only=True):
    """Names of topics; `broker_addr` only where a client asked a broker for its system topics."""

    topic_list: list[str] = msgspec.field(default_factory=list)
    broker_addr: str | None = None


class TopicOffset(JsonBody, frozen=True, kw_only=True):
    """Where one queue begins and ends, and when it last grew (ms since 1970)."""

    min_offset: int
    max_offset: int
    last_update_timestamp: int


class TopicStatsTable(JsonBody, frozen=True, kw_only=True):
    """The queues of a topic on one broker (GET_TOPIC_STATS_INFO). Keyed by object: written bare, never standard."""

    offset_table: dict[MessageQueue, TopicOffset] = msgspec.field(default_factory=dict)
    topic_put_tps: float = 0.0


# --------------------------------------------------------------------------------------------------------------------
# Groups
# --------------------------------------------------------------------------------------------------------------------


class ExponentialRetryPolicy(JsonBody, frozen=True, kw_only=True):
    """Delays that grow by a factor. `initial` and `max` in ms."""

    initial: int = 5_000
    max: int = 7_200_000
    multiplier: int = 2


class CustomizedRetryPolicy(JsonBody, frozen=True, kw_only=True):
    """Delays one by one, in ms. The default is levels 3 to 18 of the delay levels, with 1 s and 5 s before them."""

    next: list[int] = msgspec.field(
        default_factory=lambda: [
            seconds * 1000
            for seconds in (1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200)
        ]
    )


class GroupRetryPolicy(JsonBody, frozen=True, kw_only=True):
    """How long a group's failed messages wait; a policy that is None has its defaults."""

    type: GroupRetryPolicyType = GroupRetryPolicyType.CUSTOMIZED
    exponential_retry_policy: ExponentialRetryPolicy | None = None
    customized_retry_policy: CustomizedRetryPolicy | None = None


class SimpleSubscriptionData(JsonBody, frozen=True, kw_only=True):
    """A subscription that an operator fixed for a group."""

    topic: str
    expression_type: str | None = None
    expression: str | None = None
    version: int = 0


class SubscriptionGroupConfig(JsonBody, frozen=True, kw_only=True):
    """One consumer group on one broker."""

    group_name: str
    consume_enable: bool = True
    consume_from_min_enable: bool = True
    consume_broadcast_enable: bool = True
    consume_message_orderly: bool = False
    retry_queue_nums: int = 1
    retry_max_times: int = 16
    group_retry_policy: GroupRetryPolicy = GroupRetryPolicy()
    broker_id: int = 0
    which_broker_when_consume_slowly: int = 1
    notify_consumer_ids_changed_enable: bool = True
    group_sys_flag: int = 0
    consume_timeout_minute: int = 15
    subscription_data_set: list[SimpleSubscriptionData] | None = None
    attributes: dict[str, str] = msgspec.field(default_factory=dict)


class SubscriptionGroupWrapper(TableBody, frozen=True, kw_only=True):
    """All groups of a broker by name: config/subscriptionGroup.json.

    `forbidden_table`: group → topic → bits of what is forbidden.
    """

    subscription_group_table: dict[str, SubscriptionGroupConfig] = msgspec.field(default_factory=dict)
    forbidden_table: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    data_version: DataVersion = DataVersion()


class GroupList(JsonBody, frozen=True, kw_only=True):
    """Names of groups."""

    group_list: list[str] = msgspec.field(default_factory=list)


# --------------------------------------------------------------------------------------------------------------------
# Offsets
# --------------------------------------------------------------------------------------------------------------------


class ConsumerOffsetSerializeWrapper(TableBody, frozen=True, kw_only=True):
    """All offsets of all groups: config/consumerOffset.json. "topic@group" → queue id → queue offset, bare keys.

    `group_topic_map` (group → topics) follows from the keys; 5.3 writes it, nobody reads it.
    """

    offset_table: dict[str, dict[int, int]] = msgspec.field(default_factory=dict)
    data_version: DataVersion | None = None
    group_topic_map: dict[str, list[str]] | None = None


class OrderedQueue(JsonBody, frozen=True, kw_only=True):
    """What ApogeeMQ's broker adds to an OrderInfo: several pops at a time, and message groups. Java passes it over.

    `held`: [queue offset, message group, pop time, visible from, times handed out, attempt id]; in ms since 1970.
    """

    floor: int
    held: list[tuple[int, str, int, int, int, str]] = msgspec.field(default_factory=list)
    acked: list[int] = msgspec.field(default_factory=list)


class OrderInfo(JsonBody, frozen=True, kw_only=True):
    """The last ordered pop of one queue by one group.

    i    invisible time, ms                       ot   queue offset → visible from, ms since 1970, where it was changed
    o    queue offsets: the first, then distances from it      oc   queue offset → how often it was handed out before
    l    last consumption, ms since 1970          cm   bit n: the message o[n] is acknowledged; at most 64
    a    attempt id
    """

    pop_time: int = 0
    i: int | None = None
    o: list[int] = msgspec.field(default_factory=list)
    ot: dict[int, int] = msgspec.field(default_factory=dict)
    oc: dict[int, int] = msgspec.field(default_factory=dict)
    l: int = 0  # noqa: E741 — Java's name
    cm: int = 0
    a: str | None = None
    ordered_queue: OrderedQueue | None = None


class ConsumerOrderInfoWrapper(TableBody, frozen=True, kw_only=True):
    """Ordered pops: config/consumerOrderInfo.json. "topic@group" → queue id → OrderInfo, bare keys.

    `order_log_offset` is ApogeeMQ's: up to where in its order log the table goes; None where Java wrote the file.
    """

    table: dict[str, dict[int, OrderInfo]] = msgspec.field(default_factory=dict)
    order_log_offset: int | None = None


class DelayOffsetSerializeWrapper(TableBody, frozen=True, kw_only=True):
    """How far each delay level was delivered: config/delayOffset.json. Level → queue offset, bare keys."""

    offset_table: dict[int, int] = msgspec.field(default_factory=dict)
    data_version: DataVersion | None = None


class ResetOffsetBody(JsonBody, frozen=True, kw_only=True):
    """New offsets for a group, told to its clients and to the operator. Keyed by object: written bare."""

    offset_table: dict[MessageQueue, int] = msgspec.field(default_factory=dict)


class OffsetWrapper(JsonBody, frozen=True, kw_only=True):
    """How far a group is in one queue, and when the message at its offset was stored (ms since 1970)."""

    broker_offset: int
    consumer_offset: int
    pull_offset: int = 0
    last_timestamp: int = 0


class ConsumeStats(JsonBody, frozen=True, kw_only=True):
    """How far a group is (GET_CONSUME_STATS). Keyed by object: written bare."""

    offset_table: dict[MessageQueue, OffsetWrapper] = msgspec.field(default_factory=dict)
    consume_tps: float = 0.0


# --------------------------------------------------------------------------------------------------------------------
# Clusters
# --------------------------------------------------------------------------------------------------------------------


class ClusterInfo(JsonBody, frozen=True, kw_only=True):
    """All brokers by name, and the broker names of each cluster (GET_BROKER_CLUSTER_INFO); bare keys always."""

    broker_addr_table: dict[str, BrokerData] = msgspec.field(default_factory=dict)
    cluster_addr_table: dict[str, list[str]] = msgspec.field(default_factory=dict)


class BrokerMemberGroup(JsonBody, frozen=True, kw_only=True):
    """The members of one broker name: broker id → "host:port" (GET_BROKER_MEMBER_GROUP answers it wrapped)."""

    cluster: str | None = None
    broker_name: str
    broker_addrs: dict[int, str] = msgspec.field(default_factory=dict)


class GetBrokerMemberGroupResponseBody(JsonBody, frozen=True, kw_only=True):
    """The answer to GET_BROKER_MEMBER_GROUP."""

    broker_member_group: BrokerMemberGroup | None = None


# --------------------------------------------------------------------------------------------------------------------
# Connections and runtime information
# --------------------------------------------------------------------------------------------------------------------


class Connection(JsonBody, frozen=True, kw_only=True):
    """One client. `language` is a LanguageCode's name."""

    client_id: str
    client_addr: str
    language: str
    version: int


class ConsumerConnection(JsonBody, frozen=True, kw_only=True):
    """The members of a consumer group and what they subscribe to (GET_CONSUMER_CONNECTION_LIST)."""

    connection_set: list[Connection] = msgspec.field(default_factory=list)
    subscription_table: dict[str, SubscriptionData] = msgspec.field(default_factory=dict)
    consume_type: ConsumeType | None = None
    message_model: MessageModel | None = None
    consume_from_where: ConsumeFromWhere | None = None


class ProducerConnection(JsonBody, frozen=True, kw_only=True):
    """The members of a producer group (GET_PRODUCER_CONNECTION_LIST)."""

    connection_set: list[Connection] = msgspec.field(default_factory=list)


class KVTable(JsonBody, frozen=True, kw_only=True):
    """A table of text: runtime information, a name server's config, the answer to a registration."""

    table: dict[str, str] = msgspec.field(default_factory=dict)


# --------------------------------------------------------------------------------------------------------------------
# Registration of an Apache broker
# --------------------------------------------------------------------------------------------------------------------

MAPPING_SECTION_VERSION_MIN = 413
"""Brokers from V5_0_0 on append the mappings of static topics to a compressed registration."""


class RegisterBrokerBody(JsonBody, frozen=True, kw_only=True):
    """The body of REGISTER_BROKER: a broker's topics and filter servers.

    Plain, it is JSON; compressed (ext field compressed=true), it is a zlib stream of
    ```
    size i32 | DataVersion as JSON
    count i32 | count times: size i32 | "name readQueueNums writeQueueNums perm filterType attributesAsJSON"
    size i32 | filter servers as a JSON list
    count i32 | count times: size i32 | TopicQueueMappingInfo as JSON          brokers from version 413 on
    ```
    """

    topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper = TopicConfigAndMappingSerializeWrapper()
    filter_server_list: list[str] = msgspec.field(default_factory=list)

    @classmethod
    def decode_compressed(
        cls, body: bytes, version: int, *, size_bytes_max: int = BODY_SIZE_BYTES_MAX
    ) -> "RegisterBrokerBody":
        """The value of a compressed body from a broker of this `version` (of the request's header).

        Errors: BodyInvalid, also when it would take more than `size_bytes_max` decompressed.
        """
        reader = _SizedReader(decompress(body, MessageSysFlag.COMPRESSED_FLAG, size_bytes_max))
        data_version = DataVersion.decode(reader.block())
        topics = [_topic_config_from_text(reader.block()) for _ in range(reader.count())]
        filter_servers = _decode_text_list(reader.block())
        mappings: list[TopicQueueMappingInfo] = []
        if version >= MAPPING_SECTION_VERSION_MIN:
            mappings = [TopicQueueMappingInfo.decode(reader.block()) for _ in range(reader.count())]
        reader.finish()
        wrapper = TopicConfigAndMappingSerializeWrapper(
            topic_config_table={topic.topic_name: topic for topic in topics},
            data_version=data_version,
            topic_queue_mapping_info_map={mapping.topic: mapping for mapping in mappings if mapping.topic},
        )
        return cls(topic_config_serialize_wrapper=wrapper, filter_server_list=filter_servers)


class _SizedReader:
    """Walks over a buffer of int32 counts and of blocks with an int32 size before them."""

    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer
        self._at = 0

    def count(self) -> int:
        """The next int32. Each counted block has 4 bytes at least, so a count cannot promise more than is there."""
        count = self._int32()
        if not 0 <= count <= (len(self._buffer) - self._at) // 4:
            raise BodyInvalid(f"count {count} of the registration does not fit")
        return count

    def block(self) -> bytes:
        size_bytes = self._int32()
        end = self._at + size_bytes
        if size_bytes < 0 or end > len(self._buffer):
            raise BodyInvalid(f"size {size_bytes} in the registration at {self._at - 4} does not fit")
        block = self._buffer[self._at : end]
        self._at = end
        return block

    def finish(self) -> None:
        if self._at != len(self._buffer):
            raise BodyInvalid(f"{len(self._buffer) - self._at} bytes follow the registration")

    def _int32(self) -> int:
        if self._at + 4 > len(self._buffer):
            raise BodyInvalid(f"the registration ends at {len(self._buffer)}")
        (value,) = struct.unpack_from(">i", self._buffer, self._at)
        self._at += 4
        return int(value)


def _topic_config_from_text(text: bytes) -> TopicConfig:
    """A topic's line: five words and, from 5.x brokers, the attributes as JSON."""
    words = text.decode("utf-8", "replace").split(" ", 5)
    if len(words) < 5:
        raise BodyInvalid(f"a topic of the registration has {len(words)} words instead of 5 or 6")
    name, read_queue_nums, write_queue_nums, perm, filter_type = words[:5]
    try:
        return TopicConfig(
            topic_name=name,
            read_queue_nums=int(read_queue_nums),
            write_queue_nums=int(write_queue_nums),
            perm=int(perm),
            topic_filter_type=TopicFilterType(filter_type),
            attributes=msgspec.json.decode(words[5], type=dict[str, str]) if len(words) > 5 and words[5] else {},
        )
    except (ValueError, msgspec.DecodeError) as error:
        raise BodyInvalid(f"a topic of the registration is damaged: {error}") from error


def _decode_text_list(text: bytes) -> list[str]:
    try:
        return msgspec.json.decode(text, type=list[str])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BodyInvalid(f"filter servers of the registration: {error}") from error
