"""Which queue the next message goes to: one after the other, past the brokers that are avoided."""

from collections.abc import Sequence

from apogeemq.client_remoting.core.fault_latency import FaultLatency
from apogeemq.remoting_codec.bodies import MessageQueue


class QueueChoice:
    """Round robin over a topic's queues. `start` is any number: clients should not all begin at the first queue."""

    def __init__(self, faults: FaultLatency, start: int) -> None:
        self._faults = faults
        self._next = start

    def choose(self, queues: Sequence[MessageQueue], tried: frozenset[str], now: float) -> MessageQueue:
        """The next queue of a broker that is not in `tried` and not avoided; if there is none, of one not in `tried`;
        else simply the next. `queues` must not be empty.
        """
        if not tried and self._faults.is_empty:
            return self._take(queues)
        untried = None
        for _ in range(len(queues)):
            queue = self._take(queues)
            if queue.broker_name in tried:
                continue
            if not self._faults.is_avoided(queue.broker_name, now):
                return queue
            untried = untried or queue
        return untried or self._take(queues)

    def _take(self, queues: Sequence[MessageQueue]) -> MessageQueue:
        self._next += 1
        return queues[self._next % len(queues)]
