"""Resets of a group's offsets: done by the broker, or by the group's members."""

import json

import pytest
from apogeemq.broker.config import TopicsConfig
from apogeemq.remoting_codec.bodies import MessageQueue, ResetOffsetBody
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.headers.client_call import ResetOffsetRequestHeader

from packages.broker.tests.recordings import exchanges
from packages.broker.tests.world import (
    Client,
    World,
    bodies_of,
    consumer_beat,
    fields_of,
    pull_fields,
    send_fields,
)

RESET = RequestCode.INVOKE_BROKER_TO_RESET_OFFSET
COMMIT = RequestCode.UPDATE_CONSUMER_OFFSET
QUERY = RequestCode.QUERY_CONSUMER_OFFSET
COUNT = 5
BY_CLIENTS = TopicsConfig(use_server_side_reset_offset=False)


async def world_with(*, topics: TopicsConfig | None = None) -> tuple[World, list[int]]:
    """Topic T of two queues, with messages in queue 0, one a second; a group G that consumed them all. Gives the times
    at which they were stored."""
    world = World(topics=topics)
    world.create_topic("T", queues=2)
    world.broker.groups.find_or_create("G")
    world.mark_saved()
    client = world.client()
    times = []
    for number in range(COUNT):
        times.append(world.clock.now_ms())
        client.request(310, send_fields("T", 0), b"%d" % number)
        world.clock.advance(1.0)
    world.broker.offsets.commit("T", "G", 0, COUNT)
    world.broker.offsets.commit("T", "G", 1, 0)
    return world, times


def reset_fields(timestamp: int, **more: str) -> dict[str, str]:
    return {
        "topic": "T",
        "group": "G",
        "queueId": "-1",
        "offset": "-1",
        "timestamp": str(timestamp),
        "isForce": "true",
        **more,
    }


def table_of(answer: RemotingCommand) -> dict[int, int]:
    assert (answer.code, answer.remark) == (0, None)
    table = ResetOffsetBody.decode(answer.body).offset_table
    assert {(queue.topic, queue.broker_name) for queue in table} == {("T", "broker-a")}
    return {queue.queue_id: offset for queue, offset in table.items()}


async def reset(world: World, fields: dict[str, str]) -> dict[int, int]:
    operator = world.client(60_000)
    return table_of(await operator.later(operator.send(RESET, fields)))


def committed(client: Client, queue_id: int = 0) -> str:
    reply = client.request(QUERY, {"topic": "T", "consumerGroup": "G", "queueId": str(queue_id)})
    return fields_of(reply)["offset"]


# -- where a group is set ----------------------------------------------------------------------------------------------


async def test_the_answer_is_the_recorded_table() -> None:
    """The same queues at the same offsets, keys bare."""
    (exchange,) = exchanges("running_info", RESET)
    apache = ResetOffsetBody.decode(exchange.reply.body).offset_table
    world, _ = await world_with()
    async with world:
        operator = world.client()
        answer = await operator.later(operator.send(RESET, reset_fields(0)))
        ours = ResetOffsetBody.decode(answer.body).offset_table
        assert {(q.queue_id, at) for q, at in ours.items()} == {(q.queue_id, at) for q, at in apache.items()}
        assert answer.body.startswith(b'{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:0,{')


async def test_a_group_goes_to_a_time() -> None:
    """The first message stored at or after it; the end where there is none, and for -1."""
    world, times = await world_with()
    async with world:
        assert await reset(world, reset_fields(times[2])) == {0: 2, 1: 0}
        assert await reset(world, reset_fields(times[2] + 1)) == {0: 3, 1: 0}
        assert await reset(world, reset_fields(times[4] + 1)) == {0: COUNT, 1: 0}
        assert await reset(world, reset_fields(0)) == {0: 0, 1: 0}
        assert await reset(world, reset_fields(-1)) == {0: COUNT, 1: 0}


async def test_one_queue_goes_to_an_offset_or_a_time() -> None:
    """The others stay; the offset wins over the time."""
    world, times = await world_with()
    async with world:
        assert await reset(world, reset_fields(times[1], queueId="0", offset="3")) == {0: 3}
        assert await reset(world, reset_fields(times[1], queueId="0")) == {0: 1}
        without_offset = reset_fields(times[1], queueId="0")
        del without_offset["offset"]
        assert await reset(world, without_offset) == {0: 1}
        assert world.broker.offsets.query("T", "G", 1) == 0


@pytest.mark.parametrize(
    ("fields", "code", "remark"),
    [
        ({"topic": "Missing"}, 17, "Topic Missing does not exist"),
        ({"group": "Missing"}, 26, "Group Missing does not exist"),
        ({"queueId": "2"}, 29, "queueId[2] is illegal"),
        ({"queueId": "0", "offset": "6"}, 1, "Target offset 6 not in consume queue range [0-5]"),
        ({"queueId": "0", "offset": "-2"}, 1, "Target offset -2 not in consume queue range [0-5]"),
    ],
)
async def test_a_reset_that_cannot_be_is_refused(fields: dict[str, str], code: int, remark: str) -> None:
    """And nothing is changed or made."""
    world, _ = await world_with()
    async with world:
        before = world.broker.offsets.to_table()
        answer = world.client().request(RESET, reset_fields(0) | fields)
        assert answer.code == code
        assert str(answer.remark).startswith(remark)
        assert world.broker.offsets.to_table() == before
        assert world.broker.topics.get("Missing") is None
        assert world.broker.groups.get("Missing") is None


# -- done by the broker ------------------------------------------------------------------------------------------------


async def test_the_next_pull_is_told_once() -> None:
    """21 with the offset to go on from; then messages come from there."""
    world, _ = await world_with()
    async with world:
        consumer = world.client()
        await reset(world, reset_fields(0, queueId="0", offset="3"))
        moved = consumer.request(11, pull_fields(offset=COUNT))
        assert (moved.code, moved.remark, moved.body) == (21, "OFFSET_RESET", b"")
        fields = fields_of(moved)
        assert (fields["nextBeginOffset"], fields["minOffset"], fields["maxOffset"]) == ("3", "0", "5")
        assert bodies_of(consumer.request(11, pull_fields(offset=3))) == [b"3", b"4"]
        assert consumer.request(11, pull_fields(offset=COUNT)).code == 19


async def test_only_the_group_and_queue_concerned_are_told() -> None:
    """Another group, another queue."""
    world, _ = await world_with()
    async with world:
        consumer = world.client()
        await reset(world, reset_fields(0, queueId="0", offset="3"))
        assert consumer.request(11, pull_fields(group="H", offset=COUNT)).code == 19
        assert consumer.request(11, pull_fields(queue_id=1)).code == 19
        assert consumer.request(11, pull_fields(offset=COUNT)).code == 21


async def test_a_running_consumer_does_not_take_a_reset_back() -> None:
    """What it commits before it knows is not heard, told apart or with a pull; afterwards it is."""
    world, _ = await world_with()
    async with world:
        consumer = world.client()
        commit = {"topic": "T", "consumerGroup": "G", "queueId": "0", "commitOffset": str(COUNT)}
        await reset(world, reset_fields(0))
        assert consumer.request(COMMIT, commit).code == 0
        assert committed(consumer) == "0"
        moved = consumer.request(11, pull_fields(offset=COUNT, sysFlag="5", commitOffset=str(COUNT)))
        assert (moved.code, committed(consumer)) == (21, "0")
        assert consumer.request(COMMIT, commit | {"commitOffset": "2"}).code == 0
        assert committed(consumer) == "2"


async def test_a_held_pull_is_told_at_once() -> None:
    """Not when its time is over; another group's stays held."""
    world, _ = await world_with()
    async with world:
        consumer, other = world.client(1), world.client(2)
        held = {"sysFlag": "6", "suspendTimeoutMillis": "15000"}
        ours = consumer.send(11, pull_fields(offset=COUNT) | held)
        theirs = other.send(11, pull_fields(group="H", offset=COUNT) | held)
        assert not consumer.has_reply(ours)
        await reset(world, reset_fields(0))
        moved = consumer.reply(ours)
        assert (moved.code, fields_of(moved)["nextBeginOffset"]) == (21, "0")
        assert not other.has_reply(theirs)


async def test_pops_go_on_from_a_reset() -> None:
    """Nobody has to be told, and what the popping group commits counts."""
    world, _ = await world_with()
    async with world:
        await reset(world, reset_fields(0, queueId="0", offset="3"))
        popped = world.client().request(
            RequestCode.POP_MESSAGE,
            {
                "consumerGroup": "G",
                "topic": "T",
                "queueId": "0",
                "maxMsgNums": "32",
                "invisibleTime": "60000",
                "pollTime": "0",
                "bornTime": str(world.clock.now_ms()),
                "initMode": "0",
                "exp": "*",
                "expType": "TAG",
                "order": "false",
            },
        )
        assert bodies_of(popped) == [b"3", b"4"]
        assert world.broker.offsets.query("T", "G", 0) == COUNT
        world.broker.offset_service.commit("T", "G", 0, 4)
        assert world.broker.offsets.query("T", "G", 0) == 4


async def test_a_reset_is_there_after_a_restart() -> None:
    """As durable as a committed offset, whether consumers were told or not."""
    world, _ = await world_with()
    await world.broker.saver.save_topics()
    async with world:
        await reset(world, reset_fields(0, queueId="0", offset="3"))
    async with World(world.disk, clock=world.clock) as again:
        assert again.broker.offsets.query("T", "G", 0) == 3


# -- done by the members -----------------------------------------------------------------------------------------------


def members(world: World, *languages: str) -> list[Client]:
    """A member of G for each language."""
    clients = []
    for number, language in enumerate(languages):
        client = world.client(50_001 + number)
        client.send(RequestCode.HEART_BEAT, {}, consumer_beat(f"c{number}").encode(), language=language)
        clients.append(client)
    for client in clients:
        client.pushed()
    return clients


async def test_members_are_told_in_the_form_that_they_read() -> None:
    """Java gets the map, C++ a list; the broker's own offsets wait for their commits."""
    world, times = await world_with(topics=BY_CLIENTS)
    async with world:
        java, cpp = members(world, "JAVA", "CPP")
        assert await reset(world, reset_fields(times[2])) == {0: 2, 1: 0}
        (to_java,), (to_cpp,) = java.pushed(), cpp.pushed()
        for told in (to_java, to_cpp):
            assert (told.code, told.is_oneway) == (RequestCode.RESET_CONSUMER_CLIENT_OFFSET, True)
            header = ResetOffsetRequestHeader.decode(told.ext_fields)
            assert (header.topic, header.group, header.timestamp) == ("T", "G", times[2])
        assert ResetOffsetBody.decode(to_java.body).offset_table == {
            MessageQueue("T", "broker-a", 0): 2,
            MessageQueue("T", "broker-a", 1): 0,
        }
        assert json.loads(to_cpp.body) == {
            "offsetTable": [
                {"brokerName": "broker-a", "offset": 2, "queueId": 0, "topic": "T"},
                {"brokerName": "broker-a", "offset": 0, "queueId": 1, "topic": "T"},
            ]
        }
        assert committed(java) == str(COUNT)
        assert java.request(11, pull_fields(offset=COUNT)).code == 19


async def test_without_force_no_member_goes_forward() -> None:
    """A queue where the group is further back stays there."""
    world, times = await world_with(topics=BY_CLIENTS)
    async with world:
        members(world, "JAVA")
        world.broker.offsets.commit("T", "G", 0, 1)
        assert await reset(world, reset_fields(times[3], isForce="false")) == {0: 1, 1: 0}
        assert await reset(world, reset_fields(times[3])) == {0: 3, 1: 0}
        assert await reset(world, reset_fields(0, isForce="false")) == {0: 0, 1: 0}


async def test_without_members_nobody_can_do_it() -> None:
    """206, in Apache's words."""
    world, _ = await world_with(topics=BY_CLIENTS)
    async with world:
        operator = world.client()
        answer = await operator.later(operator.send(RESET, reset_fields(7)))
        assert (answer.code, answer.remark) == (
            206,
            "Consumer not online, so can not reset offset, Group: G Topic: T Timestamp: 7",
        )


async def test_a_group_that_never_consumed_has_nothing_to_reset() -> None:
    """1, in Apache's words."""
    world, _ = await world_with(topics=BY_CLIENTS)
    async with world:
        world.broker.groups.find_or_create("New")
        answer = world.client().request(RESET, reset_fields(0, group="New"))
        assert (answer.code, answer.remark) == (1, "THe consumer group <New> not exist")


async def test_members_that_cannot_be_told_are_named() -> None:
    """Those at a proxy."""
    world, _ = await world_with(topics=BY_CLIENTS)
    async with world:
        (java,) = members(world, "JAVA")
        world.broker.group_service.heartbeat(consumer_beat("c9"), "a proxy's streams", "JAVA", 479)
        java.pushed()
        operator = world.client()
        answer = await operator.later(operator.send(RESET, reset_fields(0)))
        assert (answer.code, answer.remark) == (0, "not told, no connection to this broker: c9")
        assert len(java.pushed()) == 1
