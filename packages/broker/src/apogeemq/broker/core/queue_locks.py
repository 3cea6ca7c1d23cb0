"""Which client consumes which queue in order.

A member of a group locks the queues that it was given before it consumes them in order, and again every 20 s; a lock
that was not renewed for 60 s is free. Locks live in memory: after a restart every queue is free, and clients that
still believe in an old lock ask again within 20 s (their own term is 30 s). Source: reference broker_behaviour.md §7,
trap 27.
"""

from collections.abc import Iterable
from dataclasses import dataclass

LOCK_TERM_S = 60.0
QUEUES_PER_REQUEST_MAX = 10_000


@dataclass(slots=True)
class _Lock:
    client_id: str
    renewed: float


class QueueLockTable:
    """Locks by (group, topic, queue id). Times are seconds of one monotonic clock."""

    def __init__(self, *, term_s: float = LOCK_TERM_S) -> None:
        self.term_s = term_s
        self._locks: dict[tuple[str, str, int], _Lock] = {}

    def __len__(self) -> int:
        return len(self._locks)

    def lock(self, group: str, client_id: str, queues: Iterable[tuple[str, int]], now: float) -> list[tuple[str, int]]:
        """Lock or renew; gives the queues (topic, queue id) that the client holds now."""
        held = []
        for topic, queue_id in queues:
            key = (group, topic, queue_id)
            lock = self._locks.get(key)
            if lock is None or lock.client_id == client_id or now - lock.renewed > self.term_s:
                self._locks[key] = _Lock(client_id, now)
                held.append((topic, queue_id))
        return held

    def unlock(self, group: str, client_id: str, queues: Iterable[tuple[str, int]]) -> None:
        """Give back what the client holds; other clients' locks stay."""
        for topic, queue_id in queues:
            key = (group, topic, queue_id)
            lock = self._locks.get(key)
            if lock is not None and lock.client_id == client_id:
                del self._locks[key]

    def is_locked(self, group: str, now: float) -> bool:
        """Whether anybody in the group consumes in order at the moment."""
        return any(key[0] == group and now - lock.renewed <= self.term_s for key, lock in self._locks.items())

    def expire(self, now: float) -> int:
        """Forget the locks that ran out; gives how many."""
        ended = [key for key, lock in self._locks.items() if now - lock.renewed > self.term_s]
        for key in ended:
            del self._locks[key]
        return len(ended)
