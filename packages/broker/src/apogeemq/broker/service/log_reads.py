"""Records read back from the log: at once where they are in memory, in a thread where the disk may be waited for.

For services that come back to what was stored some time ago: delays, timers, revivals, transactions; and, at a start,
for the topics that hold what the broker wrote down for itself.
"""

import asyncio
from collections.abc import Sequence

from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.remoting_codec.record import Record, decode_record, decode_records
from apogeemq.store.message_store import MessageStore, ReadStatus

RECORDS_PER_READ_MAX = 256
_READ_SIZE_BYTES_MAX = 1 << 20


class LogReads:
    """Reads records by their physical offsets.

    Args:
        store: as elsewhere.
        hot_window_bytes: records this close to the end of the log are read without a thread.
    """

    def __init__(self, store: MessageStore, hot_window_bytes: int) -> None:
        self._store = store
        self.hot_window_bytes = hot_window_bytes

    def is_hot(self, physical_offset: int) -> bool:
        """Whether what lies at an offset is read without waiting for the disk."""
        return self._store.written_offset - physical_offset <= self.hot_window_bytes

    async def record_at(self, physical_offset: int) -> bytes | None:
        """The record that begins there; None when none does."""
        if self.is_hot(physical_offset):
            return self._store.record_at(physical_offset)
        return await asyncio.to_thread(self._store.record_at, physical_offset)

    async def written_record_at(self, physical_offset: int) -> bytes | None:
        """The same, also of one that is not confirmed, see MessageStore.written_record_at."""
        if self.is_hot(physical_offset):
            return self._store.written_record_at(physical_offset)
        return await asyncio.to_thread(self._store.written_record_at, physical_offset)

    async def records_at(self, physical_offsets: Sequence[int]) -> list[bytes | None]:
        """The same for several, all in one thread unless all are in memory."""
        if all(map(self.is_hot, physical_offsets)):
            return list(map(self._store.record_at, physical_offsets))
        return await asyncio.to_thread(lambda: list(map(self._store.record_at, physical_offsets)))


def records_from(store: MessageStore, topic: str, queue_id: int, queue_offset: int) -> tuple[list[Record], int]:
    """Some records of a queue from an offset on, and where to go on: the same offset at the end of the queue.

    Waits for the disk: call it in a thread. Raises RecordCorrupt, RecordInvalid.
    """
    result = store.read(
        topic, queue_id, queue_offset, RECORDS_PER_READ_MAX, _READ_SIZE_BYTES_MAX, None, cold_allowed=True
    )
    if result.status is ReadStatus.NO_MATCHED_LOGIC_QUEUE:
        return [], queue_offset
    return [record for buffer in result.buffers for record in decode_records(buffer)], result.next_offset


def decoded(data: bytes | None) -> Record:
    """What was read, decoded. Raises RecordInvalid, also where there is no record."""
    if data is None:
        raise RecordInvalid("there is no record")
    return decode_record(data)
