"""Somebody at a terminal: asks controllers for elections, learners and clean-ups, and changes their settings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from apogeemq.controller.core.requests import (
    BY_OPERATOR,
    Accepted,
    AskElection,
    CleanBroker,
    Refused,
    Request,
    SetLearner,
)

from tests.simulation.network import Stream
from tests.simulation.wire import Answered, Ask
from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.broker_node import BrokerNode
    from tests.simulation.cluster import Cluster
    from tests.simulation.controller_node import ControllerNode

OPERATE_MS = 2_000
RESTART_MS_MAX = 1_500


class Operator(Process):
    """One person, who asks every controller: the active one does it."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.world, "op")
        self.cluster = cluster
        self._asked: dict[int, Request] = {}
        self.learners = frozenset(broker.name for broker in cluster.brokers if broker.is_learner)
        """Names of those who shall be learners."""

    def start(self) -> None:
        """Begin to look after the cluster."""
        self.begin_life()
        self.every(OPERATE_MS, self._operate)

    def ask(self, request: Request) -> None:
        """Of all controllers, one request."""
        number = len(self._asked) + 1
        self._asked[number] = request
        self.note(f"asks for {request}")
        for controller in self.cluster.controllers:
            if controller.is_up:
                _Call(self, controller).send(Ask(replace(request, request_id=number)))

    def elect(self, designated: BrokerNode | None = None) -> None:
        """electMaster, over a master that is alive, too."""
        self.ask(AskElection(0, BY_OPERATOR, 0, designated.broker_id if designated else 0))

    def clean(self, broker: BrokerNode) -> None:
        """cleanBrokerMetadata: the broker is thought to be gone for ever."""
        self.ask(CleanBroker(0, broker.broker_id))

    def allow_unclean(self, *, is_allowed: bool) -> None:
        """Give every controller another setting, and start them anew: for a while they have different ones."""
        self.note(f"{'allows' if is_allowed else 'forbids'} unclean elections")
        self.cluster.checkers.was_unclean |= is_allowed
        for controller in self.cluster.controllers:
            controller.rules = type(controller.rules)(unclean=is_allowed)
            if controller.is_up:
                controller.stop()
            self.world.after(self.world.chance.randrange(RESTART_MS_MAX), controller.start_if_down)

    def answered(self, message: object) -> None:
        """A controller did something or did not; a stand-by says only that it is none of its business."""
        match message:
            case Answered(number, Accepted(broker_id)):
                self._done(self._asked[number], broker_id)
            case Answered(_, Refused(code, text)) if code != 2007:
                self.note(f"is refused: {code.name}: {text}")
            case _:
                pass

    def _done(self, request: Request, broker_id: int) -> None:
        self.note(f"is told that broker {broker_id} is done")
        if isinstance(request, SetLearner):
            for broker in self.cluster.brokers:
                if broker.broker_id == broker_id:
                    broker.is_learner = request.is_learner
                    broker.meet_again()

    def _operate(self) -> None:
        """Give up brokers that halted (after an allowed loss the master's side goes on); switch learners."""
        for broker in self.cluster.brokers:
            if broker.is_halted and not broker.is_frozen:
                broker.note("is emptied by an operator")
                broker.stop(power=True)
                broker.disk.clear()
                broker.start()
            is_wanted = broker.name in self.learners
            if not self._agrees(broker, is_wanted=is_wanted):
                self.ask(SetLearner(0, broker.broker_id, is_wanted))

    def _agrees(self, broker: BrokerNode, *, is_wanted: bool) -> bool:
        """Whether broker and etcd both have it so: an answer may be lost between the two."""
        registered = self.cluster.checkers.replicas.get(broker.broker_id)
        return registered is None or registered.is_learner == broker.is_learner == is_wanted


class _Call:
    """A stream to a controller for one request."""

    def __init__(self, operator: Operator, controller: ControllerNode) -> None:
        self._operator = operator
        self._stream: Stream
        session = controller.accept(lambda: self._stream)
        self._stream = operator.cluster.network.open(operator, controller, self, session)

    def send(self, message: object) -> None:
        """To the controller."""
        self._stream.send(self._operator, message)

    def received(self, message: object) -> None:
        """From the controller."""
        self._operator.answered(message)

    def broken(self) -> None:
        """Whether it was done is not known: the operator looks again later."""
