"""Where a watch has got to, and when its member counts as dead."""

from apogeemq.controller.core.watch_progress import WatchProgress


def test_changes_told_again_are_left_out() -> None:
    """After going on elsewhere, what was delivered is not delivered twice."""
    progress = WatchProgress(5)
    assert progress.told([5, 5, 7], 0) == [0, 1, 2]
    assert progress.next_revision == 8
    assert progress.told([6, 7, 8, 9], 1) == [2, 3]
    assert progress.next_revision == 10


def test_a_silent_member_is_asked_after_10_s_and_given_up_2_s_later() -> None:
    """Architecture §6.13. What it says in between shows that it lives."""
    progress = WatchProgress(1)
    progress.opened(0)
    progress.alive(100)
    assert progress.due_ms() == 10_100
    assert not progress.must_ask(10_099)
    assert progress.must_ask(10_100)
    assert not progress.must_ask(10_101)
    assert progress.due_ms() == 12_100
    assert [progress.is_dead(now_ms) for now_ms in (12_099, 12_100)] == [False, True]
    progress.alive(12_050)
    assert not progress.is_dead(12_100)
    assert progress.due_ms() == 22_050


def test_a_member_that_does_not_take_the_watch_is_given_up_after_2_s() -> None:
    """The first answer is due as soon as that to a question."""
    progress = WatchProgress(1)
    progress.opened(500)
    assert [progress.is_dead(now_ms) for now_ms in (2499, 2500)] == [False, True]
