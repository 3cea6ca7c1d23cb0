"""The durable timer: messages wait here for their millisecond, in Java's files."""

import logging
import struct
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Self

from apogeemq.store.errors import NO_ROOM, DiskFull, MessageInvalid, NotWritable, StoreError, TooManyTimers
from apogeemq.store.files import Disk
from apogeemq.store.timer_checkpoint import TimerCheckpointFile
from apogeemq.store.timer_config import TimerConfig
from apogeemq.store.timer_log import TimerLog
from apogeemq.store.timer_scan import TimerScan
from apogeemq.store.timer_unit import MAGIC_SETTLED, UNIT_SIZE_BYTES, TimerEntry, decode_unit, encode_unit, key_hash_of

_logger = logging.getLogger(__name__)

TIMER_QUEUE = ("rmq_sys_wheel_timer", 0)
"""Topic and queue id of the records that wait."""

COPIES_UNSAVED_BYTES_MAX = 16 << 20
"""So much of the log a start may have to search once more: some 10 ms."""


class TimerStore:
    """Pending timers of one store directory.

    ```
    timerlog/<20 digits>    one unit a timer, see TimerLog and TimerUnit    the truth, for us and for Java
    config/timercheck       how far all has come, see TimerCheckpoint
    timerwheel              see TimerWheel                                  for Java, written by `close` only
    ```
    A timer is a record of the queue rmq_sys_wheel_timer 0. The owner reads that queue in its order and calls `add` or
    `recall` for each record, then tells with `queue_offset` how far it has come. It asks `due` for what has come,
    appends the copies to their topics, and calls `commit` when they are flushed, and confirmed where there are
    replicas: a timer that was committed does not come again, one that was not does. So:

    - after a crash of the process nothing that was committed is due again; after a power loss only what was committed
      since the last `sync` may be;
    - reading a stretch of the queue once more adds nothing: records come in order, so known ones are recognised;
    - nothing is due before its millisecond, by the clock that `due` is given, whichever way that was set.

    Any thread may call; calls are short but may wait for the disk. After an I/O error everything but reading raises
    NotWritable until the store is opened again. Nothing is written to disks of stores that never saw a timer.
    Source: architecture.md §5; broker_behaviour.md §3; ADR 0016.
    """

    @classmethod
    def open(
        cls, disk: Disk, directory: Path, config: TimerConfig, *, log_start: int, log_end: int, queue_end: int
    ) -> Self:
        """Open the timer of a store directory, whose log was recovered before.

        Args:
            disk: where the files are.
            directory: the root of the store.
            config: see there.
            log_start, log_end: physical offsets between which the commit log has records.
            queue_end: one past the last queue offset of rmq_sys_wheel_timer 0.

        Errors: LayoutInvalid when a synced unit is damaged or missing; OSError.
        """
        config.validate()
        return cls(disk, directory, config, log_start=log_start, log_end=log_end, queue_end=queue_end)

    def __init__(
        self, disk: Disk, directory: Path, config: TimerConfig, *, log_start: int, log_end: int, queue_end: int
    ) -> None:
        """For `open`."""
        self._disk = disk
        self._config = config
        self._wheel_path = directory / "timerwheel"
        self._checkpoint_file = TimerCheckpointFile(disk, directory / "config" / "timercheck")
        self._checkpoint, self._is_ours = self._checkpoint_file.load()
        self._log = TimerLog(disk, directory / "timerlog", config.file_size_bytes, open_files_max=config.open_files_max)
        self._log_start = log_start
        self._handed_out: dict[int, int] = {}
        self._refusal: StoreError | None = None
        self._lock = Lock()
        self._sync_lock = Lock()
        """Held by whoever saves the checkpoint; taken before `_lock`."""
        self._is_dirty = False
        self.pending_count = 0
        """Timers not yet done with, those that are handed out among them."""
        self._last_physical_offset = -1
        self._queue_offset = 0
        self._copies_offset = 0
        if not self._is_ours:
            self._checkpoint.imported_end = self._log.starts.stop
            self._checkpoint.imported_read_time_ms = self._checkpoint.read_time_ms
            # Java's copies name no record: what it delivered, its own progress says.
            self._checkpoint.copies_offset = log_end if self._log.starts else 0
        self._load(log_end, queue_end)
        if self._log.starts:
            self._make_durable()

    # -- timers come ---------------------------------------------------------------------------------------------------

    def check_time(self, deliver_ms: int, now_ms: int) -> None:
        """For the door: whether a message may wait until then. Errors: MessageInvalid, TooManyTimers."""
        if deliver_ms > now_ms + self._config.horizon_ms:
            raise MessageInvalid(
                f"delivery is {deliver_ms - now_ms} ms away, but timers wait for at most {self._config.horizon_ms} ms"
            )
        self._check_room()

    def add(
        self,
        deliver_ms: int,
        physical_offset: int,
        size_bytes: int,
        *,
        topic_hash: int,
        unique_key: bytes,
        store_timestamp_ms: int,
    ) -> bool:
        """A record of the timer queue waits for its time; False when it was known already, and nothing is to be done.

        Args:
            deliver_ms: the first millisecond at which it may be delivered; one in the past is due at once.
            physical_offset, size_bytes: the record, which must not lie before one that was added earlier.
            topic_hash: Java's String.hashCode of the topic that it goes to.
            unique_key: of the message, or empty.
            store_timestamp_ms: of the record.

        Errors, with nothing changed: TooManyTimers, DiskFull, NotWritable, MessageInvalid when a number does not fit.
        """
        if not self._is_ours:
            self._mark_as_ours()
        with self._lock:
            self._check_usable()
            if physical_offset <= self._last_physical_offset:
                return False
            self._check_room()
            try:
                unit = encode_unit(
                    deliver_ms,
                    physical_offset,
                    size_bytes,
                    topic_hash,
                    key_hash_of(unique_key),
                    store_timestamp_ms=store_timestamp_ms,
                    previous_position=self._wheel.last_position(deliver_ms),
                )
            except struct.error as error:
                raise MessageInvalid(f"no timer can be made of that: {error}") from error
            try:
                position = self._log.append(unit)
            except OSError as error:
                raise self._refuse_write(error) from error
            self._last_physical_offset = physical_offset
            self._wheel.link(deliver_ms, position)
            self._index.put(deliver_ms, position)
            file_start = self._log.start_of(position)
            self._pending_by_file[file_start] = self._pending_by_file.get(file_start, 0) + 1
            self.pending_count += 1
            self._is_dirty = True
            return True

    def recall(self, deliver_ms: int, unique_key: bytes, is_it: Callable[[TimerEntry], bool]) -> bool:
        """Take back the timer of this slot whose message has this key; False when none is waiting.

        That may be several timers: a crash while a message was stored anew leaves both copies waiting. `is_it` looks at
        the record of each that may be one: keys are kept as hashes only, and those that Java wrote not at all. A timer
        that `due` has handed out is not waiting any more. Costs a look at each timer of the slot, about 2 µs.
        Errors: DiskFull, NotWritable; whatever `is_it` raises.
        """
        key_hash = key_hash_of(unique_key)
        with self._lock:
            self._check_usable()
            precision_ms = self._config.precision_ms
            slot_ms = (deliver_ms - 1) // precision_ms * precision_ms
            positions = self._index.positions_between(slot_ms + 1, slot_ms + precision_ms)
        recalled: list[TimerEntry] = []
        for position in positions:
            if position < self._log.start:  # settled, and its file gone
                continue
            unit = self._log.unit_at(position)
            if unit.is_ours and unit.key_hash != key_hash:
                continue
            entry = unit.entry(position, precision_ms)
            if unit.magic != MAGIC_SETTLED and is_it(entry):
                recalled.append(entry)
        return self.commit(recalled) > 0

    def settle_record(self, physical_offset: int, *, topic_hash: int, unique_key: bytes) -> bool:
        """The timer whose record begins there is done with: its copy was seen in the log. False if it was not pending.

        Topic and key are the copy's. Where they are not the timer's too, nothing is settled: somebody sent a message on
        that had waited elsewhere. Units of Java's tell no key. Errors: DiskFull, NotWritable.
        """
        with self._lock:
            self._check_usable()
            position = self._log.find(physical_offset)
            if position == self._log.end:
                return False
            unit = self._log.unit_at(position)
            if unit.physical_offset != physical_offset or not self._scan.is_pending(unit, position):
                return False
            if unit.topic_hash != topic_hash or (unit.is_ours and unit.key_hash != key_hash_of(unique_key)):
                return False
        return self.commit([unit.entry(position, self._config.precision_ms)]) > 0

    @property
    def last_physical_offset(self) -> int:
        """Where the record of the newest timer begins, pending or not; -1 when there never was one."""
        return self._last_physical_offset

    @property
    def queue_offset(self) -> int:
        """Up to where the timer queue was read. After an opening: where to go on."""
        return self._queue_offset

    @queue_offset.setter
    def queue_offset(self, queue_offset: int) -> None:
        with self._lock:
            self._queue_offset = queue_offset
            self._is_dirty = True

    @property
    def copies_offset(self) -> int:
        """Timers whose copies lie below this physical offset of the log are settled.

        It moves with the log, timers or none: by itself it is saved only every COPIES_UNSAVED_BYTES_MAX.
        """
        return self._copies_offset

    @copies_offset.setter
    def copies_offset(self, physical_offset: int) -> None:
        with self._lock:
            self._copies_offset = physical_offset
            is_far_ahead = physical_offset - self._checkpoint.copies_offset >= COPIES_UNSAVED_BYTES_MAX
            self._is_dirty = self._is_dirty or (self._is_ours and is_far_ahead)

    # -- timers go -----------------------------------------------------------------------------------------------------

    def due(self, now_ms: int, max_count: int) -> list[TimerEntry]:
        """At most `max_count` timers whose time has come, earliest first; they are with the caller from now on.

        Every one must be given to `commit` or to `release`. While `handed_out_max` are out, there are none.
        """
        with self._lock:
            found: list[TimerEntry] = []
            while (missing := min(max_count, self._config.handed_out_max - len(self._handed_out)) - len(found)) > 0:
                pairs = self._index.pop_due(now_ms, missing)
                if not pairs:
                    break
                try:
                    found += self._entries(pairs)
                except OSError:
                    for deliver_ms, position in pairs:
                        self._index.put(deliver_ms, position)
                    self._put_back(found)
                    raise
            self._handed_out.update((entry.position, entry.deliver_ms) for entry in found)
            return found

    def commit(self, entries: Collection[TimerEntry]) -> int:
        """These are done with: delivered and flushed, recalled, or re-appended; gives how many had not been so before.

        Survives the process at once, and the machine after the next `sync`. Also for timers that `due` has not handed
        out. Errors: NotWritable, DiskFull; some may be noted then, and the call may be repeated.
        """
        settled = 0
        with self._lock:
            self._check_usable()
            for entry in entries:
                position = entry.position
                try:
                    is_news = self._log.start <= position < self._log.end and self._log.settle(position)
                except OSError as error:
                    raise self._refuse_write(error) from error
                self._handed_out.pop(position, None)
                if is_news:
                    settled += 1
                    self._pending_by_file[self._log.start_of(position)] -= 1
                    self.pending_count -= 1
                    self._is_dirty = True
        return settled

    def release(self, entries: Collection[TimerEntry]) -> None:
        """These could not be delivered: they are due once more."""
        with self._lock:
            self._put_back([entry for entry in entries if self._handed_out.pop(entry.position, None) is not None])

    def next_due_ms(self) -> int | None:
        """When to call `due` again: not later than the next timer, at most 65 s too early; None when none waits."""
        with self._lock:
            return self._index.next_ms()

    # -- looking -------------------------------------------------------------------------------------------------------

    def count_before(self, deliver_ms: int) -> int:
        """About how many wait for a time before that: recalled ones count until it comes."""
        with self._lock:
            return self._index.count_before(deliver_ms)

    def is_handed_out(self, entry: TimerEntry) -> bool:
        """Whether it is with the owner."""
        return entry.position in self._handed_out

    def pending_deletions(self) -> list[TimerEntry]:
        """Java's marks of recalled messages that it had not come to.

        The owner reads the key in each record, calls `recall` and then `commit` with the mark.
        """
        with self._lock:
            return self._scan.deletions[:]

    def live_before(self, physical_offset: int) -> Iterator[TimerEntry]:
        """Timers not yet done with whose record begins before that, for whoever wants to delete it.

        Those that are handed out come too: `is_handed_out` tells. Reads the timer log from its beginning, so call it
        in a thread. What comes or goes meanwhile may be there or not.
        """
        for position, data in self._log.pieces(self._log.end):
            for at in range(0, len(data), UNIT_SIZE_BYTES):
                unit = decode_unit(data, at)
                if unit.physical_offset >= physical_offset:
                    return
                if self._scan.is_pending(unit, position + at):
                    yield unit.entry(position + at, self._config.precision_ms)

    # -- files ---------------------------------------------------------------------------------------------------------

    def delete_before(self, physical_offset: int) -> int:
        """The commit log begins there now: delete the first files in which nothing is pending, and give how many.

        Timers that nobody re-appended in time lost their records; they are settled, and told of.
        Reads like `live_before`. Errors: NotWritable, DiskFull.
        """
        lost = sum(self.commit([entry]) for entry in self.live_before(physical_offset))
        if lost:
            _logger.error(
                "%d timers were pending whose records were deleted with the log before %d", lost, physical_offset
            )
        deleted = 0
        with self._lock:
            self._check_usable()
            while len(self._log.starts) > 1 and not self._pending_by_file.get(self._log.start, 0):
                try:
                    self._pending_by_file.pop(self._log.start, None)
                    self._log.remove_first_file()
                except OSError as error:
                    raise self._refuse(error) from error
                deleted += 1
                self._is_dirty = True
        return deleted

    def truncate(self, physical_offset: int, queue_end: int) -> None:
        """Forget the timers whose records begin at or beyond an offset, durably, before others take their place there.

        Call it before the commit log is cut, or before anything is appended to the cut log: opening does the same by
        where the log ends. `queue_end` is one past the last record of the timer queue that stays.
        Errors: NotWritable.
        """
        with self._sync_lock, self._lock:
            self._check_usable()
            cut = self._log.find(physical_offset)
            checkpoint = self._checkpoint
            checkpoint.flushed_position = min(checkpoint.flushed_position, cut)
            checkpoint.imported_end = min(checkpoint.imported_end, cut)
            checkpoint.queue_offset = checkpoint.master_queue_offset = min(checkpoint.queue_offset, queue_end)
            checkpoint.copies_offset = min(checkpoint.copies_offset, physical_offset)
            copies_offset = min(self._copies_offset, physical_offset)
            try:
                if self._is_ours:
                    # First: units beyond the cut must not be missed when a crash comes in between.
                    self._checkpoint_file.save(checkpoint)
                self._log.cut(cut)
                queue_offset = min(self._queue_offset, queue_end)
                self._load(physical_offset, queue_end)
                self._queue_offset = queue_offset
                self._copies_offset = copies_offset
            except OSError as error:
                raise self._refuse(error) from error
            self._is_dirty = True

    def sync(self, now_ms: int) -> None:
        """Make everything so far survive the machine. Does nothing when nothing happened. Errors: NotWritable."""
        with self._sync_lock:
            with self._lock:
                self._check_usable()
                if not self._is_dirty:
                    return
                self._is_dirty = False
                unsynced = self._log.take_unsynced()
                end, queue_offset, copies_offset = self._log.end, self._queue_offset, self._copies_offset
                read_time_ms = self._read_time_ms(now_ms)
            try:
                self._log.sync(unsynced)
                checkpoint = self._checkpoint
                checkpoint.flushed_position = end
                checkpoint.queue_offset = checkpoint.master_queue_offset = queue_offset
                checkpoint.read_time_ms = read_time_ms
                checkpoint.copies_offset = copies_offset
                self._checkpoint_file.save(checkpoint)
                self._is_ours = True
            except OSError as error:
                raise self._refuse(error) from error

    def close(self, now_ms: int) -> None:
        """Sync, write the wheel for Java, let go of the files. The owner's timers must be back or committed.

        Errors: NotWritable.
        """
        try:
            if self._log.starts:
                self._is_dirty = True
                self.sync(now_ms)
                handed_out = ((deliver_ms, position) for position, deliver_ms in self._handed_out.items())
                pairs = chain(self._index, handed_out)
                try:
                    self._wheel.save(
                        self._disk, self._wheel_path, (pair for pair in pairs if pair[1] >= self._log.start)
                    )
                except OSError as error:
                    raise self._refuse(error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the files as they are."""
        self._log.close()
        self._checkpoint_file.close()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _load(self, log_end: int, queue_end: int) -> None:
        """Find out what is pending. The lock is held, or nobody else knows the object yet."""
        scan = TimerScan(
            self._log,
            self._checkpoint,
            trusts_unchecked=not self._is_ours and bool(self._log.starts),
            precision_ms=self._config.precision_ms,
            log_start=self._log_start,
        )
        scan.run(log_end, frozenset(self._handed_out))
        for position in [position for position in self._handed_out if position >= scan.end]:
            del self._handed_out[position]
        self._scan = scan
        self._index, self._wheel, self._pending_by_file = scan.index, scan.wheel, scan.pending_by_file
        self.pending_count = sum(scan.pending_by_file.values())
        last = self._log.last_unit()
        self._last_physical_offset = -1 if last is None else last.physical_offset
        self._queue_offset = min(self._checkpoint.queue_offset, queue_end)
        self._copies_offset = min(self._checkpoint.copies_offset, log_end)

    def _make_durable(self) -> None:
        """After an opening: cut what follows the end, and believe no page of the process before."""
        log, checkpoint = self._log, self._checkpoint
        flushed = min(checkpoint.flushed_position, log.end)
        checkpoint.flushed_position = flushed
        checkpoint.imported_end = min(checkpoint.imported_end, log.end)
        checkpoint.queue_offset = checkpoint.master_queue_offset = self._queue_offset
        checkpoint.copies_offset = self._copies_offset
        if self._is_ours:
            # Before the cut, see truncate; and though it may say this already: perhaps its sync failed then.
            self._checkpoint_file.save(checkpoint)
        log.cut(log.end)
        log.distrust(flushed)
        log.sync(log.take_unsynced())
        if not self._is_ours or flushed < log.end:
            checkpoint.flushed_position = log.end
            self._checkpoint_file.save(checkpoint)
            self._is_ours = True

    def _mark_as_ours(self) -> None:
        """The first timer of a directory: from here on units without a check are not believed."""
        with self._sync_lock:
            self._check_usable()
            try:
                self._checkpoint_file.save(self._checkpoint)
            except OSError as error:
                raise self._refuse(error) from error
            self._is_ours = True

    def _entries(self, pairs: list[tuple[int, int]]) -> list[TimerEntry]:
        """Those of the pairs that nobody settled meanwhile; where files went, all were."""
        precision_ms, start = self._config.precision_ms, self._log.start
        units = [(self._log.unit_at(position), position) for _, position in pairs if position >= start]
        return [unit.entry(position, precision_ms) for unit, position in units if unit.magic != MAGIC_SETTLED]

    def _put_back(self, entries: Collection[TimerEntry]) -> None:
        for entry in entries:
            self._index.put(entry.deliver_ms, entry.position)

    def _read_time_ms(self, now_ms: int) -> int:
        """The first slot that Java would have to look at."""
        times = [now_ms + 1, *self._handed_out.values(), *(entry.deliver_ms for entry in self._scan.deletions)]
        first_ms = self._index.next_ms()
        if first_ms is not None:
            times.append(first_ms)
        precision_ms = self._config.precision_ms
        return max(0, (min(times) - 1) // precision_ms * precision_ms)

    def _check_room(self) -> None:
        if self.pending_count >= self._config.pending_max:
            raise TooManyTimers(self._config.pending_max)

    def _check_usable(self) -> None:
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)

    def _refuse_write(self, error: OSError) -> StoreError:
        """A full disk may pass: what was not written counts as never tried."""
        return DiskFull(self._log.path_of(self._log.end)) if error.errno in NO_ROOM else self._refuse(error)

    def _refuse(self, error: OSError) -> StoreError:
        """It is not known any more what is on the disk."""
        self._refusal = NotWritable(f"the timer's files: {error}")
        _logger.critical("%s", self._refusal)
        return self._refusal
