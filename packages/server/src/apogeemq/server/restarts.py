"""When a process that ended by itself is started again: at once the first time, then after longer and longer pauses."""

from __future__ import annotations

PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0)
"""Before each further start in a row; after the last one it stays down."""

LASTED_S = 60.0
"""A process that ran so long did well: what comes then is counted anew."""


class Restarts:
    """Of one process."""

    def __init__(self) -> None:
        self._in_a_row = 0

    @property
    def in_a_row(self) -> int:
        """Starts since it last did well."""
        return self._in_a_row

    def pause_s(self, ran_s: float) -> float | None:
        """How long to wait before the next start of a process that ran for `ran_s` seconds; None: it stays down."""
        if ran_s >= LASTED_S:
            self._in_a_row = 0
        if self._in_a_row == len(PAUSES_S):
            return None
        self._in_a_row += 1
        return PAUSES_S[self._in_a_row - 1]
