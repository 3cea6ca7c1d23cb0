"""Where a message goes that waited in a topic of the system's, as its properties say, and what it says there."""

from collections.abc import Mapping

from apogeemq.broker.core.names import RETRY_TOPIC_PREFIX
from apogeemq.broker.core.topics import QUEUES_PER_TOPIC_MAX, Topic, TopicTable
from apogeemq.remoting_codec import message as m


def real_place(topics: TopicTable, properties: Mapping[str, str]) -> tuple[Topic, int]:
    """Topic and queue id, see `served_queue_id`; a group's retry topic is made where it is missing.

    Errors: LookupError when they do not say, or the topic is gone; BrokerError when the retry topic can't be made.
    """
    name = properties.get(m.PROPERTY_REAL_TOPIC)
    queue_id = properties.get(m.PROPERTY_REAL_QID, "")
    if name is None or not queue_id.isdecimal() or int(queue_id[:9]) >= QUEUES_PER_TOPIC_MAX:
        raise LookupError("it does not say which topic and queue it is for (REAL_TOPIC, REAL_QID)")
    topic = topics.get(name)
    if topic is None and name.startswith(RETRY_TOPIC_PREFIX):
        topic = topics.create_for_group(name, 1)
    if topic is None:
        raise LookupError(f"its topic {name} does not exist any more")
    return topic, served_queue_id(topic, int(queue_id))


def served_queue_id(topic: Topic, queue_id: int) -> int:
    """The queue that a message was sent to; the last one where the topic has fewer queues now.

    Apache's broker stores it in the queue that is gone, where nobody finds it.
    """
    return min(queue_id, max(topic.config.write_queue_nums, topic.config.read_queue_nums) - 1)


def without_wait(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties of the copy that is delivered: where the sender said anything of WAIT, it is turned off."""
    copied = dict(properties)
    if m.PROPERTY_WAIT in copied:
        copied[m.PROPERTY_WAIT] = "false"
    return copied
