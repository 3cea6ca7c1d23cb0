"""A master's confirm offset and proposals (architecture §6.3, §6.4)."""

from apogeemq.broker.core.replication.progress import (
    Acknowledged,
    Confirm,
    Member,
    Progress,
    Propose,
    TakeSet,
    Tick,
    Written,
)

EPOCH = 5
A, B, C = Member(1, 1), Member(2, 1), Member(3, 1)


def leading(*members: int, min_in_sync: int = 2) -> Progress:
    """Broker 1 leads epoch 5 from offset 100, confirmed up to 60."""
    known = TakeSet(frozenset(members), 9)
    return Progress(EPOCH, A, known, end_offset=100, confirm_offset=60, min_in_sync=min_in_sync, now_ms=0)


def ack(replica: Member, offset: int, *, epoch: int = EPOCH, is_learner: bool = False) -> Acknowledged:
    return Acknowledged(epoch, replica, offset, is_learner)


def test_the_whole_set_has_to_hold_a_record() -> None:
    """Two of three are not enough."""
    master = leading(1, 2, 3)
    assert master.step(Written(200), 10) == ()
    assert master.step(ack(B, 200), 20) == ()
    assert master.step(ack(C, 150), 30) == (Confirm(150),)
    assert master.may_acknowledge(150)
    assert not master.may_acknowledge(151)


def test_the_confirm_offset_never_goes_back() -> None:
    """A member that came back with less is waited for."""
    master = leading(1, 2)
    master.step(ack(B, 100), 10)
    assert master.step(ack(B, 70), 20) == ()
    assert master.confirm_offset == 100


def test_another_epoch_acknowledges_nothing() -> None:
    """Neither an older one nor a newer."""
    master = leading(1, 2)
    assert master.step(ack(B, 100, epoch=4), 10) == ()
    assert master.step(ack(B, 100, epoch=6), 10) == ()


def test_a_small_set_confirms_and_acknowledges_nothing() -> None:
    """Below minInSyncReplicas a send is refused before anything is stored."""
    master = leading(1)
    assert master.step(Tick(), 10) == (Confirm(100),)
    assert not master.takes_writes
    assert not master.may_acknowledge(100)


def test_a_replica_that_caught_up_is_proposed_at_once_and_waited_for_until_the_controller_speaks() -> None:
    """In flight it counts as a member, and so do those of the known set; a refusal changes nothing."""
    master = leading(1, 2)
    master.step(ack(B, 100), 10)
    assert master.step(ack(C, 99), 20) == ()
    assert master.step(ack(C, 100), 30) == (Propose(EPOCH, 9, (A, B, C)),)
    master.step(Written(300), 40)
    assert master.step(ack(B, 300), 50) == ()
    assert master.step(ack(C, 200), 60) == (Confirm(200),)
    assert master.step(TakeSet(frozenset({1, 2}), 10), 70)[0] == Confirm(300)


def test_a_replica_without_the_tables_is_not_proposed_and_counts_all_the_same() -> None:
    """One that was proposed, and connects anew: its tables wait for what is confirmed, which waits for it."""
    master = leading(1, 2)
    master.step(ack(B, 100), 10)
    assert master.step(Acknowledged(EPOCH, C, 100, has_tables=False), 20) == ()
    assert master.step(ack(C, 100), 30) == (Propose(EPOCH, 9, (A, B, C)),)
    master.step(Written(300), 40)
    assert master.step(ack(B, 300), 50) == ()
    assert master.step(Acknowledged(EPOCH, C, 200, has_tables=False), 60) == (Confirm(200),)


def test_a_proposal_is_made_again_each_half_second() -> None:
    """Until the state of the set goes on."""
    master = leading(1, 2)
    master.step(ack(B, 100), 0)
    proposed = master.step(ack(C, 100), 0)
    master.step(ack(B, 100), 499)
    assert master.step(ack(C, 100), 499) == ()
    assert master.step(Tick(), 500) == proposed
    assert master.step(TakeSet(frozenset({1, 2, 3}), 10), 510) == ()
    assert master.members == {1, 2, 3}


def test_a_silent_member_leaves_after_a_second_and_a_half() -> None:
    """It is waited for until the controller agrees."""
    master = leading(1, 2, 3)
    master.step(ack(B, 100), 1_000)
    assert master.step(Tick(), 1_499) == ()
    assert master.step(Tick(), 1_500) == (Propose(EPOCH, 9, (A, B)),)
    assert master.confirm_offset == 60
    assert master.step(TakeSet(frozenset({1, 2}), 10), 1_510) == (Confirm(100),)


def test_a_learner_is_never_proposed_nor_waited_for() -> None:
    """§6.6."""
    master = leading(1, 2)
    master.step(ack(B, 100), 10)
    assert master.step(ack(C, 100, is_learner=True), 20) == ()
    master.step(Written(200), 30)
    assert master.step(ack(B, 200), 40) == (Confirm(200),)


def test_an_older_set_is_passed_over() -> None:
    """Notifications overtake each other."""
    master = leading(1, 2)
    master.step(TakeSet(frozenset({1}), 8), 10)
    assert master.set_epoch == 9
