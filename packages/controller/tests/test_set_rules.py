"""What a request makes of a broker set: refusals, ids, places kept and lost (architecture §6.5, §6.6, §6.8)."""

from dataclasses import replace

import pytest
from apogeemq.controller.core.broker_set import NEW_SET, Replica, SyncState
from apogeemq.controller.core.election import Candidate, Refusal
from apogeemq.controller.core.requests import (
    BY_OPERATOR,
    EVERY_BROKER,
    AskElection,
    ChangeSet,
    CleanBroker,
    Leave,
    Member,
    Refused,
    Register,
    SetLearner,
)
from apogeemq.controller.core.set_rules import REPLICAS_MAX, Decision, SetRules, View

RULES = SetRules()
STATE = SyncState(master_id=1, master_epoch=5, members=(1, 2), set_epoch=9)


def replica(broker_id: int, *, is_learner: bool = False) -> Replica:
    return Replica(broker_id, f"code{broker_id}", f"host{broker_id}:10911", 3, "boot", is_learner=is_learner)


def view(state: SyncState = STATE, *, alive: tuple[int, ...] = (1, 2, 3, 4)) -> View:
    """Brokers 1 to 3 and the learner 4, each with a log of its id times ten."""
    replicas = {each: replica(each, is_learner=each == 4) for each in (1, 2, 3, 4)}
    reachable = tuple(Candidate(replicas[each], epoch=5, end_offset=10 * each) for each in alive)
    return View(state, replicas, frozenset(alive), reachable)


def registration(broker_id: int, code: str, **other: object) -> Register:
    plain = Register(1, broker_id, code, "host:10911", 4, "boot", True, False, 5, 100)
    return replace(plain, **other)  # type: ignore[arg-type]


def refusal(decided: Decision | Refused) -> Refusal:
    assert isinstance(decided, Refused)
    return decided.code


def decision(decided: Decision | Refused) -> Decision:
    assert isinstance(decided, Decision)
    return decided


def test_a_new_broker_gets_the_next_id_and_finds_it_again() -> None:
    """The check code stands for the directory when the first answer was lost (broker_behaviour.md §11)."""
    first = decision(RULES.register(View(NEW_SET, {}, frozenset(), ()), registration(0, "new")))
    assert first.broker_id == 1
    assert decision(RULES.register(view(), registration(0, "new"))).broker_id == 5
    assert decision(RULES.register(view(), registration(0, "code2"))).broker_id == 2


def test_two_brokers_cannot_have_one_id() -> None:
    """2014, with the address of the one that has it."""
    refused = RULES.register(view(), registration(2, "copied"))
    assert refusal(refused) == Refusal.BROKER_ID_INVALID
    assert isinstance(refused, Refused)
    assert "host2:10911" in refused.text


def test_an_older_start_than_the_last_is_another_directory() -> None:
    """A copy of the directory from before counts its starts from there."""
    assert refusal(RULES.register(view(), registration(2, "code2", incarnation=2))) == Refusal.BROKER_ID_INVALID


def test_one_start_has_one_address() -> None:
    """A copy of a directory that counts as many starts as the original."""
    moved = registration(2, "code2", incarnation=3, address="copy:10911")
    assert refusal(RULES.register(view(), moved)) == Refusal.BROKER_ID_INVALID
    same = registration(2, "code2", incarnation=3, address="host2:10911")
    assert decision(RULES.register(view(), same)).broker_id == 2


@pytest.mark.parametrize(
    ("stop", "members"),
    [
        ({}, (1, 2)),
        ({"clean_stop": False}, (1, 2)),
        ({"boot_id": "other"}, (1, 2)),
        ({"boot_id": "other", "clean_stop": False}, (1,)),
        ({"boot_id": "other", "incarnation": 5}, (1,)),
        ({"incarnation": 5}, (1, 2)),
        ({"lost_unsynced": True}, (1,)),
    ],
)
def test_who_keeps_its_place_in_the_set(stop: dict[str, object], members: tuple[int, ...]) -> None:
    """Only the page cache of another boot, or bytes dropped, cost the place (§6.5)."""
    decided = decision(RULES.register(view(), registration(2, "code2", **stop)))
    assert (decided.state or STATE).members == members


def test_the_last_member_stays_and_its_next_epoch_says_what_may_be_lost() -> None:
    """§6.5: a sole member stays electable but is flagged."""
    alone = replace(STATE, members=(1,))
    lost = decision(RULES.register(view(alone), registration(1, "code1", lost_unsynced=True))).state
    assert lost is not None
    assert (lost.members, lost.master_id, lost.possible_loss) == ((1,), 0, True)
    elected = decision(RULES.ask_election(view(lost), AskElection(1, 1, over_epoch=5))).state
    assert elected is not None
    assert (elected.master_id, elected.master_epoch, elected.loss_epoch, elected.possible_loss) == (1, 6, 6, False)


def test_an_election_takes_a_member_with_the_longest_log_and_keeps_those_alive() -> None:
    """§6.6: not broker 3, whose log is longer, for it is no member; both epochs go up."""
    decided = decision(RULES.ask_election(view(alive=(2, 3, 4)), AskElection(1, 2, over_epoch=5)))
    assert decided.state == SyncState(2, 6, (2,), 10)


def test_nobody_from_outside_is_elected_unless_it_is_allowed() -> None:
    """2004; with enableElectUncleanMaster the epoch says that messages may be lost, and a learner still is none."""
    outside = view(alive=(3, 4))
    assert refusal(RULES.ask_election(outside, AskElection(1, 3, over_epoch=5))) == Refusal.MASTER_NOT_AVAILABLE
    unclean = decision(SetRules(unclean=True).ask_election(outside, AskElection(1, 3, over_epoch=5)))
    assert unclean.state == SyncState(3, 6, (3,), 10, loss_epoch=6)


def test_a_living_master_stays_unless_an_operator_says_otherwise() -> None:
    """2011; an operator may name who follows, of the set only (§6.6)."""
    assert refusal(RULES.ask_election(view(), AskElection(1, 2, over_epoch=5))) == Refusal.MASTER_STILL_EXIST
    named = decision(RULES.ask_election(view(), AskElection(1, BY_OPERATOR, 0, designated_id=2)))
    assert named.state is not None
    assert (named.state.master_id, named.state.members) == (2, (1, 2))
    outside = RULES.ask_election(view(), AskElection(1, BY_OPERATOR, 0, designated_id=3))
    assert refusal(outside) == Refusal.MASTER_NOT_AVAILABLE


def test_a_late_ask_for_an_election_changes_nothing() -> None:
    """The epoch that it wanted to end has ended."""
    assert decision(RULES.ask_election(view(), AskElection(1, 1, over_epoch=4))) == Decision(1)


def test_a_stranger_has_to_register_first() -> None:
    """2010."""
    asked = RULES.ask_election(view(), AskElection(1, 8, over_epoch=5))
    assert refusal(asked) == Refusal.BROKER_NEED_TO_BE_REGISTERED
    assert refusal(RULES.set_learner(view(), SetLearner(1, 8, True))) == Refusal.BROKER_NEED_TO_BE_REGISTERED


def test_a_set_with_a_history_is_not_founded_anew() -> None:
    """§6.8: an emptied etcd must not make a master of whoever comes first."""
    old = View(NEW_SET, {1: replace(replica(1), last_epoch=7)}, frozenset({1}), ())
    assert refusal(RULES.ask_election(old, AskElection(1, 1, over_epoch=7))) == Refusal.ELECT_MASTER_FAILED


def proposal(*members: int, master: int = 1, epoch: int = 5, set_epoch: int = 9, incarnation: int = 3) -> ChangeSet:
    return ChangeSet(1, master, epoch, set_epoch, tuple(Member(each, incarnation) for each in members))


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (proposal(1, epoch=4), Refusal.FENCED_MASTER_EPOCH),
        (proposal(1, epoch=6), Refusal.FENCED_MASTER_EPOCH),
        (proposal(2, master=2), Refusal.INVALID_MASTER),
        (proposal(1, set_epoch=7), Refusal.FENCED_SYNC_STATE_SET_EPOCH),
        (proposal(1, 2), Refusal.ALTER_SYNC_STATE_SET_FAILED),
        (proposal(2), Refusal.ALTER_SYNC_STATE_SET_FAILED),
        (proposal(1, 2, 8), Refusal.INVALID_REPLICAS),
        (proposal(1, 2, 4), Refusal.INVALID_REPLICAS),
        (proposal(1, 2, 3, incarnation=2), Refusal.INVALID_REPLICAS),
    ],
)
def test_refused_proposals(request_: ChangeSet, code: Refusal) -> None:
    """Another epoch, master or set; no change, no master; a stranger, a learner, a start that is over."""
    assert refusal(RULES.change_set(view(), request_)) == code


def test_a_dead_broker_does_not_enter_the_set() -> None:
    """2006."""
    assert refusal(RULES.change_set(view(alive=(1, 2)), proposal(1, 2, 3))) == Refusal.BROKER_NOT_ALIVE


def test_a_proposal_that_was_carried_out_is_accepted_again() -> None:
    """Its answer was lost; nothing is written a second time (§6.13)."""
    first = decision(RULES.change_set(view(), proposal(1, 2, 3)))
    assert first.state == replace(STATE, members=(1, 2, 3), set_epoch=10)
    assert decision(RULES.change_set(view(first.state), proposal(1, 2, 3))) == Decision(1)


def test_a_learner_leaves_the_set_by_the_same_decision() -> None:
    """§6.6; never the master, never the last member."""
    left = decision(RULES.set_learner(view(), SetLearner(1, 2, is_learner=True)))
    assert left.state == replace(STATE, members=(1,), set_epoch=10)
    assert left.replica == replica(2, is_learner=True)
    back = decision(RULES.set_learner(view(), SetLearner(1, 4, is_learner=False)))
    assert (back.state, back.replica) == (None, replica(4))
    assert refusal(RULES.set_learner(view(), SetLearner(1, 1, is_learner=True))) == Refusal.ALTER_SYNC_STATE_SET_FAILED
    alone = replace(STATE, master_id=0, members=(2,))
    last = RULES.set_learner(view(alone), SetLearner(1, 2, is_learner=True))
    assert refusal(last) == Refusal.ALTER_SYNC_STATE_SET_FAILED


def test_nobody_is_switched_while_etcd_knows_less_than_the_brokers() -> None:
    """Who left the set must be seen by who holds it: it has to begin again first (§6.8)."""
    forgotten = RULES.set_learner(view(NEW_SET), SetLearner(1, 2, is_learner=True))
    assert refusal(forgotten) == Refusal.ALTER_SYNC_STATE_SET_FAILED


def test_a_master_that_stops_hands_over_to_the_best_other_member() -> None:
    """A new epoch without the one that leaves, so that nobody waits for it (architecture §6.4)."""
    state = replace(STATE, members=(1, 2, 3))
    left = decision(RULES.leave(view(state), Leave(1, 1, 3)))
    assert left.state is not None
    assert (left.broker_id, left.state.master_id, left.state.members) == (1, 3, (2, 3))
    assert (left.state.master_epoch, left.state.set_epoch) == (6, 10)


def test_a_master_that_stops_alone_stays_master_in_name() -> None:
    """Nobody outside the SyncStateSet follows, also where unclean elections are allowed."""
    only_master = view(replace(STATE, members=(1,)))
    assert decision(RULES.leave(only_master, Leave(1, 1, 3))).changes_nothing
    other_is_dead = view(alive=(1, 3))
    assert decision(SetRules(unclean=True).leave(other_is_dead, Leave(1, 1, 3))).changes_nothing


def test_a_slave_that_stops_leaves_the_set() -> None:
    """The master waits for it no longer; a broker outside the set, or another start of it, changes nothing."""
    left = decision(RULES.leave(view(), Leave(1, 2, 3)))
    assert left.state == replace(STATE, members=(1,), set_epoch=10)
    assert decision(RULES.leave(view(), Leave(1, 3, 3))).changes_nothing
    assert refusal(RULES.leave(view(), Leave(1, 2, 4))) == Refusal.BROKER_NEED_TO_BE_REGISTERED


def test_only_the_dead_are_cleaned_up_and_never_the_last_member() -> None:
    """2009 where data could go; a broker that is forgotten already is no error."""
    assert refusal(RULES.clean_broker(view(), CleanBroker(1, 2))) == Refusal.INVALID_CLEAN_BROKER_METADATA
    cleaned = decision(RULES.clean_broker(view(alive=(1,)), CleanBroker(1, 2)))
    assert (cleaned.removes, cleaned.state) == ((2,), replace(STATE, members=(1,), set_epoch=10))
    last = view(replace(STATE, members=(2,)), alive=())
    assert refusal(RULES.clean_broker(last, CleanBroker(1, 2))) == Refusal.INVALID_CLEAN_BROKER_METADATA
    assert decision(RULES.clean_broker(view(), CleanBroker(1, 9))).changes_nothing


def test_a_set_is_cleaned_up_as_a_whole_when_nobody_of_it_lives() -> None:
    """Every broker that it knows of is compared, so that one that registers meanwhile is not lost."""
    assert refusal(RULES.clean_broker(view(alive=(4,)), CleanBroker(1, EVERY_BROKER))) == (
        Refusal.INVALID_CLEAN_BROKER_METADATA
    )
    cleaned = decision(RULES.clean_broker(view(alive=()), CleanBroker(1, EVERY_BROKER)))
    assert (cleaned.clears, cleaned.rests_on) == (True, (1, 2, 3, 4))


def test_a_set_has_so_many_brokers_and_no_more() -> None:
    """All their keys have to fit into one transaction of etcd."""
    replicas = {each: replica(each) for each in range(1, REPLICAS_MAX + 1)}
    full = View(STATE, replicas, frozenset(), ())
    assert refusal(RULES.register(full, registration(0, "new"))) == Refusal.BROKER_ID_INVALID
