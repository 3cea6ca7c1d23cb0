"""Operators' questions that are passed on to consumers, and what comes back."""

import json
from typing import NamedTuple

import pytest
from apogeemq.broker.config import LimitsConfig
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.client_bodies import GetConsumerStatusBody
from apogeemq.remoting_codec.codes import RequestCode, request_code_name
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.record import decode_record

from packages.broker.tests.recordings import frames
from packages.broker.tests.world import Client, World, consumer_beat, fields_of, send_fields

INFO = RequestCode.GET_CONSUMER_RUNNING_INFO
DIRECTLY = RequestCode.CONSUME_MESSAGE_DIRECTLY
STATUS = RequestCode.INVOKE_BROKER_TO_GET_CONSUMER_STATUS


class Relayed(NamedTuple):
    """Four frames of a recording: the operator's question, the broker's, the client's answer, the broker's."""

    question: RemotingCommand
    passed_on: RemotingCommand
    told: RemotingCommand
    answer: RemotingCommand


def recorded(code: int, inner_code: int) -> Relayed:
    """How Apache 5.3.3 passed a question on."""
    found: list[RemotingCommand] = []
    for _, direction, command in frames("running_info"):
        is_next = (
            (len(found) == 0 and direction == "c>s" and command.code == code and not command.is_response)
            or (len(found) == 1 and direction == "s>c" and command.code == inner_code and not command.is_response)
            or (len(found) == 2 and direction == "c>s" and command.is_response and command.opaque == found[1].opaque)
            or (len(found) == 3 and direction == "s>c" and command.is_response and command.opaque == found[0].opaque)
        )
        if is_next:
            found.append(command)
    return Relayed(*found)


def parties(world: World, *client_ids: str) -> tuple[Client, ...]:
    """An operator, and members of G_run with these ids."""
    members = []
    for number, client_id in enumerate(client_ids):
        member = world.client(50_001 + number)
        member.heartbeat(consumer_beat(client_id, "G_run", "TapRun"))
        members.append(member)
    for member in members:
        member.pushed()
    return world.client(60_000), *members


async def world_with_message() -> tuple[World, str]:
    """A broker named as the recorded one, with one message in TapRun; gives its offset message id."""
    world = World()
    world.create_topic("TapRun", queues=2)
    sent = world.client().request(310, send_fields("TapRun", 1), b"run")
    return world, fields_of(sent)["msgId"]


# -- running info ------------------------------------------------------------------------------------------------------


async def test_running_info_comes_from_the_client_as_recorded() -> None:
    """The question goes on with its fields, the answer comes back with the client's body and remark."""
    apache = recorded(INFO, INFO)
    async with World() as world:
        operator, member = parties(world, fields_of(apache.question)["clientId"])
        opaque = operator.send(INFO, fields_of(apache.question))
        passed_on = await member.asked()
        assert (passed_on.code, passed_on.ext_fields) == (INFO, apache.passed_on.ext_fields)
        assert not operator.has_reply(opaque)
        member.answer(passed_on, apache.told.code, remark=apache.told.remark, body=apache.told.body)
        answer = await operator.later(opaque)
        assert (answer.code, answer.remark, answer.body) == (
            apache.answer.code,
            apache.answer.remark,
            apache.answer.body,
        )
        assert world.broker.stats.counts[INFO, 0] == 1


@pytest.mark.parametrize("code", [INFO, DIRECTLY])
@pytest.mark.parametrize("group", ["G_run", "G_none"])
async def test_a_member_that_is_not_there_is_told_as_recorded(code: RequestCode, group: str) -> None:
    """Of a group that has others, or none."""
    async with World() as world:
        operator, _ = parties(world, "c1")
        answer = operator.request(code, {"consumerGroup": group, "clientId": "nobody@1", "msgId": "00" * 16})
        assert (answer.code, answer.remark) == (1, f"The Consumer <{group}> <nobody@1> not online")
    (apache,) = (command for _, direction, command in frames("running_info") if "not online" in str(command.remark))
    assert (apache.code, apache.remark) == (1, "The Consumer <G_run> <nobody@1> not online")


async def test_credentials_are_not_passed_on() -> None:
    """A client sees the header's fields only."""
    async with World() as world:
        operator, member = parties(world, "c1")
        operator.send(INFO, {"consumerGroup": "G_run", "clientId": "c1", "AccessKey": "a", "Signature": "s"})
        passed_on = fields_of(await member.asked())
        assert {"AccessKey", "Signature"}.isdisjoint(passed_on)
        assert passed_on["clientId"] == "c1"


async def test_a_refusal_of_the_client_is_the_answer() -> None:
    """Its code and its words."""
    async with World() as world:
        operator, member = parties(world, "c1")
        opaque = operator.send(INFO, {"consumerGroup": "G_run", "clientId": "c1"})
        member.answer(await member.asked(), 1, remark="The Consumer Group <G_run> not exist in this consumer")
        answer = await operator.later(opaque)
        assert (answer.code, answer.remark) == (1, "The Consumer Group <G_run> not exist in this consumer")


async def test_a_silent_client_is_a_timeout() -> None:
    """207, after limits.client_call_s."""
    async with World(limits=LimitsConfig(client_call_s=0.01)) as world:
        operator, _ = parties(world, "c1")
        answer = await operator.later(operator.send(INFO, {"consumerGroup": "G_run", "clientId": "c1"}))
        assert (answer.code, answer.remark) == (
            207,
            "consumer <G_run> <c1> Timeout: no response from 10.0.0.9:50001 within 0.01 s",
        )
        assert world.broker.stats.counts[INFO, 207] == 1


async def test_a_client_that_goes_away_is_told() -> None:
    """1, at once."""
    async with World() as world:
        operator, member = parties(world, "c1")
        opaque = operator.send(INFO, {"consumerGroup": "G_run", "clientId": "c1"})
        await member.asked()
        member.close()
        answer = await operator.later(opaque)
        assert answer.code == 1
        assert str(answer.remark).startswith("invoke consumer <G_run> <c1> Exception: the channel is closed")


async def test_a_member_at_a_proxy_cannot_be_asked() -> None:
    """1, saying so."""
    async with World() as world:
        operator = world.client()
        world.broker.group_service.heartbeat(consumer_beat("c1", "G_run"), "a proxy's streams", "JAVA", 479)
        answer = await operator.later(operator.send(INFO, {"consumerGroup": "G_run", "clientId": "c1"}))
        assert (answer.code, answer.remark) == (
            1,
            "invoke consumer <G_run> <c1> Exception: it is connected through a proxy, not to this broker",
        )


async def test_questions_on_their_way_are_bounded() -> None:
    """2, naming the limit."""
    async with World(limits=LimitsConfig(client_calls_max=1)) as world:
        operator, member = parties(world, "c1")
        operator.send(INFO, {"consumerGroup": "G_run", "clientId": "c1"})
        answer = operator.request(INFO, {"consumerGroup": "G_run", "clientId": "c1"})
        assert answer.code == 2
        assert "limits.client_calls_max" in str(answer.remark)
        await member.asked()


# -- direct consumption ------------------------------------------------------------------------------------------------


async def test_a_message_is_consumed_directly_as_recorded() -> None:
    """The broker adds the message, its name and the system flags; the client's result is the answer."""
    apache = recorded(DIRECTLY, DIRECTLY)
    world, message_id = await world_with_message()
    async with world:
        operator, member = parties(world, fields_of(apache.question)["clientId"])
        opaque = operator.send(DIRECTLY, fields_of(apache.question) | {"msgId": message_id})
        passed_on = await member.asked()
        assert passed_on.code == DIRECTLY
        assert fields_of(passed_on) == fields_of(apache.passed_on) | {"msgId": message_id, "brokerName": "broker-a"}
        record = decode_record(passed_on.body)
        assert (record.topic, record.queue_id, record.body) == ("TapRun", 1, b"run")
        member.answer(passed_on, apache.told.code, remark=apache.told.remark, body=apache.told.body)
        answer = await operator.later(opaque)
        assert (answer.code, answer.body) == (apache.answer.code, apache.answer.body)


async def test_a_message_that_is_not_there_is_not_consumed() -> None:
    """Codes that say why, and the client hears nothing."""
    world, message_id = await world_with_message()
    async with world:
        operator, member = parties(world, "c1")
        fields = {"consumerGroup": "G_run", "clientId": "c1", "topic": "TapRun"}
        missing = f"{int(message_id, 16) + 7:032X}"
        answer = await operator.later(operator.send(DIRECTLY, fields | {"msgId": missing}))
        assert answer.code == 1
        assert "can not find message" in str(answer.remark)
        assert operator.request(DIRECTLY, fields).code == 29
        answer = operator.request(DIRECTLY, fields | {"msgId": "not hex"})
        assert answer.code == 1
        assert str(answer.remark).startswith(f"{request_code_name(DIRECTLY)}: ")
        assert member.pushed() == []


async def test_a_direct_consumption_without_client_goes_to_nobody() -> None:
    """As Apache's: no client of that name."""
    world, message_id = await world_with_message()
    async with world:
        operator, _ = parties(world, "c1")
        answer = operator.request(DIRECTLY, {"consumerGroup": "G_run", "msgId": message_id})
        assert (answer.code, answer.remark) == (1, "The Consumer <G_run> <> not online")


# -- offsets in memory -------------------------------------------------------------------------------------------------


def offsets_of(offset: int) -> bytes:
    return GetConsumerStatusBody(message_queue_table={MessageQueue("TapRun", "broker-a", 1): offset}).encode()


async def test_offsets_of_the_members_are_collected_as_recorded() -> None:
    """Under the client id, the keys bare."""
    apache = recorded(STATUS, RequestCode.GET_CONSUMER_STATUS_FROM_CLIENT)
    (client_id,) = GetConsumerStatusBody.decode(apache.answer.body).consumer_table
    async with World() as world:
        operator, member = parties(world, client_id)
        opaque = operator.send(STATUS, fields_of(apache.question))
        passed_on = await member.asked()
        assert passed_on.code == RequestCode.GET_CONSUMER_STATUS_FROM_CLIENT
        assert passed_on.ext_fields == apache.passed_on.ext_fields
        member.answer(passed_on, apache.told.code, body=apache.told.body)
        answer = await operator.later(opaque)
        assert (answer.code, answer.remark, answer.body) == (0, None, apache.answer.body)


async def test_members_that_do_not_tell_are_named() -> None:
    """A refusal, nonsense, a proxy's: the others' offsets are there all the same."""
    async with World() as world:
        operator, c1, c2, c3 = parties(world, "c1", "c2", "c3")
        world.broker.group_service.heartbeat(consumer_beat("c4", "G_run", "TapRun"), "a proxy's streams", "JAVA", 479)
        for member in (c1, c2, c3):
            member.pushed()
        opaque = operator.send(STATUS, {"topic": "TapRun", "group": "G_run", "clientAddr": ""})
        c1.answer(await c1.asked(), body=offsets_of(7))
        c2.answer(await c2.asked(), 1, remark="no")
        c3.answer(await c3.asked(), body=b"nonsense")
        answer = await operator.later(opaque)
        assert answer.code == 0
        assert GetConsumerStatusBody.decode(answer.body).consumer_table == {
            "c1": {MessageQueue("TapRun", "broker-a", 1): 7}
        }
        remark = str(answer.remark)
        assert "c2: it answered 1 no" in remark
        assert "c3: " in remark
        assert "c4: it is connected through a proxy" in remark


async def test_one_member_can_be_asked_for_its_offsets() -> None:
    """By its client id; one that is not there gives an empty table, as Apache's."""
    async with World() as world:
        operator, c1, c2 = parties(world, "c1", "c2")
        opaque = operator.send(STATUS, {"topic": "TapRun", "group": "G_run", "clientAddr": "c2"})
        c2.answer(await c2.asked(), body=offsets_of(7))
        assert list(GetConsumerStatusBody.decode((await operator.later(opaque)).body).consumer_table) == ["c2"]
        assert c1.pushed() == []
        nobody = operator.send(STATUS, {"topic": "TapRun", "group": "G_run", "clientAddr": "c9"})
        assert json.loads((await operator.later(nobody)).body) == {"consumerTable": {}, "messageQueueTable": {}}


async def test_a_group_without_members_has_no_offsets_in_memory() -> None:
    """1, in Apache's words."""
    async with World() as world:
        answer = world.client().request(STATUS, {"topic": "TapRun", "group": "G_run"})
        assert (answer.code, answer.remark) == (1, "No Any Consumer online in the consumer group: [G_run]")


async def test_a_group_larger_than_the_room_for_questions_is_refused() -> None:
    """2, and nobody is asked."""
    async with World(limits=LimitsConfig(client_calls_max=2)) as world:
        operator, c1, _, _ = parties(world, "c1", "c2", "c3")
        answer = operator.request(STATUS, {"topic": "TapRun", "group": "G_run"})
        assert answer.code == 2
        assert "0 in all, 3 more would be too many, the limit (limits.client_calls_max) is 2" in str(answer.remark)
        assert c1.pushed() == []
