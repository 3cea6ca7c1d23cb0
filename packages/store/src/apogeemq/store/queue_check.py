"""Whether log and consume queues say the same: each record against its unit, each unit against its record."""

from pathlib import Path

from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.store.consume_queue import PADDING_SIZE, UNIT, UNIT_SIZE_BYTES
from apogeemq.store.errors import LayoutInvalid
from apogeemq.store.finding import Finding, Severity
from apogeemq.store.log_scan import ScannedRecord
from apogeemq.store.queue_units import QueueRow, QueueUnits
from apogeemq.store.recovery import RedispatchTagsCode
from apogeemq.store.skip_records import SKIP_TOPIC_BYTES

_BUFFER_UNITS = 200
_BUFFERS_MAX = 4096
"""Together 16 MiB, however many queues there are."""
_NO_UNIT = MessageSysFlag.TRANSACTION_PREPARED_TYPE | MessageSysFlag.INNER_BATCH_FLAG
_REBUILD = "apogeemq-store rebuild builds consume queues anew from the log"


class _Cursor:
    """How far one queue was followed."""

    __slots__ = ("buffer", "buffer_offset", "first", "missing", "missing_from", "next", "queue_id", "row", "topic")

    def __init__(self, topic: str, queue_id: int, row: QueueRow | None, first: int) -> None:
        self.topic = topic
        self.queue_id = queue_id
        self.row = row
        """None when the queue has no files."""
        self.first = self.next = first
        """The first record's queue offset; the one that must come next."""
        self.buffer = b""
        self.buffer_offset = first
        self.missing = 0
        self.missing_from = 0


class QueueCheck:
    """Gets every record of the log in order, keeps a position in each queue, and reads each unit once.

    The unit of a record must hold its offset, its size and the tags code that the rule gives; the queue offsets of a
    queue follow each other. `finish` looks at what no record claimed: in front of a queue units of records that are
    no longer in the log, or padding; in gaps padding; behind its end nothing.
    """

    def __init__(
        self,
        units: QueueUnits,
        directory: Path,
        *,
        log_min_offset: int,
        is_clean: bool,
        tags_code_of: RedispatchTagsCode,
    ) -> None:
        """`directory` is the store's. After an unclean stop units may be missing at the end: opening adds them."""
        self.messages = 0
        """Records that a queue shows."""
        self.findings: list[Finding] = []
        """What was found since somebody last took it from here."""
        self._units = units
        self._directory = directory
        self._log_min_offset = log_min_offset
        self._is_clean = is_clean
        self._tags_code_of = tags_code_of
        self._cursors: dict[tuple[bytes, int], _Cursor] = {}
        self._buffers = 0
        self._is_repaired = False
        """A record was passed that stands for lost ones (see skip_records): later gaps are known."""

    @property
    def queues(self) -> int:
        """Queues that have records."""
        return len(self._cursors)

    @property
    def topics(self) -> int:
        """Topics that have records."""
        return len({topic for topic, _ in self._cursors})

    def add(self, records: list[ScannedRecord]) -> None:
        """Check these records; they come in the order of the log."""
        cursors, tags_code_of, pack = self._cursors, self._tags_code_of, UNIT.pack
        for record in records:
            physical_offset, size_bytes, queue_id, queue_offset, sys_flag, timestamp_ms, topic, properties = record
            if sys_flag & _NO_UNIT:
                if topic == SKIP_TOPIC_BYTES:
                    self._is_repaired = True
                continue
            self.messages += 1
            cursor = cursors.get((topic, queue_id)) or self._new_cursor(record)
            if cursor is None:
                continue
            if queue_offset != cursor.next:
                self._jump(cursor, record)
            cursor.next = queue_offset + 1
            expected = pack(physical_offset, size_bytes, tags_code_of(cursor.topic, properties, timestamp_ms))
            at = (queue_offset - cursor.buffer_offset) * UNIT_SIZE_BYTES
            if at < 0 or cursor.buffer[at : at + UNIT_SIZE_BYTES] != expected:
                self._look_again(cursor, record, expected)

    def finish(self, log_end: int) -> None:
        """Everything was added: look at what is left."""
        for cursor in self._cursors.values():
            self._report_missing(cursor, is_tail=True)
        claimed = {(cursor.topic, cursor.queue_id): cursor for cursor in self._cursors.values()}
        for row in self._units.rows():
            if isinstance(row, LayoutInvalid):
                self._report_layout(row)
                continue
            owner = claimed.get((row.topic, row.queue_id))
            first, stop = (self._units.end_of(row),) * 2 if owner is None else (owner.first, owner.next)
            self._check_front(row, min(first, row.capacity_offset))
            self._check_behind(row, max(row.first_offset, stop), log_end)

    # -- one record ----------------------------------------------------------------------------------------------------

    def _new_cursor(self, record: ScannedRecord) -> _Cursor | None:
        try:
            topic = record.topic.decode()
        except UnicodeDecodeError:
            topic = ""
        if topic in ("", ".", "..") or "/" in topic or not topic.isprintable():
            self._report_record(record, "a topic", repr(record.topic))
            return None
        try:
            row = self._units.row(topic, record.queue_id)
        except LayoutInvalid:
            row = None  # reported once, in finish
        cursor = _Cursor(topic, record.queue_id, row, record.queue_offset)
        self._cursors[record.topic, record.queue_id] = cursor
        return cursor

    def _jump(self, cursor: _Cursor, record: ScannedRecord) -> None:
        """The record does not follow its queue's last one."""
        if record.queue_offset == 0:
            self._report_record(
                record, f"number {cursor.next} of {cursor.topic} {record.queue_id}", "number 0", Severity.NOTE,
                "a topic that was deleted and made anew begins so",
            )  # fmt: skip
            self._report_missing(cursor, is_tail=False)
            cursor.first = 0
        elif record.queue_offset > cursor.next and (self._is_repaired or self._is_padded(cursor, record.queue_offset)):
            self._report_record(
                record, f"number {cursor.next} of {cursor.topic} {record.queue_id}", f"number {record.queue_offset}",
                Severity.NOTE, "those in between were lost before, and a repair or an opening has seen it",
            )  # fmt: skip
        else:
            missing = record.queue_offset - cursor.next
            what = f": {missing} messages are missing" if missing > 0 else ""
            self._report_record(
                record,
                f"number {cursor.next} of {cursor.topic} {record.queue_id}",
                f"number {record.queue_offset}{what}",
            )

    def _is_padded(self, cursor: _Cursor, stop: int) -> bool:
        row = cursor.row
        if row is None or not row.first_offset <= cursor.next <= stop <= row.capacity_offset:
            return False
        return all(size_bytes == PADDING_SIZE for _, _, size_bytes, _ in self._units.walk(row, cursor.next, stop))

    def _look_again(self, cursor: _Cursor, record: ScannedRecord, expected: bytes) -> None:
        """The buffer has not what the record demands: perhaps it only has to be read on."""
        row, queue_offset = cursor.row, record.queue_offset
        if row is None or not row.first_offset <= queue_offset < row.capacity_offset:
            self._count_missing(cursor, queue_offset)
            return
        if not cursor.buffer:
            self._buffers += 1
            if self._buffers > _BUFFERS_MAX:
                self._drop_buffers()
        cursor.buffer = self._units.read(row, queue_offset, _BUFFER_UNITS)
        cursor.buffer_offset = queue_offset
        unit = cursor.buffer[:UNIT_SIZE_BYTES]
        if unit == expected:
            self._report_missing(cursor, is_tail=False)
            return
        if unit[8:12] == bytes(4):
            self._count_missing(cursor, queue_offset)
        else:
            self._report_unit(
                row, queue_offset, _describe(expected), _describe(unit), Severity.DERIVED,
                "if the record is right (apogeemq-store records --offset), " + _REBUILD,
                physical_offset=record.physical_offset,
            )  # fmt: skip

    def _drop_buffers(self) -> None:
        for cursor in self._cursors.values():
            cursor.buffer = b""
        self._buffers = 1

    def _count_missing(self, cursor: _Cursor, queue_offset: int) -> None:
        if cursor.missing == 0:
            cursor.missing_from = queue_offset
        cursor.missing += 1
        cursor.buffer = b""  # so that the next unit is looked at here as well

    # -- at the end ----------------------------------------------------------------------------------------------------

    def _report_missing(self, cursor: _Cursor, *, is_tail: bool) -> None:
        if not cursor.missing:
            return
        severity = Severity.NOTE if is_tail and not self._is_clean else Severity.DERIVED
        path = Path("consumequeue", cursor.topic, str(cursor.queue_id))
        position = None
        if cursor.row is not None and cursor.row.first_offset <= cursor.missing_from < cursor.row.capacity_offset:
            place, position = self._units.place_of(cursor.row, cursor.missing_from)
            path = self._relative(place)
        self.findings.append(
            Finding(
                severity=severity,
                file=path,
                position=position,
                expected=f"units of records from queue offset {cursor.missing_from} on",
                found=f"{cursor.missing} units missing",
                advice="the next opening adds them" if severity is Severity.NOTE else _REBUILD,
            )
        )
        cursor.missing = 0

    def _check_front(self, row: QueueRow, stop: int) -> None:
        """Units in front of the first record that is in the log."""
        for queue_offset, physical_offset, size_bytes, _ in self._units.walk(row, row.first_offset, stop):
            if size_bytes == 0 and not self._is_clean:
                continue  # like any other missing unit, the next opening's business
            if size_bytes != PADDING_SIZE and physical_offset >= self._log_min_offset:
                self._report_stray(row, queue_offset, physical_offset, size_bytes)

    def _check_behind(self, row: QueueRow, queue_offset: int, log_end: int) -> None:
        """Units behind the last record's."""
        data_end = min(self._units.data_end(row, queue_offset), row.capacity_offset)
        for number, physical_offset, size_bytes, tags_code in self._units.walk(row, queue_offset, data_end):
            if size_bytes == 0 and physical_offset == 0 and tags_code == 0:
                continue
            if physical_offset >= log_end and not self._is_clean:
                self._report_unit(
                    row, number, "no unit behind the last record's", f"{data_end - number} units behind the log's end",
                    Severity.NOTE, "the next opening removes them",
                )  # fmt: skip
                return
            self._report_stray(row, number, physical_offset, size_bytes)

    def _report_stray(self, row: QueueRow, queue_offset: int, physical_offset: int, size_bytes: int) -> None:
        self._report_unit(
            row, queue_offset, f"the unit of a record of {row.topic} {row.queue_id}, or none",
            f"offset {physical_offset}, size {size_bytes}, where no such record is", Severity.DERIVED, _REBUILD,
        )  # fmt: skip

    # -- findings ------------------------------------------------------------------------------------------------------

    def _report_record(
        self,
        record: ScannedRecord,
        expected: str,
        found: str,
        severity: Severity = Severity.DAMAGE,
        advice: str = "compare with a replica or a backup; the log itself cannot tell what stood there",
    ) -> None:
        self.findings.append(
            Finding(
                severity=severity,
                file=Path("commitlog"),
                physical_offset=record.physical_offset,
                expected=expected,
                found=found,
                advice=advice,
            )
        )

    def _report_unit(
        self,
        row: QueueRow,
        queue_offset: int,
        expected: str,
        found: str,
        severity: Severity,
        advice: str,
        *,
        physical_offset: int | None = None,
    ) -> None:
        place, position = self._units.place_of(row, queue_offset)
        self.findings.append(
            Finding(
                severity=severity,
                file=self._relative(place),
                position=position,
                physical_offset=physical_offset,
                expected=f"unit {queue_offset}: {expected}",
                found=found,
                advice=advice,
            )
        )

    def _report_layout(self, fault: LayoutInvalid) -> None:
        self.findings.append(
            Finding(
                severity=Severity.DERIVED,
                file=self._relative(fault.path),
                expected="a row of files of one size",
                found=fault.reason,
                advice=_REBUILD,
            )
        )

    def _relative(self, path: Path) -> Path:
        return path.relative_to(self._directory)


def _describe(unit: bytes) -> str:
    physical_offset, size_bytes, tags_code = UNIT.unpack(unit)
    return f"offset {physical_offset}, size {size_bytes}, tags code {tags_code}"
