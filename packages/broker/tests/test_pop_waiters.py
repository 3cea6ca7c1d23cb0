"""Lines of waiting pops, held against a dumb twin: one list of everybody, looked through each time."""

from apogeemq.broker.core.pop_waiters import Line, PopWaiter, PopWaiterTable
from hypothesis import given
from hypothesis import strategies as st

LINES = [
    Line("T", "G", -1, None),
    Line("T", "G", 1, None),
    Line("T", "G", -1, frozenset({7})),
    Line("T", "H", -1, None),
    Line("U", "G", -1, None),
]
RETRY = {line: [f"%RETRY%{line.group}_{line.topic}"] for line in LINES}
WAITING_MAX, PER_KEY_MAX = 12, 5

add = st.tuples(st.just("add"), st.sampled_from(LINES), st.integers(0, 9), st.sampled_from("ab"))
remove = st.tuples(st.just("remove"), st.integers(0, 99))
expire = st.tuples(st.just("expire"), st.integers(0, 9))
drop = st.tuples(st.just("drop"), st.sampled_from("ab"))


def is_woken(line: Line, topic: str, queue_id: int, tags_code: int) -> bool:
    if topic == line.topic:
        return line.queue_id in (-1, queue_id) and (line.tag_codes is None or tags_code in line.tag_codes)
    return topic in RETRY[line]


def key_of(line: Line) -> tuple[str, str, int]:
    return line.topic, line.group, line.queue_id


@given(st.lists(add | remove | expire | drop, max_size=60))
def test_it_agrees_with_the_twin(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    """Bounds, heads of lines, who is woken by what, who is late, who is forgotten with an owner."""
    table: PopWaiterTable[int] = PopWaiterTable(waiting_max=WAITING_MAX, waiting_per_key_max=PER_KEY_MAX)
    twin: list[PopWaiter[int]] = []
    for number, step in enumerate(steps):
        if step[0] == "add":
            _, line, deadline, owner = step
            waiter = PopWaiter(line, RETRY[line], deadline, owner, number)
            of_key = sum(key_of(other.line) == key_of(line) for other in twin)
            has_room = len(twin) < WAITING_MAX and of_key < PER_KEY_MAX
            assert table.add(waiter) is has_room
            twin += [waiter] * has_room
        elif step[0] == "remove" and twin:
            waiter = twin.pop(step[1] % len(twin))
            assert table.remove(waiter)
            assert not table.remove(waiter)
        elif step[0] == "expire":
            late = [waiter for waiter in twin if waiter.deadline <= step[1]]
            assert sorted(w.what for w in table.expire(step[1])) == [w.what for w in late]
            twin = [waiter for waiter in twin if waiter not in late]
        elif step[0] == "drop":
            assert table.drop_owner(step[1]) == sum(waiter.owner == step[1] for waiter in twin)
            twin = [waiter for waiter in twin if waiter.owner != step[1]]
        assert len(table) == len(twin)
        for line in LINES:
            assert table.first(line) is next((waiter for waiter in twin if waiter.line == line), None)
        waiting = {waiter.line for waiter in twin}
        for arrival in (("T", 0, 7), ("T", 1, 8), ("U", 0, 0), ("%RETRY%G_T", 0, 0), ("%RETRY%H_T", 0, 0), ("V", 0, 0)):
            assert set(table.woken_by(*arrival)) == {line for line in waiting if is_woken(line, *arrival)}
    assert {waiter.what for waiter in table.drain()} == {waiter.what for waiter in twin}
    assert len(table) == 0


def test_those_who_left_do_not_pile_up() -> None:
    """A thousand that were served long before their deadlines leave few entries behind."""
    table: PopWaiterTable[int] = PopWaiterTable(waiting_max=10, waiting_per_key_max=10)
    for number in range(1_000):
        waiter = PopWaiter(LINES[0], RETRY[LINES[0]], 10.0**9, "a", number)
        assert table.add(waiter)
        table.remove(waiter)
    assert len(table._deadlines) <= 65
    assert not table._lines
    assert not table._woken_by
    assert not table._owners
    assert not table._keys
