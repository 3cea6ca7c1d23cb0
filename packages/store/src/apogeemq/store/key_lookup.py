"""Finding records by topic and key."""

from itertools import islice

import msgspec
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.message import PROPERTY_UNIQ_KEY, find_property
from apogeemq.remoting_codec.record import Record, decode_record
from apogeemq.store.commit_log import CommitLog
from apogeemq.store.errors import OffsetOutOfRange, RecordCorrupt
from apogeemq.store.index_files import IndexFiles
from apogeemq.store.key_hash import keys_of

ANSWER_COUNT_MAX = 64
"""Apache's maxMsgsNumBatch: no answer has more records."""

_ANSWER_SIZE_BYTES_MAX = 8 << 20
_CANDIDATES_MAX = 10_000
"""So many records are read to answer one question: keys can be made to have the same hash."""
_UNIQUE_KEY = PROPERTY_UNIQ_KEY.encode()
_TIME_MS_MAX = (1 << 63) - 1


class KeyAnswer(msgspec.Struct, frozen=True):
    """Records with a key, whole, newest first; and the newest record that the index has."""

    records: list[bytes]
    index_last_update_timestamp_ms: int = 0
    index_last_update_physical_offset: int = 0


class KeyLookup:
    """Looks at each record that the index names: topic, key and time must be those asked for.

    Records that retention took, and those at or beyond the confirm offset, are passed over. May wait for the disk.
    Errors: RecordCorrupt.
    """

    def __init__(self, log: CommitLog, index: IndexFiles | None) -> None:
        self._log = log
        self._index = index

    def query(self, topic: str, key: str, max_count: int, begin_ms: int, end_ms: int) -> KeyAnswer:
        """At most `max_count`, 64 and 8 MiB of them, but one whatever its size. Without an index: none."""
        if self._index is None:
            return KeyAnswer([])
        last_update = self._index.last_update()
        wanted = key.encode(errors="replace")
        found: list[bytes] = []
        found_size_bytes = 0
        for physical_offset in islice(self._index.candidates(topic, key, begin_ms, end_ms), _CANDIDATES_MAX):
            if len(found) >= min(max_count, ANSWER_COUNT_MAX):
                break
            data = self._read(physical_offset)
            if data is None:
                continue
            record = _decode(data, physical_offset)
            if not _is_asked_for(record, topic, wanted, begin_ms, end_ms):
                continue
            if found and found_size_bytes + len(data) > _ANSWER_SIZE_BYTES_MAX:
                break
            found.append(data)
            found_size_bytes += len(data)
        return KeyAnswer(found, *last_update)

    def find_unique(self, topic: str, unique_key: str) -> bytes | None:
        """The newest record with this unique key."""
        if self._index is None:
            return None
        wanted = unique_key.encode(errors="replace")
        for physical_offset in islice(self._index.candidates(topic, unique_key, 0, _TIME_MS_MAX), _CANDIDATES_MAX):
            data = self._read(physical_offset)
            if data is not None:
                record = _decode(data, physical_offset)
                if record.topic == topic and find_property(record.properties, _UNIQUE_KEY) == wanted:
                    return data
        return None

    def _read(self, physical_offset: int) -> bytes | None:
        try:
            return self._log.record_at(physical_offset)
        except OffsetOutOfRange:  # retention took its file this moment
            return None


def _decode(data: bytes, physical_offset: int) -> Record:
    try:
        return decode_record(data, check_crc=False)
    except CodecError as error:
        raise RecordCorrupt(physical_offset, str(error)) from error


def _is_asked_for(record: Record, topic: str, key: bytes, begin_ms: int, end_ms: int) -> bool:
    is_in_time = begin_ms <= record.store_timestamp_ms <= end_ms
    return is_in_time and record.topic == topic and key in keys_of(record.properties)
