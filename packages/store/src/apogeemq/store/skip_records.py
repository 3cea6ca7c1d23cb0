"""Records that stand for bytes that were lost: scans pass over them, queues and index know nothing of them.

A damaged range of the log cannot be left out (physical offsets are positions), and a blank filler means "the rest of
the file". So the range is filled with well-formed records of a kind that no broker dispatches: rolled-back transaction
messages (system flag 0xC), of a topic that no client can use.

```
├─ record ─┬─ record of topic "!", rolled back, body of zeros ─┬─ record ─┬─ …
           └ begins where the damage began                     └ where the next good record begins
```
Where the damage reaches to the end of a file, one small such record is followed by a blank filler.

Java's recovery and dispatch pass over them as ours do: their CRC and sizes are right, and rolled-back messages get
neither a consume-queue unit nor an index entry. Their only trace is the gap in the queue offsets of the queues that
lost messages; where recovery has seen one, it bridges such gaps with padding instead of taking them for damage.
Source: Apache CommitLog.checkMessageAndReturnSize, CommitLogDispatcherBuildConsumeQueue, IndexService 5.x; record 0018.
"""

from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.remoting_codec.record import BLANK_SIZE_BYTES_MIN, Record, encode_blank, encode_record, record_size_bytes

SKIP_TOPIC = "!"
SKIP_TOPIC_BYTES = SKIP_TOPIC.encode()
SKIP_SIZE_BYTES_MIN = record_size_bytes(len(SKIP_TOPIC_BYTES), 0, 0, 0)
"""A smaller range cannot be filled. No record is smaller."""


def skip_sizes(size_bytes: int, record_size_bytes_max: int) -> list[int]:
    """Sizes of the records that together fill a range. Errors: ValueError below SKIP_SIZE_BYTES_MIN."""
    if size_bytes < SKIP_SIZE_BYTES_MIN:
        raise ValueError(f"{size_bytes} bytes are less than a record of {SKIP_SIZE_BYTES_MIN}")
    sizes = []
    while size_bytes > record_size_bytes_max:
        # What is left must still be large enough for a record.
        sizes.append(min(record_size_bytes_max, size_bytes - SKIP_SIZE_BYTES_MIN))
        size_bytes -= sizes[-1]
    return [*sizes, size_bytes]


def encode_skip_record(physical_offset: int, size_bytes: int, store_timestamp_ms: int) -> bytes:
    """One such record; the timestamp is that of the record before it, so that times keep their order."""
    return encode_record(
        Record(
            topic=SKIP_TOPIC,
            queue_id=0,
            queue_offset=0,
            physical_offset=physical_offset,
            sys_flag=MessageSysFlag.TRANSACTION_ROLLBACK_TYPE,
            born_timestamp_ms=store_timestamp_ms,
            born_host=bytes(8),
            store_timestamp_ms=store_timestamp_ms,
            store_host=bytes(8),
            body=bytes(size_bytes - SKIP_SIZE_BYTES_MIN),
        )
    )


def encode_fill(
    start: int, end: int, *, is_file_end: bool, record_size_bytes_max: int, store_timestamp_ms: int
) -> list[tuple[int, bytes]]:
    """What to write where, (physical offset, bytes), to fill [start, end) of one file.

    `is_file_end`: the file ends there. Then bytes behind the filler's head stay what they are: nobody reads them.
    Errors: ValueError when the range is too small.
    """
    if not is_file_end:
        fill = []
        for size_bytes in skip_sizes(end - start, record_size_bytes_max):
            fill.append((start, encode_skip_record(start, size_bytes, store_timestamp_ms)))
            start += size_bytes
        return fill
    if end - start < SKIP_SIZE_BYTES_MIN + BLANK_SIZE_BYTES_MIN:
        # Too small for a record and the filler behind it: no message was lost here.
        return [(start, encode_blank_of(end - start))]
    filler = start + SKIP_SIZE_BYTES_MIN
    return [
        (start, encode_skip_record(start, SKIP_SIZE_BYTES_MIN, store_timestamp_ms)),
        (filler, encode_blank_of(end - filler)),
    ]


def encode_blank_of(size_bytes: int) -> bytes:
    """The head of a blank filler. Errors: ValueError when not even that fits."""
    if size_bytes < BLANK_SIZE_BYTES_MIN:
        raise ValueError(f"{size_bytes} bytes are less than a blank filler of {BLANK_SIZE_BYTES_MIN}")
    return encode_blank(size_bytes)
