"""Pointers into the log, when the moment could not be worse: seeds hardly ever meet these few milliseconds."""

from collections.abc import Callable

import pytest

from tests.simulation.cluster import Cluster, Settings
from tests.simulation.popped_broker import (
    PoppedBrokerNode,
    TellsAtOnce,
    TellsUnconfirmed,
    no_popped_message_is_lost,
)
from tests.simulation.records import RECORD_SIZE_BYTES
from tests.simulation.world import InvariantBrokenError

UNHEARD_MS = 700
"""Shorter than what it takes to be dropped from the set."""
LOST_BYTES = 10 * RECORD_SIZE_BYTES
LOOK_MS = 2_000
END_MS = 45_000


class Set:
    """A master and two slaves that have had no fault yet."""

    def __init__(self, broker: type[PoppedBrokerNode]) -> None:
        self.cluster = Cluster(0, Settings(broker=broker, learners=0))
        self.cluster.begin()
        self.cluster.world.run_until(5_000)
        brokers = [each for each in self.cluster.brokers if isinstance(each, PoppedBrokerNode)]
        self.master = next(each for each in brokers if each.is_leading)
        self.slaves = sorted((each for each in brokers if each is not self.master), key=lambda each: each.broker_id)

    def let_nobody_hear_the_master(self) -> None:
        """For a while its log goes on, and no slave's does."""
        for slave in self.slaves:
            self.cluster.network.cut(self.master.name, slave.name)

    def run(self, for_ms: int) -> None:
        """Let time pass."""
        self.cluster.world.run_until(self.cluster.world.now_ms + for_ms)

    def until(self, is_so: Callable[[], bool], for_ms: int = LOOK_MS) -> None:
        """Look at each millisecond, and go on after a while all the same: with every rule kept it never is so."""
        for _ in range(for_ms):
            if is_so():
                return
            self.run(1)

    def judge(self) -> None:
        """Everybody is back; in the end nothing is missing. Errors: InvariantBrokenError."""
        self.run(3_000)
        self.cluster.heal()
        self.cluster.world.run_until(END_MS)
        assert self.cluster.checkers.last_acknowledged_ms > END_MS - 1_000
        no_popped_message_is_lost(self.cluster)


def all_streams_break(broker: type[PoppedBrokerNode]) -> None:
    """A slave connects anew, and its master dies before the slave has the log that the pointer speaks of."""
    three = Set(broker)
    three.let_nobody_hear_the_master()
    three.run(UNHEARD_MS)
    three.master.break_streams()
    three.cluster.network.heal()
    next_master = three.slaves[0]
    three.until(lambda: next_master.kept.place > len(next_master.disk.log))
    three.master.stop()
    three.judge()


def master_moved_twice(broker: type[PoppedBrokerNode]) -> None:
    """An operator's election cuts the old master's log, and it leads again before it heard the new one's pointer."""
    three = Set(broker)
    old, next_master = three.master, three.slaves[0]
    three.let_nobody_hear_the_master()

    def is_ahead() -> bool:
        old.disk.sync()  # as with SYNC_FLUSH: nothing but the set is waited for
        return old.kept.place > len(next_master.disk.log) + LOST_BYTES

    three.until(is_ahead, UNHEARD_MS)
    three.cluster.operator.elect(next_master)
    three.until(lambda: next_master.is_leading)
    three.cluster.network.heal()
    three.until(lambda: old.is_copying and old.kept.place > len(old.disk.log))
    for slave in three.slaves:
        slave.stop()
    three.judge()


SITUATIONS = [all_streams_break, master_moved_twice]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_nothing_is_passed_by(situation: Callable[[type[PoppedBrokerNode]], None]) -> None:
    """What was popped comes again."""
    situation(PoppedBrokerNode)


@pytest.mark.parametrize(
    ("mutant", "situation"), [(TellsAtOnce, all_streams_break), (TellsUnconfirmed, master_moved_twice)]
)
def test_a_broken_rule_is_noticed(
    mutant: type[PoppedBrokerNode], situation: Callable[[type[PoppedBrokerNode]], None]
) -> None:
    """Each of the two rules is needed."""
    with pytest.raises(InvariantBrokenError, match="was popped, and never came again"):
        situation(mutant)
