"""Deadlines per key."""

from apogeemq.namesrv.core.liveness import Deadlines
from hypothesis import given
from hypothesis import strategies as st


def test_a_key_expires_at_its_deadline_and_not_before() -> None:
    """A deadline of 10 has passed at 10; it had not at 9."""
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 10)
    assert deadlines.take_expired(9) is None
    assert deadlines.take_expired(10) == "a"


def test_an_expired_key_is_given_once() -> None:
    """What was taken is forgotten."""
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 10)
    deadlines.take_expired(10)
    assert deadlines.take_expired(99) is None
    assert len(deadlines) == 0


def test_a_later_deadline_replaces_the_earlier() -> None:
    """A beat moves the deadline."""
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 10)
    deadlines.set("a", 20)
    assert deadlines.take_expired(19) is None


def test_forgetting_an_unknown_key_is_harmless() -> None:
    """A stream may end before it had a deadline."""
    deadlines: Deadlines[str] = Deadlines()
    deadlines.forget("a")
    assert "a" not in deadlines


@given(st.dictionaries(st.integers(0, 20), st.integers(0, 100)), st.integers(0, 100))
def test_keys_come_earliest_first(due_ms: dict[int, int], now_ms: int) -> None:
    """Taking until nothing is left gives exactly the keys that are due, sorted by deadline; the others stay."""
    deadlines: Deadlines[int] = Deadlines()
    for key, due in due_ms.items():
        deadlines.set(key, due)
    taken = []
    while (key_taken := deadlines.take_expired(now_ms)) is not None:
        taken.append(due_ms[key_taken])
    assert taken == sorted(due for due in due_ms.values() if due <= now_ms)
    assert set(deadlines) == {key for key, due in due_ms.items() if due > now_ms}
