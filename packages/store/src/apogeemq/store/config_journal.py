"""A table under `config/` whose changes cost an append: Java's whole `.json`, and a journal of what came since.

Creating one topic among 50,000 must not write megabytes. So a change becomes a frame at the end of `<name>.journal`,
synced; now and then, and at a clean stop, the whole table goes into `<name>.json`, and the journal begins anew. What a
change says is the owner's matter, but it must be of the kind "this entry is now so": applying it twice does no harm.
Source: architecture.md §5; decision 0017.
"""

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from apogeemq.store.config_files import ConfigFile
from apogeemq.store.errors import NO_ROOM, DiskFull, JournalDamaged
from apogeemq.store.files import Disk, Segment, replace_file

_logger = logging.getLogger(__name__)

JOURNAL_SIZE_BYTES_MAX = 1 << 20
"""A journal is not larger; where a change does not fit, the whole file is due."""

_MAGIC = 0x41_50_4A_31  # "APJ1"
_MAGIC_BYTES = _MAGIC.to_bytes(4, "big")
_HEAD = struct.Struct(">6I")
_CRC = struct.Struct(">I")
_CRC_AT = _HEAD.size - _CRC.size


class TableText(NamedTuple):
    """What a table's files hold: the text of the `.json`, and the changes to be applied to it, in order."""

    text: bytes | None
    changes: list[bytes]


class _Base(NamedTuple):
    """Which text a journal's changes apply to."""

    crc: int
    size_bytes: int


class _Journal(NamedTuple):
    """A journal as it was found. `end`: one past its last whole frame; `torn_bytes` follow that are none."""

    base: _Base
    changes: list[bytes]
    end: int
    torn_bytes: int


class JournaledFile:
    """One `.json` with its journal.

    ```
    <name>.journal     frame 0 (no change) │ frame 1 │ frame 2 │ … │ zeros

    frame   at 0  magic "APJ1" u32 │ 4  payload size u32 │ 8  base CRC-32 u32 │ 12  base size u32
              16  number, from 0 u32 │ 20  CRC-32 of bytes 0..19 and the payload u32 │ 24  the change
    ```
    Big-endian. The base is the text of the `.json` that the changes apply to, by its CRC-32 and size: a journal whose
    base is another text (edited by hand, written by a Java broker, or by us just before a crash) changes nothing.

    A frame is synced before the next one is written. So what is no frame, with none behind it, is what a crash tore;
    with one behind it, it is damage.

    The whole is written in this order: the new `.json` with the old one kept as `.bak` (see `replace_file`), then a
    journal with frame 0 alone with the old one kept as `.journal.bak`. After a crash in between, the changes of the old
    journal are in the new `.json`, which is not their base; before it, `.bak` is their base. If the `.json` is
    damaged, `.bak` and `.journal.bak` together say what it said, but for what came while it was written.

    Blocking: call it in a thread. One thread at a time; `load` comes first.
    """

    def __init__(self, disk: Disk, path: Path, *, journal_size_bytes_max: int = JOURNAL_SIZE_BYTES_MAX) -> None:
        self._disk = disk
        self._file = ConfigFile(disk, path)
        self._path = path
        self._journal_path = path.with_suffix(".journal")
        self._size_bytes_max = journal_size_bytes_max
        self._base = _Base(0, 0)
        self._end: int | None = None
        """Where the next frame goes; None when the journal can take none before the whole file is written."""
        self._number = 0
        self._segment: Segment | None = None
        self._are_names_durable = False
        self.holds_changes = False
        """Whether the `.json` alone does not say everything. After `load`: these changes may not be synced yet."""

    def load(self) -> TableText:
        """The text and the changes since. Without any file the text is None.

        Errors: BodyInvalid when there are files but neither the `.json` nor its backup can be read; JournalDamaged;
        OSError.
        """
        found = self._file.load_with_origin()
        journal = self._read_journal(self._journal_path)
        if found is None:
            if journal is not None and journal.changes:
                self._warn_ignored(self._journal_path, journal)
            return TableText(None, [])
        text, is_backup = found
        base = _base_of(text)
        if is_backup and (journal is None or journal.base != base):
            if journal is not None and journal.changes:
                self._warn_ignored(self._journal_path, journal)
            journal = self._read_journal(self._journal_path.with_name(self._journal_path.name + ".bak"))
        if journal is None:
            return TableText(text, [])
        if journal.base != base:
            if journal.changes:
                self._warn_ignored(self._journal_path, journal)
            return TableText(text, [])
        if journal.torn_bytes:
            _logger.warning(
                "%s: dropping %d bytes that a crash tore at byte %d",
                self._journal_path,
                journal.torn_bytes,
                journal.end,
            )
        self.holds_changes = bool(journal.changes)
        if not (is_backup or journal.changes or journal.torn_bytes):
            self._base, self._end, self._number = base, journal.end, 1
        return TableText(text, journal.changes)

    def append(self, change: bytes) -> bool:
        """Add a change, durable at return; False, with nothing done, when the whole file is due instead.

        Errors: DiskFull, OSError. The change may be found later nevertheless. After a failed sync the whole file is
        due: a second sync would succeed without having written anything.
        """
        frame = _encode_frame(self._base, self._number, change)
        if self._end is None or self._end + len(frame) > self._size_bytes_max:
            return False
        try:
            segment = self._open_segment()
            segment.write(self._end, frame)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFull(self._journal_path) from error
            self._end = None
            raise
        end, self._end = self._end + len(frame), None
        try:
            segment.sync()
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFull(self._journal_path) from error
            raise
        self._end = end
        self._number += 1
        self.holds_changes = True
        return True

    def save(self, text: bytes) -> None:
        """Write the whole table, with every change there was; durable at return, and the journal is empty then.

        Errors: DiskFull, OSError; files and journal say what they said, or the new text; the whole file stays due.
        """
        self._end = None
        self._close_segment()
        self._file.save(text)
        base = _base_of(text)
        first = _encode_frame(base, 0, b"")
        try:
            replace_file(self._disk, self._journal_path, first, backup=True)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFull(self._journal_path) from error
            raise
        self._base, self._end, self._number = base, len(first), 1
        self._are_names_durable = True
        self.holds_changes = False

    def close(self) -> None:
        """Give the journal back; nothing is written. `append` opens it again."""
        self._close_segment()

    def _open_segment(self) -> Segment:
        if not self._are_names_durable:
            # The process that wrote the .json and began the journal may have died before it had synced their names.
            for directory in (self._path.parent, self._path.parent.parent):
                self._disk.sync_dir(directory)
            self._are_names_durable = True
        if self._segment is None:
            self._segment = self._disk.open_segment(self._journal_path, self._size_bytes_max)
        return self._segment

    def _close_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()

    def _read_journal(self, path: Path) -> _Journal | None:
        """The journal; None when there is none, or none with a whole frame 0. Errors: JournalDamaged, OSError."""
        size_bytes = self._disk.size_of(path)
        if size_bytes is None:
            return None
        if size_bytes > max(self._size_bytes_max, JOURNAL_SIZE_BYTES_MAX):
            raise JournalDamaged(path, 0, f"{size_bytes} bytes, more than a journal ever has,")
        return _decode_journal(path, self._disk.read_file(path))

    def _warn_ignored(self, path: Path, journal: _Journal) -> None:
        _logger.warning(
            "%s is not the file that %s belongs to: it was written by hand, by a Java broker, or whole by this one "
            "just before a crash, or it is damaged; %d changes of the journal are not applied",
            self._path,
            path,
            len(journal.changes),
        )


def _base_of(text: bytes) -> _Base:
    return _Base(crc32(text), len(text))


def _encode_frame(base: _Base, number: int, change: bytes) -> bytes:
    head = _HEAD.pack(_MAGIC, len(change), *base, number, 0)[:_CRC_AT]
    return head + _CRC.pack(crc32(change, crc32(head))) + change


class _Frame(NamedTuple):
    base: _Base
    number: int
    change: bytes
    end: int


def _decode_frame(data: bytes, position: int) -> _Frame | None:
    """The frame that begins there; None when none does."""
    if position + _HEAD.size > len(data):
        return None
    magic, size_bytes, base_crc, base_size_bytes, number, crc = _HEAD.unpack_from(data, position)
    end = position + _HEAD.size + size_bytes
    if magic != _MAGIC or end > len(data):
        return None
    change = data[position + _HEAD.size : end]
    if crc != crc32(change, crc32(data[position : position + _CRC_AT])):
        return None
    return _Frame(_Base(base_crc, base_size_bytes), number, change, end)


def _decode_journal(path: Path, data: bytes) -> _Journal | None:
    changes: list[bytes] = []
    first = _decode_frame(data, 0)
    end = 0
    frame = first
    while frame is not None and first is not None and (frame.base, frame.number) == (first.base, len(changes)):
        changes.append(frame.change)
        end = frame.end
        frame = _decode_frame(data, end)
    if any(_frames_after(data, end)):
        raise JournalDamaged(path, end, "no change")
    torn_bytes = len(data[end:].rstrip(b"\0"))
    if first is None:
        _logger.warning("%s: %d bytes that are no journal", path, torn_bytes)
        return None
    return _Journal(first.base, changes[1:], end, torn_bytes)


def _frames_after(data: bytes, position: int) -> Iterator[_Frame]:
    """Whole frames that begin at or after a position, wherever they do."""
    while (position := data.find(_MAGIC_BYTES, position)) >= 0:
        frame = _decode_frame(data, position)
        if frame is not None:
            yield frame
        position += 1
