"""The push consumer against a scripted proxy."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator

import pytest
from apogeemq.client_api.errors import ClientClosed, NotSupported
from apogeemq.client_api.handling import Reject, Retry, RetryLater
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_grpc import FlowLimits, PushConsumer, settlements
from apogeemq.proto.v2 import definition_pb2 as d
from apogeemq.proto.v2 import service_pb2 as s
from passing_time import PassingTime
from scripted_proxy import UNTIL_S, ScriptedProxy, until


class Handled:
    """A handler that notes what it gets, and raises what it is told to, once each."""

    def __init__(self, *errors: BaseException) -> None:
        self.messages: list[ReceivedMessage] = []
        self._errors = list(errors)

    async def __call__(self, message: ReceivedMessage) -> None:
        self.messages.append(message)
        if self._errors:
            raise self._errors.pop(0)


@contextlib.asynccontextmanager
async def consuming(
    proxy: ScriptedProxy, handler: Handled | None = None, retry: Retry | None = None
) -> AsyncIterator[PushConsumer]:
    async with PushConsumer(
        proxy.address, group="G", subscriptions={"T": "*"}, handler=handler, retry=retry
    ) as consumer:
        yield consumer


async def test_handled_messages_are_acknowledged(proxy: ScriptedProxy) -> None:
    """The proxy chooses and renews the invisible time; each question has an attempt id of its own."""
    for number in range(100):
        await proxy.put("T", b"%d" % number)
    handler = Handled()
    async with consuming(proxy, handler):
        await until(lambda: not proxy.held)
    assert sorted(int(message.body) for message in handler.messages) == list(range(100))
    requests = proxy.requests("ReceiveMessage")
    assert all(request.auto_renew and not request.HasField("invisible_duration") for request in requests)
    assert all(request.batch_size == 32 and request.long_polling_timeout.seconds == 20 for request in requests)
    assert len({request.attempt_id for request in requests}) == len(requests)
    assert len(proxy.requests("AckMessage")) < 100
    assert proxy.names()[-1] == "NotifyClientTermination"


async def test_a_failing_handler_gets_the_message_again(proxy: ScriptedProxy) -> None:
    """By the server's policy: 1 s after the first failure. Other messages go on meanwhile."""
    await proxy.put("T", b"body", message_id="ID")
    handler = Handled(ValueError("no"))
    async with consuming(proxy, handler):
        await until(lambda: proxy.requests("ChangeInvisibleDuration"))
        await proxy.put("T", b"other")
        await until(lambda: len(handler.messages) == 2)
        await proxy.show(proxy.held[0])
        await until(lambda: not proxy.held)
    (change,) = proxy.requests("ChangeInvisibleDuration")
    assert (change.message_id, change.invisible_duration.seconds) == ("ID", 1)
    assert [message.delivery_attempt for message in handler.messages if message.body == b"body"] == [1, 2]


async def test_the_applications_policy_comes_first(proxy: ScriptedProxy) -> None:
    """Its back-off, its number of attempts, and what it does not try again goes to the DLQ."""
    await proxy.put("T", b"1", message_id="A", delivery_attempt=1)
    retry = Retry(max_attempts=2, backoff=lambda attempt: 100.0 * attempt, on=(ValueError,))
    handler = Handled(ValueError("once"), ValueError("twice"), KeyError("never"))
    async with consuming(proxy, handler, retry):
        await until(lambda: proxy.requests("ChangeInvisibleDuration"))
        await proxy.show(proxy.held[0])
        await until(lambda: proxy.dlq == ["A"])
        await proxy.put("T", b"2", message_id="B")
        await until(lambda: proxy.dlq == ["A", "B"])
    assert proxy.requests("ChangeInvisibleDuration")[0].invisible_duration.seconds == 100
    (first, _) = proxy.requests("ForwardMessageToDeadLetterQueue")
    assert (first.delivery_attempt, first.max_delivery_attempts) == (2, 2)


async def test_a_handler_says_when(proxy: ScriptedProxy) -> None:
    """RetryLater's seconds go to the server."""
    await proxy.put("T", b"body")
    async with consuming(proxy, Handled(RetryLater(77))):
        await until(lambda: proxy.requests("ChangeInvisibleDuration"))
    assert proxy.requests("ChangeInvisibleDuration")[0].invisible_duration.seconds == 77


async def test_a_rejected_message_goes_to_the_dlq(proxy: ScriptedProxy, caplog: pytest.LogCaptureFixture) -> None:
    """With its reason in the log."""
    await proxy.put("T", b"body", message_id="ID")
    async with consuming(proxy, Handled(Reject("poison"))):
        await until(lambda: proxy.dlq == ["ID"])
    assert "poison" in caplog.text


@pytest.mark.parametrize("how", ["status", "method"])
async def test_without_a_dlq_a_rejected_message_is_not_lost(
    proxy: ScriptedProxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It is neither acknowledged nor forgotten: it comes back after the policy's longest wait, and the log says so."""
    await proxy.put("T", b"body", message_id="ID")
    if how == "status":
        proxy.faults["ForwardMessageToDeadLetterQueue"].append(d.Status(code="NOT_IMPLEMENTED", message="later"))
    else:
        monkeypatch.setattr(proxy, "forward_message_to_dead_letter_queue", None)
    async with consuming(proxy, Handled(Reject("poison"))):
        await until(lambda: proxy.requests("ChangeInvisibleDuration"))
    assert proxy.requests("ChangeInvisibleDuration")[0].invisible_duration.seconds == 3600
    assert proxy.requests("AckMessage") == []
    assert "ID should go to the DLQ" in caplog.text


async def test_a_failed_ack_is_repeated(proxy: ScriptedProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the server agrees; the handler is not called again for it."""
    monkeypatch.setattr(settlements, "RETRY_S", 0.001)
    proxy.faults["AckMessage"].extend([d.Status(code="INTERNAL_SERVER_ERROR")] * 3)
    await proxy.put("T", b"body")
    handler = Handled()
    async with consuming(proxy, handler):
        await until(lambda: not proxy.held)
    assert len(handler.messages) == 1
    assert len(proxy.requests("AckMessage")) == 4


async def test_an_ack_is_repeated_however_long_the_handler_took(proxy: ScriptedProxy, time: PassingTime) -> None:
    """For a minute at least: the proxy renews the handle, so the time that came with it says little."""
    await proxy.put("T", b"body", invisible_duration={"seconds": 60})
    proxy.faults["AckMessage"].extend([d.Status(code="INTERNAL_SERVER_ERROR")] * 50)

    async def slow(message: ReceivedMessage) -> None:
        await time.clock.sleep(300)

    async with PushConsumer(
        proxy.address, group="G", subscriptions={"T": "*"}, handler=slow, close_timeout_s=600, clock=time.clock
    ):
        await until(lambda: proxy.held[0].handle)
        await time.pass_by(360)
        await until(lambda: not proxy.held)
    assert len(proxy.requests("AckMessage")) == 51


async def test_a_void_handle_ends_the_repeating(
    proxy: ScriptedProxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message comes again; a second ack would be as vain as the first."""
    monkeypatch.setattr(settlements, "RETRY_S", 0.001)
    await proxy.put("T", b"body")
    proxy.faults["AckMessage"].append(d.Status(code="INVALID_RECEIPT_HANDLE"))
    async with consuming(proxy, Handled()):
        await until(lambda: "comes again" in caplog.text)
    assert len(proxy.requests("AckMessage")) == 1


async def test_nothing_that_a_handler_does_ends_consumption(proxy: ScriptedProxy) -> None:
    """Errors of any kind, even a cancellation from within (client-go#909)."""
    handler = Handled(ValueError("no"), asyncio.CancelledError(), TimeoutError(), KeyError("k"))
    async with PushConsumer(proxy.address, group="G", subscriptions={"T": "*"}, handler=handler, concurrency=1):
        for number in range(6):
            await proxy.put("T", b"%d" % number)
        await until(lambda: len(handler.messages) == 6)


async def test_a_receive_that_fails_is_made_again(proxy: ScriptedProxy) -> None:
    """A busy server is asked again after 20 ms, and the messages come."""
    proxy.faults["ReceiveMessage"].extend([d.Status(code="TOO_MANY_REQUESTS")] * 2)
    await proxy.put("T", b"body")
    async with consuming(proxy, Handled()):
        await until(lambda: not proxy.held)
    assert len(proxy.requests("ReceiveMessage")) >= 3


async def test_a_question_whose_answer_was_lost_is_the_same_question(proxy: ScriptedProxy) -> None:
    """By its attempt id the server knows what it gave; one that was refused, or answered in part, is a new one."""
    proxy.faults["ReceiveMessage"].append(d.Status(code="TOO_MANY_REQUESTS"))
    async with consuming(proxy, Handled()):
        await until(lambda: proxy.polls)
        await proxy.stop()
        await proxy.start()
        await until(lambda: len(proxy.requests("ReceiveMessage")) == 3)
    refused, lost, again = [request.attempt_id for request in proxy.requests("ReceiveMessage")]
    assert refused != lost == again


async def test_a_full_consumer_asks_for_no_more(proxy: ScriptedProxy) -> None:
    """It pauses while its handlers are slow, however long, and goes on when they are done (rocketmq-clients#1331)."""
    for number in range(50):
        await proxy.put("T", b"%d" % number)
    gate = asyncio.Event()
    begun = 0

    async def slow(message: ReceivedMessage) -> None:
        nonlocal begun
        begun += 1
        await gate.wait()

    async with PushConsumer(
        proxy.address,
        group="G",
        subscriptions={"T": "*"},
        handler=slow,
        concurrency=3,
        flow=FlowLimits(messages_max=10),
    ):
        await until(lambda: begun == 3)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(proxy.requests("ReceiveMessage")) == 1
        assert sum(held.handle is not None for held in proxy.held) == 10
        gate.set()
        await until(lambda: not proxy.held)


async def test_a_plain_function_runs_in_a_thread(proxy: ScriptedProxy) -> None:
    """It may block: the event loop does not wait for it."""
    threads: list[int] = []

    def plain(message: ReceivedMessage) -> None:
        threads.append(threading.get_ident())

    await proxy.put("T", b"body")
    async with PushConsumer(proxy.address, group="G", subscriptions={"T": "*"}, handler=plain):
        await until(lambda: not proxy.held)
    assert threads != [threading.get_ident()]


async def test_corrupted_messages_come_again_unseen(proxy: ScriptedProxy) -> None:
    """No handler gets them; by the policy's back-off they are tried again, until the server gives them up."""
    await proxy.put("T", b"bad", body_digest=d.Digest(type=d.DigestType.CRC32, checksum="1"), message_id="BAD")
    handler = Handled()
    async with consuming(proxy, handler):
        await until(lambda: proxy.requests("ChangeInvisibleDuration"))
    assert proxy.requests("ChangeInvisibleDuration")[0].message_id == "BAD"
    assert handler.messages == []


async def test_iterating_acknowledges_what_was_passed(proxy: ScriptedProxy) -> None:
    """Each message when the next is asked for; leaving the loop leaves the last one to come again."""
    for number in range(3):
        await proxy.put("T", b"%d" % number)
    async with consuming(proxy) as consumer:
        seen = []
        async for message in consumer:
            seen.append(message.body)
            if len(seen) == 3:
                break
        await until(lambda: len(proxy.held) == 1)
    assert seen == [b"0", b"1", b"2"]
    assert proxy.held[0].message.body == b"2"


async def test_iterating_settles_as_told(proxy: ScriptedProxy) -> None:
    """ack at once, retry_later instead of an ack; neither is done twice."""
    for number in range(3):
        await proxy.put("T", b"%d" % number)
    async with consuming(proxy) as consumer:
        async for message in consumer:
            if message.body == b"0":
                await consumer.ack(message)
            elif message.body == b"1":
                await consumer.retry_later(message, 30)
            else:
                break
    assert [len(request.entries) for request in proxy.requests("AckMessage")] == [1]
    assert [each.invisible_duration.seconds for each in proxy.requests("ChangeInvisibleDuration")] == [30]


async def test_closing_ends_an_iteration(proxy: ScriptedProxy) -> None:
    """The loop ends as if there were no more messages."""
    ended = asyncio.Event()

    async def iterate(consumer: PushConsumer) -> None:
        async for _ in consumer:
            pass
        ended.set()

    async with consuming(proxy) as consumer:
        iterating = asyncio.create_task(iterate(consumer))
        await until(lambda: proxy.polls)
    await iterating
    assert ended.is_set()
    with pytest.raises(ClientClosed):
        await anext(aiter(consumer))


async def test_a_consumer_with_a_handler_is_not_iterated(proxy: ScriptedProxy) -> None:
    """A message has one owner."""
    async with consuming(proxy, Handled()) as consumer:
        with pytest.raises(NotSupported):
            await anext(aiter(consumer))


async def test_closing_lets_handlers_end(proxy: ScriptedProxy) -> None:
    """What has begun is finished and acknowledged before the good-bye; what has not begun stays unsettled."""
    for number in range(5):
        await proxy.put("T", b"%d" % number)
    gate, begun = asyncio.Event(), asyncio.Event()

    async def slow(message: ReceivedMessage) -> None:
        begun.set()
        await gate.wait()

    consumer = PushConsumer(proxy.address, group="G", subscriptions={"T": "*"}, handler=slow, concurrency=2)
    await consumer.__aenter__()
    await begun.wait()
    closing = asyncio.create_task(consumer.__aexit__(None, None, None))
    await until(lambda: not proxy.polls)
    gate.set()
    await closing
    assert len(proxy.held) == 3
    assert proxy.names()[-2:] == ["AckMessage", "NotifyClientTermination"]


async def test_closing_has_a_deadline(proxy: ScriptedProxy, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that never ends is cancelled, and its message comes again."""
    await proxy.put("T", b"body")
    begun = asyncio.Event()

    async def never(message: ReceivedMessage) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with PushConsumer(proxy.address, group="G", subscriptions={"T": "*"}, handler=never, close_timeout_s=0.05):
        await begun.wait()
    assert "1 handlers are cancelled" in caplog.text
    assert proxy.requests("AckMessage") == []


@pytest.mark.parametrize(
    ("error", "expected"), [(None, "OK"), (ValueError("no"), "FAILED_TO_CONSUME_MESSAGE")], ids=["fine", "failing"]
)
async def test_the_server_can_try_the_handler(proxy: ScriptedProxy, error: Exception | None, expected: str) -> None:
    """verify_message is answered with what the handler did; nothing is settled."""
    handler = Handled(*([error] if error else []))
    async with consuming(proxy, handler):
        message = d.Message(topic=d.Resource(name="T"), body=b"try")
        command = s.VerifyMessageCommand(nonce="n", message=message)
        await proxy.streams[0](s.TelemetryCommand(verify_message_command=command))
        answer = await asyncio.wait_for(proxy.answers.get(), UNTIL_S)
    assert (answer.verify_message_result.nonce, d.Code.Name(answer.status.code)) == ("n", expected)
    assert [each.body for each in handler.messages] == [b"try"]
    assert proxy.requests("AckMessage") == []


async def test_a_restarted_proxy_is_found_again(proxy: ScriptedProxy) -> None:
    """Session, questions and acks go on by themselves."""
    handler = Handled()
    async with consuming(proxy, handler):
        await until(lambda: proxy.polls)
        await proxy.stop()
        await proxy.start()
        await proxy.put("T", b"after")
        await until(lambda: not proxy.held)
    assert [message.body for message in handler.messages] == [b"after"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"subscriptions": {}}, "subscriptions is empty"),
        ({"subscriptions": {"T": " "}}, "empty tag"),
        ({"group": "a b"}, "group 'a b'"),
        ({"concurrency": 0}, "concurrency"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, object], complaint: str) -> None:
    """Where they are written."""
    settings: dict[str, object] = {"group": "G", "subscriptions": {"T": "*"}, **arguments}
    with pytest.raises(ValueError, match=complaint):
        PushConsumer("127.0.0.1:1", **settings)  # type: ignore[arg-type]  # the values are what is tried


def test_importing_is_silent() -> None:
    """Loggers below the package say nothing until the application wants them to (rocketmq: logs in the home folder)."""
    handlers = logging.getLogger("apogeemq.client_grpc").handlers
    assert [type(handler) for handler in handlers] == [logging.NullHandler]
