"""Spans by the messaging conventions: names, kinds, attributes, links, and nothing at all without OpenTelemetry."""

import subprocess
import sys

import pytest
from apogeemq.client_api import tracing as t
from apogeemq.client_api.errors import SendFailed
from apogeemq.client_api.message import Message, ReceivedMessage, SendReceipt
from apogeemq.client_api.propagation import extract, parse_traceparent
from apogeemq.client_api.tracing import Tracing
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import (
    error_attributes,
    messaging_attributes,
    server_attributes,
)
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Recorded:
    """A tracing object and what it recorded."""

    def __init__(self, *, group: str | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(self.provider.get_tracer("test"), client_id="c", group=group, server=("ns", 9876))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        (span,) = self.spans
        return span


def received(properties: dict[str, str]) -> ReceivedMessage:
    return ReceivedMessage(
        message_id="ID",
        topic="t",
        body=b"x",
        tag="a",
        keys=("k",),
        properties=properties,
        message_group=None,
        born_timestamp_ms=0,
        born_host="127.0.0.1:1",
        store_timestamp_ms=0,
        broker_name="b",
        queue_id=3,
        queue_offset=0,
        delivery_attempt=1,
        group="g",
    )


def linked(span: ReadableSpan) -> list[int]:
    """Span ids that a span links to."""
    return [link.context.span_id for link in span.links]


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


@pytest.mark.parametrize("name", [name for name in vars(t) if name.startswith(("MESSAGING_", "SERVER_", "ERROR_"))])
def test_names_are_the_conventions(name: str) -> None:
    """Every attribute name is the one of opentelemetry-semantic-conventions."""
    for module in (messaging_attributes, server_attributes, error_attributes):
        if hasattr(module, name):
            assert getattr(t, name) == getattr(module, name)
            return
    pytest.fail(f"{name} is in no module of the conventions")


def test_values_are_the_conventions() -> None:
    """System, operation types, message types and consumption model."""
    m = messaging_attributes
    assert m.MessagingSystemValues.ROCKETMQ.value == t.SYSTEM_ROCKETMQ
    operations = {value.value for value in m.MessagingOperationTypeValues}
    assert {t.OPERATION_CREATE, t.OPERATION_SEND, t.OPERATION_RECEIVE, t.OPERATION_PROCESS, t.OPERATION_SETTLE} <= (
        operations
    )
    types = {value.value for value in m.MessagingRocketmqMessageTypeValues}
    ours = {t.MESSAGE_TYPE_NORMAL, t.MESSAGE_TYPE_FIFO, t.MESSAGE_TYPE_DELAY, t.MESSAGE_TYPE_TRANSACTION}
    assert ours <= types
    assert m.MessagingRocketmqConsumptionModelValues.CLUSTERING.value == t.CONSUMPTION_MODEL_CLUSTERING


def test_a_send_puts_its_context_into_the_message() -> None:
    """PRODUCER, with the required attributes; the message carries this span."""
    recorded = Recorded()
    with recorded.tracing.send(Message("t", b"x", tag="a", keys=("k",))) as scope:
        assert get_current_span().get_span_context().is_valid
        carried = extract(scope.message.properties)
        scope.sent(SendReceipt("ID", "t", "b", 3, 7))
    span = recorded.span
    assert (span.name, span.kind, span.parent) == ("send t", SpanKind.PRODUCER, None)
    assert carried is not None
    assert carried.span_id == id_of(span)
    assert dict(span.attributes or {}) == {
        "messaging.system": "rocketmq",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "t",
        "messaging.destination.partition.id": "3",
        "messaging.client.id": "c",
        "messaging.message.id": "ID",
        "messaging.rocketmq.namespace": "",
        "messaging.rocketmq.message.type": "normal",
        "messaging.rocketmq.message.tag": "a",
        "messaging.rocketmq.message.keys": ("k",),
        "server.address": "ns",
        "server.port": 9876,
    }


def test_the_users_context_stays_in_the_message() -> None:
    """The send is a CLIENT span then, and links to it."""
    recorded = Recorded()
    with recorded.tracing.send(Message("t", b"x", properties={"traceparent": PARENT})) as scope:
        assert scope.message.properties == {"traceparent": PARENT}
    assert recorded.span.kind is SpanKind.CLIENT
    assert linked(recorded.span) == [0xB7AD6B7169203331]


def test_each_message_of_a_batch_has_a_context_of_its_own() -> None:
    """Two `create` spans, and a `send` span that links to both."""
    recorded = Recorded()
    with recorded.tracing.send_batch([Message("t", b"1"), Message("t", b"2")]) as scope:
        carried = [extract(message.properties) for message in scope.messages]
    first, second, send = recorded.spans
    assert [span.name for span in (first, second, send)] == ["create t", "create t", "send t"]
    assert [span.kind for span in (first, second, send)] == [SpanKind.PRODUCER, SpanKind.PRODUCER, SpanKind.CLIENT]
    assert [context.span_id for context in carried if context] == [id_of(first), id_of(second)]
    assert linked(send) == [id_of(first), id_of(second)]
    assert (send.attributes or {})["messaging.batch.message_count"] == 2


def test_processing_links_to_the_producer() -> None:
    """CONSUMER, a root of its own; with the group, which is required there."""
    recorded = Recorded(group="g")
    with recorded.tracing.process(received({"traceparent": PARENT})):
        pass
    span = recorded.span
    assert (span.name, span.kind, span.parent) == ("process t", SpanKind.CONSUMER, None)
    assert linked(span) == [0xB7AD6B7169203331]
    attributes = dict(span.attributes or {})
    assert attributes["messaging.consumer.group.name"] == "g"
    assert attributes["messaging.rocketmq.consumption_model"] == "clustering"
    assert attributes["messaging.message.id"] == "ID"


def test_settling_and_receiving_are_client_spans() -> None:
    """Receiving links to what came; settling, within a handler, is a child of its span."""
    recorded = Recorded(group="g")
    with recorded.tracing.receive("t") as receive:
        receive.received([received({"traceparent": PARENT}), received({})])
    with recorded.tracing.process(received({})), recorded.tracing.settle("ack", received({})):
        pass
    receiving, settling, processing = recorded.spans
    assert (receiving.name, receiving.kind) == ("receive t", SpanKind.CLIENT)
    assert linked(receiving) == [0xB7AD6B7169203331]
    assert (settling.name, settling.kind) == ("ack t", SpanKind.CLIENT)
    assert (settling.attributes or {})["messaging.operation.type"] == "settle"
    assert settling.parent is not None
    assert settling.parent.span_id == id_of(processing)


def test_a_transaction_and_its_end_are_joined() -> None:
    """The half message carries the context to which its end and each question about it link."""
    recorded = Recorded()
    with recorded.tracing.send(Message("t", b"x"), in_transaction=True) as scope:
        pass
    with recorded.tracing.end("commit", "t", "ID", scope.message.properties):
        pass
    with recorded.tracing.check(received(dict(scope.message.properties))):
        pass
    half, commit, check = recorded.spans
    assert [span.name for span in recorded.spans] == ["send t", "commit t", "check t"]
    assert [span.kind for span in recorded.spans] == [SpanKind.PRODUCER, SpanKind.CLIENT, SpanKind.CONSUMER]
    assert linked(commit) == linked(check) == [id_of(half)]
    assert (half.attributes or {})["messaging.rocketmq.message.type"] == "transaction"
    assert (commit.attributes or {})["messaging.message.id"] == "ID"
    assert "messaging.operation.type" not in (commit.attributes or {})


def test_a_delay_is_told_as_it_was_given() -> None:
    """Time and level have attributes of their own; the message is of type delay in any case."""
    recorded = Recorded()
    for message in (Message("t", b"x", delivery_timestamp_ms=7), Message("t", b"x", delay_level=3)):
        with recorded.tracing.send(message):
            pass
    with recorded.tracing.send(Message("t", b"x", delay_ms=5)), recorded.tracing.recall("t"):
        pass
    by_time, by_level, recall, by_delay = (span.attributes or {} for span in recorded.spans)
    assert by_time["messaging.rocketmq.message.delivery_timestamp"] == 7
    assert by_level["messaging.rocketmq.message.delay_time_level"] == 3
    assert {one["messaging.rocketmq.message.type"] for one in (by_time, by_level, by_delay)} == {"delay"}
    assert (recall["messaging.operation.name"], recall["messaging.destination.name"]) == ("recall", "t")


def test_a_failure_has_a_word_of_low_cardinality() -> None:
    """RocketMQ's name of the code, else the class of the exception."""
    recorded = Recorded()
    refused = SendFailed("no", code=17, code_name="TOPIC_NOT_EXIST")
    for error in (refused, KeyError("secret")):
        with pytest.raises(type(error)), recorded.tracing.send(Message("t", b"x")):
            raise error
    assert [(span.attributes or {})["error.type"] for span in recorded.spans] == ["TOPIC_NOT_EXIST", "KeyError"]
    assert {span.status.status_code for span in recorded.spans} == {StatusCode.ERROR}


def test_without_a_tracer_nothing_happens() -> None:
    """The message is the very one that was given."""
    message = Message("t", b"x")
    inert = Tracing(None, client_id="c")
    with inert.send(message) as scope:
        assert scope.message is message
        assert scope.traceparent is None
    with inert.send_batch([message]) as batch, inert.receive("t") as receive, inert.process(received({})):
        receive.received([])
        assert batch.messages == [message]
    with inert.end("commit", "t", "ID", {}) as end, inert.check(received({})), inert.recall("t"):
        assert end.traceparent is None


def test_a_scope_tells_the_context_for_a_server() -> None:
    """A traceparent of the span."""
    recorded = Recorded()
    with recorded.tracing.settle("ack", received({})) as scope:
        assert scope.traceparent is not None
    context = parse_traceparent(scope.traceparent)
    assert context is not None
    assert context.span_id == id_of(recorded.span)


def test_importing_is_quiet_and_works_without_opentelemetry() -> None:
    """No output, no handler but NullHandler, no thread, and no tracer where the API is missing."""
    program = (
        "import sys, logging, threading\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('opentelemetry'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import apogeemq.client_api\n"
        "from apogeemq.client_api import tracing\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "assert tracing.find_tracer('x', '1') is None\n"
        "handlers = logging.getLogger('apogeemq.client_api').handlers\n"
        "assert [type(handler) for handler in handlers] == [logging.NullHandler], handlers\n"
        "assert threading.active_count() == 1 and not logging.getLogger().handlers\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
