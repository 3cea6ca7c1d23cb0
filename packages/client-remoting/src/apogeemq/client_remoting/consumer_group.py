"""A consumer in the eyes of brokers: its group, what it wants, and how it gets it."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from apogeemq.client_api.filters import Filter
from apogeemq.client_api.message import check_topic
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


def check_group(group: str) -> None:
    """Raise ValueError unless `group` can be the name of a group."""
    if _GROUP.fullmatch(group) is None:
        raise ValueError(f"group {group[:64]!r} is not 1 to 120 of a-z A-Z 0-9 _ - % |")


def read_subscriptions(subscriptions: Mapping[str, Filter]) -> dict[str, Subscription]:
    """Topic → subscription. Raises MessageInvalid for a topic and NotSupported for a filter that is none."""
    read = {}
    for topic, wanted in subscriptions.items():
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
