"""Through a whole log that may be damaged: its records, and what lies between them."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from apogeemq.remoting_codec.record import MAGIC_BLANK, MAGIC_V1, MAGIC_V2, PHYSICAL_OFFSET_AT, SIZE_AND_MAGIC
from apogeemq.store.log_files import LogFiles
from apogeemq.store.log_scan import LogScan, ScannedRecord
from apogeemq.store.store_view import OnProgress, StoreView

_PIECE_SIZE_BYTES = 1 << 20
_MAGICS = tuple(magic.to_bytes(4, "big") for magic in (MAGIC_V1, MAGIC_V2, MAGIC_BLANK))
_MAGIC_AT = 4


class BadRange(NamedTuple):
    """[start, end) of the log is no record, no blank filler, and not the zeros behind the end.

    `is_tail`: nothing readable comes after it; `end` is one past the last byte that is not zero, or `start` itself
    where a file ends without a filler.
    """

    start: int
    end: int
    problem: str
    is_tail: bool


class LogWalk:
    """Goes through all parts of a log, and over bytes that are no record to the next that is one.

    Iterating gives lists of records, and a BadRange wherever there is one. When it is over, `end` is where the last
    record, or what was written behind it, ends.
    """

    def __init__(self, view: StoreView, *, start: int = 0, on_progress: OnProgress | None = None) -> None:
        """`start`: a record's physical offset, or anything up to the first file's."""
        self.end = max(start, view.log_min_offset)
        self._view = view
        self._on_progress = on_progress
        self._total_bytes = sum(part.data_end(part.min_offset) - part.min_offset for part in view.log_parts)
        self._done_bytes = 0

    def __iter__(self) -> Iterator[list[ScannedRecord] | BadRange]:
        for part in self._view.log_parts:
            if part.end > self.end:
                yield from self._walk_part(part, max(self.end, part.min_offset))

    def _walk_part(self, part: LogFiles, start: int) -> Iterator[list[ScannedRecord] | BadRange]:
        done_before = self._done_bytes

        def report(offset: int) -> None:
            self._done_bytes = done_before + offset - part.min_offset
            if self._on_progress is not None:
                self._on_progress(self._done_bytes, max(self._done_bytes, self._total_bytes))

        at: int | None = start
        while at is not None:
            scan = LogScan(part, at, record_size_bytes_max=self._view.record_size_bytes_max)
            for records in scan:
                yield records
                report(scan.end)
            self.end = scan.end
            if scan.problem is None:
                break
            data_end = part.data_end(scan.end)
            if data_end == scan.end:
                break
            at = next_record(part, scan.end + 1, data_end, self._view.record_size_bytes_max)
            bad_end = data_end if at is None else at
            yield BadRange(scan.end, bad_end, scan.problem, is_tail=at is None)
            self.end = bad_end
        report(self.end)


def next_record(part: LogFiles, offset: int, end: int, record_size_bytes_max: int) -> int | None:
    """Where the first record or blank filler at or after `offset` begins; None when there is none before `end`.

    Found by its magic, then believed under the same conditions as by a scan. Also a file's start counts, if anything
    can be read there.
    """
    while offset < end:
        file_end = part.start_of(offset) + part.file_size_bytes
        stop = min(end, file_end)
        while offset < stop:
            piece = part.read(offset, min(_PIECE_SIZE_BYTES, stop - offset))
            for position in _candidates(piece):
                if _is_readable(part, offset + position, record_size_bytes_max):
                    return offset + position
            # A head may begin in this piece and go on in the next.
            step = len(piece) - PHYSICAL_OFFSET_AT - 8
            if offset + len(piece) >= stop or step <= 0:
                break
            offset += step
        offset = file_end
    return None


def _candidates(piece: bytes) -> list[int]:
    """Where in the piece a record or a filler may begin: four bytes before a magic."""
    found = []
    for magic in _MAGICS:
        at = piece.find(magic)
        while at >= 0:
            if at >= _MAGIC_AT:
                found.append(at - _MAGIC_AT)
            at = piece.find(magic, at + 1)
    return sorted(found)


def _is_readable(part: LogFiles, offset: int, record_size_bytes_max: int) -> bool:
    rest_size_bytes = part.start_of(offset) + part.file_size_bytes - offset
    if rest_size_bytes < SIZE_AND_MAGIC.size:
        return False
    size_bytes, magic = SIZE_AND_MAGIC.unpack(part.read(offset, SIZE_AND_MAGIC.size))
    if magic == MAGIC_BLANK:
        return bool(size_bytes == rest_size_bytes)
    if not 0 < size_bytes <= min(rest_size_bytes, record_size_bytes_max):
        return False
    scan = LogScan(part, offset, record_size_bytes_max=record_size_bytes_max)
    # Twice: a record that is larger than what a scan reads at a time needs a second look.
    return any(scan.end > offset for _ in islice(scan, 2))
