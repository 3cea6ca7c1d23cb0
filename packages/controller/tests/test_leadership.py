"""Which controller is active: campaign, hold, lose (architecture §6.1)."""

from apogeemq.controller.core.etcd import Outcome, StoredKey
from apogeemq.controller.core.leadership import (
    ActiveAs,
    Beat,
    BeatAnswered,
    Campaign,
    Campaigned,
    Effect,
    GrantLease,
    KeyGone,
    Leadership,
    LeaseGranted,
    Lost,
    Resign,
    RevokeLease,
    Standing,
    Tick,
)

KEY = b"/active"


def held_by(lease_id: int) -> Outcome:
    return Outcome(succeeded=False, revision=9, found=((StoredKey(KEY, b"c1", 4, 4, 1, lease_id),),))


def campaigning() -> Leadership:
    machine = Leadership(KEY, b"c1", ttl_ms=3_000)
    assert machine.step(Tick(), 0) == (GrantLease(3_000),)
    (campaign,) = machine.step(LeaseGranted(7, 3_000, 0), 5)
    assert isinstance(campaign, Campaign)
    return machine


def active() -> Leadership:
    machine = campaigning()
    assert machine.step(Campaigned(7, held_by(7)), 10) == (ActiveAs(4),)
    return machine


def kinds(effects: tuple[Effect, ...]) -> list[type]:
    return [type(effect) for effect in effects]


def test_whoever_holds_the_key_by_its_own_lease_is_active() -> None:
    """Also where the transaction says that it failed: an earlier one of ours was done, and its answer was lost."""
    assert active().standing is Standing.ACTIVE


def test_another_lease_keeps_it_waiting_until_the_key_goes() -> None:
    """It tries again when the key goes, and every half second in any case."""
    machine = campaigning()
    assert machine.step(Campaigned(7, held_by(8)), 10) == ()
    assert machine.standing is Standing.WAITING
    assert kinds(machine.step(KeyGone(), 20)) == [Campaign]
    machine.step(Campaigned(7, None), 30)
    assert machine.step(Tick(), 519) == ()
    assert Campaign in kinds(machine.step(Tick(), 520))


def test_the_ttl_counts_from_when_the_last_good_beat_was_sent() -> None:
    """A beat of 1,000, answered at 2,500, holds until 4,000 (§6.13)."""
    machine = active()
    assert machine.step(Tick(), 1_000) == (Beat(7),)
    machine.step(BeatAnswered(7, 3_000, 1_000), 2_500)
    assert Lost not in kinds(machine.step(Tick(), 3_999))
    effects = machine.step(Tick(), 4_000)
    assert kinds(effects) == [Lost, RevokeLease]
    assert machine.standing is Standing.IDLE


def test_a_lease_that_etcd_let_go_is_lost_at_once() -> None:
    """And so is a key that somebody deleted."""
    assert kinds(active().step(BeatAnswered(7, 0, 1_000), 1_010)) == [Lost, RevokeLease]
    assert kinds(active().step(KeyGone(), 1_010)) == [Lost, RevokeLease]


def test_resigning_gives_the_key_back() -> None:
    """With the lease, so that the next one need not wait."""
    assert kinds(active().step(Resign(), 50)) == [Lost, RevokeLease]


def test_who_resigned_does_not_campaign_again() -> None:
    """It sees its own key go while it stops; a lease that comes then is given back."""
    machine = active()
    machine.step(Resign(), 50)
    assert machine.step(KeyGone(), 60) == machine.step(Tick(), 5_000) == ()
    assert machine.step(LeaseGranted(9, 3_000, 4_900), 5_000) == (RevokeLease(9),)


def test_late_leases_are_given_back() -> None:
    """A second one, and one that is over before it was heard of."""
    assert active().step(LeaseGranted(9, 3_000, 0), 20) == (RevokeLease(9),)
    late = Leadership(KEY, b"c1", ttl_ms=3_000)
    assert late.step(LeaseGranted(9, 3_000, 0), 3_000) == (RevokeLease(9),)
    assert active().step(BeatAnswered(9, 0, 5), 20) == ()
    assert active().step(Campaigned(9, held_by(9)), 20) == ()
