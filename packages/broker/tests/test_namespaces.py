"""Namespaces as an Apache broker has them: in names (1), or beside them, where they mean nothing to a broker (2).

Namespace 1: clients wrap names before they send them, `ns%topic`, `%RETRY%ns%group`; to the broker these are names like
others. Namespace 2: names stay bare, and each request has the fields `nsd` and `ns`; only a proxy or a service behind
another broker makes something of them. Source: Apache NamespaceUtil, NamespaceRpcHook, RpcRequestHeader 5.3.3, whose
broker reads neither field.
"""

from collections.abc import Mapping

import pytest
from apogeemq.remoting_codec.bodies import LockBatchRequestBody, MessageQueue, TopicConfig
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.record import Record

from packages.broker.tests.test_pop import let_it_be_over
from packages.broker.tests.world import (
    Client,
    World,
    bodies_of,
    consumer_beat,
    fields_of,
    properties_of,
    pull_fields,
    send_fields,
    until,
)

V1 = "MQ_INST_1%"
V2 = {"nsd": "true", "ns": "MQ_INST_1"}


class Names:
    """A topic and a group as a client of one kind writes them, and what it adds to each request."""

    def __init__(self, prefix: str, fields: Mapping[str, str]) -> None:
        self.topic = f"{prefix}T"
        self.group = f"{prefix}G"
        self.retry = f"%RETRY%{prefix}G"
        self.dlq = f"%DLQ%{prefix}G"
        self.fields = dict(fields)


KINDS = {"none": Names("", {}), "1": Names(V1, {}), "2": Names("", V2), "both": Names(V1, V2)}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def names(request: pytest.FixtureRequest) -> Names:
    found = request.param
    assert isinstance(found, Names)
    return found


def sent(client: Client, names: Names, body: bytes = b"x", properties: str = "TAGS\x01A\x02") -> RemotingCommand:
    return client.request(310, send_fields(names.topic, 0, properties) | names.fields, body)


async def pulled(client: Client, names: Names, topic: str) -> list[bytes]:
    """What a member of the group gets of a topic by its registered subscription, from the begin."""
    fields = pull_fields(topic, names.group, sysFlag="0") | names.fields
    return bodies_of(client.request(11, fields))


def member(world: World, names: Names) -> Client:
    """A consumer of the group, as push consumers announce themselves: topic and retry topic."""
    client = world.client()
    beat = consumer_beat("c1", names.group, names.topic)
    subscriptions = beat.consumer_data_set[0].subscription_data_set
    retries = consumer_beat("c1", names.group, names.retry).consumer_data_set[0].subscription_data_set
    subscriptions.extend(retries)
    assert client.request(34, names.fields, beat.encode()).code == 0
    world.mark_saved()
    return client


def new_world(names: Names) -> World:
    """The topic is made by its first send."""
    world = World()
    world.client(50_001).send(310, send_fields(names.topic) | names.fields, b"first")
    world.mark_saved()
    return world


def only(world: World, topic: str, queue_id: int = 0) -> Record:
    """The newest message of a queue."""
    return world.records(topic, queue_id)[-1]


async def test_a_send_makes_the_topic_of_that_name(names: Names) -> None:
    """With as many queues as asked for; the message lies under the name as it came, its properties untouched."""
    async with new_world(names) as world:
        config: TopicConfig = world.broker.topics.require(names.topic).config
        assert (config.topic_name, config.write_queue_nums) == (names.topic, 4)
        reply = sent(world.client(), names)
        assert (reply.code, fields_of(reply)["queueOffset"]) == (0, "1")
        record = only(world, names.topic)
        assert (record.topic, record.body) == (names.topic, b"x")
        assert set(properties_of(record)) == {"TAGS", "UNIQ_KEY", "MSG_REGION", "TRACE_ON", "CLUSTER"}


async def test_a_heartbeat_makes_the_groups_retry_topic(names: Names) -> None:
    """%RETRY% goes before the namespace; the group may be asked for its members by its name."""
    async with new_world(names) as world:
        client = member(world, names)
        assert world.broker.topics.get(names.retry) is not None
        members = client.request(38, {"consumerGroup": names.group} | names.fields)
        assert (members.code, members.body) == (0, b'{"consumerIdList":["c1"]}')


async def test_pulls_and_offsets_are_by_those_names(names: Names) -> None:
    """By the registered subscription; the committed offset belongs to this group and topic."""
    async with new_world(names) as world:
        client = member(world, names)
        assert await pulled(client, names, names.topic) == [b"first"]
        queue = {"topic": names.topic, "consumerGroup": names.group, "queueId": "0"} | names.fields
        assert client.request(15, queue | {"commitOffset": "1"}).code == 0
        assert fields_of(client.request(14, queue))["offset"] == "1"
        assert world.broker.offsets.query(names.topic, names.group, 0) == 1


async def test_a_failed_message_comes_again_and_then_dies(names: Names) -> None:
    """Through the group's retry topic, by its delay level, with RETRY_TOPIC the topic's full name; then to its DLQ."""
    async with new_world(names) as world:
        client = member(world, names)
        world.start_deliveries()
        back = {
            "offset": str(only(world, names.topic).physical_offset),
            "group": names.group,
            "delayLevel": "1",
            "originTopic": names.topic,
        }
        assert (await client.later(client.send(36, back | names.fields))).code == 0
        await world.clock.run_for(1.5)
        await until(lambda: world.store.max_offset(names.retry, 0) == 1)
        again = only(world, names.retry)
        assert (again.body, again.reconsume_times) == (b"first", 1)
        assert properties_of(again)["RETRY_TOPIC"] == names.topic
        assert await pulled(client, names, names.retry) == [b"first"]
        dead = back | {"offset": str(again.physical_offset), "delayLevel": "-1"}
        assert not world.records(names.dlq)
        opaque = client.send(36, dead | names.fields)
        await until(lambda: world.store.max_offset(names.dlq, 0) == 1)
        assert properties_of(only(world, names.dlq))["RETRY_TOPIC"] == names.topic
        await world.broker.saver.save_topics()
        assert (await client.later(opaque)).code == 0
        assert world.broker.dead_letters == {(names.group, names.topic): 1}


async def test_a_fallback_to_the_retry_topic_finds_its_group(names: Names) -> None:
    """A consumer that sends a failed message itself: beyond the maximum it goes to the DLQ of the same group."""
    async with new_world(names) as world:
        client = member(world, names)
        fields = send_fields(names.retry, 0, f"RETRY_TOPIC\x01{names.topic}\x02", j="17", l="16")
        client.send(310, fields | names.fields, b"dead")
        assert only(world, names.dlq).body == b"dead"
        world.mark_saved()
        fields = send_fields(names.retry, 0, f"RETRY_TOPIC\x01{names.topic}\x02", j="3", l="16")
        assert client.request(310, fields | names.fields, b"again").code == 0
        assert only(world, names.retry).body == b"again"


async def test_pops_come_again_through_the_same_names(names: Names) -> None:
    """What is popped and not acknowledged goes to %RETRY%group_topic, both with their namespaces."""
    async with new_world(names) as world:
        await world.broker.popping.restore()
        client = member(world, names)
        fields = {
            "consumerGroup": names.group,
            "topic": names.topic,
            "queueId": "-1",
            "maxMsgNums": "1",
            "invisibleTime": "20000",
            "pollTime": "0",
            "bornTime": str(world.clock.now_ms()),
            "initMode": "0",
        }
        assert bodies_of(client.request(200050, fields | names.fields)) == [b"first"]
        await let_it_be_over(world)
        again = only(world, f"{names.retry}_{names.topic}")
        assert (again.body, again.reconsume_times) == (b"first", 1)
        fields["bornTime"] = str(world.clock.now_ms())
        assert bodies_of(client.request(200050, fields | names.fields)) == [b"first"]


async def test_queues_are_locked_by_those_names(names: Names) -> None:
    """For ordered consumers."""
    async with new_world(names) as world:
        client = member(world, names)
        queue = MessageQueue(names.topic, "broker-a", 0)
        body = LockBatchRequestBody(consumer_group=names.group, client_id="c1", mq_set=[queue])
        assert client.request(41, names.fields, body.encode()).code == 0
        assert world.broker.queue_locks.is_locked(names.group, world.clock.monotonic())


async def test_one_namespace_does_not_see_another() -> None:
    """By its names only: the same topic and group in two namespaces and in none are three of each."""
    async with World() as world:
        client = world.client()
        kinds = [Names("", {}), Names("A%", {}), Names("B%", {})]
        for kind in kinds:
            client.send(310, send_fields(kind.topic), kind.topic.encode())
        world.mark_saved()
        for kind in kinds:
            consumer = member(world, kind)
            assert await pulled(consumer, kind, kind.topic) == [kind.topic.encode()]


@pytest.mark.parametrize("message_type", ["NORMAL", "FIFO", "DELAY", "TRANSACTION", "MIXED", "UNSPECIFIED"])
@pytest.mark.parametrize("properties", ["TAGS\x01A\x02", "__SHARDINGKEY\x01k\x02", "DELAY\x011\x02"])
async def test_a_broker_does_not_check_message_types(message_type: str, properties: str) -> None:
    """message.type of a topic is for proxies: an Apache broker of 5.3.3 takes any kind of message into any topic."""
    async with World() as world:
        world.create_topic()
        config = world.broker.topics.require("T").config
        config.attributes["message.type"] = message_type
        assert world.client().request(310, send_fields("T", 0, properties), b"x").code == 0
