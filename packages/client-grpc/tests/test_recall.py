"""Taking delayed messages back, against a scripted proxy."""

import asyncio

import pytest
from apogeemq.client_api.errors import (
    ClientClosed,
    MessageInvalid,
    NotSupported,
    RecallFailed,
    RouteNotFound,
    SendTimeout,
)
from apogeemq.client_grpc import Message, Producer
from apogeemq.proto.v2 import definition_pb2 as d
from apogeemq.proto.v2 import service_pb2 as s
from scripted_proxy import ScriptedProxy


async def test_the_receipt_of_a_delayed_message_takes_it_back(proxy: ScriptedProxy) -> None:
    """By any producer; the answer is the message's id. Other messages cannot be taken back."""
    async with Producer(proxy.address) as producer, Producer(proxy.address) as other:
        delayed = await producer.send(Message("T", b"later", delay_ms=60_000))
        normal = await producer.send(Message("T", b"now"))
        assert (bool(delayed.recall_handle), normal.recall_handle) == (True, "")
        assert await other.recall("T", delayed.recall_handle) == delayed.message_id
    (request,) = proxy.requests("RecallMessage")
    assert (request.topic.name, request.recall_handle) == ("T", delayed.recall_handle)
    assert [held.message.body for held in proxy.held] == [b"now"]


async def test_a_refused_recall_says_why(proxy: ScriptedProxy) -> None:
    """The server's words, and no second attempt: what was delivered stays delivered."""
    proxy.faults["RecallMessage"].append(d.Status(code="BAD_REQUEST", message="it is due already"))
    async with Producer(proxy.address) as producer:
        with pytest.raises(RecallFailed, match="it is due already") as failure:
            await producer.recall("T", "handle")
    assert (failure.value.code_name, failure.value.attempts) == ("BAD_REQUEST", 1)


async def test_a_recall_that_may_pass_is_tried_again(proxy: ScriptedProxy) -> None:
    """It may be repeated: there is one message to take back, however often."""
    proxy.faults["RecallMessage"].extend([d.Status(code="PROXY_TIMEOUT"), d.Status(code="TOO_MANY_REQUESTS")])
    async with Producer(proxy.address) as producer:
        assert await producer.recall("T", "recall M1") == "M1"
        proxy.faults["RecallMessage"].extend([d.Status(code="PROXY_TIMEOUT")] * 3)
        with pytest.raises(RecallFailed) as failure:
            await producer.recall("T", "recall M1")
    assert (failure.value.code_name, failure.value.attempts) == ("PROXY_TIMEOUT", 3)


async def test_a_proxy_that_restarts_is_waited_for(proxy: ScriptedProxy) -> None:
    """Within the recall's own time."""
    async with Producer(proxy.address) as producer:
        await proxy.stop()
        recalling = asyncio.create_task(producer.recall("T", "recall M1", timeout_s=5.0))
        await asyncio.sleep(0)
        await proxy.start()
        assert await recalling == "M1"


async def test_a_recall_ends_in_time(proxy: ScriptedProxy) -> None:
    """Whether the message was taken back is not known then."""

    async def never(request: s.RecallMessageRequest) -> None:
        await asyncio.Event().wait()

    proxy.before["RecallMessage"] = never
    async with Producer(proxy.address) as producer:
        with pytest.raises(SendTimeout, match=r"recall of a message of topic T was not done within 0\.2 s") as failure:
            await producer.recall("T", "handle", timeout_s=0.2)
    assert "may have been done" in failure.value.hint


async def test_what_cannot_be_recalled_is_refused_at_once(
    proxy: ScriptedProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No handle, no topic, no such method, no client."""
    async with Producer(proxy.address) as producer:
        with pytest.raises(MessageInvalid, match="recall_handle is empty"):
            await producer.recall("T", "")
        with pytest.raises(MessageInvalid, match="topic"):
            await producer.recall("no topic", "handle")
        proxy.faults["RecallMessage"].append(d.Status(code="TOPIC_NOT_FOUND", message="no topic route"))
        with pytest.raises(RouteNotFound, match="T: no topic route"):
            await producer.recall("T", "handle")
        monkeypatch.setattr(proxy, "recall_message", None)
        with pytest.raises(NotSupported, match="no such method"):
            await producer.recall("T", "handle")
    with pytest.raises(ClientClosed):
        await producer.recall("T", "handle")
