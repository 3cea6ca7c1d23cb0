"""What a broker's beats say, and until when it may believe in its lease.

Beats leave from the threads of the streams to the controllers, so that an event loop that stands still for a second
does not count as a death. But for no longer than LOOP_SILENT_S: a broker whose loop hangs serves nobody (§4.6).

    lease_until_s = when the beat was sent, whose answer came last + the TTL that etcd granted

on a clock that goes on while the machine sleeps: etcd prolonged the lease after that beat was sent (architecture §6.3).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

from apogeemq.mesh.v1 import controller_pb2 as pb

BEAT_INTERVAL_S = 1.0
LOOP_SILENT_S = 2.0
"""Without a tick of the event loop for so long, no beat goes out."""
UNANSWERED_MAX = 32
"""Beats whose answers are waited for; the oldest are forgotten."""


class Beats:
    """One broker's. `tick`, `take_lease`, `drop_lease` and `beaten` belong to the event loop, `make` to any thread.

    Args:
        end_offset: of the log; asked in the threads.
        epoch: the newest on the disk; the same.
        boot_time: seconds of a clock that never goes back, nor stands while the machine sleeps.
    """

    def __init__(
        self, *, end_offset: Callable[[], int], epoch: Callable[[], int], boot_time: Callable[[], float]
    ) -> None:
        self.lease_until_s = 0.0
        self._end_offset = end_offset
        self._epoch = epoch
        self._boot_time = boot_time
        self._ids = count(1)
        self._sent_s: dict[int, float] = {}
        self._lock = threading.Lock()
        self._ticked_s = boot_time()
        self._broker_id = 0
        self._lease_id = 0

    @property
    def is_lease_good(self) -> bool:
        """Whether nobody can have been elected by the end of the lease: for weaker ack classes only."""
        return self._boot_time() < self.lease_until_s

    def tick(self) -> None:
        """The event loop is alive."""
        self._ticked_s = self._boot_time()

    def take_lease(self, broker_id: int, lease_id: int) -> None:
        """Beat for this lease from now on."""
        with self._lock:
            self._broker_id, self._lease_id = broker_id, lease_id
            self._sent_s.clear()

    def drop_lease(self) -> None:
        """Beat no more: it has ended, or is given back."""
        self.take_lease(0, 0)
        self.lease_until_s = 0.0

    def make(self) -> pb.JoinRequest | None:
        """The beat that is due, or None where there is none to send."""
        now_s = self._boot_time()
        if now_s - self._ticked_s > LOOP_SILENT_S:
            return None
        with self._lock:
            if not self._lease_id:
                return None
            beat_id = next(self._ids)
            self._sent_s[beat_id] = now_s
            if len(self._sent_s) > UNANSWERED_MAX:
                del self._sent_s[next(iter(self._sent_s))]
            lease_id, broker_id = self._lease_id, self._broker_id
        beat = pb.JoinRequest.Beat(
            beat_id=beat_id,
            lease_id=lease_id,
            broker_id=broker_id,
            epoch=self._epoch(),
            end_offset=self._end_offset(),
        )
        return pb.JoinRequest(beat=beat)

    def beaten(self, beat_id: int, ttl_ms: int) -> None:
        """The answer to a beat came."""
        with self._lock:
            sent_s = self._sent_s.pop(beat_id, None)
        if sent_s is not None:
            self.lease_until_s = max(self.lease_until_s, sent_s + ttl_ms / 1000)
