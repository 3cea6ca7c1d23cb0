"""What a broker remembers of its set on its own disk, for the case that etcd forgets it (docs/ha.md).

Written before the broker acts on it: a master's proposals are in it, so that whoever may hold what was acknowledged is
named by somebody.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownSet:
    """The SyncStateSet of the newest state that is known, its ids ascending; states are ordered by their epochs."""

    master_epoch: int = 0
    set_epoch: int = 0
    members: tuple[int, ...] = ()

    def hearing(self, master_epoch: int, set_epoch: int, members: Collection[int]) -> KnownSet:
        """With this state, where it is newer; of the same epochs, with these members too."""
        newest, told = (self.master_epoch, self.set_epoch), (master_epoch, set_epoch)
        if told < newest:
            return self
        before = self.members if told == newest else ()
        return KnownSet(master_epoch, set_epoch, tuple(sorted({*before, *members})))
