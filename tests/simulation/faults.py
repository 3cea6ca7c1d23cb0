"""Faults that a seed chooses, one after the other, each healed after a while or left until the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.broker_node import LEAVING_MS
from tests.simulation.cluster import FAULTS_UNTIL_MS

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster
    from tests.simulation.world import Process


class Faults:
    """What goes wrong in one run: a seed favours some kinds, so that they meet."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._world = cluster.world
        kinds: list[Callable[[], None]] = [
            self._kill_broker,
            self._kill_master,
            self._lose_power,
            self._lose_all_power,
            self._stop_cleanly,
            self._freeze,
            self._cut_off,
            self._cut_pair,
            self._break_stream,
            self._kill_controller,
            self._etcd_outage,
            self._etcd_elects,
            self._step_clock,
            self._leave,
            self._elect,
            self._switch_learner,
            self._switch_unclean,
            self._clean_broker,
        ]
        self._is_unclean = False
        chance = self._world.chance
        self._kinds = chance.sample(kinds, chance.randint(2, 6))
        self._pause_ms = chance.choice([400, 1_200, 3_000])
        cluster.network.loss = chance.choice([0.0, 0.0, 0.05, 0.3])
        cluster.network.copies = chance.choice([0.0, 0.1, 0.5])
        cluster.network.delay_ms_max = chance.choice([3, 10, 60])
        cluster.etcd.lost_answers = chance.choice([0.0, 0.0, 0.02, 0.2])

    def next(self) -> None:
        """One fault, and another later."""
        if self._world.now_ms < FAULTS_UNTIL_MS:
            self._world.chance.choice(self._kinds)()
            self._world.after(self._world.chance.randrange(50, 2 * self._pause_ms), self.next)

    def _later(self, happens: Callable[[], None], longest_ms: int = 6_000) -> None:
        self._world.after(self._world.chance.randrange(50, longest_ms), happens)

    def _kill_broker(self) -> None:
        self._stop(self._world.chance.choice(self._cluster.brokers))

    def _kill_master(self) -> None:
        for broker in self._cluster.brokers:
            if broker.is_leading:
                self._stop(broker)
                return

    def _lose_power(self) -> None:
        broker = self._world.chance.choice(self._cluster.brokers)
        if broker.is_up:
            broker.stop(power=not self._cluster.settings.etcd_forgets)
            self._later(broker.start_if_down)

    def _lose_all_power(self) -> None:
        """The brokers share a rack."""
        for broker in self._cluster.brokers:
            if broker.is_up:
                broker.stop(power=not self._cluster.settings.etcd_forgets)
                self._later(broker.start_if_down, 2_000)

    def _stop_cleanly(self) -> None:
        self._stop(self._world.chance.choice(self._cluster.brokers), clean=True)

    def _stop(self, broker: object, *, clean: bool = False) -> None:
        from tests.simulation.broker_node import BrokerNode

        assert isinstance(broker, BrokerNode)
        if broker.is_up:
            broker.stop(clean=clean)
            self._later(broker.start_if_down)

    def _any(self) -> Process:
        return self._world.chance.choice([*self._cluster.brokers, *self._cluster.controllers])

    def _freeze(self) -> None:
        process = self._any()
        if process.is_up and not process.is_frozen:
            process.note("freezes")
            process.freeze()
            life = process.life

            def thaw() -> None:
                if process.is_up and process.life == life:
                    process.note("goes on")
                    process.thaw()

            self._later(thaw)

    def _cut_off(self) -> None:
        """One process hears nobody, is heard by nobody, or both."""
        process = self._any()
        others = ["etcd", *(each.name for each in (*self._cluster.brokers, *self._cluster.controllers))]
        hears, is_heard = self._world.chance.choice([(False, True), (True, False), (False, False)])
        process.note(f"is cut off: {'hears' if hears else 'deaf'}, {'heard' if is_heard else 'mute'}")
        for other in others:
            if not is_heard:
                self._cluster.network.cut(process.name, other)
            if not hears:
                self._cluster.network.cut(other, process.name)
        self._later(self._cluster.network.heal)

    def _cut_pair(self) -> None:
        names = ["etcd", *(each.name for each in (*self._cluster.brokers, *self._cluster.controllers))]
        one, other = self._world.chance.sample(names, 2)
        self._world.note(one, f"cannot reach {other}")
        self._cluster.network.cut(one, other)
        if self._world.chance.random() < 0.5:
            self._cluster.network.cut(other, one)
        self._later(self._cluster.network.heal)

    def _break_stream(self) -> None:
        streams = [each for each in self._cluster.network.streams if each.is_open]
        if streams:
            stream = self._world.chance.choice(streams)
            self._world.note("", f"the stream of {stream.processes[0].name} to {stream.processes[1].name} breaks")
            stream.close()

    def _kill_controller(self) -> None:
        controller = self._world.chance.choice(self._cluster.controllers)
        if controller.is_up:
            controller.stop()
            self._later(controller.start_if_down)

    def _etcd_outage(self) -> None:
        if self._cluster.etcd.is_up:
            self._cluster.etcd.outage(self._world.chance.choice([800, 4_000, 9_000]))

    def _etcd_elects(self) -> None:
        self._cluster.etcd.lose_leader(self._world.chance.choice([300, 1_200, 2_500]))

    def _leave(self) -> None:
        broker = self._world.chance.choice(self._cluster.brokers)
        if broker.is_up and not broker.is_frozen:
            broker.leave()
            self._world.after(LEAVING_MS, lambda: self._later(broker.start_if_down))

    def _elect(self) -> None:
        self._cluster.operator.elect(self._world.chance.choice([None, *self._cluster.brokers]))

    def _switch_learner(self) -> None:
        """A broker that was none becomes the only one, or all are as they were."""
        broker = self._world.chance.choice(self._cluster.brokers)
        self._cluster.operator.learners = frozenset({broker.name} - self._cluster.operator.learners)

    def _switch_unclean(self) -> None:
        self._is_unclean = not self._is_unclean
        self._cluster.operator.allow_unclean(is_allowed=self._is_unclean)

    def _clean_broker(self) -> None:
        """One that is down and comes back after all, under its old id: ids are given to all before."""
        broker = self._world.chance.choice(self._cluster.brokers)
        if all(each.broker_id for each in self._cluster.brokers):
            self._stop(broker)
            self._world.after(self._world.chance.randrange(5_000), lambda: self._cluster.operator.clean(broker))

    def _step_clock(self) -> None:
        process = self._any()
        ahead_ms = self._world.chance.choice([500, 5_000, 3_600_000])
        process.note(f"its clock jumps {ahead_ms} ms ahead")
        process.step_clock(ahead_ms)
