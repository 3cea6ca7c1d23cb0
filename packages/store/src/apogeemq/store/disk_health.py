"""How the disk does: how long it takes, what it refuses, and whether it still answers."""

import errno
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Lock
from typing import NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LATENCY_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Inclusive upper bounds of all buckets but the last, in seconds."""

OPERATIONS = ("sync", "write", "reserve")
"""What is measured: whatever makes data or names durable; pwrite; the allocation of blocks."""


class Latency(NamedTuple):
    """Durations of one kind of operation: how many fell into each bucket, and their sum in seconds."""

    counts: tuple[int, ...]
    total_s: float


class Running(NamedTuple):
    """An operation that the disk has not ended yet."""

    operation: str
    path: Path
    age_s: float


class DiskHealth:
    """Plain counters of one store's disk, filled by MeasuredDisk, read by whoever wants to know. For several threads.

    An operation costs about 2 µs more, and the appender's path none: its writes go into a map.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._lock = Lock()
        self._counts = {operation: [0] * (len(LATENCY_BOUNDS_S) + 1) for operation in OPERATIONS}
        self._totals_s = dict.fromkeys(OPERATIONS, 0.0)
        self._errors: Counter[tuple[str, str]] = Counter()
        self._tickets = count()
        self._running: dict[int, tuple[str, Path, float]] = {}

    # -- the disk's side -----------------------------------------------------------------------------------------------

    def measure(self, operation: str, path: Path, work: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Do `work` and count it as one of OPERATIONS. Errors: those of `work`, counted."""
        ticket, begun_s = next(self._tickets), self._clock_s()
        with self._lock:
            self._running[ticket] = operation, path, begun_s
        try:
            return work(*arguments, **keywords)
        except OSError as error:
            self.note_error(operation, error)
            raise
        finally:
            with self._lock:
                del self._running[ticket]
                duration_s = self._clock_s() - begun_s
                self._counts[operation][bisect_left(LATENCY_BOUNDS_S, duration_s)] += 1
                self._totals_s[operation] += duration_s

    def note_error(self, operation: str, error: OSError) -> None:
        """Count an error. That a file or directory is gone is none of the disk's."""
        if error.errno == errno.ENOENT:
            return
        with self._lock:
            self._errors[operation, errno.errorcode.get(error.errno or 0, str(error.errno))] += 1

    # -- the reader's side ---------------------------------------------------------------------------------------------

    def latencies(self) -> dict[str, Latency]:
        """By operation, since the store was opened. Operations count when they end, however they end."""
        with self._lock:
            return {name: Latency(tuple(self._counts[name]), self._totals_s[name]) for name in OPERATIONS}

    def errors(self) -> dict[tuple[str, str], int]:
        """By operation and name of the error number (EIO, ENOSPC, …); reads have the operation "read"."""
        with self._lock:
            return dict(self._errors)

    def longest_running(self) -> Running | None:
        """The operation that has been running longest; None when none is."""
        with self._lock:
            oldest = min(self._running.values(), key=lambda running: running[2], default=None)
        return None if oldest is None else Running(oldest[0], oldest[1], self._clock_s() - oldest[2])
