"""How queues are divided: against Java's formulas written down plainly, and what must hold of any division."""

import pytest
from apogeemq.broker.core.allocation import (
    STRATEGIES,
    allocate_averagely,
    allocate_by_circle,
    allocate_pop,
    allocate_pull,
)
from apogeemq.remoting_codec.bodies import MessageQueue
from hypothesis import given
from hypothesis import strategies as st

COUNTS = st.tuples(st.integers(0, 40), st.integers(1, 12))


def queues(count: int, broker: str = "a") -> list[MessageQueue]:
    return [MessageQueue("T", broker, number) for number in range(count)]


def ids(found: list[MessageQueue]) -> list[int]:
    return [queue.queue_id for queue in found]


def java_average(count: int, index: int, members: int) -> list[int]:
    """AVG as the reference has it (broker_behaviour.md §7)."""
    rest = count % members
    size = 1 if count <= members else count // members + (1 if index < rest else 0)
    start = index * size if rest > 0 and index < rest else index * size + rest
    return list(range(count))[start : start + max(min(size, count - start), 0)]


@given(COUNTS)
def test_averagely_as_java_does(counts: tuple[int, int]) -> None:
    """Every member's share is the one that a Java client would work out for itself."""
    count, members = counts
    for index in range(members):
        assert ids(allocate_averagely(queues(count), index, members)) == java_average(count, index, members)


def test_by_circle() -> None:
    """Dealt like cards."""
    assert [ids(allocate_by_circle(queues(5), index, 3)) for index in range(3)] == [[0, 3], [1, 4], [2]]
    assert [ids(allocate_by_circle(queues(1), index, 2)) for index in range(2)] == [[0], []]


@pytest.mark.parametrize("name", STRATEGIES)
@given(counts=COUNTS)
def test_every_queue_has_one_reader(name: str, counts: tuple[int, int]) -> None:
    """No queue is left out or read twice, whoever asks in whatever order."""
    count, members = counts
    clients = [f"c{number}" for number in range(members)]
    shares = [allocate_pull(STRATEGIES[name], queues(count)[::-1], clients[::-1], client) for client in clients]
    assert sorted(queue for share in shares for queue in share) == sorted(queues(count))


def test_who_is_not_in_the_group_gets_nothing() -> None:
    """Its heartbeat is still to come."""
    assert allocate_pull(allocate_averagely, queues(4), ["c1"], "c2") == []
    assert allocate_pop(allocate_averagely, queues(4), ["c1", "c3", "c4"], "c2", 1) == []


@pytest.mark.parametrize("share_with", [-1, 0, 2, 8])
def test_popped_by_all(share_with: int) -> None:
    """One entry a broker, with queue id -1, where everybody shares with all others."""
    both = [*queues(2, "b"), *queues(3, "a")]
    assert allocate_pop(allocate_averagely, both, ["c1", "c2", "c3"], "c2", share_with) == [
        MessageQueue("T", "a", -1),
        MessageQueue("T", "b", -1),
    ]


def test_popped_by_some() -> None:
    """The own share and those of the next member in the row, round the end."""
    clients = ["c1", "c2", "c3", "c4"]
    shares = [ids(allocate_pop(allocate_averagely, queues(4), clients, client, 1)) for client in clients]
    assert shares == [[0, 1], [1, 2], [2, 3], [3, 0]]


def test_popped_by_more_members_than_queues() -> None:
    """Nobody goes without: members take queues in turn."""
    clients = ["c1", "c2", "c3", "c4", "c5"]
    shares = [ids(allocate_pop(allocate_averagely, queues(2), clients, client, 1)) for client in clients]
    assert shares == [[0], [1], [0], [1], [0]]
