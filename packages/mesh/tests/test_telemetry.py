"""Tracing: which spans mesh calls make, and when spans are exported."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

import pytest
from apogeemq.mesh import telemetry
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import SystemClock
from apogeemq.mesh.errors import PeerRefused, RefusalCode
from apogeemq.mesh.grpc_network import GrpcNetwork
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.network import (
    CallContext,
    CallTracing,
    Handler,
    Listening,
    MeshChannel,
    MeshStream,
    Network,
    Stream,
    StreamHandler,
    Unary,
    UnaryHandler,
)
from apogeemq.mesh.telemetry import Telemetry, log_trace_fields, service_telemetry, setup_telemetry
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import rpc_attributes
from opentelemetry.semconv.attributes import error_attributes, network_attributes, server_attributes
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

GREET = Unary("/apogeemq.test.Greeter/Greet", StringValue, StringValue)
ECHO = Stream("/apogeemq.test.Greeter/Echo", StringValue, StringValue)
TRACE_ID, SPAN_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


@pytest.fixture(autouse=True)
def no_otel_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name in ("OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def recording(exporter: InMemorySpanExporter) -> Telemetry:
    return setup_telemetry(
        "apogeemq-broker",
        service_version="0.1.0",
        instance_id="broker-a",
        processors=[SimpleSpanProcessor(exporter)],
    )


NETWORKS: list[Callable[[CallTracing], Network]] = [
    lambda tracing: GrpcNetwork(tracing=tracing),
    lambda tracing: MemoryNetwork(SystemClock(), SeededChance(1), tracing=tracing),
]


class Calls:
    """A server that notes under which trace its handlers run, and a channel to it."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._listening: Listening | None = None
        self.channel: MeshChannel
        self.seen: list[SpanContext] = []

    async def start(self) -> None:
        handlers: list[Handler] = [UnaryHandler(GREET, self._greet), StreamHandler(ECHO, self._echo)]
        self._listening = await self._network.serve("127.0.0.1", 0, handlers)
        self.channel = self._network.channel(f"127.0.0.1:{self._listening.port}")

    async def stop(self) -> None:
        assert self._listening is not None
        await self.channel.close()
        await self._listening.stop(0)

    async def greet(self, name: str) -> None:
        await self.channel.unary(GREET, StringValue(value=name), timeout_s=30)

    async def _greet(self, request: StringValue, context: CallContext) -> StringValue:
        self.seen.append(trace.get_current_span().get_span_context())
        if request.value == "refuse":
            raise PeerRefused(RefusalCode.NOT_FOUND, "no such topic")
        if request.value == "fail":
            raise KeyError("broken")
        return StringValue()

    async def _echo(self, stream: MeshStream[StringValue, StringValue]) -> None:
        self.seen.append(trace.get_current_span().get_span_context())
        while (message := await stream.receive()) is not None:
            await stream.send(message)


@pytest.fixture(params=NETWORKS, ids=["grpc", "memory"])
async def calls(request: pytest.FixtureRequest, exporter: InMemorySpanExporter) -> AsyncIterator[Calls]:
    calls = Calls(request.param(recording(exporter).tracing))
    await calls.start()
    yield calls
    await calls.stop()


def parent(*, sampled: bool) -> NonRecordingSpan:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return NonRecordingSpan(SpanContext(TRACE_ID, SPAN_ID, False, flags, TraceState([("vendor", "x")])))


def by_kind(exporter: InMemorySpanExporter) -> dict[SpanKind, ReadableSpan]:
    return {span.kind: span for span in exporter.get_finished_spans()}


async def test_sampled_call_makes_two_spans(calls: Calls, exporter: InMemorySpanExporter) -> None:
    """A call in a sampled trace is a client span under the caller's, with a server span under it."""
    with trace.use_span(parent(sampled=True)):
        await calls.greet("ann")
    spans = by_kind(exporter)
    client, server = spans[SpanKind.CLIENT], spans[SpanKind.SERVER]
    assert client.name == server.name == "apogeemq.test.Greeter/Greet"
    assert client.parent is not None
    assert server.parent is not None
    assert (client.parent.trace_id, client.parent.span_id) == (TRACE_ID, SPAN_ID)
    assert client.context is not None
    assert (server.parent.trace_id, server.parent.span_id) == (TRACE_ID, client.context.span_id)
    (seen,) = calls.seen
    assert server.context is not None
    assert seen.span_id == server.context.span_id
    assert seen.trace_state == {"vendor": "x"}
    host, _, port = calls.channel.target.rpartition(":")
    assert client.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "apogeemq.test.Greeter/Greet",
        "server.address": host,
        "server.port": int(port),
    }
    assert {span.status.status_code for span in spans.values()} == {StatusCode.UNSET}


async def test_sampled_stream_makes_two_spans(calls: Calls, exporter: InMemorySpanExporter) -> None:
    """A stream is one span on each side however many messages it carries, ended when the stream ends."""
    with trace.use_span(parent(sampled=True)):
        stream = calls.channel.stream(ECHO)
    for number in range(3):
        await stream.send(StringValue(value=str(number)))
        await stream.receive()
    assert exporter.get_finished_spans() == ()
    await stream.finish()
    assert await stream.receive() is None
    assert sorted(span.kind.name for span in exporter.get_finished_spans()) == ["CLIENT", "SERVER"]


async def test_cancelled_stream_ends_its_span(calls: Calls, exporter: InMemorySpanExporter) -> None:
    """A stream that this side cancels ends its client span, as a failed one."""
    with trace.use_span(parent(sampled=True)):
        stream = calls.channel.stream(ECHO)
    stream.cancel()
    client = by_kind(exporter)[SpanKind.CLIENT]
    assert client.status.status_code is StatusCode.ERROR
    assert client.attributes is not None
    assert client.attributes["error.type"] == "ChannelClosed"


async def test_unsampled_call_makes_no_span_but_passes_the_context_on(
    calls: Calls, exporter: InMemorySpanExporter
) -> None:
    """In an unsampled trace nothing is recorded; the handler runs in that trace, so nothing below it begins one."""
    with trace.use_span(parent(sampled=False)):
        await calls.greet("ann")
    assert exporter.get_finished_spans() == ()
    (seen,) = calls.seen
    assert (seen.trace_id, seen.span_id, seen.trace_flags.sampled) == (TRACE_ID, SPAN_ID, False)


async def test_call_outside_of_a_trace(calls: Calls, exporter: InMemorySpanExporter) -> None:
    """A call that no trace asked for makes no span: the mesh begins no traces."""
    await calls.greet("ann")
    assert exporter.get_finished_spans() == ()
    assert not calls.seen[0].is_valid


async def test_refusal_fails_the_client_span_only(calls: Calls, exporter: InMemorySpanExporter) -> None:
    """A refusal that is the caller's fault marks the client span, with its code; the server did its work."""
    with trace.use_span(parent(sampled=True)), pytest.raises(PeerRefused):
        await calls.greet("refuse")
    spans = by_kind(exporter)
    client = spans[SpanKind.CLIENT]
    assert client.status.status_code is StatusCode.ERROR
    assert client.attributes is not None
    assert client.attributes["rpc.response.status_code"] == client.attributes["error.type"] == "NOT_FOUND"
    assert spans[SpanKind.SERVER].status.status_code is StatusCode.UNSET


async def test_broken_handler_fails_both_spans(calls: Calls, exporter: InMemorySpanExporter) -> None:
    """An exception in a handler marks its span with the exception's type, and the client's with INTERNAL."""
    with trace.use_span(parent(sampled=True)), pytest.raises(PeerRefused):
        await calls.greet("fail")
    spans = by_kind(exporter)
    types = {kind: (span.attributes or {})["error.type"] for kind, span in spans.items()}
    assert types == {SpanKind.CLIENT: "INTERNAL", SpanKind.SERVER: "KeyError"}


@pytest.mark.parametrize("network", NETWORKS, ids=["grpc", "memory"])
async def test_without_exporter_contexts_travel_on(network: Callable[[CallTracing], Network]) -> None:
    """With no exporter set nothing is recorded, yet a sampled context reaches the handler and so the next hop."""
    none = setup_telemetry("apogeemq-broker", service_version="0.1.0", instance_id="a")
    assert not none.recording
    calls = Calls(network(none.tracing))
    await calls.start()
    with trace.use_span(parent(sampled=True)):
        await calls.greet("ann")
    await calls.stop()
    (seen,) = calls.seen
    assert (seen.trace_id, seen.span_id, seen.trace_flags.sampled) == (TRACE_ID, SPAN_ID, True)
    await none.shutdown()


async def test_resource_and_shutdown(exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans carry the service's identity; the standard variables win over it."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=9,deployment.environment=test")
    ours = recording(exporter)
    assert ours.recording
    ours.tracer.start_span("x").end()
    await ours.shutdown()
    (span,) = exporter.get_finished_spans()
    expected = {
        "service.name": "apogeemq-broker",
        "service.instance.id": "broker-a",
        "service.version": "9",
        "deployment.environment": "test",
    }
    assert expected.items() <= dict(span.resource.attributes).items()


def test_sampler_follows_the_standard_variable(exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_TRACES_SAMPLER is honoured."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    recording(exporter).tracer.start_span("x").end()
    assert exporter.get_finished_spans() == ()


def test_sdk_can_be_disabled(exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SDK_DISABLED switches recording off whatever else is set."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not recording(exporter).recording


@pytest.mark.parametrize("protocol", ["", "grpc"])
def test_missing_exporter_is_named(
    protocol: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An endpoint without the exporter package installed gives one line that says what to install."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)

    def refuse(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", refuse)
    with caplog.at_level(logging.WARNING):
        assert not setup_telemetry("a", service_version="1", instance_id="a").recording
    (record,) = caplog.records
    assert f"install opentelemetry-exporter-otlp-proto-{protocol or 'http'}" in record.getMessage()


def test_unknown_protocol_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A protocol that no exporter has is named beside those there are."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    assert not setup_telemetry("a", service_version="1", instance_id="a").recording
    assert "http/json is none of http/protobuf, grpc" in caplog.text


def test_log_fields() -> None:
    """Inside a trace log lines can carry its ids, outside they carry nothing."""
    assert log_trace_fields() == {}
    with trace.use_span(parent(sampled=True)):
        assert log_trace_fields() == {"trace_id": f"{TRACE_ID:032x}", "span_id": f"{SPAN_ID:016x}"}


def test_attribute_names_are_the_conventions() -> None:
    """Our constants are the names of OpenTelemetry's own package."""
    assert (
        rpc_attributes.RPC_SYSTEM_NAME,
        rpc_attributes.RPC_METHOD,
        rpc_attributes.RPC_RESPONSE_STATUS_CODE,
        server_attributes.SERVER_ADDRESS,
        server_attributes.SERVER_PORT,
        error_attributes.ERROR_TYPE,
        network_attributes.NETWORK_PEER_ADDRESS,
    ) == (
        telemetry.RPC_SYSTEM_NAME,
        telemetry.RPC_METHOD,
        telemetry.RPC_RESPONSE_STATUS_CODE,
        telemetry.SERVER_ADDRESS,
        telemetry.SERVER_PORT,
        telemetry.ERROR_TYPE,
        "network.peer.address",
    )


def test_services_of_one_process_share_processors(exporter: InMemorySpanExporter) -> None:
    """Spans of two services go to the same processor, each with the resource of its own service."""
    processors = [SimpleSpanProcessor(exporter)]
    for name in ("apogeemq-proxy", "apogeemq-broker"):
        telemetry = service_telemetry(name, service_version="0.1.0", instance_id=name, processors=processors)
        telemetry.tracer.start_span("work").end()
    assert [span.resource.attributes["service.name"] for span in exporter.get_finished_spans()] == [
        "apogeemq-proxy",
        "apogeemq-broker",
    ]
