"""Which queue the next message goes to: its group's, or one after the other, past the brokers that are avoided."""

from collections.abc import Sequence

from apogeemq.client_remoting.core.fault_latency import FaultLatency
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.message import java_string_hash


def queue_of_group(queues: Sequence[MessageQueue], message_group: str) -> MessageQueue:
    """The queue of a message group: always the same of the same queues, and the one that Java's clients choose by the
    hash of that text (SelectMessageQueueByHash). `queues` must not be empty.
    """
    return queues[abs(java_string_hash(message_group)) % len(queues)]


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
