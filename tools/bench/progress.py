"""A sign of life on stderr while a load runs."""

import sys
import time

PROGRESS_INTERVAL_NS = 1_000_000_000


class Progress:
    """One line on stderr that is written over while it lasts; on anything but a terminal nothing but its end."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._shown_ns = time.perf_counter_ns()
        self._messages = 0
        self._is_terminal = sys.stderr.isatty()

    def show(self, messages: int) -> None:
        """At most once a second: the rate since the last time."""
        now_ns = time.perf_counter_ns()
        if not self._is_terminal or now_ns - self._shown_ns < PROGRESS_INTERVAL_NS:
            return
        fresh = max(0, messages - self._messages)
        rate = fresh / (now_ns - self._shown_ns) * 1e9
        sys.stderr.write(f"\r{self._label}: {messages:,} messages, {rate:,.0f}/s \x1b[K")
        sys.stderr.flush()
        self._shown_ns, self._messages = now_ns, messages

    def end(self, messages: int, rate: float) -> None:
        """The measured stretch: its messages, and how many a second."""
        start = "\r" if self._is_terminal else ""
        sys.stderr.write(f"{start}{self._label}: {messages:,} messages, {rate:,.0f}/s\n")
        sys.stderr.flush()
