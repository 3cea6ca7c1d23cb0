"""What etcd holds of a broker set: its keys, and their values as JSON.

```
/apogeemq/<cluster>/controller/active                      who is the active controller (tied to its lease)
/apogeemq/<cluster>/controller/sets/<broker name>/state            SyncState
/apogeemq/<cluster>/controller/sets/<broker name>/replicas/<id>    Replica; the id as ten digits
/apogeemq/<cluster>/controller/live/<broker name>/<id>             empty; tied to the broker's lease
```

The layout of the values is docs/formats/controller.md. Numbers are JSON integers, unknown members are passed over, so
that a newer controller may add some. Source: architecture.md §6.1, §6.5, §6.8; broker_behaviour.md §11.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TypeVar

from apogeemq.controller.core.etcd import StoredKey

NO_MASTER = 0
"""Stands in `SyncState.master_id` while nobody is; broker ids begin at 1."""


@dataclass(frozen=True, slots=True)
class SyncState:
    """Who is master of a broker set, and who holds all that it acknowledged."""

    master_id: int
    master_epoch: int
    members: tuple[int, ...]
    """Broker ids of the SyncStateSet, ascending."""
    set_epoch: int
    possible_loss: bool = False
    """The only member came back without what it had not synced; the next election carries it into `loss_epoch`."""
    loss_epoch: int = 0
    """The last master epoch that began with such a member: what was acknowledged before it may be gone. 0: none."""


NEW_SET = SyncState(NO_MASTER, 0, (), 0)
"""A set that etcd knows nothing of."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A broker of a set, as it registered last."""

    broker_id: int
    check_code: str
    """Made up by the broker for its directory, once: whoever claims the id without it is another broker."""
    address: str
    incarnation: int
    """Counted up by the broker at each start, from 1."""
    boot_id: str
    """The machine's boot: another one means that its page cache is gone."""
    last_epoch: int = 0
    """The highest master epoch that it reported."""
    priority: int = 2**31 - 1
    """brokerElectionPriority: the lowest wins among equals."""
    is_learner: bool = False
    mesh_address: str = ""
    """Where the set's other brokers reach it."""
    known_members: tuple[int, ...] = ()
    """The SyncStateSet of the newest state that it had on its disk, ascending; a master's proposals are in it."""
    known_master_epoch: int = 0
    """Of that state."""
    known_set_epoch: int = 0


@dataclass(frozen=True, slots=True)
class SetKeys:
    """Names of the keys of one broker set."""

    cluster: str
    broker_name: str

    @property
    def active(self) -> bytes:
        """The active controller's key."""
        return active_key(self.cluster)

    @property
    def prefix(self) -> bytes:
        """What all keys of the set begin with."""
        return f"/apogeemq/{self.cluster}/controller/sets/{self.broker_name}/".encode()

    @property
    def state(self) -> bytes:
        """The key of the SyncState."""
        return self.prefix + b"state"

    def replica(self, broker_id: int) -> bytes:
        """The key of a broker."""
        return self.prefix + b"replicas/%010d" % broker_id

    @property
    def live_prefix(self) -> bytes:
        """What the keys of its brokers' leases begin with."""
        return f"/apogeemq/{self.cluster}/controller/live/{self.broker_name}/".encode()

    def live(self, broker_id: int) -> bytes:
        """The key that goes when the broker's lease does."""
        return self.live_prefix + b"%010d" % broker_id


def active_key(cluster: str) -> bytes:
    """The key for which controllers campaign."""
    return f"/apogeemq/{cluster}/controller/active".encode()


def cluster_prefix(cluster: str) -> bytes:
    """What all keys of a cluster's controllers begin with."""
    return f"/apogeemq/{cluster}/controller/".encode()


@dataclass(frozen=True, slots=True)
class Place:
    """What a key is about: a broker set, or, with `live_id`, the lease of that broker of it."""

    broker_name: str
    live_id: int = 0


def place_of(cluster: str, key: bytes) -> Place | None:
    """Find what a key below cluster_prefix() is about; None for the active controller's, and for what is not ours."""
    parts = key.removeprefix(cluster_prefix(cluster)).decode(errors="replace").split("/")
    match parts:
        case ["sets", broker_name, "state"]:
            return Place(broker_name)
        case ["sets", broker_name, "replicas", number] if number.isdecimal():
            return Place(broker_name)
        case ["live", broker_name, number] if number.isdecimal() and int(number) > 0:
            return Place(broker_name, int(number))
        case _:
            return None


V = TypeVar("V", SyncState, Replica)

_LISTS = {"members", "known_members"}


def encode(value: SyncState | Replica) -> bytes:
    """The JSON of a value, members in the order of its fields."""
    return json.dumps(asdict(value), separators=(",", ":")).encode()


def decode(kind: type[V], stored: StoredKey) -> V:
    """The value under a key. Errors: ValueError that names the key, where it is not what `encode` makes."""
    try:
        members = json.loads(stored.value)
        known = {field.name: members[field.name] for field in fields(kind) if field.name in members}
        for name in _LISTS & known.keys():
            known[name] = tuple(sorted(known[name]))
        return kind(**known)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{stored.key.decode(errors='replace')} holds no {kind.__name__}: {error}") from error
