"""One message of a lane is in hand, the others wait; lanes do not wait for each other."""

from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_grpc.core import messages as m
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.lanes import Lanes
from apogeemq.proto.v2 import definition_pb2 as d

PLACE = Endpoints.parse("127.0.0.1:8081")


def message(
    name: str, group: str | None = None, *, topic: str = "T", broker: str = "a", queue: int = 0
) -> ReceivedMessage:
    system = d.SystemProperties(message_id=name, receipt_handle=f"handle of {name}", queue_id=queue)
    if group is not None:
        system.message_group = group
    origin = m.Origin(group="G", broker_name=broker, endpoints=PLACE, now_s=0.0, invisible_s=60.0)
    return m.from_proto(d.Message(topic=d.Resource(name=topic), body=b"body", system_properties=system), origin)


def test_the_next_one_has_its_turn_when_the_one_before_has_left() -> None:
    """In the order in which they came; at the end nothing is kept."""
    lanes, first, second, third = Lanes(), message("1", "g"), message("2", "g"), message("3", "g")
    assert [lanes.enter(each) for each in (first, second, third)] == [True, False, False]
    assert [lanes.leave(each) for each in (first, second, third)] == [second, third, None]
    assert len(lanes) == 0


def test_what_belongs_to_different_lanes() -> None:
    """Groups, topics; without a group, brokers and queues. A group is one lane wherever its messages lie."""
    lanes = Lanes()
    apart = [
        message("1", "g"),
        message("2", "h"),
        message("3", "g", topic="U"),
        message("4"),
        message("5", queue=1),
        message("6", broker="b"),
        message("7", topic="U"),
    ]
    assert all(lanes.enter(each) for each in apart)
    assert not lanes.enter(message("8", "g", broker="b", queue=1))
    assert not lanes.enter(message("9"))


def test_only_the_one_in_hand_moves_a_lane() -> None:
    """What has left already, or waits, changes nothing; a later delivery of the same message is another one."""
    lanes, first, second = Lanes(), message("1", "g"), message("2", "g")
    lanes.enter(first)
    lanes.enter(second)
    assert lanes.leave(second) is None
    assert lanes.clear(second) == []
    assert lanes.leave(first) == second
    assert lanes.leave(first) is None
    assert lanes.clear(first) == []
    assert len(lanes) == 1


def test_a_lane_that_is_given_up_gives_what_waits() -> None:
    """And is as if it had never been."""
    lanes, first, second, third = Lanes(), message("1", "g"), message("2", "g"), message("3", "g")
    for each in (first, second, third):
        lanes.enter(each)
    assert lanes.clear(first) == [second, third]
    assert lanes.enter(second)
