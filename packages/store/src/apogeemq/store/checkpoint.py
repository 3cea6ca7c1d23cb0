"""How far log and queues were on the disk when somebody last looked."""

import struct
from pathlib import Path

import msgspec
from apogeemq.store.files import Disk

FILE_SIZE_BYTES = 4096
_LAYOUT = struct.Struct(">5q")


class Checkpoint(msgspec.Struct):
    """Everything in it may be behind the truth, never ahead; zeros mean "unknown"."""

    physic_timestamp_ms: int = 0
    """Store timestamp of the last record that is synced."""
    logics_timestamp_ms: int = 0
    """Store timestamp up to which every record's consume-queue unit is synced."""
    index_timestamp_ms: int = 0
    """The same for index files."""
    master_flushed_offset: int = 0
    """The log is synced up to this physical offset: what is missing below it was lost by the disk, not by a crash."""
    confirm_offset: int = 0
    """Replicas hold the log up to this physical offset."""


class CheckpointFile:
    """The file `checkpoint`: 4 KiB, of which five longs are used.

    ```
    at 0  physic timestamp ms i64 │ 8  logics timestamp ms i64 │ 16  index timestamp ms i64
      24  master flushed offset i64 │ 32  confirm offset i64 │ zeros
    ```
    Big-endian. All of it lies in one disk sector, so a power loss leaves the old values or the new ones.
    Source: Apache store/StoreCheckpoint 5.x. Java leaves the master flushed offset at 0 without replication.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        self._segment = disk.open_segment(path, FILE_SIZE_BYTES, create=True)

    def load(self) -> Checkpoint:
        """What the file says; a new file says zeros. Negative values are taken for unknown."""
        values = _LAYOUT.unpack(self._segment.pread(0, _LAYOUT.size))
        return Checkpoint(*(max(0, value) for value in values))

    def save(self, checkpoint: Checkpoint) -> None:
        """Durable at return. Errors: OSError."""
        self._segment.write(0, _LAYOUT.pack(*msgspec.structs.astuple(checkpoint)))
        self._segment.sync()

    def close(self) -> None:
        """Give the file back."""
        self._segment.close()
