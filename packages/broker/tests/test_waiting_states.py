"""Changes of tables that wait for a replica: their places, what replaces what, and their bounds."""

from __future__ import annotations

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
