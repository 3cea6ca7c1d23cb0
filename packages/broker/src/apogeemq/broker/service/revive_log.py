"""The revive log: the topic that holds what the broker wrote down of pops, so that a restart knows it again.

All records of a message's life lie in one of its queues: the checkpoint chooses it in turn, acks and later checkpoints
follow there. Consumer group CID_RMQ_SYS_REVIVE_GROUP stands for how far each queue is settled: unlike that of other
groups its offset is that of the last record which nobody needs any more, as Apache's broker leaves and reads it.

Apache's broker writes these records through its timer, so that they arrive when they are due, and takes their
TIMER_DELIVER_MS for how far it has come; without one it would revive nothing. Ours arrive at once, and say so there.
Source: reference broker_behaviour.md §8; Apache PopReviveService 5.3.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from apogeemq.broker.core.names import REVIVE_GROUP, revive_topic
from apogeemq.broker.core.pop import ORDER_REVIVE_QUEUE_ID
from apogeemq.broker.core.pop_records import (
    ACK_TAG,
    BATCH_ACK_TAG,
    CHECKPOINT_TAG,
    AckMsg,
    BatchAckMsg,
    PopCheckPoint,
    ReviveRecord,
    decode_revive_record,
    encode_revive_record,
)
from apogeemq.broker.core.pop_table import Checkpoint, PopTable, QueueKey
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.service.log_reads import records_from
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.record import Record
from apogeemq.store.message_store import AppendResult, MessageStore


class ReviveLog:
    """Writes and reads the records of one broker.

    Args:
        store, topics, writer: as elsewhere.
        cluster: names the topic, which must exist.
        broker_name: `bn` of the records.
        store_host: packed; born host of the records.
        now_ms: wall clock.

    `table` holds what the records say; `on_due` is told the due time of each new checkpoint.
    """

    group = REVIVE_GROUP

    def __init__(
        self,
        *,
        store: MessageStore,
        topics: TopicTable,
        writer: MessageWriter,
        cluster: str,
        broker_name: str,
        store_host: bytes,
        now_ms: Callable[[], int],
    ) -> None:
        self.table = PopTable()
        self.on_due: Callable[[int], None] = lambda due_ms: None
        self._now_ms = now_ms
        self._store = store
        self._writer = writer
        self._topic = topics.require(revive_topic(cluster))
        self._store_host = store_host
        self._sys_flag = m.with_host_families(0, store_host, store_host)
        self._next_queue_id = 0
        self.broker_name = broker_name
        self.topic = self._topic.name
        self.written: Counter[tuple[str, str, str]] = Counter()
        """Records written since start, by (group, topic, tag)."""

    @property
    def queue_ids(self) -> range:
        """All queues that may hold records."""
        return range(max(self._topic.config.read_queue_nums, self._topic.config.write_queue_nums))

    def choose_queue(self) -> int:
        """The queue for the next pop, in turn."""
        queue_id = self._next_queue_id
        self._next_queue_id = (queue_id + 1) % min(self._topic.config.write_queue_nums, ORDER_REVIVE_QUEUE_ID)
        return queue_id

    def check_point(
        self,
        key: QueueKey,
        start_offset: int,
        pop_time_ms: int,
        invisible_time_ms: int,
        queue_id: int,
        offsets: Sequence[int],
        *,
        is_prolonged: bool = False,
    ) -> None:
        """Write down that messages (queue offsets, ascending) are popped. Raises StoreError, and nothing has changed.

        `queue_id` is the revive queue: that of the checkpoint whose place it takes, or a new one from `choose_queue`.
        """
        group, topic, topic_queue_id = key
        record = PopCheckPoint(
            t=topic,
            c=group,
            q=topic_queue_id,
            so=start_offset,
            pt=pop_time_ms,
            bn=self.broker_name,
            it=invisible_time_ms,
            n=len(offsets),
            d=[offset - start_offset for offset in offsets],
        )
        written = self._append(queue_id, record)
        checkpoint = Checkpoint(
            key,
            start_offset,
            pop_time_ms,
            invisible_time_ms,
            queue_id,
            written.queue_offset,
            written.physical_offset,
            offsets,
            is_prolonged,
        )
        self.table.add(checkpoint)
        self.on_due(checkpoint.due_ms)

    def write_acks(self, checkpoint: Checkpoint, offsets: list[int]) -> None:
        """Write down that messages of a checkpoint need no further care; the table stays. Raises StoreError."""
        group, topic, queue_id = checkpoint.key
        start, pop_time_ms, broker = checkpoint.start_offset, checkpoint.pop_time_ms, self.broker_name
        self._append(
            checkpoint.revive_queue_id,
            AckMsg(t=topic, c=group, q=queue_id, so=start, pt=pop_time_ms, bn=broker, ao=offsets[0])
            if len(offsets) == 1
            else BatchAckMsg(t=topic, c=group, q=queue_id, so=start, pt=pop_time_ms, bn=broker, aol=offsets),
        )

    def acknowledge(self, checkpoint: Checkpoint, offsets: list[int]) -> None:
        """Write it down, and let go of them. Raises StoreError, and nothing has changed."""
        self.write_acks(checkpoint, offsets)
        for offset in offsets:
            self.table.settle(checkpoint, offset, acknowledged=True)

    def _append(self, queue_id: int, record: ReviveRecord) -> AppendResult:
        tag, body, key = encode_revive_record(record)
        now_ms = self._now_ms()
        result = self._writer.put(
            self._topic,
            queue_id,
            flag=0,
            sys_flag=self._sys_flag,
            born_timestamp_ms=now_ms,
            born_host=self._store_host,
            reconsume_times=0,
            body=body,
            properties=(
                f"{m.PROPERTY_TAGS}\x01{tag}\x02{m.PROPERTY_UNIQ_KEY}\x01{key}\x02"
                f"{m.PROPERTY_TIMER_DELIVER_MS}\x01{now_ms}\x02"
            ).encode(),
            tags_code=_TAGS_CODES[tag],
        )
        self.written[record.c, record.t, tag] += 1
        return result

    def max_offset(self, queue_id: int) -> int:
        """One past the last record of a queue."""
        return self._store.max_offset(self.topic, queue_id)

    def read(self, queue_id: int, queue_offset: int) -> tuple[list[Record], int]:
        """Some records of a queue from an offset on, and where to go on: the same offset at the end of the queue.

        Waits for the disk: call it in a thread. Raises RecordCorrupt, RecordInvalid.
        """
        return records_from(self._store, self.topic, queue_id, queue_offset)


def revive_record_of(record: Record) -> ReviveRecord:
    """What a message of the revive topic holds. Raises ValueError when it holds nothing known."""
    tag = m.find_property(record.properties, m.PROPERTY_TAGS.encode()) or b""
    return decode_revive_record(tag.decode("utf-8", "replace"), record.body)


_TAGS_CODES = {tag: m.tags_code(tag) for tag in (CHECKPOINT_TAG, ACK_TAG, BATCH_ACK_TAG)}
