"""Tracing of a service: set-up of OpenTelemetry, and spans around mesh calls.

Spans are exported when OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) is set; sampler, batching and resource follow
the standard OTEL_* variables, read by the SDK. Without an endpoint and without processors handed in, the SDK is not
even imported: contexts are passed on and no span is made.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from apogeemq.mesh.errors import PeerRefused, RefusalCode
from apogeemq.mesh.network import ClientCall, Metadata
from apogeemq.mesh.trace_context import (
    TRACEPARENT,
    TRACESTATE,
    TraceContext,
    format_traceparent,
    legal_tracestate,
    parse_traceparent,
    sampled_in_properties,
    trace_in_properties,
)
from opentelemetry import trace
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

__all__ = [
    "MeshTracing",
    "Telemetry",
    "TraceContext",
    "exporting_processors",
    "format_traceparent",
    "log_trace_fields",
    "parse_traceparent",
    "remote_context",
    "sampled_in_properties",
    "service_telemetry",
    "setup_telemetry",
    "trace_headers",
    "trace_in_properties",
]

_EXPORTERS = {"http/protobuf": "http", "grpc": "grpc"}
# How OTEL_EXPORTER_OTLP_PROTOCOL names a protocol, and how the exporter packages do.

# Names by OpenTelemetry's RPC conventions; a test compares them with opentelemetry-semantic-conventions.
RPC_SYSTEM_NAME = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_RESPONSE_STATUS_CODE = "rpc.response.status_code"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"

# Refusals that are the server's fault; the others are an answer like any other, from the server's point of view.
_SERVER_FAULTS = frozenset(
    {RefusalCode.UNKNOWN, RefusalCode.UNIMPLEMENTED, RefusalCode.INTERNAL, RefusalCode.DATA_LOSS}
)

_log = logging.getLogger(__name__)


class Telemetry:
    """What one service needs for tracing. Nothing global is set: several services may live in one process."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider
        self.tracer: trace.Tracer = trace.NoOpTracer() if provider is None else provider.get_tracer("apogeemq")
        self.tracing = MeshTracing(self.tracer)

    @property
    def recording(self) -> bool:
        """Whether spans go anywhere."""
        return self._provider is not None

    async def shutdown(self) -> None:
        """Export what is left, in a thread; bounded by the exporter's own time-out."""
        if self._provider is not None:
            await asyncio.to_thread(self._provider.shutdown)


def setup_telemetry(
    service_name: str, *, service_version: str, instance_id: str, processors: Sequence[SpanProcessor] = ()
) -> Telemetry:
    """Set tracing up for a process of one service, from the OTEL_* variables.

    `processors` get all spans beside the exporter: the all-in-one's memory of the last traces, or a test's.
    """
    return service_telemetry(
        service_name,
        service_version=service_version,
        instance_id=instance_id,
        processors=[*exporting_processors(), *processors],
    )


def service_telemetry(
    service_name: str, *, service_version: str, instance_id: str, processors: Sequence[SpanProcessor]
) -> Telemetry:
    """Set tracing up for one service; services in one process have a resource each and may share the processors.

    The resource has service.name, service.version and service.instance.id; OTEL_SERVICE_NAME and
    OTEL_RESOURCE_ATTRIBUTES win over them. Without processors, no span is made.
    """
    if _disabled() or not processors:
        return Telemetry(None)
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider

    own = Resource(
        {"service.name": service_name, "service.version": service_version, "service.instance.id": instance_id}
    )
    provider = TracerProvider(resource=Resource.create().merge(own).merge(OTELResourceDetector().detect()))
    for processor in processors:
        provider.add_span_processor(processor)
    return Telemetry(provider)


def exporting_processors() -> list[SpanProcessor]:
    """Make what exports the spans of a process, as the OTEL_* variables say; none without an endpoint."""
    environ = os.environ
    if _disabled():
        return []
    if not (environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
        return []
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    kind = _EXPORTERS.get(protocol or "http/protobuf")
    if kind is None:
        _log.warning("traces are not exported: protocol %s is none of %s", protocol, ", ".join(_EXPORTERS))
        return []
    try:
        module = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{kind}.trace_exporter")
    except ImportError as error:
        _log.warning("traces are not exported: install opentelemetry-exporter-otlp-proto-%s (%s)", kind, error)
        return []
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return [BatchSpanProcessor(module.OTLPSpanExporter())]


def _disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"


def log_trace_fields() -> Mapping[str, str]:
    """Give the current span's ids for a log line; nothing outside of a trace."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


class MeshTracing:
    """CallTracing by OpenTelemetry: a span per call or stream of a sampled trace, and no span that begins a trace.

    An unsampled context travels on as it is, so that nobody further down begins a trace of its own.
    """

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def client_call(self, path: str, target: str) -> ClientCall:
        """Make a client span under the current span, if that one is sampled."""
        current = trace.get_current_span().get_span_context()
        if not current.is_valid:
            return _ClientCall({}, None)
        if not current.trace_flags.sampled:
            return _ClientCall(_metadata(current), None)
        host, _, port = target.rpartition(":")
        attributes: dict[str, str | int] = {**_attributes(path), SERVER_ADDRESS: host}
        if port.isdecimal():
            attributes[SERVER_PORT] = int(port)
        span = self._tracer.start_span(_method(path), kind=SpanKind.CLIENT, attributes=attributes)
        return _ClientCall(_metadata(span.get_span_context()), span)

    @contextmanager
    def server_call(self, path: str, peer: str, metadata: Metadata) -> Iterator[None]:
        """Make the caller's context current, and a server span in it if it is sampled."""
        remote = _remote_context(metadata)
        if remote is None:
            yield
        elif not remote.trace_flags.sampled:
            with _current(NonRecordingSpan(remote)):
                yield
        else:
            span = self._tracer.start_span(
                _method(path),
                context=trace.set_span_in_context(NonRecordingSpan(remote)),
                kind=SpanKind.SERVER,
                attributes={**_attributes(path), "network.peer.address": peer},
            )
            try:
                with _current(span):
                    yield
            except BaseException as error:
                if not (isinstance(error, PeerRefused) and error.code not in _SERVER_FAULTS):
                    _mark_failed(span, error)
                raise
            finally:
                span.end()


class _ClientCall:
    """A client span, or none, and what goes with the call."""

    def __init__(self, metadata: Metadata, span: Span | None) -> None:
        self.metadata = metadata
        self._span = span

    def end(self, error: BaseException | None) -> None:
        span, self._span = self._span, None
        if span is not None:
            if error is not None:
                _mark_failed(span, error)
            span.end()


def _current(span: Span) -> AbstractContextManager[Span]:
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


def _mark_failed(span: Span, error: BaseException) -> None:
    if isinstance(error, PeerRefused):
        span.set_attribute(RPC_RESPONSE_STATUS_CODE, error.code.name)
        span.set_attribute(ERROR_TYPE, error.code.name)
    else:
        span.set_attribute(ERROR_TYPE, type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR, str(error)))


def _attributes(path: str) -> dict[str, str]:
    return {RPC_SYSTEM_NAME: "grpc", RPC_METHOD: _method(path)}


def _method(path: str) -> str:
    """Name a method as the conventions do: "package.Service/Method"."""
    return path.removeprefix("/")


def _metadata(context: SpanContext) -> Metadata:
    traceparent, tracestate = trace_headers(context)
    return {TRACEPARENT: traceparent, TRACESTATE: tracestate} if tracestate else {TRACEPARENT: traceparent}


def _remote_context(metadata: Metadata) -> SpanContext | None:
    return remote_context(metadata.get(TRACEPARENT, ""), metadata.get(TRACESTATE, ""))


def trace_headers(context: SpanContext) -> tuple[str, str]:
    """Write a context as traceparent and tracestate, the latter empty where there is none."""
    own = TraceContext(context.trace_id, context.span_id, int(context.trace_flags))
    return format_traceparent(own), context.trace_state.to_header() if context.trace_state else ""


def remote_context(traceparent: str, tracestate: str) -> SpanContext | None:
    """Read a context that came over the network; None for a malformed traceparent."""
    parsed = parse_traceparent(traceparent)
    if parsed is None:
        return None
    state = TraceState.from_header([legal_tracestate(tracestate)]) if tracestate else None
    return SpanContext(
        parsed.trace_id, parsed.span_id, is_remote=True, trace_flags=TraceFlags(parsed.flags), trace_state=state
    )
