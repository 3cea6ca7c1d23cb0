"""Official Java and Python gRPC clients with message groups: in order, also where messages fail.

Topics and groups are those of files that are there before the broker's first start, as an operator moves them over.
Every scenario must also hold against Apache's servers (`--deployment apache`).
"""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import pytest

from tests.config_files import group_config, topic_config, write_config_files
from tests.interop.conftest import NewGrpcClient
from tests.interop.deployments import DEPLOYMENTS, Deployment
from tests.interop.driver_run import wait_for
from tests.interop.grpc_clients import LANGUAGES, GrpcClient
from tests.interop.grpc_events import Received, Sent, Settled
from tests.interop.grpc_scenarios import SHORTEST_INVISIBLE_S, dead_letters, keys_of, wait_settled

pytestmark = [pytest.mark.verify, pytest.mark.usefixtures("one_deployment")]

GROUPS = 3
COUNT = 18
KILLED_COUNT = 150
KINDS = ("push", "simple", "killed", "doomed")
DEAD_TIMEOUT_S = 90.0


def fifo_topic(kind: str, language: str) -> str:
    return f"Fifo_{kind}_{language}"


def orderly_group(kind: str, language: str) -> str:
    return f"orderly_{kind}_{language}"


def write_metadata(config_directory: pathlib.Path) -> None:
    """A topic for message groups and a group that consumes in order, for each language and kind of consumer."""
    pairs = [(kind, language) for kind in KINDS for language in LANGUAGES]
    topics = [topic_config(fifo_topic(*pair), message_type="FIFO") for pair in pairs]
    groups = [
        group_config(orderly_group(*pair), consumeMessageOrderly=True, retryMaxTimes=1 if pair[0] == "doomed" else 16)
        for pair in pairs
    ]
    write_config_files(config_directory, topics, groups)


@pytest.fixture(scope="module")
def grpc_deployment(
    java_command: str, deployment_kind: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A cluster with a proxy that the tests of this module share."""
    cluster = DEPLOYMENTS[deployment_kind](tmp_path_factory.mktemp(deployment_kind), {}, with_proxy=True)
    write_metadata(cluster.data / "broker" / "config")
    with cluster as started:
        yield started


def by_group(keys: Iterable[str]) -> list[list[int]]:
    """The numbers of messages, by message group, in the order in which they are given."""
    numbers = [int(key.rsplit("-", 1)[1]) for key in keys]
    return [[number for number in numbers if number % GROUPS == group] for group in range(GROUPS)]


def firsts(keys: Sequence[str]) -> list[str]:
    """Each key once, where it stands first."""
    return list(dict.fromkeys(keys))


def test_a_push_consumer_gets_each_group_in_order_though_messages_fail(
    grpc_client: GrpcClient, running: contextlib.ExitStack, grpc_language: str
) -> None:
    """Every message is refused once: it comes again before the next of its group."""
    topic = fifo_topic("push", grpc_language)
    consumer = running.enter_context(grpc_client.push(topic, orderly_group("push", grpc_language), fail_first=1))
    consumer.wait_started()
    sent = grpc_client.send(topic, COUNT, "in-order", threads=1, message_groups=GROUPS)
    wait_settled([consumer], keys_of(sent))
    consumer.stop_consuming()
    expected = by_group(one.key for one in sent)
    assert by_group([one.key for one in consumer.events(Settled)]) == expected
    assert by_group(firsts([one.key for one in consumer.events(Received)])) == expected


def test_a_simple_consumer_gets_nothing_of_a_group_behind_a_message_that_it_neglects(
    grpc_client: GrpcClient, running: contextlib.ExitStack, grpc_language: str
) -> None:
    """What it leaves alone comes again after its invisible time; meanwhile the other groups go on."""
    topic = fifo_topic("simple", grpc_language)
    sent = grpc_client.send(topic, COUNT, "in-order", threads=1, message_groups=GROUPS)
    consumer = running.enter_context(
        grpc_client.simple(
            topic,
            orderly_group("simple", grpc_language),
            neglect=COUNT // 2,
            invisible_s=SHORTEST_INVISIBLE_S,
            await_s=5,
            threads=1,
        )
    )
    wait_settled([consumer], keys_of(sent))
    consumer.stop_consuming()
    assert by_group([one.key for one in consumer.events(Settled)]) == by_group(one.key for one in sent)
    attempts = {one.key: one.attempt for one in consumer.events(Received)}
    assert sorted(attempts.values()) == [1] * (COUNT - 2) + [2] * 2


def test_what_fails_too_often_makes_room_for_the_next_of_its_group(
    grpc_deployment: Deployment, grpc_client: GrpcClient, running: contextlib.ExitStack, grpc_language: str
) -> None:
    """The client sends it to the dead letters, in the order in which they failed; then the next one has its turn."""
    topic, group = fifo_topic("doomed", grpc_language), orderly_group("doomed", grpc_language)
    consumer = running.enter_context(grpc_client.push(topic, group, fail_first=99))
    consumer.wait_started()
    sent = grpc_client.send(topic, 4, "doomed", threads=1, message_groups=2)
    wait_for(
        lambda: len(dead_letters(grpc_deployment, group)) == len(sent),
        [consumer],
        DEAD_TIMEOUT_S,
        "not all are dead letters",
    )
    consumer.stop_consuming()
    dead = [record.body.decode() for record in dead_letters(grpc_deployment, group)]
    assert {key: dead.count(key) for key in dead} == dict.fromkeys(keys_of(sent), 1)
    first, second = ([key for key in dead if int(key[-1]) % 2 == group] for group in range(2))
    assert (first, second) == (["doomed-0", "doomed-2"], ["doomed-1", "doomed-3"])
    received = [one.key for one in consumer.events(Received)]
    assert received.index("doomed-2") > max(at for at, key in enumerate(received) if key == "doomed-0")


@pytest.mark.usefixtures("only_ours")
def test_groups_stay_in_order_through_a_killed_broker(
    deployment_kind: str,
    new_grpc_client: NewGrpcClient,
    running: contextlib.ExitStack,
    grpc_language: str,
    tmp_path: pathlib.Path,
) -> None:
    """SIGKILL amid sends and deliveries: nothing is lost, and each group's messages are first seen in their order.

    The producer sends a message again until it is acknowledged, so one may be stored twice.
    """
    kind = "processes" if deployment_kind == "all-in-one" else deployment_kind
    cluster = DEPLOYMENTS[kind](tmp_path / "cluster", {}, with_proxy=True)
    write_metadata(cluster.data / "broker" / "config")
    running.enter_context(cluster)
    client = new_grpc_client(cluster)
    topic = fifo_topic("killed", grpc_language)
    consumer = running.enter_context(
        client.simple(
            topic,
            orderly_group("killed", grpc_language),
            invisible_s=SHORTEST_INVISIBLE_S,
            await_s=5,
            threads=1,
        )
    )
    consumer.wait_started()
    producer = running.enter_context(
        client.produce(
            topic, KILLED_COUNT, "killed", threads=1, message_groups=GROUPS, interval_ms=20, request_timeout_s=3
        )
    )
    wait_for(lambda: len(consumer.events(Settled)) > KILLED_COUNT // 4, [consumer], DEAD_TIMEOUT_S, "no load")
    cluster.kill_broker()
    cluster.start_broker()
    producer.end(timeout_s=DEAD_TIMEOUT_S)
    sent = producer.events(Sent)
    assert len(sent) == KILLED_COUNT
    wait_settled([consumer], keys_of(sent))
    consumer.stop_consuming()
    expected = by_group(one.key for one in sent)
    assert by_group(firsts([one.key for one in consumer.events(Received)])) == expected
    assert by_group(firsts([one.key for one in consumer.events(Settled)])) == expected
