"""Between the user's messages and what the protocol carries: properties, headers, bodies, records."""

from typing import Final, NamedTuple

from apogeemq.client_api.message import Message, ReceivedMessage, is_user_property
from apogeemq.client_remoting.core.namespaces import without_namespace
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.compression import CompressionType, compress, decompress
from apogeemq.remoting_codec.message import (
    PROPERTY_CLUSTER,
    PROPERTY_CORRELATION_ID,
    PROPERTY_DELAY,
    PROPERTY_KEYS,
    PROPERTY_REPLY_TO_CLIENT,
    PROPERTY_RETRY_TOPIC,
    PROPERTY_SHARDING_KEY,
    PROPERTY_TAGS,
    PROPERTY_TIMER_DELAY_MS,
    PROPERTY_TIMER_DELIVER_MS,
    PROPERTY_TTL,
    PROPERTY_UNIQ_KEY,
    PROPERTY_WAIT,
    decode_properties,
)
from apogeemq.remoting_codec.message_id import encode_offset_message_id
from apogeemq.remoting_codec.record import Record, format_host

BODY_SIZE_BYTES_MAX: Final = 64 * 1024 * 1024
"""No compressed body may unfold to more; brokers take 4 MiB unless configured otherwise."""

_RETRY_TOPIC_PREFIX: Final = "%RETRY%"


class ReplyAddress(NamedTuple):
    """Where the reply to a request goes: to a client that waits for `correlation_id`, by way of its cluster."""

    correlation_id: str
    client_id: str
    ttl_ms: str
    cluster: str


class Receipt(NamedTuple):
    """What a consumer keeps of a message: its topic as servers call it, its queue, what is in hand there, where the
    record lies, where a reply goes.
    """

    topic: str
    queue: MessageQueue
    in_hand: ProcessQueue[ReceivedMessage]
    physical_offset: int
    reply_address: ReplyAddress | None = None

    def is_current(self, queue_offset: int) -> bool:
        """Whether the message at that offset is still in hand here, and its queue still this member's."""
        return not self.in_hand.is_dropped and queue_offset in self.in_hand.in_hand


def retry_topic(group: str) -> str:
    """The topic from which a group gets its failed messages again."""
    return _RETRY_TOPIC_PREFIX + group


def is_retry_topic(topic: str) -> bool:
    """Whether a topic holds some group's failed messages."""
    return topic.startswith(_RETRY_TOPIC_PREFIX)


def encode_message_properties(message: Message, unique_key: str) -> str:
    """The properties string of a send header; its last separator included.

    Written by hand: `Message` has checked that no name or value contains a separator.
    """
    text = f"{PROPERTY_UNIQ_KEY}\x01{unique_key}\x02"
    if message.tag is not None:
        text += f"{PROPERTY_TAGS}\x01{message.tag}\x02"
    if message.keys:
        text += f"{PROPERTY_KEYS}\x01{' '.join(message.keys)}\x02"
    if message.message_group is not None:
        text += f"{PROPERTY_SHARDING_KEY}\x01{message.message_group}\x02"
    if message.is_delayed:
        text += _delay_property(message)
    for key, value in message.properties.items():
        text += f"{key}\x01{value}\x02"
    return text


def _delay_property(message: Message) -> str:
    """When it is to be delivered; `Message` has checked that it says so in one way."""
    if message.delay_ms is not None:
        return f"{PROPERTY_TIMER_DELAY_MS}\x01{message.delay_ms}\x02"
    if message.delay_level is not None:
        return f"{PROPERTY_DELAY}\x01{message.delay_level}\x02"
    return f"{PROPERTY_TIMER_DELIVER_MS}\x01{message.delivery_timestamp_ms}\x02"


def encode_batched_properties(message: Message, unique_key: str) -> bytes:
    """The same for a message in a batch, which also says that its sender waits for it to be stored safely."""
    return f"{encode_message_properties(message, unique_key)}{PROPERTY_WAIT}\x01true\x02".encode()


def compressed(body: bytes, from_bytes: int | None) -> tuple[bytes, int]:
    """The body to send and its bits of the system flag: compressed from that size on, unless that makes it larger."""
    if from_bytes is None or len(body) < from_bytes:
        return body, 0
    smaller = compress(body, CompressionType.ZLIB)
    return (smaller, CompressionType.ZLIB.sys_flag) if len(smaller) < len(body) else (body, 0)


def received_message(
    record: Record,
    group: str,
    queue: MessageQueue,
    in_hand: ProcessQueue[ReceivedMessage],
    *,
    namespace: str = "",
    as_stored: bool = False,
) -> ReceivedMessage:
    """A record as its consumer gets it, who calls topic and group by their names in the namespace; with `as_stored` its
    body stays compressed.

    Raises BodyInvalid for a compressed body that is damaged, LocalProtocolError when its library is not installed.
    """
    properties = decode_properties(record.properties)
    message_id = properties.get(PROPERTY_UNIQ_KEY)
    if message_id is None:
        message_id = encode_offset_message_id(record.store_host, record.physical_offset)
    topic = properties.get(PROPERTY_RETRY_TOPIC, record.topic) if is_retry_topic(record.topic) else record.topic
    return ReceivedMessage(
        message_id=message_id,
        topic=without_namespace(topic, namespace),
        body=record.body if as_stored else decompress(record.body, record.sys_flag, BODY_SIZE_BYTES_MAX),
        tag=properties.get(PROPERTY_TAGS),
        keys=tuple(properties.get(PROPERTY_KEYS, "").split()),
        properties={key: value for key, value in properties.items() if is_user_property(key)},
        message_group=properties.get(PROPERTY_SHARDING_KEY),
        born_timestamp_ms=record.born_timestamp_ms,
        born_host=format_host(record.born_host),
        store_timestamp_ms=record.store_timestamp_ms,
        broker_name=queue.broker_name,
        queue_id=record.queue_id,
        queue_offset=record.queue_offset,
        delivery_attempt=record.reconsume_times + 1,
        group=without_namespace(group, namespace),
        receipt=Receipt(topic, queue, in_hand, record.physical_offset, _reply_address(properties)),
    )


def _reply_address(properties: dict[str, str]) -> ReplyAddress | None:
    """Who wants a reply, if anybody does. Source: reference remoting.md §9."""
    correlation_id, client_id = properties.get(PROPERTY_CORRELATION_ID), properties.get(PROPERTY_REPLY_TO_CLIENT)
    if correlation_id is None or client_id is None:
        return None
    return ReplyAddress(
        correlation_id, client_id, properties.get(PROPERTY_TTL, ""), properties.get(PROPERTY_CLUSTER, "")
    )


def receipt_of(message: ReceivedMessage) -> Receipt:
    """What the client keeps of a message. Raises ValueError for one that another client received."""
    if not isinstance(message.receipt, Receipt):
        raise ValueError(f"message {message.message_id} was not received by this client")  # noqa: TRY004 — right type, wrong origin
    return message.receipt
