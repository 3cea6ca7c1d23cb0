"""The table of popped messages, held against a dumb twin that looks at every message it ever saw."""

from dataclasses import dataclass

import pytest
from apogeemq.broker.core.pop_table import REMEMBERED_MAX, Checkpoint, PopTable
from hypothesis import given
from hypothesis import strategies as st

KEYS = [("G", "T", 0), ("G", "T", 1), ("H", "T", 0)]


def checkpoint(
    place: int = 0,
    offsets: tuple[int, ...] = (0,),
    *,
    key: tuple[str, str, int] = KEYS[0],
    pop_time_ms: int = 1_000,
    invisible_time_ms: int = 100,
    queue_id: int = 0,
    is_prolonged: bool = False,
) -> Checkpoint:
    return Checkpoint(
        key, offsets[0], pop_time_ms, invisible_time_ms, queue_id, place, place * 100, offsets, is_prolonged
    )


@dataclass
class TwinMessage:
    holder: Checkpoint
    settled: bool = False


class Twin:
    """Every message with its newest checkpoint."""

    def __init__(self) -> None:
        self.messages: dict[tuple[tuple[str, str, int], int], TwinMessage] = {}

    def add(self, new: Checkpoint) -> None:
        for offset in new.offsets:
            old = self.messages.get((new.key, offset))
            if old is None or old.settled or old.holder.physical_offset <= new.physical_offset:
                self.messages[new.key, offset] = TwinMessage(new)

    def settle(self, held: Checkpoint, offset: int) -> None:
        message = self.messages.get((held.key, offset))
        if message is not None and message.holder is held:
            message.settled = True

    def live(self) -> dict[tuple[tuple[str, str, int], int], Checkpoint]:
        return {at: message.holder for at, message in self.messages.items() if not message.settled}


adds = st.tuples(
    st.just("add"),
    st.sampled_from(KEYS),
    st.sets(st.integers(0, 9), min_size=1, max_size=4),
    st.integers(0, 50),
    st.integers(0, 1),
)
settles = st.tuples(st.just("settle"), st.integers(0, 30), st.integers(0, 9))


@given(st.lists(adds | settles, max_size=40), st.permutations(range(40)))
def test_it_agrees_with_the_twin(steps: list[tuple], places: list[int]) -> None:  # type: ignore[type-arg]
    """Holders, counts, due times and the oldest needed records, after every step, in any order of the log."""
    table, twin = PopTable(), Twin()
    made: list[Checkpoint] = []
    for number, step in enumerate(steps):
        if step[0] == "add":
            _, key, offsets, time_ms, queue_id = step
            new = checkpoint(number, tuple(sorted(offsets)), key=key, pop_time_ms=time_ms, queue_id=queue_id)
            new.physical_offset = places[number]
            made.append(new)
            table.add(new)
            twin.add(new)
        elif made:
            held = made[step[1] % len(made)]
            table.settle(held, step[2], acknowledged=True)
            twin.settle(held, step[2])
        live = twin.live()
        assert len(table) == len(live)
        assert {(key, offset): table.holder(key, offset) for key in KEYS for offset in range(10)} == {
            (key, offset): live.get((key, offset)) for key in KEYS for offset in range(10)
        }
        holders = set(live.values())
        assert table.checkpoints == len(holders)
        assert table.next_attempt_ms() == min((held.due_ms for held in holders), default=None)
        for queue_id in (0, 1):
            needed = [held.revive_offset for held in holders if held.revive_queue_id == queue_id]
            assert table.first_needed(queue_id) == min(needed, default=None)
        assert dict(table.in_flight()) == {key: count for key in KEYS if (count := sum(at[0] == key for at in live))}
        for held in holders:
            assert table.messages_of(held) == [o for o in held.offsets if live.get((held.key, o)) is held]


def test_what_is_due_comes_in_the_order_of_its_times() -> None:
    """Not before its time; what was settled does not come."""
    table = PopTable()
    early, late, settled = (
        checkpoint(1, (1,), pop_time_ms=10),
        checkpoint(2, (2,), pop_time_ms=20),
        checkpoint(3, (3,), pop_time_ms=5),
    )
    for each in (late, settled, early):
        table.add(each)
    table.settle(settled, 3, acknowledged=True)
    assert table.due(109) is None
    assert table.due(110) is early
    table.settle(early, 1, acknowledged=False)
    assert table.due(119) is None
    assert table.due(120) is late


def test_a_postponed_one_lets_the_others_pass() -> None:
    """It is tried again later; its time is over all the same."""
    table = PopTable()
    first, second = checkpoint(1, (1,), pop_time_ms=0), checkpoint(2, (2,), pop_time_ms=1)
    table.add(first)
    table.add(second)
    table.postpone(first, 5_000)
    assert table.due(101) is second
    table.settle(second, 2, acknowledged=False)
    assert table.due(4_999) is None
    assert table.due(5_000) is first
    assert first.due_ms == 100


def test_an_acknowledgement_of_a_prolonged_message_is_remembered() -> None:
    """And that of an ordinary one is not: its handle tells its time; nor is a revived one acknowledged."""
    table = PopTable()
    prolonged = checkpoint(1, (1, 2), is_prolonged=True)
    ordinary = checkpoint(2, (3,))
    table.add(prolonged)
    table.add(ordinary)
    table.settle(prolonged, 1, acknowledged=True)
    table.settle(prolonged, 2, acknowledged=False)
    table.settle(ordinary, 3, acknowledged=True)
    assert [table.was_acknowledged(KEYS[0], offset, 1_000) for offset in (1, 2, 3)] == [True, False, False]


@pytest.mark.parametrize(("pop_time_ms", "expected"), [(1_000, False), (1_001, True)])
def test_only_another_pop_time_replaces_a_handle(pop_time_ms: int, expected: bool) -> None:
    """More time under the same pop time is the same handle."""
    table = PopTable()
    table.add(checkpoint(1, (1,)))
    table.add(checkpoint(2, (1,), pop_time_ms=pop_time_ms))
    assert table.was_replaced(KEYS[0], 1, 1_000) is expected


def test_what_it_remembers_is_bounded() -> None:
    """The oldest is forgotten first."""
    table = PopTable()
    for number in range(REMEMBERED_MAX + 1):
        table.add(held := checkpoint(number, (number,), is_prolonged=True))
        table.settle(held, number, acknowledged=True)
    assert not table.was_acknowledged(KEYS[0], 0, 1_000)
    assert table.was_acknowledged(KEYS[0], 1, 1_000)


def test_settled_ones_do_not_pile_up() -> None:
    """A thousand pops that are acknowledged at once leave few entries behind."""
    table = PopTable()
    for number in range(1_000):
        table.add(held := checkpoint(number, (number,), invisible_time_ms=10**9))
        table.settle(held, number, acknowledged=True)
    assert len(table._heap) <= 65
    assert table._queues == {}
