"""Official Java Remoting clients with transactions: decided at once, when asked, by another member, after a crash.

Every scenario must also hold against Apache's servers (`--deployment apache`), but for those of `only_ours`.
"""

import contextlib
import pathlib

import pytest

from tests.interop.conftest import NewClient
from tests.interop.deployments import DEPLOYMENTS
from tests.interop.driver_run import DriverRun, wait_for
from tests.interop.events import Asked, Delivery, Half
from tests.interop.group_deliveries import keys_of, numbered, wait_keys
from tests.interop.java import JavaClient
from tests.interop.operator_client import Operator

pytestmark = [pytest.mark.verify, pytest.mark.usefixtures("one_deployment")]

SETTINGS = {"transactionTimeOut": "1000", "transactionCheckInterval": "1000"}
TIMEOUT_S = 60.0
COMMIT, ROLLBACK, UNKNOWN = "COMMIT_MESSAGE", "ROLLBACK_MESSAGE", "UNKNOW"


def wait_half(producer: DriverRun, count: int) -> list[Half]:
    """Waits until so many half messages were taken."""
    wait_for(lambda: len(producer.events(Half)) >= count, [producer], TIMEOUT_S, f"not all of {count} were taken")
    halves = producer.events(Half)
    assert {half.status for half in halves} == {"SEND_OK"}
    return halves


def wait_asked(producer: DriverRun, keys: set[str]) -> None:
    """Waits until it was asked about all of these."""
    wait_for(lambda: keys <= {one.key for one in producer.events(Asked)}, [producer], TIMEOUT_S, f"not asked: {keys}")


def each(prefix: str, numbers: range) -> list[str]:
    return [f"{prefix}-{number}" for number in numbers]


def test_a_transaction_ends_as_its_producer_says(
    client: JavaClient,
    running: contextlib.ExitStack,
    operator: Operator,
    topic: str,
    group: str,
    deployment_kind: str,
) -> None:
    """Committed messages come, others do not; where it does not know, it is asked, and its answer counts.

    Of nine messages it says commit, roll back, unknown in turn; asked about the last kind, it commits the first and
    rolls back the second one, and of the third it does not know until it is asked again and again.
    """
    operator.send(topic, numbered("old"))
    consumer = running.enter_context(client.consume(topic, group))
    wait_keys(numbered("old"), consumer)
    producer = running.enter_context(client.transact(topic, group, 9, say="cru", answer="xxcxxrxxu".replace("x", "u")))
    halves = wait_half(producer, 9)
    assert [half.state for half in halves] == [COMMIT, ROLLBACK, UNKNOWN] * 3
    wait_keys(["transaction-0", "transaction-3", "transaction-6", "transaction-2"], consumer)
    wait_for(
        lambda: [one.key for one in producer.events(Asked)].count("transaction-8") >= 2,
        [producer],
        TIMEOUT_S,
        "it was not asked again",
    )
    asked = {one.key: one for one in producer.events(Asked)}
    # Apache's broker asks about decided ones too, where the question comes before it has written the decision down.
    assert {"transaction-2", "transaction-5", "transaction-8"} <= set(asked)
    ids = {half.key: half.msg_id for half in halves}
    for key, one in asked.items():
        assert (one.topic, one.body, one.msg_id) == (topic, key, ids[key])
    producer.stop_consuming()
    consumer.stop_consuming()
    committed = ["transaction-0", "transaction-2", "transaction-3", "transaction-6"]
    assert set(keys_of(consumer)) == {*numbered("old"), *committed}
    if deployment_kind != "apache":  # which may store one twice that was committed while it was asked about
        assert len(keys_of(consumer)) == len(numbered("old")) + len(committed)
    assert {one.msg_id for one in consumer.events(Delivery) if one.key in committed} == {ids[key] for key in committed}


def test_another_producer_of_the_group_is_asked_for_a_dead_one(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """The one that sent them was killed before it knew; the group's next one decides."""
    operator.send(topic, numbered("old"))
    consumer = running.enter_context(client.consume(topic, group))
    dying = running.enter_context(client.transact(topic, group, 6, instance="dying", say="u", answer="u"))
    wait_half(dying, 6)
    dying.kill()
    heir = running.enter_context(client.transact(topic, group, 1, instance="heir", prefix="own", say="c", answer="cr"))
    wait_asked(heir, set(each("transaction", range(6))))
    committed = each("transaction", range(0, 6, 2))
    wait_keys([*committed, "own-0"], consumer)
    heir.stop_consuming()
    consumer.stop_consuming()
    assert keys_of(consumer) == sorted([*numbered("old"), *committed, "own-0"])


@pytest.mark.usefixtures("only_newest", "only_ours")
def test_what_is_pending_survives_a_killed_broker(
    deployment_kind: str,
    new_client: NewClient,
    running: contextlib.ExitStack,
    topic: str,
    group: str,
    tmp_path: pathlib.Path,
) -> None:
    """SIGKILL with decided and undecided ones: nothing rolled back is delivered, nothing committed is lost."""
    cluster = running.enter_context(DEPLOYMENTS[deployment_kind](tmp_path / "cluster", SETTINGS))
    client = new_client(cluster)
    with Operator(cluster.broker) as operator:
        operator.send(topic, numbered("old"))
    consumer = running.enter_context(client.consume(topic, group))
    producer = running.enter_context(client.transact(topic, group, 30, say="cru", answer="uucuur"))
    wait_half(producer, 30)
    cluster.kill_broker()
    cluster.start_broker()
    committed = {f"transaction-{number}" for number in range(30) if number % 3 == 0 or number % 6 == 2}
    wait_keys(committed, consumer)
    wait_asked(producer, {f"transaction-{number}" for number in range(2, 30, 3)})
    producer.stop_consuming()
    consumer.stop_consuming()
    assert set(keys_of(consumer)) == committed | set(numbered("old"))
