"""Which transactions are pending, in which order they are due, and from where a start must read."""

import pytest
from apogeemq.broker.core.transactions import OPS_PER_BLOCK, Decision, Transaction, TransactionTable
from apogeemq.broker.errors import SystemBusy
from apogeemq.broker.service.transactions import CheckSchedule
from hypothesis import given, settings
from hypothesis import strategies as st


def table(pending_max: int = 100) -> TransactionTable:
    return TransactionTable(pending_max=pending_max)


def half(offset: int, due_ms: int = 1_000, group: str = "P") -> Transaction:
    return Transaction([offset], offset * 100, group, "T", 0, due_ms)


def add(pending: TransactionTable, offset: int, due_ms: int = 1_000, group: str = "P") -> Transaction:
    transaction = half(offset, due_ms, group)
    pending.add(transaction)
    return transaction


def test_any_copy_names_the_transaction() -> None:
    """The first half message and all that were stored for questions; none of them once it is settled."""
    pending = table()
    first = add(pending, 0)
    pending.renew(first, 3, 300, 2_000)
    assert pending.find(0) is pending.find(3) is first
    assert (first.origin, first.newest, first.physical_offset, len(pending)) == (0, 3, 300, 1)
    pending.settle(first, Decision.ROLLBACK, 0)
    assert pending.find(0) is pending.find(3) is None
    assert pending.decision(0) is pending.decision(3) is Decision.ROLLBACK
    assert len(pending) == 0
    assert pending.by_topic == {}


def test_one_too_many_is_refused_with_the_limit() -> None:
    """Before anything is stored for it."""
    pending = table(pending_max=2)
    for offset in range(2):
        pending.check_room()
        add(pending, offset)
    with pytest.raises(
        SystemBusy, match=r"2 transactions are pending, the limit \(limits.pending_transactions_max\) is 2"
    ):
        pending.check_room()


def test_they_are_due_in_the_order_of_their_times() -> None:
    """Whatever the order in which they came; postponed ones at their new time."""
    pending = table()
    late, early, middle = add(pending, 0, 300), add(pending, 1, 100), add(pending, 2, 200)
    assert pending.next_due_ms() == 100
    assert pending.due(99) is None
    assert pending.due(100) is early
    pending.postpone(early, 250)
    assert [pending.next_due_ms(), pending.due(1_000)] == [200, middle]
    pending.settle(middle, Decision.COMMIT, 0)
    assert pending.due(1_000) is early
    pending.renew(early, 3, 300, 400)
    assert pending.due(1_000) is late
    assert pending.due(299) is None


def test_what_is_parked_is_not_due() -> None:
    """Until its group is let go on, a few at a time."""
    pending = table()
    parked = [add(pending, offset, 100, "P") for offset in range(3)]
    add(pending, 3, 500, "Q")
    for transaction in parked:
        pending.park(transaction)
    assert pending.parked() == {"P": parked[0]}
    assert pending.next_due_ms() == 500
    pending.unpark("P", 200, 2)
    assert pending.due(200) in parked[:2]
    assert pending.parked() == {"P": parked[2]}
    pending.settle(parked[2], Decision.GIVEN_UP, 0)
    assert pending.parked() == {}
    pending.unpark("P", 200, 2)  # nothing waits there any more


def test_a_file_that_goes_asks_for_the_newest_copies() -> None:
    """Older ones may go with it."""
    pending = table()
    first, second = add(pending, 1), add(pending, 2)
    assert pending.first_below(100) is None
    assert pending.first_below(101) is first
    pending.renew(first, 3, 300, 0)
    assert pending.first_below(201) is second
    assert pending.first_below(200) is None


class Twin:
    """The two topics as lists, read from their begin: what is not named by a record is pending."""

    def __init__(self) -> None:
        self.halves: list[int] = []
        """The first half offset of what lies at each half offset."""
        self.ops: list[list[int]] = []

    def pending_from(self, half_offset: int, op_offset: int) -> dict[int, int]:
        """Origin to newest copy of all that a start finds pending that reads from these offsets on."""
        decided = {offset for op in self.ops[op_offset:] for offset in op}
        found = {}
        for offset in range(half_offset, len(self.halves)):
            origin = self.halves[offset]
            if origin not in decided and offset not in decided:
                found[origin] = offset
        return found


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1_000)), max_size=300))
@settings(max_examples=60, deadline=None)
def test_a_start_finds_what_is_pending(steps: list[tuple[int, int]]) -> None:
    """From the two pointers on it reads what reading everything from the begin would find."""
    pending, twin = table(1_000), Twin()
    alive: list[Transaction] = []
    for kind, choice in steps:
        if kind == 0 or not alive:
            alive.append(add(pending, len(twin.halves)))
            twin.halves.append(len(twin.halves))
        elif kind == 1:
            transaction = alive[choice % len(alive)]
            pending.renew(transaction, len(twin.halves), len(twin.halves) * 100, 0)
            twin.halves.append(transaction.origin)
        else:
            transaction = alive.pop(choice % len(alive))
            pending.settle(transaction, Decision.COMMIT, len(twin.ops))
            twin.ops.append(list(transaction.offsets))
        half_offset = pending.first_needed_half(len(twin.halves))
        op_offset = pending.first_needed_op(half_offset, len(twin.ops))
        everything = {transaction.origin: transaction.newest for transaction in alive}
        assert twin.pending_from(0, 0) == everything
        assert twin.pending_from(half_offset, op_offset) == everything


def test_the_pointers_follow() -> None:
    """With nothing pending they stand at the ends; a start then reads nothing."""
    pending = table()
    count = 3 * OPS_PER_BLOCK
    for number in range(count):
        pending.settle(add(pending, number), Decision.COMMIT, number)
    assert pending.first_needed_half(count) == count
    assert pending.first_needed_op(count, count) == count
    stuck = add(pending, count)
    for number in range(count, 2 * count):
        pending.settle(add(pending, number + 1), Decision.COMMIT, number)
    assert pending.first_needed_half(2 * count + 1) == count
    assert pending.first_needed_op(count, 2 * count) == count
    pending.settle(stuck, Decision.COMMIT, 2 * count)
    end = 2 * count + 1
    assert pending.first_needed_op(pending.first_needed_half(end), end) == end


def test_what_was_decided_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest first."""
    monkeypatch.setattr("apogeemq.broker.core.transactions.DECIDED_MAX", 2)
    pending = table()
    for offset in range(3):
        pending.settle(add(pending, offset), Decision.COMMIT, offset)
    assert [pending.decision(offset) for offset in range(3)] == [None, Decision.COMMIT, Decision.COMMIT]


@pytest.mark.parametrize(
    ("checks", "immunity_ms", "wait_ms"),
    [
        (0, None, 6),
        (0, 60, 60),
        (1, None, 30),
        (1, 60, 30),
        (2, None, 60),
        (3, None, 120),
        (4, None, 200),
        (99, None, 200),
    ],
)
def test_the_waits_grow_to_a_bound(checks: int, immunity_ms: int | None, wait_ms: int) -> None:
    """After the first question twice as long each time."""
    schedule = CheckSchedule(timeout_ms=6, interval_ms=30, interval_ms_max=200, checks_max=15, pending_ms_max=9_999)
    assert schedule.wait_ms(checks, immunity_ms) == wait_ms
