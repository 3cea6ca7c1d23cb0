"""Lite topics: many short-lived topics inside one, each with its own subscribers. Came with 5.5.

Source: Apache remoting/protocol/header of 5.5.
"""

from apogeemq.remoting_codec.headers.base import CommandHeader, RpcRequestHeader
from apogeemq.remoting_codec.java_numbers import Int32, Int64


class PopLiteMessageRequestHeader(RpcRequestHeader, kw_only=True):
    """POP_LITE_MESSAGE (200070): pop from the lite topics that the client subscribed to. Times in ms."""

    client_id: str
    consumer_group: str
    topic: str
    max_msg_num: Int32
    invisible_time: Int64
    poll_time: Int64
    born_time: Int64
    attempt_id: str | None = None


class PopLiteMessageResponseHeader(CommandHeader, kw_only=True):
    """Answer to a lite pop; the infos are those of a pop."""

    pop_time: Int64
    invisible_time: Int64
    revive_qid: Int32
    start_offset_info: str | None = None
    msg_offset_info: str | None = None
    order_count_info: str | None = None


class LiteSubscriptionCtlRequestHeader(RpcRequestHeader):
    """LITE_SUBSCRIPTION_CTL (200071): no field of its own; the body is the LiteSubscriptionCtlRequestBody."""


class NotifyUnsubscribeLiteRequestHeader(RpcRequestHeader, kw_only=True):
    """NOTIFY_UNSUBSCRIBE_LITE (200073), from the broker: a lite subscription was taken away."""

    lite_topic: str
    consumer_group: str
    client_id: str
