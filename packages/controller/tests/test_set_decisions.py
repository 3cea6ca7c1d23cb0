"""The line of decisions about one set where etcd refuses, forgets, or holds what nobody can read."""

from dataclasses import replace

from apogeemq.controller.core.broker_set import NEW_SET, Replica, SetKeys, SyncState, encode
from apogeemq.controller.core.election import Refusal
from apogeemq.controller.core.etcd import Outcome, Put, StoredKey
from apogeemq.controller.core.requests import Accepted, AskElection, CleanBroker, Refused, Register
from apogeemq.controller.core.set_decisions import (
    Alive,
    Begin,
    Changed,
    Commit,
    Committed,
    Effect,
    Gone,
    Loaded,
    Reply,
    Reported,
    Seen,
    SetDecisions,
)
from apogeemq.controller.core.set_rules import SetRules

KEYS = SetKeys("c", "broker-a")
STATE = SyncState(master_id=1, master_epoch=5, members=(1, 2), set_epoch=9)
REGISTER = Register(1, 0, "code", "host:10911", 1, "boot", True, False, 0, 0)


def stored(revision: int, value: SyncState | Replica | bytes, key: bytes = KEYS.state) -> StoredKey:
    if isinstance(value, Replica):
        key = KEYS.replica(value.broker_id)
    raw = value if isinstance(value, bytes) else encode(value)
    return StoredKey(key, raw, revision, revision, 1)


def replica(broker_id: int) -> Replica:
    return Replica(broker_id, f"code{broker_id}", "host:10911", 1, "boot")


def found(revision: int, *keys: StoredKey, succeeded: bool = True) -> Outcome:
    return Outcome(succeeded, revision, ((), keys))


def begun(*keys: StoredKey) -> SetDecisions:
    machine = SetDecisions(KEYS, SetRules())
    (read,) = machine.step(Begin(4), 0)
    assert isinstance(read, Commit)
    machine.step(Committed(read.ticket, found(20, *keys)), 0)
    return machine


def ticket(effects: tuple[Effect, ...]) -> int:
    (commit,) = [each for each in effects if isinstance(each, Commit)]
    return commit.ticket


def answer(effects: tuple[Effect, ...]) -> Accepted | Refused:
    (reply,) = [each for each in effects if isinstance(each, Reply)]
    return reply.answer


def test_a_controller_that_becomes_active_elects_nobody_over_what_it_saw_as_a_stand_by() -> None:
    """A master whose lease ended in an outage of etcd has a full TTL to come back (architecture §6.2)."""
    machine = SetDecisions(KEYS, SetRules())
    machine.step(Alive(frozenset({2}), frozenset({1, 2})), 0)
    machine.step(Reported(2, 1, 5, 100), 0)
    read = ticket(machine.step(Begin(4), 0))
    loaded = machine.step(Committed(read, found(20, stored(7, STATE), stored(8, replica(1)), stored(9, replica(2)))), 0)
    assert [type(each) for each in loaded] == [Changed, Loaded, Changed]
    assert machine.step(Alive(frozenset({1, 2}), frozenset({1, 2})), 0) == ()
    assert ticket(machine.step(Alive(frozenset({2}), frozenset({2})), 300)) == read + 1


def test_a_refusal_of_etcd_is_the_answer() -> None:
    """A database that is full, or a user without the right, changes nothing, and whoever asked is told why."""
    machine = begun()
    asked = machine.step(REGISTER, 0)
    refused = answer(machine.step(Committed(ticket(asked), None, "etcd refused: space exceeded"), 0))
    assert refused == Refused(Refusal.STORE_FAILED, "etcd refused: space exceeded")


def test_a_first_read_that_is_refused_is_done_again() -> None:
    """Nothing can be decided before the set was read."""
    machine = SetDecisions(KEYS, SetRules())
    first = ticket(machine.step(Begin(4), 0))
    assert ticket(machine.step(Committed(first, None, "etcd refused"), 0)) == first + 1


def test_what_a_read_does_not_find_is_forgotten() -> None:
    """etcd was emptied: the brokers' epochs are remembered by themselves alone, and no election goes over that."""
    machine = begun(stored(7, STATE), stored(8, replica(1)))
    asked = machine.step(REGISTER, 0)
    effects = machine.step(Committed(ticket(asked), found(21, succeeded=False)), 0)
    assert Changed(NEW_SET) in effects
    assert (machine.state, dict(machine.replicas)) == (NEW_SET, {})


def test_a_set_that_etcd_forgot_begins_again_by_itself_when_all_its_members_are_there() -> None:
    """Nobody need ask (architecture §6.8); before the last of them has its stream, nothing is done."""
    known = {"last_epoch": 5, "known_members": (1, 2), "known_master_epoch": 5, "known_set_epoch": 9}
    machine = begun(*(stored(each, replace(replica(each), **known)) for each in (1, 2)))  # type: ignore[arg-type]
    machine.step(Reported(1, 1, 5, 100), 1_000)
    machine.step(Reported(2, 1, 5, 200), 1_000)
    assert machine.step(Alive(frozenset({1, 2}), frozenset({1})), 1_000) == ()
    (commit,) = machine.step(Alive(frozenset({1, 2}), frozenset({1, 2})), 2_000)
    assert isinstance(commit, Commit)
    puts = [each for each in commit.transaction.then if isinstance(each, Put)]
    assert puts == [Put(KEYS.state, encode(SyncState(2, 6, (2,), 1)))]


def test_a_deleted_key_does_not_come_back_by_an_older_read() -> None:
    """The watch was ahead of the transaction that was under way."""
    machine = begun(stored(7, STATE), stored(8, replica(1)), stored(9, replica(2)))
    asked = machine.step(REGISTER, 0)
    machine.step(Gone(KEYS.replica(2), 30), 0)
    machine.step(Committed(ticket(asked), found(25, stored(7, STATE), stored(9, replica(2)), succeeded=False)), 0)
    assert 2 not in machine.replicas


def test_a_set_is_forgotten_when_it_was_cleaned_up() -> None:
    """Accepted once a read shows nothing of it."""
    machine = begun(stored(7, STATE), stored(8, replica(1)))
    machine.step(Alive(frozenset(), frozenset()), 0)
    asked = machine.step(CleanBroker(3, 0), 0)
    assert answer(machine.step(Committed(ticket(asked), found(21)), 0)) == Accepted(0, NEW_SET)


def test_nothing_is_decided_over_a_value_that_nobody_can_read() -> None:
    """Until somebody wrote another; the answer names the key."""
    machine = begun(stored(7, STATE), stored(8, replica(1)))
    machine.step(Seen(stored(30, b"{")), 0)
    refused = answer(machine.step(AskElection(3, 1, 5), 0))
    assert isinstance(refused, Refused)
    assert refused.code is Refusal.STORE_FAILED
    assert "sets/broker-a/state holds no SyncState" in refused.text
    machine.step(Seen(stored(31, STATE)), 0)
    assert machine.trouble == ""


def test_a_change_names_the_request_that_was_carried_out() -> None:
    """Whether the watch tells of it first, or the transaction; what somebody else wrote has none."""
    operator = AskElection(3, 0, 0, designated_id=2)
    elected = SyncState(2, 6, (1, 2), 10)
    known = (stored(7, STATE), stored(8, replica(1)), stored(9, replica(2)))
    for watch_first in (True, False):
        machine = begun(*known)
        machine.step(Alive(frozenset({1, 2}), frozenset({1, 2})), 0)
        machine.step(Reported(2, 1, 5, 100), 0)
        asked = machine.step(operator, 0)
        if watch_first:
            effects = machine.step(Seen(stored(21, elected)), 0)
        else:
            effects = machine.step(Committed(ticket(asked), found(21, stored(21, elected), *known[1:])), 0)
        assert [each for each in effects if isinstance(each, Changed)] == [Changed(elected, operator)]
    assert Changed(elected) in begun(*known).step(Seen(stored(21, elected)), 0)


def test_a_set_whose_master_lives_waits_for_nothing() -> None:
    """Time alone decides nothing then; a request under way, or a master that is gone, ends that."""
    machine = begun(stored(7, STATE), stored(8, replica(1)))
    assert machine.is_quiet, "whom a new active controller knows is taken for alive"
    machine.step(REGISTER, 0)
    assert not machine.is_quiet
    machine = begun(stored(7, STATE), stored(8, replica(1)))
    machine.step(Alive(frozenset(), frozenset()), 0)
    assert not machine.is_quiet
