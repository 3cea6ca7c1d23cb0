"""Messages in hand and the commit offset, held against a plain twin."""

from apogeemq.client_remoting.core.process_queue import ProcessQueue
from hypothesis import given
from hypothesis import strategies as st


def test_the_commit_offset_waits_for_the_oldest() -> None:
    """Settling 6 and 7 does not pass 5; settling 5 passes all three."""
    queue: ProcessQueue[str] = ProcessQueue(5, is_committed=True)
    queue.put([(5, 10, "a"), (6, 20, "b"), (7, 30, "c")], next_offset=8)
    assert (len(queue), queue.size_bytes, queue.span, queue.commit_offset) == (3, 60, 3, 5)
    queue.settle(6)
    queue.settle(7)
    assert (queue.commit_offset, len(queue), queue.size_bytes, queue.span) == (5, 1, 10, 3)
    queue.settle(5)
    assert (queue.commit_offset, queue.uncommitted, queue.span) == (8, 8, 0)
    queue.committed(8)
    assert queue.uncommitted is None


def test_messages_that_nobody_wanted_are_passed() -> None:
    """A pull that brought nothing for us still moves the commit offset."""
    queue: ProcessQueue[str] = ProcessQueue(5, is_committed=True)
    queue.put([], next_offset=40)
    assert queue.uncommitted == 40


def test_where_a_group_begins_is_committed_too() -> None:
    """Else a member that stops before its first message would begin elsewhere the next time."""
    assert ProcessQueue[str](7, is_committed=False).uncommitted == 7


def test_a_reset_forgets_what_is_in_hand() -> None:
    """What is settled later does not matter any more."""
    queue: ProcessQueue[str] = ProcessQueue(5, is_committed=True)
    queue.put([(5, 10, "a")], next_offset=6)
    queue.reset(100)
    queue.settle(5)
    assert (len(queue), queue.size_bytes, queue.commit_offset) == (0, 0, 100)


@given(
    gaps=st.lists(st.integers(1, 3), max_size=30),
    order=st.randoms(use_true_random=False),
    settled=st.integers(0, 30),
)
def test_against_a_plain_twin(gaps: list[int], order: object, settled: int) -> None:
    """Whatever is settled in whatever order, the commit offset is the lowest one that is not."""
    offsets = [sum(gaps[: number + 1]) for number in range(len(gaps))]
    next_offset = sum(gaps) + 1
    queue: ProcessQueue[None] = ProcessQueue(0, is_committed=True)
    queue.put([(offset, 1, None) for offset in offsets], next_offset)
    left = list(offsets)
    order.shuffle(left)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    for offset in left[:settled]:
        queue.settle(offset)
    assert queue.commit_offset == min([*left[settled:], next_offset])
    assert queue.size_bytes == len(queue) == len(left[settled:])
