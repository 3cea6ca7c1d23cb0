"""How far a long run is, on standard error."""

import argparse
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from apogeemq.store.commands.output import size_text

_INTERVAL_S = 0.2
"""On a terminal, where one line is written over and over."""
_INTERVAL_S_LINES = 5.0
"""Elsewhere, where each report is a line of a log."""


class Progress:
    """Call it with (bytes done, bytes in all); leave the `with` block to clear the line.

    `checking: 1.2 GiB of 3.4 GiB, 35 %, 420.0 MiB/s, 5 s left`
    """

    def __init__(
        self,
        what: str,
        *,
        shown: bool,
        stream: TextIO | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._interval_s = _INTERVAL_S if self._is_terminal else _INTERVAL_S_LINES
        self._shown = shown
        self._now_s = now_s
        self._started_s = self._next_s = now_s()

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """Report, if it is time to."""
        if not self._shown or (now_s := self._now_s()) < self._next_s:
            return
        self._next_s = now_s + self._interval_s
        elapsed_s = now_s - self._started_s
        text = f"{self._what}: {size_text(done_bytes)} of {size_text(total_bytes)}"
        if done_bytes and total_bytes and elapsed_s > 0:
            left_s = elapsed_s * (total_bytes - done_bytes) / done_bytes
            rate = size_text(int(done_bytes / elapsed_s))
            text += f", {100 * done_bytes // total_bytes} %, {rate}/s, {left_s:.0f} s left"
        self._stream.write(f"\r\x1b[K{text}" if self._is_terminal else f"{text}\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown and self._is_terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def progress_of(options: argparse.Namespace, what: str) -> Progress:
    """As --progress says; by default when standard error is a terminal."""
    shown = sys.stderr.isatty() if options.progress is None else options.progress
    return Progress(what, shown=shown)
