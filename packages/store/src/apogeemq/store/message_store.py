"""The store: what a broker sees of commit log, consume queues, flush and recovery."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from apogeemq.store.commit_log import AppendResult, BatchEntry
from apogeemq.store.config import StoreConfig
from apogeemq.store.consume_queue import ConsumeQueue
from apogeemq.store.disk_health import DiskHealth
from apogeemq.store.disk_space import DiskState
from apogeemq.store.errors import NO_ROOM, DiskFull, StoreClosed
from apogeemq.store.expiry import RollForward
from apogeemq.store.files import Disk, DiskSpace, RealDisk
from apogeemq.store.flush import FlushCallback
from apogeemq.store.key_lookup import KeyAnswer
from apogeemq.store.measured_disk import MeasuredDisk
from apogeemq.store.message_reader import Boundary, ReadResult, ReadStatus
from apogeemq.store.recovery import RecoveryReport, RedispatchTagsCode, tag_hash
from apogeemq.store.side_by_side import in_threads, one_by_one
from apogeemq.store.store_assembly import StoreParts, lock_directory

__all__ = ["AppendResult", "BatchEntry", "MessageStore", "ReadResult", "ReadStatus", "RecoveryReport"]


class MessageStore:
    """A store directory, open.

    ```
    lock  abort  checkpoint                     who holds it │ there while it is open │ what is on the disk for sure
    commitlog/<20 digits>                       see CommitLog
    consumequeue/<topic>/<queue>/<20 digits>    see ConsumeQueue
    index/<17 digits>                           see IndexFiles
    timerlog/<20 digits>  timerwheel            see TimerStore
    config/*.json                               the owner's, through ConfigFile
    ```
    Appends come from one thread (the event loop) and wait for no disk, except where CommitLog says so. Reads may come
    from any thread. Five threads belong to the store: one flushes the log, one writes consume queues and checkpoint,
    one reserves blocks ahead, one watches the disk's room and deletes what is old, one whether it answers.
    Source: architecture.md §5; Apache DefaultMessageStore 5.x.
    """

    @classmethod
    def open(
        cls,
        directory: Path,
        config: StoreConfig,
        *,
        now_ms: Callable[[], int],
        disk: Disk | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        redispatch_tags_code: RedispatchTagsCode = tag_hash,
        background: bool = True,
    ) -> Self:
        """Open a directory, ours or a Java broker's, made if need be. Blocks while it recovers: call it in a thread.

        Args:
            directory: the root of the store.
            config: see there; file sizes must be those that the store was made with.
            now_ms: wall clock, milliseconds since 1970.
            disk: the operating system's files by default.
            on_progress: called with (bytes scanned, bytes to scan at most) about every MiB; what it raises ends the
                opening, which may be repeated.
            redispatch_tags_code: the tags code of units that recovery builds anew, and of appends without one.
            background: whether the store has threads; without them the owner calls `flush_once`.

        Raises:
            StoreInUse: somebody else has it open.
            RecordCorrupt: synced data is missing or damaged; the log was not touched.
            LayoutInvalid: files are missing or have other sizes.
            DiskFull: no room to rebuild consume queues or to begin a file.
            OSError: the disk.
        """
        config.validate()
        disk = MeasuredDisk(disk or RealDisk(), DiskHealth())
        lock = lock_directory(disk, directory)
        try:
            parts = StoreParts(
                directory,
                config,
                now_ms=now_ms,
                disk=disk,
                lock=lock,
                on_progress=on_progress,
                redispatch_tags_code=redispatch_tags_code,
                sync_all=in_threads if background else one_by_one,
            )
        except OSError as error:
            lock.release()
            if error.errno in NO_ROOM:
                raise DiskFull(directory) from error
            raise
        except BaseException:
            lock.release()
            raise
        if background:
            parts.start_threads()
        return cls(parts)

    def __init__(self, parts: StoreParts) -> None:
        """For `open`."""
        self._parts = parts
        self._log = parts.log
        self._queues = parts.queues
        self._table = parts.queues.table
        self._reader = parts.reader
        self._keys = parts.keys
        self._commit = parts.commit
        self._expiry = parts.expiry
        self._disk_watch = parts.disk_watch
        self._index = parts.index
        self._make_tail_room = parts.tail_room.make
        # Looked at in `append` itself: a call more for each message would cost 0.1 µs.
        self._tail_size_bytes_max = parts.tail_room.queue_size_bytes_max
        self._index_tail_size_bytes_max = parts.tail_room.index_size_bytes_max
        self._is_closed = False
        self.timer = parts.timer
        """Messages that wait for their time; the owner reads their queue and delivers, see TimerStore."""
        self.replication = parts.replication
        """The log as bytes: chunks to send and to take over, and cutting."""
        self.recovery = parts.recovery
        """What opening found."""

    # -- appending -----------------------------------------------------------------------------------------------------

    def append(
        self,
        topic: str,
        queue_id: int,
        flag: int,
        sys_flag: int,
        born_timestamp_ms: int,
        born_host: bytes,
        reconsume_times: int,
        prepared_transaction_offset: int,
        body: bytes | memoryview,
        properties: bytes,
        tags_code: int | None,
    ) -> AppendResult:
        """Store one message. When it returns, the message is in the page cache: it survives this process, not the
        machine; for that see `notify_flushed`.

        Args:
            topic: at most 255 bytes.
            queue_id: from 0.
            flag: the sender's own 32 bits.
            sys_flag: Apache's MessageSysFlag; the bits for IPv6 hosts are set here.
            born_timestamp_ms: the client's clock.
            born_host: the client: 4 or 16 address bytes, then the port as int32.
            reconsume_times: how often it was delivered and failed before.
            prepared_transaction_offset: physical offset of the half message, for a committed one, else 0.
            body: bytes as they came; at most `message_size_bytes_max`.
            properties: key 0x01 value 0x02, repeated; at most 32,767 bytes.
            tags_code: what the consume queue keeps beside it: tag hash or time of delivery; None = what
                `redispatch_tags_code` makes of the record with the store timestamp that it gets.

        Raises (nothing was stored):
            MessageTooLarge, MessageInvalid: the message.
            DiskFull: no room; a later append may succeed.
            DiskAlmostFull: less room than `disk_limits` demand; passes by itself.
            DiskSlow: the disk has not answered for `disk_stall_limit_ms`; passes when it does.
            NotWritable, StoreClosed: the store.
        """
        queue = self._table.get((topic, queue_id)) or self._queues.create(topic, queue_id)
        index = self._index
        if len(queue.tail) >= self._tail_size_bytes_max or (
            index is not None and len(index.tail) >= self._index_tail_size_bytes_max
        ):
            self._make_tail_room(queue)
        return self._log.append(
            queue,
            flag,
            sys_flag,
            born_timestamp_ms,
            born_host,
            reconsume_times,
            prepared_transaction_offset,
            body,
            properties,
            tags_code,
        )

    def append_batch(
        self,
        topic: str,
        queue_id: int,
        sys_flag: int,
        born_timestamp_ms: int,
        born_host: bytes,
        entries: Sequence[BatchEntry | tuple[int, bytes, bytes, int]],
    ) -> list[AppendResult]:
        """Store several messages of one queue, back to back, all of them or none.

        `entries` are (flag, body, properties, tags code). Together they may be as large as one record of the largest
        size. Everything else as in `append`.
        """
        queue = self._table.get((topic, queue_id)) or self._queues.create(topic, queue_id)
        self._make_tail_room(queue)
        return self._log.append_batch(queue, sys_flag, born_timestamp_ms, born_host, entries)

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(
        self,
        topic: str,
        queue_id: int,
        queue_offset: int,
        max_count: int,
        max_bytes: int,
        tag_codes: frozenset[int] | None,
        *,
        cold_allowed: bool = False,
    ) -> ReadResult:
        """Records of one queue from `queue_offset` on, as they lie in the log.

        At most `max_count` of them and `max_bytes`, but one whatever its size. With `tag_codes` only those whose tags
        code is among them, looked for in at most max(800, max_count) units. Bodies are not checked against their CRC.

        Without `cold_allowed` it never waits for the disk: what recently was written is handed out as views of the
        log, older bytes as copies if they happen to be in memory; otherwise the status is COLD, and the caller repeats
        in a thread with `cold_allowed`.

        Raises: RecordCorrupt, StoreClosed.
        """
        return self._reader.read(
            self._find(topic, queue_id), queue_offset, max_count, max_bytes, tag_codes, cold_allowed=cold_allowed
        )

    def record_at(self, physical_offset: int) -> bytes | None:
        """The whole record that begins at a physical offset; None when none does. May wait for the disk."""
        self._check_open()
        return self._log.record_at(physical_offset)

    def written_record_at(self, physical_offset: int) -> bytes | None:
        """The same, also of a record that is not confirmed: what is stored because of it lies behind it, and is cut off
        with it. Nobody else may see it."""
        self._check_open()
        return self._log.record_at(physical_offset, is_confirmed=False)

    def queue_unit(self, topic: str, queue_id: int, queue_offset: int) -> tuple[int, int, int] | None:
        """(physical offset, record size, tags code) of one message; None if there is none. May wait for the disk."""
        queue = self._find(topic, queue_id)
        return None if queue is None else self._reader.unit_at(queue, queue_offset)

    def min_offset(self, topic: str, queue_id: int) -> int:
        """The first queue offset that can be read; 0 for an unknown queue."""
        queue = self._find(topic, queue_id)
        return 0 if queue is None else queue.min_offset

    def max_offset(self, topic: str, queue_id: int) -> int:
        """One past the last queue offset that can be read; 0 for an unknown queue."""
        queue = self._find(topic, queue_id)
        return 0 if queue is None else self._reader.max_offset(queue)

    def offset_by_time(self, topic: str, queue_id: int, timestamp_ms: int, boundary: Boundary) -> int:
        """Queue offset by store time. May wait for the disk: call it in a thread.

        "lower": the first message stored at or after the time; the max offset if there is none.
        "upper": the last one stored at or before it; the min offset if there is none.
        """
        queue = self._find(topic, queue_id)
        return 0 if queue is None else self._reader.offset_by_time(queue, timestamp_ms, boundary)

    def store_time_of(self, topic: str, queue_id: int, queue_offset: int) -> int:
        """When a message was stored, ms; -1 if there is none. May wait for the disk."""
        queue = self._find(topic, queue_id)
        return -1 if queue is None else self._reader.store_time_of(queue, queue_offset)

    def queues(self) -> Iterator[tuple[str, int]]:
        """(topic, queue id) of every queue, as of now."""
        return iter(list(self._table))

    def store_time_range(self, topic: str, queue_id: int) -> tuple[int, int]:
        """Store times of the first and the last readable message, ms; -1 if there is none. May wait for the disk."""
        queue = self._find(topic, queue_id)
        return (-1, -1) if queue is None else self._reader.store_time_range(queue)

    def query_keys(self, topic: str, key: str, max_count: int, begin_ms: int, end_ms: int) -> KeyAnswer:
        """Records of a topic by a word of KEYS or by unique key, stored in [begin_ms, end_ms], newest first.

        At most `max_count`, 64 and 8 MiB. Without an index: none. May wait for the disk: call it in a thread.
        Raises: RecordCorrupt, StoreClosed.
        """
        self._check_open()
        return self._keys.query(topic, key, max_count, begin_ms, end_ms)

    def find_by_unique_key(self, topic: str, unique_key: str) -> bytes | None:
        """The newest record of a topic with this unique key; None if there is none. Otherwise as `query_keys`."""
        self._check_open()
        return self._keys.find_unique(topic, unique_key)

    def _find(self, topic: str, queue_id: int) -> ConsumeQueue | None:
        if self._is_closed:
            raise StoreClosed
        return self._table.get((topic, queue_id))

    # -- the log as a whole --------------------------------------------------------------------------------------------

    @property
    def min_physical_offset(self) -> int:
        """Where the oldest file of the log begins."""
        return self._log.min_offset

    @property
    def written_offset(self) -> int:
        """One past the last byte appended."""
        return self._log.written_offset

    @property
    def store_timestamp_ms(self) -> int:
        """When the last record was stored. Never goes back, whatever the clock does."""
        return self._log.store_timestamp_ms

    @property
    def flushed_offset(self) -> int:
        """Everything below is synced."""
        return self._commit.flushed_offset

    @property
    def confirm_offset(self) -> int:
        """No read sees anything at or beyond it. The written offset, unless somebody set it lower.

        Setting: see CommitLog.confirm. It never goes back; None = everything.
        """
        return self._log.confirm_offset

    @confirm_offset.setter
    def confirm_offset(self, physical_offset: int | None) -> None:
        self._log.confirm(physical_offset)

    @property
    def not_writable_reason(self) -> str | None:
        """Why appends are refused; None while they are not. A full disk does not count: it may pass."""
        return None if self._log.refusal is None else str(self._log.refusal)

    @property
    def is_writable(self) -> bool:
        """Whether appends are taken."""
        return self._log.refusal is None

    @property
    def disk_state(self) -> DiskState:
        """Whether the disk is too full by `StoreConfig.disk_limits`."""
        return self._disk_watch.state

    @property
    def disk_space(self) -> DiskSpace:
        """The disk's room when it was last looked at."""
        return self._disk_watch.space

    @property
    def disk_health(self) -> DiskHealth:
        """How long the disk takes, what it refuses, and what it has not ended yet."""
        return self._parts.disk.health

    def disk_limits_ignored(self) -> AbstractContextManager[None]:
        """Within it appends are taken although the disk is nearly full: for work that leads to free space.

        For the thread that appends, and only around calls that do not wait.
        """
        return self._disk_watch.exempt()

    # -- expiry --------------------------------------------------------------------------------------------------------

    def add_roll_forward(self, hook: RollForward) -> None:
        """Have `hook` asked before files of the log go. To be called before `begin_expiry`."""
        self._expiry.hooks.append(hook)

    def begin_expiry(self) -> None:
        """From now on delete by `StoreConfig.retention`: all hooks are there."""
        self._expiry.is_begun = True

    def delete_expired_files(self) -> None:
        """Have expired files go soon, whatever the hour. What is not expired stays."""
        self._expiry.ask()

    @property
    def deleted_files(self) -> dict[str, int]:
        """Files of the log deleted since opening, by reason: age, size, forced."""
        return {reason.name.lower(): count for reason, count in self._expiry.removed.items()}

    @property
    def oldest_store_timestamp_ms(self) -> int:
        """Of the log's first record, as seen by the thread that cleans about a second ago; 0 while there is none."""
        return self._expiry.oldest_ms

    # -- flushing ------------------------------------------------------------------------------------------------------

    def notify_flushed(self, offset: int, callback: FlushCallback) -> None:
        """Call back with None once the log is synced up to `offset`, or with what made that impossible.

        All who wait share the next sync. The callback runs in the flush thread, or at once when the answer is known:
        it must be quick and must not raise.
        Raises: TooManyWaiters.
        """
        self._commit.notify(offset, callback)

    def flush(self) -> None:
        """Sync the log as it is now, waiting for the disk. Raises: NotWritable."""
        self._check_open()
        self._commit.flush()

    def flush_once(self) -> None:
        """One round of the threads, for owners without them: sync, call back, write what is due by the clock."""
        self._parts.run_once()

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Flush everything, note that the store was closed in good order, and let go of the directory.

        Whoever still waits in `notify_flushed` is answered. A second call does nothing.
        Raises: NotWritable, OSError when something could not be flushed (the next opening recovers); StoreError when
        the disk hangs (the directory stays locked until the process ends).
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreClosed
