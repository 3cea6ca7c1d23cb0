"""A consumer in the eyes of brokers: its group, what it wants, and how it gets it."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from apogeemq.client_api.filters import Filter
from apogeemq.client_api.message import check_topic
from apogeemq.client_remoting.core.namespaces import check_namespace, with_namespace
from apogeemq.client_remoting.core.offsets import Start
from apogeemq.client_remoting.core.subscription import Subscription, parse_subscription
from apogeemq.remoting_codec.bodies import (
    ConsumeFromWhere,
    ConsumerData,
    ConsumeType,
    HeartbeatData,
    MessageModel,
    SubscriptionData,
)

_GROUP: Final = re.compile(r"[%|a-zA-Z0-9_-]{1,120}")


def group_name(group: str, namespace: str) -> str:
    """The servers' name of a group. Raises ValueError unless it, and the namespace, can be one."""
    check_namespace(namespace)
    name = with_namespace(group, namespace)
    if _GROUP.fullmatch(name) is None:
        raise ValueError(f"group {name[:64]!r} is not 1 to 120 of a-z A-Z 0-9 _ - % |")
    return name


def read_subscriptions(subscriptions: Mapping[str, Filter], namespace: str) -> dict[str, Subscription]:
    """The servers' names of topics → subscription.

    Raises MessageInvalid for a topic and NotSupported for a filter that is none.
    """
    read = {}
    for name, wanted in subscriptions.items():
        topic = with_namespace(name, namespace)
        check_topic(topic)
        read[topic] = parse_subscription(topic, wanted)
    return read


def consumer_heartbeat(
    client_id: str,
    group: str,
    consume_type: ConsumeType,
    start: Start,
    subscriptions: Iterable[SubscriptionData],
    model: MessageModel = MessageModel.CLUSTERING,
) -> HeartbeatData:
    """The heartbeat of a consumer."""
    consumer = ConsumerData(
        group_name=group,
        consume_type=consume_type,
        message_model=model,
        consume_from_where=_consume_from_where(start),
        subscription_data_set=list(subscriptions),
    )
    return HeartbeatData(client_id=client_id, consumer_data_set=[consumer])


def _consume_from_where(start: Start) -> ConsumeFromWhere:
    """What brokers and their tools are told of `start`; nothing depends on it there."""
    match start:
        case "latest":
            return ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET
        case "earliest":
            return ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET
        case _:
            return ConsumeFromWhere.CONSUME_FROM_TIMESTAMP
