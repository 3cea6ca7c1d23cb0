"""Looking without taking over Remoting: NOTIFICATION and POLLING_INFO. Source: reference broker_behaviour.md §8."""

import asyncio

from apogeemq.broker.config import LimitsConfig
from apogeemq.remoting_codec.codes import RequestCode

from packages.broker.tests.test_face_pop import POP, client_made_handle, handle_fields, pop, pop_fields
from packages.broker.tests.test_pop import NORMAL_ONLY, let_it_be_over, send
from packages.broker.tests.world import Client, World, bodies_of, fields_of, send_fields

NOTIFICATION, POLLING_INFO = RequestCode.NOTIFICATION, RequestCode.POLLING_INFO
SOMETHING = {"hasMsg": "true", "pollingFull": "false"}
NOTHING = {"hasMsg": "false", "pollingFull": "false"}


def look_fields(world: World, poll_ms: int = 1_000, **more: str) -> dict[str, str]:
    """Ext fields of NOTIFICATION."""
    return {
        "consumerGroup": "G",
        "topic": "T",
        "queueId": "-1",
        "pollTime": str(poll_ms),
        "bornTime": str(world.clock.now_ms()),
        **more,
    }


def look(world: World, client: Client, **more: str) -> dict[str, str]:
    """An answer that comes at once."""
    reply = client.request(NOTIFICATION, look_fields(world, poll_ms=0, **more))
    assert reply.code == 0
    return fields_of(reply)


def waiting(client: Client, **more: str) -> int:
    fields = {"consumerGroup": "G", "topic": "T", "queueId": "-1", **more}
    return int(fields_of(client.request(POLLING_INFO, fields))["pollingNum"])


async def test_looking_takes_nothing() -> None:
    """The message is still there to be popped; then it is not any more."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 2)
        client = world.client()
        assert look(world, client) == NOTHING
        send(world, b"a", queue_id=1)
        assert look(world, client) == look(world, client) == SOMETHING
        assert look(world, client, queueId="0") == NOTHING
        assert look(world, client, queueId="1") == SOMETHING
        assert bodies_of(pop(world, client)) == [b"a"]
        assert look(world, client) == NOTHING


async def test_a_look_does_not_set_where_the_group_begins() -> None:
    """A pop that begins with the newest message does so, whoever looked before."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        client = world.client()
        send(world, b"a", b"b")
        look(world, client)
        assert world.broker.offsets.query("T", "G", 0) is None


async def test_who_waits_is_told_when_a_message_comes() -> None:
    """All who wait are, as the message goes to none of them."""
    async with World() as world:
        world.create_topic("T", 1)
        first, second = world.client(), world.client()
        asked = [(client, client.send(NOTIFICATION, look_fields(world))) for client in (first, second)]
        assert waiting(first) == 2
        send(world, b"a")
        await asyncio.sleep(0)
        assert [fields_of(client.reply(opaque)) for client, opaque in asked] == [SOMETHING, SOMETHING]
        assert waiting(first) == 0


async def test_nothing_in_time_is_an_answer() -> None:
    """A success that says so, where a pop gets 210."""
    async with World() as world:
        world.create_topic("T", 1)
        client = world.client()
        opaque = client.send(NOTIFICATION, look_fields(world))
        world.clock.advance(1)
        world.broker.popping.polls.expire()
        reply = client.reply(opaque)
        assert (reply.code, fields_of(reply)) == (0, NOTHING)


async def test_too_many_who_wait_is_an_answer() -> None:
    """With pollingFull; those who wait are counted by (topic, group, queue)."""
    async with World(limits=LimitsConfig(held_pops_per_key_max=1)) as world:
        world.create_topic("T", 2)
        client = world.client()
        client.send(POP, pop_fields(world))
        reply = client.request(NOTIFICATION, look_fields(world))
        assert (reply.code, fields_of(reply)) == (0, {"hasMsg": "false", "pollingFull": "true"})
        client.send(NOTIFICATION, look_fields(world, queueId="1"))
        assert (waiting(client), waiting(client, queueId="1"), waiting(client, queueId="0")) == (1, 1, 0)


async def test_only_what_is_wanted_counts() -> None:
    """By tag; Apache's broker tells of any message."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        client = world.client()
        client.request(RequestCode.SEND_MESSAGE_V2, send_fields(properties="TAGS\x01B\x02"), b"b")
        assert look(world, client, exp="A", expType="TAG") == NOTHING
        assert look(world, client, exp="A || B", expType="TAG") == SOMETHING


async def test_what_comes_again_counts() -> None:
    """In the retry topic, once its time is over."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a")
        client = world.client()
        pop(world, client)
        assert look(world, client) == NOTHING
        await let_it_be_over(world)
        assert look(world, client) == SOMETHING


async def test_in_order_what_has_to_wait_does_not_count() -> None:
    """The queue's next message is held up by the one in hand, until that is acknowledged."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, b"a", b"b")
        client = world.client()
        assert look(world, client, order="true") == SOMETHING
        taken = pop(world, client, order="true", maxMsgNums="1")
        assert look(world, client, order="true") == NOTHING
        assert client.request(RequestCode.ACK_MESSAGE, handle_fields(client_made_handle(taken, 0))).code == 0
        assert look(world, client, order="true") == SOMETHING


async def test_a_oneway_notification_waits_for_nothing() -> None:
    """Nobody would be notified."""
    async with World() as world:
        world.create_topic("T", 1)
        client = world.client()
        client.send(NOTIFICATION, look_fields(world), oneway=True)
        assert len(world.broker.popping.polls) == 0
