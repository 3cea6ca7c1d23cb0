"""Command headers by family; `registry` says which request code carries which."""

from apogeemq.remoting_codec.headers.base import CommandHeader, RpcRequestHeader, TopicRequestHeader
from apogeemq.remoting_codec.headers.client_call import (
    ConsumeMessageDirectlyResultRequestHeader,
    GetConsumerRunningInfoRequestHeader,
    GetConsumerStatusRequestHeader,
    ReplyMessageRequestHeader,
    ResetOffsetRequestHeader,
)
from apogeemq.remoting_codec.headers.group import (
    GetConsumerListByGroupRequestHeader,
    GetConsumerListByGroupResponseHeader,
    HeartbeatRequestHeader,
    NotifyConsumerIdsChangedRequestHeader,
    UnregisterClientRequestHeader,
    UnregisterClientResponseHeader,
)
from apogeemq.remoting_codec.headers.lite import (
    LiteSubscriptionCtlRequestHeader,
    NotifyUnsubscribeLiteRequestHeader,
    PopLiteMessageRequestHeader,
    PopLiteMessageResponseHeader,
)
from apogeemq.remoting_codec.headers.lock import (
    LockBatchMqRequestHeader,
    UnlockBatchMqRequestHeader,
)
from apogeemq.remoting_codec.headers.offset import (
    BoundaryType,
    GetEarliestMsgStoretimeRequestHeader,
    GetEarliestMsgStoretimeResponseHeader,
    GetMaxOffsetRequestHeader,
    GetMaxOffsetResponseHeader,
    GetMinOffsetRequestHeader,
    GetMinOffsetResponseHeader,
    QueryConsumerOffsetRequestHeader,
    QueryConsumerOffsetResponseHeader,
    SearchOffsetRequestHeader,
    SearchOffsetResponseHeader,
    UpdateConsumerOffsetRequestHeader,
    UpdateConsumerOffsetResponseHeader,
)
from apogeemq.remoting_codec.headers.pop import (
    AckMessageRequestHeader,
    ChangeInvisibleTimeRequestHeader,
    ChangeInvisibleTimeResponseHeader,
    NotificationRequestHeader,
    NotificationResponseHeader,
    PollingInfoRequestHeader,
    PollingInfoResponseHeader,
    PopMessageRequestHeader,
    PopMessageResponseHeader,
)
from apogeemq.remoting_codec.headers.pull import (
    PullMessageRequestHeader,
    PullMessageResponseHeader,
)
from apogeemq.remoting_codec.headers.query import (
    QueryMessageRequestHeader,
    QueryMessageResponseHeader,
    ViewMessageRequestHeader,
    ViewMessageResponseHeader,
)
from apogeemq.remoting_codec.headers.registry import (
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
)
from apogeemq.remoting_codec.headers.route import (
    GetRouteInfoRequestHeader,
)
from apogeemq.remoting_codec.headers.send import (
    ConsumerSendMsgBackRequestHeader,
    RecallMessageRequestHeader,
    RecallMessageResponseHeader,
    SendMessageRequestHeader,
    SendMessageRequestHeaderV2,
    SendMessageResponseHeader,
)
from apogeemq.remoting_codec.headers.table import (
    GetSubscriptionGroupConfigRequestHeader,
    GetTopicConfigRequestHeader,
)
from apogeemq.remoting_codec.headers.transaction import (
    CheckTransactionStateRequestHeader,
    EndTransactionRequestHeader,
    EndTransactionResponseHeader,
)
from apogeemq.remoting_codec.java_numbers import Int32, Int64

__all__ = [
    "REQUEST_HEADERS",
    "RESPONSE_HEADERS",
    "AckMessageRequestHeader",
    "BoundaryType",
    "ChangeInvisibleTimeRequestHeader",
    "ChangeInvisibleTimeResponseHeader",
    "CheckTransactionStateRequestHeader",
    "CommandHeader",
    "ConsumeMessageDirectlyResultRequestHeader",
    "ConsumerSendMsgBackRequestHeader",
    "EndTransactionRequestHeader",
    "EndTransactionResponseHeader",
    "GetConsumerListByGroupRequestHeader",
    "GetConsumerListByGroupResponseHeader",
    "GetConsumerRunningInfoRequestHeader",
    "GetConsumerStatusRequestHeader",
    "GetEarliestMsgStoretimeRequestHeader",
    "GetEarliestMsgStoretimeResponseHeader",
    "GetMaxOffsetRequestHeader",
    "GetMaxOffsetResponseHeader",
    "GetMinOffsetRequestHeader",
    "GetMinOffsetResponseHeader",
    "GetRouteInfoRequestHeader",
    "GetSubscriptionGroupConfigRequestHeader",
    "GetTopicConfigRequestHeader",
    "HeartbeatRequestHeader",
    "Int32",
    "Int64",
    "LiteSubscriptionCtlRequestHeader",
    "LockBatchMqRequestHeader",
    "NotificationRequestHeader",
    "NotificationResponseHeader",
    "NotifyConsumerIdsChangedRequestHeader",
    "NotifyUnsubscribeLiteRequestHeader",
    "PollingInfoRequestHeader",
    "PollingInfoResponseHeader",
    "PopLiteMessageRequestHeader",
    "PopLiteMessageResponseHeader",
    "PopMessageRequestHeader",
    "PopMessageResponseHeader",
    "PullMessageRequestHeader",
    "PullMessageResponseHeader",
    "QueryConsumerOffsetRequestHeader",
    "QueryConsumerOffsetResponseHeader",
    "QueryMessageRequestHeader",
    "QueryMessageResponseHeader",
    "RecallMessageRequestHeader",
    "RecallMessageResponseHeader",
    "ReplyMessageRequestHeader",
    "ResetOffsetRequestHeader",
    "RpcRequestHeader",
    "SearchOffsetRequestHeader",
    "SearchOffsetResponseHeader",
    "SendMessageRequestHeader",
    "SendMessageRequestHeaderV2",
    "SendMessageResponseHeader",
    "TopicRequestHeader",
    "UnlockBatchMqRequestHeader",
    "UnregisterClientRequestHeader",
    "UnregisterClientResponseHeader",
    "UpdateConsumerOffsetRequestHeader",
    "UpdateConsumerOffsetResponseHeader",
    "ViewMessageRequestHeader",
    "ViewMessageResponseHeader",
]
