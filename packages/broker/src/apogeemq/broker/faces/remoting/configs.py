"""Single settings: GET_TOPIC_CONFIG (351), GET_SUBSCRIPTIONGROUP_CONFIG (352). Apache's proxy reads them before it
serves a topic or a group.
"""

from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.errors import SubscriptionGroupNotExist, TopicNotExist
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.bodies import TopicConfigAndQueueMapping
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.table import GetSubscriptionGroupConfigRequestHeader, GetTopicConfigRequestHeader
from msgspec.structs import asdict


class ConfigRequests:
    """Handlers of the settings family. They only look: nothing is made by being asked for."""

    def __init__(self, topics: TopicTable, groups: SubscriptionGroupTable, stats: RequestStats) -> None:
        self._topics = topics
        self._groups = groups
        self._stats = stats

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {
            RequestCode.GET_TOPIC_CONFIG: self.get_topic_config,
            RequestCode.GET_SUBSCRIPTIONGROUP_CONFIG: self.get_subscription_group_config,
        }

    def get_topic_config(self, channel: Channel, command: RemotingCommand) -> Reply:
        """One topic; it has no mapping, since this broker has no static topics."""
        name = GetTopicConfigRequestHeader.decode(command.ext_fields).topic
        topic = self._topics.get(name)
        if topic is None:
            raise TopicNotExist(f"No topic in this broker. topic: {name[:300]}")
        return self._answer(command, TopicConfigAndQueueMapping(**asdict(topic.config)).encode())

    def get_subscription_group_config(self, channel: Channel, command: RemotingCommand) -> Reply:
        """One group."""
        name = GetSubscriptionGroupConfigRequestHeader.decode(command.ext_fields).group
        group = self._groups.get(name)
        if group is None:
            raise SubscriptionGroupNotExist(f"No group in this broker. group: {name[:300]}")
        return self._answer(command, group.encode())

    def _answer(self, command: RemotingCommand, body: bytes) -> Reply:
        self._stats.count(command.code, ResponseCode.SUCCESS)
        if command.is_oneway:
            return None
        return encode_response_frame(command.opaque, ResponseCode.SUCCESS, {}, None, body)
