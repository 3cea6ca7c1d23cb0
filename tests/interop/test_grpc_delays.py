"""Official Java and Python gRPC clients with messages that wait, and with messages that fail too often.

Topics and groups are those of files that are there before the broker's first start, as an operator moves them over.
Every scenario must also hold against Apache's servers (`--deployment apache`), whose timers tick once a second, but
for what only our dead letters say.
"""

import contextlib
import pathlib
import time
from collections.abc import Iterator

import pytest
from apogeemq.remoting_codec.message import decode_properties

from tests.config_files import group_config, topic_config, write_config_files
from tests.interop.deployments import DEPLOYMENTS, Deployment
from tests.interop.driver_run import wait_for
from tests.interop.grpc_clients import LANGUAGES, GrpcClient
from tests.interop.grpc_events import Recalled, Received, SendFailed, Sent
from tests.interop.grpc_scenarios import SHORTEST_INVISIBLE_S, dead_letters, keys_of, now_ms, wait_settled

pytestmark = [pytest.mark.verify, pytest.mark.usefixtures("one_deployment")]

SETTINGS = {"recallMessageEnable": "true", "timerWheelEnable": "true", "timerMaxDelaySec": "3600"}
COUNT = 10
DELAY_MS = 4_000
HOUR_MS = 3600 * 1000
LATE_MS_MAX = 5_000
TICK_MS = {"apache": 1_000}
DEAD_TIMEOUT_S = 60.0
ILLEGAL_DELIVERY_TIME = "40012"
BROKERS_CODE = {"apache": "50001"}


def delayed_topic(language: str) -> str:
    return f"Delayed_{language}"


def failing_topic(language: str) -> str:
    return f"Failing_{language}"


def dying_group(kind: str, language: str) -> str:
    return f"dying_{kind}_{language}"


def write_metadata(config_directory: pathlib.Path) -> None:
    """A topic that takes messages with a delay for each language; groups whose messages are tried once."""
    topics = [topic_config(delayed_topic(language), message_type="DELAY") for language in LANGUAGES]
    topics += [topic_config(failing_topic(language), message_type="NORMAL") for language in LANGUAGES]
    groups = [
        group_config(dying_group(kind, language), retryMaxTimes=0)
        for kind in ("simple", "push")
        for language in LANGUAGES
    ]
    write_config_files(config_directory, topics, groups)


@pytest.fixture(scope="module")
def grpc_deployment(
    java_command: str, deployment_kind: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A cluster with a proxy that the tests of this module share."""
    cluster = DEPLOYMENTS[deployment_kind](tmp_path_factory.mktemp(deployment_kind), SETTINGS, with_proxy=True)
    write_metadata(cluster.data / "broker" / "config")
    with cluster as started:
        yield started


def test_messages_wait_for_their_time_and_are_taken_back(
    grpc_client: GrpcClient, running: contextlib.ExitStack, grpc_language: str, deployment_kind: str
) -> None:
    """In time and never early; what is over comes at once, what is recalled never; too far is 40012.

    Too far is more than a day for the proxy, and more than an hour for this broker, which Apache's proxy calls 50001.
    """
    topic = delayed_topic(grpc_language)
    consumer = running.enter_context(grpc_client.simple(topic, f"waiting_{grpc_language}", threads=1, await_s=5))
    consumer.wait_started()
    with grpc_client.produce(topic, COUNT, "later", delay_ms=DELAY_MS, recall_from=COUNT - 3, threads=1) as producer:
        producer.end()
        sent = producer.events(Sent)
        recalled = producer.events(Recalled)
    assert {one.key: one.msg_id for one in recalled} == {one.key: one.msg_id for one in sent[COUNT - 3 :]}
    over = grpc_client.send(topic, 1, "over", delay_ms=-60_000)
    for hours, code in ((25, ILLEGAL_DELIVERY_TIME), (2, BROKERS_CODE.get(deployment_kind, ILLEGAL_DELIVERY_TIME))):
        with grpc_client.produce(topic, 1, "far", delay_ms=hours * HOUR_MS, deadline_s=0) as producer:
            producer.end(expected_exit_code=2)
            assert code in producer.events(SendFailed)[0].error
    kept = sent[: COUNT - 3]
    wait_settled([consumer], keys_of(kept) | keys_of(over))
    time.sleep(max(0.0, (sent[-1].at_ms + DELAY_MS + 1_500 - now_ms()) / 1000))
    consumer.stop_consuming()
    came = {one.key: one.at_ms for one in consumer.events(Received)}
    assert len(consumer.events(Received)) == len(came) == len(kept) + 1
    assert set(came) == keys_of(kept) | keys_of(over)
    # The Python client knows whole seconds of a time of delivery.
    early_ms_max = TICK_MS.get(deployment_kind, 0) + (1_000 if grpc_language == "python" else 0)
    for one in kept:
        late_ms = came[one.key] - one.at_ms - DELAY_MS
        # A message is told as sent when its answer is there, a moment after its time was set.
        assert -early_ms_max - 500 <= late_ms <= LATE_MS_MAX, f"{one.key}: {late_ms} ms late"


def test_what_fails_too_often_is_a_dead_letter(
    grpc_deployment: Deployment,
    grpc_client: GrpcClient,
    running: contextlib.ExitStack,
    grpc_language: str,
    deployment_kind: str,
) -> None:
    """Neglected by a simple consumer, refused by a push consumer: one try each, then the DLQ, as it was sent."""
    topic = failing_topic(grpc_language)
    groups = {kind: dying_group(kind, grpc_language) for kind in ("simple", "push")}
    simple = grpc_client.simple(topic, groups["simple"], neglect=1, invisible_s=SHORTEST_INVISIBLE_S, threads=1)
    consumers = [
        running.enter_context(simple),
        running.enter_context(grpc_client.push(topic, groups["push"], fail_first=99)),
    ]
    for consumer in consumers:
        consumer.wait_started()
    (sent,) = grpc_client.send(topic, 1, "doomed", tag="TagD", property="colour=black")

    def are_dead() -> bool:
        return all(dead_letters(grpc_deployment, group) for group in groups.values())

    wait_for(are_dead, consumers, DEAD_TIMEOUT_S, "there is no dead letter")
    for group in groups.values():
        (dead,) = dead_letters(grpc_deployment, group)
        properties = decode_properties(dead.properties)
        expected = {"UNIQ_KEY": sent.msg_id, "TAGS": "TagD", "colour": "black", "KEYS": sent.key}
        assert {name: properties.get(name) for name in expected} == expected
        assert dead.body == sent.key.encode()
        if deployment_kind != "apache":
            assert properties["DLQ_ORIGIN_TOPIC"] == topic
            assert properties["APOGEEMQ_FAILURE_REASON"].endswith("of delivery 1; the maximum is 0 retries")
    for consumer in consumers:
        consumer.stop_consuming()
        assert [(one.key, one.attempt) for one in consumer.events(Received)] == [(sent.key, 1)]
