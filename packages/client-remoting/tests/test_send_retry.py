"""The policy by which sends are tried again."""

from collections.abc import Callable

import pytest
from apogeemq.client_remoting.core.send_retry import SendRetry


def test_the_policy_unless_told_otherwise() -> None:
    """Two retries, after the refusals that Apache's producer retries: reference remoting.md §5.3."""
    policy = SendRetry()
    assert (policy.retries, policy.after_lost_connection) == (2, True)
    assert [policy.wait_s(attempts, 1.0) for attempts in (1, 2, 3, 4, 5, 6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert set(policy.refusals) == {17, 14, 1, 2, 16, 204, 205, 1500}


@pytest.mark.parametrize(
    ("attempts", "chance", "wait_s"),
    [(1, 1.0, 0.5), (2, 1.0, 1.0), (3, 1.0, 2.0), (4, 1.0, 3.0), (1000, 1.0, 3.0), (1, 0.0, 0.25), (4, 0.0, 1.5)],
)
def test_waits_double_up_to_the_longest(attempts: int, chance: float, wait_s: float) -> None:
    """Chance takes up to half of it away."""
    assert SendRetry(wait_first_s=0.5, wait_max_s=3).wait_s(attempts, chance) == wait_s


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: SendRetry(retries=-1), "retries is -1"),
        (lambda: SendRetry(wait_first_s=0), "wait_first_s is 0"),
        (lambda: SendRetry(wait_first_s=2, wait_max_s=1), "wait_max_s 1"),
    ],
    ids=["retries", "first wait", "longest wait"],
)
def test_what_is_no_policy_is_refused(make: Callable[[], SendRetry], named: str) -> None:
    """The error names the argument and its value."""
    with pytest.raises(ValueError, match=named):
        make()
