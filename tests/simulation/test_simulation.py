"""The cluster of simulated processes: it keeps its invariants, and would notice if a rule were broken."""

import pytest
from apogeemq.controller.core.requests import AskElection, ChangeSet, Leave, Member, Request, SetLearner

from tests.simulation.broker_node import BrokerNode, Machines
from tests.simulation.cluster import Cluster, Settings, run
from tests.simulation.mutants import MUTANTS
from tests.simulation.popped_broker import POPPED
from tests.simulation.timed_broker import TIMED
from tests.simulation.topic_broker import TOPICS

SEEDS = [*range(146), 240, 683, 1055, 1143, 2168]
"""30, 36, 116, 122 and the last five found faults while machines and simulator were written."""

CAUGHT_BY = {
    "fencing by clock only": 0,
    "acknowledged by n replicas": 0,
    "confirm over the known set only": 3,
    "confirm over the proposed set only": 2,
    "a replica enters before it caught up": 1,
    "a learner in the set": 0,
    "a learner keeps its place in the set": 0,
    "an unclean restart keeps its place": 0,
    "a clean stop clears a power loss before it": 87,
    "an old proposal changes the set": 327,
    "an old epoch is obeyed": 15,
    "election from outside the set": 0,
    "truncation by epoch only": 0,
    "no truncation": 3,
    "mastership resumed": 0,
    "readers beyond confirm": 22,
    "progress pointer ahead of the log": 0,
    "an emptied etcd begins with anybody": 3,
    "retention without roll-forward": 0,
    "tables now and then": 0,
}
"""Mutant → a seed whose faults bring it to light."""


@pytest.mark.parametrize("seed", SEEDS)
def test_invariants_hold_under_faults(seed: int) -> None:
    """Half a minute of faults, then progress; `./task sim -- SEED` shows the run."""
    assert run(seed).checkers.acknowledged_count > 50


@pytest.mark.parametrize("seed", [*range(10), 25, 28, 36, 51, 258, 572])
def test_invariants_hold_while_the_log_expires(seed: int) -> None:
    """Timers are stored anew before their file goes; replicas that fell behind the log's beginning start over there."""
    assert run(seed, TIMED).checkers.acknowledged_count > 50


@pytest.mark.parametrize("seed", range(10))
def test_a_new_master_has_the_topics_of_all_that_was_acknowledged(seed: int) -> None:
    """They travel before the first message that needs them (architecture §6.10), through any faults."""
    assert run(seed, TOPICS).checkers.acknowledged_count > 50


@pytest.mark.parametrize("seed", [*range(10), 19])
def test_what_was_popped_comes_again_whoever_leads(seed: int) -> None:
    """Pointers that are no part of the log are never ahead of what the next master has; 0 and 19 found a standstill."""
    assert run(seed, POPPED).checkers.acknowledged_count > 50


@pytest.mark.parametrize("seed", range(12))
def test_invariants_hold_where_etcd_is_emptied(seed: int) -> None:
    """Twice in a run, among all other faults but losses of power: the set begins again by itself (§6.8)."""
    assert run(seed, Settings(etcd_forgets=True)).checkers.acknowledged_count > 50


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


def test_leaders_that_etcd_loses_stop_no_write() -> None:
    """Leases live on, decisions wait, and nobody is elected anew (architecture §6.3)."""
    cluster = _calm()
    for began_ms in range(0, 20_000, 4_000):
        cluster.world.after(began_ms, lambda: cluster.etcd.lose_leader(2_500))
    cluster.world.run_until(30_000)
    assert cluster.checkers.longest_pause_ms < 1_000
    assert cluster.checkers.state.master_epoch == 1


def test_an_operator_names_the_next_master() -> None:
    """electMaster over a master that is alive: the one that was named follows, and nothing is lost."""
    cluster = _calm()
    chosen = next(each for each in cluster.brokers if not each.is_leading and not each.is_learner)
    cluster.operator.elect(chosen)
    cluster.world.run_until(8_000)
    assert chosen.is_leading
    assert cluster.checkers.state.master_epoch == 2


def test_a_replica_becomes_a_learner_and_a_replica_again() -> None:
    """It leaves the SyncStateSet at once, and comes back once it has caught up (architecture §6.6)."""
    cluster = _calm()
    switched = next(each for each in cluster.brokers if not each.is_leading and not each.is_learner)
    cluster.operator.learners |= {switched.name}
    cluster.world.run_until(9_000)
    assert switched.broker_id not in cluster.checkers.state.members
    cluster.operator.learners -= {switched.name}
    cluster.world.run_until(15_000)
    assert switched.broker_id in cluster.checkers.state.members


def test_an_unclean_election_says_that_it_may_lose() -> None:
    """Off, nobody is elected from outside the set; on, somebody is, in an epoch that is flagged (architecture §6.3)."""
    cluster = _calm()
    outside = next(each for each in cluster.brokers if not each.is_leading and not each.is_learner)
    outside.stop()
    cluster.world.run_until(9_000)
    for broker in cluster.brokers:
        if broker.is_up:
            broker.stop()
    outside.start()
    cluster.world.run_until(20_000)
    assert cluster.checkers.state.master_epoch == 1
    cluster.operator.allow_unclean(is_allowed=True)
    cluster.world.run_until(30_000)
    assert outside.is_leading
    assert cluster.checkers.state.loss_epoch == cluster.checkers.state.master_epoch == 2
    assert cluster.checkers.lost_count > 0


def _is_refused(cluster: Cluster, who: str, why: str) -> bool:
    return any(f"{who} " in line and "is refused" in line and why in line for line in cluster.world.trace)


def test_a_broker_that_claims_the_id_of_another_is_refused() -> None:
    """Two brokers, one id: the second ends with a clear word, and there is one master (architecture §6.5)."""
    cluster = _calm()
    stranger = BrokerNode(cluster.world, "b9", cluster.network, cluster.checkers, Machines(), is_learner=False)
    stranger.broker_id, stranger.peers, stranger.controllers = 2, {}, cluster.controllers
    stranger.start()
    cluster.world.run_until(9_000)
    assert _is_refused(cluster, "b9", "broker id 2 belongs to")
    assert not stranger.is_leading
    assert cluster.checkers.state.master_epoch == 1


def test_a_directory_from_before_the_last_start_is_refused() -> None:
    """A copy of a broker's directory counts its starts from where it was taken (architecture §6.5)."""
    cluster = _calm()
    broker = next(each for each in cluster.brokers if not each.is_leading)
    broker.stop()
    broker.start()
    cluster.world.run_until(7_000)
    broker.stop()
    broker.disk.starts = 0
    broker.start()
    cluster.world.run_until(12_000)
    assert _is_refused(cluster, broker.name, "this is start 1")


@pytest.mark.parametrize(
    ("request_made", "why"),
    [
        (AskElection(0, 99, 1), "BROKER_NEED_TO_BE_REGISTERED"),
        (SetLearner(0, 99, True), "BROKER_NEED_TO_BE_REGISTERED"),
        (Leave(0, 99, 1), "BROKER_NEED_TO_BE_REGISTERED"),
        (AskElection(0, 2, 1), "MASTER_STILL_EXIST"),
        (ChangeSet(0, 1, 1, 3, (Member(2, 1),)), "ALTER_SYNC_STATE_SET_FAILED"),
    ],
)
def test_a_request_that_makes_no_sense_changes_nothing(request_made: Request, why: str) -> None:
    """It is refused with a reason; master, set and epochs are as before."""
    cluster = _calm()
    state = cluster.checkers.state
    assert (state.master_id, state.master_epoch, state.set_epoch) == (1, 1, 3)
    cluster.operator.ask(request_made)
    cluster.world.run_until(7_000)
    assert _is_refused(cluster, "op", why)
    assert cluster.checkers.state == state


def test_an_emptied_etcd_lacks_a_member_and_elects_nobody() -> None:
    """Brokers remember one who is not there: a person has to recover the set (§6.8). Nobody else leads meanwhile."""
    cluster = _calm()
    member = next(each for each in cluster.brokers if not each.is_leading and not each.is_learner)
    member.stop()
    cluster.etcd.forget()
    cluster.world.run_until(15_000)
    cluster.operator.elect()
    cluster.world.run_until(20_000)
    assert _is_refused(cluster, "op", "brokers remember")
    assert sum(broker.is_leading for broker in cluster.brokers) == 1
    member.start()
    cluster.world.run_until(30_000)
    assert cluster.checkers.state.master_epoch == 2, "it begins again by itself"
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
