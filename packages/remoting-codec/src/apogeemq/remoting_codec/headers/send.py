"""Sending messages: single, batch, reply, back for a retry, and taking one back.

Which of the two send headers a request carries follows from its code alone (310, 320 and 325: V2), never from its
fields. Both have the same attributes; V2 has one letter per field on the wire.
"""

from apogeemq.remoting_codec.headers.base import CommandHeader, RpcRequestHeader, TopicRequestHeader
from apogeemq.remoting_codec.java_numbers import Int32, Int64

FAILURE_REASON_FIELD = "failureReason"
"""Of CONSUMER_SEND_MSG_BACK, beside the fields of its header: why a message is given up, in words.

ApogeeMQ's own: Apache's broker passes it over.
"""


class SendMessageRequestHeader(TopicRequestHeader, kw_only=True):
    """SEND_MESSAGE (10) and SEND_REPLY_MESSAGE (324); the body is the message's.

    `queue_id` below 0 lets the broker choose. `properties` is the properties string. `default_topic` and
    `default_topic_queue_nums` serve automatic topic creation.
    """

    producer_group: str
    topic: str
    default_topic: str
    default_topic_queue_nums: Int32
    queue_id: Int32
    sys_flag: Int32
    born_timestamp: Int64
    flag: Int32
    properties: str | None = None
    reconsume_times: Int32 | None = None
    unit_mode: bool | None = None
    batch: bool | None = None
    max_reconsume_times: Int32 | None = None


class SendMessageRequestHeaderV2(
    TopicRequestHeader,
    kw_only=True,
    rename={
        "producer_group": "a",
        "topic": "b",
        "default_topic": "c",
        "default_topic_queue_nums": "d",
        "queue_id": "e",
        "sys_flag": "f",
        "born_timestamp": "g",
        "flag": "h",
        "properties": "i",
        "reconsume_times": "j",
        "unit_mode": "k",
        "max_reconsume_times": "l",
        "batch": "m",
        "broker_name": "n",
    },
):
    """SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320, with `batch`) and SEND_REPLY_MESSAGE_V2 (325).

    The attributes are those of V1; `broker_name` is V1's `bname`. Apache's own decoder for this header knows the
    letters only, and so does its encoder in binary: what is inherited (`ns`, `bname`, …) does not get through there.
    """

    producer_group: str
    topic: str
    default_topic: str
    default_topic_queue_nums: Int32
    queue_id: Int32
    sys_flag: Int32
    born_timestamp: Int64
    flag: Int32
    properties: str | None = None
    reconsume_times: Int32 | None = None
    unit_mode: bool | None = None
    max_reconsume_times: Int32 | None = None
    batch: bool | None = None
    broker_name: str | None = None


class SendMessageResponseHeader(CommandHeader, kw_only=True):
    """Answer to every send. The answer to a batch joins the offset message ids with commas; its offset is the first's.

    Brokers add MSG_REGION and TRACE_ON beside it; a Java client fails on an answer without any ext field.
    """

    msg_id: str
    queue_id: Int32
    queue_offset: Int64
    transaction_id: str | None = None
    batch_uniq_id: str | None = None
    recall_handle: str | None = None


class ConsumerSendMsgBackRequestHeader(RpcRequestHeader, kw_only=True):
    """CONSUMER_SEND_MSG_BACK (36): retry a message later (`delay_level` > 0 or 0: broker decides) or give up (< 0)."""

    offset: Int64
    group: str
    delay_level: Int32
    origin_msg_id: str | None = None
    origin_topic: str | None = None
    unit_mode: bool = False
    max_reconsume_times: Int32 | None = None


class RecallMessageRequestHeader(TopicRequestHeader, kw_only=True):
    """RECALL_MESSAGE (370): take back a timer message that has not come due. `recall_handle` is from its receipt."""

    producer_group: str | None = None
    topic: str
    recall_handle: str


class RecallMessageResponseHeader(CommandHeader, kw_only=True):
    """Answer to RECALL_MESSAGE: the unique id of the message that was taken back."""

    msg_id: str
