"""Routes as gRPC clients see them.

One MessageQueue per queue and broker id. The queues of a broker are numbered so that those which can only be read come
first, then those which can only be written, then those for both: with r reading and w writing queues that is
r - min(r, w), w - min(r, w), min(r, w) of them. Every queue has the endpoints that the client itself came by, because
they are what it dials next. Source: reference grpc_v2.md §5 (Apache RouteActivity).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from apogeemq.mesh.v1.routes_pb2 import QueueData, TopicRoute
from apogeemq.proto.v2.definition_pb2 import (
    NONE,
    READ,
    READ_WRITE,
    WRITE,
    Assignment,
    Broker,
    Endpoints,
    MessageQueue,
    MessageType,
    Permission,
    Resource,
)

MASTER_ID = 0
PERM_WRITE = 2
PERM_READ = 4
TOPICS_MAX = 10_000


class WritableQueue(NamedTuple):
    """A queue that a message can be sent to."""

    broker_name: str
    queue_id: int


def message_queues(
    route: TopicRoute, topic: Resource, endpoints: Endpoints, accepted: Sequence[MessageType]
) -> list[MessageQueue]:
    """The answer to QueryRoute: every queue of every broker id, in the route's order.

    A broker set has a master here even while it has none: clients send to no other, and the proxy waits for the next.
    """
    return [
        MessageQueue(
            topic=topic,
            id=queue_id,
            permission=permission,
            broker=Broker(name=queues.broker_name, id=broker_id, endpoints=endpoints),
            accept_message_types=accepted,
        )
        for queues in route.queues
        for broker_id in sorted({MASTER_ID, *(address.broker_id for address in queues.addresses)})
        for queue_id, permission in enumerate(_permissions(queues))
    ]


def assignments(route: TopicRoute, topic: Resource, endpoints: Endpoints, *, is_fifo: bool) -> list[Assignment]:
    """The answer to QueryAssignment; empty when nothing can be read.

    Every member of a group gets all: one assignment per readable broker with queue id -1, or one per queue for FIFO.
    """
    return [
        Assignment(
            message_queue=MessageQueue(
                topic=topic,
                id=queue_id,
                permission=_permission(queues.perm),
                broker=Broker(name=queues.broker_name, id=MASTER_ID, endpoints=endpoints),
            )
        )
        for queues in _permitted(route, PERM_READ)
        for queue_id in (range(queues.read_queue_nums) if is_fifo else (-1,))
    ]


def readable_brokers(route: TopicRoute) -> list[str]:
    """The brokers that messages of the topic may be popped from."""
    return [queues.broker_name for queues in _permitted(route, PERM_READ) if queues.read_queue_nums > 0]


def writable_queues(route: TopicRoute) -> list[WritableQueue]:
    """The queues that messages may be sent to, broker by broker."""
    return [
        WritableQueue(queues.broker_name, queue_id)
        for queues in _permitted(route, PERM_WRITE)
        for queue_id in range(queues.write_queue_nums)
    ]


class WritableQueues:
    """The writable queues of each topic, found once for each route: a topic may have thousands, a send needs one.

    At most TOPICS_MAX topics; the one that was found first is forgotten first. A route is never changed, but replaced.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[TopicRoute, list[WritableQueue]]] = {}

    def of(self, route: TopicRoute) -> Sequence[WritableQueue]:
        """What `writable_queues` says of this route."""
        kept = self._kept.get(route.topic)
        if kept is not None and kept[0] is route:
            return kept[1]
        queues = writable_queues(route)
        if len(self._kept) >= TOPICS_MAX and route.topic not in self._kept:
            del self._kept[next(iter(self._kept))]
        self._kept[route.topic] = (route, queues)
        return queues


def _permitted(route: TopicRoute, perm: int) -> Iterator[QueueData]:
    """The brokers whose queues have this permission. A set without a master is among them: the next one is near, and
    which queue a message group belongs to may not depend on that.
    """
    return (queues for queues in route.queues if queues.perm & perm)


def _permissions(queues: QueueData) -> list[Permission]:
    """The permission of each queue, in the order of their ids."""
    permission = _permission(queues.perm)
    read, write = queues.read_queue_nums, queues.write_queue_nums
    if permission == READ_WRITE:
        both = min(read, write)
        return [READ] * (read - both) + [WRITE] * (write - both) + [READ_WRITE] * both
    if permission == READ:
        return [READ] * read
    return [WRITE] * write if permission == WRITE else [NONE] * max(1, read, write)


def _permission(perm: int) -> Permission:
    """RocketMQ's permission bits in the API's words."""
    readable, writable = bool(perm & PERM_READ), bool(perm & PERM_WRITE)
    if readable and writable:
        return READ_WRITE
    if readable:
        return READ
    return WRITE if writable else NONE
