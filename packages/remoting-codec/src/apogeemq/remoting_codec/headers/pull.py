"""Pulling messages from one queue."""

from apogeemq.remoting_codec.headers.base import CommandHeader, TopicRequestHeader
from apogeemq.remoting_codec.java_numbers import Int32, Int64


class PullMessageRequestHeader(TopicRequestHeader, kw_only=True):
    """PULL_MESSAGE (11) and LITE_PULL_MESSAGE (361). `sys_flag`: see `codes.PullSysFlag`.

    `commit_offset` counts only with the commit bit, `suspend_timeout_millis` only with the suspend bit.
    `proxy_froward_client_id` is spelt so on the wire. `lite_topic` came with 5.5.
    """

    consumer_group: str
    topic: str
    queue_id: Int32
    queue_offset: Int64
    max_msg_nums: Int32
    sys_flag: Int32
    commit_offset: Int64
    suspend_timeout_millis: Int64
    subscription: str | None = None
    sub_version: Int64
    expression_type: str | None = None
    max_msg_bytes: Int32 | None = None
    request_source: Int32 | None = None
    proxy_froward_client_id: str | None = None
    lite_topic: str | None = None


class PullMessageResponseHeader(CommandHeader, kw_only=True):
    """Answer to a pull, whatever its code: where to go on, and what the queue holds: [min_offset, max_offset)."""

    suggest_which_broker_id: Int64
    next_begin_offset: Int64
    min_offset: Int64
    max_offset: Int64
    offset_delta: Int64 | None = None
    topic_sys_flag: Int32 | None = None
    group_sys_flag: Int32 | None = None
    forbidden_type: Int32 | None = None
