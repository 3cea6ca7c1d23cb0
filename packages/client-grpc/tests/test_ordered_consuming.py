"""The push consumer of a group that consumes in order, against a scripted proxy that hands out all it has at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from apogeemq.client_api.handling import Reject, Retry, RetryLater
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_grpc import PushConsumer, settlements
from apogeemq.proto.v2 import definition_pb2 as d
from apogeemq.proto.v2 import service_pb2 as s
from passing_time import PassingTime
from scripted_proxy import UNTIL_S, ScriptedProxy, until

AT_ONCE = Retry(max_attempts=3, backoff=lambda attempt: 0.0)
VOID = d.Status(code="INVALID_RECEIPT_HANDLE")


@pytest.fixture
async def ordered() -> AsyncIterator[ScriptedProxy]:
    """A proxy that tells consumers to keep the order."""

    def in_order(sent: d.Settings) -> d.Settings:
        sent.subscription.fifo = True
        return sent

    async with ScriptedProxy() as running:
        running.settings = in_order
        yield running


class Handled:
    """A handler that notes what begins and what ends; `before_end` runs in between."""

    def __init__(self, before_end: Callable[[ReceivedMessage], None] = lambda message: None) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.attempts: list[int] = []
        self._before_end = before_end

    async def __call__(self, message: ReceivedMessage) -> None:
        self.begun.append(message.message_id)
        self.attempts.append(message.delivery_attempt)
        await asyncio.sleep(0)
        self._before_end(message)
        self.ended.append(message.message_id)


@contextlib.asynccontextmanager
async def consuming(
    proxy: ScriptedProxy, handler: Handled | None = None, retry: Retry | None = AT_ONCE
) -> AsyncIterator[PushConsumer]:
    subscriptions = {"T": "*"}
    async with PushConsumer(
        proxy.address, group="G", subscriptions=subscriptions, handler=handler, retry=retry
    ) as consumer:
        yield consumer


async def put(proxy: ScriptedProxy, *names: str, **system: Any) -> None:
    """Messages named like a1: group a, first message."""
    for name in names:
        await proxy.put("T", name.encode(), message_id=name, message_group=name[0], **system)


def of(group: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(group)]


def acked(proxy: ScriptedProxy) -> list[str]:
    return [entry.message_id for request in proxy.requests("AckMessage") for entry in request.entries]


async def test_one_of_a_group_after_the_other(ordered: ScriptedProxy) -> None:
    """The next begins when the one before is acknowledged, though all came in one answer."""
    names = ["a1", "b1", "a2", "b2", "a3"]
    await put(ordered, *names)
    held_at_begin: list[set[str]] = []

    def look(message: ReceivedMessage) -> None:
        group = message.message_id[0]
        held = {each.message.system_properties.message_id for each in ordered.held}
        held_at_begin.append({name for name in held if name[0] == group and name < message.message_id})

    handler = Handled(look)
    async with consuming(ordered, handler):
        await until(lambda: not ordered.held)
    assert of("a", handler.begun) == ["a1", "a2", "a3"]
    assert of("b", handler.begun) == ["b1", "b2"]
    assert held_at_begin == [set()] * 5


async def test_other_groups_go_on_meanwhile(ordered: ScriptedProxy) -> None:
    """One handler that stands still stops its own group only."""
    await put(ordered, "a1", "a2", "b1", "b2")
    go_on = asyncio.Event()
    begun: list[str] = []

    async def handle(message: ReceivedMessage) -> None:
        begun.append(message.message_id)
        if message.message_id == "a1":
            await go_on.wait()

    async with PushConsumer(ordered.address, group="G", subscriptions={"T": "*"}, handler=handle):
        await until(lambda: len(ordered.held) == 2)
        assert begun == ["a1", "b1", "b2"]
        go_on.set()
        await until(lambda: not ordered.held)
    assert begun[3:] == ["a2"]


async def test_messages_without_a_group_keep_their_queues_order(ordered: ScriptedProxy) -> None:
    """Of each queue one at a time, as official clients and Apache's brokers have it."""
    for number in range(6):
        await ordered.put("T", b"x", message_id=f"{number % 2}-{number}", queue_id=number % 2, queue_offset=number)
    handler = Handled()
    async with consuming(ordered, handler):
        await until(lambda: not ordered.held)
    assert of("0", handler.ended) == ["0-0", "0-2", "0-4"]
    assert of("1", handler.ended) == ["1-1", "1-3", "1-5"]


async def test_a_failed_message_is_tried_again_before_the_next(ordered: ScriptedProxy) -> None:
    """Here, by the policy, with the next number; the server is asked for nothing."""
    await put(ordered, "a1", "a2")
    errors = [ValueError("first"), RetryLater(0)]

    def fail(message: ReceivedMessage) -> None:
        if errors:
            raise errors.pop(0)

    handler = Handled(fail)
    async with consuming(ordered, handler):
        await until(lambda: not ordered.held)
    assert list(zip(handler.begun, handler.attempts, strict=True)) == [("a1", 1), ("a1", 2), ("a1", 3), ("a2", 1)]
    assert ordered.requests("ChangeInvisibleDuration") == []
    assert acked(ordered) == ["a1", "a2"]


async def test_the_wait_between_attempts_is_the_servers_policy(ordered: ScriptedProxy, time: PassingTime) -> None:
    """Where the application has none; no handler is held up by it."""
    await put(ordered, "a1", "b1")
    begun: list[tuple[str, float]] = []

    async def handle(message: ReceivedMessage) -> None:
        begun.append((message.message_id, time.clock.monotonic()))
        if message.message_id == "a1" and message.delivery_attempt < 3:
            raise ValueError("not yet")

    async with PushConsumer(
        ordered.address, group="G", subscriptions={"T": "*"}, handler=handle, concurrency=1, clock=time.clock
    ):
        await until(lambda: len(begun) == 2)
        await time.pass_by(8)
        await until(lambda: not ordered.held)
    start_s = begun[0][1]
    assert [name for name, _ in begun] == ["a1", "b1", "a1", "a1"]
    assert [at_s - start_s for name, at_s in begun if name == "a1"] == [0.0, 1.0, 6.0]


async def test_after_the_last_attempt_it_goes_to_the_dlq(ordered: ScriptedProxy) -> None:
    """And the group goes on once it is there."""
    await put(ordered, "a1", "a2")

    def fail(message: ReceivedMessage) -> None:
        if message.message_id == "a1":
            raise ValueError("never")
        assert ordered.dlq == ["a1"]

    handler = Handled(fail)
    async with consuming(ordered, handler):
        await until(lambda: not ordered.held)
    assert handler.begun == ["a1", "a1", "a1", "a2"]
    (request,) = ordered.requests("ForwardMessageToDeadLetterQueue")
    assert (request.delivery_attempt, request.max_delivery_attempts) == (3, 3)


async def test_a_rejected_message_goes_there_at_once(ordered: ScriptedProxy) -> None:
    """No second attempt."""
    await put(ordered, "a1", "a2")

    def reject(message: ReceivedMessage) -> None:
        if message.message_id == "a1":
            raise Reject("poison")

    handler = Handled(reject)
    async with consuming(ordered, handler):
        await until(lambda: not ordered.held)
    assert (handler.begun, ordered.dlq, acked(ordered)) == (["a1", "a2"], ["a1"], ["a2"])


async def test_a_failed_ack_holds_the_group(ordered: ScriptedProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is repeated, and only then the next message has its turn."""
    monkeypatch.setattr(settlements, "RETRY_S", 0.001)
    await put(ordered, "a1", "a2")
    ordered.faults["AckMessage"].extend([d.Status(code="INTERNAL_SERVER_ERROR")] * 3)
    handler = Handled()
    async with consuming(ordered, handler):
        await until(lambda: not ordered.held)
    assert acked(ordered) == ["a1"] * 4 + ["a2"]
    assert handler.begun == ["a1", "a2"]


async def test_what_waits_behind_a_message_that_comes_again_is_given_back(ordered: ScriptedProxy) -> None:
    """So that it comes after it once more: the ack was in vain, its handle being void."""
    await put(ordered, "a1", "a2", "a3")
    ordered.faults["AckMessage"].append(VOID)
    handler = Handled()
    async with consuming(ordered, handler):
        await until(lambda: len(ordered.requests("ChangeInvisibleDuration")) == 2)
        for held in list(ordered.held):
            await ordered.show(held)
        await until(lambda: not ordered.held)
    given_back = ordered.requests("ChangeInvisibleDuration")
    assert [(each.message_id, each.invisible_duration.seconds) for each in given_back] == [("a2", 1), ("a3", 1)]
    assert handler.begun == ["a1", "a1", "a2", "a3"]


async def test_without_a_dlq_the_group_waits_at_the_server(ordered: ScriptedProxy) -> None:
    """The message comes back late, and nothing of its group before it."""
    await put(ordered, "a1", "a2")
    ordered.faults["ForwardMessageToDeadLetterQueue"].append(d.Status(code="NOT_IMPLEMENTED"))

    def reject(message: ReceivedMessage) -> None:
        raise Reject("poison")

    async with consuming(ordered, handler := Handled(reject)):
        await until(lambda: len(ordered.requests("ChangeInvisibleDuration")) == 2)
    changes = {each.message_id: each.invisible_duration.seconds for each in ordered.requests("ChangeInvisibleDuration")}
    assert changes == {"a1": 3600, "a2": 1}
    assert handler.begun == ["a1"]


async def test_a_corrupted_message_has_its_turn_unseen(ordered: ScriptedProxy) -> None:
    """The server is to try it again, and what stands behind it comes after that; what stands before is handled."""
    await put(ordered, "a1")
    await put(ordered, "a2", body_digest=d.Digest(type=d.DigestType.CRC32, checksum="1"))
    await put(ordered, "a3")
    async with consuming(ordered, handler := Handled(), retry=None):
        await until(lambda: len(ordered.requests("ChangeInvisibleDuration")) == 2)
    assert [each.message_id for each in ordered.requests("ChangeInvisibleDuration")] == ["a2", "a3"]
    assert (handler.begun, acked(ordered)) == (["a1"], ["a1"])


async def test_iterating_keeps_the_order(ordered: ScriptedProxy) -> None:
    """The next message of a group comes once the one before is acknowledged; one put off comes before it."""
    await put(ordered, "a1", "a2", "a3")
    seen = []
    async with consuming(ordered) as consumer:
        async for message in consumer:
            seen.append((message.message_id, message.delivery_attempt))
            if message.message_id == "a1":
                await consumer.ack(message)
            elif message.message_id == "a2" and message.delivery_attempt < 3:
                await consumer.retry_later(message, 0)
            elif message.message_id == "a3":
                await consumer.retry_later(message, 3600)
                break
    assert seen == [("a1", 1), ("a2", 1), ("a2", 2), ("a2", 3), ("a3", 1)]
    assert acked(ordered) == ["a1", "a2"]
    assert ordered.requests("ChangeInvisibleDuration") == []


async def test_iterating_gives_a_message_up_after_the_last_attempt(ordered: ScriptedProxy) -> None:
    """One that is put off as often as the policy allows holds its group back no longer."""
    await put(ordered, "a1", "a2")
    async with consuming(ordered) as consumer:
        async for message in consumer:
            if message.message_id == "a2":
                break
            await consumer.retry_later(message, 0)
    assert ordered.dlq == ["a1"]


async def test_closing_ends_the_waits(ordered: ScriptedProxy) -> None:
    """A message between two attempts comes again from the server, and nothing of its group is begun."""
    await put(ordered, "a1", "a2")
    failed = asyncio.Event()

    def fail(message: ReceivedMessage) -> None:
        failed.set()
        raise RetryLater(3600)

    async with consuming(ordered, handler := Handled(fail)):
        await failed.wait()
    assert handler.begun == ["a1"]
    assert (acked(ordered), ordered.dlq) == ([], [])


async def test_the_handler_is_not_tried_on_a_servers_message(ordered: ScriptedProxy) -> None:
    """It would come between two messages of a group."""
    async with consuming(ordered, handler := Handled()):
        command = s.VerifyMessageCommand(nonce="n", message=d.Message(topic=d.Resource(name="T"), body=b"try"))
        await ordered.streams[0](s.TelemetryCommand(verify_message_command=command))
        answer = await asyncio.wait_for(ordered.answers.get(), UNTIL_S)
    assert answer.status.code == d.Code.VERIFY_FIFO_MESSAGE_UNSUPPORTED
    assert handler.begun == []
