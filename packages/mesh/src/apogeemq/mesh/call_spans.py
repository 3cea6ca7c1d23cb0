"""Spans around calls that travel in batches: one at the asker, one at the answerer, for each call of a sampled trace.

A stream's metadata is sent once, so it can't carry the context of thousands of calls: each entry carries its own.
No span begins a trace, and an unsampled context travels on as it is, so that nobody further down begins one either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.telemetry import (
    ERROR_TYPE,
    RPC_METHOD,
    RPC_RESPONSE_STATUS_CODE,
    RPC_SYSTEM_NAME,
    SERVER_ADDRESS,
    SERVER_PORT,
)
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, NoOpTracer, Span, SpanContext, SpanKind, Status, StatusCode, Tracer

SYSTEM_NAME = "apogeemq"
"""What rpc.system.name says of these calls."""

_NETWORK_PEER_ADDRESS = "network.peer.address"


def current_context() -> SpanContext | None:
    """Tell where the current trace stands, sampled or not; None outside of one."""
    context = trace.get_current_span().get_span_context()
    return context if context.is_valid else None


class CallSpans:
    """Makes the spans of one service's calls. `service` is "package.Service"; with no tracer contexts only travel."""

    def __init__(self, service: str, tracer: Tracer | None) -> None:
        self._service = service
        self._tracer = None if isinstance(tracer, NoOpTracer) else tracer

    @contextmanager
    def asking(self, call_name: str, target: str, current: SpanContext) -> Iterator[SpanContext]:
        """Enter around a call made inside the trace `current`; gives the context that travels with it."""
        if self._tracer is None or not current.trace_flags.sampled:
            yield current
            return
        host, _, port = target.rpartition(":")
        attributes: dict[str, str | int] = {**self._attributes(call_name), SERVER_ADDRESS: host or target}
        if host and port.isdecimal():
            attributes[SERVER_PORT] = int(port)
        span = self._tracer.start_span(self._method(call_name), kind=SpanKind.CLIENT, attributes=attributes)
        with _ended(span), trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield span.get_span_context()

    def answering(self, call_name: str, peer: str, remote: SpanContext) -> Span:
        """Begin what is to be the current span while a call from the trace `remote` is answered; end() ends it."""
        if self._tracer is None or not remote.trace_flags.sampled:
            return NonRecordingSpan(remote)
        return self._tracer.start_span(
            self._method(call_name),
            context=trace.set_span_in_context(NonRecordingSpan(remote)),
            kind=SpanKind.SERVER,
            attributes={**self._attributes(call_name), _NETWORK_PEER_ADDRESS: peer},
        )

    def _method(self, call_name: str) -> str:
        return f"{self._service}/{call_name}"

    def _attributes(self, call_name: str) -> dict[str, str]:
        return {RPC_SYSTEM_NAME: SYSTEM_NAME, RPC_METHOD: self._method(call_name)}


def end(span: Span, error: BaseException | None) -> None:
    """End a span; an error is written down in it."""
    if error is not None:
        if isinstance(error, CallRefused):
            span.set_attribute(RPC_RESPONSE_STATUS_CODE, str(error.code))
            span.set_attribute(ERROR_TYPE, str(error.code))
        else:
            span.set_attribute(ERROR_TYPE, type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR, str(error)))
    span.end()


@contextmanager
def current(span: Span) -> Iterator[None]:
    """Let a span be the current one; it is not ended."""
    with trace.use_span(span, record_exception=False, set_status_on_exception=False):
        yield


@contextmanager
def _ended(span: Span) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        end(span, error)
        raise
    end(span, None)
