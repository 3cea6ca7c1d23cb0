"""etcd's values as the controller's rules see them: keys with revisions, transactions, changes.

Plain data, without protobuf or network: the decisions of this room are made of it, the client in `links/` translates
it, and a simulated store can stand in for etcd. Semantics by etcd's own documentation of its v3 API:

    revision          counts every change of the whole store, from 1
    create_revision   the revision that made a key
    mod_revision      the revision that wrote it last
    version           1 when made, one more with each write; 0 stands for a key that is not there
    lease_id          the key goes when that lease ends; 0 is none

A range of keys is [key, range_end); an empty `range_end` means the one key.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as etcd holds it at some revision."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease_id: int = 0


class Field(enum.Enum):
    """What of a key a transaction compares."""

    VERSION = "version"
    CREATE_REVISION = "create_revision"
    MOD_REVISION = "mod_revision"
    VALUE = "value"
    LEASE_ID = "lease_id"


class Relation(enum.Enum):
    """How it must stand to what is expected."""

    EQUAL = "=="
    GREATER = ">"
    LESS = "<"
    NOT_EQUAL = "!="


@dataclass(frozen=True, slots=True)
class Compare:
    """One condition of a transaction. A key that is not there has 0 in every field; its VALUE compares as false."""

    key: bytes
    field: Field
    relation: Relation
    expected: int | bytes


def is_absent(key: bytes) -> Compare:
    """There is no such key."""
    return Compare(key, Field.VERSION, Relation.EQUAL, 0)


def is_unchanged(key: bytes, mod_revision: int) -> Compare:
    """The key was last written at this revision; 0 means that it is still not there."""
    return Compare(key, Field.MOD_REVISION, Relation.EQUAL, mod_revision)


def is_same_key(key: bytes, create_revision: int) -> Compare:
    """The key is the one that was made at this revision, and was not deleted since."""
    return Compare(key, Field.CREATE_REVISION, Relation.EQUAL, create_revision)


@dataclass(frozen=True, slots=True)
class Put:
    """Writes a key; `lease_id` 0 ties it to no lease."""

    key: bytes
    value: bytes
    lease_id: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes the keys of a range."""

    key: bytes
    range_end: bytes = b""


@dataclass(frozen=True, slots=True)
class Read:
    """Reads the keys of a range, sorted."""

    key: bytes
    range_end: bytes = b""


Operation = Put | Delete | Read


@dataclass(frozen=True, slots=True)
class Transaction:
    """All of `then` when every condition holds, else all of `otherwise`; etcd does either as one revision.

    No key may be written twice in one branch, which has 128 operations at most (--max-txn-ops): etcd refuses the whole.
    """

    conditions: tuple[Compare, ...]
    then: tuple[Operation, ...]
    otherwise: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a transaction did: which branch, at which revision, and per operation the keys it read.

    `found` has one entry for each operation of the branch; those of a Put or Delete are empty.
    """

    succeeded: bool
    revision: int
    found: tuple[tuple[StoredKey, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch: `value` is None where the key was deleted."""

    key: bytes
    value: bytes | None
    create_revision: int
    mod_revision: int
    lease_id: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """Keys of a range, sorted, as they were at `revision`: watch from the one after it to miss nothing."""

    revision: int
    keys: tuple[StoredKey, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it was granted: `ttl_s` may be more than was asked for, `sent_ms` is when it was.

    `sent_ms` is of a clock that goes on while the machine sleeps.
    """

    lease_id: int
    ttl_s: int
    sent_ms: int


def end_of_prefix(prefix: bytes) -> bytes:
    """The exclusive end of all keys that begin with `prefix`; b"\\0" stands for no end."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"
