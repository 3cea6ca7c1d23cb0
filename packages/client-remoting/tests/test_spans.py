"""The producer's context reaches the broker in the message; a refusal marks the span by its code's name."""

import pytest
from apogeemq.client_api.errors import SendFailed
from apogeemq.client_api.message import Message, ReceivedMessage
from apogeemq.client_api.propagation import extract
from apogeemq.client_api.transactions import Resolution
from apogeemq.client_remoting import Producer, producer
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.message_id import RecallHandle, encode_recall_handle
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scripted_cluster import ScriptedCluster, refuse, succeed

SEND = RequestCode.SEND_MESSAGE_V2


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What the producers of a test record."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(producer, "find_tracer", provider.get_tracer)
    return exporter


async def test_the_stored_message_carries_the_sends_span(cluster: ScriptedCluster, spans: InMemorySpanExporter) -> None:
    """The broker continues the trace from there."""
    async with Producer(cluster.namesrv.address) as client:
        receipt = await client.send(Message("T", b"x"))
    (command,) = cluster.brokers[receipt.broker_name].of(SEND)
    carried = extract(decode_properties((command.ext_fields or {})["i"]))
    (span,) = spans.get_finished_spans()
    assert span.name == "send T"
    assert span.context is not None
    assert carried is not None
    assert (carried.trace_id, carried.span_id) == (span.context.trace_id, span.context.span_id)
    assert (span.attributes or {})["messaging.message.id"] == receipt.message_id


async def test_a_transaction_has_spans_for_its_half_message_and_its_end(
    cluster: ScriptedCluster, spans: InMemorySpanExporter
) -> None:
    """The end links to the half message's span; both say what kind of message it is. A recall has one too."""

    async def unsure(_message: ReceivedMessage) -> Resolution:
        return Resolution.UNKNOWN

    for broker in cluster.brokers.values():
        half = {"msgId": "7F000002000051AF000000000000546D", "queueId": "0", "queueOffset": "0", "transactionId": "T"}
        broker.usual |= {SEND: succeed(half), RequestCode.END_TRANSACTION: succeed()}
        broker.usual[RequestCode.RECALL_MESSAGE] = succeed({"msgId": "K"})
    async with Producer(cluster.namesrv.address, checker=unsure) as client:
        async with client.transaction(Message("T", b"x")) as transaction:
            pass
        await client.recall("T", encode_recall_handle(RecallHandle("T", "a", 1_800_000_000_000, "K")))
    sent, ended, recalled = spans.get_finished_spans()
    assert [span.name for span in (sent, ended, recalled)] == ["send T", "commit T", "recall T"]
    for span in (sent, ended):
        attributes = dict(span.attributes or {})
        assert attributes["messaging.rocketmq.message.type"] == "transaction"
        assert attributes["messaging.message.id"] == transaction.receipt.message_id
    assert sent.context is not None
    assert [link.context.span_id for link in ended.links] == [sent.context.span_id]


async def test_a_refusal_is_in_the_span(cluster: ScriptedCluster, spans: InMemorySpanExporter) -> None:
    """By RocketMQ's name of the code."""
    for broker in cluster.brokers.values():
        broker.usual[SEND] = refuse(13)
    async with Producer(cluster.namesrv.address) as client:
        with pytest.raises(SendFailed):
            await client.send(Message("T", b"x"))
    (span,) = spans.get_finished_spans()
    assert (span.attributes or {})["error.type"] == "MESSAGE_ILLEGAL"
