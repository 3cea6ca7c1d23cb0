"""Which client consumes which queue in order.

A member of a group locks the queues that it was given before it consumes them in order, and again every 20 s; a lock
that was not renewed for 60 s is free. Locks live in memory: after a restart every queue is free, and clients that
still believe in an old lock ask again within 20 s (their own term is 30 s). Source: reference broker_behaviour.md §7,
trap 27.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from apogeemq.broker.errors import SystemBusy

LOCK_TERM_S = 60.0
QUEUES_PER_REQUEST_MAX = 10_000
LOCKS_MAX = 500_000


@dataclass(slots=True)
class _Lock:
    client_id: str
    renewed: float


class QueueLockTable:
    """Locks by group and (topic, queue id). Times are seconds of one monotonic clock.

    Nobody checks that the queues exist, so their number is bounded here.
    """

    def __init__(self, *, term_s: float = LOCK_TERM_S, locks_max: int = LOCKS_MAX) -> None:
        self.term_s = term_s
        self.locks_max = locks_max
        self._groups: dict[str, dict[tuple[str, int], _Lock]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def lock(self, group: str, client_id: str, queues: Iterable[tuple[str, int]], now: float) -> list[tuple[str, int]]:
        """Lock or renew; gives the queues (topic, queue id) that the client holds now.

        Raises SystemBusy, with nothing changed, when that could make more than `locks_max`.
        """
        wanted = list(queues)
        if self._count + len(wanted) > self.locks_max:
            locks = self._groups.get(group, {})
            new = sum(queue not in locks for queue in wanted)
            if self._count + new > self.locks_max:
                raise SystemBusy(f"{self._count} queues are locked, the limit is {self.locks_max}")
        locks = self._groups.setdefault(group, {})
        held = []
        for queue in wanted:
            lock = locks.get(queue)
            if lock is None:
                self._count += 1
            elif lock.client_id != client_id and now - lock.renewed <= self.term_s:
                continue
            locks[queue] = _Lock(client_id, now)
            held.append(queue)
        self._drop_if_empty(group)
        return held

    def unlock(self, group: str, client_id: str, queues: Iterable[tuple[str, int]]) -> None:
        """Give back what the client holds; other clients' locks stay."""
        locks = self._groups.get(group, {})
        for queue in queues:
            lock = locks.get(queue)
            if lock is not None and lock.client_id == client_id:
                del locks[queue]
                self._count -= 1
        self._drop_if_empty(group)

    def is_locked(self, group: str, now: float) -> bool:
        """Whether anybody in the group consumes in order at the moment."""
        return any(now - lock.renewed <= self.term_s for lock in self._groups.get(group, {}).values())

    def expire(self, now: float) -> int:
        """Forget the locks that ran out; gives how many."""
        before = self._count
        for group, locks in list(self._groups.items()):
            for queue in [queue for queue, lock in locks.items() if now - lock.renewed > self.term_s]:
                del locks[queue]
                self._count -= 1
            self._drop_if_empty(group)
        return before - self._count

    def _drop_if_empty(self, group: str) -> None:
        if not self._groups.get(group, True):
            del self._groups[group]
