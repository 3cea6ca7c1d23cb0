"""Which header belongs to which request code."""

from collections.abc import Mapping
from typing import Final

from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.headers import group, offset, pop, pull, query, route, send, transaction
from apogeemq.remoting_codec.headers.base import CommandHeader

REQUEST_HEADERS: Final[Mapping[int, type[CommandHeader]]] = {
    RequestCode.SEND_MESSAGE: send.SendMessageRequestHeader,
    RequestCode.PULL_MESSAGE: pull.PullMessageRequestHeader,
    RequestCode.QUERY_MESSAGE: query.QueryMessageRequestHeader,
    RequestCode.QUERY_CONSUMER_OFFSET: offset.QueryConsumerOffsetRequestHeader,
    RequestCode.UPDATE_CONSUMER_OFFSET: offset.UpdateConsumerOffsetRequestHeader,
    RequestCode.SEARCH_OFFSET_BY_TIMESTAMP: offset.SearchOffsetRequestHeader,
    RequestCode.GET_MAX_OFFSET: offset.GetMaxOffsetRequestHeader,
    RequestCode.GET_MIN_OFFSET: offset.GetMinOffsetRequestHeader,
    RequestCode.GET_EARLIEST_MSG_STORETIME: offset.GetEarliestMsgStoretimeRequestHeader,
    RequestCode.VIEW_MESSAGE_BY_ID: query.ViewMessageRequestHeader,
    RequestCode.HEART_BEAT: group.HeartbeatRequestHeader,
    RequestCode.UNREGISTER_CLIENT: group.UnregisterClientRequestHeader,
    RequestCode.CONSUMER_SEND_MSG_BACK: send.ConsumerSendMsgBackRequestHeader,
    RequestCode.END_TRANSACTION: transaction.EndTransactionRequestHeader,
    RequestCode.GET_CONSUMER_LIST_BY_GROUP: group.GetConsumerListByGroupRequestHeader,
    RequestCode.NOTIFY_CONSUMER_IDS_CHANGED: group.NotifyConsumerIdsChangedRequestHeader,
    RequestCode.GET_ROUTEINFO_BY_TOPIC: route.GetRouteInfoRequestHeader,
    RequestCode.SEND_MESSAGE_V2: send.SendMessageRequestHeaderV2,
    RequestCode.SEND_BATCH_MESSAGE: send.SendMessageRequestHeaderV2,
    RequestCode.SEND_REPLY_MESSAGE: send.SendMessageRequestHeader,
    RequestCode.SEND_REPLY_MESSAGE_V2: send.SendMessageRequestHeaderV2,
    RequestCode.LITE_PULL_MESSAGE: pull.PullMessageRequestHeader,
    RequestCode.POP_MESSAGE: pop.PopMessageRequestHeader,
    RequestCode.ACK_MESSAGE: pop.AckMessageRequestHeader,
    RequestCode.CHANGE_MESSAGE_INVISIBLETIME: pop.ChangeInvisibleTimeRequestHeader,
}
"""Header of each request that has one. Codes without an entry carry no header that this package knows."""

RESPONSE_HEADERS: Final[Mapping[int, type[CommandHeader]]] = {
    RequestCode.SEND_MESSAGE: send.SendMessageResponseHeader,
    RequestCode.PULL_MESSAGE: pull.PullMessageResponseHeader,
    RequestCode.QUERY_MESSAGE: query.QueryMessageResponseHeader,
    RequestCode.QUERY_CONSUMER_OFFSET: offset.QueryConsumerOffsetResponseHeader,
    RequestCode.UPDATE_CONSUMER_OFFSET: offset.UpdateConsumerOffsetResponseHeader,
    RequestCode.SEARCH_OFFSET_BY_TIMESTAMP: offset.SearchOffsetResponseHeader,
    RequestCode.GET_MAX_OFFSET: offset.GetMaxOffsetResponseHeader,
    RequestCode.GET_MIN_OFFSET: offset.GetMinOffsetResponseHeader,
    RequestCode.GET_EARLIEST_MSG_STORETIME: offset.GetEarliestMsgStoretimeResponseHeader,
    RequestCode.VIEW_MESSAGE_BY_ID: query.ViewMessageResponseHeader,
    RequestCode.UNREGISTER_CLIENT: group.UnregisterClientResponseHeader,
    RequestCode.END_TRANSACTION: transaction.EndTransactionResponseHeader,
    RequestCode.GET_CONSUMER_LIST_BY_GROUP: group.GetConsumerListByGroupResponseHeader,
    RequestCode.SEND_MESSAGE_V2: send.SendMessageResponseHeader,
    RequestCode.SEND_BATCH_MESSAGE: send.SendMessageResponseHeader,
    RequestCode.SEND_REPLY_MESSAGE: send.SendMessageResponseHeader,
    RequestCode.SEND_REPLY_MESSAGE_V2: send.SendMessageResponseHeader,
    RequestCode.LITE_PULL_MESSAGE: pull.PullMessageResponseHeader,
    RequestCode.POP_MESSAGE: pop.PopMessageResponseHeader,
    RequestCode.CHANGE_MESSAGE_INVISIBLETIME: pop.ChangeInvisibleTimeResponseHeader,
}
"""Header of the successful answer to each request, by the request's code. An error's answer may lack its fields."""
