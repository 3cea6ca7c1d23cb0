"""Which client consumes which queue in order.

A member of a group locks the queues that it was given before it consumes them in order, and again every 20 s; a lock
that was not renewed for 60 s is free. Source: reference broker_behaviour.md §7, trap 27.

Owners outlive the process, and go to the replicas of a set (architecture §6.10): Apache's live in memory, so that after
a restart or a failover two clients may consume one queue, until the first asks again. Who was not heard of since has
30 s to renew: a client consumes by a lock of its own for no longer.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
from apogeemq.broker.errors import SystemBusy
from apogeemq.remoting_codec.bodies import TableBody

LOCK_TERM_S = 60.0
CLIENT_TERM_S = 30.0
"""How long a client consumes by a lock that it could not renew (Java's REBALANCE_LOCK_MAX_LIVE_TIME)."""
NOBODY = ""
"""The owner of a queue that was given back, in a change."""
QUEUES_PER_REQUEST_MAX = 10_000
LOCKS_MAX = 500_000


LockKey: TypeAlias = tuple[str, str, int]
"""Group, topic, queue id."""


class QueueLockOwners(TableBody, frozen=True, kw_only=True):
    """Owners: config/queueLock.json, ours alone. Group → topic → queue id → client id; "" in a change: nobody."""

    lock_table: dict[str, dict[str, dict[int, str]]] = msgspec.field(default_factory=dict)


@dataclass(slots=True)
class _Lock:
    client_id: str
    ends: float


class QueueLockTable:
    """Locks by group and (topic, queue id). Times are seconds of one monotonic clock.

    Nobody checks that the queues exist, so their number is bounded here.
    """

    def __init__(self, *, term_s: float = LOCK_TERM_S, locks_max: int = LOCKS_MAX) -> None:
        self.term_s = term_s
        self.locks_max = locks_max
        self.changed: set[LockKey] = set()
        """Whose owner changed and is not written since: the file's writer takes it out."""
        self._listeners: list[Callable[[Collection[LockKey]], None]] = []
        self._unknown_until = float("-inf")
        self._groups: dict[str, dict[tuple[str, int], _Lock]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def on_change(self, listener: Callable[[Collection[LockKey]], None]) -> None:
        """Call `listener` after every change of owners, with the queues; not after renewals."""
        self._listeners.append(listener)

    def load(self, owners: QueueLockOwners, now: float) -> None:
        """Take over what a file, or a change of it, says; nobody is told. Each owner has CLIENT_TERM_S to renew."""
        for group, topics in owners.lock_table.items():
            locks = self._groups.setdefault(group, {})
            for topic, queues in topics.items():
                for queue_id, client_id in queues.items():
                    self._count -= locks.pop((topic, queue_id), None) is not None
                    if client_id != NOBODY:
                        locks[topic, queue_id] = _Lock(client_id, now + CLIENT_TERM_S)
                        self._count += 1
            self._drop_if_empty(group)

    def owners_are_unknown(self, now: float) -> None:
        """There may be owners that this table never heard of: grant a queue without one only after CLIENT_TERM_S."""
        self._unknown_until = now + CLIENT_TERM_S

    def owners(self, keys: Iterable[LockKey] | None = None) -> QueueLockOwners:
        """Of these queues, NOBODY where there is none; of all that are locked by default."""
        if keys is None:
            keys = [(group, topic, number) for group, locks in self._groups.items() for topic, number in locks]
        table: dict[str, dict[str, dict[int, str]]] = {}
        for group, topic, queue_id in keys:
            lock = self._groups.get(group, {}).get((topic, queue_id))
            owner = NOBODY if lock is None else lock.client_id
            table.setdefault(group, {}).setdefault(topic, {})[queue_id] = owner
        return QueueLockOwners(lock_table=table)

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
        held, changed = [], []
        for queue in wanted:
            lock = locks.get(queue)
            if lock is None:
                if now <= self._unknown_until:
                    continue
                self._count += 1
            elif lock.client_id != client_id and now <= lock.ends:
                continue
            if lock is None or lock.client_id != client_id:
                changed.append(queue)
            locks[queue] = _Lock(client_id, now + self.term_s)
            held.append(queue)
        self._drop_if_empty(group)
        self._tell(group, changed)
        return held

    def unlock(self, group: str, client_id: str, queues: Iterable[tuple[str, int]]) -> None:
        """Give back what the client holds; other clients' locks stay."""
        locks = self._groups.get(group, {})
        freed = [queue for queue in dict.fromkeys(queues) if queue in locks and locks[queue].client_id == client_id]
        self._free(group, freed)

    def is_locked(self, group: str, now: float) -> bool:
        """Whether anybody in the group consumes in order at the moment."""
        return any(now <= lock.ends for lock in self._groups.get(group, {}).values())

    def expire(self, now: float) -> int:
        """Forget the locks that ran out; gives how many."""
        before = self._count
        for group, locks in list(self._groups.items()):
            self._free(group, [queue for queue, lock in locks.items() if now > lock.ends])
        return before - self._count

    def _free(self, group: str, queues: Collection[tuple[str, int]]) -> None:
        for queue in queues:
            del self._groups[group][queue]
        self._count -= len(queues)
        self._drop_if_empty(group)
        self._tell(group, queues)

    def _tell(self, group: str, queues: Collection[tuple[str, int]]) -> None:
        if queues:
            keys = [(group, topic, queue_id) for topic, queue_id in queues]
            self.changed.update(keys)
            for listener in self._listeners:
                listener(keys)

    def _drop_if_empty(self, group: str) -> None:
        if not self._groups.get(group, True):
            del self._groups[group]
