"""The producer against a scripted proxy: what it sends, in which order, and what it does about failures."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from apogeemq.client_api.errors import (
    ClientClosed,
    MessageInvalid,
    NotSupported,
    RouteNotFound,
    SendFailed,
    SendTimeout,
    StartFailed,
)
from apogeemq.client_api.message import Message, SendReceipt
from apogeemq.client_api.middleware import Middleware
from apogeemq.client_grpc import BatchPartlySent, Producer, session
from apogeemq.proto.v2 import definition_pb2 as d
from apogeemq.proto.v2 import service_pb2 as s
from scripted_proxy import UNTIL_S, ScriptedProxy


def status(name: str, message: str = "") -> d.Status:
    return d.Status(code=name, message=message)


async def test_a_client_introduces_itself_before_anything_else(proxy: ScriptedProxy) -> None:
    """Telemetry with settings, then the route, then messages; at the end it says good-bye."""
    async with Producer(proxy.address, topics=["T"]) as producer:
        receipt = await producer.send(Message("T", b"body", tag="t"))
    assert proxy.names() == ["Telemetry", "QueryRoute", "SendMessage", "NotifyClientTermination"]
    assert proxy.requests("Telemetry")[0].settings.publishing.topics[0].name == "T"
    assert proxy.requests("QueryRoute")[0].endpoints.addresses[0].port == proxy.port
    (message,) = proxy.requests("SendMessage")[0].messages
    assert (message.body, message.system_properties.tag) == (b"body", "t")
    assert receipt == SendReceipt(message.system_properties.message_id, "T", "", -1, 0)
    headers = proxy.asked[-1].headers
    assert headers["x-mq-language"] == "PYTHON"
    assert len({asked.headers["x-mq-client-id"] for asked in proxy.asked}) == 1
    assert len({asked.headers["x-mq-request-id"] for asked in proxy.asked}) == 4


async def test_a_topic_that_is_new_is_told_to_the_proxy(proxy: ScriptedProxy) -> None:
    """Its settings name all topics; a second message to it changes nothing."""
    async with Producer(proxy.address) as producer:
        await producer.send(Message("T", b"1"))
        await producer.send(Message("T", b"2"))
    topics = [[each.name for each in sent.settings.publishing.topics] for sent in proxy.requests("Telemetry")]
    assert topics == [[], ["T"]]


async def test_a_send_that_may_pass_is_tried_again(proxy: ScriptedProxy) -> None:
    """As often as the server's settings say; the message keeps its id."""
    proxy.faults["SendMessage"].extend([status("INTERNAL_SERVER_ERROR"), status("TOO_MANY_REQUESTS")])
    async with Producer(proxy.address) as producer:
        await producer.send(Message("T", b"body"))
    ids = [request.messages[0].system_properties.message_id for request in proxy.requests("SendMessage")]
    assert len(ids) == 3
    assert len(set(ids)) == 1


async def test_the_servers_policy_ends_the_attempts(proxy: ScriptedProxy) -> None:
    """The error tells how many there were, and what the last one was answered with."""
    policy = d.RetryPolicy(
        max_attempts=2, exponential_backoff=d.ExponentialBackoff(initial={"nanos": 1_000_000}, max={"seconds": 1})
    )

    def with_policy(sent: d.Settings) -> d.Settings:
        sent.backoff_policy.CopyFrom(policy)
        return sent

    proxy.settings = with_policy
    proxy.faults["SendMessage"].extend([status("PROXY_TIMEOUT", "first"), status("PROXY_TIMEOUT", "second")])
    async with Producer(proxy.address) as producer:
        with pytest.raises(SendFailed, match="second") as failure:
            await producer.send(Message("T", b"body"))
    assert (failure.value.code, failure.value.attempts) == (50400, 2)


async def test_a_mistake_is_not_tried_again(proxy: ScriptedProxy) -> None:
    """What one server calls wrong is wrong at all of them."""
    proxy.faults["SendMessage"].append(status("MESSAGE_BODY_TOO_LARGE", "5 MiB"))
    async with Producer(proxy.address) as producer:
        with pytest.raises(SendFailed, match="5 MiB") as failure:
            await producer.send(Message("T", b"body"))
    assert (failure.value.code_name, failure.value.attempts) == ("MESSAGE_BODY_TOO_LARGE", 1)
    assert len(proxy.requests("SendMessage")) == 1


async def test_a_missing_topic_is_an_error_of_its_own(proxy: ScriptedProxy) -> None:
    """At the start for topics that are named there, at the send for others; the producer stays usable."""
    proxy.missing_topics.add("Missing")
    with pytest.raises(RouteNotFound, match="Missing"):
        async with Producer(proxy.address, topics=["Missing"]):
            pass
    async with Producer(proxy.address) as producer:
        with pytest.raises(RouteNotFound) as failure:
            await producer.send(Message("Missing", b"x"))
        assert (failure.value.topic, failure.value.code) == ("Missing", 40402)
        await producer.send(Message("T", b"body"))


async def test_a_batch_is_one_request_with_a_receipt_each(proxy: ScriptedProxy) -> None:
    """In the messages' order; none for no messages."""
    async with Producer(proxy.address) as producer:
        assert await producer.send_batch([]) == []
        receipts = await producer.send_batch([Message("T", b"1"), Message("T", b"2")])
    assert [receipt.queue_offset for receipt in receipts] == [0, 1]
    assert len(proxy.requests("SendMessage")) == 1


async def test_of_a_batch_only_what_failed_is_sent_again(proxy: ScriptedProxy) -> None:
    """The server answers for each message; what is stored already must not be stored twice."""
    proxy.faults["entry"].extend([status("OK"), status("INTERNAL_SERVER_ERROR"), status("OK")])
    async with Producer(proxy.address) as producer:
        receipts = await producer.send_batch([Message("T", b"1"), Message("T", b"2"), Message("T", b"3")])
    assert [[each.body for each in request.messages] for request in proxy.requests("SendMessage")] == [
        [b"1", b"2", b"3"],
        [b"2"],
    ]
    assert [receipt.queue_offset for receipt in receipts] == [0, 2, 1]


async def test_a_batch_that_is_partly_refused_says_which_part(proxy: ScriptedProxy) -> None:
    """One receipt or None for each message."""
    proxy.faults["entry"].extend([status("OK"), status("ILLEGAL_MESSAGE_TAG", "tag: bad")])
    async with Producer(proxy.address) as producer:
        with pytest.raises(BatchPartlySent, match="1 of 2 messages were stored") as failure:
            await producer.send_batch([Message("T", b"1"), Message("T", b"2")])
    first, second = failure.value.receipts
    assert first is not None
    assert second is None
    assert failure.value.code_name == "ILLEGAL_MESSAGE_TAG"


async def test_a_batch_has_one_topic(proxy: ScriptedProxy) -> None:
    """Nothing is sent otherwise."""
    async with Producer(proxy.address) as producer:
        with pytest.raises(MessageInvalid, match="A, B"):
            await producer.send_batch([Message("A", b"x"), Message("B", b"x")])
    assert proxy.requests("SendMessage") == []


async def test_a_batch_has_one_message_group(proxy: ScriptedProxy) -> None:
    """Or none: it takes one way."""
    async with Producer(proxy.address) as producer:
        grouped = [Message("T", b"1", message_group="g"), Message("T", b"2", message_group="g")]
        assert len(await producer.send_batch(grouped)) == 2
        for other in (Message("T", b"3"), Message("T", b"3", message_group="h")):
            with pytest.raises(MessageInvalid, match=r"message_group differs within the batch: .*'g'"):
                await producer.send_batch([*grouped, other])
    assert len(proxy.requests("SendMessage")) == 1


async def test_a_message_of_a_group_is_tried_again_on_its_own_way(proxy: ScriptedProxy) -> None:
    """Though its broker failed and others are there: what comes after it must not overtake it."""
    proxy.brokers = ("broker-a", "broker-b", "broker-c")
    refused = [*[status("INTERNAL_SERVER_ERROR")] * 3, *[status("MESSAGE_BODY_TOO_LARGE")] * 2]
    proxy.faults["SendMessage"].extend(refused)
    failures = []
    async with Producer(proxy.address) as producer:
        for _ in range(3):
            with pytest.raises(SendFailed) as failure:
                await producer.send(Message("T", b"body", message_group="g"))
            failures.append(failure.value)
    assert [each.attempts for each in failures] == [3, 1, 1]
    assert len({each.broker for each in failures}) == 1


async def test_a_send_ends_in_time_whatever_happens(proxy: ScriptedProxy) -> None:
    """The error says that the message may have been stored."""

    async def never(request: s.SendMessageRequest) -> None:
        await asyncio.Event().wait()

    proxy.before["SendMessage"] = never
    async with Producer(proxy.address) as producer:
        with pytest.raises(SendTimeout, match=r"not done within 0.2 s") as failure:
            await producer.send(Message("T", b"body"), timeout_s=0.2)
    assert "may have been stored" in failure.value.hint


async def test_a_proxy_that_restarts_is_waited_for(proxy: ScriptedProxy) -> None:
    """A send that meets no proxy goes through when it is back within the send's time."""
    async with Producer(proxy.address) as producer:
        await producer.send(Message("T", b"before"))
        await proxy.stop()
        sending = asyncio.create_task(producer.send(Message("T", b"after"), timeout_s=5.0))
        await asyncio.sleep(0)
        await proxy.start()
        await sending
    assert [held.message.body for held in proxy.held] == [b"before", b"after"]


async def test_no_proxy_fails_the_start_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address and what went wrong are in the text."""
    monkeypatch.setattr(session, "SETTINGS_TIMEOUT_S", 0.3)
    async with ScriptedProxy() as gone:
        address = gone.address
    with pytest.raises(StartFailed, match=rf"{address} .*refused"):
        async with Producer(address):
            pass


async def test_a_closed_producer_says_so(proxy: ScriptedProxy) -> None:
    """Before, after, and for a send that is under way while it closes."""
    producer = Producer(proxy.address)
    with pytest.raises(ClientClosed, match="not started"):
        await producer.send(Message("T", b"x"))
    arrived = asyncio.Event()

    async def hold(request: s.SendMessageRequest) -> None:
        arrived.set()
        await asyncio.Event().wait()

    proxy.before["SendMessage"] = hold
    async with producer:
        under_way = asyncio.create_task(producer.send(Message("T", b"x")))
        await arrived.wait()
    with pytest.raises(ClientClosed):
        await under_way
    with pytest.raises(ClientClosed):
        await producer.send(Message("T", b"x"))
    with pytest.raises(ClientClosed, match="Make a new one"):
        await producer.__aenter__()


async def test_middleware_stands_around_every_send(proxy: ScriptedProxy) -> None:
    """The first is the outermost; it may send another message than it was given."""

    class Tagging(Middleware):
        async def on_send(self, message: Message, proceed: Callable[[Message], Awaitable[SendReceipt]]) -> SendReceipt:
            return await proceed(Message(message.topic, message.body + b"!", tag="tagged"))

    async with Producer(proxy.address, middleware=[Tagging()]) as producer:
        await producer.send(Message("T", b"body"))
    (message,) = proxy.requests("SendMessage")[0].messages
    assert (message.body, message.system_properties.tag) == (b"body!", "tagged")


async def test_credentials_are_refused_until_they_work() -> None:
    """Better than an UNAUTHORIZED that nobody expects."""
    with pytest.raises(NotSupported, match="does not sign"):
        Producer("127.0.0.1:1", credentials=object())


async def test_the_proxy_can_ask_for_stacks(proxy: ScriptedProxy) -> None:
    """print_thread_stack_trace is answered with threads and tasks, and the same nonce."""
    async with Producer(proxy.address):
        command = s.TelemetryCommand(print_thread_stack_trace_command=s.PrintThreadStackTraceCommand(nonce="n1"))
        await proxy.streams[0](command)
        answer = await asyncio.wait_for(proxy.answers.get(), UNTIL_S)
    assert (answer.status.code, answer.thread_stack_trace.nonce) == (d.Code.OK, "n1")
    assert "MainThread" in answer.thread_stack_trace.thread_stack_trace
    assert "telemetry" in answer.thread_stack_trace.thread_stack_trace
