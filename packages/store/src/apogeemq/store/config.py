"""What a store can be told."""

from enum import StrEnum

import msgspec
from apogeemq.store.disk_space import DiskLimits
from apogeemq.store.retention import RetentionConfig
from apogeemq.store.timer_config import TimerConfig

RECORD_OVERHEAD_SIZE_BYTES_MAX = 64 << 10
"""A record may be this much larger than the largest body. Head, topic and properties together never are."""

_BLOCK_SIZE_BYTES = 4096
_INT32_MAX = 0x7FFFFFFF


class FlushMode(StrEnum):
    """Whether senders wait until their message is synced. The values are Apache's `flushDiskType`."""

    ASYNC = "ASYNC_FLUSH"
    SYNC = "SYNC_FLUSH"


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one store; all are per process, but file sizes must stay what they were when the store was made.

    Names in brackets are Apache's.
    """

    store_host: bytes
    """Written into every record, for clients that dial it: 4 or 16 address bytes and the port as int32."""
    flush_mode: FlushMode = FlushMode.ASYNC
    """[flushDiskType] The store syncs whoever waits in `notify_flushed`; the broker reads here whether to wait."""
    flush_interval_ms: int = 500
    """[flushIntervalCommitLog] How often the log is synced and consume-queue tails are written without being asked."""
    consume_queue_sync_interval_ms: int = 60_000
    """[flushConsumeQueueThoroughInterval] How often consume queues are synced. Recovery re-reads about this much."""
    commit_log_file_size_bytes: int = 1 << 30
    """[mappedFileSizeCommitLog] A multiple of 4096."""
    consume_queue_file_units: int = 300_000
    """[mappedFileSizeConsumeQueue / 20] Messages of one queue in one file."""
    message_size_bytes_max: int = 4 << 20
    """[maxMessageSize] Largest body. A record may be 64 KiB larger."""
    reserve_ahead_bytes: int = 64 << 20
    """Blocks reserved ahead of the writer, so that a full disk is an error instead of a killed process."""
    hot_read_window_bytes: int = 256 << 20
    """Reads this close to the end of the log come from the map; older ones are copied, without waiting if cached."""
    open_files_max: int = 512
    """Open consume-queue files, and as many of the log's older files."""
    consume_queue_tail_size_bytes_max: int = 64 << 10
    """Units of one queue kept in memory before the appender writes them itself."""
    flush_waiters_max: int = 65_536
    """Callbacks that may wait in `notify_flushed`; above it TooManyWaiters."""
    disk_limits: DiskLimits = DiskLimits()
    """When the disk is too full to go on storing; by default only when it has no room at all."""
    retention: RetentionConfig | None = None
    """What is deleted when; None: nothing ever."""
    index_enabled: bool = False
    """[messageIndexEnable] Records can be found by key."""
    index_slots: int = 5_000_000
    """[maxHashSlotNum] Hash slots of an index file, 4 bytes each: held in memory while keys keep coming."""
    index_entries_max: int = 20_000_000
    """[maxIndexNum] Entries of an index file, 20 bytes each; the first is never used."""
    index_tail_size_bytes_max: int = 1 << 20
    """Keys kept in memory, 20 bytes each, before the appender writes them itself."""
    disk_stall_limit_ms: int = 5_000
    """Appends are refused while one sync, write or reservation takes longer: as long as Apache's syncFlushTimeout."""
    timer: TimerConfig = TimerConfig()
    """How many messages may wait for their time, and how long."""
    close_timeout_ms: int = 30_000
    """How long `close` waits for a thread that hangs in the disk."""

    @property
    def record_size_bytes_max(self) -> int:
        """Largest record."""
        return self.message_size_bytes_max + RECORD_OVERHEAD_SIZE_BYTES_MAX

    def validate(self) -> None:
        """Errors: ValueError naming the setting."""
        if len(self.store_host) not in (8, 20):
            raise ValueError(f"store_host: {len(self.store_host)} bytes instead of 8 or 20")
        if self.commit_log_file_size_bytes <= 0 or self.commit_log_file_size_bytes % _BLOCK_SIZE_BYTES:
            raise ValueError(f"commit_log_file_size_bytes: {self.commit_log_file_size_bytes} is no multiple of 4096")
        for name in (
            "flush_interval_ms",
            "consume_queue_sync_interval_ms",
            "consume_queue_file_units",
            "message_size_bytes_max",
            "reserve_ahead_bytes",
            "open_files_max",
            "consume_queue_tail_size_bytes_max",
            "flush_waiters_max",
            "index_slots",
            "index_tail_size_bytes_max",
            "disk_stall_limit_ms",
            "close_timeout_ms",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive")
        if self.index_entries_max < 2:
            raise ValueError(f"index_entries_max: {self.index_entries_max}, but one entry is never used")
        if self.index_slots > _INT32_MAX or self.index_entries_max > _INT32_MAX:
            raise ValueError(f"index_slots, index_entries_max: one is above {_INT32_MAX}")
        if self.hot_read_window_bytes < 0:
            raise ValueError(f"hot_read_window_bytes: {self.hot_read_window_bytes} is negative")
        self.disk_limits.validate()
        self.timer.validate()
        if self.retention is not None:
            self.retention.validate()
