"""Checking a whole store without changing it: everything that can be verified, in one pass through the log.

What it can see: each record's magic, sizes, CRC of the body, physical offset, queue offset in its queue's order, form
of its properties, order of store times; blank fillers; zeros behind the end; the checkpoint; each consume-queue unit
against its record and each record against its unit; index entries against keys and keys against
entries, slots and chains; that config/*.json can be read.
What it cannot: the fields of a record outside the body have no checksum. A change of topic, queue id, queue offset,
size or tag shows because the unit says something else; one of flag, born time, hosts, reconsume times, transaction
offset or another property does not show at all.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
from apogeemq.remoting_codec import fastjson
from apogeemq.remoting_codec.errors import BodyInvalid
from apogeemq.store.config_files import FILE_SIZE_BYTES_MAX
from apogeemq.store.config_journal import JournaledFile
from apogeemq.store.delivery_times import tags_code_rule
from apogeemq.store.errors import JournalDamaged
from apogeemq.store.finding import Finding, Severity
from apogeemq.store.index_check import IndexCheck
from apogeemq.store.log_scan import ScannedRecord
from apogeemq.store.log_walk import BadRange, LogWalk
from apogeemq.store.queue_check import QueueCheck
from apogeemq.store.recovery import RedispatchTagsCode
from apogeemq.store.store_view import OnProgress, StoreView

_REPAIR = "apogeemq-store repair cuts the log there, or replaces the damaged bytes"
_CLOCK_ADVICE = "a clock that was set back, or a changed field; offsets by time may be off around it"


class CheckSummary(msgspec.Struct, kw_only=True):
    """What a checked store holds; complete when the check is over."""

    is_clean: bool
    """Stopped in good order."""
    log_min_offset: int = 0
    log_end: int = 0
    records: int = 0
    """All of the log, also those that no queue shows (half messages, settled transactions)."""
    messages: int = 0
    topics: int = 0
    queues: int = 0
    record_bytes: int = 0
    index_entries: int = 0
    store_timestamp_min_ms: int = 0
    store_timestamp_max_ms: int = 0
    damages: int = 0
    deriveds: int = 0
    notes: int = 0

    @property
    def is_fine(self) -> bool:
        """Nothing but notes."""
        return not self.damages and not self.deriveds


class StoreCheck:
    """One check of one store. Iterate to run it; then read `summary`.

    Memory is bounded by the number of queues, not of messages.
    """

    def __init__(
        self, view: StoreView, *, tags_code_of: RedispatchTagsCode | None = None, on_progress: OnProgress | None = None
    ) -> None:
        self.summary = CheckSummary(is_clean=view.is_clean, log_min_offset=view.log_min_offset)
        self._view = view
        self._on_progress = on_progress
        self._queues = QueueCheck(
            view.queues,
            view.directory,
            log_min_offset=view.log_min_offset,
            is_clean=view.is_clean,
            tags_code_of=tags_code_of or tags_code_rule(),
        )
        self._index = IndexCheck(view) if view.layout.has_index else None
        self._last_timestamp_ms = 0

    def __iter__(self) -> Iterator[Finding]:
        for finding in self._run():
            if finding.severity is Severity.DAMAGE:
                self.summary.damages += 1
            elif finding.severity is Severity.DERIVED:
                self.summary.deriveds += 1
            else:
                self.summary.notes += 1
            yield finding

    def _run(self) -> Iterator[Finding]:
        yield from check_config(self._view)
        for fault in self._view.log_faults:
            yield Finding(
                severity=Severity.DAMAGE,
                file=self._view.relative(fault.path),
                expected="a row of files of one size",
                found=fault.reason,
                advice="bring the file back from a replica or a backup; else " + _REPAIR,
            )
        yield from self._check_log()
        self._queues.finish(self.summary.log_end)
        yield from _taken(self._queues.findings)
        if self._index is not None:
            self._index.finish()
            yield from _taken(self._index.findings)
            self.summary.index_entries = self._index.entries
        self.summary.messages = self._queues.messages
        self.summary.queues = self._queues.queues
        self.summary.topics = self._queues.topics
        yield from self._check_end()

    # -- the log -------------------------------------------------------------------------------------------------------

    def _check_log(self) -> Iterator[Finding]:
        walk = LogWalk(self._view, on_progress=self._on_progress)
        summary = self.summary
        summary.log_end = walk.end
        for step in walk:
            if isinstance(step, BadRange):
                yield self._bad_range(step)
                if self._will_be_cut(step):
                    summary.log_end = step.start
                    return
                continue
            if step:
                self._queues.add(step)
                yield from _taken(self._queues.findings)
                if self._index is not None:
                    self._index.add(step)
                    yield from _taken(self._index.findings)
                yield from self._check_fields(step)
                summary.records += len(step)
                summary.log_end = step[-1].physical_offset + step[-1].size_bytes
        summary.log_end = walk.end

    def _check_fields(self, records: list[ScannedRecord]) -> Iterator[Finding]:
        """Order of store times, and whether properties are what they should be."""
        last_ms, summary = self._last_timestamp_ms, self.summary
        if not summary.records:
            summary.store_timestamp_min_ms = records[0].store_timestamp_ms
        for record in records:
            timestamp_ms, properties = record.store_timestamp_ms, record.properties
            summary.record_bytes += record.size_bytes
            if timestamp_ms < last_ms:
                yield self._in_record(
                    record, f"a store time of at least {last_ms}", str(timestamp_ms), Severity.NOTE, _CLOCK_ADVICE
                )
            last_ms = timestamp_ms
            if properties and not (properties.isascii() and properties.count(b"\1") == properties.count(b"\2")):
                fault = properties_fault(properties)
                if fault is not None:
                    yield self._in_record(
                        record, "properties: key 0x01 value 0x02, repeated", fault, Severity.DAMAGE,
                        "no checksum covers properties; compare with a replica or a backup",
                    )  # fmt: skip
        self._last_timestamp_ms = last_ms
        summary.store_timestamp_max_ms = max(summary.store_timestamp_max_ms, last_ms)

    def _will_be_cut(self, bad: BadRange) -> bool:
        """The next opening ends the log there: it was not stopped in good order, and nothing says it was synced."""
        return not self._view.is_clean and bad.start >= self._view.checkpoint.master_flushed_offset

    def _bad_range(self, bad: BadRange) -> Finding:
        part = self._view.part_of(bad.start)
        assert part is not None
        is_cut = self._will_be_cut(bad)
        rest_bytes = (part.data_end(bad.start) if is_cut else bad.end) - bad.start
        return Finding(
            severity=Severity.NOTE if is_cut else Severity.DAMAGE,
            file=self._view.relative(part.path_of(bad.start)),
            position=bad.start - part.start_of(bad.start),
            physical_offset=bad.start,
            expected="a record" if not bad.is_tail else "a record, or zeros behind the last one",
            found=f"{rest_bytes} bytes that are none: {bad.problem}",
            advice="a torn tail: the next opening cuts it off" if is_cut else _REPAIR,
        )

    def _in_record(self, record: ScannedRecord, expected: str, found: str, severity: Severity, advice: str) -> Finding:
        part = self._view.part_of(record.physical_offset)
        assert part is not None
        return Finding(
            severity=severity,
            file=self._view.relative(part.path_of(record.physical_offset)),
            position=record.physical_offset - part.start_of(record.physical_offset),
            physical_offset=record.physical_offset,
            expected=expected,
            found=found,
            advice=advice,
        )

    # -- what speaks of it ---------------------------------------------------------------------------------------------

    def _check_end(self) -> Iterator[Finding]:
        """The checkpoint may be behind, never ahead."""
        checkpoint, file = self._view.checkpoint, Path("checkpoint")
        end, newest_ms = self.summary.log_end, self.summary.store_timestamp_max_ms
        if checkpoint.master_flushed_offset > end:
            yield Finding(
                severity=Severity.DAMAGE,
                file=file,
                position=24,
                expected=f"a flushed offset of at most {end}, where the log ends",
                found=str(checkpoint.master_flushed_offset),
                advice="synced messages are gone: bring the log back from a replica or a backup, "
                "or accept the loss with apogeemq-store repair --truncate",
            )
        times = (checkpoint.physic_timestamp_ms, checkpoint.logics_timestamp_ms, checkpoint.index_timestamp_ms)
        names = ("physic", "logics", "index")
        for position, (name, timestamp_ms) in enumerate(zip(names, times, strict=True)):
            if self.summary.records and timestamp_ms > newest_ms:
                yield Finding(
                    severity=Severity.NOTE,
                    file=file,
                    position=position * 8,
                    expected=f"a {name} timestamp of at most {newest_ms}, the newest record's",
                    found=str(timestamp_ms),
                    advice="expected after records expired or were cut off; else it may hide unsynced work",
                )
        if not self._view.is_clean:
            yield Finding(
                severity=Severity.NOTE,
                file=Path("abort"),
                expected="no such file",
                found="the store was not stopped in good order",
                advice="the next opening recovers: it checks the log's tail and completes consume queues",
            )


def _taken(findings: list[Finding]) -> Iterator[Finding]:
    """What is in the list, which is empty afterwards."""
    while findings:
        yield findings.pop(0)


def check_config(view: StoreView) -> Iterator[Finding]:
    """Whether each table under config/ can be read, or its backup."""
    directory = view.directory / "config"
    for name in view.disk.list_dir(directory):
        if not name.endswith(".json"):
            continue
        fault = json_fault(view, directory / name)
        if fault is None:
            yield from _check_journal(view, directory / name)
            continue
        backup = directory / (name + ".bak")
        has_backup = view.disk.size_of(backup) is not None and json_fault(view, backup) is None
        yield Finding(
            severity=Severity.DAMAGE,
            file=view.relative(directory / name),
            expected="JSON",
            found=fault,
            advice="the broker takes the backup, which is whole; apogeemq-store repair restores it"
            if has_backup
            else "there is no whole backup either: bring the file back, or remove it to start without what it said",
        )


def _check_journal(view: StoreView, path: Path) -> Iterator[Finding]:
    """The changes since the table was written. A torn last one is nothing: its sender was never told of it."""
    file = JournaledFile(view.disk, path)
    try:
        file.load()
    except JournalDamaged as error:
        yield Finding(
            severity=Severity.DAMAGE,
            file=view.relative(path.with_suffix(".journal")),
            expected="a row of changes, each with a CRC that is right",
            found=str(error),
            advice="move the journal away to start with what the .json says",
        )
    finally:
        file.close()


def json_fault(view: StoreView, path: Path) -> str | None:
    """Why a file is no JSON; None when it is."""
    size_bytes = view.disk.size_of(path) or 0
    if size_bytes > FILE_SIZE_BYTES_MAX:
        return f"{size_bytes} bytes, more than {FILE_SIZE_BYTES_MAX}"
    try:
        fastjson.loads(
            view.disk.read_file(path), size_bytes_max=FILE_SIZE_BYTES_MAX, tolerant_size_bytes_max=FILE_SIZE_BYTES_MAX
        )
    except BodyInvalid as error:
        return str(error)
    return None


def properties_fault(properties: bytes) -> str | None:
    """What is wrong with a record's properties; None when nothing is. The last separator may be absent."""
    try:
        text = properties.decode()
    except UnicodeDecodeError as error:
        return f"no UTF-8 at byte {error.start}"
    for item in text.removesuffix("\2").split("\2"):
        key, separator, _ = item.partition("\1")
        if not key or not separator:
            return f"the item {item[:40]!r}"
    return None
