"""Which queue gets a message, and who is avoided."""

import pytest
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.routes import (
    AVOID_S,
    FailedPlaces,
    MessageQueue,
    RoundRobin,
    TopicRoute,
    choose_queue,
    queue_of_group,
)
from apogeemq.proto.v2 import definition_pb2

PLACE = Endpoints.parse("127.0.0.1:8081")
OTHER = Endpoints.parse("127.0.0.2:8081")


def queue(
    broker: str = "a",
    number: int = 0,
    *,
    broker_id: int = 0,
    permission: definition_pb2.Permission = definition_pb2.Permission.READ_WRITE,
    endpoints: Endpoints = PLACE,
) -> MessageQueue:
    return MessageQueue("T", broker, broker_id, number, permission, endpoints)


def test_only_masters_that_allow_it_are_written_to() -> None:
    """Replicas and read-only queues are in a route too, and get no messages."""
    good = queue()
    replica = queue(broker_id=1)
    read_only = queue(permission=definition_pb2.Permission.READ)
    nothing = queue(permission=definition_pb2.Permission.NONE)
    write_only = queue(permission=definition_pb2.Permission.WRITE)
    route = TopicRoute("T", (good, replica, read_only, nothing, write_only))
    assert route.writable == (good, write_only)


def test_a_route_names_each_place_once() -> None:
    """Every one of them needs a Telemetry stream."""
    route = TopicRoute("T", (queue(), queue(number=1), queue("b", endpoints=OTHER)))
    assert route.endpoints == {PLACE, OTHER}


def test_a_queue_comes_back_from_the_api_as_it_went() -> None:
    """ReceiveMessage hands the queue of the assignment back to the proxy."""
    original = queue("b", -1)
    assert MessageQueue.of(definition_pb2.MessageQueue.FromString(original.to_proto().SerializeToString())) == original


def test_turns_go_round_and_outlive_a_route() -> None:
    """The position is not the route's: a refreshed route does not begin at queue 0 again (rocketmq-clients#655)."""
    turns, failed = RoundRobin(), FailedPlaces()
    first = [queue(number=0), queue(number=1), queue(number=2)]
    chosen = [choose_queue(first, turns.turn(), failed=failed, tried=(), now_s=0).queue_id for _ in range(4)]
    refreshed = [queue(number=0), queue(number=1), queue(number=2)]
    chosen.append(choose_queue(refreshed, turns.turn(), failed=failed, tried=(), now_s=0).queue_id)
    assert chosen == [0, 1, 2, 0, 1]


def test_a_place_that_failed_is_avoided_for_a_while() -> None:
    """And is tried again afterwards, or as soon as it is known to work."""
    failed = FailedPlaces()
    queues = [queue("a"), queue("b")]
    failed.failed(queues[0], now_s=100.0)

    def broker(now_s: float) -> str:
        return choose_queue(queues, 0, failed=failed, tried=(), now_s=now_s).broker_name

    assert broker(100.0 + AVOID_S - 0.1) == "b"
    assert broker(100.0 + AVOID_S) == "a"
    failed.failed(queues[0], now_s=200.0)
    failed.worked(queues[0])
    assert broker(200.1) == "a"


def test_a_retry_goes_to_another_broker() -> None:
    """Where there is one; a broker that failed lately comes before one that this send has tried already."""
    failed = FailedPlaces()
    queues = [queue("a"), queue("b")]
    assert choose_queue(queues, 0, failed=failed, tried={"a"}, now_s=0).broker_name == "b"
    failed.failed(queues[1], now_s=0)
    assert choose_queue(queues, 0, failed=failed, tried={"a"}, now_s=1).broker_name == "b"
    assert choose_queue(queues[:1], 0, failed=failed, tried={"a"}, now_s=1).broker_name == "a"


@pytest.mark.parametrize(("queues", "expected"), [(3, 2), (5, 1), (7, 4)])
def test_a_message_group_has_one_queue(queues: int, expected: int) -> None:
    """The remainder of its signed hash, never negative; unsigned, the same hash would leave 0, 2 and 6."""
    group = bytes(range(15)).decode()  # its hash is published as A129CA6149BE45E5, or -6,833,708,440,360,172,059
    assert -6_833_708_440_360_172_059 % queues == expected
    assert queue_of_group([queue(number=number) for number in range(queues)], group).queue_id == expected
