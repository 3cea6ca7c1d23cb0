"""Letting the timer's progress in its queue say all that the timer log knows, for a reader that cannot see it.

After a crash the saved progress lies behind. Ours then reads a stretch of the queue once more and recognises what it
knows; Java's broker would take every timer of that stretch a second time, settled ones too.
"""

from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.remoting_codec.message import find_property
from apogeemq.remoting_codec.record import Record, decode_record
from apogeemq.store.message_store import MessageStore
from apogeemq.store.timer_store import TIMER_QUEUE
from apogeemq.store.timer_unit import TimerEntry


def catch_up(store: MessageStore) -> int:
    """Move the progress behind the last record that has a timer; gives by how many records.

    Of those in between only recalls are done again: a loss of power may have taken what they settled. What lies behind
    the last timer is left to whoever reads the queue next.
    Errors: NotWritable, DiskFull.
    """
    timer = store.timer
    begin = queue_offset = timer.queue_offset
    while (unit := store.queue_unit(*TIMER_QUEUE, queue_offset)) is not None:
        physical_offset = unit[0]
        if physical_offset > timer.last_physical_offset:
            break
        record = _record_at(store, physical_offset)
        if record is not None:
            _recall(store, record)
        queue_offset += 1
    if queue_offset > begin:
        timer.queue_offset = queue_offset
    return queue_offset - begin


def _recall(store: MessageStore, record: Record) -> None:
    """Java writes "real topic+unique key" into TIMER_DEL_UNIQKEY, older clients the key alone."""
    name = find_property(record.properties, b"TIMER_DEL_UNIQKEY")
    out_ms = find_property(record.properties, b"TIMER_OUT_MS")
    if name is None or out_ms is None or not out_ms.isdigit():
        return
    topic = find_property(record.properties, b"REAL_TOPIC") or b""
    unique_key = name.removeprefix(topic + b"+")

    def is_it(entry: TimerEntry) -> bool:
        found = _record_at(store, entry.physical_offset)
        return found is not None and find_property(found.properties, b"UNIQ_KEY") == unique_key

    store.timer.recall(int(out_ms) + 1, unique_key, is_it)


def _record_at(store: MessageStore, physical_offset: int) -> Record | None:
    """None where there is none that can be read: it recalls nothing, and check tells of it."""
    data = store.record_at(physical_offset)
    try:
        return None if data is None else decode_record(data)
    except RecordInvalid:
        return None
