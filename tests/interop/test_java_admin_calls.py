"""Official Java Remoting clients as consumers under an operator's hands: offsets reset, questions asked, and the
broker's word on members that want different things.

Every scenario must also hold against Apache's servers (`--deployment apache`), but for those of `only_ours`.
"""

import contextlib
import pathlib
import time

import pytest
from apogeemq.remoting_codec.client_bodies import CMResult

from tests.e2e.http_client import metric
from tests.e2e.process import ManagedProcess
from tests.interop.conftest import NewClient
from tests.interop.deployments import DEPLOYMENTS, Deployment
from tests.interop.driver_run import wait_for
from tests.interop.events import Delivery, Suspended
from tests.interop.group_deliveries import TIMEOUT_S, keys_of, numbered, wait_event, wait_keys, wait_member, wait_status
from tests.interop.java import JavaClient
from tests.interop.operator_client import QUEUES, Operator

pytestmark = [pytest.mark.verify, pytest.mark.usefixtures("one_deployment")]


@pytest.mark.parametrize("done_by", ["the broker", "the client"])
def test_a_running_consumer_takes_up_a_reset_of_its_offsets(
    deployment_kind: str,
    new_client: NewClient,
    running: contextlib.ExitStack,
    topic: str,
    tmp_path: pathlib.Path,
    done_by: str,
) -> None:
    """Backwards by time: messages come again, those before the time do not. To the end: what waits is skipped.

    The client itself waits 10 s before it goes on: with queues that it dropped, or after OFFSET_MOVED.
    """
    settings = {"useServerSideResetOffset": str(done_by == "the broker").lower()}
    cluster = running.enter_context(DEPLOYMENTS[deployment_kind](tmp_path / "cluster", settings))
    client, operator = new_client(cluster), running.enter_context(Operator(cluster.broker))
    operator.send(topic, numbered("early"))
    back, ahead = (running.enter_context(client.begin_consuming(topic, name, name)) for name in ("back", "ahead"))
    for consumer in (back, ahead):
        wait_keys(numbered("early"), consumer)
    between_ms = int(time.time() * 1000)
    time.sleep(0.01)
    operator.send(topic, numbered("middle"))
    for consumer in (back, ahead):
        wait_keys(numbered("middle"), consumer)
        wait_committed(operator, topic, consumer.name.removeprefix("consume-"))
    ahead.send_line("suspend")
    wait_event(ahead, Suspended)
    operator.send(topic, numbered("ending_pulls"))
    wait_keys(numbered("ending_pulls"), back)
    time.sleep(0.5)
    operator.send(topic, numbered("waiting"))
    wait_keys(numbered("waiting"), back)

    assert operator.reset_offsets(topic, "back", between_ms) == dict.fromkeys(range(QUEUES), 1)
    assert operator.reset_offsets(topic, "ahead", -1) == dict.fromkeys(range(QUEUES), 4)
    ahead.resume()
    operator.send(topic, numbered("end"))
    again = sorted(2 * (numbered("middle") + numbered("ending_pulls") + numbered("waiting")))

    def came_again() -> bool:
        return [key for key in keys_of(back) if not key.startswith(("early", "end-"))] == again

    wait_for(came_again, [back], TIMEOUT_S, "the messages did not come again")
    for consumer in (back, ahead):
        wait_keys(numbered("end"), consumer)
    assert [key for key in keys_of(back) if key.startswith("early")] == numbered("early")
    assert not [key for key in keys_of(ahead) if key.startswith("waiting")]


def wait_committed(operator: Operator, topic: str, group: str) -> None:
    """Waits until the group has an offset in every queue: without one members cannot be told to reset theirs."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(operator.committed(topic, group)) < QUEUES:
        assert time.monotonic() < deadline, operator.committed(topic, group)
        time.sleep(0.05)


def test_a_consumer_answers_an_operators_questions(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """Its running info, its offsets, and the outcome of one message that it shall consume now: passed on to it."""
    msg_id = operator.send_one(topic, "chosen", queue_id=0)
    operator.send(topic, ["one", "two", "three"], queues=[1, 2, 3])
    consumer = running.enter_context(client.consume(topic, group, tags="*"))
    wait_keys(["chosen", "one", "two", "three"], consumer)
    wait_status(consumer, operator, topic, group, dict.fromkeys(range(QUEUES), 1))
    client_id = wait_member(consumer, operator, group)
    assert list(operator.status(topic, group)) == [client_id]

    info = operator.running_info(group, client_id)
    assert info.properties["PROP_CONSUME_TYPE"] == "CONSUME_PASSIVELY"
    assert info.properties["PROP_CONSUMEORDERLY"] == "false"
    assert {(each.topic, each.sub_string) for each in info.subscription_set} == {(topic, "*"), (f"%RETRY%{group}", "*")}
    assert {queue.queue_id: held.commit_offset for queue, held in info.mq_table.items() if queue.topic == topic} == (
        dict.fromkeys(range(QUEUES), 1)
    )
    assert set(info.status_table) >= {topic}
    assert "ConsumeMessageThread" in (info.jstack or "")

    result = operator.consume_directly(group, client_id, topic, msg_id)
    assert (result.consume_result, result.order) == (CMResult.CR_SUCCESS, False)
    wait_for(lambda: len(keys_of(consumer)) > QUEUES, [consumer], TIMEOUT_S, "not consumed again")
    assert keys_of(consumer) == sorted(["chosen", "chosen", "one", "two", "three"])


def test_a_message_consumed_directly_may_fail(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """The listener's verdict is the answer; also for a message that it does not subscribe to."""
    msg_id = operator.send_one(topic, "chosen", {"TAGS": "TagB"})
    consumer = running.enter_context(client.consume(topic, group, tags="TagA", fail_first=1))
    client_id = wait_member(consumer, operator, group)
    result = operator.consume_directly(group, client_id, topic, msg_id)
    assert result.consume_result == CMResult.CR_LATER
    wait_event(consumer, Delivery)
    (delivery,) = consumer.events(Delivery)
    assert (delivery.key, delivery.topic, delivery.reconsume_times) == ("chosen", topic, 0)


def broker_process(cluster: Deployment) -> ManagedProcess:
    """The process that the broker runs in."""
    return cluster.processes["up" if "up" in cluster.processes else "broker"]


def differing_subscriptions(cluster: Deployment, group: str) -> float:
    """What the broker's metrics say about a group."""
    listeners = broker_process(cluster).wait_ready().listeners
    address = listeners["broker.http" if "broker.http" in listeners else "http"]
    return metric(address, "apogeemq_consumer_group_differing_subscriptions", consumer_group=group)


@pytest.mark.usefixtures("only_ours")
def test_members_that_want_different_things_are_told_in_log_and_metrics(
    client: JavaClient,
    deployment: Deployment,
    running: contextlib.ExitStack,
    operator: Operator,
    topic: str,
    group: str,
) -> None:
    """The group, the topic, and who subscribes to what. Apache serves the one that spoke last, and says nothing."""
    operator.send(topic, ["first"])
    consumers = [
        running.enter_context(client.begin_consuming(topic, group, instance, tags=tags))
        for instance, tags in (("a", "TagA || TagB"), ("b", "TagC"))
    ]
    for consumer in consumers:
        consumer.wait_started()

    def is_told() -> bool:
        lines = broker_process(deployment).log.splitlines()
        return any(group in line and "TagA || TagB" in line and "TagC" in line for line in lines)

    wait_for(is_told, consumers, TIMEOUT_S, "the broker's log tells no difference")
    assert differing_subscriptions(deployment, group) == 2
    consumers[0].stop_consuming()
    wait_for(lambda: differing_subscriptions(deployment, group) == 0, consumers, TIMEOUT_S, "one member still differs")


@pytest.mark.usefixtures("only_ours")
def test_a_member_that_wants_something_else_is_refused_where_that_is_asked_for(
    deployment_kind: str, new_client: NewClient, running: contextlib.ExitStack, topic: str, tmp_path: pathlib.Path
) -> None:
    """With refuse_differing_subscriptions: its log has the broker's reason, it gets no queue, the others go on.

    Once they have ended it takes their place.
    """
    settings = {"topics.refuse_differing_subscriptions": "true"}
    cluster = running.enter_context(DEPLOYMENTS[deployment_kind](tmp_path / "cluster", settings))
    client, operator = new_client(cluster), running.enter_context(Operator(cluster.broker))
    operator.send(topic, numbered("first"), tags="TagA")
    allowed = running.enter_context(client.consume(topic, "group", "allowed", tags="TagA"))
    wait_keys(numbered("first"), allowed)
    refused = running.enter_context(client.consume(topic, "group", "refused", tags="TagB"))

    def knows_why() -> bool:
        logs = (tmp_path / "client").rglob("rocketmq_client.log")
        return any("refuse_differing_subscriptions" in log.read_text() for log in logs)

    wait_for(knows_why, [refused], TIMEOUT_S, "the client was not told")
    assert len(operator.client_ids("group")) == 1
    operator.send(topic, numbered("second"), tags="TagA")
    wait_keys(numbered("second"), allowed)
    assert keys_of(refused) == []
    allowed.stop_consuming()
    operator.send(topic, numbered("third"), tags="TagB")
    wait_keys(numbered("third"), refused)
