"""What the timer can be told."""

import msgspec

_POSITION_ALIGNMENT_BYTES = 4
_FILE_SIZE_BYTES_MIN = 68
"""One unit of 52 bytes and a filler."""
_SLOTS_AHEAD_MAX = 7 * 24 * 3600 - 60
"""What Java's wheel can tell apart, less the minute that it keeps free."""


class TimerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the timer. Names in brackets are Apache's."""

    file_size_bytes: int = 100 << 20
    """[mappedFileSizeTimerLog] Of one file of the timer log; must stay what it was. A multiple of 4."""
    precision_ms: int = 1000
    """[timerPrecisionMs] A slot of Java's wheel; must stay what it was. Delivery is exact all the same."""
    horizon_ms: int = 3 * 24 * 3600 * 1000
    """[timerMaxDelaySec] How far ahead a time of delivery may lie: at most what Java's wheel holds, 604,740 slots."""
    pending_max: int = 10_000_000
    """Timers that may wait, at eight bytes of memory each; above it `add` refuses with TooManyTimers."""
    handed_out_max: int = 65_536
    """Timers that may be with the owner, taken by `due` and neither committed nor released."""
    open_files_max: int = 16
    """Open files of the timer log."""

    def validate(self) -> None:
        """Errors: ValueError naming the setting."""
        for name in ("precision_ms", "horizon_ms", "pending_max", "handed_out_max", "open_files_max"):
            if getattr(self, name) <= 0:
                raise ValueError(f"timer {name}: {getattr(self, name)} is not positive")
        if self.file_size_bytes < _FILE_SIZE_BYTES_MIN or self.file_size_bytes % _POSITION_ALIGNMENT_BYTES:
            raise ValueError(f"timer file_size_bytes: {self.file_size_bytes} is no multiple of 4 from 68 on")
        if self.horizon_ms > _SLOTS_AHEAD_MAX * self.precision_ms:
            raise ValueError(f"timer horizon_ms: {self.horizon_ms} is more than {_SLOTS_AHEAD_MAX} slots")
