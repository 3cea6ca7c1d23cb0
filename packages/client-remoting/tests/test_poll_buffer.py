"""Fetched messages until they are asked for: in turn over queues, in order within one, none that is another's."""

from apogeemq.client_remoting.core.poll_buffer import PollBuffer
from apogeemq.remoting_codec.bodies import MessageQueue

A, B = MessageQueue("T", "a", 0), MessageQueue("T", "b", 0)


def buffer(*stale: str) -> PollBuffer[str]:
    return PollBuffer(lambda message: message not in stale)


def test_queues_take_turns() -> None:
    """One that gave messages is asked last; in one queue the order stays."""
    waiting = buffer()
    waiting.put(A, ["a1", "a2", "a3"])
    waiting.put(B, ["b1"])
    assert waiting.take(2) == ["a1", "a2"]
    waiting.put(B, ["b2"])
    assert waiting.take(2) == ["b1", "b2"]
    assert waiting.take(2) == ["a3"]
    assert waiting.take(2) == []


def test_a_take_goes_over_several_queues() -> None:
    """Up to its bound."""
    waiting = buffer()
    waiting.put(A, ["a1"])
    waiting.put(B, ["b1", "b2"])
    assert waiting.take(2) == ["a1", "b1"]
    assert waiting.take(9) == ["b2"]


def test_a_paused_queue_gives_nothing() -> None:
    """And all that waited once it is resumed."""
    waiting = buffer()
    waiting.put(A, ["a1"])
    waiting.pause([A])
    assert waiting.paused == {A}
    assert waiting.take(1) == []
    waiting.resume([A, B])
    assert waiting.take(1) == ["a1"]


def test_what_was_taken_is_settled_once() -> None:
    """All of it since the last time."""
    waiting = buffer()
    waiting.put(A, ["a1", "a2"])
    waiting.put(B, ["b1"])
    waiting.take(1)
    waiting.take(9)
    assert sorted(waiting.settle_polled()) == ["a1", "a2", "b1"]
    assert waiting.settle_polled() == []


def test_what_is_not_ours_any_more_is_not_given() -> None:
    """Nor kept beside what comes in its place, waiting or polled."""
    stale: set[str] = set()
    waiting = PollBuffer[str](lambda message: message not in stale)
    waiting.put(A, ["old1", "old2", "old3"])
    assert waiting.take(1) == ["old1"]
    stale.update(["old1", "old2", "old3"])
    waiting.put(A, ["new1"])
    assert waiting.take(9) == ["new1"]
    assert waiting.settle_polled() == ["new1"]
    waiting.put(B, ["old2"])
    assert waiting.take(9) == []
