"""Names of topics and groups: which are legal, which are the system's, which belong to a group.

Sources: Apache TopicValidator, MixAll, KeyBuilder; reference broker_behaviour.md §1, §2.
"""

import re

RETRY_TOPIC_PREFIX = "%RETRY%"
DLQ_TOPIC_PREFIX = "%DLQ%"
SYSTEM_TOPIC_PREFIX = "rmq_sys_"
REVIVE_TOPIC_PREFIX = "rmq_sys_REVIVE_LOG_"
ORDER_TOPIC_PREFIX = "rmq_sys_ORDER_LOG_"
REVIVE_GROUP = "CID_RMQ_SYS_REVIVE_GROUP"
TRANS_GROUP = "CID_RMQ_SYS_TRANS"

AUTO_CREATE_TOPIC_KEY_TOPIC = "TBW102"
SCHEDULE_TOPIC = "SCHEDULE_TOPIC_XXXX"
TIMER_TOPIC = "rmq_sys_wheel_timer"
TRANS_HALF_TOPIC = "RMQ_SYS_TRANS_HALF_TOPIC"
TRANS_OP_HALF_TOPIC = "RMQ_SYS_TRANS_OP_HALF_TOPIC"
TRANS_CHECK_MAX_TIME_TOPIC = "TRANS_CHECK_MAX_TIME_TOPIC"
SELF_TEST_TOPIC = "SELF_TEST_TOPIC"
OFFSET_MOVED_EVENT_TOPIC = "OFFSET_MOVED_EVENT"
TRACE_TOPIC = "RMQ_SYS_TRACE_TOPIC"
BENCHMARK_TOPIC = "BenchmarkTest"
CHECKPOINT_TOPIC = "CHECKPOINT_TOPIC"

TOPIC_SIZE_MAX = 127
RETRY_OR_DLQ_TOPIC_SIZE_MAX = 255
GROUP_SIZE_MAX = 120

NOT_SENDABLE_TOPICS = frozenset(
    {
        SCHEDULE_TOPIC,
        TIMER_TOPIC,
        TRANS_HALF_TOPIC,
        TRANS_OP_HALF_TOPIC,
        TRANS_CHECK_MAX_TIME_TOPIC,
        SELF_TEST_TOPIC,
        OFFSET_MOVED_EVENT_TOPIC,
    }
)
SYSTEM_TOPICS = NOT_SENDABLE_TOPICS | {
    AUTO_CREATE_TOPIC_KEY_TOPIC,
    BENCHMARK_TOPIC,
    TRACE_TOPIC,
    CHECKPOINT_TOPIC,
}
PREDEFINED_GROUPS = (
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    TRANS_GROUP,
)

_LEGAL = re.compile(r"[%|a-zA-Z0-9_-]+")


def retry_topic(group: str) -> str:
    """The topic from which a group gets its failed messages again."""
    return RETRY_TOPIC_PREFIX + group


def dlq_topic(group: str) -> str:
    """The topic where a group's messages end that failed too often."""
    return DLQ_TOPIC_PREFIX + group


def revive_topic(cluster: str) -> str:
    """The topic where the broker writes down what was popped and acknowledged."""
    return REVIVE_TOPIC_PREFIX + cluster


def order_topic(cluster: str) -> str:
    """The topic where the broker writes down what was popped in order; ours, Apache's have none."""
    return ORDER_TOPIC_PREFIX + cluster


def is_system_topic(topic: str, own_names: frozenset[str] = frozenset()) -> bool:
    """Whether a topic belongs to the system; `own_names` are the cluster's and the broker's names."""
    return topic in SYSTEM_TOPICS or topic in own_names or topic.startswith(SYSTEM_TOPIC_PREFIX)


def illegal_topic_reason(topic: str) -> str | None:
    """Say why a topic text can't be used, or None when it can. Retry and DLQ topics may be 255 characters long."""
    if not topic:
        return "the specified topic is blank"
    if not _LEGAL.fullmatch(topic):
        return f"the specified topic [{topic[:300]}] contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
    size_max = (
        RETRY_OR_DLQ_TOPIC_SIZE_MAX if topic.startswith((RETRY_TOPIC_PREFIX, DLQ_TOPIC_PREFIX)) else TOPIC_SIZE_MAX
    )
    if len(topic) > size_max:
        return f"the specified topic is longer than topic max length {size_max}"
    return None


def illegal_group_reason(group: str) -> str | None:
    """Say why a group text can't be used, or None when it can."""
    if not group:
        return "the specified group is blank"
    if not _LEGAL.fullmatch(group):
        return f"the specified group [{group[:300]}] contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
    if len(group) > GROUP_SIZE_MAX:
        return f"the specified group is longer than group max length {GROUP_SIZE_MAX}"
    return None
