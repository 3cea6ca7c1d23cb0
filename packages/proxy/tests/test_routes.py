"""Routes and assignments: queue numbers, permissions, endpoints, types; and the choice of a queue."""

from __future__ import annotations

import pytest
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.v1.routes_pb2 import BrokerAddress, QueueData, TopicRoute
from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import NONE, READ, READ_WRITE, WRITE, Code
from apogeemq.proxy.core.queue_choice import AVOIDED_S, QueueChooser
from apogeemq.proxy.core.routes import (
    WritableQueue,
    WritableQueues,
    assignments,
    message_queues,
    readable_brokers,
    writable_queues,
)
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.messaging import MessagingService

from packages.proxy.tests.brokers_in_memory import Cluster, cluster_of, context_of

TOPIC = defs.Resource(resource_namespace="ns", name="T")
ENDPOINTS = defs.Endpoints(scheme=defs.DOMAIN_NAME, addresses=[defs.Address(host="mq.example", port=18081)])


def queues_of(read: int, write: int, perm: int, *, name: str = "a", ids: tuple[int, ...] = (0,)) -> QueueData:
    return QueueData(
        broker_name=name,
        read_queue_nums=read,
        write_queue_nums=write,
        perm=perm,
        addresses=[BrokerAddress(broker_id=broker_id) for broker_id in ids],
    )


@pytest.mark.parametrize(
    ("read", "write", "perm", "expected"),
    [
        (2, 2, 6, [READ_WRITE, READ_WRITE]),
        (3, 1, 6, [READ, READ, READ_WRITE]),
        (1, 3, 6, [WRITE, WRITE, READ_WRITE]),
        (3, 2, 4, [READ] * 3),
        (3, 2, 2, [WRITE] * 2),
        (3, 2, 0, [NONE] * 3),
        (0, 0, 0, [NONE]),
        (0, 2, 6, [WRITE, WRITE]),
        (2, 2, 7, [READ_WRITE, READ_WRITE]),
    ],
)
def test_queues_that_can_only_be_read_come_first(
    read: int, write: int, perm: int, expected: list[defs.Permission]
) -> None:
    """Then those that can only be written, then those for both; ids count from 0 for each broker."""
    queues = message_queues(TopicRoute(queues=[queues_of(read, write, perm)]), TOPIC, ENDPOINTS, [defs.NORMAL])
    assert [(queue.id, queue.permission) for queue in queues] == list(enumerate(expected))


def test_a_route_has_every_broker_id_and_the_clients_own_endpoints() -> None:
    """The client dials what stands in the route: it is where it reached us."""
    route = TopicRoute(queues=[queues_of(1, 1, 6, ids=(0, 1)), queues_of(1, 1, 6, name="b")])
    queues = message_queues(route, TOPIC, ENDPOINTS, [defs.NORMAL, defs.FIFO])
    assert [(queue.broker.name, queue.broker.id) for queue in queues] == [("a", 0), ("a", 1), ("b", 0)]
    for queue in queues:
        assert queue.broker.endpoints == ENDPOINTS
        assert queue.topic == TOPIC
        assert list(queue.accept_message_types) == [defs.NORMAL, defs.FIFO]


def test_brokers_without_permission_are_left_out() -> None:
    """A set without a master is not: the next one is near, and a message group's queue must not depend on that."""
    route = TopicRoute(
        queues=[
            queues_of(2, 2, 6),
            queues_of(2, 2, 6, name="away", ids=(1,)),
            queues_of(2, 2, 4, name="r"),
            queues_of(2, 2, 2, name="w"),
        ]
    )
    assert readable_brokers(route) == ["a", "away", "r"]
    assert writable_queues(route) == [("a", 0), ("a", 1), ("away", 0), ("away", 1), ("w", 0), ("w", 1)]
    shown = message_queues(route, TOPIC, ENDPOINTS, [defs.NORMAL])
    assert {queue.broker.id for queue in shown if queue.broker.name == "away"} == {0, 1}
    standard = assignments(route, TOPIC, ENDPOINTS, is_fifo=False)
    assert [(a.message_queue.broker.name, a.message_queue.id) for a in standard] == [("a", -1), ("away", -1), ("r", -1)]
    fifo = assignments(route, TOPIC, ENDPOINTS, is_fifo=True)
    assert [a.message_queue.id for a in fifo] == [0, 1, 0, 1, 0, 1]


def service_of(cluster: Cluster) -> MessagingService:
    return MessagingService(cluster, cluster, clock=cluster.clock, chance=SeededChance(1))


@pytest.mark.parametrize(
    ("topic_type", "types"),
    [
        ("", [defs.NORMAL]),
        ("FIFO", [defs.FIFO]),
        ("MIXED", [defs.NORMAL, defs.FIFO, defs.DELAY, defs.TRANSACTION]),
        ("SOMETHING", [defs.MESSAGE_TYPE_UNSPECIFIED]),
    ],
)
async def test_the_types_that_a_topic_takes_are_told(topic_type: str, types: list[defs.MessageType]) -> None:
    """As the topic's message.type at its broker says; none is NORMAL."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.topics["ns%T"] = 6
    cluster.brokers["a"].topic_types["ns%T"] = topic_type
    request = v2.QueryRouteRequest(topic=TOPIC, endpoints=ENDPOINTS)
    response = await service_of(cluster).query_route(request, context_of(cluster.clock))
    assert [list(queue.accept_message_types) for queue in response.message_queues] == [types, types]


async def test_an_unknown_topic_is_made_only_where_that_is_allowed() -> None:
    """Else it is TOPIC_NOT_FOUND; an assignment never makes one."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster)
    route = v2.QueryRouteRequest(topic=defs.Resource(name="new"), endpoints=ENDPOINTS)
    assignment = v2.QueryAssignmentRequest(topic=route.topic, group=defs.Resource(name="G"), endpoints=ENDPOINTS)
    for asking in (service.query_route(route, context_of(cluster.clock)),):
        with pytest.raises(ProxyError) as caught:
            await asking
        assert caught.value.code == Code.TOPIC_NOT_FOUND
    cluster.creates = True
    with pytest.raises(ProxyError) as caught:
        await service.query_assignment(assignment, context_of(cluster.clock))
    assert caught.value.code == Code.TOPIC_NOT_FOUND
    response = await service.query_route(route, context_of(cluster.clock))
    assert (response.status.code, len(response.message_queues)) == (Code.OK, 2)


async def test_a_topic_that_nobody_may_read_has_no_assignment() -> None:
    """FORBIDDEN, with the topic in the text."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.topics["T"] = 2
    request = v2.QueryAssignmentRequest(
        topic=defs.Resource(name="T"), group=defs.Resource(name="G"), endpoints=ENDPOINTS
    )
    with pytest.raises(ProxyError) as caught:
        await service_of(cluster).query_assignment(request, context_of(cluster.clock))
    assert caught.value.code == Code.FORBIDDEN


async def test_what_a_topic_is_is_asked_every_twenty_seconds_at_most() -> None:
    """And an old answer serves while the broker does not answer, for five minutes."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster)
    request = v2.QueryRouteRequest(topic=defs.Resource(name="T"), endpoints=ENDPOINTS)

    async def asked() -> int:
        before = len(cluster.brokers["a"].requests)
        await service.query_route(request, context_of(cluster.clock))
        return len(cluster.brokers["a"].requests) - before

    assert [await asked(), await asked()] == [1, 0]
    cluster.clock.advance(19.0)
    assert await asked() == 0
    cluster.clock.advance(1.0)
    assert await asked() == 1
    cluster.down = {"a"}
    cluster.clock.advance(299.0)
    assert await asked() == 0
    cluster.clock.advance(1.0)
    with pytest.raises(ProxyError) as caught:
        await service.query_route(request, context_of(cluster.clock))
    assert caught.value.code == Code.PROXY_TIMEOUT


def test_the_writable_queues_are_those_of_the_newest_route() -> None:
    """Found once for each route, and anew when the route was replaced."""
    kept = WritableQueues()
    small = TopicRoute(topic="T", queues=[queues_of(1, 1, 6)])
    large = TopicRoute(topic="T", queues=[queues_of(2, 2, 6)])
    assert kept.of(small) == [("a", 0)]
    assert kept.of(small) is kept.of(small)
    assert kept.of(large) == [("a", 0), ("a", 1)]
    assert kept.of(TopicRoute(topic="U", queues=[queues_of(1, 1, 4)])) == []


def test_a_failed_broker_is_avoided_for_a_while() -> None:
    """Ten seconds, or until a send to it goes well; when all failed, all are tried."""
    chooser = QueueChooser(SeededChance(1))
    queues = [WritableQueue(name, 0) for name in "ab"]

    def brokers_at(now: float) -> set[str]:
        chosen = [chooser.choose("T", queues, now) for _ in range(4)]
        return {queue.broker_name for queue in chosen if queue is not None}

    assert brokers_at(0.0) == {"a", "b"}
    chooser.failed("a", 0.0)
    assert brokers_at(AVOIDED_S - 1) == {"b"}
    assert brokers_at(AVOIDED_S) == {"a", "b"}
    chooser.failed("a", 20.0)
    chooser.failed("b", 20.0)
    assert brokers_at(21.0) == {"a", "b"}
    chooser.succeeded("b")
    assert brokers_at(21.0) == {"b"}
    assert chooser.choose("T", queues, 0.0, {"a", "b"}) is None
