"""What a master of a set waits for before it answers, and before it tells those who wait for messages."""

from __future__ import annotations

import pytest
from apogeemq.broker.errors import InSyncReplicasNotEnough, ServiceNotAvailable
from apogeemq.broker.service.confirmation import Confirmation
from apogeemq.broker.service.durability import Outcome


class World:
    """A log of which the test says where it ends, and a set of which it says how large it is."""

    def __init__(self, *, waits: bool = True) -> None:
        self.end_offset = 0
        self.takes_writes = True
        self.is_lease_good = True
        self.written = 0
        self.arrived: list[tuple[object, ...]] = []
        self.outcomes: list[Outcome] = []
        self.confirmation = Confirmation(
            end_offset=lambda: self.end_offset,
            progress=self,
            written=self._count,
            waits=waits,
            is_lease_good=lambda: self.is_lease_good,
            waiting_max=10,
            timeout_s=3.0,
        )
        self.arrivals = self.confirmation.holding_back(self)

    def _count(self) -> None:
        self.written += 1

    def message_arrived(self, topic: str, queue_id: int, tags_code: int) -> None:
        self.arrived.append((topic, queue_id, tags_code))

    def message_delayed(self, queue_id: int) -> None:
        self.arrived.append((queue_id,))

    def append(self, end_offset: int) -> None:
        """A message that ends here."""
        self.end_offset = end_offset
        self.arrivals.message_arrived("T", 0, end_offset)


def test_nobody_is_told_before_the_set_holds_it() -> None:
    """Whoever waits for a queue is told at the confirm offset, in the order of the log; replication at once."""
    world = World()
    world.append(100)
    world.append(200)
    world.end_offset = 300
    world.arrivals.message_delayed(5)
    assert world.written == 3
    assert world.arrived == []
    world.confirmation.confirmed(150)
    assert world.arrived == [("T", 0, 100)]
    world.confirmation.confirmed(300)
    assert world.arrived == [("T", 0, 100), ("T", 0, 200), (5,)]


def test_an_answer_waits_for_its_own_offset() -> None:
    """Neither longer, nor at all where the set holds it already."""
    world = World()
    world.confirmation.when_confirmed(100, 3.0, world.outcomes.append)
    world.confirmation.confirmed(99)
    assert world.outcomes == []
    world.confirmation.confirmed(100)
    assert world.outcomes == [Outcome.DONE]
    world.confirmation.when_confirmed(100, 3.0, world.outcomes.append)
    assert world.outcomes == [Outcome.DONE, Outcome.DONE]


def test_an_answer_does_not_wait_for_ever() -> None:
    """At its deadline it goes out as timed out."""
    world = World()
    world.confirmation.when_confirmed(100, 3.0, world.outcomes.append)
    world.confirmation.line.expire(3.0)
    assert world.outcomes == [Outcome.TIMEOUT]


def test_who_is_fenced_acknowledges_nothing() -> None:
    """Another epoch began: whoever waits, or comes later, fails, whatever is still confirmed."""
    world = World()
    world.append(100)
    world.confirmation.when_confirmed(100, 3.0, world.outcomes.append)
    world.confirmation.fence()
    world.confirmation.confirmed(100)
    world.confirmation.when_confirmed(50, 3.0, world.outcomes.append)
    assert world.outcomes == [Outcome.FAILED, Outcome.FAILED]
    assert world.arrived == []
    with pytest.raises(ServiceNotAvailable, match="not master now"):
        world.confirmation.check()


def test_a_set_that_is_too_small_takes_nothing() -> None:
    """minInSyncReplicas: refused before anything is stored, with the setting's name."""
    world = World()
    world.takes_writes = False
    with pytest.raises(InSyncReplicasNotEnough) as refused:
        world.confirmation.check()
    assert refused.value.limit == "replication.min_in_sync_replicas"


def test_only_the_weaker_class_looks_at_the_lease() -> None:
    """Class replicas never rests on a clock (architecture §6.3); LOCAL stops with the lease."""
    world = World()
    world.is_lease_good = False
    world.confirmation.check()
    weaker = World(waits=False)
    weaker.confirmation.check()
    weaker.is_lease_good = False
    with pytest.raises(ServiceNotAvailable, match="another broker may be master"):
        weaker.confirmation.check()
