"""Popping: taking messages for a time, acknowledging them, changing that time, waiting for some.

`extra_info` is a receipt handle: start offset, pop time, invisible time, revive queue, retry mark, broker, queue and
queue offset, separated by spaces. `lite_topic` and `suspend` came with 5.5.
"""

from apogeemq.remoting_codec.headers.base import CommandHeader, TopicRequestHeader
from apogeemq.remoting_codec.java_numbers import Int32, Int64


class PopMessageRequestHeader(TopicRequestHeader, kw_only=True):
    """POP_MESSAGE (200050). `queue_id` -1: all queues; times in ms; `init_mode` 0: from the oldest, 1: the newest."""

    consumer_group: str
    topic: str
    queue_id: Int32
    max_msg_nums: Int32
    invisible_time: Int64
    poll_time: Int64
    born_time: Int64
    init_mode: Int32
    exp_type: str | None = None
    exp: str | None = None
    order: bool = False
    attempt_id: str | None = None


class PopMessageResponseHeader(CommandHeader, kw_only=True):
    """Answer to a pop. The infos are lists of `mark queue offset…`, separated by semicolons."""

    pop_time: Int64
    invisible_time: Int64
    revive_qid: Int32
    rest_num: Int64
    start_offset_info: str | None = None
    msg_offset_info: str | None = None
    order_count_info: str | None = None


class AckMessageRequestHeader(TopicRequestHeader, kw_only=True):
    """ACK_MESSAGE (200051). `topic` is the real one: a retry topic for what was popped there."""

    consumer_group: str
    topic: str
    queue_id: Int32
    extra_info: str
    offset: Int64
    lite_topic: str | None = None


class ChangeInvisibleTimeRequestHeader(TopicRequestHeader, kw_only=True):
    """CHANGE_MESSAGE_INVISIBLETIME (200053): `invisible_time` ms from now on. `topic` as for an acknowledgement."""

    consumer_group: str
    topic: str
    queue_id: Int32
    extra_info: str
    offset: Int64
    invisible_time: Int64
    lite_topic: str | None = None
    suspend: bool | None = None


class ChangeInvisibleTimeResponseHeader(CommandHeader, kw_only=True):
    """Answer to a change: the parts of the new handle."""

    pop_time: Int64
    invisible_time: Int64
    revive_qid: Int32


class NotificationRequestHeader(TopicRequestHeader, kw_only=True):
    """NOTIFICATION (200054): wait, without taking anything, until there is something to pop. Times in ms."""

    consumer_group: str
    topic: str
    queue_id: Int32
    poll_time: Int64
    born_time: Int64
    order: bool = False
    attempt_id: str | None = None
    exp_type: str | None = None
    exp: str | None = None


class NotificationResponseHeader(CommandHeader, kw_only=True):
    """Answer to a notification. `polling_full`: not held, since too many wait already."""

    has_msg: bool
    polling_full: bool = False


class PollingInfoRequestHeader(TopicRequestHeader, kw_only=True):
    """POLLING_INFO (200055): how many wait for messages of a queue; `queue_id` -1 asks for those who wait for any."""

    consumer_group: str
    topic: str
    queue_id: Int32


class PollingInfoResponseHeader(CommandHeader, kw_only=True):
    """Answer to POLLING_INFO."""

    polling_num: Int32
