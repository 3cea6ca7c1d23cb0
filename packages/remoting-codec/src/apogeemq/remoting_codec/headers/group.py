"""Clients and their groups: heartbeats, members, changes of membership."""

from apogeemq.remoting_codec.headers.base import CommandHeader, RpcRequestHeader


class HeartbeatRequestHeader(RpcRequestHeader):
    """HEART_BEAT (34): no field of its own; the body is the HeartbeatData.

    It has no response header; brokers answer with the ext fields IS_SUPPORT_HEART_BEAT_V2 and IS_SUB_CHANGE.
    """


class UnregisterClientRequestHeader(
    RpcRequestHeader,
    kw_only=True,
    rename={"client_id": "clientID", "producer_group": "producerGroup", "consumer_group": "consumerGroup"},
):
    """UNREGISTER_CLIENT (35)."""

    client_id: str
    producer_group: str | None = None
    consumer_group: str | None = None


class UnregisterClientResponseHeader(CommandHeader):
    """Answer to UNREGISTER_CLIENT: no field."""


class GetConsumerListByGroupRequestHeader(RpcRequestHeader, kw_only=True):
    """GET_CONSUMER_LIST_BY_GROUP (38)."""

    consumer_group: str


class GetConsumerListByGroupResponseHeader(CommandHeader):
    """Answer to GET_CONSUMER_LIST_BY_GROUP: no field, the list is in the body."""


class NotifyConsumerIdsChangedRequestHeader(RpcRequestHeader, kw_only=True):
    """NOTIFY_CONSUMER_IDS_CHANGED (40), oneway from the broker to the members of a group."""

    consumer_group: str
