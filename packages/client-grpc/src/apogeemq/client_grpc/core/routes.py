"""Topic routes as a client uses them: which queue gets the next message, which brokers to receive from."""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import Self

from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.siphash import hash_of_group
from apogeemq.proto.v2 import definition_pb2

MASTER_ID = 0
AVOID_S = 5.0

_READABLE = frozenset({definition_pb2.Permission.READ, definition_pb2.Permission.READ_WRITE})
_WRITABLE = frozenset({definition_pb2.Permission.WRITE, definition_pb2.Permission.READ_WRITE})


@dataclasses.dataclass(frozen=True, slots=True)
class MessageQueue:
    """A queue of a topic at a broker, and the proxy that leads there. Queue id -1: all queues of that broker."""

    topic: str
    broker_name: str
    broker_id: int
    queue_id: int
    permission: definition_pb2.Permission
    endpoints: Endpoints

    @classmethod
    def of(cls, queue: definition_pb2.MessageQueue) -> Self:
        """From the API's message."""
        return cls(
            topic=queue.topic.name,
            broker_name=queue.broker.name,
            broker_id=queue.broker.id,
            queue_id=queue.id,
            permission=queue.permission,
            endpoints=Endpoints.of(queue.broker.endpoints),
        )

    def to_proto(self) -> definition_pb2.MessageQueue:
        """As the API's message."""
        return definition_pb2.MessageQueue(
            topic=definition_pb2.Resource(name=self.topic),
            id=self.queue_id,
            permission=self.permission,
            broker=definition_pb2.Broker(name=self.broker_name, id=self.broker_id, endpoints=self.endpoints.to_proto()),
        )

    @property
    def writable(self) -> bool:
        """Messages may be sent to it: masters only."""
        return self.broker_id == MASTER_ID and self.permission in _WRITABLE

    @property
    def readable(self) -> bool:
        """Messages may be received from it: masters only."""
        return self.broker_id == MASTER_ID and self.permission in _READABLE


@dataclasses.dataclass(frozen=True, slots=True)
class TopicRoute:
    """All queues of a topic, as one QueryRoute told."""

    topic: str
    queues: tuple[MessageQueue, ...]

    @classmethod
    def of(cls, topic: str, queues: Iterable[definition_pb2.MessageQueue]) -> Self:
        """From the API's answer."""
        return cls(topic, tuple(MessageQueue.of(queue) for queue in queues))

    @property
    def writable(self) -> tuple[MessageQueue, ...]:
        """Where messages may be sent, in the route's order."""
        return tuple(queue for queue in self.queues if queue.writable)

    @property
    def endpoints(self) -> frozenset[Endpoints]:
        """Every place that the route names; each needs a Telemetry stream before it is used."""
        return frozenset(queue.endpoints for queue in self.queues)


class FailedPlaces:
    """Places (broker, endpoints) that failed lately; each is avoided for AVOID_S, and forgotten then."""

    def __init__(self) -> None:
        self._until_s: dict[tuple[str, Endpoints], float] = {}

    def failed(self, queue: MessageQueue, now_s: float) -> None:
        """Remember that a call for this queue failed at monotonic `now_s`."""
        self._until_s = {place: until for place, until in self._until_s.items() if until > now_s}
        self._until_s[_place(queue)] = now_s + AVOID_S

    def worked(self, queue: MessageQueue) -> None:
        """Trust the place again."""
        self._until_s.pop(_place(queue), None)

    def avoided(self, queue: MessageQueue, now_s: float) -> bool:
        """True while the place's last failure is fresh."""
        until_s = self._until_s.get(_place(queue))
        return until_s is not None and until_s > now_s


class RoundRobin:
    """Whose turn it is. It outlives the list it was made for, so that a new route does not begin at 0 again."""

    def __init__(self, start: int = 0) -> None:
        self._next = start

    def turn(self) -> int:
        """The next number; take it modulo the length of the list at hand."""
        turn = self._next
        self._next = turn + 1 & 0x7FFFFFFF
        return turn


def choose_queue(
    queues: Sequence[MessageQueue],
    turn: int,
    *,
    failed: FailedPlaces,
    tried: Collection[str],
    now_s: float,
) -> MessageQueue:
    """The queue for one attempt: the next in turn whose broker was not tried in this send and did not fail lately.

    Where all brokers were tried or failed, an untried one comes before one that did not fail, and any before none: an
    attempt is never given up for lack of a good queue. `queues` must not be empty; `tried` has broker names.
    """
    rotated = [queues[(turn + step) % len(queues)] for step in range(len(queues))]
    return min(rotated, key=lambda queue: (queue.broker_name in tried, failed.avoided(queue, now_s)))


def queue_of_group(queues: Sequence[MessageQueue], message_group: str) -> MessageQueue:
    """The queue of a message group: always the same one while the route has the same `queues`, not empty.

    The proxy chooses the queue that a message is stored in; this one says by which way it gets there, and no other way
    is tried, for a message that overtakes another breaks the order.
    """
    return queues[hash_of_group(message_group) % len(queues)]


def _place(queue: MessageQueue) -> tuple[str, Endpoints]:
    return queue.broker_name, queue.endpoints
