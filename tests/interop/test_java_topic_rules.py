"""What topics allow their senders, as official Java Remoting clients see it: permissions, queues, message types.

The topics are those of a topics.json that is there before the broker's first start, as an operator moves one over.
Every scenario must also hold against Apache's servers (`--deployment apache`); one that does not is wrong itself.
"""

import contextlib
import pathlib
from collections.abc import Iterator

import pytest

from tests.config_files import READ, topic_config, write_config_files
from tests.interop.deployments import DEPLOYMENTS, Deployment
from tests.interop.events import Abandoned, Ack, Failure
from tests.interop.group_deliveries import wait_keys
from tests.interop.java import JavaClient
from tests.interop.operator_client import QUEUES

pytestmark = [pytest.mark.verify, pytest.mark.usefixtures("one_deployment")]

CLIENT_NOT_FOUND_TOPIC = 10005
"""The client's own code where the route has no queue that it may send to."""
TEMPLATE_QUEUES = 2
"""Fewer than the four that a Java producer asks for when its send makes a topic."""
TYPES = ("FIFO", "DELAY", "TRANSACTION")
SETTINGS = {"defaultTopicQueueNums": str(TEMPLATE_QUEUES)}


def write_topics(config_directory: pathlib.Path) -> None:
    """A topics.json with the topics of this module, for a broker that was never started."""
    configs = [
        topic_config("ReadOnly", perm=READ),
        topic_config("Shrinking", write_queues=1),
        *(topic_config(f"Typed{message_type}", message_type=message_type) for message_type in TYPES),
    ]
    write_config_files(config_directory, configs)


@pytest.fixture(scope="module")
def deployment(
    java_command: str, deployment_kind: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A cluster that the tests of this module share, whose broker finds its topics at the first start."""
    cluster = DEPLOYMENTS[deployment_kind](tmp_path_factory.mktemp(deployment_kind), SETTINGS)
    write_topics(cluster.data / "broker" / "config")
    with cluster as started:
        yield started


def test_a_topic_that_may_not_be_written_has_no_queue_for_a_sender(client: JavaClient) -> None:
    """The route tells its permission, so the client asks no broker; what it has can still be read."""
    with client.produce("ReadOnly", 1, deadline=0, retries=0) as producer:
        producer.end(expected_exit_code=2)
        assert {failure.code for failure in producer.events(Failure)} == {CLIENT_NOT_FOUND_TOPIC}
        assert [given_up.key for given_up in producer.events(Abandoned)] == ["message-0"]
    assert [(queue.queue_id, queue.max) for queue in client.offsets("ReadOnly")] == [(n, 0) for n in range(QUEUES)]


def test_sends_go_to_the_queues_that_may_be_written(client: JavaClient, java_version: str) -> None:
    """A topic that is made smaller has fewer queues to write than to read: sends go to the former, reads to all."""
    before = sum(queue.max for queue in client.offsets("Shrinking"))
    acks = client.send("Shrinking", 8, prefix=java_version)
    assert {ack.queue_id for ack in acks} == {0}
    assert [(queue.queue_id, queue.max) for queue in client.offsets("Shrinking")] == [
        (0, before + 8),
        *((queue_id, 0) for queue_id in range(1, QUEUES)),
    ]


def test_a_broker_takes_any_type_of_message(
    client: JavaClient, running: contextlib.ExitStack, topic: str, java_version: str
) -> None:
    """`message.type` is the proxies' to hold senders to: a Remoting client's messages are stored whatever it is."""
    producers = [
        running.enter_context(client.produce(f"Typed{message_type}", 2, prefix=f"{java_version}-{message_type}"))
        for message_type in TYPES
    ]
    for producer in producers:
        producer.end()
        assert {ack.status for ack in producer.events(Ack)} == {"SEND_OK"}
    consumer = running.enter_context(client.consume("TypedFIFO", "group_" + topic))
    wait_keys([f"{java_version}-FIFO-0", f"{java_version}-FIFO-1"], consumer)
    consumer.stop_consuming()


def test_a_topic_made_by_use_has_no_more_queues_than_its_template(client: JavaClient, topic: str) -> None:
    """The smaller of what the client asks for (4) and of the broker's defaultTopicQueueNums (here 2)."""
    acks = client.send(topic, 8)
    assert {ack.status for ack in acks} == {"SEND_OK"}
    assert {ack.queue_id for ack in acks} == set(range(TEMPLATE_QUEUES))
    assert [queue.queue_id for queue in client.offsets(topic)] == list(range(TEMPLATE_QUEUES))
