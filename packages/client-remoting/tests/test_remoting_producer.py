"""The producer against scripted brokers: what is sent, and what it does about refusals and lost connections."""

import socket

import pytest
from apogeemq.client_api.errors import (
    ClientClosed,
    ConnectionBroken,
    MessageInvalid,
    RouteNotFound,
    SendFailed,
    SendTimeout,
    StartFailed,
)
from apogeemq.client_api.message import Message, SendReceipt
from apogeemq.client_api.middleware import Middleware, Send
from apogeemq.client_remoting import Producer, SendRetry
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.batch import decode_batch
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.compression import decompress
from apogeemq.remoting_codec.headers import SendMessageRequestHeaderV2
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.roles import NOT_MASTER
from scripted_cluster import ScriptedCluster, hang_up, refuse, stay_silent

SEND = RequestCode.SEND_MESSAGE_V2
MESSAGE = Message("T", b"body")


def first_send(cluster: ScriptedCluster, code: int = SEND) -> tuple[str, RemotingCommand]:
    """The broker and the command of the only send so far."""
    ((name, command),) = [(name, command) for name, broker in cluster.brokers.items() for command in broker.of(code)]
    return name, command


async def test_a_send_says_all_that_its_message_has(cluster: ScriptedCluster) -> None:
    """Header V2 with the properties string; the receipt says where the message lies and how consumers will call it."""
    message = Message("T", b"body", tag="a", keys=("k", "l"), properties={"colour": "red"}, delivery_timestamp_ms=5)
    async with Producer(cluster.namesrv.address, group="P") as producer:
        receipt = await producer.send(message)
    name, command = first_send(cluster)
    header = SendMessageRequestHeaderV2.decode(command.ext_fields)
    properties = decode_properties(header.properties or "")
    key = properties.pop("UNIQ_KEY")
    assert properties == {"TAGS": "a", "KEYS": "k l", "colour": "red", "TIMER_DELIVER_MS": "5"}
    assert (header.producer_group, header.topic, header.queue_id, header.broker_name) == ("P", "T", 0, name)
    assert (header.default_topic, header.default_topic_queue_nums) == ("TBW102", 4)
    assert (header.sys_flag, header.flag, header.reconsume_times, header.batch) == (0, 0, 0, False)
    assert command.body == b"body"
    assert receipt == SendReceipt(key, "T", name, 0, 7, "T")


async def test_sends_go_round_the_queues(cluster: ScriptedCluster) -> None:
    """Two each for two brokers with one queue each."""
    async with Producer(cluster.namesrv.address) as producer:
        for _ in range(4):
            await producer.send(MESSAGE)
    assert cluster.sends() == ["a", "a", "b", "b"]


async def test_large_bodies_are_compressed_when_asked(cluster: ScriptedCluster) -> None:
    """From the given size on, and only if that makes them smaller."""
    bodies = [b"x" * 99, b"x" * 100, bytes(range(100))]
    async with Producer(cluster.namesrv.address, compress_from_bytes=100) as producer:
        for body in bodies:
            await producer.send(Message("T", body))
    sent = {}
    for broker in cluster.brokers.values():
        for command in broker.of(SEND):
            sys_flag = SendMessageRequestHeaderV2.decode(command.ext_fields).sys_flag
            sent[decompress(command.body, sys_flag, 1000)] = sys_flag & 1
    assert sent == {bodies[0]: 0, bodies[1]: 1, bodies[2]: 0}


async def test_a_batch_is_one_request(cluster: ScriptedCluster) -> None:
    """Each message has a key of its own; the receipts count from the offset of the answer."""
    async with Producer(cluster.namesrv.address) as producer:
        receipts = await producer.send_batch([Message("T", b"1", tag="a"), Message("T", b"2")])
    name, command = first_send(cluster, RequestCode.SEND_BATCH_MESSAGE)
    assert SendMessageRequestHeaderV2.decode(command.ext_fields).batch is True
    first, second = decode_batch(command.body)
    assert (first.body, second.body) == (b"1", b"2")
    keys = [decode_properties(message.properties)["UNIQ_KEY"] for message in (first, second)]
    assert decode_properties(first.properties) == {"UNIQ_KEY": keys[0], "TAGS": "a", "WAIT": "true"}
    assert [(receipt.message_id, receipt.queue_offset) for receipt in receipts] == [(keys[0], 7), (keys[1], 8)]
    assert {receipt.broker_name for receipt in receipts} == {name}


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [Message("T", b"1"), Message("U", b"2")],
        [Message("T", b"1", delivery_timestamp_ms=1)],
        [Message("T", b"1", message_group="g"), Message("T", b"2")],
    ],
    ids=["none", "two topics", "delayed", "two groups"],
)
async def test_what_is_no_batch_is_refused(cluster: ScriptedCluster, messages: list[Message]) -> None:
    """Before anything is sent."""
    async with Producer(cluster.namesrv.address) as producer:
        with pytest.raises(MessageInvalid):
            await producer.send_batch(messages)
    assert cluster.sends() == []


# -- refusals and lost connections


@pytest.mark.parametrize("code", [1, 2, 14, 16, 17, 204, 205, 1500])
async def test_a_refusal_that_another_broker_may_not_share(cluster: ScriptedCluster, code: int) -> None:
    """The message goes to the other broker, and the caller learns nothing of it."""
    for broker in cluster.brokers.values():
        broker.script[SEND] = [refuse(code)]
    cluster.brokers["b"].script[SEND] = []
    cluster.brokers["a"].script[SEND] = [refuse(code), refuse(code)]
    async with Producer(cluster.namesrv.address) as producer:
        receipts = [await producer.send(MESSAGE) for _ in range(2)]
    assert [receipt.broker_name for receipt in receipts] == ["b", "b"]


@pytest.mark.parametrize("code", [10, 11, 12, 13])
async def test_a_refusal_that_is_final(cluster: ScriptedCluster, code: int) -> None:
    """A message that is illegal, or stored already, is not sent again."""
    for broker in cluster.brokers.values():
        broker.script[SEND] = [refuse(code, "reason")]
    async with Producer(cluster.namesrv.address) as producer:
        with pytest.raises(SendFailed) as caught:
            await producer.send(MESSAGE)
    assert (caught.value.code, caught.value.remark, caught.value.attempts) == (code, "reason", 1)
    assert caught.value.hint
    assert len(cluster.sends()) == 1


async def test_when_every_broker_refuses(cluster: ScriptedCluster) -> None:
    """Each was asked once; the error has the code's name for spans."""
    for broker in cluster.brokers.values():
        broker.usual[SEND] = refuse(16)
    async with Producer(cluster.namesrv.address) as producer:
        with pytest.raises(SendFailed) as caught:
            await producer.send(MESSAGE)
    assert (caught.value.code_name, caught.value.attempts) == ("NO_PERMISSION", 2)
    assert cluster.sends() == ["a", "b"]


async def test_a_lost_connection_is_tried_elsewhere(cluster: ScriptedCluster) -> None:
    """The message may be stored twice then; with retries=0 the caller is told instead."""
    for broker in cluster.brokers.values():
        broker.script[SEND] = [hang_up]
    async with Producer(cluster.namesrv.address) as producer:
        await producer.send(MESSAGE)
    assert len(cluster.sends()) == 3
    for broker in cluster.brokers.values():
        broker.script[SEND] = [hang_up]
    async with Producer(cluster.namesrv.address, retries=0) as producer:
        with pytest.raises(ConnectionBroken, match="cannot send to topic T") as caught:
            await producer.send(MESSAGE)
    assert caught.value.attempts == 1
    assert len(cluster.sends()) == 4


async def test_a_policy_may_not_retry_after_a_lost_connection(cluster: ScriptedCluster) -> None:
    """Refusals are still retried: nothing was stored then."""
    cluster.brokers["a"].script[SEND] = cluster.brokers["b"].script[SEND] = [refuse(16)]
    cluster.brokers["a"].usual[SEND] = cluster.brokers["b"].usual[SEND] = hang_up
    async with Producer(cluster.namesrv.address, retries=SendRetry(after_lost_connection=False)) as producer:
        with pytest.raises(ConnectionBroken) as caught:
            await producer.send(MESSAGE)
    assert caught.value.attempts == 2
    assert len(cluster.sends()) == 2


@pytest.mark.parametrize(("refusals", "sends"), [({13}, 2), (set[int](), 1)], ids=["named", "none"])
async def test_a_policy_names_the_refusals(cluster: ScriptedCluster, refusals: set[int], sends: int) -> None:
    """Other codes than the usual ones, or none; the queues are tried in turn."""
    for broker in cluster.brokers.values():
        broker.usual[SEND] = refuse(13)
    async with Producer(cluster.namesrv.address, retries=SendRetry(refusals=refusals)) as producer:
        with pytest.raises(SendFailed) as caught:
            await producer.send(MESSAGE)
    assert (caught.value.code, caught.value.attempts, len(cluster.sends())) == (13, sends, sends)


async def test_a_silent_broker(cluster: ScriptedCluster) -> None:
    """A time-out is final, and says that the message may have been stored."""
    for broker in cluster.brokers.values():
        broker.usual[SEND] = stay_silent
    async with Producer(cluster.namesrv.address) as producer:
        with pytest.raises(SendTimeout, match="may have been stored"):
            await producer.send(MESSAGE, timeout_s=0.05)
    assert len(cluster.sends()) == 1


async def test_a_broker_that_cannot_be_reached_costs_no_retry(cluster: ScriptedCluster) -> None:
    """Nothing was sent there."""
    await cluster.brokers["a"].stop()
    async with Producer(cluster.namesrv.address, retries=0) as producer:
        for _ in range(3):
            assert (await producer.send(MESSAGE)).broker_name == "b"


async def test_the_next_master_is_waited_for(cluster: ScriptedCluster) -> None:
    """Whoever is master no longer says so, and costs no retry; the route is asked for anew and names the next one."""
    old, new = cluster.brokers["a"], cluster.brokers.pop("b")
    no_master = refuse(ResponseCode.SERVICE_NOT_AVAILABLE, f"{NOT_MASTER}ask for the one that is")

    def refuse_and_hand_over(channel: Channel, command: RemotingCommand) -> Reply:
        if len(old.of(SEND)) == 2:
            cluster.brokers["a"] = new
        return no_master(channel, command)

    old.usual[SEND] = refuse_and_hand_over
    async with Producer(cluster.namesrv.address, retries=0) as producer:
        receipt = await producer.send(MESSAGE)
    assert receipt.broker_name == "a"
    assert (len(old.of(SEND)) >= 2, len(new.of(SEND))) == (True, 1)
    await old.stop()


async def test_when_no_broker_can_be_reached(cluster: ScriptedCluster) -> None:
    """The error says so after the whole time: a broker might have come back."""
    for broker in cluster.brokers.values():
        await broker.stop()
    async with Producer(cluster.namesrv.address) as producer:
        with pytest.raises(ConnectionBroken, match="cannot connect") as caught:
            await producer.send(MESSAGE, timeout_s=0.2)
    assert caught.value.attempts == 0
    assert "advertised address" in str(caught.value)


# -- routes


async def test_an_unknown_topic(cluster: ScriptedCluster) -> None:
    """Is told with what to do."""
    async with Producer(cluster.namesrv.address) as producer:
        with pytest.raises(RouteNotFound, match="autoCreateTopicEnable") as caught:
            await producer.send(Message("unknown", b"x"))
    assert (caught.value.topic, caught.value.code_name) == ("unknown", "TOPIC_NOT_EXIST")


async def test_a_topic_that_brokers_would_make(cluster: ScriptedCluster) -> None:
    """Borrows the queues of TBW102 until it has a route of its own."""
    cluster.topics.add("TBW102")
    async with Producer(cluster.namesrv.address) as producer:
        receipt = await producer.send(Message("new", b"x"))
    assert receipt.topic == "new"
    _, command = first_send(cluster)
    assert (command.ext_fields or {})["b"] == "new"


async def test_the_second_name_server_answers_for_the_first(cluster: ScriptedCluster) -> None:
    """Whichever is asked first."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]};{cluster.namesrv.address}"
        for _ in range(4):
            async with Producer(address) as producer:
                await producer.send(MESSAGE)
    assert len(cluster.sends()) == 4


async def test_no_name_server() -> None:
    """The start fails in its time, and says what to check."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        producer = Producer(f"127.0.0.1:{nobody.getsockname()[1]}", start_timeout_s=0.1)
        with pytest.raises(StartFailed, match="Check the address"):
            await producer.__aenter__()


# -- the producer itself


async def test_outside_async_with(cluster: ScriptedCluster) -> None:
    """Neither before nor after."""
    producer = Producer(cluster.namesrv.address)
    with pytest.raises(ClientClosed, match="async with"):
        await producer.send(MESSAGE)
    async with producer:
        await producer.send(MESSAGE)
    with pytest.raises(ClientClosed, match="async with"):
        await producer.send(MESSAGE)


async def test_it_says_hello_and_goodbye(cluster: ScriptedCluster) -> None:
    """A heartbeat before the first send to a broker, and an unregistration at the end."""
    async with Producer(cluster.namesrv.address, group="P") as producer:
        await producer.send(MESSAGE)
        client_id = producer.client_id
    name, _ = first_send(cluster)
    requests = cluster.brokers[name].requests
    assert [request.code for request in requests] == [34, 310, 35]
    assert cluster.members == [client_id]
    assert requests[-1].ext_fields == {"clientID": client_id, "producerGroup": "P"}


async def test_a_message_group_keeps_to_its_queue(cluster: ScriptedCluster) -> None:
    """And says so in its sharding key; a batch of one group too."""
    grouped = Message("T", b"x", message_group="g")
    async with Producer(cluster.namesrv.address) as producer:
        receipts = [await producer.send(grouped) for _ in range(4)]
        receipts += await producer.send_batch([grouped, grouped])
    (name,) = {receipt.broker_name for receipt in receipts}
    for command in cluster.brokers[name].of(SEND):
        properties = SendMessageRequestHeaderV2.decode(command.ext_fields).properties or ""
        assert decode_properties(properties.encode())["__SHARDINGKEY"] == "g"


@pytest.mark.parametrize(("code", "attempts"), [(16, 1), (2, 3)])
async def test_a_message_group_is_never_sent_elsewhere(cluster: ScriptedCluster, code: int, attempts: int) -> None:
    """A refusal that passes is tried again at the same broker, any other is told: elsewhere the order would be lost."""
    for broker in cluster.brokers.values():
        broker.usual[SEND] = refuse(code)
    async with Producer(cluster.namesrv.address) as producer:
        with pytest.raises(SendFailed) as caught:
            await producer.send(Message("T", b"x", message_group="g"))
    assert caught.value.attempts == attempts
    assert len(set(cluster.sends())) == 1


async def test_a_namespace_is_the_servers_business(cluster: ScriptedCluster) -> None:
    """Topic and group have it on the wire, as the message says in INSTANCE_ID; the receipt has the user's name."""
    cluster.topics = {"ns%T"}
    async with Producer(cluster.namesrv.address, group="P", namespace="ns") as producer:
        receipt = await producer.send(MESSAGE)
        (batched,) = await producer.send_batch([MESSAGE])
    commands = [command for broker in cluster.brokers.values() for code in (SEND, 320) for command in broker.of(code)]
    headers = [SendMessageRequestHeaderV2.decode(command.ext_fields) for command in commands]
    assert {(header.topic, header.producer_group) for header in headers} == {("ns%T", "ns%P")}
    (single,) = [header for header in headers if not header.batch]
    assert decode_properties(single.properties or "")["INSTANCE_ID"] == "ns"
    assert (receipt.topic, batched.topic) == ("T", "T")


async def test_a_topic_and_its_namespace_can_be_too_long(cluster: ScriptedCluster) -> None:
    """127 characters in all; nothing is sent."""
    async with Producer(cluster.namesrv.address, namespace="ns") as producer:
        for send in (producer.send(Message("t" * 125, b"b")), producer.send_batch([Message("t" * 125, b"b")])):
            with pytest.raises(MessageInvalid, match="128 characters"):
                await send
    assert cluster.sends() == []


async def test_middleware_runs_around_sends(cluster: ScriptedCluster) -> None:
    """It may send another message."""

    class Shouting(Middleware):
        async def on_send(self, message: Message, proceed: Send) -> SendReceipt:
            return await proceed(Message(message.topic, message.body.upper()))

    async with Producer(cluster.namesrv.address, middleware=[Shouting()]) as producer:
        await producer.send(MESSAGE)
    assert first_send(cluster)[1].body == b"BODY"


def test_impossible_arguments() -> None:
    """Are refused at once."""
    with pytest.raises(ValueError, match="retries"):
        Producer("127.0.0.1:1", retries=-1)
    with pytest.raises(ValueError, match="host:port"):
        Producer("nowhere")
