"""The table of locks: a lock counts for 30 s from when it was asked for."""

from apogeemq.client_remoting.core.queue_locks import QueueLocks
from apogeemq.remoting_codec.bodies import MessageQueue

QUEUE = MessageQueue("T", "a", 0)


def test_a_lock_counts_for_thirty_seconds() -> None:
    """From the question on, not from the answer; asking again counts anew."""
    locks = QueueLocks()
    assert not locks.is_held(QUEUE, 100.0)
    locks.given(QUEUE, asked=100.0)
    assert locks.is_held(QUEUE, 129.9)
    assert not locks.is_held(QUEUE, 130.0)
    locks.given(QUEUE, asked=120.0)
    assert locks.is_held(QUEUE, 149.9)


def test_a_lapsed_lock_is_still_renewed() -> None:
    """Until it is forgotten."""
    locks = QueueLocks()
    locks.given(QUEUE, asked=0.0)
    assert not locks.is_held(QUEUE, 1000.0)
    assert locks.queues == [QUEUE]
    assert QUEUE in locks
    locks.forget(QUEUE)
    locks.forget(QUEUE)
    assert locks.queues == []
    assert QUEUE not in locks
