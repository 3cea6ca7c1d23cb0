"""Spans of sampled traces: who is whose parent, what they tell, and that nothing else makes any."""

import asyncio

import pytest
from apogeemq.broker.config import FlushDiskType, StoreSettings
from apogeemq.broker.faces import spans
from apogeemq.remoting_codec.codes import RequestCode
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv.attributes import error_attributes, network_attributes
from opentelemetry.trace import SpanKind, StatusCode

from packages.broker.tests.mesh_asking import Asker
from packages.broker.tests.world import World, send_fields

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"traceparent\x0100-{TRACE_ID}-{SPAN_ID}-01\x02"
UNSAMPLED = f"traceparent\x0100-{TRACE_ID}-{SPAN_ID}-00\x02"


class Traced:
    """A broker whose spans are kept, each by its name."""

    def __init__(self, *, store: StoreSettings | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")
        self.world = World(store=store, tracer=self.tracer)
        self.world.create_topic()

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        finished = self.exporter.get_finished_spans()
        assert len({span.name for span in finished}) == len(finished)
        return {span.name: span for span in finished}


def ids(span: ReadableSpan) -> tuple[str, str, str | None]:
    """Trace id, span id, parent's span id."""
    assert span.context is not None
    parent = None if span.parent is None else f"{span.parent.span_id:016x}"
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


@pytest.mark.parametrize("code", [RequestCode.SEND_MESSAGE_V2, RequestCode.SEND_BATCH_MESSAGE])
async def test_a_sampled_send_makes_two_spans(code: RequestCode) -> None:
    """A SERVER span below the producer's, named as the request, and `append` below it."""
    traced = Traced()
    async with traced.world as world:
        body = b"x" if code is RequestCode.SEND_MESSAGE_V2 else b"nothing that could be read as a batch"
        world.client().request(code, send_fields(properties=SAMPLED), body)
    server, append = traced.spans[code.name], traced.spans["append"]
    assert (server.kind, append.kind) == (SpanKind.SERVER, SpanKind.INTERNAL)
    trace_id, span_id, parent = ids(server)
    assert (trace_id, parent) == (TRACE_ID, SPAN_ID)
    assert ids(append)[0] == TRACE_ID
    assert ids(append)[2] == span_id


async def test_a_span_tells_about_the_message() -> None:
    """By the names of the messaging conventions."""
    traced = Traced()
    properties = SAMPLED + "UNIQ_KEY\x01U1\x02TAGS\x01a\x02KEYS\x01k1 k2\x02__SHARDINGKEY\x01g\x02tracestate\x01v=1\x02"
    async with traced.world as world:
        world.client().request(RequestCode.SEND_MESSAGE_V2, send_fields(properties=properties), b"x")
    server = traced.spans["SEND_MESSAGE_V2"]
    assert server.attributes == {
        "messaging.system": "rocketmq",
        "messaging.operation.name": "send",
        "messaging.destination.name": "T",
        "messaging.message.id": "U1",
        "messaging.rocketmq.namespace": "",
        "messaging.rocketmq.message.type": "fifo",
        "messaging.rocketmq.message.group": "g",
        "messaging.rocketmq.message.tag": "a",
        "messaging.rocketmq.message.keys": ("k1", "k2"),
        "network.peer.address": "10.0.0.9:40001",
    }
    assert server.context is not None
    assert server.context.trace_state.to_header() == "v=1"
    assert server.status.status_code is StatusCode.UNSET


async def test_a_delayed_message_is_told_as_one() -> None:
    """With its level."""
    traced = Traced()
    async with traced.world as world:
        fields = send_fields(properties=SAMPLED + "DELAY\x013\x02")
        world.client().request(RequestCode.SEND_MESSAGE_V2, fields, b"x")
    attributes = traced.spans["SEND_MESSAGE_V2"].attributes
    assert attributes is not None
    assert attributes["messaging.rocketmq.message.type"] == "delay"
    assert attributes["messaging.rocketmq.message.delay_time_level"] == 3


async def test_a_refused_send_is_a_failed_span() -> None:
    """With the name of the response code."""
    traced = Traced()
    async with traced.world as world:
        world.client().request(RequestCode.SEND_MESSAGE_V2, send_fields(properties=SAMPLED), b"")
    server = traced.spans["SEND_MESSAGE_V2"]
    assert server.status.status_code is StatusCode.ERROR
    assert server.attributes is not None
    assert server.attributes["error.type"] == "MESSAGE_ILLEGAL"


async def test_a_span_lasts_until_the_acknowledgement() -> None:
    """A send that waits for the disk has no end before; a time that is up is told."""
    traced = Traced(store=StoreSettings(flush_disk_type=FlushDiskType.SYNC_FLUSH))
    async with traced.world as world:
        world.client().send(RequestCode.SEND_MESSAGE_V2, send_fields(properties=SAMPLED), b"x")
        assert set(traced.spans) == {"append"}
        assert world.broker.flush_line is not None
        world.broker.flush_line.expire(1e9)
        attributes = traced.spans["SEND_MESSAGE_V2"].attributes
        assert attributes is not None
        assert attributes["error.type"] == "FLUSH_DISK_TIMEOUT"


@pytest.mark.parametrize(
    "properties",
    ["", UNSAMPLED, "traceparent\x01nonsense\x02", "note\x01traceparent\x02", SAMPLED.replace("00-", "ff-", 1)],
)
async def test_what_is_not_sampled_makes_no_span(properties: str) -> None:
    """Nobody begins a trace here."""
    traced = Traced()
    async with traced.world as world:
        reply = world.client().request(RequestCode.SEND_MESSAGE_V2, send_fields(properties=properties), b"x")
        assert reply.code == 0
    assert traced.spans == {}


@pytest.mark.parametrize("sampled", [True, False])
async def test_a_send_over_the_mesh_appends_below_the_call(*, sampled: bool) -> None:
    """The call's own SERVER span, by the broker's tracer, is its parent; without a sampled trace there is neither."""
    traced = Traced()
    async with traced.world as world:
        asker = Asker(world, traced.tracer)
        if sampled:
            with traced.tracer.start_as_current_span("proxy"):
                await asker.send()
        else:
            await asker.send()
    if not sampled:
        assert traced.exporter.get_finished_spans() == ()
        return
    finished = {(span.name, span.kind): span for span in traced.exporter.get_finished_spans()}
    server = finished["apogeemq.mesh.v1.BrokerService/SendMessage", SpanKind.SERVER]
    assert ids(finished["append", SpanKind.INTERNAL])[2] == ids(server)[1]


async def test_concurrent_sends_do_not_see_each_others_spans() -> None:
    """Nothing stays current behind an append."""
    traced = Traced()
    async with traced.world as world:
        world.client().request(RequestCode.SEND_MESSAGE_V2, send_fields(properties=SAMPLED), b"x")
        await asyncio.sleep(0)
        assert trace.get_current_span() is trace.INVALID_SPAN


def test_names_are_those_of_the_conventions() -> None:
    """Every constant is one of the published names."""
    published = {
        value
        for module in (messaging_attributes, error_attributes, network_attributes)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    own = {
        value
        for name, value in vars(spans).items()
        if name.startswith(("MESSAGING_", "NETWORK_", "ERROR_")) and isinstance(value, str)
    }
    assert len(own) == 12
    assert own <= published
    assert messaging_attributes.MessagingSystemValues.ROCKETMQ.value == spans.SYSTEM
