"""A data directory that an Apache RocketMQ 5.3.3 broker wrote: our server opens it and goes on where Java stopped.

The directory and what it holds are described beside it; messages.json was decoded by an independent reader.
"""

import json
import pathlib
import shutil
import zlib
from collections.abc import Iterator

import msgspec
import pytest
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.message import decode_properties

from tests.e2e.process import Ready, start_all_in_one
from tests.e2e.wire_client import WireClient, pull_all, pull_fields, route_of, send_fields

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "packages" / "store" / "tests" / "vectors_store"
TOPICS = ("StoreNormal", "StoreFifo", "StoreTrans")
"""Those whose messages were all delivered already; of the others, time decides what is in them."""

ONLY_WHAT_IS_KNOWN = {"broker.autoCreateTopicEnable": "false", "broker.autoCreateSubscriptionGroup": "false"}


class JavaMessage(msgspec.Struct, rename="camel"):
    """What this test needs of an entry of messages.json."""

    topic: str
    queue_id: int
    queue_offset: int
    physical_offset: int
    store_timestamp: int
    sys_flag: int
    flag: int
    properties: dict[str, str]
    body: str


def java_messages(topic: str) -> dict[int, list[JavaMessage]]:
    """The messages of a topic by queue id."""
    queues: dict[int, list[JavaMessage]] = {}
    for message in msgspec.json.decode((VECTORS / "messages.json").read_bytes(), type=list[JavaMessage]):
        if message.topic == topic:
            queues.setdefault(message.queue_id, []).append(message)
    return queues


def java_topic(topic: str) -> dict[str, int]:
    """Its entry in topics.json, which is JSON here."""
    table: dict[str, dict[str, int]] = json.loads((VECTORS / "config" / "topics.json").read_bytes())["topicConfigTable"]
    return table[topic]


@pytest.fixture(scope="module")
def java_data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The all-in-one's data directory, with Java's directory as the broker's."""
    data: pathlib.Path = tmp_path_factory.mktemp("java") / "data"
    shutil.copytree(VECTORS, data / "broker", ignore=shutil.ignore_patterns("*.gz"))
    return data


@pytest.fixture(scope="module")
def server(java_data: pathlib.Path) -> Iterator[Ready]:
    """Our server on it; makes no topic and no group by itself."""
    logs = java_data.parent / "logs"
    settings = {"broker.brokerName": "broker-t", "broker.brokerClusterName": "TapCluster", **ONLY_WHAT_IS_KNOWN}
    with start_all_in_one(java_data, log_directory=logs, settings=settings) as process:
        yield process.wait_ready()
        assert process.log == ""  # opened as stopped in good order: nothing to recover, nothing dropped
        process.stop()


@pytest.fixture
def broker(server: Ready) -> Iterator[WireClient]:
    with WireClient(server.listeners["broker.remoting"]) as client:
        yield client


@pytest.mark.parametrize("topic", TOPICS)
def test_messages_are_pulled_as_java_stored_them(broker: WireClient, topic: str) -> None:
    """Every queue gives its messages in order: bodies, properties, offsets, times."""
    queues = java_messages(topic)
    assert queues
    for queue_id, expected in queues.items():
        records = pull_all(broker, topic, "G_store", queue_id)
        for message, record in zip(expected, records, strict=True):
            assert (record.queue_offset, record.physical_offset) == (message.queue_offset, message.physical_offset)
            assert (record.flag, record.sys_flag) == (message.flag, message.sys_flag)
            assert record.store_timestamp_ms == message.store_timestamp
            assert decode_properties(record.properties) == message.properties
            if message.sys_flag & 1:  # compressed by the client: messages.json only describes it
                assert zlib.decompress(record.body) == b"z" * 8192
            else:
                assert record.body == message.body.encode()


@pytest.mark.parametrize("topic", TOPICS)
def test_topics_have_the_queues_that_java_gave_them(server: Ready, topic: str) -> None:
    """topics.json is heeded: the route has its numbers of queues and its permissions."""
    route = route_of(server.listeners["namesrv.remoting"], topic)
    assert route is not None
    expected = java_topic(topic)
    (queues,) = route.queue_datas
    assert queues.broker_name == "broker-t"
    assert (queues.read_queue_nums, queues.write_queue_nums) == (expected["readQueueNums"], expected["writeQueueNums"])
    assert queues.perm == expected["perm"]


def test_groups_and_their_offsets_are_known(broker: WireClient) -> None:
    """The group's committed offset is Java's; a group that Java did not know is refused."""
    asked = {"consumerGroup": "G_store", "topic": "StoreNormal", "queueId": "0"}
    assert broker.request(RequestCode.QUERY_CONSUMER_OFFSET, asked).ext_fields == {"offset": "3"}
    unknown = broker.request(RequestCode.PULL_MESSAGE, pull_fields("StoreNormal", "G_other"))
    assert unknown.code == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST


def test_subscriptions_by_tag_work_on_java_messages(broker: WireClient) -> None:
    """The tag hashes in Java's consume queues are those that we look for."""
    tagged = [m for m in java_messages("StoreNormal")[1] if m.properties.get("TAGS") == "TagB"]
    reply = broker.request(RequestCode.PULL_MESSAGE, pull_fields("StoreNormal", "G_store", 1, 0, subscription="TagB"))
    assert reply.code == ResponseCode.SUCCESS
    assert reply.body.count(b"normal ") == len(tagged) > 0


def test_new_messages_follow_java_ones(broker: WireClient) -> None:
    """The next queue offset is the next; afterwards the queue has both."""
    before = len(java_messages("StoreFifo")[1])
    sent = broker.request(RequestCode.SEND_MESSAGE_V2, send_fields("StoreFifo", 1), b"ours")
    assert (sent.ext_fields or {})["queueOffset"] == str(before)
    assert pull_all(broker, "StoreFifo", "G_store", 1)[-1].body == b"ours"
