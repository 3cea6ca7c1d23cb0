"""Waking a few at a time: nobody is left out or woken twice, queues take turns; and against a dumb twin."""

from apogeemq.broker.core.long_polling import HeldLimits, LongPollingTable, Waiting
from apogeemq.broker.core.wake_rounds import WakeRounds
from hypothesis import given
from hypothesis import strategies as st


def table_of(*counts: int) -> LongPollingTable[str]:
    """So many waiters in each queue, called "queue/number"."""
    polls: LongPollingTable[str] = LongPollingTable(HeldLimits(1_000, 1_000, 1_000, 1_000))
    for queue_id, count in enumerate(counts):
        for number in range(count):
            polls.add(waiter(queue_id, f"{queue_id}/{number}"))
    return polls


def waiter(queue_id: int, name: str, tag_codes: frozenset[int] | None = None) -> Waiting[str]:
    return Waiting("T", queue_id, 10.0, tag_codes, "owner", name)


def names(waitings: list[Waiting[str]]) -> list[str]:
    return [waiting.what for waiting in waitings]


def test_a_queue_is_walked_a_few_at_a_time_in_the_order_of_coming() -> None:
    """Who was not looked at yet still waits."""
    polls = table_of(5)
    rounds = WakeRounds(polls, at_a_time=2)
    rounds.arrived("T", 0, 7)
    assert names(rounds.next()) == ["0/0", "0/1"]
    assert len(polls) == 3
    assert names(rounds.next()) == ["0/2", "0/3"]
    assert names(rounds.next()) == ["0/4"]
    assert not rounds
    assert rounds.next() == []


def test_queues_take_turns() -> None:
    """A lone waiter is not behind the many of another queue."""
    rounds = WakeRounds(table_of(5, 1), at_a_time=2)
    rounds.arrived("T", 0, 7)
    rounds.arrived("T", 1, 7)
    assert [names(rounds.next()) for _ in range(4)] == [["0/0", "0/1"], ["1/0"], ["0/2", "0/3"], ["0/4"]]


def test_who_does_not_want_a_message_is_looked_at_and_stays() -> None:
    """The bound is on looks: a thousand others' tags cost turns too."""
    polls = table_of()
    for number in range(3):
        polls.add(waiter(0, str(number), frozenset({number})))
    rounds = WakeRounds(polls, at_a_time=2)
    rounds.arrived("T", 0, 2)
    assert names(rounds.next()) == []
    assert names(rounds.next()) == ["2"]
    assert names(polls.waiting_on("T", 0)) == ["0", "1"]


def test_messages_that_come_during_a_walk_are_another_walk() -> None:
    """Who was passed over gets what came since; who went and came back is not met twice in one walk."""
    polls = table_of()
    for name, tag_codes in (("a", {1}), ("b", {2}), ("c", {1})):
        polls.add(waiter(0, name, frozenset(tag_codes)))
    rounds = WakeRounds(polls, at_a_time=2)
    rounds.arrived("T", 0, 1)
    assert names(rounds.next()) == ["a"]
    rounds.arrived("T", 0, 2)
    polls.add(waiter(0, "a again", frozenset({1})))
    assert names(rounds.next()) == ["c"]
    assert names(rounds.next()) == ["b"]
    assert names(rounds.next()) == []
    assert not rounds
    assert names(polls.waiting_on("T", 0)) == ["a again"]


def test_who_left_during_a_walk_is_not_woken() -> None:
    """Its connection closed, or its time was over."""
    polls = table_of(3)
    rounds = WakeRounds(polls, at_a_time=1)
    rounds.arrived("T", 0, 7)
    rounds.next()
    polls.drop_owner("owner")
    assert names(rounds.next()) == []
    assert names(rounds.next()) == []
    assert not names(rounds.next())
    assert not rounds


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 2), st.none() | st.frozensets(st.integers(0, 3), min_size=1)),
        st.tuples(st.just("arrived"), st.integers(0, 2), st.integers(0, 3)),
        st.tuples(st.just("next"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(steps)
def test_against_a_dumb_twin(script: list[tuple]) -> None:  # type: ignore[type-arg]  # three kinds of steps
    """Everybody who waited and may want a message that came is woken, once, within as many steps as there are looks."""
    polls = table_of()
    rounds = WakeRounds(polls, at_a_time=2)
    due: set[str] = set()
    out: list[str] = []
    for number, (kind, queue_id, what) in enumerate(script):
        if kind == "add":
            polls.add(waiter(queue_id, str(number), what))
        elif kind == "arrived":
            due |= {w.what for w in polls.waiting_on("T", queue_id) if w.tag_codes is None or what in w.tag_codes}
            rounds.arrived("T", queue_id, what)
        else:
            out += names(rounds.next())
    for _ in range(3 * len(script)):
        out += names(rounds.next())
    assert not rounds
    assert len(out) == len(set(out))
    assert due <= set(out)
