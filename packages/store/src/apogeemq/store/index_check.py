"""Whether log and index say the same, and whether every entry can be found."""

import sys
from array import array
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.store.errors import LayoutInvalid
from apogeemq.store.finding import Finding, Severity
from apogeemq.store.index_file import (
    ENTRY,
    ENTRY_SIZE_BYTES,
    HEADER_SIZE_BYTES,
    IndexFile,
    index_file_size_bytes,
)
from apogeemq.store.index_query import index_paths
from apogeemq.store.key_hash import KeyHashes, keys_of
from apogeemq.store.log_scan import ScannedRecord
from apogeemq.store.slot_table import SLOT_SIZE_BYTES
from apogeemq.store.store_view import StoreView

_BLOCK_ENTRIES = 50_000
_ROLLED_BACK = MessageSysFlag.TRANSACTION_ROLLBACK_TYPE
_REBUILD = "apogeemq-store rebuild --only index builds it anew from the log"


class _Entry(NamedTuple):
    """One entry, and where it stands."""

    key_hash: int
    physical_offset: int
    path: Path
    position: int


class IndexCheck:
    """Gets every record of the log in order, and goes through the entries of the index beside it.

    Entries lie in the order of the log, a record's in the order of its keys: so both are read once, in step. On the way
    the chains are followed: each entry must name the one before it in its slot, each slot its newest one. That takes 4
    bytes a slot, 20 MB for files of the usual size.
    """

    def __init__(self, view: StoreView) -> None:
        self.entries = 0
        self.findings: list[Finding] = []
        """What was found since somebody last took it from here."""
        self._view = view
        self._hashes = KeyHashes()
        self._entries = self._read_entries()
        self._next: _Entry | None = next(self._entries, None)
        self._missing = 0
        self._missing_from = 0
        self._stray = 0
        self._stray_first: _Entry | None = None
        while self._next is not None and self._next.physical_offset < view.log_min_offset:
            self._advance()  # their records expired; the file goes when all of it has

    def add(self, records: list[ScannedRecord]) -> None:
        """Check these records; they come in the order of the log."""
        prefixes, keys, offsets = [], [], []
        for record in records:
            if record.sys_flag & _ROLLED_BACK == _ROLLED_BACK:
                continue
            for key in keys_of(record.properties):
                prefixes.append(record.topic + b"#")
                keys.append(key)
                offsets.append(record.physical_offset)
        for physical_offset, key_hash in zip(offsets, self._hashes.hashes_of(prefixes, keys), strict=True):
            found = self._next
            if found is not None and found.physical_offset == physical_offset and found.key_hash == key_hash:
                self._advance()
            else:
                self._look_around(physical_offset, key_hash)

    def finish(self) -> None:
        """Everything was added: what is left belongs to no record."""
        while self._next is not None:
            self._skip()
        if self._missing:
            is_business_of_opening = not self._view.is_clean
            self.findings.append(
                Finding(
                    severity=Severity.NOTE if is_business_of_opening else Severity.DERIVED,
                    file=Path("index"),
                    physical_offset=self._missing_from,
                    expected="an entry for each key of each record",
                    found=f"{self._missing} missing, the first for this record",
                    advice="the next opening adds what a crash left out; check again after it"
                    if is_business_of_opening
                    else _REBUILD,
                )
            )
        if self._stray_first is not None:
            self.findings.append(
                Finding(
                    severity=Severity.DERIVED if self._view.is_clean else Severity.NOTE,
                    file=self._view.relative(self._stray_first.path),
                    position=self._stray_first.position,
                    physical_offset=self._stray_first.physical_offset,
                    expected="entries for keys of records only",
                    found=f"{self._stray} for others; this is the first",
                    advice=_REBUILD if self._view.is_clean else "the next opening removes those behind the log's end",
                )
            )

    # -- in step -------------------------------------------------------------------------------------------------------

    def _look_around(self, physical_offset: int, key_hash: int) -> None:
        """The next entry is not this key's: pass over those of no record, then over entries of this record."""
        while self._next is not None and self._next.physical_offset < physical_offset:
            self._skip()
        while self._next is not None and self._next.physical_offset == physical_offset:
            if self._next.key_hash == key_hash:
                self._advance()
                return
            self._skip()
        if not self._missing:
            self._missing_from = physical_offset
        self._missing += 1

    def _skip(self) -> None:
        if self._stray_first is None:
            self._stray_first = self._next
        self._stray += 1
        self._advance()

    def _advance(self) -> None:
        self.entries += 1
        self._next = next(self._entries, None)

    # -- files ---------------------------------------------------------------------------------------------------------

    def _read_entries(self) -> Iterator[_Entry]:
        """All entries of all files, with each file's chains checked on the way."""
        layout = self._view.layout
        for path in index_paths(self._view):
            if (self._view.disk.size_of(path) or 0) > index_file_size_bytes(
                layout.index_slots, layout.index_entries_max
            ):
                raise LayoutInvalid(path, "larger than its slots and entries: see --index-slots and --index-entries")
            file = IndexFile(self._view.disk, path, layout.index_slots, layout.index_entries_max)
            if not file.load():
                self._report(path, 0, "a header that fits the entries", "one that does not", _REBUILD)
            if file.header.count <= layout.index_entries_max:
                yield from self._read_file(file)

    def _read_file(self, file: IndexFile) -> Iterator[_Entry]:
        slots = self._view.layout.index_slots
        start = HEADER_SIZE_BYTES + slots * SLOT_SIZE_BYTES
        heads = array("i", bytes(slots * SLOT_SIZE_BYTES))
        wrong_chains = 0
        for block in range(1, file.header.count, _BLOCK_ENTRIES):
            count = min(_BLOCK_ENTRIES, file.header.count - block)
            data = file.segment().pread(start + block * ENTRY_SIZE_BYTES, count * ENTRY_SIZE_BYTES)
            for number, (key_hash, physical_offset, _, previous) in enumerate(ENTRY.iter_unpack(data), block):
                position = start + number * ENTRY_SIZE_BYTES
                if key_hash < 0:
                    self._report(file.path, position, "a hash that is not negative", str(key_hash), _REBUILD)
                    continue
                slot = key_hash % slots
                if previous != heads[slot]:
                    wrong_chains += 1
                    if wrong_chains == 1:
                        found = f"entry {number} names {previous} as the one before it"
                        self._report(file.path, position, str(heads[slot]), found, _REBUILD)
                heads[slot] = number
                yield _Entry(key_hash, physical_offset, file.path, position)
        self._check_slots(file, heads)
        file.release()

    def _check_slots(self, file: IndexFile, heads: "array[int]") -> None:
        stored = array("i", file.segment().pread(HEADER_SIZE_BYTES, len(heads) * SLOT_SIZE_BYTES))
        if sys.byteorder == "little":
            stored.byteswap()
        if stored == heads:
            return
        # Slots may be ahead of the header after a crash: opening mends them.
        wrong = (slot for slot in range(len(heads)) if stored[slot] != heads[slot])
        for slot in islice(wrong, 1):
            position = HEADER_SIZE_BYTES + slot * SLOT_SIZE_BYTES
            self._report(
                file.path, position, f"slot {slot}: entry {heads[slot]}", f"entry {stored[slot]}", _REBUILD,
                Severity.DERIVED if self._view.is_clean else Severity.NOTE,
            )  # fmt: skip

    def _report(
        self, path: Path, position: int, expected: str, found: str, advice: str, severity: Severity = Severity.DERIVED
    ) -> None:
        self.findings.append(
            Finding(
                severity=severity,
                file=self._view.relative(path),
                position=position,
                expected=expected,
                found=found,
                advice=advice,
            )
        )
