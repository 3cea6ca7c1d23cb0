"""A cluster under faults that a seed chooses: three brokers and perhaps a learner, two controllers, etcd, a client.

```
 0 s ──── begin ──── 3 s ──── faults, one after the other ──── 25 s ──── all healed ──── 35 s: progress?
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from apogeemq.controller.core.set_rules import SetRules

from tests.simulation.broker_node import BrokerNode, Machines
from tests.simulation.checkers import Checkers
from tests.simulation.controller_node import ControllerNode
from tests.simulation.lease_store import LeaseStore
from tests.simulation.network import Network
from tests.simulation.operator import Operator
from tests.simulation.world import World

FAULTS_FROM_MS = 3_000
FAULTS_UNTIL_MS = 25_000
END_MS = 35_000
FORGETS_MS = (9_000, 18_000)
SEND_MS = 50
READ_MS = 90
CONSUMED_WITHIN_MS = 3_000


@dataclass(frozen=True)
class Settings:
    """What runs: a mutant puts its own classes in."""

    broker: type[BrokerNode] = BrokerNode
    machines: Machines = field(default_factory=Machines)
    rules: SetRules = field(default_factory=SetRules)
    brokers: int = 3
    controllers: int = 2
    etcd_forgets: bool = False
    """Whether etcd is emptied twice; no machine loses power then, which nobody could tell afterwards (docs/ha.md)."""
    check: Callable[[Cluster], None] = lambda cluster: None
    """What has to hold at the end, beside all else."""
    learners: int | None = None
    """Brokers beside the others that only copy; None lets chance say whether there is one."""


class Cluster:
    """The processes, the clients, and the operator."""

    def __init__(self, seed: int, settings: Settings | None = None) -> None:
        self.settings = settings = settings or Settings()
        self.world = World(seed)
        chance = self.world.chance
        self.network = Network(self.world)
        self.etcd = LeaseStore(self.world)
        self.checkers = Checkers(self.world, self.etcd)
        self.controllers = [
            ControllerNode(self.world, f"c{number}", self.network, self.etcd, settings.rules)
            for number in range(1, settings.controllers + 1)
        ]
        learner_count = 1 if chance.random() < 0.4 else 0
        if settings.learners is not None:
            learner_count = settings.learners
        learners = set(range(settings.brokers + 1, settings.brokers + 1 + learner_count))
        peers: dict[int, BrokerNode] = {}
        self.brokers = [
            settings.broker(
                self.world, f"b{number}", self.network, self.checkers, settings.machines, is_learner=number in learners
            )
            for number in range(1, settings.brokers + 1 + len(learners))
        ]
        for broker in self.brokers:
            broker.peers = peers
            broker.controllers = self.controllers
        self.checkers.brokers = self.brokers
        self.operator = Operator(self)
        self._learners = self.operator.learners
        self._message_count = 0

    def begin(self) -> None:
        """Start everything."""
        for process in (*self.controllers, *self.brokers):
            self.world.after(self.world.chance.randrange(1_000), process.start)
        self._again(SEND_MS, self._send)
        self.begin_reading()
        self.operator.start()

    def begin_reading(self) -> None:
        """Readers and the consumers of the group ask whoever thinks that it is master."""
        self._again(READ_MS, self._read)

    def heal(self) -> None:
        """End every fault."""
        self.world.note("", "all is healed")
        self.network.heal()
        self.network.loss = self.network.copies = self.etcd.lost_answers = 0.0
        self.etcd.outage(0)
        self.operator.learners = self._learners
        for process in (*self.controllers, *self.brokers):
            if process.is_up:
                process.thaw()
            process.start_if_down()  # one that froze while it was leaving stops as soon as it goes on

    def _again(self, interval_ms: int, happens: Callable[[], None]) -> None:
        def again() -> None:
            happens()
            self._again(interval_ms, happens)

        self.world.after(interval_ms, again)

    def _send(self) -> None:
        """To whoever thinks that it is master, also to two of them."""
        for broker in self.brokers:
            if broker.is_leading and not broker.is_frozen:
                self._message_count += 1
                broker.send(self._message_count)

    def _read(self) -> None:
        for broker in self.brokers:
            if broker.is_leading and not broker.is_frozen:
                self.checkers.read(broker)
                self.checkers.consumed(broker.pull())


def run(seed: int, settings: Settings | None = None, *, end_ms: int = END_MS) -> Cluster:
    """One run. Errors: InvariantBrokenError, with the end of the trace in its notes."""
    from tests.simulation.faults import Faults

    cluster = Cluster(seed, settings)
    faults = Faults(cluster)
    cluster.begin()
    cluster.world.after(FAULTS_FROM_MS, faults.next)
    cluster.world.after(FAULTS_UNTIL_MS, cluster.heal)
    if cluster.settings.etcd_forgets:
        for at_ms in FORGETS_MS:
            cluster.world.after(at_ms, cluster.etcd.forget)
    cluster.world.after(end_ms - CONSUMED_WITHIN_MS, cluster.checkers.expect_consumed)
    try:
        cluster.world.run_until(end_ms)
        cluster.checkers.check_consumed()
        cluster.settings.check(cluster)
        if cluster.checkers.last_acknowledged_ms < end_ms - 1_000:
            cluster.checkers.fail(f"nothing was acknowledged after {cluster.checkers.last_acknowledged_ms} ms")
    except Exception as error:
        error.add_note("\n".join(cluster.world.trace[-60:]) + f"\nseed {seed}")
        raise
    return cluster
