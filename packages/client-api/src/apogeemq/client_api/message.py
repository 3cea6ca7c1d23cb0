"""Messages: what is sent, what is received, and the receipt in between.

The rules that `Message` checks are those that hold at every server, so that a mistake shows where it is made and not as
a refusal from afar. What a server may be configured to (body size, message types) is left to the server.
Source: Apache Validators and MessageConst; apache/rocketmq-clients MessageImpl.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Final

from apogeemq.client_api.errors import MessageInvalid

TOPIC_SIZE_MAX: Final = 127
"""Characters in a topic's name."""

RESERVED_PROPERTY_KEYS: Final[frozenset[str]] = frozenset(
    [
        "KEYS",
        "TAGS",
        "WAIT",
        "DELAY",
        "TIMER_DELIVER_MS",
        "TIMER_DELAY_SEC",
        "TIMER_DELAY_MS",
        "TIMER_OUT_MS",
        "TIMER_ENQUEUE_MS",
        "TIMER_DEQUEUE_MS",
        "TIMER_ROLL_TIMES",
        "TIMER_DEL_UNIQKEY",
        "TIMER_DELAY_LEVEL",
        "RETRY_TOPIC",
        "REAL_TOPIC",
        "REAL_QID",
        "TRAN_MSG",
        "PGROUP",
        "TRAN_PREPARED_QUEUE_OFFSET",
        "MIN_OFFSET",
        "MAX_OFFSET",
        "BUYER_ID",
        "TRANSFER_FLAG",
        "CORRECTION_FLAG",
        "MQ2_FLAG",
        "DUP_INFO",
        "ORIGIN_MESSAGE_ID",
        "RECONSUME_TIME",
        "MAX_RECONSUME_TIMES",
        "MSG_REGION",
        "TRACE_ON",
        "UNIQ_KEY",
        "EXTEND_UNIQ_INFO",
        "CONSUME_START_TIME",
        "INSTANCE_ID",
        "CORRELATION_ID",
        "REPLY_TO_CLIENT",
        "TTL",
        "ARRIVE_TIME",
        "PUSH_REPLY_TIME",
        "MSG_TYPE",
        "POP_CK",
        "POP_CK_OFFSET",
        "1ST_POP_TIME",
        "__SHARDINGKEY",
        "INNER_MULTI_QUEUE_OFFSET",
        "__BORNHOST",
        "BORN_TIMESTAMP",
        "__CRC32#",
        "DLQ_ORIGIN_TOPIC",
        "DLQ_ORIGIN_MESSAGE_ID",
        "CLUSTER",
    ]
)
"""Property keys that mean something to RocketMQ: a user's property of that name would be taken for it."""

_TOPIC: Final = re.compile(r"[%|a-zA-Z0-9_-]+")
_LOWEST_DELAY: Final[Mapping[str, int]] = {"delivery_timestamp_ms": 0, "delay_ms": 0, "delay_level": 1}
_INT64_MAX: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Message:
    """A message to send.

    Args:
        topic: where to; letters, digits, `_`, `-`, `%`, `|`, at most 127.
        body: the content; not empty, which no server takes.
        tag: what consumers may filter by; one, without `|`, not blank.
        keys: what the message can be looked up by; none empty or with a space in it.
        properties: further texts by name; no empty names or values, none of RocketMQ's own names.
        message_group: messages of one group are delivered in order (FIFO topics).
        delivery_timestamp_ms: deliver not before this time (milliseconds since 1970; delay topics).
        delay_ms: deliver not before so many milliseconds after it was sent (0 or more; delay topics).
        delay_level: deliver after the broker's delay level of that number (1 to 18 unless it has others): the one kind
            of delay that brokers of 4.9 have. Remoting only.

    Only one of the last four can be given. Raises MessageInvalid, which names the argument.
    """

    topic: str
    body: bytes
    _: KW_ONLY
    tag: str | None = None
    keys: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    message_group: str | None = None
    delivery_timestamp_ms: int | None = None
    delay_ms: int | None = None
    delay_level: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no server takes. One pass of cheap checks: it runs for every message."""
        check_topic(self.topic)
        if not isinstance(self.body, bytes):
            raise MessageInvalid("body", f"is {type(self.body).__name__} instead of bytes", hint="Encode it first.")
        if not self.body:
            raise MessageInvalid("body", "is empty, which no server takes")
        if self.tag is not None:
            _check_tag(self.tag)
        if self.keys:
            _check_keys(self.keys)
        if self.properties:
            _check_properties(self.properties)
        if self.message_group is not None:
            _check_text("message_group", self.message_group)
        if self.is_delayed:
            self._check_delay()

    @property
    def is_delayed(self) -> bool:
        """Whether it is to be delivered later than it is sent."""
        return self.delivery_timestamp_ms is not None or self.delay_ms is not None or self.delay_level is not None

    @property
    def delay_field(self) -> str | None:
        """The argument that delays it, for who has to refuse that; None when none does."""
        return next((name for name in _LOWEST_DELAY if getattr(self, name) is not None), None)

    def _check_delay(self) -> None:
        """One way of saying when, and none of what a server would refuse whatever its settings."""
        given = [name for name in ("message_group", *_LOWEST_DELAY) if getattr(self, name) is not None]
        if len(given) > 1:
            raise MessageInvalid(given[0], f"and {given[1]} exclude each other")
        value, lowest = getattr(self, given[0]), _LOWEST_DELAY[given[0]]
        if not isinstance(value, int) or isinstance(value, bool):
            raise MessageInvalid(given[0], f"is {type(value).__name__} instead of int")
        if not lowest <= value <= _INT64_MAX:
            raise MessageInvalid(given[0], f"is {value}, not between {lowest} and {_INT64_MAX}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage:
    """A message as a consumer gets it.

    `topic` is the one subscribed to, also for a redelivered message. `body` is as sent (decompressed).
    `properties` are the user's; RocketMQ's own are in the fields. `born_host` is "ip:port" of the sender.
    `delivery_attempt` counts from 1. `receipt` belongs to the client that received the message: what it needs to settle
    it. Timestamps are milliseconds since 1970.
    """

    message_id: str
    topic: str
    body: bytes
    tag: str | None
    keys: tuple[str, ...]
    properties: Mapping[str, str]
    message_group: str | None
    born_timestamp_ms: int
    born_host: str
    store_timestamp_ms: int
    broker_name: str
    queue_id: int
    queue_offset: int
    delivery_attempt: int
    group: str
    receipt: object = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class SendReceipt:
    """Where a message that was sent lies now.

    `message_id` is the one that consumers see. `queue_offset` counts the messages of its queue.
    `transaction_id` is empty unless the message belongs to a transaction. `recall_handle` takes a delayed message back
    (`Producer.recall`); empty for one that cannot be.
    """

    message_id: str
    topic: str
    broker_name: str
    queue_id: int
    queue_offset: int
    transaction_id: str = ""
    recall_handle: str = ""


def check_topic(topic: str) -> None:
    """Raise MessageInvalid unless `topic` can be the name of a topic."""
    if _TOPIC.fullmatch(topic) is None:
        raise MessageInvalid("topic", f"{topic[:64]!r} is empty or has other characters than a-z A-Z 0-9 _ - % |")
    if len(topic) > TOPIC_SIZE_MAX:
        raise MessageInvalid("topic", f"has {len(topic)} characters, more than {TOPIC_SIZE_MAX}")


def is_user_property(key: str) -> bool:
    """Whether a property is a user's own, and neither RocketMQ's nor for the broker's eyes."""
    return key not in RESERVED_PROPERTY_KEYS and not key.startswith("__RMQ.TRANSIENT.")


def _check_tag(tag: str) -> None:
    _check_text("tag", tag)
    if "|" in tag:
        raise MessageInvalid("tag", f"{tag[:64]!r} contains |, which separates tags in a subscription")
    if tag != tag.strip():
        raise MessageInvalid("tag", f"{tag[:64]!r} begins or ends with white space, which subscriptions drop")


def _check_keys(keys: Iterable[str]) -> None:
    if isinstance(keys, str):
        raise MessageInvalid("keys", "is one text instead of a tuple", hint="Write keys=(key,).")
    for key in keys:
        _check_text("keys", key)
        if any(character.isspace() for character in key):
            raise MessageInvalid("keys", f"{key[:64]!r} contains white space, which separates keys")


def _check_properties(properties: Mapping[str, str]) -> None:
    for key, value in properties.items():
        _check_text("properties", key)
        if not isinstance(value, str) or not value:
            raise MessageInvalid("properties", f"{key[:64]!r} is empty or no text: it would be lost on the way")
        if "\x01" in value or "\x02" in value:
            raise MessageInvalid("properties", f"{key[:64]!r} contains 0x01 or 0x02, which separate properties")
        if not is_user_property(key):
            raise MessageInvalid("properties", f"{key[:64]!r} is a name of RocketMQ's own", hint="Choose another name.")


def _check_text(name: str, text: str) -> None:
    """A name of any kind: not blank, no control characters."""
    if not isinstance(text, str) or not text.strip():
        raise MessageInvalid(name, "is blank or no text")
    if not text.isprintable():
        raise MessageInvalid(name, f"{text[:64]!r} contains characters that do not print")
