"""Held pulls: bounds, wake-ups by tag, deadlines, closed connections; and against a dumb twin."""

from apogeemq.broker.core.long_polling import HeldLimits, LongPollingTable, ReachedLimit, Waiting
from hypothesis import given
from hypothesis import strategies as st


def waiting(
    name: str, *, queue_id: int = 0, deadline: float = 10.0, tags: set[int] | None = None, owner: str = "c"
) -> Waiting[str]:
    return Waiting("T", queue_id, deadline, None if tags is None else frozenset(tags), owner, name)


def names(waitings: list[Waiting[str]]) -> list[str]:
    return [w.what for w in waitings]


def woken(polls: LongPollingTable[str], queue_id: int, tag_codes: set[int]) -> list[Waiting[str]]:
    """Who may want messages with these tag codes, taken out."""
    return [w for w in polls.waiting_on("T", queue_id) if w.wants(tag_codes) and polls.take_out(w)]


def table(
    waiting_max: int = 100, per_queue: int = 100, per_owner: int = 100, size_bytes: int = 100
) -> LongPollingTable[str]:
    return LongPollingTable(HeldLimits(waiting_max, per_queue, per_owner, size_bytes))


def test_a_message_wakes_those_who_may_want_it_and_nobody_else() -> None:
    """Wake-ups follow queue and tag codes; who wants everything is always woken."""
    polls = table()
    for w in (waiting("all"), waiting("tag 1", tags={1}), waiting("tag 2", tags={2}), waiting("other", queue_id=1)):
        assert polls.add(w) is None
    assert names(woken(polls, 0, {1})) == ["all", "tag 1"]
    assert names(woken(polls, 0, {1})) == []
    assert polls.has_waiting("T", 0)
    assert polls.has_waiting("T", 1)
    assert not polls.has_waiting("T", 2)
    assert len(polls) == 2


def test_deadlines_come_in_order_and_only_once() -> None:
    """Expiry takes out exactly those whose time has come; next_deadline tells the next one."""
    polls = table()
    for name, deadline in (("late", 30.0), ("early", 10.0), ("middle", 20.0)):
        polls.add(waiting(name, deadline=deadline))
    assert polls.next_deadline() == 10.0
    assert names(polls.expire(9.9, 9)) == []
    assert names(polls.expire(20.0, 9)) == ["early", "middle"]
    assert polls.next_deadline() == 30.0
    woken(polls, 0, {0})
    assert polls.next_deadline() is None
    assert names(polls.expire(99.0, 9)) == []


def test_as_many_expire_as_are_asked_for() -> None:
    """The others whose time is over come next; those that are gone already do not count."""
    polls = table()
    all_of_them = [waiting(str(number), deadline=float(number)) for number in range(5)]
    for w in all_of_them:
        polls.add(w)
    assert polls.take_out(all_of_them[1])
    assert not polls.take_out(all_of_them[1])
    assert names(polls.expire(3.0, 2)) == ["0", "2"]
    assert names(polls.expire(3.0, 2)) == ["3"]
    assert names(polls.expire(3.0, 2)) == []
    assert len(polls) == 1


def test_a_full_table_refuses() -> None:
    """Each bound holds and is named, and a refused pull leaves nothing behind."""
    polls = table(waiting_max=3, per_queue=2)
    assert polls.add(waiting("1")) is None
    assert polls.add(waiting("2")) is None
    assert polls.add(waiting("one too many on this queue")) == ReachedLimit("waiting_per_queue_max", 2, 2)
    assert polls.add(waiting("3", queue_id=1)) is None
    assert polls.add(waiting("one too many in all", queue_id=2)) == ReachedLimit("waiting_max", 3, 3)
    assert not polls.has_waiting("T", 2)
    assert len(polls) == 3


def test_one_owner_can_not_take_all_places() -> None:
    """Its bound is for it alone, and has room again when one of its pulls leaves."""
    polls = table(per_owner=1)
    assert polls.add(waiting("1", owner="x")) is None
    assert polls.add(waiting("2", owner="x", queue_id=1)) == ReachedLimit("waiting_per_owner_max", 1, 1)
    assert polls.add(waiting("3", owner="y")) is None
    polls.drop_owner("x")
    assert polls.add(waiting("4", owner="x")) is None


def test_what_is_held_is_bounded_in_bytes() -> None:
    """However it leaves, its bytes are free again."""
    polls = table(size_bytes=10)
    for leave in (
        lambda: woken(polls, 0, {0}),
        lambda: polls.expire(99.0, 9),
        lambda: polls.drop_owner("c"),
        polls.drain,
        lambda: polls.take("T", 0, lambda what: True),
    ):
        held = waiting("a")
        held.size_bytes = 7
        assert polls.add(held) is None
        large = waiting("b", queue_id=1)
        large.size_bytes = 4
        assert polls.add(large) == ReachedLimit("size_bytes_max", 10, 7)
        large.size_bytes = 3
        assert polls.add(large) is None
        assert polls.size_bytes == 10
        leave()
        polls.drain()
        assert polls.size_bytes == 0


def test_a_closed_connection_is_forgotten() -> None:
    """What an owner held is gone, the others' stays."""
    polls = table()
    polls.add(waiting("a", owner="x"))
    polls.add(waiting("b", owner="y"))
    polls.add(waiting("c", owner="x", queue_id=1))
    assert polls.drop_owner("x") == 2
    assert polls.drop_owner("x") == 0
    assert names(polls.drain()) == ["b"]
    assert len(polls) == 0


def test_the_heap_of_deadlines_does_not_grow_with_wake_ups() -> None:
    """Thousands of pulls held and woken within one deadline leave a small heap."""
    polls = table()
    for number in range(5_000):
        polls.add(waiting(str(number)))
        woken(polls, 0, {0})
    assert len(polls._deadlines) <= 65


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.integers(0, 2),
            st.integers(0, 20),
            st.none() | st.frozensets(st.integers(0, 3), min_size=1),
            st.sampled_from("xyz"),
        ),
        st.tuples(st.just("wake"), st.integers(0, 2), st.frozensets(st.integers(0, 3), min_size=1)),
        st.tuples(st.just("expire"), st.integers(0, 20)),
        st.tuples(st.just("drop"), st.sampled_from("xyz")),
    ),
    max_size=40,
)


@given(steps)
def test_against_a_dumb_twin(script: list[tuple]) -> None:  # type: ignore[type-arg]  # four kinds of steps
    """The table and a plain list agree on who comes out at every step."""
    polls = table(waiting_max=8, per_queue=4)
    twin: list[Waiting[str]] = []
    for number, step in enumerate(script):
        if step[0] == "add":
            _, queue_id, deadline, tags, owner = step
            w = Waiting("T", queue_id, float(deadline), tags, owner, str(number))
            fits = len(twin) < 8 and sum(t.queue_id == queue_id for t in twin) < 4
            assert (polls.add(w) is None) is fits
            if fits:
                twin.append(w)
            continue
        if step[0] == "wake":
            out = [t for t in twin if t.queue_id == step[1] and (t.tag_codes is None or t.tag_codes & step[2])]
            got = woken(polls, step[1], set(step[2]))
        elif step[0] == "expire":
            out = [t for t in twin if t.deadline <= step[1]]
            got = polls.expire(float(step[1]), 9)
        else:
            out = [t for t in twin if t.owner == step[1]]
            assert polls.drop_owner(step[1]) == len(out)
            got = out
        assert {t.what for t in got} == {t.what for t in out}
        twin = [t for t in twin if t not in out]
        assert len(polls) == len(twin)


def test_some_of_a_queue_are_taken_out() -> None:
    """By what they are, whatever their tags; the others stay, and deadlines forget those that went."""
    polls = table()
    for w in (waiting("a1", tags={1}), waiting("b"), waiting("a2", deadline=20.0), waiting("a3", queue_id=1)):
        polls.add(w)
    assert names(polls.take("T", 0, lambda what: what.startswith("a"))) == ["a1", "a2"]
    assert names(polls.take("T", 0, lambda what: what.startswith("a"))) == []
    assert names(polls.take("T", 7, lambda what: True)) == []
    assert len(polls) == 2
    assert names(polls.expire(99.0, 9)) == ["b", "a3"]
