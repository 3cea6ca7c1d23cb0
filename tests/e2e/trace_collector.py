"""A collector of spans for tests: OTLP over HTTP on loopback, kept in memory, read back as trees."""

import gzip
import http.server
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.e2e.process import poll_until

BODY_BYTES_MAX = 16 << 20


@dataclass(frozen=True)
class CollectedSpan:
    """One span as a service exported it; ids are hexadecimal, `links` are span ids."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    attributes: Mapping[str, object]
    status: str


@dataclass
class TraceCollector:
    """Listens while it is entered; `environ` lets a process export there without delay."""

    spans: list[CollectedSpan] = field(default_factory=list)

    def __enter__(self) -> Self:
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(min(int(self.headers["Content-Length"]), BODY_BYTES_MAX))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.spans.extend(spans_of(ExportTraceServiceRequest.FromString(body)))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Nothing: the test says what matters."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="trace collector", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def environ(self) -> dict[str, str]:
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_TRACES_SAMPLER": "parentbased_always_on",
        }

    def wait_for(self, names: set[str], timeout_s: float) -> None:
        """Wait until spans of all these names have arrived."""

        def missing() -> set[str]:
            return names - {span.name for span in list(self.spans)}

        poll_until(
            lambda: not missing(),
            timeout_s,
            lambda: AssertionError(f"no span named {sorted(missing())}; there are:\n{self.drawn()}"),
        )

    def trace(self, trace_id: str) -> list[CollectedSpan]:
        """All spans of one trace, in the order of arrival."""
        return [span for span in list(self.spans) if span.trace_id == trace_id]

    def drawn(self) -> str:
        """Every trace as an indented tree, for the message of a failing test."""
        return "\n".join(
            line
            for trace_id in dict.fromkeys(span.trace_id for span in list(self.spans))
            for line in self._lines(trace_id)
        )

    def _lines(self, trace_id: str) -> Iterator[str]:
        spans = self.trace(trace_id)
        known = {span.span_id for span in spans}
        yield f"trace {trace_id}"

        def below(parent_id: str, depth: int) -> Iterator[str]:
            for span in spans:
                if span.parent_id == parent_id or (depth == 1 and span.parent_id not in known and parent_id == ""):
                    yield f"{'  ' * depth}{span.service}: {span.name} [{span.kind}] links={len(span.links)}"
                    yield from below(span.span_id, depth + 1)

        yield from below("", 1)


def spans_of(request: ExportTraceServiceRequest) -> Iterator[CollectedSpan]:
    """The spans of one export."""
    for resource_spans in request.resource_spans:
        resource = {entry.key: value_of(entry.value) for entry in resource_spans.resource.attributes}
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield CollectedSpan(
                    service=str(resource["service.name"]),
                    name=span.name,
                    kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    attributes={entry.key: value_of(entry.value) for entry in span.attributes},
                    status=span.status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
                )


def value_of(value: AnyValue) -> object:
    """An attribute's value as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(one) for one in value.array_value.values]
    return None if kind is None else getattr(value, kind)
