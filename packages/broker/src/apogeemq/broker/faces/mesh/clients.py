"""Membership of proxies' clients: ClientHeartbeat, UnregisterClient.

Members hang on the caller (CallInfo.owner): when its streams are lost they leave, as Remoting clients do with their
connection, and the next heartbeat of each brings it back. Nobody is told over the mesh that a group changed: a proxy's
clients pop, and do not divide queues among them.
"""

from collections.abc import Hashable, Iterable
from typing import TypeVar

from apogeemq.broker.core.clients import GROUPS_PER_HEARTBEAT_MAX, SUBSCRIPTIONS_PER_GROUP_MAX
from apogeemq.broker.errors import InvalidParameter
from apogeemq.broker.faces import fields
from apogeemq.broker.service.groups import GroupService
from apogeemq.mesh.calls import CallInfo
from apogeemq.mesh.v1.broker_pb2 import (
    ClientHeartbeatReply,
    ClientHeartbeatRequest,
    UnregisterClientReply,
    UnregisterClientRequest,
)
from apogeemq.remoting_codec.bodies import (
    ConsumeFromWhere,
    ConsumerData,
    ConsumeType,
    HeartbeatData,
    MessageModel,
    ProducerData,
    SubscriptionData,
)

E = TypeVar("E", ConsumeType, MessageModel, ConsumeFromWhere)


class ClientAnswers:
    """Answers to what proxies say of their clients."""

    def __init__(self, groups: GroupService[Hashable]) -> None:
        self._groups = groups

    def client_heartbeat(self, request: ClientHeartbeatRequest, info: CallInfo) -> ClientHeartbeatReply:
        """A client is alive."""
        fields.check_text("client_id", request.client_id)
        fields.check_optional_text("language", request.language)
        fields.check_range("version", request.version, 0, fields.INT32_MAX)
        _check_groups("producer_groups", request.producer_groups)
        fields.check_count("consumers", len(request.consumers), 0, GROUPS_PER_HEARTBEAT_MAX)
        beat = HeartbeatData(
            client_id=request.client_id,
            producer_data_set=[ProducerData(group_name=group) for group in request.producer_groups],
            consumer_data_set=[
                _consumer(f"consumers[{number}]", consumer) for number, consumer in enumerate(request.consumers)
            ],
        )
        self._groups.heartbeat(beat, info.owner, request.language, request.version)
        return ClientHeartbeatReply()

    def unregister_client(self, request: UnregisterClientRequest, info: CallInfo) -> UnregisterClientReply:
        """A client leaves some of its groups; those that it is not in are no matter."""
        fields.check_text("client_id", request.client_id)
        _check_groups("producer_groups", request.producer_groups)
        _check_groups("consumer_groups", request.consumer_groups)
        for group in request.producer_groups:
            self._groups.unregister(request.client_id, group, None)
        for group in request.consumer_groups:
            self._groups.unregister(request.client_id, None, group)
        return UnregisterClientReply()


def _check_groups(field: str, groups: Iterable[str]) -> None:
    names = list(groups)
    fields.check_count(field, len(names), 0, GROUPS_PER_HEARTBEAT_MAX)
    for number, name in enumerate(names):
        fields.check_group(f"{field}[{number}]", name)


def _consumer(field: str, consumer: ClientHeartbeatRequest.ConsumerData) -> ConsumerData:
    fields.check_group(f"{field}.group", consumer.group)
    fields.check_count(f"{field}.subscriptions", len(consumer.subscriptions), 0, SUBSCRIPTIONS_PER_GROUP_MAX)
    return ConsumerData(
        group_name=consumer.group,
        consume_type=_named(f"{field}.consume_type", consumer.consume_type, ConsumeType.CONSUME_PASSIVELY),
        message_model=_named(f"{field}.message_model", consumer.message_model, MessageModel.CLUSTERING),
        consume_from_where=_named(
            f"{field}.consume_from_where", consumer.consume_from_where, ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET
        ),
        subscription_data_set=[
            _subscription(f"{field}.subscriptions[{number}]", subscription)
            for number, subscription in enumerate(consumer.subscriptions)
        ],
    )


def _subscription(field: str, subscription: ClientHeartbeatRequest.SubscriptionData) -> SubscriptionData:
    fields.check_topic(f"{field}.topic", subscription.topic)
    fields.check_optional_text(f"{field}.expression_type", subscription.expression_type)
    fields.check_optional_text(f"{field}.sub_string", subscription.sub_string, fields.EXPRESSION_LENGTH_MAX)
    fields.check_range(f"{field}.sub_version", subscription.sub_version, 0, fields.INT64_MAX)
    return SubscriptionData(
        topic=subscription.topic,
        sub_string=subscription.sub_string or "*",
        sub_version=subscription.sub_version,
        expression_type=subscription.expression_type or "TAG",
    )


def _named(field: str, text: str, default: E) -> E:
    """The member of that name; the default for an empty text."""
    if not text:
        return default
    try:
        return type(default)(text)
    except ValueError as error:
        names = ", ".join(type(default))
        raise InvalidParameter(f"{field} is {text[: fields.TEXT_LENGTH_MAX]!r}; it must be one of {names}") from error
