"""Putting a store together: its directory recovered, its parts wired, its threads; and taking it apart again."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import msgspec
from apogeemq.store.background import Worker, run_with_deadline
from apogeemq.store.checkpoint import CheckpointFile
from apogeemq.store.chunk_receiver import ChunkReceiver
from apogeemq.store.commit_log import CommitLog
from apogeemq.store.config import StoreConfig
from apogeemq.store.consume_queue import ConsumeQueues
from apogeemq.store.directory_swap import finish_swaps
from apogeemq.store.disk_watch import DiskWatch
from apogeemq.store.errors import LayoutInvalid, NotWritable, StoreClosed, StoreError, StoreInUse
from apogeemq.store.expiry import Expiry, no_timer_below
from apogeemq.store.files import Disk, DiskLock
from apogeemq.store.flush import GroupCommit
from apogeemq.store.index_files import IndexFiles
from apogeemq.store.index_recovery import IndexRecovery
from apogeemq.store.key_lookup import KeyLookup
from apogeemq.store.mapped_file_queue import MappedFileQueue
from apogeemq.store.measured_disk import MeasuredDisk
from apogeemq.store.message_reader import MessageReader
from apogeemq.store.queue_flush import QueueFlush
from apogeemq.store.recovery import Recovery, RedispatchTagsCode
from apogeemq.store.replication_view import ReplicationView
from apogeemq.store.room import RoomService
from apogeemq.store.side_by_side import DoAll
from apogeemq.store.stall_watch import StallWatch
from apogeemq.store.tail_room import TailRoom
from apogeemq.store.timer_store import TIMER_QUEUE, TimerStore
from apogeemq.store.truncation import Truncation

_logger = logging.getLogger(__name__)

_ROOM_INTERVAL_S = 1.0
"""How often the thread that reserves blocks looks without being woken."""

_CLEAN_INTERVAL_S = 1.0
"""How often the disk's room is looked at, and the pause between two files that are deleted."""

_STALL_INTERVAL_S = 1.0
"""How often the store looks whether the disk answers; oftener when the limit is short."""


def lock_directory(disk: Disk, directory: Path) -> DiskLock:
    """Make the directory if need be, and hold it against other stores and brokers. Errors: StoreInUse, OSError."""
    try:
        lock = disk.lock(directory / "lock")
    except BlockingIOError as error:
        raise StoreInUse(directory) from error
    try:
        disk.sync_dir(directory)
        disk.sync_dir(directory.parent)
    except OSError:
        lock.release()
        raise
    return lock


def _refuse_extended_units(disk: Disk, directory: Path) -> None:
    """Java's enableConsumeQueueExt, off by default, keeps tag hashes in files of their own and puts addresses into the
    units. Taken for hashes, they would hide messages from whoever asks for their tag. Errors: LayoutInvalid.
    """
    extended = directory / "consumequeue_ext"
    if disk.list_dir(extended):
        raise LayoutInvalid(
            extended,
            "its units were extended (enableConsumeQueueExt): build plain ones by `apogeemq-store rebuild`, then "
            "remove this directory",
        )


class StoreParts:
    """The parts of an open store. Five threads: one flushes the log, one writes consume queues and checkpoint, one
    reserves blocks ahead, one watches the disk's room and deletes what is old, one whether the disk answers.
    """

    def __init__(
        self,
        directory: Path,
        config: StoreConfig,
        *,
        now_ms: Callable[[], int],
        disk: MeasuredDisk,
        lock: DiskLock,
        on_progress: Callable[[int, int], None] | None,
        redispatch_tags_code: RedispatchTagsCode,
        sync_all: DoAll,
    ) -> None:
        """Recover the directory, which is locked, and wire everything. Errors: see MessageStore.open."""
        opened_ms = now_ms()
        self.disk = disk
        self._directory_lock = lock
        self._abort_path = directory / "abort"
        self.close_timeout_s = config.close_timeout_ms / 1000
        finish_swaps(disk, directory)
        _refuse_extended_units(disk, directory)
        clean = disk.size_of(self._abort_path) is None
        tails_lock = Lock()
        self.files = MappedFileQueue(
            disk,
            directory / "commitlog",
            config.commit_log_file_size_bytes,
            reserve_ahead_bytes=config.reserve_ahead_bytes,
            open_files_max=config.open_files_max,
            writer_wait_ms=config.disk_stall_limit_ms,
        )
        self.queues = ConsumeQueues(
            disk,
            directory / "consumequeue",
            units_per_file=config.consume_queue_file_units,
            open_files_max=config.open_files_max,
            lock=tails_lock,
            sync_all=sync_all,
        )
        self.index: IndexFiles | None = None
        self._index_directory = directory / "index"
        if config.index_enabled:
            self.index = IndexFiles(
                disk,
                self._index_directory,
                slots=config.index_slots,
                entries_max=config.index_entries_max,
                lock=tails_lock,
                now_ms=now_ms,
            )
        self._checkpoint_file = CheckpointFile(disk, directory / "checkpoint")
        checkpoint = self._checkpoint_file.load()
        recovery = Recovery(
            self.files,
            self.queues,
            checkpoint,
            clean=clean,
            record_size_bytes_max=config.record_size_bytes_max,
            redispatch_tags_code=redispatch_tags_code,
            on_progress=on_progress,
            index=None
            if self.index is None
            else IndexRecovery(
                self.index,
                self.files,
                checkpoint,
                clean=clean,
                record_size_bytes_max=config.record_size_bytes_max,
                save_checkpoint=lambda: self._checkpoint_file.save(checkpoint),
                on_progress=on_progress,
            ),
        )
        report = recovery.run(queues_exist=bool(disk.list_dir(directory / "consumequeue")))

        checkpoint.master_flushed_offset = recovery.log_end
        checkpoint.physic_timestamp_ms = recovery.store_timestamp_ms
        disk.write_file(self._abort_path, str(os.getpid()).encode())
        disk.sync_dir(directory)
        self._checkpoint_file.save(checkpoint)
        self.log = CommitLog(
            self.files,
            config,
            lock=tails_lock,
            dirty_queues=self.queues.dirty,
            now_ms=now_ms,
            request_room=self._request_room,
            tags_code_of=redispatch_tags_code,
            put_keys=None if self.index is None else self.index.put_prefixed,
        )
        self.log.open_at(recovery.log_end, recovery.store_timestamp_ms)
        self.keys = KeyLookup(self.log, self.index)
        self.reader = MessageReader(self.log, self.queues, record_size_bytes_max=config.record_size_bytes_max)
        self.commit = GroupCommit(self.log, waiters_max=config.flush_waiters_max, request_flush=self._request_flush)
        timer_queue = self.queues.table.get(TIMER_QUEUE)
        self.timer = TimerStore.open(
            disk,
            directory,
            config.timer,
            log_start=self.files.min_offset,
            log_end=recovery.log_end,
            queue_end=0 if timer_queue is None else timer_queue.max_offset,
        )
        """Messages that wait for their time; the owner reads their queue and delivers, see TimerStore."""
        self.queue_flush = QueueFlush(
            self.log,
            self.commit,
            self.queues,
            self.timer,
            self._checkpoint_file,
            checkpoint,
            config,
            now_ms,
            self.index,
        )
        self.disk_watch = DiskWatch(self.log, disk, directory, config.disk_limits)
        self.disk_watch.look()
        alone = Lock()
        self.expiry = Expiry(
            self.log,
            self.commit,
            self.queues,
            self.queue_flush,
            self.disk_watch,
            config.retention,
            hooks=[no_timer_below(self.timer)],
            derived=[self.timer] if self.index is None else [self.index, self.timer],
            alone=alone,
            now_ms=now_ms,
        )
        self.stall_watch = StallWatch(self.log, disk.health, limit_ms=config.disk_stall_limit_ms)
        self.tail_room = TailRoom(self.log, self.queues, self.index, config)
        receiver = ChunkReceiver(
            self.log,
            self.queues,
            record_size_bytes_max=config.record_size_bytes_max,
            tags_code_of=redispatch_tags_code,
            make_tail_room=self.tail_room.make,
        )
        truncation = Truncation(
            self.log,
            self.commit,
            self.queues,
            self.queue_flush,
            record_size_bytes_max=config.record_size_bytes_max,
            derived=(self._cut_timer, self.expiry.forget, self._cut_index),
            alone=alone,
            wait_s=self.close_timeout_s,
        )
        self.replication = ReplicationView(
            self.log,
            self.commit,
            receiver,
            truncation,
            known_confirm_offset=checkpoint.confirm_offset,
            record_size_bytes_max=config.record_size_bytes_max,
        )
        """The log as bytes: chunks to send and to take over, and cutting."""
        flush_interval_s = config.flush_interval_ms / 1000
        self._flush_worker = self._worker("store-flush", self.commit.flush_once, flush_interval_s)
        self._room_worker = self._worker("store-room", RoomService(self.log).prepare_once, _ROOM_INTERVAL_S)
        # The last one is a thread of its own, which never touches the disk: any of the others may be hanging in it.
        stall_interval_s = min(_STALL_INTERVAL_S, config.disk_stall_limit_ms / 4000)
        workers = (
            self._flush_worker,
            self._worker("store-queues", self.queue_flush.run_once, flush_interval_s),
            self._room_worker,
            self._worker("store-clean", self._clean_once, _CLEAN_INTERVAL_S),
            self._worker("store-stall", self.stall_watch.look, stall_interval_s),
        )
        self.workers = {worker.name: worker for worker in workers}
        """By the names of their threads; a test lets them take turns."""
        self._threads: list[Worker] = []
        self.recovery = msgspec.structs.replace(report, duration_ms=now_ms() - opened_ms)
        """What opening found."""

    # -- threads -------------------------------------------------------------------------------------------------------

    def start_threads(self) -> None:
        """From now on everything is done without being asked."""
        self._threads = list(self.workers.values())
        for worker in self._threads:
            worker.start()

    def run_once(self) -> None:
        """One round of the threads, but for reserving blocks, which appends then do themselves."""
        self.commit.flush_once()
        self.queue_flush.run_once()
        self._clean_once()
        self.stall_watch.look()

    def _clean_once(self) -> None:
        self.disk_watch.look()
        self.expiry.run_once()

    def _cut_timer(self, physical_offset: int) -> None:
        timer_queue = self.queues.table.get(TIMER_QUEUE)
        self.timer.truncate(physical_offset, 0 if timer_queue is None else timer_queue.max_offset)

    def _cut_index(self, physical_offset: int) -> None:
        """Without an index its files go: they would speak of what is cut when somebody switches it on again."""
        if self.index is not None:
            self.index.truncate(physical_offset)
            return
        names = self.disk.list_dir(self._index_directory)
        for name in names:
            self.disk.remove(self._index_directory / name)
        if names:
            self.disk.sync_dir(self._index_directory)
            _logger.warning("removed %d index files: the index is off, and the log was cut", len(names))

    def _worker(self, name: str, step: Callable[[], None], interval_s: float) -> Worker:
        return Worker(name, step, interval_s=interval_s, on_failure=self._thread_died)

    def _request_flush(self) -> None:
        self._flush_worker.wake()

    def _request_room(self) -> None:
        self._room_worker.wake()

    def _thread_died(self, error: Exception) -> None:
        refusal = NotWritable(f"a thread of the store failed: {error!r}")
        self.log.refuse(refusal)
        self.commit.abandon(refusal)

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """See MessageStore.close."""
        self.log.refuse(StoreClosed())
        try:
            if self._threads:
                run_with_deadline("store-close", self._stop_and_flush, self.close_timeout_s)
            else:
                self._stop_and_flush()
        except TimeoutError as error:
            self.commit.abandon(StoreClosed())
            raise StoreError(f"the disk hangs: the store was not flushed within {self.close_timeout_s} s") from error
        except BaseException:
            self.let_go()
            raise
        self.let_go()

    def let_go(self) -> None:
        """Give files and lock back, whatever was flushed."""
        self.commit.abandon(StoreClosed())
        self.queues.close()
        if self.index is not None:
            self.index.close()
        self.timer.abandon()
        self.files.close()
        self._checkpoint_file.close()
        self._directory_lock.release()

    def _stop_and_flush(self) -> None:
        for worker in self._threads:
            worker.stop(self.close_timeout_s)
        self.commit.flush()
        self.queue_flush.run_all()
        self.disk.remove(self._abort_path)
        self.disk.sync_dir(self._abort_path.parent)
