"""A subscription in SQL: checked before anything is read, told in heartbeat and pulls, evaluated by the broker."""

import logging

import pytest
from apogeemq.client_api.errors import StartFailed
from apogeemq.client_api.filters import Sql
from apogeemq.client_remoting import PushConsumer
from apogeemq.remoting_codec.bodies import CheckClientRequestBody, HeartbeatData
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from scripted_cluster import ScriptedCluster, hang_up, refuse, succeed
from scripted_queue import Queue, until

EXPRESSION = "a > 5 AND b = 'x'"


@pytest.fixture
def queue(cluster: ScriptedCluster) -> Queue:
    return Queue(cluster)


def consumer(namesrv: str) -> PushConsumer:
    return PushConsumer(namesrv, group="G", subscriptions={"T": Sql(EXPRESSION)})


async def test_the_broker_is_told_the_expression(queue: Queue) -> None:
    """By the check first, by the heartbeat and by each pull; all name the same kind, the first two the same version."""
    queue.broker.usual[RequestCode.CHECK_CLIENT_CONFIG] = succeed()
    async with consumer(queue.namesrv) as started:
        await until(lambda: bool(queue.pulled_from()))
    (check,) = queue.broker.of(RequestCode.CHECK_CLIENT_CONFIG)
    asked = CheckClientRequestBody.decode(check.body)
    data = asked.subscription_data
    assert (asked.client_id, asked.group) == (started.client_id, "G")
    assert (data.topic, data.sub_string, data.expression_type) == ("T", EXPRESSION, "SQL92")
    assert (data.tags_set, data.code_set) == ([], [])
    (member,) = HeartbeatData.decode(queue.broker.of(RequestCode.HEART_BEAT)[0].body).consumer_data_set
    assert [each for each in member.subscription_data_set if each.topic == "T"] == [data]
    assert data.sub_version > 0
    fields = queue.broker.of(RequestCode.PULL_MESSAGE)[0].ext_fields or {}
    assert (fields["subscription"], fields["expressionType"], fields["sysFlag"]) == (EXPRESSION, "SQL92", "6")
    order = [command.code for command in queue.broker.requests]
    assert order.index(RequestCode.CHECK_CLIENT_CONFIG) < order.index(RequestCode.PULL_MESSAGE)


async def test_tags_are_not_compared_by_the_client(queue: Queue) -> None:
    """What the broker sends is handed over, whatever its tag."""
    queue.broker.usual[RequestCode.CHECK_CLIENT_CONFIG] = succeed()
    queue.add(b"one", tag="any")
    async with consumer(queue.namesrv) as started:
        async for message in started:
            assert message.body == b"one"
            break


async def test_a_wrong_expression_fails_the_start(queue: Queue) -> None:
    """With what the broker says of it; the client is closed again, and nothing was pulled."""
    remark = "line 1, column 3: expected a value"
    queue.broker.usual[RequestCode.CHECK_CLIENT_CONFIG] = refuse(ResponseCode.SUBSCRIPTION_PARSE_FAILED, remark)
    with pytest.raises(StartFailed, match="line 1, column 3: expected a value") as caught:
        async with consumer(queue.namesrv):
            pass
    assert (caught.value.code_name, caught.value.broker) == ("SUBSCRIPTION_PARSE_FAILED", "a")
    assert EXPRESSION in caught.value.text
    assert len(queue.broker.of(RequestCode.UNREGISTER_CLIENT)) == 1
    assert queue.pulled_from() == []


async def test_a_broker_that_does_not_answer_is_passed_over(cluster: ScriptedCluster) -> None:
    """The topic's next broker checks the expression."""
    cluster.brokers["a"].usual[RequestCode.CHECK_CLIENT_CONFIG] = hang_up
    cluster.brokers["b"].usual[RequestCode.CHECK_CLIENT_CONFIG] = refuse(ResponseCode.SUBSCRIPTION_PARSE_FAILED, "no")
    with pytest.raises(StartFailed) as caught:
        async with consumer(cluster.namesrv.address):
            pass
    assert caught.value.broker == "b"


async def test_a_topic_without_brokers_is_not_checked(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    """It may come to be while the consumer runs; the log says so."""
    caplog.set_level(logging.INFO)
    async with PushConsumer(queue.namesrv, group="G", subscriptions={"nowhere": Sql(EXPRESSION)}):
        assert queue.broker.of(RequestCode.CHECK_CLIENT_CONFIG) == []
    assert "the SQL expression for nowhere is not checked" in caplog.text
