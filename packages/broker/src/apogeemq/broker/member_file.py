"""The file that makes a broker's directory the same broker at its next start: `config/setMember.json`.

```
{"cluster": "DefaultCluster", "brokerName": "broker-a", "brokerId": 2, "checkCode": "6f…", "incarnation": 7,
 "cleanStop": false, "lostUnsynced": false, "masterEpoch": 4, "setEpoch": 9, "members": [1, 2, 3]}
```
Written before this start is told to anybody: a start that was not counted could pass for the one before it. What it is
for: docs/ha.md, "Registration". Without a controller there is no such file.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec
from apogeemq.broker.core.replication.known_set import KnownSet
from apogeemq.mesh.errors import ConfigError
from apogeemq.store.files import Disk, replace_file

FILE_SIZE_BYTES_MAX = 1 << 20


class SetMembership(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a broker keeps of itself.

    `incarnation` counts starts, from 1. `clean_stop`: the stop before this start had synced everything.
    `lost_unsynced`: a recovery dropped bytes since a registration was accepted. `members` is the SyncStateSet that it
    heard of last, or proposed to change that into, of these epochs: for a set that etcd forgot (docs/ha.md).
    """

    cluster: str
    broker_name: str
    broker_id: int = 0
    check_code: str
    incarnation: int = 0
    clean_stop: bool = True
    lost_unsynced: bool = False
    master_epoch: int = 0
    set_epoch: int = 0
    members: tuple[int, ...] = ()


class MemberFile:
    """The file of one store directory. Blocking; one thread at a time."""

    def __init__(self, disk: Disk, root: Path) -> None:
        self._disk = disk
        self._path = root / "config" / "setMember.json"

    def load(self) -> SetMembership | None:
        """What it says; None where there is none. Raises ConfigError for one that can't be read, or is another's."""
        try:
            size_bytes = self._disk.size_of(self._path)
            if size_bytes is None:
                return None
            if size_bytes > FILE_SIZE_BYTES_MAX:
                raise ConfigError(str(self._path), f"has {size_bytes} bytes; it is not this broker's")
            return msgspec.json.decode(self._disk.read_file(self._path), type=SetMembership)
        except msgspec.MsgspecError as error:
            text = f"cannot be read: {error}. Restore it, or empty the store's directory to copy everything anew"
            raise ConfigError(str(self._path), text) from error

    def save(self, membership: SetMembership) -> None:
        """Write it, durably. Errors: OSError."""
        replace_file(self._disk, self._path, msgspec.json.format(msgspec.json.encode(membership), indent=1))


def began(
    known: SetMembership | None, *, cluster: str, broker_name: str, check_code: str, dropped_bytes: int
) -> SetMembership:
    """The membership of the start that begins now. Raises ConfigError where the directory belongs to another set.

    `check_code` is for a directory without one. `clean_stop` is still that of the stop before.
    """
    if known is None:
        known = SetMembership(cluster=cluster, broker_name=broker_name, check_code=check_code)
    if (known.cluster, known.broker_name) != (cluster, broker_name):
        raise ConfigError(
            "store.path",
            f"the store belongs to broker set {known.broker_name} of cluster {known.cluster}, and this broker is of "
            f"{broker_name} of {cluster}: give it a directory of its own",
        )
    return msgspec.structs.replace(
        known,
        incarnation=known.incarnation + 1,
        lost_unsynced=known.lost_unsynced or dropped_bytes > 0,
    )


def remembering(known: SetMembership, master_epoch: int, set_epoch: int, members: Collection[int]) -> SetMembership:
    """The membership after it heard of this state of the set, see KnownSet."""
    before = KnownSet(known.master_epoch, known.set_epoch, known.members)
    heard = before.hearing(master_epoch, set_epoch, members)
    return msgspec.structs.replace(
        known, master_epoch=heard.master_epoch, set_epoch=heard.set_epoch, members=heard.members
    )
