"""Tests of route: recorded routes, in both forms."""

import json
from pathlib import Path
from typing import Any

import pytest
from apogeemq.remoting_codec.errors import BodyInvalid
from apogeemq.remoting_codec.route import (
    BrokerData,
    LogicQueueMappingItem,
    QueueData,
    TopicQueueMappingDetail,
    TopicQueueMappingInfo,
    TopicRouteData,
)

TESTS = Path(__file__).parent
WIRE = TESTS / "wire" / "vectors"


def recorded(code: int) -> list[bytes]:
    """The recorded response bodies to a request code."""
    lines = (TESTS / "vectors_bodies" / "recorded.jsonl").read_text().splitlines()
    bodies: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [body["body"].encode() for body in bodies if body["code"] == code and body["kind"] == "response"]


def a_route(address: str = "10.0.0.1:10911") -> TopicRouteData:
    """A route with one broker."""
    return TopicRouteData(
        queue_datas=[QueueData(broker_name="b", read_queue_nums=2, write_queue_nums=3, perm=6)],
        broker_datas=[BrokerData(cluster="c", broker_name="b", broker_addrs={0: address})],
    )


def test_recorded_routes_decode_and_encode_back() -> None:
    """Routes that a 5.3.3 name server gave to clients of version 479 are in the standard form."""
    bodies = recorded(105)
    assert len(bodies) == 4
    for body in bodies:
        route = TopicRouteData.decode(body)
        assert [queue.broker_name for queue in route.queue_datas] == ["broker-t"]
        assert route.broker_datas[0].broker_addrs == {0: "127.0.0.2:20911"}
        assert route.encode(standard=True) == body


def test_recorded_route_is_made_from_its_values() -> None:
    """The parts of the first recorded route, written down here, make its bytes."""
    route = TopicRouteData(
        queue_datas=[QueueData(broker_name="broker-t", read_queue_nums=2, write_queue_nums=2, perm=6)],
        broker_datas=[
            BrokerData(cluster="TapCluster", broker_name="broker-t", broker_addrs={0: "127.0.0.2:20911"}),
        ],
    )
    assert route.encode(standard=True) in recorded(105)


@pytest.mark.parametrize("scenario", ["route", "binary_route", "heartbeat"])
def test_every_route_in_the_recordings_is_reproduced(scenario: str) -> None:
    """Each frame of the scenario whose body is a route decodes and encodes to the same bytes."""
    reproduced = 0
    for line in (WIRE / f"{scenario}.jsonl").read_text().splitlines():
        raw = bytes.fromhex(json.loads(line)["hex"])
        body = raw[8 + int.from_bytes(raw[5:8], "big") :]
        if body.startswith(b'{"brokerDatas"'):
            assert TopicRouteData.decode(body).encode(standard=True) == body
            reproduced += 1
    assert reproduced >= 2


def test_old_clients_get_bare_keys() -> None:
    """Below version 401 the same route has bare keys and raw characters; both forms read the same."""
    route = a_route("größe/x:1")
    assert b'"brokerAddrs":{0:"gr\xc3\xb6\xc3\x9fe/x:1"}' in route.encode()
    assert rb'"brokerAddrs":{"0":"gr\u00F6\u00DFe\/x:1"}' in route.encode(standard=True)
    assert TopicRouteData.decode(route.encode()) == TopicRouteData.decode(route.encode(standard=True)) == route


def test_absent_fields_are_not_written() -> None:
    """Without order config, zone and mapping none of the three is in the body: a mapping would switch clients over."""
    encoded = a_route().encode()
    assert b"orderTopicConf" not in encoded
    assert b"zoneName" not in encoded
    assert b"topicQueueMappingByBroker" not in encoded


def test_static_topics_carry_their_mappings() -> None:
    """Mappings have integer keys on both levels and survive the round trip in fastjson's form."""
    detail = TopicQueueMappingDetail(
        topic="T",
        bname="b",
        total_queues=2,
        epoch=5,
        curr_id_map={0: 1},
        hosted_queues={0: [LogicQueueMappingItem(gen=1, queue_id=1, bname="b")]},
    )
    encoded = detail.encode()
    assert b'"currIdMap":{0:1}' in encoded
    assert b'"hostedQueues":{0:[{' in encoded
    assert TopicQueueMappingDetail.decode(encoded) == detail
    route = TopicRouteData(topic_queue_mapping_by_broker={"b": TopicQueueMappingInfo(topic="T", curr_id_map={0: 1})})
    assert TopicRouteData.decode(route.encode(standard=True)) == route


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"queueDatas":[{"brokerName":"b","perm":6,"readQueueNums":"x","writeQueueNums":1}]}', "readQueueNums"),
        (b'{"brokerDatas":[{"brokerName":"b"}]}', "brokerAddrs"),
        (b'{"brokerDatas":[{"brokerName":"b","brokerAddrs":{x:1}}]}', "position|character"),
    ],
)
def test_damaged_route_names_the_field(body: bytes, field: str) -> None:
    """What is wrong, and where, is in the error."""
    with pytest.raises(BodyInvalid, match=field):
        TopicRouteData.decode(body)
