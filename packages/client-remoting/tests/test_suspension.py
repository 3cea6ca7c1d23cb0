"""How long a queue in order waits before its failed message is tried again: Java's bounds."""

import pytest
from apogeemq.client_api.handling import Retry
from apogeemq.client_remoting.core.suspension import orderly_retry, suspend_s


@pytest.mark.parametrize(("wanted_s", "expected_s"), [(0, 0.01), (0.01, 0.01), (7, 7), (30, 30), (7200, 30)])
def test_from_ten_milliseconds_to_thirty_seconds(wanted_s: float, expected_s: float) -> None:
    """Whatever the policy or the handler says."""
    assert suspend_s(wanted_s) == expected_s


def test_without_a_policy_a_message_is_never_given_up() -> None:
    """It is tried every second, as often as RocketMQ can count."""
    retry = orderly_retry(None)
    assert (retry.max_attempts, retry.backoff(1), retry.backoff(9)) == (2_147_483_647, 1.0, 1.0)


def test_delay_levels_are_not_kept_in_place() -> None:
    """A policy that names no back-off waits a second; its other words count."""
    retry = orderly_retry(Retry(max_attempts=3, on=(KeyError,)))
    assert (retry.max_attempts, retry.backoff(2), retry.on) == (3, 1.0, (KeyError,))


def test_a_policys_own_back_off_counts() -> None:
    """As it is."""
    retry = Retry(backoff=lambda attempt: attempt * 2.0)
    assert orderly_retry(retry) is retry
