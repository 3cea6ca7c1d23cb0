"""JSON bodies between a broker and one of its clients: how it is doing, what it consumed, what it shall consume.

Names and defaults are Java's, misspellings included (`droped`, `spentTimeMills`). Maps keyed by queue are written bare.
Source: json_bodies.tsv and enums.tsv (Apache remoting/protocol/body, common/message), bodies recorded from 5.3.3.
"""

from enum import StrEnum

import msgspec
from apogeemq.remoting_codec.bodies import MessageModel, MessageQueue, SubscriptionData, TableBody
from apogeemq.remoting_codec.fastjson import JsonBody
from apogeemq.remoting_codec.java_numbers import Int32


class CMResult(StrEnum):
    """How one message's consumption ended in the client."""

    CR_SUCCESS = "CR_SUCCESS"
    CR_LATER = "CR_LATER"
    CR_ROLLBACK = "CR_ROLLBACK"
    CR_COMMIT = "CR_COMMIT"
    CR_THROW_EXCEPTION = "CR_THROW_EXCEPTION"
    CR_RETURN_NULL = "CR_RETURN_NULL"


class MessageRequestMode(StrEnum):
    """How the members of a group get a topic's messages."""

    PULL = "PULL"
    POP = "POP"


class LiteSubscriptionAction(StrEnum):
    """What a lite subscription command does to the topics it lists, or to all."""

    PARTIAL_ADD = "PARTIAL_ADD"
    PARTIAL_REMOVE = "PARTIAL_REMOVE"
    COMPLETE_ADD = "COMPLETE_ADD"
    COMPLETE_REMOVE = "COMPLETE_REMOVE"


# --------------------------------------------------------------------------------------------------------------------
# How a consumer is doing
# --------------------------------------------------------------------------------------------------------------------


class GetConsumerStatusBody(JsonBody, frozen=True, kw_only=True):
    """Offsets that consumers hold in memory (221, 223).

    A client fills `message_queue_table` with its own; a broker answers with those of each client id in
    `consumer_table`.
    """

    message_queue_table: dict[MessageQueue, int] = msgspec.field(default_factory=dict)
    consumer_table: dict[str, dict[MessageQueue, int]] = msgspec.field(default_factory=dict)


class ProcessQueueInfo(JsonBody, frozen=True, kw_only=True):
    """One queue that a consumer pulls from. Offsets are queue offsets, timestamps ms since 1970."""

    commit_offset: int = 0
    cached_msg_min_offset: int = 0
    cached_msg_max_offset: int = 0
    cached_msg_count: int = 0
    cached_msg_size_in_mi_b: int = msgspec.field(default=0, name="cachedMsgSizeInMiB")
    transaction_msg_min_offset: int = 0
    transaction_msg_max_offset: int = 0
    transaction_msg_count: int = 0
    locked: bool = False
    try_unlock_times: int = 0
    last_lock_timestamp: int = 0
    droped: bool = False
    last_pull_timestamp: int = 0
    last_consume_timestamp: int = 0


class PopProcessQueueInfo(JsonBody, frozen=True, kw_only=True):
    """One queue that a consumer pops from."""

    wait_ack_count: int = 0
    droped: bool = False
    last_pop_timestamp: int = 0


class ConsumeStatus(JsonBody, frozen=True, kw_only=True):
    """What a consumer did with one topic of late: times in ms, rates per second, failures of the last hour."""

    pull_rt: float = msgspec.field(default=0.0, name="pullRT")
    pull_tps: float = msgspec.field(default=0.0, name="pullTPS")
    consume_rt: float = msgspec.field(default=0.0, name="consumeRT")
    consume_ok_tps: float = msgspec.field(default=0.0, name="consumeOKTPS")
    consume_failed_tps: float = msgspec.field(default=0.0, name="consumeFailedTPS")
    consume_failed_msgs: int = 0


class ConsumerRunningInfo(JsonBody, frozen=True, kw_only=True):
    """Everything that a consumer tells about itself (GET_CONSUMER_RUNNING_INFO).

    `properties` are its settings as text; `jstack` the stacks of its threads, where it was asked for them.
    """

    properties: dict[str, str] = msgspec.field(default_factory=dict)
    subscription_set: list[SubscriptionData] = msgspec.field(default_factory=list)
    mq_table: dict[MessageQueue, ProcessQueueInfo] = msgspec.field(default_factory=dict)
    mq_pop_table: dict[MessageQueue, PopProcessQueueInfo] = msgspec.field(default_factory=dict)
    status_table: dict[str, ConsumeStatus] = msgspec.field(default_factory=dict)
    user_consumer_info: dict[str, str] = msgspec.field(default_factory=dict)
    jstack: str | None = None


class ConsumeMessageDirectlyResult(JsonBody, frozen=True, kw_only=True):
    """How a client consumed the one message that it was given (CONSUME_MESSAGE_DIRECTLY), in `spent_time_mills` ms."""

    order: bool = False
    auto_commit: bool = True
    consume_result: CMResult | None = None
    remark: str | None = None
    spent_time_mills: int = 0


# --------------------------------------------------------------------------------------------------------------------
# What it shall consume
# --------------------------------------------------------------------------------------------------------------------


class MessageQueueForC(JsonBody, frozen=True, kw_only=True):
    """One queue with its new offset, for clients that can't read objects as keys."""

    topic: str
    broker_name: str
    queue_id: int
    offset: int


class ResetOffsetBodyForC(JsonBody, frozen=True, kw_only=True):
    """ResetOffsetBody as a list: what C++ clients are told of new offsets (RESET_CONSUMER_CLIENT_OFFSET)."""

    offset_table: list[MessageQueueForC] = msgspec.field(default_factory=list)


class QueryAssignmentRequestBody(JsonBody, frozen=True, kw_only=True):
    """A client lets the broker allocate queues (QUERY_ASSIGNMENT). `strategy_name`: AVG, AVG_BY_CIRCLE, …"""

    topic: str
    consumer_group: str
    client_id: str
    strategy_name: str | None = None
    message_model: MessageModel = MessageModel.CLUSTERING


class MessageQueueAssignment(JsonBody, frozen=True, kw_only=True):
    """One queue, and how to get its messages. Queue id -1 stands for all queues of that broker."""

    message_queue: MessageQueue
    mode: MessageRequestMode = MessageRequestMode.PULL
    attachments: dict[str, str] | None = None


class QueryAssignmentResponseBody(JsonBody, frozen=True, kw_only=True):
    """The client's share; None where the broker knows nothing of the topic or the group."""

    message_queue_assignments: list[MessageQueueAssignment] | None = None


class SetMessageRequestModeRequestBody(JsonBody, frozen=True, kw_only=True):
    """How a group shall get a topic's messages. `pop_share_queue_num`: with how many others a popped queue is shared;
    0 with all."""

    topic: str
    consumer_group: str
    mode: MessageRequestMode = MessageRequestMode.PULL
    pop_share_queue_num: Int32 = 0


class MessageRequestModeSerializeWrapper(TableBody, frozen=True, kw_only=True):
    """All that was said so: config/messageRequestMode.json. Topic → group → mode."""

    message_request_mode_map: dict[str, dict[str, SetMessageRequestModeRequestBody]] = msgspec.field(
        default_factory=dict
    )


class OffsetOption(JsonBody, frozen=True, kw_only=True):
    """Where a lite subscription begins. `type`: POLICY, OFFSET, TAIL_N or TIMESTAMP; `value` as the type means it."""

    type: str
    value: int = 0


class LiteSubscriptionDTO(JsonBody, frozen=True, kw_only=True):
    """One change of a client's lite subscriptions inside a topic."""

    action: LiteSubscriptionAction
    client_id: str
    group: str
    topic: str
    lite_topic_set: list[str] = msgspec.field(default_factory=list)
    offset_option: OffsetOption | None = None
    version: int = 0


class LiteSubscriptionCtlRequestBody(JsonBody, frozen=True, kw_only=True):
    """Changes of lite subscriptions (LITE_SUBSCRIPTION_CTL, 5.5)."""

    subscription_set: list[LiteSubscriptionDTO] = msgspec.field(default_factory=list)
