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
