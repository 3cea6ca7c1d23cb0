"""The order log: the topic that holds what happens to queues that are popped in order, so that a restart knows it.

Each event is written before it counts, and before anybody gets a message. config/consumerOrderInfo.json holds the
whole as Apache's brokers write it, a few seconds old, and says up to where in this topic it goes; a start reads the
rest here. The one queue of the topic keeps the events of all groups in their order. The topic is made with its first
event: a broker that nobody pops from in order has just Apache's topics.
"""

import asyncio
import logging
from collections.abc import Callable

from apogeemq.broker.core.names import order_topic
from apogeemq.broker.core.order_events import TAGS, OrderEvent, decode_order_event, encode_order_event
from apogeemq.broker.core.pop_orders import PopOrders, QueueOrder
from apogeemq.broker.core.topics import PERM_READ_WRITE, TopicTable
from apogeemq.broker.service.log_reads import records_from
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.bodies import TopicConfig
from apogeemq.remoting_codec.record import Record
from apogeemq.store.message_store import MessageStore

log = logging.getLogger(__name__)


class OrderLog:
    """Writes the events of one broker, and reads them at its start.

    Args:
        store, topics, writer: as elsewhere.
        orders: what the events say; loaded from the file already.
        position: up to where in the topic that goes; None when an Apache broker wrote it, which is newer than all here.
        cluster: names the topic.
        store_host: packed; born host of the records.
        now_ms: wall clock.
    """

    def __init__(
        self,
        *,
        store: MessageStore,
        topics: TopicTable,
        writer: MessageWriter,
        orders: PopOrders,
        position: int | None,
        cluster: str,
        store_host: bytes,
        now_ms: Callable[[], int],
    ) -> None:
        self.orders = orders
        self._position = position
        self._store = store
        self._writer = writer
        self._topics = topics
        self.topic = order_topic(cluster)
        self._store_host = store_host
        self._sys_flag = m.with_host_families(0, store_host, store_host)
        self._now_ms = now_ms

    @property
    def position(self) -> int:
        """One past the last event."""
        return self._store.max_offset(self.topic, 0)

    def write(self, event: OrderEvent) -> QueueOrder:
        """Write an event down and make it so; gives its queue. Raises StoreError or SystemBusy (no room for
        the topic), and nothing has changed.
        """
        tag, body = encode_order_event(event)
        self._writer.put(
            self._topics.get(self.topic) or self._topics.put(self._config()),
            0,
            flag=0,
            sys_flag=self._sys_flag,
            born_timestamp_ms=self._now_ms(),
            born_host=self._store_host,
            reconsume_times=0,
            body=body,
            properties=f"{m.PROPERTY_TAGS}\x01{tag}\x02".encode(),
            tags_code=_TAGS_CODES[tag],
        )
        return self.orders.apply(event)

    async def restore(self) -> None:
        """Read what the file lacks. Raises RecordCorrupt, RecordInvalid."""
        at = self.position if self._position is None else self._position
        at = max(at, self._store.min_offset(self.topic, 0))
        while at < self.position:
            records, next_offset = await asyncio.to_thread(records_from, self._store, self.topic, 0, at)
            for record in records:
                self._apply(record)
            if next_offset == at:
                break
            at = next_offset
        self.orders.restart(self._store.min_offset, self._store.max_offset)

    def _config(self) -> TopicConfig:
        return TopicConfig(topic_name=self.topic, read_queue_nums=1, write_queue_nums=1, perm=PERM_READ_WRITE)

    def _apply(self, record: Record) -> None:
        tag = m.find_property(record.properties, m.PROPERTY_TAGS.encode()) or b""
        try:
            event = decode_order_event(tag.decode("utf-8", "replace"), record.body)
        except ValueError as error:
            # What it said is lost: a message may go out again before its time, none is lost.
            log.warning("record %d of %s is passed over: %s", record.queue_offset, self.topic, error)
            return
        self.orders.apply(event)


_TAGS_CODES = {tag: m.tags_code(tag) for tag in TAGS.values()}
