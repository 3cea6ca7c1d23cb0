"""Official Java and Python gRPC clients with transactions: ended at once, when asked, by others, or after a kill.

Topics are those of files that are there before the broker's first start, as an operator moves them over. Tried against
Apache's 5.3.3, the first scenario held with the Python client; its proxy did not ask another producer for a dead one
within 90 s, nor a Java client a second time.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import pytest

from tests.config_files import topic_config, write_config_files
from tests.interop.conftest import NewGrpcClient
from tests.interop.deployments import DEPLOYMENTS, Deployment
from tests.interop.driver_run import DriverRun, wait_for
from tests.interop.grpc_clients import LANGUAGES, GrpcClient
from tests.interop.grpc_events import Asked, Half, Received
from tests.interop.grpc_scenarios import SHORTEST_INVISIBLE_S, wait_settled

pytestmark = [pytest.mark.verify, pytest.mark.usefixtures("one_deployment", "only_ours")]

SETTINGS = {"transactionTimeOut": "1000", "transactionCheckInterval": "1000"}
TIMEOUT_S = 90.0


def ledger(language: str, what: str) -> str:
    return f"Ledger_{what}_{language}"


WHAT = ("said", "inherited", "killed")


def write_metadata(config_directory: pathlib.Path) -> None:
    """A topic for transactions for each language and scenario."""
    names = [ledger(language, what) for language in LANGUAGES for what in WHAT]
    write_config_files(config_directory, [topic_config(name, message_type="TRANSACTION") for name in names])


@pytest.fixture(scope="module")
def grpc_deployment(
    java_command: str, deployment_kind: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A cluster with a proxy that the tests of this module share."""
    cluster = DEPLOYMENTS[deployment_kind](tmp_path_factory.mktemp(deployment_kind), SETTINGS, with_proxy=True)
    write_metadata(cluster.data / "broker" / "config")
    with cluster as started:
        yield started


def wait_halves(producer: DriverRun, count: int) -> dict[str, Half]:
    """Waits until so many half messages were taken."""
    wait_for(lambda: len(producer.events(Half)) >= count, [producer], TIMEOUT_S, f"not all of {count} were taken")
    return {half.key: half for half in producer.events(Half)}


def wait_asked(producer: DriverRun, is_enough: Callable[[list[str]], bool]) -> dict[str, Asked]:
    """Waits until the keys that it was asked about are enough."""
    wait_for(lambda: is_enough([one.key for one in producer.events(Asked)]), [producer], TIMEOUT_S, "it was not asked")
    return {one.key: one for one in producer.events(Asked)}


def keys_received(consumer: DriverRun) -> list[str]:
    return [one.key for one in consumer.events(Received)]


def keys(*numbers: int, prefix: str = "transaction") -> set[str]:
    return {f"{prefix}-{number}" for number in numbers}


def test_a_transaction_ends_as_its_producer_says(
    grpc_client: GrpcClient, running: contextlib.ExitStack, grpc_language: str
) -> None:
    """Committed messages come, others do not; where nothing was said the server asks, and the answer counts.

    Of nine messages it commits, rolls back, leaves open in turn; asked about the last kind, it commits the first and
    rolls back the second one, and of the third it does not know when it is asked, and asked again.
    """
    topic = ledger(grpc_language, "said")
    consumer = running.enter_context(grpc_client.simple(topic, f"said_{grpc_language}", threads=1, await_s=5))
    consumer.wait_started()
    producer = running.enter_context(grpc_client.transact(topic, 9, say="cru", answer="uucuuruuu"))
    halves = wait_halves(producer, 9)
    committed = keys(0, 3, 6, 2)
    wait_settled([consumer], committed)
    asked = wait_asked(producer, lambda asked: keys(5) <= set(asked) and asked.count("transaction-8") >= 2)
    for key, one in asked.items():
        assert (one.topic, one.keys, one.msg_id) == (topic, [key], halves[key].msg_id)
    producer.stop_consuming()
    consumer.stop_consuming()
    assert set(keys_received(consumer)) == committed
    assert len(keys_received(consumer)) == len(committed)
    assert {one.key: one.msg_id for one in consumer.events(Received)} == {key: halves[key].msg_id for key in committed}


def test_another_producer_is_asked_for_a_dead_one(
    grpc_client: GrpcClient, running: contextlib.ExitStack, grpc_language: str
) -> None:
    """The one that sent them was killed before it said anything; one of the same topic answers."""
    topic = ledger(grpc_language, "inherited")
    consumer = running.enter_context(grpc_client.simple(topic, f"inherited_{grpc_language}", threads=1, await_s=5))
    consumer.wait_started()
    dying = running.enter_context(grpc_client.transact(topic, 6, say="u", answer="u"))
    halves = wait_halves(dying, 6)
    dying.kill()
    heir = running.enter_context(grpc_client.transact(topic, 1, prefix="own", say="c", answer="cr"))
    asked = wait_asked(heir, lambda asked: keys(*range(6)) <= set(asked))
    assert {key: asked[key].msg_id for key in keys(*range(6))} == {key: one.msg_id for key, one in halves.items()}
    committed = keys(0, 2, 4) | keys(0, prefix="own")
    wait_settled([consumer], committed)
    heir.stop_consuming()
    consumer.stop_consuming()
    assert set(keys_received(consumer)) == committed


def test_what_is_pending_survives_a_killed_broker(
    deployment_kind: str,
    new_grpc_client: NewGrpcClient,
    running: contextlib.ExitStack,
    grpc_language: str,
    tmp_path: pathlib.Path,
) -> None:
    """SIGKILL with decided and undecided ones: nothing rolled back is delivered, nothing committed is lost.

    The proxy lives on: a Python client tells a new one only after minutes which topics it may be asked about.
    """
    kind = "processes" if deployment_kind == "all-in-one" else deployment_kind
    cluster = DEPLOYMENTS[kind](tmp_path / "cluster", SETTINGS, with_proxy=True)
    write_metadata(cluster.data / "broker" / "config")
    running.enter_context(cluster)
    client = new_grpc_client(cluster)
    topic = ledger(grpc_language, "killed")
    group = f"killed_{grpc_language}"
    consumer = running.enter_context(
        client.simple(topic, group, invisible_s=SHORTEST_INVISIBLE_S, threads=1, await_s=5)
    )
    producer = running.enter_context(client.transact(topic, 12, say="cru", answer="uucuur"))
    wait_halves(producer, 12)
    cluster.kill_broker()
    cluster.start_broker()
    committed = keys(*(number for number in range(12) if number % 3 == 0 or number % 6 == 2))
    wait_settled([consumer], committed)
    wait_asked(producer, lambda asked: keys(*range(2, 12, 3)) <= set(asked))
    producer.stop_consuming()
    consumer.stop_consuming()
    assert set(keys_received(consumer)) == committed
