"""Looking at the disk again and again, and refusing appends while it is too full."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from apogeemq.store.commit_log import CommitLog
from apogeemq.store.disk_space import DiskLimits, DiskState, disk_state, refusal
from apogeemq.store.files import Disk, DiskSpace

_logger = logging.getLogger(__name__)

_CAUSE = "disk space"


class DiskWatch:
    """Keeps the state of the store's disk, and the log's refusal in step with it. `look` is called by one thread.

    Appends pay nothing: they look at the log's refusal anyway.
    """

    def __init__(self, log: CommitLog, disk: Disk, directory: Path, limits: DiskLimits) -> None:
        """`directory` exists; the file system that holds it is meant."""
        self.state = DiskState.OK
        self.space = DiskSpace(0, 0)
        """As last seen; zeros before the first look."""
        self._log = log
        self._disk = disk
        self._directory = directory
        self._limits = limits
        self._lock = Lock()
        self._exemptions = 0
        self._is_blind = False

    def look(self) -> None:
        """Ask the disk, and act when the state changes. What cannot be asked stays as it was."""
        try:
            space = self._disk.space(self._directory)
        except OSError as error:
            if not self._is_blind:
                _logger.warning("cannot tell how full the disk of %s is: %s", self._directory, error)
            self._is_blind = True
            return
        self._is_blind = False
        self.space = space
        before, self.state = self.state, disk_state(self._limits, self.state, space)
        if self.state is not before:
            self._tell(before)
            with self._lock:
                self._apply()

    @contextmanager
    def exempt(self) -> Iterator[None]:
        """Let the caller's appends through while the disk is nearly full, for work that leads to free space.

        Only for the thread that appends, and only around calls that do not wait: every other append would get through
        as well. A disk without any room is DiskFull all the same.
        """
        with self._lock:
            self._exemptions += 1
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._exemptions -= 1
                self._apply()

    def _apply(self) -> None:
        if self.state is DiskState.REFUSE and not self._exemptions:
            self._log.suspend(_CAUSE, refusal(self._limits, self._directory, self.space))
        else:
            self._log.resume(_CAUSE)

    def _tell(self, before: DiskState) -> None:
        space = self.space
        if self.state is DiskState.REFUSE:
            _logger.error("%s", refusal(self._limits, self._directory, space))
        elif self.state is DiskState.WARN and before is DiskState.OK:
            _logger.warning(
                "the disk of %s is %.1f %% full with %d MiB free: more, and the store takes no messages",
                self._directory,
                space.used_ratio * 100,
                space.free_bytes >> 20,
            )
        else:
            _logger.info(
                "the disk of %s is %.1f %% full with %d MiB free: the store takes messages",
                self._directory,
                space.used_ratio * 100,
                space.free_bytes >> 20,
            )
