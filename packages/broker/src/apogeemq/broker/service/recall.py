"""Taking back a message that waits for its time: the recall is itself a message of the timer queue.

It stands behind the message in the same queue, so that it finds it, whatever happens in between, and goes wherever the
queue goes. Whether there was still something to take back shows when the timer reads it; the answer only says that it
will. Source: remoting.md (recallHandle); broker_behaviour.md §3.
"""

from collections.abc import Callable
from typing import NamedTuple

from apogeemq.broker.core.names import TIMER_TOPIC
from apogeemq.broker.core.properties import BrokerProperties, join_properties
from apogeemq.broker.core.topics import Topic, TopicTable
from apogeemq.broker.errors import IllegalOperation, MessageIllegal, NoPermission, TopicNotExist
from apogeemq.broker.service.timed_form import TimedForm
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.errors import RemoteProtocolError
from apogeemq.remoting_codec.message_id import RecallHandle, decode_recall_handle
from apogeemq.store.timer_store import TIMER_QUEUE

_BODY = b"0"
"""Apache's; a message must have one."""


class Recalled(NamedTuple):
    """A recall that was stored."""

    unique_key: str
    topic: Topic
    end_offset: int


class RecallService:
    """Stores recalls.

    Args:
        topics, writer, properties: as for sends.
        timed_form: makes their properties.
        timer_arrived: is told of each.
        now_ms: wall time.
        store_host: of this broker: it is the recall's sender.
        broker_name: whose handles are good here.
        is_enabled: whether messages may be taken back (recallMessageEnable).
    """

    def __init__(
        self,
        *,
        topics: TopicTable,
        writer: MessageWriter,
        properties: BrokerProperties,
        timed_form: TimedForm,
        timer_arrived: Callable[[], None],
        now_ms: Callable[[], int],
        store_host: bytes,
        broker_name: str,
        is_enabled: bool,
    ) -> None:
        self._topics = topics
        self._writer = writer
        self._properties = properties
        self._timed_form = timed_form
        self._timer_arrived = timer_arrived
        self._now_ms = now_ms
        self._store_host = store_host
        self._broker_name = broker_name
        self._is_enabled = is_enabled

    def recall(self, topic_name: str, handle_text: str) -> Recalled:
        """Store the recall of a message of a topic. Raises BrokerError (refused) or StoreError; nothing was stored."""
        if not self._is_enabled:
            raise NoPermission("recall failed, operation is forbidden: recallMessageEnable is false")
        topic = self._topics.get(topic_name)
        if topic is None:
            raise TopicNotExist(f"recall failed, the topic[{topic_name[:300]}] not exist")
        handle = self._handle(topic_name, handle_text)
        given = {
            m.PROPERTY_UNIQ_KEY: handle.message_id,
            m.PROPERTY_TIMER_DEL_UNIQKEY: f"{topic_name}+{handle.message_id}",
            m.PROPERTY_TIMER_DELIVER_MS: str(handle.deliver_ms),
        }
        try:
            timed = self._timed_form.properties(given, topic_name, 0)
        except MessageIllegal as error:
            raise IllegalOperation(f"recall failed, timestamp invalid: {error}") from error
        if timed is None:
            raise _too_late(handle)
        result = self._writer.put(
            self._topics.require(TIMER_TOPIC),
            TIMER_QUEUE[1],
            flag=0,
            sys_flag=0,
            born_timestamp_ms=self._now_ms(),
            born_host=self._store_host,
            reconsume_times=0,
            body=_BODY,
            properties=self._properties.complete(join_properties(timed), timed),
            tags_code=0,
        )
        self._timer_arrived()
        return Recalled(handle.message_id, topic, result.physical_offset + result.size_bytes)

    def _handle(self, topic_name: str, text: str) -> RecallHandle:
        try:
            handle = decode_recall_handle(text)
        except RemoteProtocolError as error:
            raise IllegalOperation(f"recall handle is invalid: recallHandle: {error}") from error
        if handle.topic != topic_name:
            raise IllegalOperation("recall failed, topic not match: recallHandle is of another")
        if handle.broker_name != self._broker_name:
            raise IllegalOperation("recall failed, broker service not available: recallHandle is of another broker")
        if handle.deliver_ms <= self._now_ms():
            raise _too_late(handle)
        return handle


def _too_late(handle: RecallHandle) -> IllegalOperation:
    return IllegalOperation(f"recall failed, timestamp invalid: recallHandle is of one due at {handle.deliver_ms}")
