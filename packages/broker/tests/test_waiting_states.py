"""Changes of tables that wait for a replica: their places, what replaces what, and their bounds."""

from __future__ import annotations

from apogeemq.broker.service.table_copies import CONSUMER_OFFSETS, POP_ORDERS
from apogeemq.broker.service.waiting_states import STATES_MAX, STATES_SIZE_BYTES_MAX, State, WaitingStates


def taken(states: WaitingStates) -> list[tuple[int, str, bytes]]:
    return [(state.place, state.name, state.data) for state in (states.take() for _ in range(len(states)))]


def test_changes_wait_in_their_order() -> None:
    """Each at its place; the first one says how far the log may be sent."""
    states = WaitingStates()
    assert states.next_place is None
    assert states.put(State(10, "a", b"1", whole=False))
    assert states.put(State(20, "a", b"2", whole=False))
    assert states.next_place == 10
    assert taken(states) == [(10, "a", b"1"), (20, "a", b"2")]
    assert states.next_place is None


def test_a_whole_table_replaces_what_waits_of_it_at_the_first_place() -> None:
    """Bytes behind that place are sent only once the replica has the table as it was there, or newer."""
    states = WaitingStates()
    states.put(State(5, "b", b"b", whole=False))
    states.put(State(10, "a", b"1", whole=True))
    states.put(State(15, "b", b"c", whole=False))
    states.put(State(20, "a", b"2", whole=False))
    states.put(State(30, "a", b"3", whole=True))
    assert taken(states) == [(5, "b", b"b"), (10, "a", b"3"), (15, "b", b"c")]


def test_too_many_changes_are_forgotten_together() -> None:
    """Then the replica has to get all tables whole; what comes later waits again."""
    states = WaitingStates()
    assert all(states.put(State(number, "a", b"", whole=False)) for number in range(STATES_MAX))
    assert not states.put(State(STATES_MAX, "a", b"", whole=False))
    assert len(states) == 0
    assert states.put(State(STATES_MAX + 1, "a", b"", whole=False))


def test_too_many_bytes_are_forgotten_together() -> None:
    """But one change may wait alone, whatever its size; what was taken or replaced counts no more."""
    states = WaitingStates()
    half = bytes(STATES_SIZE_BYTES_MAX // 2 + 1)
    assert states.put(State(1, "a", half * 2, whole=True))
    assert states.put(State(2, "a", half, whole=True))
    assert not states.put(State(3, "b", half, whole=False))
    assert states.put(State(4, "b", half, whole=False))
    states.take()
    assert states.put(State(5, "b", half, whole=False))


def test_a_whole_table_of_pointers_keeps_its_own_place() -> None:
    """It may come late, and never before the log that it speaks of; changes before it are in it."""
    states = WaitingStates()
    states.put(State(5, CONSUMER_OFFSETS, b"1", whole=False))
    states.put(State(10, "a", b"a", whole=False))
    states.put(State(20, CONSUMER_OFFSETS, b"2", whole=True))
    states.put(State(30, CONSUMER_OFFSETS, b"3", whole=False))
    assert taken(states) == [(10, "a", b"a"), (20, CONSUMER_OFFSETS, b"2"), (30, CONSUMER_OFFSETS, b"3")]


def test_whole_tables_of_pointers_count_for_no_bound() -> None:
    """There is one of each at most: who is sent all tables once more must come to an end with them."""
    states = WaitingStates()
    large = bytes(STATES_SIZE_BYTES_MAX + 1)
    assert states.put(State(1, CONSUMER_OFFSETS, large, whole=True))
    assert states.put(State(2, POP_ORDERS, large, whole=True))
    assert states.put(State(3, "a", b"a", whole=False))
    assert states.put(State(4, CONSUMER_OFFSETS, large, whole=True))
    assert [name for _, name, _ in taken(states)] == [POP_ORDERS, "a", CONSUMER_OFFSETS]
