"""What the log itself says of timers that are done with: each copy names the record that waited for it."""

from collections.abc import Iterator
from typing import NamedTuple

from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.remoting_codec.message import find_property, java_string_hash
from apogeemq.remoting_codec.record import MAGIC_BLANK, SIZE_AND_MAGIC, decode_record
from apogeemq.store.delivery_times import PROPERTY_TIMER_OFFSET
from apogeemq.store.errors import OffsetOutOfRange, RecordCorrupt
from apogeemq.store.message_store import MessageStore
from apogeemq.store.replication_view import CHUNK_SIZE_BYTES_MAX, ChunkStatus
from apogeemq.store.timer_store import TIMER_QUEUE

_NAME = PROPERTY_TIMER_OFFSET.encode()
_DIGITS_MAX = 18


class TimerCopy(NamedTuple):
    """A copy of a message that waited: it settles the timer whose record begins at `timer_offset`.

    `topic_hash` and `unique_key` are those of the message, for `TimerStore.settle_record` to compare.
    """

    timer_offset: int
    topic_hash: int
    unique_key: bytes


def copies_from(
    store: MessageStore, start: int, end: int, *, size_bytes_max: int = CHUNK_SIZE_BYTES_MAX
) -> tuple[list[TimerCopy], int]:
    """The copies in the next piece of the log, and where to go on: `end` when that was all.

    Args:
        store: whose log is read.
        start: a physical offset where a record begins, a file, or a file's filler. What has expired is passed over.
        end: where a record ends, not behind the log's end.
        size_bytes_max: of a piece; at most CHUNK_SIZE_BYTES_MAX.

    Most pieces hold no copy and cost a search for the property's name, and a step a record. Waits for the disk, where
    the log is not in memory any more: call it in a thread then. Errors: OffsetOutOfRange, RecordCorrupt, OSError.
    """
    start = max(start, store.min_physical_offset)
    while start < end:
        chunk = store.replication.read_chunk(start, min(size_bytes_max, end - start), wait=True)
        if chunk.status is ChunkStatus.EXPIRED:
            start = chunk.min_offset
            continue
        if chunk.status is not ChunkStatus.FOUND:
            raise OffsetOutOfRange(start, chunk.min_offset, chunk.written_offset)
        copies, next_start = _copies_in(bytes(chunk.data), start, store.replication.file_size_bytes)
        if next_start == start:  # a record that is longer than a chunk
            data = store.record_at(start)
            if data is None:
                raise RecordCorrupt(start, "it can't be read whole")
            copies, next_start = list(_copy_in(data, start)) if _NAME in data else [], start + len(data)
        return copies, min(next_start, end)
    return [], end


def _copies_in(piece: bytes, start: int, file_size_bytes: int) -> tuple[list[TimerCopy], int]:
    """Those in the whole records of a piece of one file, and where the next record begins."""
    file_end = start - start % file_size_bytes + file_size_bytes
    copies: list[TimerCopy] = []
    name_at = piece.find(_NAME)
    at = 0
    while at + SIZE_AND_MAGIC.size <= len(piece):
        size_bytes, magic = SIZE_AND_MAGIC.unpack_from(piece, at)
        if magic == MAGIC_BLANK:
            return copies, file_end
        if size_bytes < SIZE_AND_MAGIC.size:
            raise RecordCorrupt(start + at, f"its size is {size_bytes}")
        stop = at + size_bytes
        if stop > len(piece):
            break
        if at <= name_at < stop:
            copies += _copy_in(piece[at:stop], start + at)
            name_at = piece.find(_NAME, stop)
        at = stop
    return copies, start + at


def _copy_in(data: bytes, physical_offset: int) -> Iterator[TimerCopy]:
    """The copy that this record is; none where the name stands in its body, or the value makes no sense."""
    try:
        record = decode_record(data, check_crc=False)
    except RecordInvalid as error:
        raise RecordCorrupt(physical_offset, str(error)) from error
    digits = find_property(record.properties, _NAME)
    if digits is None or not digits.isdigit() or len(digits) > _DIGITS_MAX:
        return
    topic = record.topic
    if topic == TIMER_QUEUE[0]:  # stored anew while it waited
        topic = (find_property(record.properties, b"REAL_TOPIC") or b"").decode(errors="replace")
    unique_key = find_property(record.properties, b"UNIQ_KEY") or b""
    yield TimerCopy(int(digits), java_string_hash(topic), unique_key)
