"""A broker's role by epochs (architecture §6.1–6.7)."""

from apogeemq.broker.core.replication.role import (
    AskElection,
    EpochSaved,
    Follow,
    Knows,
    Lead,
    Role,
    RoleOfBroker,
    SaveEpoch,
    StopLeading,
    TakeSet,
    Tick,
    Told,
)

SET = frozenset({1, 2})


def leading() -> RoleOfBroker:
    """Broker 1 leads epoch 5."""
    broker = RoleOfBroker(1, last_epoch=4)
    assert broker.step(Told(1, 5, SET, 9), 0) == (SaveEpoch(5), Knows(5, 9))
    assert broker.role is Role.PROMOTED
    assert broker.step(EpochSaved(5), 0) == (Lead(5, SET, 9),)
    return broker


def test_nobody_leads_before_its_epoch_is_on_the_disk() -> None:
    """§6.7; another epoch's file write does not count."""
    broker = RoleOfBroker(1, last_epoch=4)
    broker.step(Told(1, 5, SET, 9), 0)
    broker.step(Told(1, 6, SET, 10), 1)
    assert broker.step(EpochSaved(5), 2) == ()
    assert broker.step(EpochSaved(6), 3) == (Lead(6, SET, 10),)


def test_a_master_takes_new_sets_of_its_epoch() -> None:
    """And passes over older ones."""
    broker = leading()
    assert broker.step(Told(1, 5, frozenset({1}), 10), 1) == (TakeSet(frozenset({1}), 10), Knows(5, 10))
    assert broker.step(Told(1, 5, SET, 9), 2) == (Knows(5, 9),)


def test_a_deposed_master_stops_before_it_follows() -> None:
    """Its sends are refused first."""
    broker = leading()
    assert broker.step(Told(2, 6, SET, 10), 1) == (StopLeading(), Follow(2, 6), Knows(6, 10))
    assert broker.step(Told(1, 5, SET, 11), 2) == (Knows(5, 11),)
    assert broker.step(Told(2, 6, frozenset({2}), 11), 3) == (Knows(6, 11),)


def test_a_master_elected_anew_begins_anew() -> None:
    """Sends that wait belong to the old epoch."""
    broker = leading()
    assert broker.step(Told(1, 6, SET, 10), 1) == (StopLeading(), SaveEpoch(6), Knows(6, 10))


def test_nobody_resumes_mastership_in_its_old_epoch() -> None:
    """§6.5: it was started anew, and asks each second for an election instead."""
    broker = RoleOfBroker(1, last_epoch=5)
    assert broker.step(Told(1, 5, SET, 9), 5_000) == (AskElection(5), Knows(5, 9))
    assert broker.step(Tick(), 5_999) == ()
    assert broker.step(Tick(), 6_000) == (AskElection(5),)
    assert broker.step(Told(1, 6, SET, 10), 6_001) == (SaveEpoch(6), Knows(6, 10))
    assert broker.step(Tick(), 8_000) == ()


def test_a_set_without_a_master_is_asked_for_one() -> None:
    """Also the first time, when nothing was decided yet."""
    broker = RoleOfBroker(1, last_epoch=0)
    assert broker.step(Told(0, 0, frozenset(), 0), 1_000) == (AskElection(0), Knows(0, 0))
    master = leading()
    assert master.step(Told(0, 5, SET, 10), 1_000) == (StopLeading(), AskElection(5), Knows(5, 10))
