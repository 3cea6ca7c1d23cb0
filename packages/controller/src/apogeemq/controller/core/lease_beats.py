"""When a lease is beaten for, how long an answer may take, and when the lease counts as lost.

    granted or last good beat SENT          next beat        answer due      lost
      │◀────────── TTL / 3 ─────────────────▶│◀─ min(1.5 s, ─▶│               │
      │                                      │    TTL / 3)    │               │
      │◀───────────────────── TTL, as etcd last told it ─────────────────────▶│

Loss counts from the moment at which the last good beat was *sent*: etcd counts from when it got it, so this side never
believes in a lease that etcd has ended, whatever the network does (a clock that runs slow by more than what passes
between the two aside, hence no decision about data rests on it: architecture §6.3).

Rules: architecture §6.13. Times are milliseconds of a clock that goes on while the machine sleeps.
"""

from __future__ import annotations

ANSWER_TIMEOUT_MS_MAX = 1500
RETRY_MS = 50
"""Wait between a beat that failed and the next, which goes to another member."""


class LeaseBeats:
    """The beats of one lease. `ttl_ms` is what etcd granted, `sent_ms` when the grant was asked for."""

    def __init__(self, ttl_ms: int, sent_ms: int) -> None:
        self._ttl_ms = ttl_ms
        self._good_ms = sent_ms
        self._next_ms = sent_ms + ttl_ms // 3

    @property
    def next_ms(self) -> int:
        """When the next beat is to be sent."""
        return self._next_ms

    @property
    def lost_ms(self) -> int:
        """From when on the lease counts as lost, unless a beat that was sent before is answered still."""
        return self._good_ms + self._ttl_ms

    @property
    def answer_timeout_ms(self) -> int:
        """How long the answer to a beat may take; after that another member is asked."""
        return min(ANSWER_TIMEOUT_MS_MAX, max(self._ttl_ms // 3, 1))

    def is_lost(self, now_ms: int) -> bool:
        """Whether this side must stop believing in the lease."""
        return now_ms >= self.lost_ms

    def answered(self, sent_ms: int, ttl_ms: int) -> None:
        """The beat that was sent at `sent_ms` was good; `ttl_ms` is what etcd told with it."""
        self._good_ms = max(self._good_ms, sent_ms)
        self._ttl_ms = ttl_ms
        self._next_ms = self._good_ms + ttl_ms // 3

    def failed(self, now_ms: int) -> None:
        """A beat was refused by its member, or not answered in time."""
        self._next_ms = now_ms + RETRY_MS
