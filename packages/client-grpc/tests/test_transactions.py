"""Transactions against a scripted proxy: half messages, their ends, and the server's questions."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from apogeemq.client_api.errors import (
    ClientClosed,
    ConnectionBroken,
    EndTransactionFailed,
    MessageInvalid,
    NotSupported,
    SendFailed,
    SendTimeout,
)
from apogeemq.client_api.message import ReceivedMessage, SendReceipt
from apogeemq.client_api.middleware import Middleware
from apogeemq.client_api.transactions import CHECK_TIMEOUT_S
from apogeemq.client_grpc import Message, Producer, Resolution
from apogeemq.client_grpc.session import COMMAND_WAIT_S, COMMANDS_AT_ONCE_MAX
from apogeemq.proto.v2 import definition_pb2 as d
from apogeemq.proto.v2 import service_pb2 as s
from passing_time import PassingTime
from scripted_proxy import ScriptedProxy, until

COMMIT, ROLLBACK = d.TransactionResolution.COMMIT, d.TransactionResolution.ROLLBACK
BY_CLIENT, BY_CHECK = d.TransactionSource.SOURCE_CLIENT, d.TransactionSource.SOURCE_SERVER_CHECK


class Ledger:
    """A checker that notes what it is asked, and answers what it is told to."""

    def __init__(self, answer: Resolution = Resolution.UNKNOWN) -> None:
        self.asked: list[ReceivedMessage] = []
        self.answer = answer

    async def __call__(self, message: ReceivedMessage) -> Resolution:
        self.asked.append(message)
        return self.answer


def half(number: int = 0) -> d.Message:
    """A half message as a server asks about it."""
    system = d.SystemProperties(message_id=f"M{number}", message_type=d.MessageType.TRANSACTION, keys=["k"])
    return d.Message(topic=d.Resource(name="T"), body=b"body", user_properties={"order": "7"}, system_properties=system)


def ends(proxy: ScriptedProxy) -> list[tuple[str, d.TransactionResolution, d.TransactionSource]]:
    return [(each.transaction_id, each.resolution, each.source) for each in proxy.requests("EndTransaction")]


async def test_a_block_without_an_error_commits(proxy: ScriptedProxy) -> None:
    """A half message first, which nobody sees; then its end, by everything that names it."""
    async with Producer(proxy.address, checker=Ledger()) as producer:
        async with producer.transaction(Message("T", b"body", tag="t", keys=("k",))) as transaction:
            assert proxy.held == []
            (message,) = proxy.requests("SendMessage")[0].messages
            assert message.system_properties.message_type == d.MessageType.TRANSACTION
            assert transaction.receipt.transaction_id in proxy.halves
        assert [held.message.body for held in proxy.held] == [b"body"]
    (request,) = proxy.requests("EndTransaction")
    receipt = transaction.receipt
    assert (request.topic.name, request.message_id) == ("T", receipt.message_id)
    assert ends(proxy) == [(receipt.transaction_id, COMMIT, BY_CLIENT)]


async def test_a_rollback_drops_the_message(proxy: ScriptedProxy) -> None:
    """In the block, or by hand; nothing is ended twice."""
    async with Producer(proxy.address, checker=Ledger()) as producer:
        async with producer.transaction(Message("T", b"1")) as first:
            await first.rollback()
        second = producer.transaction(Message("T", b"2"))
        await second.begin()
        await second.rollback()
    assert [resolution for _, resolution, _ in ends(proxy)] == [ROLLBACK, ROLLBACK]
    assert (proxy.held, proxy.halves) == ([], {})


async def test_an_error_out_of_the_block_leaves_it_to_the_checker(proxy: ScriptedProxy) -> None:
    """Nothing is ended; the server's question is answered by what the checker finds, to the proxy that asked."""
    ledger = Ledger(Resolution.COMMIT)
    async with Producer(proxy.address, checker=ledger) as producer:
        with pytest.raises(LookupError):
            async with producer.transaction(Message("T", b"body", properties={"order": "7"})) as transaction:
                raise LookupError("was it stored?")
        assert ends(proxy) == []
        identifier = transaction.receipt.transaction_id
        await proxy.ask_about(identifier, proxy.halves[identifier])
        await until(lambda: proxy.held)
    (asked,) = ledger.asked
    assert (asked.message_id, asked.topic, asked.body) == (transaction.receipt.message_id, "T", b"body")
    assert asked.properties["order"] == "7"
    assert ends(proxy) == [(identifier, COMMIT, BY_CHECK)]


async def test_a_producer_is_asked_about_what_others_began(proxy: ScriptedProxy) -> None:
    """It names its topics from the start; a checker that blocks runs in a thread."""

    def look_up(message: ReceivedMessage) -> Resolution:
        return Resolution.ROLLBACK if message.keys == ("k",) else Resolution.UNKNOWN

    proxy.halves["of a dead process"] = half()
    async with Producer(proxy.address, topics=["T"], checker=look_up):
        settings = proxy.requests("Telemetry")[0].settings
        assert [topic.name for topic in settings.publishing.topics] == ["T"]
        await proxy.ask_about("of a dead process", half())
        await until(lambda: not proxy.halves)
    assert ends(proxy) == [("of a dead process", ROLLBACK, BY_CHECK)]


@pytest.mark.parametrize("answer", [Resolution.UNKNOWN, None, LookupError("database")], ids=str)
async def test_who_does_not_know_says_nothing(
    proxy: ScriptedProxy, caplog: pytest.LogCaptureFixture, answer: Resolution | Exception | None
) -> None:
    """Nor who fails, or answers something else; the next question is put to the checker again."""
    answers = [answer, Resolution.COMMIT]

    async def check(message: ReceivedMessage) -> Resolution:
        said = answers.pop(0)
        if isinstance(said, Exception):
            raise said
        return said  # type: ignore[return-value]  # what is tried

    proxy.halves["x"] = half()
    async with Producer(proxy.address, topics=["T"], checker=check):
        await proxy.ask_about("x", half())
        await until(lambda: len(answers) == 1)
        await proxy.ask_about("x", half())
        await until(lambda: proxy.held)
    assert len(ends(proxy)) == 1
    assert ("stays pending" in caplog.text) == (answer is not Resolution.UNKNOWN)


async def test_without_a_checker_questions_stay_open(proxy: ScriptedProxy, caplog: pytest.LogCaptureFixture) -> None:
    """Saying nothing leaves the outcome to another producer; transactions of its own are refused."""
    async with Producer(proxy.address, topics=["T"]) as producer:
        await proxy.ask_about("x", half())
        await until(lambda: "message M0 of topic T ended: this producer has no checker" in caplog.text)
        with pytest.raises(NotSupported, match="checker"):
            producer.transaction(Message("T", b"body"))
    assert ends(proxy) == []


async def test_a_corrupted_question_stays_open(proxy: ScriptedProxy, caplog: pytest.LogCaptureFixture) -> None:
    """The checker is not asked about what is not the message."""
    ledger = Ledger(Resolution.COMMIT)
    damaged = half()
    damaged.system_properties.body_digest.CopyFrom(d.Digest(type=d.DigestType.CRC32, checksum="1"))
    async with Producer(proxy.address, topics=["T"], checker=ledger):
        await proxy.ask_about("x", damaged)
        await until(lambda: "M0, which is corrupted" in caplog.text)
    assert (ledger.asked, ends(proxy)) == ([], [])


async def test_a_slow_checker_has_not_answered(
    proxy: ScriptedProxy, time: PassingTime, caplog: pytest.LogCaptureFixture
) -> None:
    """After CHECK_TIMEOUT_S it is cancelled: the server asks again by then."""
    asked = asyncio.Event()

    async def never(message: ReceivedMessage) -> Resolution:
        asked.set()
        await asyncio.Event().wait()
        return Resolution.COMMIT

    async with Producer(proxy.address, topics=["T"], checker=never, clock=time.clock):
        await proxy.ask_about("x", half())
        await asked.wait()
        await time.pass_by(CHECK_TIMEOUT_S + 1)
        assert f"more than {CHECK_TIMEOUT_S:g} s for message M0" in caplog.text
    assert ends(proxy) == []


async def test_so_many_checks_at_once_and_no_more(proxy: ScriptedProxy) -> None:
    """The others wait unread, where the proxy sees them; none is lost."""
    running, most = 0, 0
    go_on = asyncio.Event()

    async def slow(message: ReceivedMessage) -> Resolution:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go_on.wait()
        running -= 1
        return Resolution.COMMIT

    count = 2 * COMMANDS_AT_ONCE_MAX + 1
    proxy.halves = {f"t{number}": half(number) for number in range(count)}
    async with Producer(proxy.address, topics=["T"], checker=slow):
        for number in range(count):
            await proxy.ask_about(f"t{number}", half(number))
        await until(lambda: running == COMMANDS_AT_ONCE_MAX)
        go_on.set()
        await until(lambda: len(proxy.held) == count)
    assert most == COMMANDS_AT_ONCE_MAX
    assert COMMAND_WAIT_S >= CHECK_TIMEOUT_S  # so that there is room again before a question would be dropped


async def test_a_restarted_proxy_asks_again(proxy: ScriptedProxy) -> None:
    """The new stream names the topics too, those of transactions among them."""
    ledger = Ledger(Resolution.COMMIT)
    async with Producer(proxy.address, checker=ledger) as producer:
        transaction = producer.transaction(Message("T", b"body"))
        receipt = await transaction.begin()
        await proxy.stop()
        await proxy.start()
        await until(lambda: proxy.streams)
        sent = proxy.requests("Telemetry")[-1].settings
        assert [topic.name for topic in sent.publishing.topics] == ["T"]
        await proxy.ask_about(receipt.transaction_id, proxy.halves[receipt.transaction_id])
        await until(lambda: proxy.held)
    assert len(ledger.asked) == 1


async def test_a_transaction_is_ended_where_it_began_or_was_asked_about(proxy: ScriptedProxy) -> None:
    """Another proxy of the route may not know it: Apache's remembers what it gave out itself, and tells nobody."""
    async with ScriptedProxy() as other:
        place = d.Endpoints(scheme=d.AddressScheme.IPv4, addresses=[d.Address(host="127.0.0.1", port=other.port)])
        proxy.route_to = place
        async with Producer(proxy.address, checker=Ledger(Resolution.ROLLBACK)) as producer:
            async with producer.transaction(Message("T", b"body")):
                pass
            proxy.halves["asked by the first"] = half(1)
            other.halves["asked by the other"] = half(2)
            await proxy.ask_about("asked by the first", half(1))
            await other.ask_about("asked by the other", half(2))
            await until(lambda: not proxy.halves and not other.halves)
    assert [held.message.body for held in other.held] == [b"body"]
    assert [(resolution, source) for _, resolution, source in ends(other)] == [
        (COMMIT, BY_CLIENT),
        (ROLLBACK, BY_CHECK),
    ]
    assert ends(proxy) == [("asked by the first", ROLLBACK, BY_CHECK)]


async def test_an_end_that_may_pass_is_tried_again(proxy: ScriptedProxy) -> None:
    """By the server's policy; a transaction is ended once however often it is said."""
    proxy.faults["EndTransaction"].extend([d.Status(code="PROXY_TIMEOUT"), d.Status(code="TOO_MANY_REQUESTS")])
    async with Producer(proxy.address, checker=Ledger()) as producer, producer.transaction(Message("T", b"body")):
        pass
    assert len(ends(proxy)) == 3
    assert len(proxy.held) == 1


async def test_a_refused_end_says_why_and_may_be_repeated(proxy: ScriptedProxy) -> None:
    """The transaction counts as pending until an end got through."""
    proxy.faults["EndTransaction"].append(d.Status(code="INVALID_TRANSACTION_ID", message="not pending any more"))
    async with Producer(proxy.address, checker=Ledger()) as producer:
        transaction = producer.transaction(Message("T", b"body"))
        receipt = await transaction.begin()
        with pytest.raises(EndTransactionFailed, match=r"commit of message .* of topic T was refused") as failure:
            await transaction.commit()
        assert (failure.value.code_name, failure.value.attempts) == ("INVALID_TRANSACTION_ID", 1)
        assert transaction.is_pending
        await transaction.commit()
    assert ends(proxy) == [(receipt.transaction_id, COMMIT, BY_CLIENT)] * 2


async def test_an_end_has_the_transactions_time(proxy: ScriptedProxy) -> None:
    """After it, whether the message will be delivered is not known: the checker may be asked."""

    async def never(request: s.EndTransactionRequest) -> None:
        await asyncio.Event().wait()

    proxy.before["EndTransaction"] = never
    async with Producer(proxy.address, checker=Ledger()) as producer:
        transaction = producer.transaction(Message("T", b"body"), timeout_s=0.3)
        await transaction.begin()
        with pytest.raises(SendTimeout, match=r"not done within 0\.3 s"):
            await transaction.commit()
        assert transaction.is_pending
    with pytest.raises(ClientClosed):
        await transaction.commit()


async def test_a_half_message_is_sent_twice_only_when_it_was_not_stored(proxy: ScriptedProxy) -> None:
    """A second one would be a second transaction, about which the checker were asked without anybody knowing it."""
    proxy.faults["SendMessage"].append(d.Status(code="TOO_MANY_REQUESTS"))
    async with Producer(proxy.address, checker=Ledger()) as producer:
        async with producer.transaction(Message("T", b"1")):
            assert len(proxy.requests("SendMessage")) == 2
        proxy.faults["SendMessage"].append(d.Status(code="PROXY_TIMEOUT"))
        with pytest.raises(SendFailed, match="topic T did not take the message") as failure:
            await producer.transaction(Message("T", b"2")).begin()
    assert (failure.value.code_name, failure.value.attempts) == ("PROXY_TIMEOUT", 1)


async def test_a_half_message_whose_answer_was_lost_is_not_sent_again(proxy: ScriptedProxy) -> None:
    """Be the connection lost or the proxy gone: the outcome is unknown."""
    arrived = asyncio.Event()

    async def hold(request: s.SendMessageRequest) -> None:
        arrived.set()
        await asyncio.Event().wait()

    proxy.before["SendMessage"] = hold
    async with Producer(proxy.address, checker=Ledger()) as producer:
        beginning = asyncio.create_task(producer.transaction(Message("T", b"body")).begin())
        await arrived.wait()
        await proxy.stop()
        with pytest.raises(ConnectionBroken):
            await beginning
        await proxy.start()
    assert len(proxy.requests("SendMessage")) == 1


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"message_group": "g"}, "message_group"),
        ({"delay_ms": 5}, "delay_ms"),
        ({"delivery_timestamp_ms": 5}, "delivery_timestamp_ms"),
        ({"delay_level": 5}, "delay_level"),
    ],
)
async def test_a_half_message_is_neither_grouped_nor_delayed(
    proxy: ScriptedProxy, more: dict[str, object], field: str
) -> None:
    """Refused before anything is sent, also when it is middleware that makes it so."""

    class Changing(Middleware):
        async def on_send(self, message: Message, proceed: Callable[[Message], Awaitable[SendReceipt]]) -> SendReceipt:
            return await proceed(Message("T", b"changed", **more))  # type: ignore[arg-type]  # the values are tried

    async with Producer(proxy.address, checker=Ledger(), middleware=[Changing()]) as producer:
        with pytest.raises(MessageInvalid) as refused:
            producer.transaction(Message("T", b"body", **more))  # type: ignore[arg-type]  # the values are tried
        with pytest.raises(MessageInvalid) as changed:
            await producer.transaction(Message("T", b"body")).begin()
    assert refused.value.field == changed.value.field == field
    assert proxy.requests("SendMessage") == []


async def test_what_middleware_sends_twice_is_ended_twice(proxy: ScriptedProxy) -> None:
    """It stands around half messages as around all sends."""

    class Twice(Middleware):
        async def on_send(self, message: Message, proceed: Callable[[Message], Awaitable[SendReceipt]]) -> SendReceipt:
            await proceed(message)
            return await proceed(message)

    async with Producer(proxy.address, checker=Ledger(), middleware=[Twice()]) as producer:
        twice = producer.transaction(Message("T", b"body"))
        await twice.begin()
        await twice.commit()
    assert [resolution for _, resolution, _ in ends(proxy)] == [COMMIT, COMMIT]
    assert proxy.halves == {}
