"""Beats: what they say, when they stop, and until when they make a lease good (architecture §4.6, §6.3)."""

from apogeemq.broker.links.beats import LOOP_SILENT_S, UNANSWERED_MAX, Beats


class Broker:
    """A clock that the test moves, and a log."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.end_offset = 0
        self.beats = Beats(end_offset=lambda: self.end_offset, epoch=lambda: 3, boot_time=lambda: self.now_s)


def test_a_beat_says_who_and_how_far() -> None:
    """Lease, broker, epoch and the log's end as it is when the beat goes out."""
    broker = Broker()
    broker.beats.take_lease(2, 77)
    broker.end_offset = 4096
    made = broker.beats.make()
    assert made is not None
    beat = made.beat
    assert (beat.lease_id, beat.broker_id, beat.epoch, beat.end_offset) == (77, 2, 3, 4096)


def test_without_a_lease_nothing_beats() -> None:
    """Before a registration, and once the lease is given back."""
    broker = Broker()
    assert broker.beats.make() is None
    broker.beats.take_lease(2, 77)
    broker.beats.drop_lease()
    assert broker.beats.make() is None


def test_a_loop_that_hangs_ends_the_beats() -> None:
    """They go on for 2 s after its last sign of life, and again from the next."""
    broker = Broker()
    broker.beats.take_lease(2, 77)
    broker.beats.tick()
    broker.now_s += LOOP_SILENT_S
    assert broker.beats.make() is not None
    broker.now_s += 0.1
    assert broker.beats.make() is None
    broker.beats.tick()
    assert broker.beats.make() is not None


def test_a_lease_is_good_from_when_the_beat_was_sent() -> None:
    """Not from when its answer came: etcd may have prolonged it right after the beat left."""
    broker = Broker()
    broker.beats.take_lease(2, 77)
    made = broker.beats.make()
    assert made is not None
    assert not broker.beats.is_lease_good
    broker.now_s += 1.5
    broker.beats.beaten(made.beat.beat_id, 3_000)
    assert broker.beats.lease_until_s == 103.0
    broker.now_s = 102.9
    assert broker.beats.is_lease_good
    broker.now_s = 103.0
    assert not broker.beats.is_lease_good


def test_a_late_answer_takes_nothing_back() -> None:
    """Of answers out of order the latest beat counts; those to beats of another lease count for nothing."""
    broker = Broker()
    broker.beats.take_lease(2, 77)
    first = broker.beats.make()
    broker.now_s += 1
    second = broker.beats.make()
    assert first is not None
    assert second is not None
    broker.beats.beaten(second.beat.beat_id, 3_000)
    broker.beats.beaten(first.beat.beat_id, 3_000)
    assert broker.beats.lease_until_s == 104.0
    third = broker.beats.make()
    assert third is not None
    broker.beats.drop_lease()
    broker.beats.beaten(third.beat.beat_id, 3_000)
    assert broker.beats.lease_until_s == 0.0


def test_unanswered_beats_are_bounded() -> None:
    """The oldest is forgotten: its answer counts no more."""
    broker = Broker()
    broker.beats.take_lease(2, 77)
    made = [broker.beats.make() for _ in range(UNANSWERED_MAX + 1)]
    assert made[0] is not None
    assert made[1] is not None
    broker.beats.beaten(made[0].beat.beat_id, 3_000)
    assert not broker.beats.is_lease_good
    broker.beats.beaten(made[1].beat.beat_id, 3_000)
    assert broker.beats.is_lease_good
