"""Queue locks for ordered consumption."""

import pytest
from apogeemq.broker.core.queue_locks import QueueLockTable
from apogeemq.broker.errors import SystemBusy

QUEUES = [("T", 0), ("T", 1)]


def test_the_first_one_holds_a_queue_until_its_term_ends() -> None:
    """Others get it only 60 s after the last renewal; groups do not disturb each other."""
    table = QueueLockTable()
    assert table.lock("G", "a", QUEUES, 0) == QUEUES
    assert table.lock("G", "b", QUEUES, 10) == []
    assert table.lock("H", "b", QUEUES, 10) == QUEUES
    assert table.lock("G", "a", [("T", 0)], 20) == [("T", 0)]
    assert table.lock("G", "b", QUEUES, 60.1) == [("T", 1)]
    assert table.lock("G", "b", QUEUES, 80.1) == QUEUES


def test_only_the_holder_gives_a_queue_back() -> None:
    """Another client's unlock changes nothing."""
    table = QueueLockTable()
    table.lock("G", "a", QUEUES, 0)
    table.unlock("G", "b", QUEUES)
    assert table.lock("G", "b", QUEUES, 1) == []
    table.unlock("G", "a", [("T", 1)])
    assert table.lock("G", "b", QUEUES, 1) == [("T", 1)]


def test_a_group_is_ordered_while_one_of_its_locks_lives() -> None:
    """Locks that ran out count no more, and are forgotten."""
    table = QueueLockTable()
    table.lock("G", "a", QUEUES, 0)
    assert table.is_locked("G", 60)
    assert not table.is_locked("H", 60)
    assert not table.is_locked("G", 61)
    assert table.expire(60) == 0
    assert table.expire(61) == 2
    assert len(table) == 0
    assert table._groups == {}, "nothing of a group stays behind"


def test_the_number_of_locks_is_bounded() -> None:
    """Nobody checks that queues exist: a request beyond the bound changes nothing, renewals always go."""
    table = QueueLockTable(locks_max=3)
    table.lock("G", "a", QUEUES, 0)
    with pytest.raises(SystemBusy, match="2 queues are locked, the limit is 3"):
        table.lock("H", "b", QUEUES, 0)
    assert len(table) == 2
    assert table.lock("H", "b", QUEUES[:1], 0) == QUEUES[:1]
    assert table.lock("G", "a", QUEUES, 1) == QUEUES
    table.unlock("G", "a", QUEUES)
    assert table.lock("H", "b", QUEUES, 2) == QUEUES
    assert len(table) == 2
    assert table.expire(100) == 2
    assert len(table) == 0


def test_changes_of_owners_are_told_and_renewals_are_not() -> None:
    """Taken, given back, run out: each once, for whoever writes them."""
    table = QueueLockTable()
    told: list[list[tuple[str, str, int]]] = []
    table.on_change(lambda keys: told.append(list(keys)))
    table.lock("G", "a", QUEUES, 0)
    table.lock("G", "a", QUEUES, 20)
    table.lock("G", "b", QUEUES, 20)
    assert told == [[("G", "T", 0), ("G", "T", 1)]]
    table.unlock("G", "b", QUEUES)
    table.unlock("G", "a", QUEUES[:1])
    table.expire(81)
    assert told[1:] == [[("G", "T", 0)], [("G", "T", 1)]]
    assert table.changed == {("G", "T", 0), ("G", "T", 1)}
    assert table.owners(table.changed).lock_table == {"G": {"T": {0: "", 1: ""}}}


def test_an_owner_that_was_read_from_a_file_has_a_client_s_term_to_renew() -> None:
    """30 s, as long as it consumes by it; once it renewed, the whole term again."""
    before, table = QueueLockTable(), QueueLockTable()
    before.lock("G", "a", QUEUES, 0)
    table.load(before.owners(), 100)
    assert table.lock("G", "b", QUEUES, 130) == []
    assert table.lock("G", "a", [("T", 0)], 130) == [("T", 0)]
    assert table.lock("G", "b", QUEUES, 131) == [("T", 1)]
    assert table.lock("G", "b", QUEUES, 190) == [("T", 1)]
    assert table.changed == {("G", "T", 1)}, "what was read is written already"


def test_a_table_that_may_lack_owners_grants_after_a_client_s_term() -> None:
    """Somebody may consume by a lock that this table never heard of; whom it knows is answered at once."""
    table = QueueLockTable()
    before = QueueLockTable()
    before.lock("G", "a", QUEUES[:1], 0)
    table.load(before.owners(), 100)
    table.owners_are_unknown(100)
    assert table.lock("G", "a", QUEUES, 101) == QUEUES[:1]
    assert table.lock("H", "b", QUEUES, 130) == []
    assert len(table) == 1
    assert table.lock("H", "b", QUEUES, 130.1) == QUEUES
