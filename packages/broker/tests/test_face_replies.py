"""Request-reply: replies go to the producer that waits, and the replier hears what became of them."""

import pytest
from apogeemq.broker.config import LimitsConfig, TopicsConfig
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.headers.client_call import ReplyMessageRequestHeader
from apogeemq.remoting_codec.message import decode_properties

from packages.broker.tests.world import Client, World, fields_of, long_names, producer_beat, properties_of, send_fields

REPLY_TOPIC = "DefaultCluster_REPLY_TOPIC"
TO_P1 = "CORRELATION_ID\x01c-1\x02REPLY_TO_CLIENT\x01p1\x02MSG_TYPE\x01reply\x02TTL\x013000\x02UNIQ_KEY\x01K\x02"


def reply_fields(properties: str = TO_P1, **more: str) -> dict[str, str]:
    return send_fields(REPLY_TOPIC, 0, properties, **more)


def parties(world: World) -> tuple[Client, Client]:
    """A producer p1 that waits for replies, and somebody who replies."""
    requester, replier = world.client(50_001), world.client(50_002)
    requester.heartbeat(producer_beat("p1", "P", "CLIENT_INNER_PRODUCER"))
    world.mark_saved()
    return requester, replier


@pytest.mark.parametrize("code", [RequestCode.SEND_REPLY_MESSAGE, RequestCode.SEND_REPLY_MESSAGE_V2])
async def test_a_reply_reaches_the_requester_before_the_replier_is_answered(code: RequestCode) -> None:
    """Body, properties and both hosts as Java writes them; a copy lies in the reply topic."""
    async with World() as world:
        requester, replier = parties(world)
        fields = reply_fields()
        opaque = replier.send(code, long_names(fields) if code == RequestCode.SEND_REPLY_MESSAGE else fields, b"42")
        pushed = await requester.asked()
        assert not replier.has_reply(opaque)
        assert (pushed.code, pushed.is_oneway, pushed.body) == (RequestCode.PUSH_REPLY_MESSAGE_TO_CLIENT, False, b"42")
        header = ReplyMessageRequestHeader.decode(pushed.ext_fields)
        assert (header.topic, header.born_host, header.store_host) == (
            REPLY_TOPIC,
            "/10.0.0.9:50002",
            "/127.0.0.1:10911",
        )
        assert header.store_timestamp == world.clock.now_ms()
        assert decode_properties(header.properties or "") == decode_properties(TO_P1) | {
            "PUSH_REPLY_TIME": str(world.clock.now_ms())
        }

        requester.answer(pushed)
        answer = await replier.later(opaque)
        assert (answer.code, answer.remark) == (0, None)
        assert fields_of(answer)["msgId"].startswith("7F000001")
        copy = world.record(REPLY_TOPIC)
        assert copy.body == b"42"
        assert properties_of(copy)["CORRELATION_ID"] == "c-1"
        assert "PUSH_REPLY_TIME" not in properties_of(copy)


async def refused(world: World, properties: str) -> RemotingCommand:
    _, replier = parties(world)
    answer = replier.request(325, reply_fields(properties), b"42")
    assert answer.code == 1
    assert {"msgId", "queueId", "queueOffset", "MSG_REGION", "TRACE_ON"} <= fields_of(answer).keys()
    assert world.record(REPLY_TOPIC).body == b"42"
    return answer


async def test_a_reply_to_nobody_is_told() -> None:
    """Apache's words; the copy is kept, and the answer has the fields that Java reads."""
    async with World() as world:
        answer = await refused(world, TO_P1.replace("p1", "p2"))
        assert answer.remark == "push reply message fail, channel of <p2> not found."
    async with World() as world:
        answer = await refused(world, "MSG_TYPE\x01reply\x02")
        assert answer.remark == "reply message properties[REPLY_TO_CLIENT] is null"


async def test_a_consumer_of_that_name_is_no_requester() -> None:
    """Only producers wait for replies; one that left does not either."""
    async with World() as world:
        requester, replier = parties(world)
        requester.request(35, {"clientID": "p1", "producerGroup": "P"})
        requester.request(35, {"clientID": "p1", "producerGroup": "CLIENT_INNER_PRODUCER"})
        assert "not found" in str(replier.request(325, reply_fields(), b"42").remark)


async def test_a_requester_that_refuses_is_told() -> None:
    """Code 1 with what it answered."""
    async with World() as world:
        requester, replier = parties(world)
        opaque = replier.send(325, reply_fields(), b"42")
        requester.answer(await requester.asked(), 1, remark="no such request")
        answer = await replier.later(opaque)
        assert (answer.code, answer.remark) == (
            1,
            "push reply message to p1 fail: it answered 1 no such request",
        )


async def test_a_requester_that_goes_away_is_told() -> None:
    """At once, not after the deadline."""
    async with World() as world:
        requester, replier = parties(world)
        opaque = replier.send(325, reply_fields(), b"42")
        await requester.asked()
        requester.close()
        answer = await replier.later(opaque)
        assert answer.code == 1
        assert str(answer.remark).startswith("push reply message to p1 fail: the channel is closed")


async def test_a_requester_that_stays_silent_is_told() -> None:
    """After limits.client_call_s."""
    async with World(limits=LimitsConfig(client_call_s=0.01)) as world:
        _, replier = parties(world)
        answer = await replier.later(replier.send(325, reply_fields(), b"42"))
        assert (answer.code, answer.remark) == (
            1,
            "push reply message to p1 fail: no response from 10.0.0.9:50001 within 0.01 s",
        )


async def test_a_requester_that_does_not_read_gets_no_more() -> None:
    """Its reply would lie in the broker's memory."""
    async with World() as world:
        requester, replier = parties(world)
        requester.channel.pause_writing()
        answer = await replier.later(replier.send(325, reply_fields(), b"42"))
        assert "does not read" in str(answer.remark)
        assert requester.pushed() == []


async def test_replies_on_their_way_are_bounded() -> None:
    """2, naming the limit, and nothing is stored; room comes back with the answer."""
    async with World(limits=LimitsConfig(client_calls_max=1)) as world:
        requester, replier = parties(world)
        first = replier.send(325, reply_fields(), b"1")
        answer = replier.request(325, reply_fields(), b"2")
        assert answer.code == 2
        assert "limits.client_calls_max" in str(answer.remark)
        assert world.record(REPLY_TOPIC).body == b"1"
        requester.answer(await requester.asked())
        assert (await replier.later(first)).code == 0
        third = replier.send(325, reply_fields(), b"3")
        requester.answer(await requester.asked())
        assert (await replier.later(third)).code == 0


async def test_a_replier_that_is_gone_costs_nothing() -> None:
    """The requester has its reply all the same."""
    async with World() as world:
        requester, replier = parties(world)
        replier.send(325, reply_fields(), b"42")
        replier.close()
        requester.answer(await requester.asked())


async def test_a_oneway_reply_is_passed_on() -> None:
    """Nobody is answered."""
    async with World() as world:
        requester, replier = parties(world)
        replier.send(325, reply_fields(), b"42", oneway=True)
        requester.answer(await requester.asked())
        await world.broker.client_calls.stop()
        assert replier.received() == []


async def test_a_reply_is_one_message() -> None:
    """Whatever the batch flag says."""
    async with World() as world:
        requester, replier = parties(world)
        replier.send(325, reply_fields(m="true"), b"not a batch")
        assert (await requester.asked()).body == b"not a batch"
        assert world.record(REPLY_TOPIC).body == b"not a batch"


async def test_a_store_that_takes_nothing_does_not_stop_replies() -> None:
    """The copy is missing; the answer says id 0, as Apache's."""
    async with World() as world:
        requester, replier = parties(world)
        world.store.close()
        opaque = replier.send(325, reply_fields(), b"42")
        requester.answer(await requester.asked())
        answer = await replier.later(opaque)
        assert (answer.code, fields_of(answer)["msgId"]) == (0, "0")
        await world.kill()


async def test_a_reply_that_no_send_could_be_is_not_passed_on() -> None:
    """The checks of sends come first."""
    async with World() as world:
        requester, replier = parties(world)
        assert replier.request(325, reply_fields(), b"").code == 13
        assert replier.request(325, reply_fields(b="SCHEDULE_TOPIC_XXXX"), b"x").code == 16
        assert requester.pushed() == []


async def test_a_stop_ends_what_waits() -> None:
    """Nothing of it outlives the broker."""
    world = World()
    requester, replier = parties(world)
    opaque = replier.send(325, reply_fields(), b"42")
    await requester.asked()
    await world.stop()
    assert not replier.has_reply(opaque)


async def test_copies_of_replies_may_be_left_out() -> None:
    """storeReplyMessageEnable=false: the reply goes on, checked as before, and nothing is stored."""
    async with World(topics=TopicsConfig(store_reply_message_enable=False)) as world:
        requester, replier = parties(world)
        opaque = replier.send(325, reply_fields(), b"42")
        pushed = await requester.asked()
        requester.answer(pushed)
        answer = await replier.later(opaque)
        assert (answer.code, fields_of(answer)["msgId"], fields_of(answer)["queueOffset"]) == (0, "0", "0")
        assert world.records(REPLY_TOPIC) == []
        assert replier.request(325, reply_fields(), b"").code == 13
        assert requester.pushed() == []
