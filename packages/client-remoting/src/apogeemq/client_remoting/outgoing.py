"""Messages on their way out: body, properties and send header."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from apogeemq.client_api.message import Message, check_topic
from apogeemq.client_remoting.core.namespaces import with_namespace
from apogeemq.client_remoting.core.unique_keys import UniqueKeys
from apogeemq.client_remoting.instance import DEFAULT_TOPIC, DEFAULT_TOPIC_QUEUES
from apogeemq.client_remoting.messages import compressed, encode_batched_properties, encode_message_properties
from apogeemq.remoting_codec.batch import BatchMessage, encode_batch
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.message import PROPERTY_INSTANCE_ID


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a producer's messages come from.

    Args:
        group: the producer group, in its namespace.
        namespace: what topics are in; empty for none.
        compress_from_bytes: bodies are compressed from this size on; None: never.
        unique_keys: of this producer.
    """

    group: str
    namespace: str
    compress_from_bytes: int | None
    unique_keys: UniqueKeys

    def next_key(self) -> tuple[str, int]:
        """A key for a message made now, and now in ms."""
        now_ms = time.time_ns() // 1_000_000
        return self.unique_keys.next(now_ms), now_ms


class Single:
    """One message.

    Args:
        origin: see there.
        message: what the application sends.
        more_properties: further ones as text, each with its separator.
        sys_flag: bits besides those of the compression.
        in_namespace: whether the topic is in the producer's; one of the servers' own is not.
    """

    __slots__ = ("_born_ms", "_group", "_properties", "_sys_flag", "body", "message_group", "topic", "unique_key")

    is_batch = False

    def __init__(
        self,
        origin: Origin,
        message: Message,
        more_properties: str = "",
        *,
        sys_flag: int = 0,
        in_namespace: bool = True,
    ) -> None:
        self.topic = message.topic
        self.message_group = message.message_group
        self.body, compression = compressed(message.body, origin.compress_from_bytes)
        self._sys_flag = sys_flag | compression
        self.unique_key, self._born_ms = origin.next_key()
        self._properties = encode_message_properties(message, self.unique_key) + more_properties
        if origin.namespace and in_namespace:
            self.topic = with_namespace(message.topic, origin.namespace)
            check_topic(self.topic)
            self._properties += f"{PROPERTY_INSTANCE_ID}\x01{origin.namespace}\x02"
        self._group = origin.group

    def ext_fields(self, queue: MessageQueue) -> dict[str, str]:
        """The V2 header."""
        return _send_header(self._group, self.topic, queue, self._sys_flag, self._born_ms, self._properties, "false")


class Batch:
    """Several messages of one topic."""

    is_batch = True

    def __init__(self, origin: Origin, messages: Sequence[Message]) -> None:
        self.topic = with_namespace(messages[0].topic, origin.namespace)
        check_topic(self.topic)
        self.message_group = messages[0].message_group
        self.unique_keys: list[str] = []
        self._group = origin.group
        self._born_ms = 0
        parts = []
        for message in messages:
            key, self._born_ms = origin.next_key()
            self.unique_keys.append(key)
            parts.append(BatchMessage(0, message.body, encode_batched_properties(message, key)))
        self.body = encode_batch(parts)

    def ext_fields(self, queue: MessageQueue) -> dict[str, str]:
        """The V2 header; the properties are the messages' own."""
        return _send_header(self._group, self.topic, queue, 0, self._born_ms, "", "true")


def _send_header(
    group: str, topic: str, queue: MessageQueue, sys_flag: int, born_ms: int, properties: str, batch: str
) -> dict[str, str]:
    """SendMessageRequestHeaderV2 as ext fields, written by hand: the hot path (a test compares it with the header)."""
    return {
        "a": group,
        "b": topic,
        "c": DEFAULT_TOPIC,
        "d": str(DEFAULT_TOPIC_QUEUES),
        "e": str(queue.queue_id),
        "f": str(sys_flag),
        "g": str(born_ms),
        "h": "0",
        "i": properties,
        "j": "0",
        "k": "false",
        "m": batch,
        "n": queue.broker_name,
    }
