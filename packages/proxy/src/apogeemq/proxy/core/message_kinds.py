"""Kinds of messages and of topics: NORMAL, FIFO, DELAY, TRANSACTION, and which fits where.

Source: reference grpc_v2.md §5 (accept_message_types), §3 (MESSAGE_PROPERTY_CONFLICT_WITH_TYPE); for properties Apache
TopicMessageType.parseFromMessageProperty, DefaultTopicMessageTypeValidator 5.3.3.
"""

from __future__ import annotations

from collections.abc import Mapping

from apogeemq.proto.v2.definition_pb2 import (
    DELAY,
    FIFO,
    MESSAGE_TYPE_UNSPECIFIED,
    NORMAL,
    TRANSACTION,
    Code,
    Message,
    MessageType,
)
from apogeemq.proxy.errors import ProxyError
from apogeemq.remoting_codec import message as m

_TYPES_OF_TOPIC: dict[str, tuple[MessageType, ...]] = {
    "": (NORMAL,),
    "NORMAL": (NORMAL,),
    "FIFO": (FIFO,),
    "DELAY": (DELAY,),
    "TRANSACTION": (TRANSACTION,),
    "MIXED": (NORMAL, FIFO, DELAY, TRANSACTION),
}
SERVED_TYPES = (NORMAL, FIFO, DELAY, TRANSACTION)

_DELAYS = frozenset(
    {m.PROPERTY_DELAY, m.PROPERTY_TIMER_DELIVER_MS, m.PROPERTY_TIMER_DELAY_SEC, m.PROPERTY_TIMER_DELAY_MS}
)


def accepted_types(topic_type: str) -> tuple[MessageType, ...]:
    """What a topic takes, by its message.type attribute; a type that nobody knows is MESSAGE_TYPE_UNSPECIFIED."""
    return _TYPES_OF_TOPIC.get(topic_type, (MESSAGE_TYPE_UNSPECIFIED,))


def type_of(message: Message) -> MessageType:
    """What a message is: what it says, else what its fields make of it. Unspecified counts as NORMAL."""
    system = message.system_properties
    if system.message_type not in (MESSAGE_TYPE_UNSPECIFIED, NORMAL):
        return system.message_type
    if system.HasField("message_group"):
        return FIFO
    return DELAY if system.HasField("delivery_timestamp") else NORMAL


def check_type(message: Message, topic_type: str, where: str) -> None:
    """Refuse a message that its topic does not take, or that this proxy does not serve.

    Raises:
        ProxyError NOT_IMPLEMENTED: LITE and PRIORITY messages.
        ProxyError MESSAGE_PROPERTY_CONFLICT_WITH_TYPE: the topic is for other messages; a DELAY message has no time of
            delivery, or another one has.
    """
    field = f"{where}.system_properties.message_type"
    message_type = type_of(message)
    if message_type not in SERVED_TYPES:
        known = message_type in MessageType.values()
        name = MessageType.Name(message_type) if known else str(int(message_type))
        raise ProxyError(Code.NOT_IMPLEMENTED, f"{field}: {name} messages are not served yet; send NORMAL ones")
    if message_type != NORMAL and message.system_properties.HasField("delivery_timestamp") != (message_type == DELAY):
        text = f"{where}.system_properties.delivery_timestamp: DELAY messages have one, and no others"
        raise ProxyError(Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE, text)
    accepted = accepted_types(topic_type)
    if message_type not in accepted and MESSAGE_TYPE_UNSPECIFIED not in accepted:
        name = MessageType.Name(message_type)
        text = f"{field}: {name}, but the topic takes only {topic_type or 'NORMAL'} messages"
        raise ProxyError(Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE, text)


def check_properties(properties: Mapping[str, str], topic_type: str) -> None:
    """Refuse a Remoting client's message that its topic does not take, by its properties.

    One that another cluster handed over (TRANSFER_FLAG) was checked there.

    Raises:
        ProxyError MESSAGE_PROPERTY_CONFLICT_WITH_TYPE: the topic is for other messages; in Apache's words.
    """
    if m.PROPERTY_TRANSFER_FLAG in properties:
        return
    accepted = accepted_types(topic_type)
    message_type = _type_of_properties(properties)
    if message_type not in accepted and MESSAGE_TYPE_UNSPECIFIED not in accepted:
        raise ProxyError(
            Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE,
            f"TopicMessageType validate failed, the expected type is {topic_type or 'NORMAL'}, "
            f"but actual type is {MessageType.Name(message_type)}",
        )


def _type_of_properties(properties: Mapping[str, str]) -> MessageType:
    if properties.get(m.PROPERTY_TRAN_MSG) == "true":
        return TRANSACTION
    if not _DELAYS.isdisjoint(properties):
        return DELAY
    return FIFO if m.PROPERTY_SHARDING_KEY in properties else NORMAL
