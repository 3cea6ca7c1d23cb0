"""What a SYNC_MASTER's sends wait for."""

from apogeemq.broker.service.durability import Outcome
from apogeemq.broker.service.slave_copies import SlaveCopies


class World:
    """A master whose log ends at 1000, and its slaves."""

    takes_writes = True

    def __init__(self, *slaves: int, needed: int = 1) -> None:
        self.slaves = list(slaves)
        self.outcomes: list[Outcome] = []
        self.copies = SlaveCopies(
            end_offset=lambda: 1000,
            progress=self,
            written=lambda: None,
            waits=True,
            waiting_max=10,
            timeout_s=3.0,
            slaves=lambda: self.slaves,
            needed=needed,
            gap_bytes_max=400,
        )

    def send(self, end_offset: int = 1000) -> None:
        self.copies.when_confirmed(end_offset, 5.0, self.outcomes.append)


def test_a_send_waits_for_one_slave() -> None:
    """The first that holds the message lets it go."""
    world = World(900, 700)
    world.send()
    world.copies.confirmed(1000)
    assert not world.outcomes
    world.slaves[1] = 1000
    world.copies.copied()
    assert world.outcomes == [Outcome.DONE]


def test_a_send_waits_for_as_many_slaves_as_are_needed() -> None:
    """One of two is not enough."""
    world = World(1000, 700, needed=2)
    world.send()
    world.copies.copied()
    assert not world.outcomes
    world.slaves[1] = 1000
    world.copies.copied()
    assert world.outcomes == [Outcome.DONE]


def test_nobody_waits_for_slaves_that_are_not_there_or_too_far_behind() -> None:
    """The answer is there at once, and says so."""
    for world in (World(), World(600), World(1000, needed=2)):
        world.send()
        assert world.outcomes == [Outcome.NO_SLAVE]


def test_a_slave_that_goes_away_leaves_its_sends_to_their_deadline() -> None:
    """The message is stored here; whether it was copied nobody knows."""
    world = World(900)
    world.send()
    world.slaves.clear()
    world.copies.copied()
    assert not world.outcomes
    world.copies.line.expire(5.0)
    assert world.outcomes == [Outcome.TIMEOUT]


def test_a_master_that_stops_tells_who_waits() -> None:
    """And whoever comes then."""
    world = World(900)
    world.send()
    world.copies.fence()
    world.send()
    assert world.outcomes == [Outcome.FAILED, Outcome.FAILED]
