"""CONSUMER_SEND_MSG_BACK: a consumer could not process a message; the broker hands it out again later, or gives up.

The broker reads the message from its own log by the offset that the consumer names, and stores a copy for the group's
retry topic, delayed by a level that grows with each failure; after the last one, for the group's DLQ.
A group with several retry queues (retryQueueNums) has its failures spread over them by chance.
Source: reference broker_behaviour.md §2; traps 22; Apache AbstractSendMessageProcessor 5.x.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

from apogeemq.broker.core.delay import DelayLevels, queue_id_of_level
from apogeemq.broker.core.names import SCHEDULE_TOPIC, retry_topic
from apogeemq.broker.core.properties import join_properties
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import PERM_WRITE, Topic, TopicTable
from apogeemq.broker.errors import NoPermission, RequestFailed, SubscriptionGroupNotExist
from apogeemq.broker.service.dead_letters import DeadLetters, with_origin
from apogeemq.broker.service.delayed_form import DelayedForm
from apogeemq.broker.service.send import MAX_RECONSUME_TIMES_VERSION_MIN
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.remoting_codec.record import Record, decode_record
from apogeemq.store.message_store import MessageStore

DELAY_LEVEL_OF_FIRST_RETRY = 3


class SendBackRequest(Protocol):
    """What a consumer says of the message that failed (Apache's ConsumerSendMsgBackRequestHeader)."""

    offset: int
    group: str
    delay_level: int
    max_reconsume_times: int | None


class Retry(NamedTuple):
    """A send-back that passed the checks. `delay_level` 0 means by the number of failures, below 0 the DLQ.

    `topic` is the group's retry topic, perhaps only planned: it is made when there is a message for it.
    """

    group: str
    topic: Topic
    queue_id: int
    delay_level: int
    reconsume_times_max: int


class SendBackService:
    """Stores failed messages for another try; arguments as for SendService."""

    def __init__(
        self,
        *,
        store: MessageStore,
        topics: TopicTable,
        groups: SubscriptionGroupTable,
        writer: MessageWriter,
        delay_levels: DelayLevels,
        delayed_form: DelayedForm,
        offset_message_id: Callable[[int], str],
        choose_queue: Callable[[int], int],
        permission: int,
        broker_name: str,
        dead_letters: Counter[tuple[str, str]],
    ) -> None:
        self._store = store
        self._topics = topics
        self._groups = groups
        self._writer = writer
        self._delay_levels = delay_levels
        self._delayed_form = delayed_form
        self._offset_message_id = offset_message_id
        self._choose_queue = choose_queue
        self.permission = permission
        self._broker_name = broker_name
        self._dead_letters = DeadLetters(topics=topics, writer=writer, counts=dead_letters)

    def check(self, request: SendBackRequest, client_version: int) -> Retry | None:
        """What is to be done with the message; None when its group retries nothing.

        Raises BrokerError: unknown group (26), a broker or a retry topic without write permission (16).
        """
        group = self._groups.get(request.group)
        if group is None:
            raise SubscriptionGroupNotExist(
                f"subscription group not exist, {request.group[:300]} "
                "See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
            )
        if not self.permission & PERM_WRITE:
            raise NoPermission(f"the broker[{self._broker_name}] sending message is forbidden")
        if group.retry_queue_nums <= 0:
            return None
        topic = self._topics.plan_for_group(retry_topic(group.group_name), group.retry_queue_nums)
        if not topic.config.perm & PERM_WRITE:
            raise NoPermission(f"the topic[{topic.name}] sending message is forbidden")
        reconsume_times_max = group.retry_max_times
        if client_version >= MAX_RECONSUME_TIMES_VERSION_MIN and request.max_reconsume_times is not None:
            reconsume_times_max = request.max_reconsume_times
        queue_id = self._retry_queue(group.retry_queue_nums, topic)
        return Retry(request.group, topic, queue_id, request.delay_level, reconsume_times_max)

    def read(self, physical_offset: int) -> Record:
        """The message that failed. May wait for the disk. Raises RequestFailed (1) when there is none at the offset."""
        data = self._store.record_at(physical_offset) if physical_offset >= 0 else None
        if data is None:
            raise RequestFailed(f"look message by offset failed, {physical_offset}")
        try:
            return decode_record(data)
        except RecordInvalid as error:
            raise RequestFailed(f"look message by offset failed, {physical_offset}: {error}") from error

    def store(self, retry: Retry, record: Record, reason: str = "") -> tuple[int, Topic]:
        """Store the retry, or the dead letter; gives the end of its record in the log, and where it will be found.

        `reason` is the consumer's word on why the message goes to the dead letters; empty when it said none.
        """
        message_id = self._offset_message_id(record.physical_offset)
        properties = with_origin(m.decode_properties(record.properties), record, message_id)
        if record.reconsume_times >= retry.reconsume_times_max or retry.delay_level < 0:
            reason = reason or _reason(retry, record)
            result, topic = self._dead_letters.put(retry.group, record, properties, reason)
            return result.physical_offset + result.size_bytes, topic
        level = retry.delay_level or DELAY_LEVEL_OF_FIRST_RETRY + record.reconsume_times
        return self._put_retry(record, properties, retry, self._delay_levels.clamp(level))

    def _retry_queue(self, retry_queue_nums: int, topic: Topic) -> int:
        """One of the group's retry queues that consumers read: the topic may have been made when there were fewer."""
        queues = min(retry_queue_nums, topic.config.write_queue_nums, topic.config.read_queue_nums)
        return self._choose_queue(queues) if queues > 1 else 0

    def _put_retry(self, record: Record, properties: dict[str, str], retry: Retry, level: int) -> tuple[int, Topic]:
        topic = self._topics.keep(retry.topic)
        delayed = self._delayed_form.properties(properties, topic.name, retry.queue_id, level)
        schedule = self._topics.require(SCHEDULE_TOPIC)
        result = self._writer.put_again(
            schedule,
            queue_id_of_level(level),
            record,
            properties=join_properties(delayed).encode(),
            tags_code=None,
        )
        return result.physical_offset + result.size_bytes, topic


def _reason(retry: Retry, record: Record) -> str:
    """Why a message goes to the dead letters whose consumer does not say it."""
    delivery = record.reconsume_times + 1
    if retry.delay_level < 0:
        return f"given up by its consumer on delivery {delivery}"
    return f"sent back by its consumer on delivery {delivery}; the maximum is {retry.reconsume_times_max} retries"
