"""How full the store's disk may become: pure policy, without a disk.

```
            used over warn, or free below it            used over refuse, or free below it
       OK ────────────────────────────────────→ WARN ─────────────────────────────────────→ REFUSE
          ←────────────────────────────────────      ←─────────────────────────────────────
                       each way back needs a margin more room than the way there
```
Two kinds of limits stand side by side, and the worse answer counts: the share of the disk that is used, as Apache has
it, and bytes that are free, which say more where the disk is very large or very small. Reading goes on in every state.
Source: broker_behaviour.md §9 (diskSpaceWarningLevelRatio 90); the limits in bytes are ours.
"""

from enum import IntEnum
from pathlib import Path

import msgspec
from apogeemq.store.errors import DiskAlmostFull
from apogeemq.store.files import DiskSpace

RATIO_MARGIN = 0.01
"""The used share must fall this far below a limit before the limit counts as kept again."""

FREE_MARGIN_PERCENT = 10
"""Free bytes must exceed a limit by this much of it before the limit counts as kept again."""


class DiskState(IntEnum):
    """What the room on the disk means for the store; the larger, the worse."""

    OK = 0
    WARN = 1
    """Told once. Everything works."""
    REFUSE = 2
    """Nothing more is stored until there is room again."""


class DiskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When a disk is too full. Ratios are 0 to 1 of the disk; 1 and 0 bytes switch a limit off.

    Names in brackets are Apache's, which count in per cent.
    """

    warn_used_ratio: float = 1.0
    """[diskSpaceCleanForciblyRatio]"""
    refuse_used_ratio: float = 1.0
    """[diskSpaceWarningLevelRatio]"""
    warn_free_bytes: int = 0
    """A setting of ours: disk_warn_free_bytes."""
    refuse_free_bytes: int = 0
    """A setting of ours: disk_refuse_free_bytes."""

    def validate(self) -> None:
        """Errors: ValueError naming the setting."""
        for name in ("warn_used_ratio", "refuse_used_ratio"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not above 0 and at most 1")
        for name in ("warn_free_bytes", "refuse_free_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is negative")

    @property
    def is_off(self) -> bool:
        """Whether no disk is too full by these limits."""
        return self == DiskLimits()


def disk_state(limits: DiskLimits, before: DiskState, space: DiskSpace) -> DiskState:
    """The state that follows `before` now that the disk has this room."""
    for state, used_ratio, free_bytes in (
        (DiskState.REFUSE, limits.refuse_used_ratio, limits.refuse_free_bytes),
        (DiskState.WARN, limits.warn_used_ratio, limits.warn_free_bytes),
    ):
        is_inside = before >= state
        if _is_above(used_ratio, space, is_inside=is_inside) or _is_below(free_bytes, space, is_inside=is_inside):
            return state
    return DiskState.OK


def refusal(limits: DiskLimits, path: Path, space: DiskSpace) -> DiskAlmostFull:
    """The error for a store at `path` in state REFUSE: which limit, and how to get out of it."""
    if _is_below(limits.refuse_free_bytes, space, is_inside=True):
        setting, limit = "disk_refuse_free_bytes", f"{limits.refuse_free_bytes}"
    else:
        setting, limit = "diskSpaceWarningLevelRatio", f"{limits.refuse_used_ratio * 100:g}"
    return DiskAlmostFull(path, space.used_ratio, space.free_bytes, setting, limit)


def _is_above(limit: float, space: DiskSpace, *, is_inside: bool) -> bool:
    return limit < 1 and space.used_ratio > (limit - RATIO_MARGIN if is_inside else limit)


def _is_below(limit_bytes: int, space: DiskSpace, *, is_inside: bool) -> bool:
    margin_bytes = limit_bytes * FREE_MARGIN_PERCENT // 100
    return space.free_bytes < (limit_bytes + margin_bytes if is_inside else limit_bytes)
