"""Which master epoch wrote which part of the log: the file that failover compares, and the comparison."""

import logging
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from apogeemq.store.errors import NO_ROOM, DiskFull, EpochInvalid
from apogeemq.store.files import Disk, replace_file

_logger = logging.getLogger(__name__)

FILE_SIZE_BYTES_MAX = 1 << 20
"""A larger file is not read: some 50,000 changes of master between two expiries."""
_CRC_MASK = 0x7FFFFFFF
_NOT_CHECKED = 0
_NUMBER_DIGITS_MAX = 19


class EpochEntry(NamedTuple):
    """The master of `epoch` (1 and up) wrote the log from the physical offset `start_offset` to the next entry's."""

    epoch: int
    start_offset: int


class EpochFile:
    """The file `epochFileCheckpoint`, as text, every line ended by a newline.

    ```
    2                   how many entries follow
    773307083           CRC-32 of the entries' text & 0x7FFFFFFF; 0 = unchecked
    7-7000              epoch, start offset; both ascend
    8-8000
    ```
    Each change replaces the file (`.tmp`, synced, the old one becomes `.bak`, renamed), so that it is on the disk when
    the call returns: a master appends its epoch before the first record of that epoch.
    Changes that fail leave the entries as they were. Blocking; one thread at a time.
    Source: Apache common/utils/CheckpointFile and store/ha/autoswitch/EpochFileCache 5.x; broker_behaviour.md §11.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        """Read the file; the backup when it is absent or damaged; no file at all means no entries.

        Errors: EpochInvalid when there are files but none can be read: a broker that forgot its epochs would take its
        log for another's.
        """
        self._disk = disk
        self._path = path
        self._entries = self._load()

    @property
    def entries(self) -> tuple[EpochEntry, ...]:
        """All entries, oldest first."""
        return self._entries

    @property
    def last_epoch(self) -> int:
        """The newest epoch; 0 when there is none."""
        return self._entries[-1].epoch if self._entries else 0

    def append_epoch(self, epoch: int, start_offset: int) -> None:
        """Note that a new epoch's records begin here. The same entry once more changes nothing.

        Errors: EpochInvalid unless both are above the last entry's (the offset may be the same: an epoch without
        records); DiskFull, OSError.
        """
        entry = EpochEntry(epoch, start_offset)
        if self._entries[-1:] == (entry,):
            return
        self._replace((*self._entries, entry))

    def replace(self, entries: Sequence[EpochEntry]) -> None:
        """Take over another broker's entries. Errors: as `append_epoch`."""
        self._replace(tuple(entries))

    def truncate_suffix(self, offset: int) -> None:
        """Forget epochs that begin at or after `offset`, as the log was cut there.

        After a crash that cost the log its end, call it with the log's end + 1: an epoch that begins just there may
        have been noted before its first record. Errors: DiskFull, OSError.
        """
        self._keep(tuple(entry for entry in self._entries if entry.start_offset < offset))

    def truncate_prefix(self, offset: int) -> None:
        """Forget epochs that end at or before `offset`, the beginning of the oldest file that is left.

        The last one never goes. Errors: DiskFull, OSError.
        """
        ends = [entry.start_offset for entry in self._entries[1:]]
        expired = sum(end <= offset for end in ends)
        self._keep(self._entries[expired:])

    def _keep(self, entries: tuple[EpochEntry, ...]) -> None:
        if entries != self._entries:
            self._replace(entries)

    def _replace(self, entries: tuple[EpochEntry, ...]) -> None:
        problem = _why_invalid(entries)
        if problem:
            raise EpochInvalid(self._path, problem)
        try:
            replace_file(self._disk, self._path, encode_epochs(entries), backup=True)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFull(self._path) from error
            raise
        self._entries = entries

    def _load(self) -> tuple[EpochEntry, ...]:
        failure: EpochInvalid | None = None
        for path in (self._path, self._path.with_name(self._path.name + ".bak")):
            if self._disk.size_of(path) is None:
                continue
            try:
                return self._read(path)
            except EpochInvalid as error:
                _logger.warning("%s", error)
                failure = error
        if failure is not None:
            raise failure
        return ()

    def _read(self, path: Path) -> tuple[EpochEntry, ...]:
        size_bytes = self._disk.size_of(path) or 0
        if size_bytes > FILE_SIZE_BYTES_MAX:
            raise EpochInvalid(path, f"{size_bytes} bytes, more than {FILE_SIZE_BYTES_MAX}")
        try:
            return decode_epochs(self._disk.read_file(path))
        except ValueError as error:
            raise EpochInvalid(path, str(error)) from error


def encode_epochs(entries: Sequence[EpochEntry]) -> bytes:
    """The text of the file."""
    text = "".join(f"{epoch}-{start_offset}\n" for epoch, start_offset in entries).encode()
    return b"%d\n%d\n%s" % (len(entries), zlib.crc32(text) & _CRC_MASK, text)


def decode_epochs(text: bytes) -> tuple[EpochEntry, ...]:
    """The entries in the text of the file. Errors: ValueError saying what is wrong."""
    count_line, _, rest = text.partition(b"\n")
    crc_line, _, entry_text = rest.partition(b"\n")
    count, crc = _number(count_line), _number(crc_line)
    if crc not in (_NOT_CHECKED, zlib.crc32(entry_text) & _CRC_MASK):
        raise ValueError("the CRC of its entries differs")
    lines = entry_text.split(b"\n")[:-1]
    if len(lines) != count or not entry_text.endswith(b"\n" if count else b""):
        raise ValueError(f"it should have {count} entries, and has {len(lines)}")
    entries = tuple(_entry(line) for line in lines)
    problem = _why_invalid(entries)
    if problem:
        raise ValueError(problem)
    return entries


def common_points(
    ours: Sequence[EpochEntry], our_end: int, theirs: Sequence[EpochEntry], their_end: int
) -> Iterator[int]:
    """Physical offsets up to which two logs were written by the same masters, the latest first.

    An epoch that both have with the same start offset was one master's; they agree up to where the first of the two
    leaves it. Whoever doubts a point (the bytes before it differ) goes on to the next. None at all: nothing in common.
    `our_end` and `their_end` are the written ends of the logs.
    Source: Apache EpochFileCache.findConsistentPoint 5.x; architecture.md §6.7.
    """
    their_ends = dict(_with_ends(theirs, their_end))
    for entry, end in reversed(_with_ends(ours, our_end)):
        if entry in their_ends:
            yield min(end, their_ends[entry])


def find_common_point(
    ours: Sequence[EpochEntry], our_end: int, theirs: Sequence[EpochEntry], their_end: int
) -> int | None:
    """The latest of `common_points`; None when there is none."""
    return next(common_points(ours, our_end, theirs, their_end), None)


def _with_ends(entries: Sequence[EpochEntry], end: int) -> list[tuple[EpochEntry, int]]:
    """Each entry with where its epoch ends."""
    ends = [entry.start_offset for entry in entries[1:]] + [end]
    return list(zip(entries, ends, strict=False))


def _why_invalid(entries: Sequence[EpochEntry]) -> str | None:
    epoch, start_offset = 0, 0
    for entry in entries:
        if entry.epoch <= epoch or entry.start_offset < start_offset:
            return f"epoch {entry.epoch} from offset {entry.start_offset} cannot follow {epoch} from {start_offset}"
        epoch, start_offset = entry
    return None


def _entry(line: bytes) -> EpochEntry:
    epoch, _, start_offset = line.partition(b"-")
    return EpochEntry(_number(epoch), _number(start_offset))


def _number(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > _NUMBER_DIGITS_MAX:
        raise ValueError(f"{digits[:20]!r} stands where a number should")
    return int(digits)
