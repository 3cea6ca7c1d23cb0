"""What brokers remember of a set that etcd lost, and when the set begins again (architecture §6.8)."""

from dataclasses import replace

import pytest
from apogeemq.controller.core.broker_set import NEW_SET, Replica, SyncState, decode, encode
from apogeemq.controller.core.election import Candidate, Refusal
from apogeemq.controller.core.etcd import StoredKey
from apogeemq.controller.core.history import is_behind, last_members
from apogeemq.controller.core.requests import AskElection, RecoverSet, Refused, Register
from apogeemq.controller.core.set_rules import Decision, SetRules, View

RULES = SetRules()
Known = tuple[tuple[int, ...], int, int]
"""Members, master epoch, set epoch."""


def view(
    known: dict[int, Known],
    *,
    state: SyncState = NEW_SET,
    there: tuple[int, ...] = (),
    offsets: dict[int, int] | None = None,
    learners: tuple[int, ...] = (),
) -> View:
    """Brokers that registered with what they know; `there` have a stream, and logs that end at `offsets`."""
    replicas = {
        each: Replica(
            each, f"code{each}", f"h{each}:1", 1, "boot", epoch, 0, each in learners, "", ids, epoch, set_epoch
        )
        for each, (ids, epoch, set_epoch) in known.items()
    }
    reachable = tuple(Candidate(replicas[each], known[each][1], (offsets or {}).get(each, 0)) for each in there)
    return View(state, replicas, frozenset(there), reachable)


def refused(decided: Decision | Refused) -> str:
    assert isinstance(decided, Refused)
    return decided.text


def state_of(decided: Decision | Refused) -> SyncState:
    assert isinstance(decided, Decision)
    assert decided.state is not None
    return decided.state


@pytest.mark.parametrize(
    ("known", "members"),
    [
        ({1: ((1, 2), 5, 9)}, (1, 2)),
        # The newest state counts, by its epochs; who fell out of the set, or was elected since, is told by it alone.
        ({1: ((1,), 5, 10), 2: ((1, 2), 5, 9)}, (1,)),
        ({1: ((1, 2), 5, 9), 2: ((2,), 6, 10)}, (2,)),
        # A master's proposal under way is of the same epochs as the set that holds: both are waited for.
        ({2: ((2, 3, 4), 6, 8), 3: ((2, 3), 6, 8)}, (2, 3, 4)),
        ({1: ((), 0, 0)}, ()),
    ],
)
def test_the_members_of_the_newest_state_that_is_remembered(known: dict[int, Known], members: tuple[int, ...]) -> None:
    """By (master epoch, set epoch)."""
    assert last_members(view(known).replicas, ()) == members


def test_nobody_can_say_where_an_epoch_is_newer_than_each_state() -> None:
    """A broker that has written in an epoch and does not know its set: who else has, it does not know."""
    replicas = dict(view({1: ((1, 2), 5, 9), 2: ((1, 2), 5, 9)}).replicas)
    replicas[2] = replace(replicas[2], last_epoch=6)
    assert last_members(replicas, ()) == ()
    assert last_members({1: replicas[1]}, (Candidate(replicas[1], 6, 0),)) == ()


@pytest.mark.parametrize(
    ("state", "behind"),
    [
        (NEW_SET, True),
        (SyncState(1, 4, (1, 2), 8), True),
        (SyncState(1, 5, (1, 2), 8), True),
        (SyncState(1, 5, (1, 2), 9), False),
        (SyncState(2, 6, (2,), 10), False),
    ],
)
def test_etcd_is_behind_where_a_broker_remembers_more(state: SyncState, *, behind: bool) -> None:
    """An older epoch, or an older set of the same epoch: an old backup."""
    seen = view({1: ((1, 2), 5, 9)}, state=state)
    assert is_behind(state, seen.replicas, seen.reachable) is behind


def test_a_set_begins_again_when_all_its_last_members_are_there() -> None:
    """With the longest log of them, alone; a broker outside of it, whatever its log, is not chosen."""
    known: dict[int, Known] = {1: ((1, 2), 5, 9), 2: ((1, 2), 5, 9), 3: ((2, 3), 4, 7)}
    seen = view(known, there=(1, 2, 3), offsets={1: 10, 2: 20, 3: 99})
    assert RULES.may_refound(seen)
    decided = RULES.ask_election(seen, AskElection(1, 3, over_epoch=4))
    assert state_of(decided) == SyncState(2, 6, (2,), 1)
    assert isinstance(decided, Decision)
    assert decided.rests_on == (1, 2)


def test_a_member_alone_waits_for_the_others_and_is_told_how_to_go_on() -> None:
    """It may lack what they hold; unclean elections do not change that, nor does an operator's elect-master."""
    seen = view({2: ((1, 2), 5, 9)}, there=(2,))
    text = refused(SetRules(unclean=True).ask_election(seen, AskElection(1, 2, over_epoch=5)))
    assert "of the SyncStateSet [1, 2] brokers [1] are not there: start them" in text
    assert "`apogeemq-controller recover BROKER_NAME --from BROKER_ID`" in text
    assert refused(RULES.ask_election(seen, AskElection(1, 0, 0, designated_id=2))) == text
    assert not RULES.may_refound(seen)


def test_a_member_that_registered_and_has_no_stream_is_not_there() -> None:
    """Its log may be the longest."""
    assert not RULES.may_refound(view({1: ((1, 2), 5, 9), 2: ((1, 2), 5, 9)}, there=(2,)))


def test_learners_do_not_begin_a_set() -> None:
    """All its members were switched meanwhile: an operator has to say more."""
    seen = view({1: ((1,), 5, 9)}, there=(1,), learners=(1,))
    assert "are learners now" in refused(RULES.ask_election(seen, AskElection(1, 1, 5)))
    assert "is a learner" in refused(RULES.recover(seen, RecoverSet(1, 1)))


def test_over_an_old_backup_nobody_is_elected() -> None:
    """Its members may be long out of the set; whose log holds, an operator says."""
    old = SyncState(0, 3, (1,), 4)
    seen = view({1: ((1,), 3, 4), 2: ((2,), 7, 12)}, state=old, there=(1, 2))
    assert "old backup" in refused(RULES.ask_election(seen, AskElection(1, 1, over_epoch=3)))
    assert state_of(RULES.recover(seen, RecoverSet(1, 2))) == SyncState(2, 8, (2,), 5, loss_epoch=8)


def test_a_set_without_history_is_founded_by_whoever_is_there() -> None:
    """Nothing is remembered, so nothing can be lost; and nothing is done before a broker asks."""
    seen = view({1: ((), 0, 0)}, there=(1,))
    assert not RULES.may_refound(seen)
    assert state_of(RULES.ask_election(seen, AskElection(1, 1, 0))) == SyncState(1, 1, (1,), 1)


def test_recovery_takes_an_epoch_above_all_and_says_what_may_be_lost() -> None:
    """It rests on every broker that registered: one that brings a newer epoch meanwhile is looked at first."""
    seen = view({1: ((1, 2), 5, 9), 3: ((3,), 9, 11)}, there=(1,))
    decided = RULES.recover(seen, RecoverSet(1, 1))
    assert state_of(decided) == SyncState(1, 10, (1,), 1, loss_epoch=10)
    assert isinstance(decided, Decision)
    assert decided.rests_on == (1, 3)
    done = replace(seen, state=state_of(decided))
    assert RULES.recover(done, RecoverSet(1, 1)) == Decision(1)


@pytest.mark.parametrize(
    ("seen", "code", "word"),
    [
        (view({1: ((1, 2), 5, 9)}, there=(1,)), Refusal.BROKER_METADATA_NOT_EXIST, "broker 2 is not registered, [1]"),
        (view({2: ((1, 2), 5, 9)}), Refusal.BROKER_NOT_ALIVE, "start it first"),
        (view({2: ((), 0, 0)}, there=(2,)), Refusal.INVALID_REQUEST, "nothing to recover"),
        (
            view({2: ((1, 2), 5, 9)}, state=SyncState(1, 5, (1, 2), 9), there=(2,)),
            Refusal.INVALID_REQUEST,
            "nothing to recover",
        ),
    ],
)
def test_recovery_is_refused_where_it_is_not_due(seen: View, code: Refusal, word: str) -> None:
    """To a broker that is not there, and for a set that etcd knows: that one has elections."""
    decided = RULES.recover(seen, RecoverSet(1, 2))
    assert isinstance(decided, Refused)
    assert decided.code is code
    assert word in decided.text


def test_a_new_broker_takes_no_id_that_a_member_had() -> None:
    """The member comes later, with its id, and finds it free."""
    seen = view({1: ((1, 3), 5, 9)})
    new = Register(1, 0, "new", "h:1", 1, "boot", True, False, 0, 0)
    decided = RULES.register(seen, new)
    assert isinstance(decided, Decision)
    assert decided.broker_id == 4


def test_what_a_registration_knows_replaces_what_is_older_and_is_stored() -> None:
    """A registration without it, of an older broker, forgets nothing."""
    seen = view({1: ((1, 3), 5, 9)})
    again = Register(1, 1, "code1", "h1:1", 2, "boot", True, False, 5, 0)
    for told, kept in (
        (again, ((1, 3), 5, 9)),
        (replace(again, known_members=(1,), known_master_epoch=5, known_set_epoch=10), ((1,), 5, 10)),
        (replace(again, known_members=(1,), known_master_epoch=4, known_set_epoch=30), ((1, 3), 5, 9)),
    ):
        decided = RULES.register(seen, told)
        assert isinstance(decided, Decision)
        replica = decided.replica
        assert replica is not None
        assert (replica.known_members, replica.known_master_epoch, replica.known_set_epoch) == kept
        assert decode(Replica, StoredKey(b"k", encode(replica), 1, 1, 1)) == replica
