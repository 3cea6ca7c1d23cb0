"""The last elections of a set, and why: what operators read after a night."""

import pytest
from apogeemq.controller.core.broker_set import NEW_SET, SyncState
from apogeemq.controller.core.elections import ELECTIONS_MAX, Elections
from apogeemq.controller.core.requests import BY_OPERATOR, AskElection, Leave, RecoverSet, Request

BEFORE = SyncState(master_id=1, master_epoch=5, members=(1, 2), set_epoch=9)
AFTER = SyncState(master_id=2, master_epoch=6, members=(2,), set_epoch=10)
VACANT = SyncState(0, 5, (2,), 10)
BY_ITSELF = AskElection(0, 1, 5)


def reason(before: SyncState, after: SyncState, request: Request | None, alive: set[int] | None = None) -> str:
    """Why the election from one state to the other was, with these alive."""
    elections = Elections()
    elections.changed(BEFORE, None, {1, 2}, 0)
    elections.changed(before, None, {1, 2}, 0)
    elections.changed(after, request, {2} if alive is None else alive, 7)
    [seen] = elections.newest_first
    return seen.reason


@pytest.mark.parametrize(
    ("before", "request_", "alive", "expected"),
    [
        (BEFORE, BY_ITSELF, {2}, "master 1 was gone"),
        (BEFORE, AskElection(3, 2, 5), {2}, "master 1 was gone"),
        (BEFORE, AskElection(3, 1, 5), {1, 2}, "master 1 was started anew"),
        (BEFORE, Leave(3, 1, 1), {1, 2}, "master 1 stopped in good order"),
        (BEFORE, AskElection(3, BY_OPERATOR, 0), {1, 2}, "an operator asked for an election"),
        (BEFORE, AskElection(3, BY_OPERATOR, 0, 2), {1, 2}, "an operator chose broker 2"),
        (BEFORE, None, {2}, "master 1 was gone"),
        (BEFORE, None, {1, 2}, "another controller decided it"),
        (VACANT, BY_ITSELF, {1, 2}, "master 1 lost its place in the set"),
        (NEW_SET, BY_ITSELF, {1, 2}, "etcd had forgotten the set, and its members were there"),
    ],
)
def test_each_cause_is_named(before: SyncState, request_: Request | None, alive: set[int], expected: str) -> None:
    """By the request that was carried out, or, of another controller's, by who is alive."""
    assert reason(before, AFTER, request_, alive) == expected


def test_what_may_be_lost_is_said() -> None:
    """With the cause: by recover, and by an election outside the set."""
    begun = SyncState(2, 6, (2,), 1, loss_epoch=6)
    assert reason(NEW_SET, begun, RecoverSet(3, 2)) == (
        "an operator let the set begin again with this broker (recover); it MAY LACK what was acknowledged before"
    )
    outside = SyncState(3, 6, (3,), 10, loss_epoch=6)
    assert reason(BEFORE, outside, BY_ITSELF) == (
        "master 1 was gone; it is from outside the SyncStateSet [1, 2]; it MAY LACK what was acknowledged before"
    )


def test_an_election_has_who_followed_whom_and_when() -> None:
    """Also over a vacancy; the newest comes first."""
    elections = Elections()
    elections.changed(NEW_SET, None, (), 0)
    elections.changed(SyncState(1, 1, (1,), 1), AskElection(1, 1, 0), {1}, 100)
    elections.changed(SyncState(1, 1, (1, 2), 2), None, {1, 2}, 150)
    elections.changed(SyncState(0, 1, (2,), 3), None, {1, 2}, 200)
    elections.changed(SyncState(2, 2, (2,), 4), BY_ITSELF, {1, 2}, 300)
    second, first = elections.newest_first
    assert (first.master_epoch, first.master_id, first.previous_id, first.members) == (1, 1, 0, (1,))
    assert (first.reason, first.at_ms) == ("the set began", 100)
    assert (second.master_epoch, second.master_id, second.previous_id, second.at_ms) == (2, 2, 1, 300)


def test_what_was_before_the_first_look_is_no_election_that_was_seen() -> None:
    """A controller that starts reads what others decided; nor is it one when the same is told again."""
    elections = Elections()
    elections.changed(BEFORE, None, {1, 2}, 0)
    elections.changed(BEFORE, None, {1, 2}, 5)
    assert elections.newest_first == ()


def test_a_set_that_was_cleaned_up_begins_with_nobody_before() -> None:
    """Epochs are counted from 1 again."""
    elections = Elections()
    elections.changed(BEFORE, None, {1}, 0)
    elections.changed(NEW_SET, None, (), 1)
    elections.changed(SyncState(3, 1, (3,), 1), AskElection(1, 3, 0), {3}, 2)
    [seen] = elections.newest_first
    assert (seen.previous_id, seen.reason) == (0, "the set began")


def test_old_elections_are_forgotten() -> None:
    """The list is for reading, and bounded."""
    elections = Elections()
    elections.changed(NEW_SET, None, (), 0)
    for epoch in range(1, ELECTIONS_MAX + 3):
        elections.changed(SyncState(1, epoch, (1,), epoch), BY_ITSELF, {1}, epoch)
    assert [each.master_epoch for each in elections.newest_first] == list(range(ELECTIONS_MAX + 2, 2, -1))
