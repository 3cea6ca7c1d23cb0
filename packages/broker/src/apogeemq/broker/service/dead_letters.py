"""The dead letters of a group: what failed too often, kept for people to look at.

A dead letter is the message as it was, its trace context and its keys among the rest, and says besides:
```
DLQ_ORIGIN_TOPIC, DLQ_ORIGIN_MESSAGE_ID   topic and id of the message before its first failure (Apache's)
RETRY_TOPIC, ORIGIN_MESSAGE_ID            the same, as retries say it (Apache's)
APOGEEMQ_FAILURE_REASON                   the last failure, in words: what the consumer said, else what the broker knows
```
Source: reference broker_behaviour.md §2.
"""

from collections import Counter

from apogeemq.broker.core.names import dlq_topic
from apogeemq.broker.core.properties import encode_or_keep
from apogeemq.broker.core.topics import Topic, TopicTable
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.record import Record
from apogeemq.store.message_store import AppendResult

PROPERTY_FAILURE_REASON = "APOGEEMQ_FAILURE_REASON"
REASON_LENGTH_MAX = 1_000
"""Characters; what is longer is cut."""


def with_origin(properties: dict[str, str], record: Record, message_id: str) -> dict[str, str]:
    """The properties of a copy of a message that failed: they say where it came from, from its first failure on."""
    return {
        **properties,
        m.PROPERTY_RETRY_TOPIC: properties.get(m.PROPERTY_RETRY_TOPIC, record.topic),
        m.PROPERTY_ORIGIN_MESSAGE_ID: properties.get(m.PROPERTY_ORIGIN_MESSAGE_ID, message_id),
        m.PROPERTY_WAIT: "false",
    }


def with_reason(properties: dict[str, str], reason: str) -> dict[str, str]:
    """The properties of a message that is given up, for this reason; an earlier one is replaced."""
    # Divides properties, or spoils whatever shows it.
    text = "".join(char if char.isprintable() else " " for char in reason[:REASON_LENGTH_MAX])
    return {**properties, PROPERTY_FAILURE_REASON: text}


class DeadLetters:
    """Stores dead letters, and counts them in `counts` by (group, topic of origin)."""

    def __init__(self, *, topics: TopicTable, writer: MessageWriter, counts: Counter[tuple[str, str]]) -> None:
        self._topics = topics
        self._writer = writer
        self._counts = counts

    def put(self, group: str, record: Record, properties: dict[str, str], reason: str) -> tuple[AppendResult, Topic]:
        """Store a message that failed once more, with properties that name its origin; gives where.

        `reason` says in words how it failed.

        Raises BrokerError when the group's DLQ can't be made, StoreError; nothing was stored then.
        """
        topic = self._topics.create_for_group(dlq_topic(group), 1)
        origin_topic = properties[m.PROPERTY_RETRY_TOPIC]
        kept = {key: value for key, value in properties.items() if key != m.PROPERTY_DELAY}
        kept.setdefault(m.PROPERTY_DLQ_ORIGIN_TOPIC, origin_topic)
        kept.setdefault(m.PROPERTY_DLQ_ORIGIN_MESSAGE_ID, properties[m.PROPERTY_ORIGIN_MESSAGE_ID])
        result = self._writer.put_again(
            topic,
            0,
            record,
            properties=encode_or_keep(with_reason(kept, reason), record.properties),
            tags_code=m.tags_code(kept.get(m.PROPERTY_TAGS)),
        )
        # Only names of topics that exist: a property may hold anything, and each name is kept.
        origin = self._topics.get(origin_topic) or topic
        self._counts[group, origin.name] += 1
        return result, topic
