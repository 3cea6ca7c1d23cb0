"""Bringing consume queues, timers and the checkpoint to the disk, at intervals."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from apogeemq.store.checkpoint import Checkpoint, CheckpointFile
from apogeemq.store.commit_log import CommitLog
from apogeemq.store.config import StoreConfig
from apogeemq.store.consume_queue import ConsumeQueues
from apogeemq.store.errors import NO_ROOM, NotWritable
from apogeemq.store.flush import GroupCommit
from apogeemq.store.index_files import IndexFiles
from apogeemq.store.timer_store import TimerStore

_logger = logging.getLogger(__name__)


class QueueFlush:
    """What the thread for queues does, callable without the thread.

    Tails are written at one interval, which drops them from memory. They are synced at a longer one, since each queue
    that got messages costs a sync; what is not synced yet, recovery rebuilds. Timers are synced at the shorter one,
    since a power loss has those delivered again that were not. The checkpoint is written after the work that it
    speaks of, so it is never ahead. Apart from the log's flush, which must not wait for all this.
    After any failure nothing here goes on: a later success would hide what was lost.
    """

    def __init__(
        self,
        log: CommitLog,
        commit: GroupCommit,
        queues: ConsumeQueues,
        timer: TimerStore,
        checkpoint_file: CheckpointFile,
        checkpoint: Checkpoint,
        config: StoreConfig,
        now_ms: Callable[[], int],
        index: IndexFiles | None = None,
    ) -> None:
        self._log = log
        self._commit = commit
        self._queues = queues
        self._timer = timer
        self._checkpoint_file = checkpoint_file
        self._checkpoint = checkpoint
        self._write_interval_ms = config.flush_interval_ms
        self._sync_interval_ms = config.consume_queue_sync_interval_ms
        self._now_ms = now_ms
        self._index = index
        self._written_ms = self._synced_ms = now_ms()
        self._synced_offset = 0
        self._lock = Lock()

    def run_once(self) -> None:
        """Do what is due by the clock. A failure ends in the log's refusal."""
        if isinstance(self._log.refusal, NotWritable):
            return
        now_ms = self._now_ms()
        # The absolute difference: a clock that was set back must not stop the work.
        if abs(now_ms - self._written_ms) < self._write_interval_ms:
            return
        self._written_ms = now_ms
        try:
            self._flush(sync=abs(now_ms - self._synced_ms) >= self._sync_interval_ms)
            self._timer.sync(now_ms)
        except NotWritable as refusal:
            self._log.refuse(refusal)
        except OSError as error:
            if error.errno in NO_ROOM:
                # Tails stay in memory, up to the bound where appending fails with DiskFull.
                _logger.warning("no room to write consume queues")
            else:
                self._refuse(error)

    def sync_through(self, physical_offset: int) -> bool:
        """Have the units of all records below an offset synced; False when that cannot be had now.

        What this says of records may then be deleted with them: recovery finds every unit that it cannot rebuild.
        """
        if self._synced_offset >= physical_offset:
            return True
        if isinstance(self._log.refusal, NotWritable):
            return False
        try:
            self._flush(sync=True)
        except NotWritable:
            return False
        except OSError as error:
            if error.errno not in NO_ROOM:
                self._refuse(error)
            return False
        return self._synced_offset >= physical_offset

    def run_all(self) -> None:
        """Everything, now, for the last time.

        Errors: NotWritable, also for want of room, and whenever something failed before.
        """
        if isinstance(self._log.refusal, NotWritable):
            raise self._log.refusal.with_traceback(None)
        try:
            self._flush(sync=True)
            self._timer.close(self._now_ms())
        except OSError as error:
            raise self._refuse(error) from error

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Neither queues nor checkpoint are written inside."""
        with self._lock:
            yield

    def truncate(self, offset: int, store_timestamp_ms: int) -> None:
        """The log is about to be cut at `offset`, behind a record of this store timestamp: claim no more than that.

        To be called while `paused`, after the flush was told. Durable at return. Errors: NotWritable; nothing is cut.
        """
        self._synced_offset = min(self._synced_offset, offset)
        checkpoint = self._current_checkpoint()
        checkpoint.logics_timestamp_ms = min(checkpoint.logics_timestamp_ms, store_timestamp_ms)
        checkpoint.index_timestamp_ms = min(checkpoint.index_timestamp_ms, store_timestamp_ms)
        try:
            self._checkpoint_file.save(checkpoint)
        except OSError as error:
            raise self._refuse(error) from error

    def _flush(self, *, sync: bool) -> None:
        with self._lock:  # the threads for queues and for cleaning both come here
            self._write(sync=sync)
            self._checkpoint_file.save(self._current_checkpoint())

    def _write(self, *, sync: bool) -> None:
        end, timestamp_ms = self._log.end()
        self._queues.drain_all()
        if self._index is not None:
            self._index.write()
        if sync:
            self._sync()
            if self._index is not None:
                self._checkpoint.index_timestamp_ms = timestamp_ms
            self._synced_ms = self._now_ms()
            self._synced_offset = end
            self._checkpoint.logics_timestamp_ms = timestamp_ms

    def _sync(self) -> None:
        """Errors: NotWritable, also for want of room: what was not synced is not known any more, so that a later round
        would claim that everything is.
        """
        try:
            self._queues.sync()
            if self._index is not None:
                self._index.sync()
        except OSError as error:
            raise self._refuse(error) from error

    def _current_checkpoint(self) -> Checkpoint:
        self._checkpoint.master_flushed_offset = self._commit.flushed_offset
        self._checkpoint.physic_timestamp_ms = self._commit.flushed_timestamp_ms
        if self._log.confirm_limit is not None:
            self._checkpoint.confirm_offset = min(self._log.confirm_offset, self._commit.flushed_offset)
        return self._checkpoint

    def _refuse(self, error: OSError) -> NotWritable:
        refusal = NotWritable(f"writing consume queues or checkpoint failed: {error}")
        _logger.critical("%s", refusal)
        self._log.refuse(refusal)
        return refusal
