"""Messages that came for a receive that had enough already."""

from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_grpc.core import messages as m
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.surplus import SURPLUS_MAX, Surplus
from apogeemq.proto.v2 import definition_pb2 as d


def message(number: int, *, expires_s: float) -> ReceivedMessage:
    origin = m.Origin("G", "b", Endpoints.parse("127.0.0.1:8081"), now_s=0.0, invisible_s=expires_s)
    return m.from_proto(d.Message(system_properties=d.SystemProperties(message_id=str(number))), origin)


def test_the_oldest_come_first() -> None:
    """As many as are asked for; the rest stays."""
    surplus = Surplus()
    surplus.add(message(number, expires_s=100) for number in range(3))
    assert [each.message_id for each in surplus.take(2, now_s=0, invisible_s=10)] == ["0", "1"]
    assert [each.message_id for each in surplus.take(2, now_s=0, invisible_s=10)] == ["2"]
    assert surplus.take(2, now_s=0, invisible_s=10) == []


def test_who_gets_a_message_has_time_for_it() -> None:
    """Half of what is asked for at least: a message that comes again in a moment would be handled twice."""
    surplus = Surplus()
    surplus.add([message(1, expires_s=14.9), message(2, expires_s=15.0)])
    assert [each.message_id for each in surplus.take(2, now_s=10, invisible_s=10)] == ["2"]


def test_there_is_a_bound() -> None:
    """The oldest are let go; they come again by themselves."""
    surplus = Surplus()
    surplus.add(message(number, expires_s=100) for number in range(SURPLUS_MAX + 5))
    kept = surplus.take(SURPLUS_MAX + 5, now_s=0, invisible_s=1)
    assert len(kept) == SURPLUS_MAX
    assert kept[0].message_id == "5"
