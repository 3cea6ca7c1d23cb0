"""Whose invisible time the proxy prolongs, when, and for how long.

A receive with auto_renew leaves the time of its messages to the proxy: INVISIBLE_TIME_MS at first, then, whenever less
than RENEWED_BEFORE_MS is left, 1, 3, 5, 10, 30 and then always 60 minutes more. After RENEWED_FOR_MS the message gets
one last time, the delay after which its group's policy would retry it, and is left alone. Renewal also ends with the
acknowledgement, with a change of the invisible time, and with the client: what it still had is handed out again after
AFTER_CLIENT_MS.

The handle stays the same all along (ExtendInvisible), so that any proxy may be told of the acknowledgement; one that
this proxy does not hear of ends the renewal when the broker says that the handle is over.
Source: reference grpc_v2.md §7 (Apache DefaultReceiptHandleManager, RenewStrategyPolicy).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.core.receipt_handle import ReceiptHandle
from apogeemq.proxy.core.settings import retry_delay_ms

INVISIBLE_TIME_MS = 60_000
RENEWED_BEFORE_MS = 10_000
RENEWED_FOR_MS = 3 * 3600 * 1000
AFTER_CLIENT_MS = 1_000
STEPS_MS = tuple(minutes * 60_000 for minutes in (1, 3, 5, 10, 30, 60))
RETRIED_AFTER_MS = 1_000
"""After a renewal that failed for the moment; there are RENEWED_BEFORE_MS for as many tries."""


@dataclass(slots=True, eq=False)
class Renewal:
    """One message that a client is working on. `handle` is as the client has it."""

    client_id: str
    group: str
    topic: str
    handle: ReceiptHandle
    reconsume_times: int
    since_ms: int
    expires_at_ms: int
    times: int = 0
    is_live: bool = True

    def extension(self, now_ms: int) -> tuple[int, bool]:
        """How much time it is to get from now on, in ms, and whether this is the last time."""
        if now_ms - self.since_ms >= RENEWED_FOR_MS:
            return retry_delay_ms(self.reconsume_times), True
        return STEPS_MS[min(self.times, len(STEPS_MS) - 1)], False


@dataclass(slots=True)
class RenewalTable:
    """All messages under renewal; wall-clock times in ms are handed in.

    A message beyond `renewals_per_client_max` or `renewals_max` is not renewed: it gets its first invisible time only.
    """

    limits: Limits
    _by_client: dict[str, dict[tuple[str, str], Renewal]] = field(default_factory=dict)
    _due: list[tuple[int, int, Renewal]] = field(default_factory=list)
    _count: int = 0
    _order: int = 0

    def __len__(self) -> int:
        return self._count

    def add(
        self, client_id: str, group: str, topic: str, handle: ReceiptHandle, reconsume_times: int, now_ms: int
    ) -> None:
        """A message was handed to a client that leaves its time to us."""
        renewals = self._by_client.get(client_id, {})
        key = (group, str(handle))
        if key in renewals or len(renewals) >= self.limits.renewals_per_client_max:
            return
        if self._count >= self.limits.renewals_max:
            return
        self._by_client[client_id] = renewals
        renewal = Renewal(client_id, group, topic, handle, reconsume_times, now_ms, handle.expires_at_ms)
        renewals[key] = renewal
        self._count += 1
        self._schedule(renewal, renewal.expires_at_ms - RENEWED_BEFORE_MS)

    def settled(self, client_id: str, group: str, handle_text: str) -> None:
        """The message was acknowledged, or its time is somebody else's from now on."""
        renewal = self._by_client.get(client_id, {}).get((group, handle_text))
        if renewal is not None:
            self.drop(renewal)

    def take_due(self, now_ms: int) -> Iterator[Renewal]:
        """Those whose time is to be prolonged now, earliest first. The caller reports `renewed`, `failed` or `drop`."""
        while self._due and self._due[0][0] <= now_ms:
            renewal = heapq.heappop(self._due)[2]
            if renewal.is_live:
                yield renewal

    def renewed(self, renewal: Renewal, extension_ms: int, now_ms: int) -> None:
        """Its broker gave it this much time from now on."""
        if renewal.is_live:
            renewal.times += 1
            renewal.expires_at_ms = now_ms + extension_ms
            self._schedule(renewal, renewal.expires_at_ms - RENEWED_BEFORE_MS)

    def failed(self, renewal: Renewal, now_ms: int) -> None:
        """Its broker could not be asked: once more soon, unless its time is over."""
        if renewal.expires_at_ms <= now_ms:
            self.drop(renewal)
        elif renewal.is_live:
            self._schedule(renewal, now_ms + RETRIED_AFTER_MS)

    def drop(self, renewal: Renewal) -> None:
        """No more of it; nothing when it is not in the table any more."""
        if not renewal.is_live:
            return
        renewal.is_live = False
        self._count -= 1
        renewals = self._by_client[renewal.client_id]
        del renewals[renewal.group, str(renewal.handle)]
        if not renewals:
            del self._by_client[renewal.client_id]

    def client_gone(self, client_id: str) -> list[Renewal]:
        """Take all of a client's; their messages may be handed to others."""
        gone = list(self._by_client.get(client_id, {}).values())
        for renewal in gone:
            self.drop(renewal)
        return gone

    def _schedule(self, renewal: Renewal, due_ms: int) -> None:
        if len(self._due) > 2 * self._count + 64:
            # Most entries are of messages that were settled: without them the heap is as large as the table.
            self._due = [entry for entry in self._due if entry[2].is_live]
            heapq.heapify(self._due)
        self._order += 1
        heapq.heappush(self._due, (due_ms, self._order, renewal))
