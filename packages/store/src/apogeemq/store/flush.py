"""Bringing the commit log to the disk, for all who wait together."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from apogeemq.store.commit_log import CommitLog
from apogeemq.store.errors import LogTruncated, NotWritable, StoreError, TooManyWaiters

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
                raise self._refusal.with_traceback(None)
            target, timestamp_ms = self._log.end()
            if target > self.flushed_offset:
                try:
                    self._log.files.sync(self.flushed_offset, target)
                except OSError as error:
                    refusal = NotWritable(f"syncing the commit log failed: {error}")
                    _logger.critical("%s", refusal)
                    self._log.refuse(refusal)
                    self.abandon(refusal)
                    raise refusal from error
            self._complete(target, timestamp_ms)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No sync goes on, nor begins, inside."""
        with self._flush_lock:
            yield

    def truncate(self, offset: int, store_timestamp_ms: int) -> None:
        """The log is about to be cut: nothing above counts as synced any more, and whoever waits for it is told so.

        To be called while `paused`.
        """
        with self._lock:
            self.flushed_offset = min(self.flushed_offset, offset)
            self.flushed_timestamp_ms = min(self.flushed_timestamp_ms, store_timestamp_ms)
            gone = [callback for waited_offset, callback in self._waiters if waited_offset > offset]
            self._waiters = [waiter for waiter in self._waiters if waiter[0] <= offset]
        for callback in gone:
            _call(callback, LogTruncated(offset))

    def flush_once(self) -> None:
        """What the flush thread does: flush. A failure was told to everybody; there is nothing left to do then."""
        with suppress(NotWritable):
            self.flush()

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
