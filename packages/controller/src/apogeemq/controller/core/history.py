"""What brokers remember of their set where etcd knows less: it was emptied, or restored from a backup.

Source: architecture §6.8.

A broker has the newest state that it acts on upon its disk, and tells of it at each registration. A master writes down
who may hold what it acknowledges *before* it acts on it: a set that it proposes, united with the one that holds, and a
smaller one when it has the answer. So where all members of the newest state that anybody remembers are there, nothing
newer was acknowledged by anybody else: a newer state was made by one of them, who would remember it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from apogeemq.controller.core.broker_set import Replica, SyncState
from apogeemq.controller.core.election import Candidate


def highest_epoch(replicas: Mapping[int, Replica], reachable: Iterable[Candidate]) -> int:
    """The highest master epoch that any broker of the set reported; 0 for none."""
    stored = [max(each.last_epoch, each.known_master_epoch) for each in replicas.values()]
    return max([*stored, *(each.epoch for each in reachable)], default=0)


def is_behind(state: SyncState, replicas: Mapping[int, Replica], reachable: Iterable[Candidate]) -> bool:
    """Whether a broker remembers what etcd does not know: no epoch and no set comes from anywhere else."""
    newest = max((_order(each) for each in replicas.values()), default=(0, 0))
    return highest_epoch(replicas, reachable) > state.master_epoch or newest > (state.master_epoch, state.set_epoch)


def last_members(replicas: Mapping[int, Replica], reachable: Iterable[Candidate]) -> tuple[int, ...]:
    """Ids of the SyncStateSet of the newest state that is remembered, ascending; empty where nobody can say.

    Nobody can where an epoch was reported that is newer than each remembered state.
    """
    newest = max((_order(each) for each in replicas.values()), default=(0, 0))
    if newest[0] < highest_epoch(replicas, reachable):
        return ()
    return tuple(sorted({one for each in replicas.values() if _order(each) == newest for one in each.known_members}))


def _order(replica: Replica) -> tuple[int, int]:
    return replica.known_master_epoch, replica.known_set_epoch
