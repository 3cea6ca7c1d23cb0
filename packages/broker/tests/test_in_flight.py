"""What waits outside the loop: bounds in number and bytes, in all and of one client."""

from collections import defaultdict

import pytest
from apogeemq.broker.core.in_flight import ENTRY_SIZE_BYTES, InFlight, Limit
from apogeemq.broker.errors import SystemBusy
from hypothesis import given
from hypothesis import strategies as st

KIB = ENTRY_SIZE_BYTES


def in_flight(count: int = 100, size: int = 100, client_count: int = 100, client_size: int = 100) -> InFlight:
    """Sizes in KiB."""
    return InFlight(
        "sends that wait",
        count=Limit("count", count),
        size_bytes=Limit("size", size * KIB),
        client_count=Limit("client count", client_count),
        client_size_bytes=Limit("client size", client_size * KIB),
    )


@pytest.mark.parametrize(
    ("flying", "limit", "told"),
    [
        (in_flight(count=2), "count", "sends that wait: 2 in all, 1 more would be too many, the limit (count) is 2"),
        (
            in_flight(size=5),
            "size",
            "sends that wait: 4096 bytes in all, 2048 more would be too many, the limit (size)",
        ),
        (in_flight(client_count=2), "client count", "sends that wait: 2 of this client, 1 more would be too many"),
        (in_flight(client_size=5), "client size", "sends that wait: 4096 bytes of this client, 2048 more"),
    ],
)
def test_a_refusal_names_the_limit(flying: InFlight, limit: str, told: str) -> None:
    """With what there is, what comes, and the limit's value; another client has its own share."""
    for _ in range(2):
        flying.check("a", KIB)
        flying.enter("a", KIB)
    with pytest.raises(SystemBusy) as refused:
        flying.check("a", KIB)
    assert refused.value.limit == limit
    assert told in refused.value.remark
    if limit.startswith("client"):
        flying.check("b", KIB)
        flying.check(None, KIB)
    flying.leave("a", KIB)
    flying.check("a", KIB)


def test_the_only_one_may_be_of_any_size() -> None:
    """A bound in bytes bounds how many there are, not how large one may be: that is said elsewhere."""
    flying = in_flight(size=1, client_size=1)
    flying.check("a", 50 * KIB)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 5_000), st.integers(1, 3), st.booleans())))
def test_nothing_is_left_behind(steps: list[tuple[str | None, int, int, bool]]) -> None:
    """However they come and go, numbers and bytes are those of who is there; with the last one all is zero."""
    flying = in_flight()
    there: list[tuple[str | None, int, int]] = []
    for client, size_bytes, count, is_leaving in steps:
        if is_leaving and there:
            flying.leave(*there.pop())
        else:
            flying.enter(client, size_bytes, count)
            there.append((client, size_bytes, count))
        assert flying.count == sum(count for _, _, count in there)
        assert flying.size_bytes == sum(size + count * KIB for _, size, count in there)
        shares: dict[str, int] = defaultdict(int)
        for owner, _, number in there:
            if owner is not None:
                shares[owner] += number
        assert {client: share.count for client, share in flying._shares.items()} == shares
