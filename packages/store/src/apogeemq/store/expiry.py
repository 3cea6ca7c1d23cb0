"""Deleting what is old or in the way: files of the commit log, then what speaks of them.

A file goes in steps that can be cut short anywhere:

1. All roll-forward hooks say that nothing live is left in it. What they stored again is synced.
2. The consume queues' units of its records are synced: recovery could not build them any more.
3. The log begins with the next file, for every reader; then the file is removed, and its name's removal synced.
4. Consume queues follow: each begins with its first record that is still there, and loses the files behind which there
   is another with such units. Then the others that speak of the log (`Derived`).

Between 3 and 4 a queue still names records that are gone: readers skip those, whether before or after a crash.

A hook that is not done keeps the file, however full the disk is: a live message is never thrown away to make room. What
bounds the damage is the disk's limit, which refuses new messages, while the hooks may still append.
Source: architecture.md §5; Apache DefaultMessageStore.CleanCommitLogService 5.x.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Protocol

from apogeemq.store.commit_log import CommitLog
from apogeemq.store.consume_queue import ConsumeQueues
from apogeemq.store.disk_watch import DiskWatch
from apogeemq.store.errors import NotWritable, StoreClosed, StoreError
from apogeemq.store.flush import GroupCommit
from apogeemq.store.queue_flush import QueueFlush
from apogeemq.store.retention import LogFile, Reason, Removal, RetentionConfig, choose_removals, must_make_room
from apogeemq.store.timer_store import TimerStore

_logger = logging.getLogger(__name__)

RollForward = Callable[[int], bool]
"""Called in the store's thread with a physical offset below which everything is to go. True: nothing live is there.
False: it is being worked at; the files stay and the question comes again. It must not wait."""

HOOK_PATIENCE_MS = 60_000
"""How long hooks may take before the log tells of it."""


class Derived(Protocol):
    """Something built from the log's records that gets rid of what is older than the log itself."""

    def delete_before(self, physical_offset: int) -> int:
        """Remove files that speak only of records below an offset; gives how many."""


def no_timer_below(timer: TimerStore) -> RollForward:
    """A hook that keeps files in which a message waits for its time, until the timer is done with it."""
    return lambda physical_offset: next(timer.live_before(physical_offset), None) is None


def local_hour(now_ms: int) -> int:
    """The hour of the machine's time zone, 0 to 23."""
    return time.localtime(now_ms / 1000).tm_hour


class Expiry:
    """What the thread that cleans does about old files, callable without the thread.

    A round begins every `round_interval_ms` and chooses files; each call of `run_once` removes one of them, so that the
    disk has time for others between two.
    """

    def __init__(
        self,
        log: CommitLog,
        commit: GroupCommit,
        queues: ConsumeQueues,
        queue_flush: QueueFlush,
        watch: DiskWatch,
        config: RetentionConfig | None,
        *,
        hooks: Sequence[RollForward],
        derived: Sequence[Derived],
        alone: Lock,
        now_ms: Callable[[], int],
        local_hour: Callable[[int], int] = local_hour,
    ) -> None:
        """`alone` is held by whoever changes which files there are: a look in vain is better than waiting for it."""
        self.hooks = list(hooks)
        self.is_begun = False
        """Nothing goes before the owner says so: all hooks have to be there first."""
        self.removed: Counter[Reason] = Counter()
        """Files of the log since opening."""
        self.oldest_ms = 0
        """Store timestamp of the log's first record, as last seen; 0 while there is none."""
        self._log = log
        self._commit = commit
        self._queues = queues
        self._queue_flush = queue_flush
        self._watch = watch
        self._config = config
        self._derived = derived
        self._alone = alone
        self._now_ms = now_ms
        self._local_hour = local_hour
        self._is_asked = False
        self._round_ms: int | None = None
        self._plan: deque[Removal] = deque()
        self._ended_ms: dict[int, int] = {}
        self._followed_offset = log.min_offset
        self._oldest_seen_in: int | None = None
        self._waits = (-1, 0)
        """The file that waits for hooks, and since when, ms."""
        self._told_of: object = None

    def ask(self) -> None:
        """Have expired files go from the next call of `run_once` on, whatever the hour, until none is left."""
        self._is_asked = True
        self._round_ms = None

    def forget(self, _physical_offset: int) -> None:
        """The log was cut: what was found out about its files may be wrong now."""
        self._plan.clear()
        self._ended_ms.clear()
        self._round_ms = None
        self._oldest_seen_in = None

    def run_once(self) -> None:
        """Begin a round if one is due, then remove a file; or else clean up behind those that went."""
        if not self._alone.acquire(blocking=False):
            return
        try:
            self._run()
        finally:
            self._alone.release()

    def _run(self) -> None:
        try:
            self._see_oldest()
            if self._config is None or not self.is_begun or isinstance(self._log.refusal, NotWritable | StoreClosed):
                return
            self._choose(self._config)
            self._keep_what_may_stay(self._config)
            if not (self._plan and self._remove(self._plan[0])):
                self._follow()
        except NotWritable as refusal:
            self._log.refuse(refusal)
        except (OSError, StoreError) as error:
            self._tell_once(str(error), "deleting old files failed, trying again: %s", error)

    def _see_oldest(self) -> None:
        min_offset = self._log.min_offset
        if self._oldest_seen_in != min_offset and (head := self._log.head_at(min_offset)) is not None:
            self.oldest_ms = head.store_timestamp_ms
            self._oldest_seen_in = min_offset

    # -- choosing ------------------------------------------------------------------------------------------------------

    def _choose(self, config: RetentionConfig) -> None:
        now_ms = self._now_ms()
        # The absolute difference: a clock that was set back must not stop the work.
        if self._round_ms is not None and abs(now_ms - self._round_ms) < config.round_interval_ms:
            return
        self._round_ms = now_ms
        files = self._oldest_files(config.delete_file_batch_max)
        size_bytes = self._log.files.file_size_bytes
        self._plan = deque(
            choose_removals(
                config,
                files,
                rest_size_bytes=(len(self._log.files.starts) - len(files)) * size_bytes,
                now_ms=now_ms,
                local_hour=self._local_hour(now_ms),
                space=self._watch.space,
                by_hand=self._is_asked,
            )
        )
        if not self._plan:
            self._is_asked = False

    def _keep_what_may_stay(self, config: RetentionConfig) -> None:
        """What is to make room may have waited for its hooks, and there is room again."""
        is_forced = bool(self._plan) and self._plan[0].reason is Reason.FORCED
        if is_forced and not must_make_room(config, self._watch.space):
            self._plan.clear()

    def _oldest_files(self, count_max: int) -> list[LogFile]:
        """The first files of the log that can go at all: those with a record behind them."""
        files = []
        for start in self._log.files.starts[:count_max]:
            ended_ms = self._ended(start)
            if ended_ms is None:
                break
            files.append(LogFile(start, self._log.files.file_size_bytes, ended_ms))
        return files

    def _ended(self, start: int) -> int | None:
        """When the file that begins there was left for the next one; None when it was not, or is not confirmed yet."""
        if start not in self._ended_ms:
            for next_start in self._log.files.starts:
                if next_start > start and (head := self._log.head_at(next_start)) is not None:
                    self._ended_ms[start] = head.store_timestamp_ms
                    break
        return self._ended_ms.get(start)

    # -- removing ------------------------------------------------------------------------------------------------------

    def _remove(self, removal: Removal) -> bool:
        """Let a file go; False when it has to stay for now."""
        file = removal.file
        end = file.start + file.size_bytes
        answers = [hook(end) for hook in self.hooks]  # all are asked, so that they work at the same time
        if not all(answers):
            self._wait(file)
            return False
        self._commit.flush()
        if not self._queue_flush.sync_through(end):
            self._tell_once(file.start, "the log's file %020d stays: consume queues cannot be synced", file.start)
            return False
        self._log.files.remove_first()
        self._sync_names()
        self._plan.popleft()
        self._ended_ms.pop(file.start, None)
        self.removed[removal.reason] += 1
        _logger.info("deleted the log's file %020d: %s", file.start, removal.reason.value)
        return True

    def _wait(self, file: LogFile) -> None:
        """Tell, once, when a file waits for hooks that take unusually long."""
        now_ms = self._now_ms()
        if self._waits[0] != file.start:
            self._waits = (file.start, now_ms)
        elif now_ms - self._waits[1] >= HOOK_PATIENCE_MS:
            self._tell_once(
                file.start, "the log's file %020d can't go: something live in it is not stored anew yet", file.start
            )

    def _sync_names(self) -> None:
        try:
            self._log.files.sync_names()
        except OSError as error:
            refusal = NotWritable(f"syncing the commit log's directory failed: {error}")
            _logger.critical("%s", refusal)
            self._log.refuse(refusal)
            raise refusal from error

    def _follow(self) -> None:
        """Let queues, and what else speaks of the log, begin where it begins now."""
        min_offset = self._log.min_offset
        if min_offset == self._followed_offset:
            return
        for queue in list(self._queues.table.values()):
            self._queues.follow(queue, min_offset)
        for derived in self._derived:
            derived.delete_before(min_offset)
        self._followed_offset = min_offset

    def _tell_once(self, what: object, message: str, *arguments: object) -> None:
        if what != self._told_of:
            _logger.warning(message, *arguments)
        self._told_of = what
