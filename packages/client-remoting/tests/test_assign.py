"""The share of each member, held against Java's rule written out plainly."""

import pytest
from apogeemq.client_remoting.core.assign import allocate_averagely
from hypothesis import given
from hypothesis import strategies as st


def test_shares_as_java_divides() -> None:
    """Seven queues, three members: 3, 2, 2, contiguous and in order of the client ids."""
    members = ["c", "a", "b"]
    shares = {member: allocate_averagely(range(7), members, member) for member in members}
    assert shares == {"a": [0, 1, 2], "b": [3, 4], "c": [5, 6]}


def test_fewer_queues_than_members() -> None:
    """The first members get one each, the others none."""
    assert [allocate_averagely(range(2), "abc", member) for member in "abc"] == [[0], [1], []]


def test_who_is_no_member_gets_nothing() -> None:
    """Its heartbeat has not arrived yet."""
    assert allocate_averagely(range(4), ["a"], "b") == []


@given(queues=st.integers(0, 40), members=st.integers(1, 12))
def test_together_the_members_have_every_queue_once(queues: int, members: int) -> None:
    """In order, and no share is more than one queue larger than another."""
    names = [f"client{number:02d}" for number in range(members)]
    shares = [allocate_averagely(range(queues), names, name) for name in names]
    assert [queue for share in shares for queue in share] == list(range(queues))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("queues", "members"), [(0, 3), (1, 1)])
def test_small_cases(queues: int, members: int) -> None:
    """No queue, one queue."""
    names = [str(number) for number in range(members)]
    assert sum(len(allocate_averagely(range(queues), names, name)) for name in names) == queues
