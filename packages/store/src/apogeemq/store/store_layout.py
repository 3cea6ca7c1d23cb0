"""Finding out from a directory itself what sizes its files were made with."""

import math
import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from apogeemq.store.config import StoreConfig
from apogeemq.store.consume_queue import UNIT, UNIT_SIZE_BYTES
from apogeemq.store.errors import FileSizeImpossible
from apogeemq.store.files import Disk
from apogeemq.store.segment_files import segment_path

COMMIT_LOG_FILE_SIZE_BYTES = 1 << 30
CONSUME_QUEUE_FILE_SIZE_BYTES = 300_000 * UNIT_SIZE_BYTES
_BLOCK_SIZE_BYTES = 4096
_NAME = re.compile(r"\d{20}")


INDEX_SLOTS = 5_000_000
INDEX_ENTRIES_MAX = 20_000_000


class StoreLayout(NamedTuple):
    """Sizes of a store's files, in bytes; of the index, numbers of slots and entries."""

    commit_log_file_size_bytes: int = COMMIT_LOG_FILE_SIZE_BYTES
    consume_queue_file_size_bytes: int = CONSUME_QUEUE_FILE_SIZE_BYTES
    index_slots: int = INDEX_SLOTS
    index_entries_max: int = INDEX_ENTRIES_MAX
    has_index: bool = False

    def config(self, *, message_size_bytes_max: int) -> StoreConfig:
        """Settings to open such a store with, for somebody who appends nothing (there is no store host)."""
        return StoreConfig(
            store_host=bytes(8),
            commit_log_file_size_bytes=self.commit_log_file_size_bytes,
            consume_queue_file_units=self.consume_queue_file_size_bytes // UNIT_SIZE_BYTES,
            message_size_bytes_max=message_size_bytes_max,
            index_enabled=self.has_index,
            index_slots=self.index_slots,
            index_entries_max=self.index_entries_max,
        )


def find_layout(
    disk: Disk,
    directory: Path,
    *,
    commit_log_file_size_bytes: int = 0,
    consume_queue_file_size_bytes: int = 0,
    index_slots: int = INDEX_SLOTS,
    index_entries_max: int = INDEX_ENTRIES_MAX,
) -> StoreLayout:
    """The sizes that fit what is there; those given (not 0) win.

    Names tell where files begin, so files of one row tell their size by its steps. A single file tells it by its own
    size, unless copying cut it behind what it holds: then, and for an empty directory, it is the usual one. Slots and
    entries of index files cannot be told from their size.

    Errors: FileSizeImpossible for a given size that none of the files can have.
    """
    queues = [
        directory / "consumequeue" / topic / queue_id
        for topic in disk.list_dir(directory / "consumequeue")
        for queue_id in disk.list_dir(directory / "consumequeue" / topic)
    ]
    _refuse_impossible(disk, [directory / "commitlog"], commit_log_file_size_bytes)
    _refuse_impossible(disk, queues, consume_queue_file_size_bytes)
    return StoreLayout(
        commit_log_file_size_bytes or _log_file_size(disk, directory / "commitlog"),
        consume_queue_file_size_bytes or _queue_file_size(disk, queues),
        index_slots,
        index_entries_max,
        has_index=any(name.isdecimal() for name in disk.list_dir(directory / "index")),
    )


def file_starts(disk: Disk, directory: Path) -> list[int]:
    """Where the files of a directory begin, by their names, whatever is missing in between."""
    return [int(name) for name in disk.list_dir(directory) if _NAME.fullmatch(name)]


def _refuse_impossible(disk: Disk, rows: list[Path], given_size_bytes: int) -> None:
    """Taken as it is, a mistyped size would make a sound store look damaged, and repair would make it so.

    Some files that do not fit are damage; when all are longer, or all begin closer together, it is the size.
    """
    if not given_size_bytes or not rows:
        return
    starts = {row: file_starts(disk, row) for row in rows}
    sizes = [disk.size_of(segment_path(row, start)) or 0 for row in rows for start in starts[row]]
    steps = [later - earlier for row in rows for earlier, later in pairwise(starts[row])]
    if min(sizes, default=0) > given_size_bytes or 0 < max(steps, default=0) < given_size_bytes:
        raise FileSizeImpossible(rows[0], given_size_bytes)


def _log_file_size(disk: Disk, directory: Path) -> int:
    starts = file_starts(disk, directory)
    sizes = [disk.size_of(segment_path(directory, start)) or 0 for start in starts]
    largest_whole = max((size for size in sizes if size % _BLOCK_SIZE_BYTES == 0), default=0)
    if len(starts) > 1:
        step = min(later - earlier for earlier, later in pairwise(starts))
        # Where files are missing in between, the step is a multiple of the size.
        return largest_whole if largest_whole and step % largest_whole == 0 else step
    return largest_whole or max(COMMIT_LOG_FILE_SIZE_BYTES, *sizes, 0)


def _queue_file_size(disk: Disk, queues: list[Path]) -> int:
    divisor, largest, whole = 0, 0, 0
    for queue in queues:
        starts = file_starts(disk, queue)
        divisor = math.gcd(divisor, *starts)
        for start in starts:
            path = segment_path(queue, start)
            size_bytes = disk.size_of(path) or 0
            largest = max(largest, size_bytes)
            if divisor == 0 and size_bytes > whole and _ends_in_zeros(disk, path, size_bytes):
                whole = size_bytes
    if divisor and divisor % UNIT_SIZE_BYTES == 0 and largest <= divisor:
        # Rows that all lost their first files may share a multiple of the size: then their own size tells.
        return largest if largest and divisor % largest == 0 else divisor
    return whole or max(CONSUME_QUEUE_FILE_SIZE_BYTES, largest)


def _ends_in_zeros(disk: Disk, path: Path, size_bytes: int) -> bool:
    """Whether the last unit is empty, which no copying tool that cuts files leaves."""
    if size_bytes < UNIT_SIZE_BYTES or size_bytes % UNIT_SIZE_BYTES:
        return False
    segment = disk.open_segment(path, size_bytes)
    try:
        return segment.pread(size_bytes - UNIT_SIZE_BYTES, UNIT_SIZE_BYTES) == bytes(UNIT.size)
    finally:
        segment.close()
