"""Transactions and recalls against scripted brokers, held against what a recorded Java client says and is asked."""

import asyncio
import json
import pathlib
from collections.abc import Awaitable, Callable

import pytest
from apogeemq.client_api.errors import (
    ConnectionBroken,
    EndTransactionFailed,
    MessageInvalid,
    NotSupported,
    RecallFailed,
    SendTimeout,
)
from apogeemq.client_api.message import Message, ReceivedMessage, SendReceipt
from apogeemq.client_api.middleware import Middleware, Send
from apogeemq.client_api.transactions import Resolution
from apogeemq.client_remoting import Producer, transacting
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.codes import ONEWAY_FLAG, RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import LENGTH_SIZE_BYTES, decode_frame, encode_frame, encode_response_frame
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.message_id import RecallHandle, encode_recall_handle
from apogeemq.remoting_codec.record import decode_record
from scripted_cluster import Answer, ScriptedCluster, hang_up, refuse, stay_silent, succeed

SEND, END, CHECK, RECALL = (
    RequestCode.SEND_MESSAGE_V2,
    RequestCode.END_TRANSACTION,
    RequestCode.CHECK_TRANSACTION_STATE,
    RequestCode.RECALL_MESSAGE,
)
RECORDING = pathlib.Path(__file__).parents[2] / "broker" / "tests" / "vectors" / "transaction.jsonl"
TOPIC, GROUP = "TapTrans", "P_trans"
HANDLE = encode_recall_handle(RecallHandle("T", "a", 1_800_000_000_000, "K"))


def recorded(code: int) -> list[RemotingCommand]:
    """What the recorded client and broker sent with this code."""
    lines = [json.loads(line) for line in RECORDING.read_text().splitlines()]
    commands = [decode_frame(bytes.fromhex(line["hex"])[LENGTH_SIZE_BYTES:]) for line in lines]
    return [command for command in commands if command.code == code and not command.is_response]


def fields_of(command: RemotingCommand) -> dict[str, str]:
    return dict(command.ext_fields or {})


def stored_at(message_id: str, queue_offset: str) -> Answer:
    """A half message's success."""

    def answer(_channel: Channel, command: RemotingCommand) -> Reply:
        fields = {"msgId": message_id, "queueId": "0", "queueOffset": queue_offset, "transactionId": "T"}
        return encode_response_frame(command.opaque, ResponseCode.SUCCESS, fields)

    return answer


async def unsure(_message: ReceivedMessage) -> Resolution:
    return Resolution.UNKNOWN


def with_transactions(cluster: ScriptedCluster) -> None:
    """Its brokers take half messages, as the recorded one did, and ends."""
    cluster.topics.add(TOPIC)
    for broker in cluster.brokers.values():
        broker.usual[SEND] = stored_at("7F000002000051AF000000000000546D", "0")
        broker.usual[END] = succeed()


def of_brokers(cluster: ScriptedCluster, code: int) -> list[RemotingCommand]:
    return [command for broker in cluster.brokers.values() for command in broker.of(code)]


async def until(is_true: Callable[[], object]) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while not is_true():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0)


# -- a transaction's way -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
async def test_half_message_and_end_are_those_of_java(cluster: ScriptedCluster, number: int) -> None:
    """The same fields with the same values, of a commit and of a rollback; ours waits for an answer to the end."""
    with_transactions(cluster)
    theirs, their_end = recorded(SEND)[number], recorded(END)[number]
    physical_offset, queue_offset = (fields_of(their_end)[name] for name in ("commitLogOffset", "tranStateTableOffset"))
    for broker in cluster.brokers.values():
        broker.usual[SEND] = stored_at(f"7F000002000051AF{int(physical_offset):016X}", queue_offset)
    async with Producer(cluster.namesrv.address, group=GROUP, checker=unsure) as producer:
        transaction = producer.transaction(Message(TOPIC, bytes(theirs.body)))
        receipt = await transaction.begin()
        await (transaction.commit() if number == 0 else transaction.rollback())
    (half,), (end,) = of_brokers(cluster, SEND), of_brokers(cluster, END)
    sent, java = (decode_properties(fields_of(one)["i"]) for one in (half, theirs))
    assert {name: sent[name] for name in ("TRAN_MSG", "PGROUP")} == {
        name: java[name] for name in ("TRAN_MSG", "PGROUP")
    }
    assert (fields_of(half)["a"], fields_of(half)["f"]) == (fields_of(theirs)["a"], fields_of(theirs)["f"])
    ids = dict.fromkeys(("msgId", "transactionId"), receipt.message_id)
    assert fields_of(end) == fields_of(their_end) | ids | {"bname": receipt.broker_name}
    assert not end.is_oneway


async def test_a_refused_end_can_be_told_again(cluster: ScriptedCluster) -> None:
    """It stays pending, with the broker's reason."""
    with_transactions(cluster)
    for broker in cluster.brokers.values():
        broker.script[END] = [refuse(ResponseCode.SYSTEM_ERROR, "the half message is gone")]
    async with Producer(cluster.namesrv.address, checker=unsure) as producer:
        transaction = producer.transaction(Message(TOPIC, b"x"))
        await transaction.begin()
        with pytest.raises(EndTransactionFailed, match=r"commit of message .* was refused: the half message is gone"):
            await transaction.commit()
        assert transaction.is_pending
        await transaction.commit()
        assert not transaction.is_pending


@pytest.mark.parametrize(("answer", "error"), [(stay_silent, SendTimeout), (hang_up, ConnectionBroken)])
async def test_an_end_without_answer_is_an_error(
    cluster: ScriptedCluster, answer: Answer, error: type[Exception]
) -> None:
    """The message may or may not be committed; it is not tried again unasked."""
    with_transactions(cluster)
    for broker in cluster.brokers.values():
        broker.usual[END] = answer
    async with Producer(cluster.namesrv.address, checker=unsure) as producer:
        transaction = producer.transaction(Message(TOPIC, b"x"), timeout_s=0.2)
        await transaction.begin()
        with pytest.raises(error):
            await transaction.commit()
        assert transaction.is_pending
    assert len(of_brokers(cluster, END)) == 1


async def test_no_transaction_without_a_checker(cluster: ScriptedCluster) -> None:
    """Nobody could be asked."""
    async with Producer(cluster.namesrv.address) as producer:
        with pytest.raises(NotSupported, match="no checker"):
            producer.transaction(Message(TOPIC, b"x"))


async def test_middleware_sees_half_messages(cluster: ScriptedCluster) -> None:
    """What it sends twice is ended twice."""
    with_transactions(cluster)

    class Twice(Middleware):
        async def on_send(self, message: Message, proceed: Send) -> SendReceipt:
            await proceed(message)
            return await proceed(message)

    async with (
        Producer(cluster.namesrv.address, checker=unsure, middleware=[Twice()]) as producer,
        producer.transaction(Message(TOPIC, b"x")),
    ):
        pass
    assert len(of_brokers(cluster, SEND)) == len(of_brokers(cluster, END)) == 2


# -- questions ---------------------------------------------------------------------------------------------------------


def ask_when_greeted(cluster: ScriptedCluster, question: RemotingCommand, times: int = 1) -> None:
    """Broker a asks so often, as soon as it knows who is there."""
    broker = cluster.brokers["a"]
    usual = broker.usual[RequestCode.HEART_BEAT]

    def greet(channel: Channel, command: RemotingCommand) -> Reply:
        reply = usual(channel, command)
        for _ in range(times):
            asyncio.get_running_loop().call_soon(channel.write, encode_frame(question))
        return reply

    broker.script[RequestCode.HEART_BEAT] = [greet]


@pytest.mark.parametrize(
    ("resolution", "flag"), [(Resolution.COMMIT, "8"), (Resolution.ROLLBACK, "12"), (Resolution.UNKNOWN, "0")]
)
async def test_a_recorded_question_is_answered(cluster: ScriptedCluster, resolution: Resolution, flag: str) -> None:
    """By a producer that has sent nothing: the checker gets the message, the broker a oneway end for that half."""
    with_transactions(cluster)
    (question,) = recorded(CHECK)
    ask_when_greeted(cluster, question)
    seen: list[ReceivedMessage] = []

    async def check(message: ReceivedMessage) -> Resolution:
        seen.append(message)
        return resolution

    async with Producer(cluster.namesrv.address, group=GROUP, topics=[TOPIC], checker=check):
        await until(lambda: cluster.brokers["a"].of(END))
    (end,) = cluster.brokers["a"].of(END)
    asked, record = fields_of(question), decode_record(question.body)
    assert end.flag & ONEWAY_FLAG
    assert fields_of(end) == {
        "topic": record.topic,
        "producerGroup": GROUP,
        "tranStateTableOffset": asked["tranStateTableOffset"],
        "commitLogOffset": asked["commitLogOffset"],
        "commitOrRollback": flag,
        "fromTransactionCheck": "true",
        "msgId": asked["msgId"],
        "transactionId": asked["transactionId"],
        "bname": asked["bname"],
    }
    (message,) = seen
    assert (message.message_id, message.body, message.topic) == (asked["msgId"], record.body, record.topic)


async def test_a_question_for_another_group_is_not_answered(
    cluster: ScriptedCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Its checker may know nothing of it: with a line in the log."""
    with_transactions(cluster)
    (question,) = recorded(CHECK)
    ask_when_greeted(cluster, question)
    async with Producer(cluster.namesrv.address, group="other", topics=[TOPIC], checker=answer_with(Resolution.COMMIT)):
        await until(lambda: f"asks group other about a transaction of group {GROUP}" in caplog.text)
    assert of_brokers(cluster, END) == []


def answer_with(resolution: Resolution) -> Callable[[ReceivedMessage], Awaitable[Resolution]]:
    async def check(_message: ReceivedMessage) -> Resolution:
        return resolution

    return check


async def test_questions_beyond_the_limit_wait_to_be_asked_again(
    cluster: ScriptedCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two at a time here: the third is dropped, with a line in the log."""
    monkeypatch.setattr(transacting, "CHECKS_MAX", 2)
    with_transactions(cluster)
    ask_when_greeted(cluster, recorded(CHECK)[0], times=3)
    go_on = asyncio.Event()

    async def check(_message: ReceivedMessage) -> Resolution:
        await go_on.wait()
        return Resolution.COMMIT

    async with Producer(cluster.namesrv.address, group=GROUP, topics=[TOPIC], checker=check):
        await until(lambda: "2 transactions are asked about at once" in caplog.text)
        go_on.set()
        await until(lambda: len(cluster.brokers["a"].of(END)) == 2)


async def test_a_question_that_cannot_be_read_is_passed_over(
    cluster: ScriptedCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """With a line in the log."""
    with_transactions(cluster)
    (question,) = recorded(CHECK)
    ask_when_greeted(cluster, RemotingCommand(CHECK, ONEWAY_FLAG, ext_fields=fields_of(question), body=b"no record"))
    async with Producer(cluster.namesrv.address, group=GROUP, topics=[TOPIC], checker=unsure):
        await until(lambda: "cannot be read" in caplog.text)
    assert of_brokers(cluster, END) == []


async def test_it_comes_back_to_a_broker_by_itself(cluster: ScriptedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one that was restarted can ask; a producer without a checker does not."""
    monkeypatch.setattr(transacting, "KNOWN_INTERVAL_S", 0.01)
    with_transactions(cluster)
    broker = cluster.brokers["a"]
    port = int(broker.address.rpartition(":")[2])
    async with Producer(cluster.namesrv.address, group=GROUP, topics=[TOPIC], checker=unsure):
        assert len(broker.of(RequestCode.HEART_BEAT)) == 1
        await broker.stop()
        await broker.restart(port)
        await until(lambda: len(broker.of(RequestCode.HEART_BEAT)) == 2)


# -- delays and recalls ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "name", "value"),
    [
        (Message("T", b"x", delay_ms=1_500), "TIMER_DELAY_MS", "1500"),
        (Message("T", b"x", delay_ms=0), "TIMER_DELAY_MS", "0"),
        (Message("T", b"x", delay_level=3), "DELAY", "3"),
        (Message("T", b"x", delivery_timestamp_ms=1_800_000_000_000), "TIMER_DELIVER_MS", "1800000000000"),
    ],
)
async def test_when_to_deliver_is_a_property(cluster: ScriptedCluster, message: Message, name: str, value: str) -> None:
    """One of three (reference broker_behaviour.md §3); the handle to take it back is in the receipt."""
    for broker in cluster.brokers.values():
        answer = {"msgId": "M", "queueId": "0", "queueOffset": "7", "transactionId": "T", "recallHandle": HANDLE}
        broker.usual[SEND] = succeed(answer)
    async with Producer(cluster.namesrv.address) as producer:
        receipt = await producer.send(message)
        with pytest.raises(MessageInvalid, match="cannot be set in a batch"):
            await producer.send_batch([message])
    (sent,) = of_brokers(cluster, SEND)
    properties = decode_properties(fields_of(sent)["i"])
    assert {key: properties[key] for key in properties if key != "UNIQ_KEY"} == {name: value}
    assert receipt.recall_handle == HANDLE


async def test_a_recall_goes_to_the_broker_in_its_handle(cluster: ScriptedCluster) -> None:
    """And gives the message's id."""
    for broker in cluster.brokers.values():
        broker.usual[RECALL] = succeed({"msgId": "K"})
    async with Producer(cluster.namesrv.address, group=GROUP) as producer:
        assert await producer.recall("T", HANDLE) == "K"
    (command,) = cluster.brokers["a"].of(RECALL)
    assert fields_of(command) == {"producerGroup": GROUP, "topic": "T", "recallHandle": HANDLE, "bname": "a"}


async def test_what_is_wrong_with_a_recall_is_told(cluster: ScriptedCluster) -> None:
    """No handle; a refusal with its reason; no answer; a broker that is in no route."""
    broker = cluster.brokers["a"]
    broker.script[RECALL] = [refuse(ResponseCode.ILLEGAL_OPERATION, "too late"), stay_silent]
    async with Producer(cluster.namesrv.address) as producer:
        with pytest.raises(MessageInvalid, match="recall_handle"):
            await producer.recall("T", "")
        with pytest.raises(RecallFailed, match="did not take back a message of topic T: too late") as failed:
            await producer.recall("T", HANDLE)
        assert failed.value.code == ResponseCode.ILLEGAL_OPERATION
        with pytest.raises(SendTimeout, match="no answer to the recall"):
            await producer.recall("T", HANDLE, timeout_s=0.1)
        elsewhere = encode_recall_handle(RecallHandle("T", "nowhere", 1_800_000_000_000, "K"))
        with pytest.raises(ConnectionBroken, match="nowhere"):
            await producer.recall("T", elsewhere)
