"""The dead letters of a group: what failed too often, kept for people to look at.

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


def with_origin(properties: dict[str, str], record: Record, message_id: str) -> dict[str, str]:
    """The properties of a copy of a message that failed: they say where it came from, from its first failure on."""
    return {
        **properties,
        m.PROPERTY_RETRY_TOPIC: properties.get(m.PROPERTY_RETRY_TOPIC, record.topic),
        m.PROPERTY_ORIGIN_MESSAGE_ID: properties.get(m.PROPERTY_ORIGIN_MESSAGE_ID, message_id),
        m.PROPERTY_WAIT: "false",
    }


class DeadLetters:
    """Stores dead letters, and counts them in `counts` by (group, topic of origin)."""

    def __init__(self, *, topics: TopicTable, writer: MessageWriter, counts: Counter[tuple[str, str]]) -> None:
        self._topics = topics
        self._writer = writer
        self._counts = counts

    def put(self, group: str, record: Record, properties: dict[str, str]) -> tuple[AppendResult, Topic]:
        """Store a message that failed once more, with properties that name its origin; gives where.

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
            properties=encode_or_keep(kept, record.properties),
            tags_code=m.tags_code(kept.get(m.PROPERTY_TAGS)),
        )
        # Only names of topics that exist: a property may hold anything, and each name is kept.
        origin = self._topics.get(origin_topic) or topic
        self._counts[group, origin.name] += 1
        return result, topic
