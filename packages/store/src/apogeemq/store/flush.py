"""Bringing to the disk what was written: the log for those who wait, queues and checkpoint at intervals."""

import logging
from collections.abc import Callable
from threading import Lock

from apogeemq.store.checkpoint import Checkpoint, CheckpointFile
from apogeemq.store.commit_log import CommitLog
from apogeemq.store.config import StoreConfig
from apogeemq.store.consume_queue import ConsumeQueues
from apogeemq.store.errors import NO_ROOM, NotWritable, StoreError, TooManyWaiters

_logger = logging.getLogger(__name__)

FlushCallback = Callable[[Exception | None], None]
"""Called once: with None when the log is synced up to the offset asked for, else with what went wrong."""


class GroupCommit:
    """Syncs the commit log; all who wait meanwhile share the next sync.

    A sync that fails is final: Linux marks the pages clean, so that a second one would succeed without having written
    them. From then on the log refuses appends and everybody who waits gets the error, until the store is opened anew.
    """

    def __init__(self, log: CommitLog, *, waiters_max: int, request_flush: Callable[[], None]) -> None:
        self.flushed_offset = log.written_offset
        self.flushed_timestamp_ms = log.store_timestamp_ms
        """Store timestamp of the last record below `flushed_offset`."""
        self._log = log
        self._waiters_max = waiters_max
        self._request_flush = request_flush
        self._waiters: list[tuple[int, FlushCallback]] = []
        self._refusal: StoreError | None = None
        self._lock = Lock()
        self._flush_lock = Lock()

    def notify(self, offset: int, callback: FlushCallback) -> None:
        """Call back once the log is synced up to `offset`: at once if it is, else from the thread that flushes.

        Errors: TooManyWaiters.
        """
        with self._lock:
            refusal = self._refusal
            if refusal is None and offset > self.flushed_offset:
                if len(self._waiters) >= self._waiters_max:
                    raise TooManyWaiters(self._waiters_max)
                self._waiters.append((offset, callback))
                self._request_flush()
                return
        callback(None if offset <= self.flushed_offset else refusal)

    def flush(self) -> None:
        """Sync everything appended before the call. Errors: NotWritable, now and whenever a sync failed before."""
        with self._flush_lock:
            if isinstance(self._refusal, NotWritable):
                raise self._refusal
            target, timestamp_ms = self._log.end()
            if target > self.flushed_offset:
                try:
                    self._log.files.sync(self.flushed_offset, target)
                except OSError as error:
                    refusal = NotWritable(f"syncing the commit log failed: {error}")
                    self._log.refuse(refusal)
                    self.abandon(refusal)
                    raise refusal from error
            self._complete(target, timestamp_ms)

    def abandon(self, refusal: StoreError) -> None:
        """Tell everybody who waits, now or later, that it will not happen."""
        with self._lock:
            if self._refusal is None:
                self._refusal = refusal
            waiters, self._waiters = self._waiters, []
        for _, callback in waiters:
            _call(callback, refusal)

    def _complete(self, target: int, timestamp_ms: int) -> None:
        with self._lock:
            self.flushed_offset = target
            self.flushed_timestamp_ms = timestamp_ms
            due = [callback for offset, callback in self._waiters if offset <= target]
            if due:
                self._waiters = [waiter for waiter in self._waiters if waiter[0] > target]
        for callback in due:
            _call(callback, None)


def _call(callback: FlushCallback, error: Exception | None) -> None:
    try:
        callback(error)
    except Exception:  # one waiter's bug must not cost the others their answer
        _logger.exception("a flush callback failed")


class FlushService:
    """What the flush thread does, callable without the thread.

    Order of duties: log, waiting callbacks, tails of consume queues, checkpoint: so the checkpoint is never ahead.
    Consume queues are synced seldom (each dirty queue costs a sync); until then recovery rebuilds them.
    """

    def __init__(
        self,
        commit: GroupCommit,
        log: CommitLog,
        queues: ConsumeQueues,
        checkpoint_file: CheckpointFile,
        checkpoint: Checkpoint,
        config: StoreConfig,
        now_ms: Callable[[], int],
    ) -> None:
        self._commit = commit
        self._log = log
        self._queues = queues
        self._checkpoint_file = checkpoint_file
        self._checkpoint = checkpoint
        self._interval_ms = config.flush_interval_ms
        self._queue_sync_interval_ms = config.consume_queue_sync_interval_ms
        self._now_ms = now_ms
        self._reported: NotWritable | None = None
        self._tails_written_ms = self._queues_synced_ms = now_ms()

    def flush_once(self) -> None:
        """One round: sync the log, call back, and do what is due by the clock. Failures end in the log's refusal."""
        try:
            self._commit.flush()
            self._check_no_failure()
            now_ms = self._now_ms()
            # The absolute difference: a clock that was set back must not stop the work.
            if abs(now_ms - self._tails_written_ms) >= self._interval_ms:
                self._tails_written_ms = now_ms
                self._write_queues(now_ms)
                self._save_checkpoint()
        except NotWritable as refusal:
            if refusal is not self._reported:
                _logger.critical("%s", refusal)
            self._reported = refusal

    def flush_all(self) -> None:
        """Everything, now. Errors: NotWritable, also for want of room."""
        self._commit.flush()
        self._check_no_failure()
        try:
            self._sync_queues()
        except OSError as error:
            raise self._refuse("writing consume queues", error) from error
        self._save_checkpoint()

    def _check_no_failure(self) -> None:
        """After a failure queues and checkpoint stay as they are: a later success would hide what was lost."""
        if isinstance(self._log.refusal, NotWritable):
            raise self._log.refusal

    def _write_queues(self, now_ms: int) -> None:
        try:
            if abs(now_ms - self._queues_synced_ms) >= self._queue_sync_interval_ms:
                self._sync_queues()
                self._queues_synced_ms = now_ms
            else:
                self._queues.drain_all()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise self._refuse("writing consume queues", error) from error
            # Tails stay in memory, up to the bound where appending fails with DiskFull.
            _logger.warning("no room to write consume queues")

    def _sync_queues(self) -> None:
        _, timestamp_ms = self._log.end()
        self._queues.drain_all()
        self._queues.sync()
        self._checkpoint.logics_timestamp_ms = timestamp_ms

    def _save_checkpoint(self) -> None:
        checkpoint = self._checkpoint
        checkpoint.master_flushed_offset = self._commit.flushed_offset
        checkpoint.physic_timestamp_ms = self._commit.flushed_timestamp_ms
        try:
            self._checkpoint_file.save(checkpoint)
        except OSError as error:
            raise self._refuse("writing the checkpoint", error) from error

    def _refuse(self, what: str, error: OSError) -> NotWritable:
        refusal = NotWritable(f"{what} failed: {error}")
        self._log.refuse(refusal)
        return refusal
