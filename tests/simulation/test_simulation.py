"""The cluster of simulated processes: it keeps its invariants, and would notice if a rule were broken."""

import pytest

from tests.simulation.broker_node import BrokerNode
from tests.simulation.cluster import Cluster, run
from tests.simulation.mutants import MUTANTS

SEEDS = [*range(148), 1055, 1143]
"""30, 36, 116, 122 and the last two found faults while the machines were written."""

CAUGHT_BY = {
    "fencing by clock only": 0,
    "acknowledged by n replicas": 0,
    "confirm over the known set only": 1,
    "confirm over the proposed set only": 0,
    "a replica enters before it caught up": 1,
    "a learner in the set": 2,
    "an unclean restart keeps its place": 0,
    "a clean stop clears a power loss before it": 63,
    "an old proposal changes the set": 154,
    "an old epoch is obeyed": 84,
    "election from outside the set": 0,
    "truncation by epoch only": 0,
    "no truncation": 2,
    "mastership resumed": 0,
    "readers beyond confirm": 5,
    "progress pointer ahead of the log": 2,
}
"""Mutant → a seed whose faults bring it to light."""


@pytest.mark.parametrize("seed", SEEDS)
def test_invariants_hold_under_faults(seed: int) -> None:
    """Half a minute of faults, then progress; `./task sim -- SEED` shows the run."""
    assert run(seed).checkers.acknowledged_count > 50


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_rule_is_noticed(name: str) -> None:
    """Each mutant ends its run with an invariant that does not hold."""
    with pytest.raises(AssertionError):
        run(CAUGHT_BY[name], MUTANTS[name]())


def test_a_seed_is_one_run() -> None:
    """The same seed gives the same trace, word by word."""
    assert run(7).world.trace == run(7).world.trace


def _calm() -> Cluster:
    """Five seconds without a fault: a master, and the others in its set."""
    cluster = Cluster(0)
    cluster.begin()
    cluster.world.run_until(5_000)
    assert len(cluster.checkers.state.members) >= 3
    cluster.checkers.longest_pause_ms = 0
    return cluster


def _master(cluster: Cluster) -> BrokerNode:
    return next(broker for broker in cluster.brokers if broker.is_leading)


def test_an_outage_of_etcd_alone_stops_no_write() -> None:
    """The set can't change, and does not have to (architecture §6.3)."""
    cluster = _calm()
    cluster.etcd.outage(20_000)
    cluster.world.run_until(30_000)
    assert cluster.checkers.longest_pause_ms < 1_000
    assert cluster.checkers.last_acknowledged_ms > 29_000


def test_the_death_of_the_active_controller_stops_no_write() -> None:
    """Brokers beat to two controllers: nobody expires, nobody is elected anew (architecture §6.2)."""
    cluster = _calm()
    epoch = cluster.checkers.state.master_epoch
    next(controller for controller in cluster.controllers if controller.is_active).stop()
    cluster.world.run_until(20_000)
    assert cluster.checkers.longest_pause_ms < 1_000
    assert cluster.checkers.state.master_epoch == epoch
    assert any(controller.is_active for controller in cluster.controllers)


def test_a_killed_master_is_followed_within_two_seconds() -> None:
    """Half a second of grace, an election, and the next acknowledgement; nothing is lost."""
    cluster = _calm()
    _master(cluster).stop()
    cluster.world.run_until(15_000)
    assert 0 < cluster.checkers.longest_pause_ms < 2_000
    assert cluster.checkers.state.master_epoch == 2


def test_no_election_while_the_active_controller_and_the_master_are_cut_from_each_other_for_a_moment() -> None:
    """A stream that comes back within its 500 ms of grace costs nobody anything (architecture §6.2)."""
    cluster = _calm()
    for stream in cluster.network.streams:
        stream.close()
    cluster.world.run_until(15_000)
    assert cluster.checkers.state.master_epoch == 1


def test_a_master_that_is_cut_off_alone_acknowledges_nothing_afterwards() -> None:
    """It serves on, but its set does not answer; the others elect (architecture §6.3)."""
    cluster = _calm()
    old = _master(cluster)
    for other in (*cluster.brokers, *cluster.controllers):
        cluster.network.cut(old.name, other.name)
        cluster.network.cut(other.name, old.name)
    cluster.world.run_until(20_000)
    assert old.is_leading
    assert sum(broker.is_leading for broker in cluster.brokers) == 2
    assert cluster.checkers.last_acknowledged_ms > 19_000
