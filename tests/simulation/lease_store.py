"""A store with etcd's semantics: revisions, transactions, leases that expire, watches with compaction, outages.

An outage answers nobody, and leases do not expire in it (etcd's new leader gives each its TTL again). While it elects a
leader it answers nobody either, and what was asked before may be done or not. A transaction
that is in flight when its answer is lost may have been done or not: whoever asked cannot know.
"""

from __future__ import annotations

from collections.abc import Callable

from apogeemq.controller.core.etcd import (
    Change,
    Compare,
    Delete,
    Field,
    Operation,
    Outcome,
    Put,
    Relation,
    StoredKey,
    Transaction,
)

from tests.simulation.world import World

LATENCY_MS_MAX = 8
KEPT_CHANGES = 50
EXPIRY_LOOK_MS = 100


class CompactedError(Exception):
    """The revision to begin at is no longer there."""


class LeaseStore:
    """One etcd cluster seen from outside."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.revision = 1
        self.is_up = True
        self.lost_answers = 0.0
        self.keys: dict[bytes, StoredKey] = {}
        self.changes: list[Change] = []
        self._compacted = 0
        self._leases: dict[int, tuple[int, int]] = {}
        self._lease_count = 0
        self._elects = False
        self._undecided: list[Callable[[], object]] = []
        self.wrote: Callable[[StoredKey], None] = lambda stored: None
        self._expire()

    def ask(self, does: Callable[[], object], answer: Callable[[object | None], None]) -> None:
        """Do something there and bring back what it gives; None when no answer came in time."""
        chance = self.world.chance
        there = chance.randrange(1, LATENCY_MS_MAX + 1)
        is_late = chance.random() < self.lost_answers

        def arrive() -> None:
            if not self.is_up:
                if self._elects:
                    self._undecided.append(does)
                self.world.after(1_000, lambda: answer(None))
                return
            if is_late and chance.random() < 0.5:
                self.world.after(1_000, lambda: answer(None))
                self.world.after(chance.randrange(0, 1_500), lambda: self.is_up and does())  # type: ignore[arg-type]
                return
            result = does()
            if is_late:
                self.world.after(1_000, lambda: answer(None))
            else:
                self.world.after(chance.randrange(1, LATENCY_MS_MAX + 1), lambda: answer(result))

        self.world.after(there, arrive)

    def forget(self) -> None:
        """Somebody deletes all keys; leases stay."""
        self.world.note("etcd", "is emptied")
        self.transact(Transaction((), (Delete(b"/", b"0"),)))

    def outage(self, duration_ms: int) -> None:
        """Answer nobody for a while; then every lease has its whole TTL."""
        self.is_up = False
        self.world.note("etcd", f"is out for {duration_ms} ms")
        self.world.after(duration_ms, self._recover)

    def lose_leader(self, duration_ms: int) -> None:
        """Its members elect: nothing is answered meanwhile; what the old leader took in may be done after all."""
        if self.is_up:
            self.outage(duration_ms)
            self._elects = True

    def _recover(self) -> None:
        if not self.is_up:
            self.is_up = True
            self.world.note("etcd", "is back")
            self._elects, undecided, self._undecided = False, self._undecided, []
            for lease_id, (ttl_ms, _) in self._leases.items():
                self._leases[lease_id] = (ttl_ms, self.world.now_ms + ttl_ms)
            for does in undecided:
                if self.world.chance.random() < 0.5:
                    does()

    def grant(self, ttl_ms: int) -> tuple[int, int]:
        """A lease: its id and TTL."""
        self._lease_count += 1
        self._leases[self._lease_count] = (ttl_ms, self.world.now_ms + ttl_ms)
        return self._lease_count, ttl_ms

    def keep_alive(self, lease_id: int) -> int:
        """Its TTL, or 0 when it is gone."""
        if lease_id not in self._leases:
            return 0
        ttl_ms, _ = self._leases[lease_id]
        self._leases[lease_id] = (ttl_ms, self.world.now_ms + ttl_ms)
        return ttl_ms

    def revoke(self, lease_id: int) -> None:
        """End a lease, and its keys."""
        if self._leases.pop(lease_id, None) is None:
            return
        doomed = [stored.key for stored in self.keys.values() if stored.lease_id == lease_id]
        if doomed:
            self.revision += 1
            for key in doomed:
                self._remove(key)

    def _expire(self) -> None:
        if self.is_up:
            for lease_id, (_, until_ms) in list(self._leases.items()):
                if until_ms <= self.world.now_ms:
                    self.revoke(lease_id)
        self.world.after(EXPIRY_LOOK_MS, self._expire)

    def transact(self, transaction: Transaction) -> Outcome:
        """All or nothing, at one revision."""
        succeeded = all(self._holds(each) for each in transaction.conditions)
        operations = transaction.then if succeeded else transaction.otherwise
        if any(isinstance(each, Put) and each.lease_id and each.lease_id not in self._leases for each in operations):
            return Outcome(succeeded=False, revision=self.revision, found=tuple(() for _ in transaction.otherwise))
        if any(isinstance(each, Put | Delete) for each in operations):
            self.revision += 1
        found = tuple(self._do(each) for each in operations)
        return Outcome(succeeded, self.revision, found)

    def changes_since(self, revision: int) -> list[Change]:
        """What a watch from this revision on has to deliver. Errors: CompactedError."""
        if revision <= self._compacted:
            raise CompactedError
        return [each for each in self.changes if each.mod_revision >= revision]

    def read(self, key: bytes, range_end: bytes) -> tuple[StoredKey, ...]:
        """The keys of a range, sorted."""
        if not range_end:
            return (self.keys[key],) if key in self.keys else ()
        return tuple(self.keys[each] for each in sorted(self.keys) if key <= each < range_end)

    def _holds(self, compare: Compare) -> bool:
        stored = self.keys.get(compare.key)
        if compare.field is Field.VALUE:
            actual: int | bytes | None = stored.value if stored else None
        else:
            actual = getattr(stored, compare.field.value) if stored else 0
        if compare.relation is Relation.EQUAL:
            return actual == compare.expected
        raise AssertionError("the controller compares for equality only")

    def _do(self, operation: Operation) -> tuple[StoredKey, ...]:
        match operation:
            case Put():
                old = self.keys.get(operation.key)
                created = old.create_revision if old else self.revision
                version = old.version + 1 if old else 1
                stored = StoredKey(operation.key, operation.value, created, self.revision, version, operation.lease_id)
                self.keys[operation.key] = stored
                self._changed(Change(stored.key, stored.value, created, self.revision, stored.lease_id))
                self.wrote(stored)
                return ()
            case Delete():
                for stored in self.read(operation.key, operation.range_end):
                    self._remove(stored.key)
                return ()
            case _:
                return self.read(operation.key, operation.range_end)

    def _remove(self, key: bytes) -> None:
        stored = self.keys.pop(key)
        self._changed(Change(key, None, stored.create_revision, self.revision))

    def _changed(self, change: Change) -> None:
        self.changes.append(change)
        if len(self.changes) > 2 * KEPT_CHANGES:
            self._compacted = self.changes[-KEPT_CHANGES - 1].mod_revision
            del self.changes[:-KEPT_CHANGES]
