"""Building consume queues and index anew from the log alone, beside the old ones, and putting them in their place.

For queues the work is recovery's own, which goes this way as well when it opens a store without any: so both give
the same bytes. The log is not touched.
"""

from collections.abc import Callable
from pathlib import Path
from threading import Lock

import msgspec
from apogeemq.store.checkpoint import Checkpoint
from apogeemq.store.consume_queue import UNIT_SIZE_BYTES, ConsumeQueues
from apogeemq.store.directory_swap import begin_swap, commit_swap
from apogeemq.store.errors import LayoutInvalid, RecordCorrupt
from apogeemq.store.files import Disk, RealDisk
from apogeemq.store.index_files import IndexFiles
from apogeemq.store.log_walk import BadRange, LogWalk
from apogeemq.store.mapped_file_queue import MappedFileQueue
from apogeemq.store.recovery import Recovery, RedispatchTagsCode
from apogeemq.store.segment_files import segment_path
from apogeemq.store.store_view import OnProgress, StoreView

_OPEN_FILES_MAX = 512


class RebuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was built."""

    queues: int
    units: int
    kept_ends: int
    """Queues without a record in the log: their next queue offset was taken over from the old files."""
    irregular_records: int
    """Records that do not follow their predecessor's queue offset; padding bridges what is missing."""
    log_end: int


class _LogAsItIs(MappedFileQueue):
    """The log, read only: what lies behind its last record is left to the next opening."""

    def data_end(self, offset: int) -> int:
        return offset


def rebuild_queues(
    view: StoreView,
    *,
    tags_code_of: RedispatchTagsCode,
    target: Path | None = None,
    disk: Disk | None = None,
    on_progress: OnProgress | None = None,
) -> RebuildReport:
    """Build all consume queues from the log.

    With a `target` they go into `<target>/consumequeue`, which must not be there yet. Without one they replace the
    store's own; the view must hold the directory exclusively. Interrupted, the next opening finishes that or forgets
    it (see directory_swap); it never takes half of it for the whole.

    Errors: RecordCorrupt when the log is damaged below its flushed offset (repair comes first), LayoutInvalid,
    FileExistsError, OSError.
    """
    disk = disk or RealDisk()
    building = _begin(disk, view, target, "consumequeue")
    report = _build(view, building, disk, tags_code_of, on_progress)
    if target is None:
        commit_swap(disk, view.directory, "consumequeue")
    return report


def rebuild_index(
    view: StoreView,
    *,
    now_ms: Callable[[], int],
    target: Path | None = None,
    disk: Disk | None = None,
    on_progress: OnProgress | None = None,
) -> int:
    """Build the index from the log; returns the number of records that were looked at. Else as `rebuild_queues`.

    `now_ms` names the files.
    """
    disk = disk or RealDisk()
    building = _begin(disk, view, target, "index")
    index = IndexFiles(
        disk,
        building,
        slots=view.layout.index_slots,
        entries_max=view.layout.index_entries_max,
        lock=Lock(),
        now_ms=now_ms,
    )
    records = 0
    for step in LogWalk(view, on_progress=on_progress):
        if isinstance(step, BadRange):
            if view.is_clean or step.start < view.checkpoint.master_flushed_offset:
                raise RecordCorrupt(step.start, step.problem)
            break  # the next opening ends the log here
        for record in step:
            index.put_prefixed(
                record.topic + b"#",
                record.properties,
                record.sys_flag,
                record.physical_offset,
                record.store_timestamp_ms,
            )
        records += len(step)
        index.write()
    index.sync()
    index.close()
    if target is None:
        commit_swap(disk, view.directory, "index")
    return records


def _begin(disk: Disk, view: StoreView, target: Path | None, name: str) -> Path:
    """The empty directory to build in: in a target, or beside the store's own. Errors: FileExistsError, OSError."""
    if target is None:
        return begin_swap(disk, view.directory, name)
    building = target / name
    building.mkdir(parents=True)
    return building


def _build(
    view: StoreView, building: Path, disk: Disk, tags_code_of: RedispatchTagsCode, on_progress: OnProgress | None
) -> RebuildReport:
    file_size_bytes = view.layout.consume_queue_file_size_bytes
    files = _LogAsItIs(
        view.disk,
        view.directory / "commitlog",
        view.layout.commit_log_file_size_bytes,
        reserve_ahead_bytes=0,
        open_files_max=_OPEN_FILES_MAX,
    )
    queues = ConsumeQueues(
        disk,
        building,
        units_per_file=file_size_bytes // UNIT_SIZE_BYTES,
        open_files_max=_OPEN_FILES_MAX,
        lock=Lock(),
    )
    try:
        recovery = Recovery(
            files,
            queues,
            Checkpoint(master_flushed_offset=view.checkpoint.master_flushed_offset),
            clean=True,
            record_size_bytes_max=view.record_size_bytes_max,
            redispatch_tags_code=tags_code_of,
            on_progress=on_progress,
        )
        report = recovery.run(queues_exist=False)
        kept_ends = _keep_ends(view, queues, building, disk)
        queues.sync()
    finally:
        queues.close()
        files.close()
    return RebuildReport(
        queues=len(queues.table) + kept_ends,
        units=report.queue_units_rebuilt,
        kept_ends=kept_ends,
        irregular_records=report.irregular_records,
        log_end=recovery.log_end,
    )


def _keep_ends(view: StoreView, queues: ConsumeQueues, building: Path, disk: Disk) -> int:
    """Queues whose messages all expired: what comes next must not get a queue offset that was used before."""
    kept = 0
    for row in view.queues.rows():
        if isinstance(row, LayoutInvalid) or (row.topic, row.queue_id) in queues.table:
            continue
        end = view.queues.end_of(row)
        if end:
            queue = queues.create(row.topic, row.queue_id, building / row.topic / str(row.queue_id))
            queues.start_at(queue, end)
            queues.drain(queue)
            if end % queues.units_per_file == 0:
                # No padding is needed in front, so nothing was written: an empty file's name says it.
                path = segment_path(queue.directory, end * UNIT_SIZE_BYTES)
                segment = disk.open_segment(path, queues.units_per_file * UNIT_SIZE_BYTES, create=True)
                segment.sync()
                segment.close()
                disk.sync_dir(queue.directory)
            del queues.table[row.topic, row.queue_id]
            kept += 1
    return kept
