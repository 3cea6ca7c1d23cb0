"""Requests and replies: what is sent, who gets a reply, and what becomes of a request without one."""

import asyncio

import pytest
from apogeemq.client_api.errors import ClientClosed, LimitReached, NotSupported, ReplyTimeout, SendFailed
from apogeemq.client_api.message import Message, ReceivedMessage
from apogeemq.client_remoting import Producer
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.client_remoting.messages import received_message
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.headers import SendMessageRequestHeaderV2
from apogeemq.remoting_codec.headers.client_call import ReplyMessageRequestHeader
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.record import Record
from scripted_cluster import ScriptedCluster, refuse, stored, succeed

SEND = RequestCode.SEND_MESSAGE_V2
PUSH = RequestCode.PUSH_REPLY_MESSAGE_TO_CLIENT
REPLY = RequestCode.SEND_REPLY_MESSAGE_V2
HOST = b"\x7f\x00\x00\x01\x00\x00\x2a\x9f"


def properties_of(command: RemotingCommand) -> dict[str, str]:
    header = SendMessageRequestHeaderV2.decode(command.ext_fields)
    return decode_properties((header.properties or "").encode())


class Replier:
    """A broker's answer to a send that has the reply pushed at once; keeps what the requester says to that."""

    def __init__(self, correlation_id: str | None = None) -> None:
        self._correlation_id = correlation_id
        self.answers: list[asyncio.Task[RemotingCommand]] = []

    def __call__(self, channel: Channel, command: RemotingCommand) -> Reply:
        correlation_id = self._correlation_id or properties_of(command)["CORRELATION_ID"]
        header = ReplyMessageRequestHeader(
            producer_group="R",
            topic="c_REPLY_TOPIC",
            default_topic="TBW102",
            default_topic_queue_nums=4,
            queue_id=0,
            sys_flag=0,
            born_timestamp=5,
            flag=0,
            properties=f"CORRELATION_ID\x01{correlation_id}\x02MSG_TYPE\x01reply\x02mood\x01fine\x02",
            born_host="/10.0.0.1:5",
            store_host="/10.0.0.2:6",
            store_timestamp=6,
        )
        push = RemotingCommand(code=PUSH, ext_fields=header.encode(), body=b"re: " + command.body)
        self.answers.append(asyncio.ensure_future(channel.request(push, 5)))
        return stored(channel, command)


def with_replies(cluster: ScriptedCluster) -> Replier:
    cluster.topics.add("c_REPLY_TOPIC")
    replier = Replier()
    for broker in cluster.brokers.values():
        broker.usual[SEND] = replier
        broker.usual[REPLY] = succeed()
    return replier


async def test_a_request_gets_its_reply(cluster: ScriptedCluster) -> None:
    """With the replier's own properties; the broker hears that it arrived."""
    replier = with_replies(cluster)
    async with Producer(cluster.namesrv.address) as producer:
        replies = await asyncio.gather(*(producer.request(Message("T", b"%d" % number)) for number in range(5)))
        assert [(await answer).code for answer in replier.answers] == [0] * 5
    assert [reply.body for reply in replies] == [b"re: %d" % number for number in range(5)]
    assert (replies[0].properties, replies[0].born_timestamp_ms) == ({"mood": "fine"}, 5)
    assert replies[0].born_host == "10.0.0.1:5"


async def test_a_request_says_who_waits_and_for_how_long(cluster: ScriptedCluster) -> None:
    """And its sender is known at every broker of the cluster, since the reply may come over any."""
    with_replies(cluster)
    async with Producer(cluster.namesrv.address) as producer:
        await producer.request(Message("T", b"x"), timeout_s=7)
        client_id = producer.client_id
        assert all(broker.of(RequestCode.HEART_BEAT) for broker in cluster.brokers.values())
    (command,) = [command for broker in cluster.brokers.values() for command in broker.of(SEND)]
    properties = properties_of(command)
    assert (properties["REPLY_TO_CLIENT"], properties["TTL"]) == (client_id, "7000")


async def test_a_request_that_nobody_answers_ends(cluster: ScriptedCluster) -> None:
    """With its own error; a reply to something else is taken and dropped."""
    with_replies(cluster)
    stranger = Replier("stranger")
    for broker in cluster.brokers.values():
        broker.usual[SEND] = stranger
    async with Producer(cluster.namesrv.address) as producer:
        with pytest.raises(ReplyTimeout, match=r"no reply to a request in topic T within 0\.2 s"):
            await producer.request(Message("T", b"x"), timeout_s=0.2)
        assert [(await answer).code for answer in stranger.answers] == [0]
        assert len(producer._requests) == 0


async def test_requests_end_with_their_producer(cluster: ScriptedCluster) -> None:
    """At once, not at their time."""
    with_replies(cluster)
    for broker in cluster.brokers.values():
        broker.usual[SEND] = stored
    async with Producer(cluster.namesrv.address) as producer:
        waiting = asyncio.ensure_future(producer.request(Message("T", b"x"), timeout_s=60))
        while not any(broker.of(SEND) for broker in cluster.brokers.values()):  # noqa: ASYNC110 — sockets set no event
            await asyncio.sleep(0)
    with pytest.raises(ClientClosed):
        await waiting


async def test_too_many_requests_are_refused(cluster: ScriptedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limit, before anything is sent."""
    monkeypatch.setattr("apogeemq.client_remoting.requests.REQUESTS_MAX", 0)
    with_replies(cluster)
    async with Producer(cluster.namesrv.address) as producer:
        with pytest.raises(LimitReached, match="0 requests wait for their replies, the limit is 0"):
            await producer.request(Message("T", b"x"))
    assert cluster.sends() == []


async def test_a_reply_that_cannot_be_read_is_told_to_the_broker(cluster: ScriptedCluster) -> None:
    """So that the replier hears of it."""
    async with Producer(cluster.namesrv.address) as producer:
        answer = producer._requests.take_reply(None, RemotingCommand(code=PUSH, ext_fields={}))  # type: ignore[arg-type]  # not looked at
        assert b"the reply is damaged: the field <producerGroup> is missing" in bytes(answer)  # type: ignore[arg-type]  # one buffer


def request_message(properties: str) -> ReceivedMessage:
    record = Record(
        topic="T",
        queue_id=1,
        queue_offset=2,
        physical_offset=3,
        born_timestamp_ms=4,
        born_host=HOST,
        store_timestamp_ms=5,
        store_host=HOST,
        body=b"question",
        properties=properties.encode(),
    )
    return received_message(record, "G", MessageQueue("T", "b", 1), ProcessQueue(0, is_committed=True))


WANTS_REPLY = "CORRELATION_ID\x01id-7\x02REPLY_TO_CLIENT\x01client-7\x02TTL\x013000\x02CLUSTER\x01c\x02"


async def test_a_reply_goes_back_over_the_broker_of_the_request(cluster: ScriptedCluster) -> None:
    """To the cluster's reply topic, with what names the request."""
    with_replies(cluster)
    async with Producer(cluster.namesrv.address) as producer:
        await producer.reply(request_message(WANTS_REPLY), b"answer", properties={"mood": "fine"})
    (command,) = cluster.brokers["b"].of(REPLY)
    header = SendMessageRequestHeaderV2.decode(command.ext_fields)
    assert (header.topic, header.queue_id, command.body) == ("c_REPLY_TOPIC", 0, b"answer")
    properties = properties_of(command)
    properties.pop("UNIQ_KEY")
    assert properties == {
        "CORRELATION_ID": "id-7",
        "REPLY_TO_CLIENT": "client-7",
        "TTL": "3000",
        "MSG_TYPE": "reply",
        "WAIT": "true",
        "mood": "fine",
    }


async def test_a_requester_that_is_gone_is_told(cluster: ScriptedCluster) -> None:
    """With the broker's remark, and without a second attempt."""
    with_replies(cluster)
    cluster.brokers["b"].usual[REPLY] = refuse(1, "push reply message fail, channel of <client-7> not found.")
    async with Producer(cluster.namesrv.address) as producer:
        with pytest.raises(SendFailed, match="channel of <client-7> not found"):
            await producer.reply(request_message(WANTS_REPLY), b"answer")
    assert len(cluster.brokers["b"].of(REPLY)) == 1


async def test_an_ordinary_message_wants_no_reply(cluster: ScriptedCluster) -> None:
    """Nothing is sent."""
    async with Producer(cluster.namesrv.address) as producer:
        with pytest.raises(NotSupported, match="is no request"):
            await producer.reply(request_message("UNIQ_KEY\x01k\x02"), b"answer")
