"""Where every message enters the store, whoever sends it: clients, retries, the delay scheduler.

One function counts it, appends it and tells those who wait for its queue, so that no way in forgets one of the three.
"""

from collections.abc import Sequence
from typing import Protocol

from apogeemq.broker.core.topics import Topic
from apogeemq.remoting_codec.record import Record
from apogeemq.store.message_store import AppendResult, MessageStore


class Arrivals(Protocol):
    """Whoever wants to know that a queue got a message: long polls, the delay scheduler."""

    def message_arrived(self, topic: str, queue_id: int, tags_code: int) -> None:
        """A message with this tags code can be read now. Called once a message, inside the send path: must be cheap."""

    def message_delayed(self, queue_id: int) -> None:
        """The same for a message that waits in a queue of SCHEDULE_TOPIC_XXXX."""


class MessageWriter:
    """Appends messages and tells `arrivals`."""

    def __init__(self, store: MessageStore, arrivals: Arrivals) -> None:
        self._store = store
        self._arrivals = arrivals

    def put(
        self,
        topic: Topic,
        queue_id: int,
        flag: int,
        sys_flag: int,
        born_timestamp_ms: int,
        born_host: bytes,
        reconsume_times: int,
        body: bytes,
        properties: bytes,
        tags_code: int | None,
        prepared_transaction_offset: int = 0,
    ) -> AppendResult:
        """Store one message.

        Args:
            topic: where it goes; the caller has checked permission and queue id.
            queue_id: of this topic, from 0.
            flag: the sender's own 32 bits.
            sys_flag: Apache's bits (compression, host families, transaction).
            born_timestamp_ms: the client's clock.
            born_host: 4 or 16 address bytes and 4 port bytes; 16 go with the bit for IPv6 in `sys_flag`.
            reconsume_times: how often it was delivered and failed before.
            body: as it came, perhaps compressed.
            properties: key 0x01 value 0x02, repeated.
            tags_code: what the consume queue keeps beside it: tag hash, or None for the due time of a message that is
                to wait in SCHEDULE_TOPIC_XXXX, which the store alone knows.
            prepared_transaction_offset: physical offset of the half message, for a committed one.

        Raises:
            StoreError: see `MessageStore.append`; nothing was stored.
        """
        result = self._store.append(
            topic.name,
            queue_id,
            flag,
            sys_flag,
            born_timestamp_ms,
            born_host,
            reconsume_times,
            prepared_transaction_offset,
            body,
            properties,
            tags_code,
        )
        topic.messages_in += 1
        topic.bytes_in += result.size_bytes
        if tags_code is None:
            self._arrivals.message_delayed(queue_id)
        else:
            self._arrivals.message_arrived(topic.name, queue_id, tags_code)
        return result

    def put_again(
        self, topic: Topic, queue_id: int, record: Record, *, properties: bytes, tags_code: int | None
    ) -> AppendResult:
        """Store a message whose delivery failed once more: as it is in the log, with one more try counted.

        Raises:
            StoreError: as `put`; nothing was stored.
        """
        return self.put_copy(
            topic,
            queue_id,
            record,
            properties=properties,
            tags_code=tags_code,
            reconsume_times=record.reconsume_times + 1,
        )

    def put_copy(
        self,
        topic: Topic,
        queue_id: int,
        record: Record,
        *,
        properties: bytes,
        tags_code: int | None,
        reconsume_times: int | None = None,
        prepared_transaction_offset: int = 0,
    ) -> AppendResult:
        """Store a message as it is in the log, elsewhere; None keeps its tries.

        Raises:
            StoreError: as `put`; nothing was stored.
        """
        return self.put(
            topic,
            queue_id,
            flag=record.flag,
            sys_flag=record.sys_flag,
            born_timestamp_ms=record.born_timestamp_ms,
            born_host=record.born_host,
            reconsume_times=record.reconsume_times if reconsume_times is None else reconsume_times,
            body=record.body,
            properties=properties,
            tags_code=tags_code,
            prepared_transaction_offset=prepared_transaction_offset,
        )

    def put_batch(
        self,
        topic: Topic,
        queue_id: int,
        *,
        sys_flag: int,
        born_timestamp_ms: int,
        born_host: bytes,
        entries: Sequence[tuple[int, bytes, bytes, int]],
    ) -> list[AppendResult]:
        """Store the messages of one batch under consecutive queue offsets: all of them, or (StoreError) none.

        `entries` are (flag, body, properties, tags code).
        """
        results = self._store.append_batch(topic.name, queue_id, sys_flag, born_timestamp_ms, born_host, entries)
        topic.messages_in += len(results)
        topic.bytes_in += sum(result.size_bytes for result in results)
        for entry in entries:
            self._arrivals.message_arrived(topic.name, queue_id, entry[3])
        return results
