"""What a broker asks of a connected client, mostly on behalf of an operator."""

from apogeemq.remoting_codec.headers.base import RpcRequestHeader, TopicRequestHeader
from apogeemq.remoting_codec.java_numbers import Int32, Int64


class ResetOffsetRequestHeader(TopicRequestHeader, kw_only=True):
    """RESET_CONSUMER_CLIENT_OFFSET (220), oneway to each member of a group; the body is the ResetOffsetBody.

    Operators send the same header to brokers (INVOKE_BROKER_TO_RESET_OFFSET, 222): `queue_id` -1 means all queues,
    `timestamp` (ms) -1 the end; with `is_force` an offset may also go forward. `offset`, where it is there, wins.
    """

    group: str
    topic: str
    queue_id: Int32 = -1
    offset: Int64 | None = None
    timestamp: Int64
    is_force: bool


class GetConsumerStatusRequestHeader(TopicRequestHeader, kw_only=True):
    """GET_CONSUMER_STATUS_FROM_CLIENT (221): the answer's body is a GetConsumerStatusBody.

    Operators send the same header to brokers (223); an empty `client_addr` means all members of the group.
    """

    topic: str
    group: str
    client_addr: str | None = None


class GetConsumerRunningInfoRequestHeader(RpcRequestHeader, kw_only=True):
    """GET_CONSUMER_RUNNING_INFO (307), relayed by the broker to the client; the answer's body: ConsumerRunningInfo."""

    consumer_group: str
    client_id: str
    jstack_enable: bool = False


class ConsumeMessageDirectlyResultRequestHeader(TopicRequestHeader, kw_only=True):
    """CONSUME_MESSAGE_DIRECTLY (309): let one client consume one message, here and now.

    From the operator without a body; the broker adds the stored message, `broker_name` and the two system flags. The
    answer's body is a ConsumeMessageDirectlyResult. `msg_id` is an offset message id.
    """

    consumer_group: str
    client_id: str | None = None
    msg_id: str | None = None
    broker_name: str | None = None
    topic: str | None = None
    topic_sys_flag: Int32 | None = None
    group_sys_flag: Int32 | None = None


class ReplyMessageRequestHeader(TopicRequestHeader, kw_only=True):
    """PUSH_REPLY_MESSAGE_TO_CLIENT (326): a reply on its way to whoever asked; the body is the reply's body.

    Hosts are texts, "/ip:port" or "ip:port"; times in ms.
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
    unit_mode: bool = False
    born_host: str
    store_host: str
    store_timestamp: Int64
