"""Membership: HEART_BEAT (34), UNREGISTER_CLIENT (35), GET_CONSUMER_LIST_BY_GROUP (38), CHECK_CLIENT_CONFIG (46);
sends NOTIFY_CONSUMER_IDS_CHANGED (40).
"""

from collections.abc import Hashable

from apogeemq.broker.faces import fields
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.broker.filter.tags import EXPRESSION_SIZE_MAX, TAGS_MAX
from apogeemq.broker.service.groups import GroupService
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.bodies import (
    CheckClientRequestBody,
    GetConsumerListByGroupResponseBody,
    HeartbeatData,
    SubscriptionData,
)
from apogeemq.remoting_codec.codes import ONEWAY_FLAG, RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.group import (
    GetConsumerListByGroupRequestHeader,
    HeartbeatRequestHeader,
    NotifyConsumerIdsChangedRequestHeader,
    UnregisterClientRequestHeader,
)


def notify_consumer_ids_changed(channel: Hashable, group: str) -> None:
    """Tell a client that the members or subscriptions of its group changed: it divides the queues anew.

    Members that came through a proxy have no Remoting channel. They pop, and are told nothing.
    """
    if isinstance(channel, Channel) and not channel.closed:
        header = NotifyConsumerIdsChangedRequestHeader(consumer_group=group)
        channel.send_oneway(
            RemotingCommand(code=RequestCode.NOTIFY_CONSUMER_IDS_CHANGED, flag=ONEWAY_FLAG, ext_fields=header.encode())
        )


class GroupRequests:
    """Handlers of the membership family."""

    def __init__(self, groups: GroupService[Hashable], stats: RequestStats) -> None:
        self._groups = groups
        self._stats = stats

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {
            RequestCode.HEART_BEAT: self.heart_beat,
            RequestCode.UNREGISTER_CLIENT: self.unregister_client,
            RequestCode.GET_CONSUMER_LIST_BY_GROUP: self.get_consumer_list_by_group,
            RequestCode.CHECK_CLIENT_CONFIG: self.check_client_config,
        }

    def heart_beat(self, channel: Channel, command: RemotingCommand) -> Reply:
        """A client says who it is and what it wants."""
        HeartbeatRequestHeader.decode(command.ext_fields)
        beat = HeartbeatData.decode(command.body)
        _check(beat)
        is_sub_change = self._groups.heartbeat(beat, channel, command.language, command.version)
        ext_fields = {
            "IS_SUPPORT_HEART_BEAT_V2": "true",
            "IS_SUB_CHANGE": "true" if is_sub_change else "false",
        }
        return self._answer(command, ext_fields)

    def unregister_client(self, channel: Channel, command: RemotingCommand) -> Reply:
        """A client leaves a group."""
        header = UnregisterClientRequestHeader.decode(command.ext_fields)
        self._groups.unregister(header.client_id, header.producer_group, header.consumer_group)
        return self._answer(command, {})

    def get_consumer_list_by_group(self, channel: Channel, command: RemotingCommand) -> Reply:
        """The client ids of a group."""
        header = GetConsumerListByGroupRequestHeader.decode(command.ext_fields)
        body = GetConsumerListByGroupResponseBody(
            consumer_id_list=self._groups.consumer_ids(header.consumer_group)
        ).encode()
        return self._answer(command, {}, body)

    def check_client_config(self, channel: Channel, command: RemotingCommand) -> Reply:
        """A client asks, before it starts, whether its SQL subscription will be understood."""
        self._groups.check_subscription(CheckClientRequestBody.decode(command.body).subscription_data)
        return self._answer(command, {})

    def _answer(self, command: RemotingCommand, ext_fields: dict[str, str], body: bytes = b"") -> Reply:
        self._stats.count(command.code, ResponseCode.SUCCESS)
        if command.is_oneway:
            return None
        return encode_response_frame(command.opaque, ResponseCode.SUCCESS, ext_fields, None, body)


def _check(beat: HeartbeatData) -> None:
    """Bounds on what the tables keep of a heartbeat; the names of consumer groups are the group table's matter."""
    fields.check_text("clientID", beat.client_id)
    for producer in beat.producer_data_set:
        fields.check_text("groupName", producer.group_name)
    for consumer in beat.consumer_data_set:
        fields.check_text("groupName", consumer.group_name)
        for subscription in consumer.subscription_data_set:
            _check_subscription(subscription)


def _check_subscription(subscription: SubscriptionData) -> None:
    fields.check_topic("topic", subscription.topic)
    fields.check_optional_text("subString", subscription.sub_string, EXPRESSION_SIZE_MAX)
    fields.check_optional_text("expressionType", subscription.expression_type)
    fields.check_count("tagsSet", len(subscription.tags_set), 0, TAGS_MAX)
    fields.check_count("codeSet", len(subscription.code_set), 0, TAGS_MAX)
