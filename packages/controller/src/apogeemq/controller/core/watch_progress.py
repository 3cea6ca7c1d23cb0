"""Where a watch has got to, and when its member must prove that it still sends.

    last message ─────── 10 s ──────▶ ask for progress ─────── 2 s ──────▶ the member is dead or cut off: take another

A watch that goes on elsewhere asks for what follows the last revision that it has delivered whole; so a change is
neither left out nor told twice. etcd sends all changes of a revision in one message (it splits only where it is asked
to). A progress is taken as a sign of life alone, not for its revision: etcd before 3.5.8 may tell one while changes
before it are still under way (etcd-io/etcd#15220).

Rules: architecture §6.13. Times are milliseconds of a clock that never goes back.
"""

from __future__ import annotations

IDLE_MS_MAX = 10_000
ANSWER_TIMEOUT_MS = 2_000


class WatchProgress:
    """One watch. `start_revision` is the first revision it wants to be told of."""

    def __init__(self, start_revision: int) -> None:
        self.next_revision = start_revision
        self._heard_ms: int | None = None
        self._asked_ms: int | None = None

    def opened(self, now_ms: int) -> None:
        """A stream was opened at some member; its first answer is awaited like a progress."""
        self._heard_ms = now_ms
        self._asked_ms = now_ms

    def told(self, mod_revisions: list[int], now_ms: int) -> list[int]:
        """A message with changes of these revisions came; gives the places of those that are new."""
        self._heard(now_ms)
        fresh = [place for place, revision in enumerate(mod_revisions) if revision >= self.next_revision]
        if fresh:
            self.next_revision = max(mod_revisions[place] for place in fresh) + 1
        return fresh

    def alive(self, now_ms: int) -> None:
        """The member has taken the watch, or told its progress."""
        self._heard(now_ms)

    def due_ms(self) -> int:
        """When to look again whether it has fallen silent."""
        if self._asked_ms is not None:
            return self._asked_ms + ANSWER_TIMEOUT_MS
        return (self._heard_ms or 0) + IDLE_MS_MAX

    def is_dead(self, now_ms: int) -> bool:
        """Whether the member owes an answer for too long."""
        return self._asked_ms is not None and now_ms >= self._asked_ms + ANSWER_TIMEOUT_MS

    def must_ask(self, now_ms: int) -> bool:
        """Whether to ask for progress now; the asking is noted."""
        if self._asked_ms is not None or now_ms < (self._heard_ms or 0) + IDLE_MS_MAX:
            return False
        self._asked_ms = now_ms
        return True

    def _heard(self, now_ms: int) -> None:
        self._heard_ms = now_ms
        self._asked_ms = None
