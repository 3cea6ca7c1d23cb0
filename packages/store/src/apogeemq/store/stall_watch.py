"""Refusing appends while the disk does not answer."""

import logging

from apogeemq.store.commit_log import CommitLog
from apogeemq.store.disk_health import DiskHealth
from apogeemq.store.errors import DiskSlow

_logger = logging.getLogger(__name__)

_CAUSE = "disk stall"


class StallWatch:
    """Suspends appends while one operation of the disk has been running longer than a limit. `look` is called by one
    thread, which must not use the disk itself.

    A disk that hangs raises no error: without this a store would go on to take messages into memory that may never
    reach the disk, until its room is used up. Whoever waits for a flush keeps waiting until its own deadline: the flush
    may still succeed. When the disk answers, appends are taken again, unless it answered with an error: that is final.
    Appends pay nothing: they look at the log's refusal anyway.
    """

    def __init__(self, log: CommitLog, health: DiskHealth, *, limit_ms: int) -> None:
        self._log = log
        self._health = health
        self._limit_ms = limit_ms
        self._is_stalled = False

    def look(self) -> None:
        """Compare what is running with the limit."""
        running = self._health.longest_running()
        if running is not None and running.age_s * 1000 > self._limit_ms:
            if not self._is_stalled:
                refusal = DiskSlow(running.operation, running.path, self._limit_ms)
                _logger.error("%s", refusal)
                self._is_stalled = True
                self._log.suspend(_CAUSE, refusal)
        elif self._is_stalled:
            _logger.warning("the disk answers again")
            self._is_stalled = False
            self._log.resume(_CAUSE)
