"""Every broker is told, until it says that it knows (architecture §6.6)."""

from dataclasses import replace

from apogeemq.controller.core.broker_set import SyncState
from apogeemq.controller.core.notifications import Again, Changed, Closed, Knows, Notifications, Opened, Tell, Tick

STATE = SyncState(1, 5, (1, 2), 9)


def test_a_state_is_told_again_each_second_until_it_is_known() -> None:
    """Whoever comes later is told at once."""
    machine = Notifications()
    assert machine.step(Opened(1), 0) == ()
    assert machine.step(Changed(STATE), 10) == (Tell(1, STATE),)
    assert machine.step(Opened(2), 20) == (Tell(2, STATE),)
    assert machine.step(Knows(1, 5, 9), 30) == ()
    assert machine.step(Tick(), 1_019) == ()
    assert machine.step(Tick(), 1_020) == (Tell(2, STATE),)


def test_only_the_newest_state_is_told() -> None:
    """An answer about an older one does not count, an older state is not told at all."""
    machine = Notifications()
    machine.step(Opened(1), 0)
    machine.step(Changed(STATE), 0)
    newer = replace(STATE, set_epoch=10)
    assert machine.step(Changed(newer), 5) == (Tell(1, newer),)
    assert machine.step(Changed(STATE), 6) == ()
    machine.step(Knows(1, 5, 9), 7)
    assert machine.step(Tick(), 1_005) == (Tell(1, newer),)


def test_a_stream_that_ended_is_told_nothing() -> None:
    """Until it opens again."""
    machine = Notifications()
    machine.step(Opened(1), 0)
    machine.step(Closed(1), 1)
    assert machine.step(Changed(STATE), 2) == ()


def test_what_stands_beside_the_state_is_told_once_more() -> None:
    """To all, also those that know the state."""
    machine = Notifications()
    machine.step(Opened(1), 0)
    machine.step(Changed(STATE), 0)
    machine.step(Knows(1, STATE.master_epoch, STATE.set_epoch), 10)
    assert machine.step(Again(), 20) == (Tell(1, STATE),)


def test_nothing_is_due_once_everybody_knows() -> None:
    """Time alone tells nobody anything then."""
    machine = Notifications()
    machine.step(Opened(1), 0)
    machine.step(Changed(STATE), 0)
    assert not machine.is_quiet
    machine.step(Knows(1, STATE.master_epoch, STATE.set_epoch), 10)
    assert machine.is_quiet
    assert machine.step(Tick(), 10**9) == ()
