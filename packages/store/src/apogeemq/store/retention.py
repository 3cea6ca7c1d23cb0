"""Which files of the commit log go, and why: pure policy, without disk or clock.

```
oldest ──────────────────────────────────────────────────────────────→ newest
├─ file ─┼─ file ─┼─ file ─┼─ file ─┼─ … ─┼─ the file being written: never goes ─┤
 └ a reason to go? yes: next one. The first file without a reason ends the round, so a suffix of the log stays.
```
- `FORCED`: whatever its age, while the disk is fuller than `disk_clean_forcibly_ratio`.
- `SIZE`: whatever its age, while the log is larger than `log_size_bytes_max` (ours; as Kafka's retention.bytes).
- `AGE`: from `file_reserved_ms` on, in an hour of `delete_when`; at any hour while the disk is fuller than
  `disk_max_used_ratio`, or when somebody asked for it by hand.

A file's age counts from the store timestamp of the first record behind it: not before any of its own records, and the
moment of its last change, which is what Apache goes by. The file system's own time of change is not asked: a copied or
restored directory would look young and stay three days too long, a touched one would look old.
Source: broker_behaviour.md §9; Apache DefaultMessageStore.CleanCommitLogService 5.x, which counts used space in the
same way but goes on deleting for a whole round when one file would have been enough.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import msgspec
from apogeemq.store.files import DiskSpace

_HOURS_PER_DAY = 24


class RetentionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How long messages are kept. Names in brackets are Apache's; its ratios are per cent, ours 0 to 1."""

    delete_when: frozenset[int] = frozenset({4})
    """[deleteWhen] Local hours, 0 to 23, in which expired files go."""
    file_reserved_ms: int = 72 * 3_600_000
    """[fileReservedTime, hours] From this age on a file is expired."""
    disk_max_used_ratio: float = 0.75
    """[diskMaxUsedSpaceRatio] Above it expired files go at any hour. 1: never."""
    disk_clean_forcibly_ratio: float = 0.85
    """[diskSpaceCleanForciblyRatio] Above it files go that are not expired. 1: never."""
    clean_file_forcibly: bool = True
    """[cleanFileForciblyEnable] Whether they do."""
    log_size_bytes_max: int = 0
    """A setting of ours: the log's files together may have this size; 0: any size."""
    delete_file_batch_max: int = 10
    """[deleteFileBatchMax] Files in one round."""
    round_interval_ms: int = 10_000
    """[cleanResourceInterval] From one round to the next."""

    def validate(self) -> None:
        """Errors: ValueError naming the setting."""
        if not all(0 <= hour < _HOURS_PER_DAY for hour in self.delete_when):
            raise ValueError(f"delete_when: {sorted(self.delete_when)} holds something else than hours, 0 to 23")
        for name in ("disk_max_used_ratio", "disk_clean_forcibly_ratio"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not above 0 and at most 1")
        if self.log_size_bytes_max < 0:
            raise ValueError(f"log_size_bytes_max: {self.log_size_bytes_max} is negative")
        for name in ("file_reserved_ms", "delete_file_batch_max", "round_interval_ms"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive")


class Reason(Enum):
    """Why a file goes."""

    AGE = "expired"
    SIZE = "the log is larger than it may be"
    FORCED = "the disk is too full"


class LogFile(NamedTuple):
    """A file of the commit log that is not written any more."""

    start: int
    """Physical offset of its first byte."""
    size_bytes: int
    ended_ms: int
    """Store timestamp of the first record behind it."""


class Removal(NamedTuple):
    """A file that is to go."""

    file: LogFile
    reason: Reason


def choose_removals(
    config: RetentionConfig,
    files: Sequence[LogFile],
    *,
    rest_size_bytes: int,
    now_ms: int,
    local_hour: int,
    space: DiskSpace,
    by_hand: bool,
) -> list[Removal]:
    """The files that go in this round, oldest first; none beyond what the reasons call for.

    Args:
        config: see there.
        files: the oldest ones, without the one being written; more than one round's need not be told.
        rest_size_bytes: of all other files together, as they count for `log_size_bytes_max`.
        now_ms: wall clock.
        local_hour: of the same moment, 0 to 23.
        space: the disk's room.
        by_hand: somebody asked for expired files to go now.
    """
    log_size_bytes = rest_size_bytes + sum(file.size_bytes for file in files)
    removals: list[Removal] = []
    for file in files[: config.delete_file_batch_max]:
        is_time = by_hand or local_hour in config.delete_when or _is_fuller(space, config.disk_max_used_ratio)
        if must_make_room(config, space):
            reason = Reason.FORCED
        elif 0 < config.log_size_bytes_max < log_size_bytes:
            reason = Reason.SIZE
        elif is_time and now_ms - file.ended_ms >= config.file_reserved_ms:
            reason = Reason.AGE
        else:
            break
        removals.append(Removal(file, reason))
        log_size_bytes -= file.size_bytes
        space = DiskSpace(space.total_bytes, min(space.total_bytes, space.free_bytes + file.size_bytes))
    return removals


def must_make_room(config: RetentionConfig, space: DiskSpace) -> bool:
    """Whether files go that are not expired: the disk is too full, and that is allowed."""
    return config.clean_file_forcibly and _is_fuller(space, config.disk_clean_forcibly_ratio)


def parse_delete_when(text: str) -> frozenset[int]:
    """Hours as Apache writes them: `04`, or several with semicolons between. Errors: ValueError."""
    hours = [part.strip() for part in text.split(";") if part.strip()]
    if not hours or not all(hour.isdecimal() and int(hour) < _HOURS_PER_DAY for hour in hours):
        raise ValueError(f"{text!r} is not hours from 00 to 23, separated by semicolons")
    return frozenset(int(hour) for hour in hours)


def _is_fuller(space: DiskSpace, ratio: float) -> bool:
    return ratio < 1 and space.total_bytes > 0 and space.used_ratio > ratio
