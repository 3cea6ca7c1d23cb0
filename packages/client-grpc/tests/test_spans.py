"""Spans of transactions and recalls: under the application's, linked to the half message's, told to the server."""

from collections.abc import Sequence

import pytest
from apogeemq.client_api.errors import EndTransactionFailed
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_api.propagation import extract
from apogeemq.client_grpc import Message, Producer, Resolution, producer
from apogeemq.proto.v2 import definition_pb2 as d
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scripted_proxy import ScriptedProxy, until


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What the producers of a test record."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(producer, "find_tracer", provider.get_tracer)
    return exporter


async def resolve(message: ReceivedMessage) -> Resolution:
    return Resolution.ROLLBACK


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def linked(span: ReadableSpan) -> Sequence[int]:
    return [link.context.span_id for link in span.links]


def told(proxy: ScriptedProxy, name: str) -> list[int]:
    """The span ids that calls of a method carried in their headers."""
    contexts = [extract(asked.headers) for asked in proxy.asked if asked.name == name]
    return [context.span_id for context in contexts if context is not None]


async def test_half_message_commit_check_and_rollback(proxy: ScriptedProxy, spans: InMemorySpanExporter) -> None:
    """The ends and the question link to the half message's span; its id is with each, and the ends name themselves."""
    async with Producer(proxy.address, checker=resolve) as client:
        async with client.transaction(Message("T", b"1")) as transaction:
            pass
        orphan = await client.transaction(Message("T", b"2")).begin()
        await proxy.ask_about(orphan.transaction_id, proxy.halves[orphan.transaction_id])
        await until(lambda: not proxy.halves)
    half, commit, second_half, check, rollback = spans.get_finished_spans()
    names = ["send T", "commit T", "send T", "check T", "rollback T"]
    assert [span.name for span in (half, commit, second_half, check, rollback)] == names
    assert linked(commit) == [span_id(half)]
    assert linked(check) == linked(rollback) == [span_id(second_half)]
    for span, receipt in ((half, transaction.receipt), (commit, transaction.receipt), (check, orphan)):
        assert (span.attributes or {})["messaging.message.id"] == receipt.message_id
    for span in (half, commit, rollback):
        assert (span.attributes or {})["messaging.rocketmq.message.type"] == "transaction"
    assert told(proxy, "EndTransaction") == [span_id(commit), span_id(rollback)]
    contexts = [extract({"traceparent": request.trace_context}) for request in proxy.requests("EndTransaction")]
    assert [context and context.span_id for context in contexts] == told(proxy, "EndTransaction")


async def test_a_refused_end_is_in_the_span(proxy: ScriptedProxy, spans: InMemorySpanExporter) -> None:
    """By RocketMQ's name of the code."""
    proxy.faults["EndTransaction"].append(d.Status(code="INVALID_TRANSACTION_ID"))
    async with Producer(proxy.address, checker=resolve) as client:
        with pytest.raises(EndTransactionFailed):
            async with client.transaction(Message("T", b"1")):
                pass
    _, commit = spans.get_finished_spans()
    assert (commit.attributes or {})["error.type"] == "INVALID_TRANSACTION_ID"


async def test_a_recall(proxy: ScriptedProxy, spans: InMemorySpanExporter) -> None:
    """With the id of what was taken back."""
    async with Producer(proxy.address) as client:
        receipt = await client.send(Message("T", b"later", delay_ms=60_000))
        await client.recall("T", receipt.recall_handle)
    delayed, recall = spans.get_finished_spans()
    assert (delayed.attributes or {})["messaging.rocketmq.message.type"] == "delay"
    assert (recall.name, (recall.attributes or {})["messaging.message.id"]) == ("recall T", receipt.message_id)
    assert told(proxy, "RecallMessage") == [span_id(recall)]
