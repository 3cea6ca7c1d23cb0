"""Taking over another store's log, chunk by chunk, as the very bytes that it has."""

from collections.abc import Callable
from typing import NamedTuple

from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.remoting_codec.record import BLANK_SIZE_BYTES_MIN
from apogeemq.store.commit_log import CommitLog
from apogeemq.store.consume_queue import UNIT, ConsumeQueue, ConsumeQueues
from apogeemq.store.errors import ChunkMisplaced, LogDiverged, MessageInvalid, MessageTooLarge, RecordCorrupt
from apogeemq.store.log_scan import ScannedRecord, scan_piece

_NO_UNIT = MessageSysFlag.TRANSACTION_PREPARED_TYPE | MessageSysFlag.INNER_BATCH_FLAG
_pack_unit = UNIT.pack


class _Portion(NamedTuple):
    """Whole records, back to back, of one file; the blank filler too with `ends_file`."""

    data: bytes
    records: list[ScannedRecord]
    ends_file: bool


class ChunkReceiver:
    """The receiving end of a log. One thread at a time, the one that appends.

    ```
    ── whole records, in the log and in the queues ──┤ rest: the beginning of a record or filler ┤
                                      written offset ↑                            received offset ↑
    ```
    The rest of a chunk that ends inside a record waits in memory for the next chunk: in the file there are never half
    records, so that a crash, or an ordinary append after a change of role, needs no other rule. It is at most one
    record or blank filler, bounded by the record size.
    Records are checked as recovery does (`scan_piece`), before anything of their chunk is stored.
    """

    def __init__(
        self,
        log: CommitLog,
        queues: ConsumeQueues,
        *,
        record_size_bytes_max: int,
        tags_code_of: Callable[[str, bytes, int], int],
        make_tail_room: Callable[[ConsumeQueue], None],
    ) -> None:
        """`tags_code_of`: as recovery's. `make_tail_room` writes units and keys that wait in memory, if many."""
        self._log = log
        self._queues = queues
        self._record_size_bytes_max = record_size_bytes_max
        self._tags_code_of = tags_code_of
        self._make_tail_room = make_tail_room
        self._rest: list[bytes] = []
        self._rest_size_bytes = 0
        self._rest_offset = 0
        self._needed_size_bytes = 0

    @property
    def received_offset(self) -> int:
        """Where the next chunk has to begin. After an ordinary append or a cut the rest counts no more."""
        written_offset = self._log.written_offset
        return written_offset + (self._rest_size_bytes if self._rest_offset == written_offset else 0)

    def append(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """See ReplicationView.append_chunk."""
        if self._rest_offset != self._log.written_offset:
            self._keep_rest(b"", self._log.written_offset, 0)
        if offset != self.received_offset:
            raise ChunkMisplaced(offset, self.received_offset)
        if not data:
            return
        if self._rest_size_bytes + len(data) < self._needed_size_bytes:
            self._rest.append(bytes(data))
            self._rest_size_bytes += len(data)
            return
        whole = b"".join((*self._rest, data)) if self._rest else bytes(data)
        portions, rest, needed_size_bytes = self._cut(self._rest_offset, whole)
        units = self._find_units(portions)
        for portion, units_of_portion in zip(portions, units, strict=True):
            self._store(portion, units_of_portion)
        self._keep_rest(rest, self._log.written_offset, needed_size_bytes)

    def drop_rest(self) -> None:
        """Forget the beginning of a record: the log is cut, and may come to end at the same offset again."""
        self._keep_rest(b"", 0, 0)

    def _keep_rest(self, rest: bytes, offset: int, needed_size_bytes: int) -> None:
        self._rest = [rest] if rest else []
        self._rest_size_bytes = len(rest)
        self._rest_offset = offset
        self._needed_size_bytes = needed_size_bytes

    def _cut(self, base: int, data: bytes) -> tuple[list[_Portion], bytes, int]:
        """The whole records by files, what is left, and how many bytes that will have (0: not known yet).

        Errors: RecordCorrupt.
        """
        portions: list[_Portion] = []
        file_size_bytes = self._log.files.file_size_bytes
        while data:
            file_end = self._log.files.start_of(base) + file_size_bytes
            records: list[ScannedRecord] = []
            end, needed_size_bytes = scan_piece(
                data[: file_end - base], base, file_end, self._record_size_bytes_max, records
            )
            if end > base + len(data):
                end = records[-1].physical_offset + records[-1].size_bytes if records else base
                needed_size_bytes = self._size_of_filler(end, file_end)
            ends_file = end == file_end
            if end > base:
                whole, data = data[: end - base], data[end - base :]
                portions.append(_Portion(_without_zeros(whole) if ends_file else whole, records, ends_file))
                base = end
            if not ends_file:
                return portions, data, needed_size_bytes
        return portions, b"", 0

    def _size_of_filler(self, offset: int, file_end: int) -> int:
        size_bytes = file_end - offset
        if size_bytes > self._record_size_bytes_max + BLANK_SIZE_BYTES_MIN:
            raise RecordCorrupt(offset, f"a blank filler of {size_bytes} bytes stands where any record had room")
        return size_bytes

    def _find_units(self, portions: list[_Portion]) -> list[list[tuple[ConsumeQueue, bytes]]]:
        """The units of all records, once each is known to follow in its queue; then queues that are new may begin.

        Errors: LogDiverged, RecordCorrupt, and what `make_tail_room` raises.
        """
        by_name: dict[tuple[bytes, int], ConsumeQueue] = {}
        ends: dict[ConsumeQueue, int] = {}
        begins: dict[ConsumeQueue, int] = {}
        code_of = self._tags_code_of
        all_units = []
        for portion in portions:
            units = []
            for record in portion.records:
                physical_offset, size_bytes, queue_id, queue_offset, sys_flag, timestamp_ms, topic, properties = record
                if sys_flag & _NO_UNIT:
                    continue
                queue = by_name.get((topic, queue_id))
                if queue is None:
                    queue = by_name[topic, queue_id] = self._find_queue(record)
                if queue_offset != ends.get(queue, queue.max_offset):
                    self._check_beginning(queue, record, is_first=queue not in ends)
                    begins[queue] = queue_offset
                ends[queue] = queue_offset + 1
                code = code_of(queue.topic, properties, timestamp_ms)
                units.append((queue, _pack_unit(physical_offset, size_bytes, code)))
            all_units.append(units)
        for queue in ends:
            self._make_tail_room(queue)
            if queue in begins:
                self._queues.begin_at(queue, begins[queue])
        return all_units

    def _find_queue(self, record: ScannedRecord) -> ConsumeQueue:
        try:
            topic = record.topic.decode()
            return self._queues.table.get((topic, record.queue_id)) or self._queues.create(topic, record.queue_id)
        except (UnicodeDecodeError, MessageInvalid, MessageTooLarge) as error:
            raise RecordCorrupt(record.physical_offset, f"it has no valid topic: {error}") from error

    def _check_beginning(self, queue: ConsumeQueue, record: ScannedRecord, *, is_first: bool) -> None:
        """Only a queue without units may begin anywhere, where the log does not go back to the first message ever."""
        is_new = is_first and queue.max_offset == queue.first_offset
        if not (is_new and self._log.min_offset > 0):
            raise LogDiverged(
                record.physical_offset,
                f"number {record.queue_offset} of {queue.topic} {queue.queue_id} cannot follow",
            )

    def _store(self, portion: _Portion, units: list[tuple[ConsumeQueue, bytes]]) -> None:
        self._log.append_raw(portion.data, units, portion.records, ends_file=portion.ends_file)


def _without_zeros(data: bytes) -> bytes:
    """A file's end without the zeros that the file has there anyway: a filler's magic number stays, it ends in 0x94."""
    return data.rstrip(b"\0")
