"""Taking messages in: checks, what the broker adds, topic creation, batches, delays, retries sent directly.

The order of checks and the answers follow Apache's broker (reference broker_behaviour.md §1 to §4; remoting.md §5).
Differences, on purpose:
- the messages of a batch keep their own UNIQ_KEY; Apache appends the batch's, so that all look like one message.
- a message that names one to be recalled (TIMER_DEL_UNIQKEY) and no time is refused; Apache stores it as an ordinary
  one.
- a message with the prepared bit of the system flag that is no half message (TRAN_MSG) is refused: Apache's broker
  stores it where nobody will ever find it.
- of the system flag only the bits that clients own are kept.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

from apogeemq.broker.core.delay import DelayLevels, queue_id_of_level
from apogeemq.broker.core.names import RETRY_TOPIC_PREFIX, SCHEDULE_TOPIC, TIMER_TOPIC, dlq_topic
from apogeemq.broker.core.properties import BrokerProperties, join_properties, read_properties
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.timed import TIMER_KEYS
from apogeemq.broker.core.topics import PERM_WRITE, PLANNED, Topic, TopicTable
from apogeemq.broker.errors import (
    InvalidParameter,
    MessageIllegal,
    NoPermission,
    SubscriptionGroupNotExist,
)
from apogeemq.broker.service.dead_letters import with_reason
from apogeemq.broker.service.delayed_form import DelayedForm
from apogeemq.broker.service.timed_form import TimedForm
from apogeemq.broker.service.transactions import QUEUE_ID as TRANSACTION_QUEUE_ID
from apogeemq.broker.service.transactions import TransactionService
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.batch import decode_batch
from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.remoting_codec.errors import BodyInvalid, LocalProtocolError
from apogeemq.remoting_codec.message_id import RecallHandle, encode_recall_handle
from apogeemq.store.message_store import AppendResult
from apogeemq.store.timer_store import TIMER_QUEUE

MAX_RECONSUME_TIMES_VERSION_MIN = 121
"""Older clients' headers do not carry maxReconsumeTimes (V3_4_9)."""

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}")
_DELAY_KEYS = TIMER_KEYS | {m.PROPERTY_DELAY, m.PROPERTY_TIMER_DEL_UNIQKEY}
_SPECIAL_KEYS = TIMER_KEYS | {
    m.PROPERTY_DELAY,
    m.PROPERTY_TRAN_MSG,
    m.PROPERTY_TIMER_DEL_UNIQKEY,
}


_CLIENT_BITS = ~(
    MessageSysFlag.INNER_BATCH_FLAG | MessageSysFlag.NEED_UNWRAP_FLAG | MessageSysFlag.TRANSACTION_ROLLBACK_TYPE
)
"""The system flag without the bits that say what a broker made of a message: a client's word on those is dropped, since
recovery believes them."""


class SendRequest(Protocol):
    """What a send asks for; both forms of Apache's header have these (SendMessageRequestHeader and …V2)."""

    producer_group: str
    topic: str
    default_topic: str
    default_topic_queue_nums: int
    queue_id: int
    sys_flag: int
    born_timestamp: int
    flag: int
    properties: str | None
    reconsume_times: int | None
    max_reconsume_times: int | None
    batch: bool | None


class Sent(NamedTuple):
    """A stored message, or a stored batch (`message_id` then is comma-joined, the offset the first one's).

    `topic` is where consumers will find it: the DLQ for a dead letter, the real topic for a delayed message.
    """

    message_id: str
    queue_id: int
    queue_offset: int
    unique_key: str
    end_offset: int
    topic: Topic
    wait: bool
    recall_handle: str | None = None
    """Of a timer message: what takes it back."""


class SendService:
    """Stores what clients send.

    Args:
        topics, groups: the tables.
        writer: the way into the store.
        properties: what the broker adds.
        delay_levels, delayed_form: for messages with DELAY.
        choose_queue: n → a number below n, for sends without a queue.
        create_unique_key: for messages whose producer gave none.
        offset_message_id: physical offset → the id that names this broker and the offset.
        permission: bits of this broker (brokerPermission), read at each send.
        body_size_bytes_max: larger bodies are refused (maxMessageSize).
        broker_name: for remarks.
        is_ordered: whether a group consumes in order now.
        dead_letters: counts what goes to a DLQ, by (group, original topic).
        transactions: keeps half messages.
        timed_form: for messages with TIMER_….
        timer_arrived: is told of each that was stored.
    """

    def __init__(
        self,
        *,
        topics: TopicTable,
        groups: SubscriptionGroupTable,
        writer: MessageWriter,
        properties: BrokerProperties,
        delay_levels: DelayLevels,
        delayed_form: DelayedForm,
        choose_queue: Callable[[int], int],
        create_unique_key: Callable[[], str],
        offset_message_id: Callable[[int], str],
        permission: int,
        body_size_bytes_max: int,
        broker_name: str,
        is_ordered: Callable[[str], bool],
        dead_letters: Counter[tuple[str, str]],
        transactions: TransactionService,
        timed_form: TimedForm,
        timer_arrived: Callable[[], None],
    ) -> None:
        self._topics = topics
        self._groups = groups
        self._writer = writer
        self._properties = properties
        self._delay_levels = delay_levels
        self._delayed_form = delayed_form
        self._choose_queue = choose_queue
        self._create_unique_key = create_unique_key
        self._offset_message_id = offset_message_id
        self.permission = permission
        self._body_size_bytes_max = body_size_bytes_max
        self._broker_name = broker_name
        self._is_ordered = is_ordered
        self._dead_letters = dead_letters
        self._transactions = transactions
        self._timed_form = timed_form
        self._timer_arrived = timer_arrived

    def send(self, request: SendRequest, body: bytes, born_host: bytes, client_version: int) -> Sent:
        """Store one message or one batch, as the request says.

        Raises BrokerError (refused, see the module) or StoreError (could not be stored); nothing was stored then.
        """
        topic, queue_id = self.check(request, body)
        if request.batch:
            if request.sys_flag & MessageSysFlag.TRANSACTION_PREPARED_TYPE:
                raise _not_a_half_message()
            return self._send_batch(request, topic, queue_id, body, born_host)

        text = request.properties or ""
        if len(text) > m.PROPERTIES_SIZE_BYTES_MAX:
            raise _properties_too_long(f"{len(text)} characters")
        properties = read_properties(text)
        unique_key = properties.get(m.PROPERTY_UNIQ_KEY)
        created_key = None
        if unique_key is None:
            unique_key = created_key = self._create_unique_key()
        target, target_queue_id = topic, queue_id
        is_dead_letter = False
        if topic.name.startswith(RETRY_TOPIC_PREFIX):
            target, target_queue_id = self._retry_or_dlq(request, topic, queue_id, client_version)
            is_dead_letter = target is not topic
            if is_dead_letter:
                # A dead letter goes there at once, whatever delay the consumer gave its next try.
                properties = {key: value for key, value in properties.items() if key != m.PROPERTY_DELAY}
                reason = f"sent to its retry topic by its consumer, {request.reconsume_times or 0} times until now"
                properties = with_reason(properties, reason)
                text = join_properties(properties)
        stored_topic, stored_queue_id = target, target_queue_id
        recall_handle: str | None = None
        tags_code: int | None = m.tags_code(properties.get(m.PROPERTY_TAGS))
        if not _SPECIAL_KEYS.isdisjoint(properties):
            properties, stored_topic, stored_queue_id, tags_code = self._special(
                properties, target, target_queue_id, tags_code, request.reconsume_times or 0
            )
            text = join_properties(properties)
        if (
            request.sys_flag & MessageSysFlag.TRANSACTION_PREPARED_TYPE
            and stored_topic is not self._transactions.half_topic
        ):
            raise _not_a_half_message()
        stored_properties = self._stored_properties(text, properties, created_key)
        if target.version == PLANNED:  # not before: a send that is refused makes no topic
            kept = self._topics.keep(target)
            stored_topic = kept if stored_topic is target else stored_topic
            target = kept
        result = self._writer.put(  # positional: naming eleven arguments costs 0.4 µs on every message
            stored_topic,
            stored_queue_id,
            request.flag,
            request.sys_flag & _CLIENT_BITS,
            request.born_timestamp,
            born_host,
            request.reconsume_times or 0,
            body,
            stored_properties,
            tags_code,
        )
        if is_dead_letter:
            self._count_dead_letter(topic, properties)
        elif stored_topic is not target:
            if stored_topic is self._transactions.half_topic:
                self._transactions.stored(result, properties)
            elif stored_topic.name == TIMER_TOPIC:
                self._timer_arrived()
                recall_handle = self._recall_handle(target.name, unique_key, properties)
        return Sent(
            self._offset_message_id(result.physical_offset),
            queue_id,
            result.queue_offset,
            unique_key,
            result.physical_offset + result.size_bytes,
            target,
            properties.get(m.PROPERTY_WAIT) != "false",
            recall_handle,
        )

    def _recall_handle(self, topic: str, unique_key: str, properties: dict[str, str]) -> str | None:
        """What its sender takes a timer message back with; None for one whose own key has no place in a handle."""
        # Apache's time, a millisecond into the slot: a message that recalls is then put into the same one.
        slot_ms = int(properties[m.PROPERTY_TIMER_OUT_MS])
        try:
            return encode_recall_handle(RecallHandle(topic, self._broker_name, slot_ms + 1, unique_key))
        except LocalProtocolError:
            return None

    def check(self, request: SendRequest, body: bytes) -> tuple[Topic, int]:
        """The topic, perhaps only planned, and the queue that a message goes to. Raises BrokerError (refused)."""
        topic = self._writable_topic(request)
        queue_id = self._queue_id(request, topic)
        if not body:
            raise MessageIllegal("the message body is empty")
        if len(body) > self._body_size_bytes_max:
            raise MessageIllegal(
                f"the message body is {len(body)} bytes, this broker's limit (maxMessageSize) is "
                f"{self._body_size_bytes_max}",
                limit="store.max_message_size_bytes",
            )
        return topic, queue_id

    def _writable_topic(self, request: SendRequest) -> Topic:
        """The topic of a send, perhaps only planned."""
        if not self.permission & PERM_WRITE:
            raise NoPermission(f"the broker[{self._broker_name}] sending message is forbidden")
        topic = self._topics.get(request.topic)
        if topic is None:
            if request.topic.startswith(RETRY_TOPIC_PREFIX):
                return self._topics.plan_for_group(request.topic, 1)
            topic = self._topics.plan_for_send(request.topic, request.default_topic, request.default_topic_queue_nums)
        if not topic.is_sendable:
            raise NoPermission(f"Sending message to topic[{topic.name}] is forbidden.")
        if not topic.config.perm & PERM_WRITE:
            raise NoPermission(f"the topic[{topic.name}] sending message is forbidden")
        return topic

    def _queue_id(self, request: SendRequest, topic: Topic) -> int:
        config = topic.config
        if request.queue_id < 0:
            return self._choose_queue(config.write_queue_nums)
        if request.queue_id >= max(config.write_queue_nums, config.read_queue_nums):
            raise InvalidParameter(f"request queueId[{request.queue_id}] is illegal, {topic}")
        return request.queue_id

    def _stored_properties(self, text: str, properties: dict[str, str], created_key: str | None) -> bytes:
        try:
            stored = self._properties.complete(text, properties, created_key)
        except UnicodeEncodeError as error:
            raise MessageIllegal("the message properties have no UTF-8 form") from error
        if len(stored) > m.PROPERTIES_SIZE_BYTES_MAX:
            raise _properties_too_long(f"{len(stored)} bytes with what the broker adds")
        return stored

    def _retry_or_dlq(
        self, request: SendRequest, topic: Topic, queue_id: int, client_version: int
    ) -> tuple[Topic, int]:
        """Where a message goes that a consumer sends to its retry topic itself: there, or to the DLQ, which may be only
        planned.

        Its count must be beyond the maximum (`>`; a send-back compares with `>=`, trap 22), or its group must hold a
        queue lock: an ordered consumer that gives a message up does not want it again.
        """
        group_name = topic.name.removeprefix(RETRY_TOPIC_PREFIX)
        group = self._groups.get(group_name)
        if group is None:
            raise SubscriptionGroupNotExist(
                f"subscription group not exist, {group_name[:300]} "
                "See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
            )
        reconsume_times_max = group.retry_max_times
        if client_version >= MAX_RECONSUME_TIMES_VERSION_MIN and request.max_reconsume_times is not None:
            reconsume_times_max = request.max_reconsume_times
        if (request.reconsume_times or 0) > reconsume_times_max or self._is_ordered(group_name):
            return self._topics.plan_for_group(dlq_topic(group_name), 1), 0
        return topic, queue_id

    def _count_dead_letter(self, retry_topic: Topic, properties: dict[str, str]) -> None:
        # Only names of topics that exist: a property may hold anything, and each name is kept.
        origin = self._topics.get(properties.get(m.PROPERTY_RETRY_TOPIC, "")) or retry_topic
        self._dead_letters[retry_topic.name.removeprefix(RETRY_TOPIC_PREFIX), origin.name] += 1

    def _special(
        self, properties: dict[str, str], topic: Topic, queue_id: int, tags_code: int | None, reconsume_times: int
    ) -> tuple[dict[str, str], Topic, int, int | None]:
        """What a message with a delay or another special property becomes: properties, topic, queue, tags code."""
        level = properties.get(m.PROPERTY_DELAY)
        # A consumer that sends a committed message to its retry topic sends the property TRAN_MSG on with it.
        if properties.get(m.PROPERTY_TRAN_MSG, "").lower() == "true" and reconsume_times == 0:
            return self._half(properties, topic, queue_id, tags_code)
        if level is not None:
            if not _WHOLE_NUMBER.fullmatch(level):
                raise MessageIllegal(f"property DELAY must be a whole number (a delay level), not {level[:50]!r}")
            if int(level) > 0:
                return self._delayed(properties, topic, queue_id, self._delay_levels.clamp(int(level)))
        # With TIMER_OUT_MS it was delivered by a timer before, and a consumer sends it on.
        if not TIMER_KEYS.isdisjoint(properties) and m.PROPERTY_TIMER_OUT_MS not in properties:
            timed = self._timed_form.properties(properties, topic.name, queue_id)
            if timed is not None:
                return timed, self._topics.require(TIMER_TOPIC), TIMER_QUEUE[1], tags_code
        elif m.PROPERTY_TIMER_DEL_UNIQKEY in properties:
            raise MessageIllegal("property TIMER_DEL_UNIQKEY names a message to be recalled, but no property its time")
        return properties, topic, queue_id, tags_code

    def _half(
        self, properties: dict[str, str], topic: Topic, queue_id: int, tags_code: int | None
    ) -> tuple[dict[str, str], Topic, int, int | None]:
        if not _DELAY_KEYS.isdisjoint(properties):
            raise MessageIllegal("a transactional message has no delay: leave DELAY and TIMER_… away")
        half = self._transactions.half_properties(properties, topic.name, queue_id)
        return half, self._transactions.half_topic, TRANSACTION_QUEUE_ID, tags_code

    def _delayed(
        self, properties: dict[str, str], topic: Topic, queue_id: int, level: int
    ) -> tuple[dict[str, str], Topic, int, None]:
        plain = {key: value for key, value in properties.items() if key not in TIMER_KEYS}
        delayed = self._delayed_form.properties(plain, topic.name, queue_id, level)
        return delayed, self._topics.require(SCHEDULE_TOPIC), queue_id_of_level(level), None

    def _send_batch(self, request: SendRequest, topic: Topic, queue_id: int, body: bytes, born_host: bytes) -> Sent:
        if topic.name.startswith(RETRY_TOPIC_PREFIX):
            raise MessageIllegal("batch request does not support retry group " + topic.name)
        try:
            messages = decode_batch(body)
        except BodyInvalid as error:
            raise MessageIllegal(f"the batch can't be read: {error}") from error
        batch_properties = read_properties(request.properties or "")
        if not _SPECIAL_KEYS.isdisjoint(batch_properties):
            raise MessageIllegal("the batch has a delay or is transactional: not for batches")
        entries = []
        for index, message in enumerate(messages):
            properties = m.decode_properties(message.properties)
            if not _SPECIAL_KEYS.isdisjoint(properties):
                raise MessageIllegal(f"message {index} of the batch has a delay or is transactional: not in batches")
            created_key = None if m.PROPERTY_UNIQ_KEY in properties else self._create_unique_key()
            try:
                text = message.properties.decode()
            except UnicodeDecodeError as error:
                raise MessageIllegal(f"the properties of message {index} of the batch are not UTF-8") from error
            stored = self._stored_properties(text, properties, created_key)
            entries.append((message.flag, message.body, stored, m.tags_code(properties.get(m.PROPERTY_TAGS))))
        topic = self._topics.keep(topic)
        results = self._writer.put_batch(
            topic,
            queue_id,
            sys_flag=request.sys_flag & _CLIENT_BITS,
            born_timestamp_ms=request.born_timestamp,
            born_host=born_host,
            entries=entries,
        )
        return self._batch_sent(results, topic, queue_id, batch_properties)

    def _batch_sent(
        self, results: list[AppendResult], topic: Topic, queue_id: int, batch_properties: dict[str, str]
    ) -> Sent:
        last = results[-1]
        return Sent(
            ",".join(self._offset_message_id(result.physical_offset) for result in results),
            queue_id,
            results[0].queue_offset,
            batch_properties.get(m.PROPERTY_UNIQ_KEY, ""),
            last.physical_offset + last.size_bytes,
            topic,
            batch_properties.get(m.PROPERTY_WAIT) != "false",
        )


def _not_a_half_message() -> MessageIllegal:
    return MessageIllegal("the system flag has the bit of a half message (4), but there is no property TRAN_MSG=true")


def _properties_too_long(size: str) -> MessageIllegal:
    return MessageIllegal(f"the message properties are {size}, the limit is {m.PROPERTIES_SIZE_BYTES_MAX}")
