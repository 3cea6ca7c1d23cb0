"""When a lease is beaten for, and when it counts as lost."""

import pytest
from apogeemq.controller.core.lease_beats import RETRY_MS, LeaseBeats


def test_a_beat_is_sent_every_third_of_the_time() -> None:
    """Counted from when the last good one was sent, not from when its answer came."""
    beats = LeaseBeats(9000, 1000)
    assert (beats.next_ms, beats.lost_ms) == (4000, 10_000)
    beats.answered(4000, 9000)
    assert (beats.next_ms, beats.lost_ms) == (7000, 13_000)


def test_the_time_is_what_etcd_last_told() -> None:
    """A time to live that changed holds from the beat whose answer told it."""
    beats = LeaseBeats(9000, 0)
    beats.answered(3000, 6000)
    assert (beats.next_ms, beats.lost_ms) == (5000, 9000)


def test_a_beat_that_failed_puts_nothing_off() -> None:
    """The next is sent soon, and the lease is lost when it would have been."""
    beats = LeaseBeats(9000, 0)
    beats.failed(4500)
    assert (beats.next_ms, beats.lost_ms) == (4500 + RETRY_MS, 9000)
    assert [beats.is_lost(now_ms) for now_ms in (8999, 9000)] == [False, True]


def test_an_old_answer_takes_nothing_back() -> None:
    """The answer to an earlier beat that comes after a later one's."""
    beats = LeaseBeats(9000, 0)
    beats.answered(4000, 9000)
    beats.answered(3000, 9000)
    assert beats.lost_ms == 13_000


@pytest.mark.parametrize(("ttl_ms", "timeout_ms"), [(2000, 666), (4500, 1500), (60_000, 1500)])
def test_an_answer_is_due_within_a_third_and_1500_ms(ttl_ms: int, timeout_ms: int) -> None:
    """Architecture §6.13: min(1.5 s, TTL / 3), else another member is asked."""
    assert LeaseBeats(ttl_ms, 0).answer_timeout_ms == timeout_ms
