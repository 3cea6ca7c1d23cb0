"""Finding stored messages: by key through the index, or by where they lie in the log.

Source: Apache QueryMessageProcessor 5.x; reference broker_behaviour.md §9, admin.md.
"""

from collections.abc import Callable

import msgspec
from apogeemq.broker.errors import InvalidParameter, RequestFailed
from apogeemq.store.message_store import MessageStore

UNIQUE_KEY_COUNT_MAX = 32
"""Apache's defaultQueryMaxNum: so many are looked for by unique key, whatever the request says."""


class FoundByKey(msgspec.Struct, frozen=True):
    """Records back to back, newest first; and how far the index has come."""

    records: bytes
    index_last_update_timestamp_ms: int
    index_last_update_physical_offset: int


class QueryService:
    """Looks for messages. What it returns is a read, to be run where waiting for the disk is no harm."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store

    def by_key(
        self, topic: str, key: str, max_count: int, begin_ms: int, end_ms: int, *, is_unique_key: bool
    ) -> Callable[[], FoundByKey]:
        """Messages of a topic with this key, stored in [begin_ms, end_ms]; the store bounds their number and size.

        What is wrong with the request is raised here and not by the read.
        """
        if max_count <= 0 and not is_unique_key:
            raise InvalidParameter(f"maxNum[{max_count}] is illegal, it must be positive")
        count = UNIQUE_KEY_COUNT_MAX if is_unique_key else max_count

        def read() -> FoundByKey:
            answer = self._store.query_keys(topic, key, count, begin_ms, end_ms)
            return FoundByKey(
                b"".join(answer.records),
                answer.index_last_update_timestamp_ms,
                answer.index_last_update_physical_offset,
            )

        return read

    def by_offset(self, physical_offset: int) -> Callable[[], bytes]:
        """The message whose record begins there. The read raises RequestFailed when none does."""

        def read() -> bytes:
            record = self._store.record_at(physical_offset)
            if record is None:
                raise RequestFailed(f"can not find message by the offset, {physical_offset}")
            return record

        return read
