"""Single entries of the broker's tables."""

from apogeemq.remoting_codec.headers.base import RpcRequestHeader, TopicRequestHeader


class GetTopicConfigRequestHeader(TopicRequestHeader, kw_only=True):
    """GET_TOPIC_CONFIG (351): the answer's body is a TopicConfigAndQueueMapping."""

    topic: str


class GetSubscriptionGroupConfigRequestHeader(RpcRequestHeader, kw_only=True):
    """GET_SUBSCRIPTIONGROUP_CONFIG (352): the answer's body is a SubscriptionGroupConfig."""

    group: str
