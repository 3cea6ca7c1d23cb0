"""Records of a store that is not open, by what is asked of them."""

from collections.abc import Iterator

import msgspec
from apogeemq.remoting_codec.errors import CodecError, RecordInvalid
from apogeemq.remoting_codec.message import PROPERTY_KEYS, PROPERTY_UNIQ_KEY, find_property
from apogeemq.remoting_codec.message_id import decode_offset_message_id
from apogeemq.remoting_codec.record import HEADS, Record, RecordHead, decode_record, peek_head
from apogeemq.store.errors import OffsetOutOfRange, RecordCorrupt
from apogeemq.store.log_files import LogFiles
from apogeemq.store.log_scan import ScannedRecord
from apogeemq.store.log_walk import BadRange, LogWalk
from apogeemq.store.store_view import OnProgress, StoreView

_HEAD_SIZE_BYTES_MAX = max(head.size for head in HEADS.values())
_CLOCK_MARGIN_MS = 60_000
"""A Java broker's store times may go back a little; so far behind the end of a time range the search goes on."""
_KEYS = PROPERTY_KEYS.encode()
_UNIQUE_KEY = PROPERTY_UNIQ_KEY.encode()


class RecordFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are wanted: those for which all that is set here holds. Ranges include both their ends."""

    physical_offset_min: int = 0
    physical_offset_max: int | None = None
    topic: str | None = None
    queue_id: int | None = None
    key: str | None = None
    """One of the words of KEYS, or the unique key."""
    unique_key: str | None = None
    store_timestamp_min_ms: int = 0
    store_timestamp_max_ms: int | None = None

    def matches(self, record: ScannedRecord) -> bool:
        """Whether this record is wanted."""
        return (
            record.physical_offset >= self.physical_offset_min
            and (self.topic is None or record.topic == self.topic.encode())
            and (self.queue_id is None or record.queue_id == self.queue_id)
            and record.store_timestamp_ms >= self.store_timestamp_min_ms
            and (self.store_timestamp_max_ms is None or record.store_timestamp_ms <= self.store_timestamp_max_ms)
            and (self.unique_key is None or find_property(record.properties, _UNIQUE_KEY) == self.unique_key.encode())
            and (self.key is None or self._has_key(record.properties))
        )

    def is_past(self, record: ScannedRecord) -> bool:
        """Whether neither this record nor a later one can be wanted."""
        if self.physical_offset_max is not None and record.physical_offset > self.physical_offset_max:
            return True
        latest_ms = self.store_timestamp_max_ms
        return latest_ms is not None and record.store_timestamp_ms > latest_ms + _CLOCK_MARGIN_MS

    def _has_key(self, properties: bytes) -> bool:
        assert self.key is not None
        key = self.key.encode()
        return key in (find_property(properties, _KEYS) or b"").split(b" ") or key == find_property(
            properties, _UNIQUE_KEY
        )


def find_records(
    view: StoreView, wanted: RecordFilter, *, on_progress: OnProgress | None = None
) -> Iterator[Record | BadRange]:
    """The wanted records in the order of the log, and each damaged range that was met on the way.

    Reads the log from front to back; a first offset or a first time lets it leave out files.
    """
    for step in LogWalk(view, start=_start_of(view, wanted), on_progress=on_progress):
        if isinstance(step, BadRange):
            yield step
            continue
        for scanned in step:
            if wanted.is_past(scanned):
                return
            if wanted.matches(scanned):
                yield record_at(view, scanned.physical_offset)


def record_at(view: StoreView, physical_offset: int, *, check_crc: bool = True) -> Record:
    """The record that begins at an offset. Errors: OffsetOutOfRange; RecordCorrupt when none does."""
    part = view.part_of(physical_offset)
    head = head_at(view, physical_offset)
    if part is None or head is None:
        raise RecordCorrupt(physical_offset, "there is no record's head")
    rest_bytes = part.start_of(physical_offset) + part.file_size_bytes - physical_offset
    if head.physical_offset != physical_offset:
        raise RecordCorrupt(physical_offset, f"it says that it lies at {head.physical_offset}")
    if not 0 < head.size_bytes <= min(rest_bytes, view.record_size_bytes_max):
        raise RecordCorrupt(physical_offset, f"its size is {head.size_bytes}")
    try:
        return decode_record(part.read(physical_offset, head.size_bytes), check_crc=check_crc)
    except RecordInvalid as error:
        raise RecordCorrupt(physical_offset, str(error)) from error


def head_at(view: StoreView, physical_offset: int) -> RecordHead | None:
    """The fixed part of what begins at an offset; None when it has no record's magic. Errors: OffsetOutOfRange."""
    part = view.part_of(physical_offset)
    if part is None:
        end = view.log_parts[-1].end if view.log_parts else 0
        raise OffsetOutOfRange(physical_offset, view.log_min_offset, end)
    rest_bytes = part.start_of(physical_offset) + part.file_size_bytes - physical_offset
    try:
        return peek_head(part.read(physical_offset, min(_HEAD_SIZE_BYTES_MAX, rest_bytes)))
    except RecordInvalid:
        return None


def offset_of_message_id(view: StoreView, message_id: str) -> int | None:
    """Where an offset message id (store host and physical offset, as hex) points, if such a record is there.

    A unique key looks alike; it then happens to point nowhere.
    """
    try:
        store_host, physical_offset = decode_offset_message_id(message_id)
        record = record_at(view, physical_offset)
    except (CodecError, OffsetOutOfRange, RecordCorrupt):
        return None
    return physical_offset if record.store_host == store_host else None


def _start_of(view: StoreView, wanted: RecordFilter) -> int:
    """The start of the newest file before which nothing can be wanted."""
    start = view.log_min_offset
    for part in view.log_parts:
        for file_start in part.starts:
            first_ms = _first_timestamp_ms(view, part, file_start)
            if file_start > wanted.physical_offset_min and first_ms > wanted.store_timestamp_min_ms:
                return start
            if file_start <= wanted.physical_offset_min or 0 < first_ms < wanted.store_timestamp_min_ms:
                start = file_start
    return start


def _first_timestamp_ms(view: StoreView, part: LogFiles, file_start: int) -> int:
    head = head_at(view, file_start)
    return 0 if head is None else head.store_timestamp_ms
