"""Errors of the store, one tree, grouped by the moment at which they can occur.

```
StoreError
│   while opening
├── StoreInUse            another process (or another store object) holds the directory
├── LayoutInvalid         a file or directory that this configuration cannot have written
├── EpochInvalid          an epoch file that cannot be true, or an epoch that cannot follow the last one
├── JournalDamaged        bytes in the middle of a table's journal that are no change
│   while opening or reading
├── RecordCorrupt         bytes below the flushed offset that are not the record that was stored there
├── OffsetOutOfRange      a physical offset outside [min, max)
│   while appending
├── MessageTooLarge       a part of the message is above its bound
├── MessageInvalid        a field does not fit its place in the record
├── DiskFull              no room could be reserved; nothing was written, a later append may succeed
├── DiskAlmostFull        there is room, but less than the settings leave to others; passes by itself
├── DiskSlow              the disk has not answered for too long; passes when it does
├── NotWritable           a sync failed: nothing is accepted until the store is opened again
│   while copying another log
├── ChunkMisplaced        a chunk that does not begin where the log ends
├── LogDiverged           a record that this log's consume queues cannot continue with
├── LogTruncated          what was waited for was cut off the log
├── BelowConfirmOffset    cutting the log there would take what readers have seen
│   while waiting or afterwards
├── TooManyWaiters        the bound on sends that wait for a flush
├── TooManyTimers         the bound on messages that wait for their time
└── StoreClosed           closed by its owner
```
Disk ports raise OSError as the operating system does; the store turns them into these.
"""

# ruff: noqa: N818 — each name says what happened; the word Error would only repeat what the root says

import errno
from pathlib import Path


class StoreError(Exception):
    """Root of everything that this package raises on purpose."""


class StoreInUse(StoreError):
    """The directory is locked. `directory` is the store's root."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"another store has {directory} open")
        self.directory = directory


class LayoutInvalid(StoreError):
    """A file or directory does not fit the configured layout. `path` is that file, `reason` says what is wrong."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class FileSizeImpossible(StoreError):
    """None of the files in `directory`, and in those like it, can have been made with the size that was given."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        super().__init__(
            f"{directory}: none of the files can have been made with the size given, {size_bytes} bytes; "
            "leave it out to have it found from their names and sizes"
        )
        self.directory = directory
        self.size_bytes = size_bytes


class EpochInvalid(StoreError):
    """The epoch file at `path` is damaged, or would not be true any more; `reason` says how that shows."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class JournalDamaged(StoreError):
    """A table's journal has damaged bytes at `position`, before whole changes; `reason` says how that shows."""

    def __init__(self, path: Path, position: int, reason: str) -> None:
        super().__init__(
            f"{path}: {reason} at byte {position}, and whole changes follow: the disk changed synced data; "
            f"to start with what the .json beside it says, without any change of the journal, move the journal away"
        )
        self.path = path
        self.position = position
        self.reason = reason


class RecordCorrupt(StoreError):
    """What lies at `physical_offset` is not the record that was stored there; `reason` says how that shows."""

    def __init__(self, physical_offset: int, reason: str) -> None:
        super().__init__(f"the record at physical offset {physical_offset} is corrupt: {reason}")
        self.physical_offset = physical_offset
        self.reason = reason


class OffsetOutOfRange(StoreError):
    """A physical offset outside [`offset_min`, `offset_max`)."""

    def __init__(self, offset: int, offset_min: int, offset_max: int) -> None:
        super().__init__(f"physical offset {offset} is outside [{offset_min}, {offset_max})")
        self.offset = offset
        self.offset_min = offset_min
        self.offset_max = offset_max


class MessageTooLarge(StoreError):
    """`what` (body, properties, topic, record) has `size_bytes`, more than `size_bytes_max`."""

    def __init__(self, what: str, size_bytes: int, size_bytes_max: int) -> None:
        super().__init__(f"{what} of {size_bytes} bytes exceeds the limit of {size_bytes_max} bytes")
        self.what = what
        self.size_bytes = size_bytes
        self.size_bytes_max = size_bytes_max


class MessageInvalid(StoreError):
    """A field cannot be stored. `reason` names it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the message cannot be stored: {reason}")
        self.reason = reason


class DiskFull(StoreError):
    """The disk has no room for `path`. Nothing was written; the same call may succeed once there is room."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"no room on the disk for {path}")
        self.path = path


class DiskAlmostFull(StoreError):
    """The disk that holds `path` is fuller than `setting` allows (`threshold`): appends are refused until it is not.

    `used_ratio` (0 to 1) and `free_bytes` are what was seen when the refusal began.
    """

    def __init__(self, path: Path, used_ratio: float, free_bytes: int, setting: str, threshold: str) -> None:
        super().__init__(
            f"the disk of {path} is {used_ratio:.1%} full with {free_bytes >> 20} MiB free: nothing more is stored "
            f"(limit: {setting} = {threshold}). Free some space, or move the limit; storing then goes on by itself"
        )
        self.path = path
        self.used_ratio = used_ratio
        self.free_bytes = free_bytes
        self.setting = setting
        self.threshold = threshold


class DiskSlow(StoreError):
    """The disk has not ended one `operation` on `path` for longer than `limit_ms`: appends are refused until it has."""

    def __init__(self, operation: str, path: Path, limit_ms: int) -> None:
        super().__init__(
            f"the disk hangs: one {operation} of {path} takes longer than {limit_ms} ms (limit: disk_stall_limit_ms). "
            "Nothing more is stored until it has ended; try again then"
        )
        self.operation = operation
        self.path = path
        self.limit_ms = limit_ms


class NotWritable(StoreError):
    """The store takes nothing more until it is opened again. `reason` is the failure that led to this."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the store is not writable: {reason}")
        self.reason = reason


class ChunkMisplaced(StoreError):
    """A chunk begins at `offset`, while what was received ends at `received_offset`: ask for the log from there."""

    def __init__(self, offset: int, received_offset: int) -> None:
        super().__init__(f"a chunk begins at {offset}, but the log received so far ends at {received_offset}")
        self.offset = offset
        self.received_offset = received_offset


class LogDiverged(StoreError):
    """The record at `physical_offset` is whole, but no continuation of this log; `reason` says how that shows."""

    def __init__(self, physical_offset: int, reason: str) -> None:
        super().__init__(f"the record at physical offset {physical_offset} belongs to another log: {reason}")
        self.physical_offset = physical_offset
        self.reason = reason


class LogTruncated(StoreError):
    """The log was cut at `offset`: what lay behind it is gone."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the log was cut at {offset}: what lay behind it is gone")
        self.offset = offset


class BelowConfirmOffset(StoreError):
    """The log cannot be cut at `offset`: readers may have seen it up to `confirm_offset`."""

    def __init__(self, offset: int, confirm_offset: int) -> None:
        super().__init__(f"the log cannot be cut at {offset}: it is confirmed up to {confirm_offset}")
        self.offset = offset
        self.confirm_offset = confirm_offset


class TooManyWaiters(StoreError):
    """`waiters_max` callers already wait for a flush."""

    def __init__(self, waiters_max: int) -> None:
        super().__init__(f"{waiters_max} sends already wait for a flush")
        self.waiters_max = waiters_max


class TooManyTimers(StoreError):
    """`pending_max` messages already wait for their time."""

    def __init__(self, pending_max: int) -> None:
        super().__init__(f"{pending_max} messages already wait for their time")
        self.pending_max = pending_max


class StoreClosed(StoreError):
    """The store was closed."""

    def __init__(self) -> None:
        super().__init__("the store is closed")


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers that mean "the disk is full"; every other one means "the disk is broken"."""
