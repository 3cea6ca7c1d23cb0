"""Server spans of sampled traces: decided before anything is built, since most calls belong to none.

The caller's context comes in the metadata (`traceparent`, `tracestate`); where a client's library sets none there, a
send's is taken from its first message, whose property its producer set, and that of the end of a transaction from its
trace_context. An unsampled context is made the current one,
so that it travels on and nobody further down begins a trace of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from apogeemq.mesh.trace_context import TRACEPARENT, TRACESTATE, legal_tracestate, parse_traceparent
from apogeemq.proto.v2.service_pb2 import EndTransactionRequest, SendMessageRequest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, NoOpTracer, SpanContext, SpanKind, Status, StatusCode

RPC_SYSTEM_NAME = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_RESPONSE_STATUS_CODE = "rpc.response.status_code"
ERROR_TYPE = "error.type"

SetStatus = Callable[[str, bool], None]
"""Is told how a call was answered: the name of the code, and whether that is the proxy's or a broker's fault."""

_NO_SPAN: AbstractContextManager[SetStatus] = nullcontext(lambda name, is_fault: None)


class ServerSpans:
    """Makes the span around one call by `system`, "grpc" or "rocketmq". Without a tracer contexts only travel."""

    def __init__(self, tracer: trace.Tracer | None, system: str) -> None:
        self._system = system
        self._tracer = None if isinstance(tracer, NoOpTracer) else tracer

    def around(self, method: str, carrier: Mapping[str, str] | None) -> AbstractContextManager[SetStatus]:
        """Enter around a call of `method`, whose caller's context is in `carrier`."""
        if carrier is None:
            return _NO_SPAN
        caller = _remote_context(carrier)
        return _NO_SPAN if caller is None else self._around(method, caller)

    @contextmanager
    def _around(self, method: str, caller: SpanContext) -> Iterator[SetStatus]:
        parent = trace.set_span_in_context(NonRecordingSpan(caller))
        if self._tracer is None or not caller.trace_flags.sampled:
            token = otel_context.attach(parent)
            try:
                yield lambda name, is_fault: None
            finally:
                otel_context.detach(token)
            return
        attributes = {RPC_SYSTEM_NAME: self._system, RPC_METHOD: method}
        with self._tracer.start_as_current_span(method, parent, SpanKind.SERVER, attributes) as span:

            def set_status(name: str, is_fault: bool) -> None:
                span.set_attribute(RPC_RESPONSE_STATUS_CODE, name)
                if is_fault:
                    span.set_attribute(ERROR_TYPE, name)
                    span.set_status(Status(StatusCode.ERROR, name))

            yield set_status


def carrier_of(metadata: Mapping[str, str], request: object) -> Mapping[str, str] | None:
    """Find what carries the caller's context: the metadata, a send's first message, a field of a transaction's end;
    None when nothing does.
    """
    if TRACEPARENT in metadata:
        return metadata
    if isinstance(request, EndTransactionRequest) and request.trace_context:
        return {TRACEPARENT: request.trace_context}
    if isinstance(request, SendMessageRequest) and request.messages:
        message = request.messages[0]
        if TRACEPARENT in message.user_properties:
            return message.user_properties
        if message.system_properties.trace_context:
            return {TRACEPARENT: message.system_properties.trace_context}
    return None


def _remote_context(carrier: Mapping[str, str]) -> SpanContext | None:
    parsed = parse_traceparent(carrier[TRACEPARENT])
    if parsed is None:
        return None
    state = carrier[TRACESTATE] if TRACESTATE in carrier else ""  # noqa: SIM401 — a protobuf map's get() is no Mapping's
    return SpanContext(
        parsed.trace_id,
        parsed.span_id,
        is_remote=True,
        trace_flags=trace.TraceFlags(parsed.flags),
        trace_state=trace.TraceState.from_header([legal_tracestate(state)] if state else []),
    )
