"""Flow control, and the wait after failures."""

import pytest
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.client_remoting.core.pull_schedule import FlowLimits, backoff_s, may_pull

LIMITS = FlowLimits(messages_max=100, bytes_max=1000, span_max=50)


def holding(*offsets: int, size_bytes: int = 1, next_offset: int | None = None) -> ProcessQueue[None]:
    queue: ProcessQueue[None] = ProcessQueue(offsets[0] if offsets else 0, is_committed=True)
    end = next_offset if next_offset is not None else (offsets[-1] + 1 if offsets else 0)
    queue.put([(offset, size_bytes, None) for offset in offsets], end)
    return queue


def test_the_count_is_shared_among_the_queues() -> None:
    """25 each for four queues."""
    assert may_pull(holding(*range(24)), 4, LIMITS)
    assert not may_pull(holding(*range(25)), 4, LIMITS)
    assert may_pull(holding(*range(25)), 2, LIMITS)


def test_the_bytes_are_shared_too() -> None:
    """500 for each of two."""
    assert may_pull(holding(0, size_bytes=499), 2, LIMITS)
    assert not may_pull(holding(0, size_bytes=500), 2, LIMITS)


def test_one_stuck_message_holds_its_queue() -> None:
    """From it to the end of what was pulled there may be 50."""
    assert may_pull(holding(0, next_offset=49), 1, LIMITS)
    assert not may_pull(holding(0, next_offset=50), 1, LIMITS)


def test_an_empty_queue_may_always_be_pulled() -> None:
    """Even where there are more queues than messages to share."""
    assert may_pull(holding(), 1000, LIMITS)


def test_the_backoff_doubles_up_to_a_second() -> None:
    """Spread over the upper half by chance; never longer, however many failures."""
    assert [backoff_s(failures, 0.0) for failures in (1, 2, 3, 4, 5, 1000)] == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]
    assert backoff_s(1000, 0.999) <= 1.0


@pytest.mark.parametrize("name", ["messages_max", "bytes_max", "span_max"])
def test_bounds_that_allow_nothing_are_refused(name: str) -> None:
    """Where they are written."""
    with pytest.raises(ValueError, match="1 or more"):
        FlowLimits(**{name: 0})
