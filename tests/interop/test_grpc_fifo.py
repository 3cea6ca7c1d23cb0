"""Official Java and Python gRPC clients with message groups: in order, also where messages fail.

Topics and groups are those of files that are there before the broker's first start, as an operator moves them over.
Every scenario must also hold against Apache's servers (`--deployment apache`).
"""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import pytest

from tests.config_files import group_config, topic_config, write_config_files
from tests.interop.deployments import DEPLOYMENTS, Deployment
from tests.interop.grpc_clients import LANGUAGES, GrpcClient
from tests.interop.grpc_events import Received, Settled
from tests.interop.grpc_scenarios import SHORTEST_INVISIBLE_S, keys_of, wait_settled

pytestmark = [pytest.mark.verify, pytest.mark.usefixtures("one_deployment")]

GROUPS = 3
COUNT = 18
KINDS = ("push", "simple")


def fifo_topic(kind: str, language: str) -> str:
    return f"Fifo_{kind}_{language}"


def orderly_group(kind: str, language: str) -> str:
    return f"orderly_{kind}_{language}"


def write_metadata(config_directory: pathlib.Path) -> None:
    """A topic for message groups and a group that consumes in order, for each language and kind of consumer."""
    pairs = [(kind, language) for kind in KINDS for language in LANGUAGES]
    topics = [topic_config(fifo_topic(*pair), message_type="FIFO") for pair in pairs]
    groups = [group_config(orderly_group(*pair), consumeMessageOrderly=True, retryMaxTimes=16) for pair in pairs]
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
