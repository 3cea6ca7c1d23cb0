"""Spans of a client by OpenTelemetry's messaging conventions, when its API is installed; nothing otherwise.

| what happens | span | kind | joined to |
|---|---|---|---|
| a message is sent | `send <topic>` | PRODUCER | its context goes into the message's properties |
| one that carries a context already is sent | `send <topic>` | CLIENT | link to that context |
| several are sent at once | `create <topic>` for each, `send <topic>` | PRODUCER, CLIENT | send links to each create |
| the application asks for messages | `receive <topic>` | CLIENT | links to the messages' contexts |
| a handler runs | `process <topic>` | CONSUMER | link to the message's context |
| a message is settled by a call | `ack <topic>`, `retry <topic>`, … | CLIENT | link to the message's context |
| a transaction ends | `commit <topic>`, `rollback <topic>` | CLIENT | link to the half message's context |
| a server asks how one ended | `check <topic>` | CONSUMER | link to the half message's context |
| a delayed message is taken back | `recall <topic>` | CLIENT | |

The last three rows have no operation type: the conventions know none for them.

All are children of the span that is current where they begin, or roots. Which provider records them is the
application's choice: only the API is used here, lazily, so that importing a client costs nothing.
The names are copied, not imported: the package that has them keeps them in a private module. A test compares.
Source: OpenTelemetry semantic conventions 1.44.0, docs/messaging/{messaging-spans,rocketmq}.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from apogeemq.client_api.errors import ClientError
from apogeemq.client_api.message import Message, ReceivedMessage, SendReceipt
from apogeemq.client_api.propagation import TRACEPARENT, TraceContext, extract, format_traceparent, inject

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Tracer

AttributeValue: TypeAlias = "str | int | Sequence[str]"

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION_NAME: Final = "messaging.destination.name"
MESSAGING_DESTINATION_PARTITION_ID: Final = "messaging.destination.partition.id"
MESSAGING_CONSUMER_GROUP_NAME: Final = "messaging.consumer.group.name"
MESSAGING_CLIENT_ID: Final = "messaging.client.id"
MESSAGING_BATCH_MESSAGE_COUNT: Final = "messaging.batch.message_count"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
MESSAGING_ROCKETMQ_NAMESPACE: Final = "messaging.rocketmq.namespace"
MESSAGING_ROCKETMQ_MESSAGE_TYPE: Final = "messaging.rocketmq.message.type"
MESSAGING_ROCKETMQ_MESSAGE_TAG: Final = "messaging.rocketmq.message.tag"
MESSAGING_ROCKETMQ_MESSAGE_KEYS: Final = "messaging.rocketmq.message.keys"
MESSAGING_ROCKETMQ_MESSAGE_GROUP: Final = "messaging.rocketmq.message.group"
MESSAGING_ROCKETMQ_MESSAGE_DELIVERY_TIMESTAMP: Final = "messaging.rocketmq.message.delivery_timestamp"
MESSAGING_ROCKETMQ_MESSAGE_DELAY_TIME_LEVEL: Final = "messaging.rocketmq.message.delay_time_level"
MESSAGING_ROCKETMQ_CONSUMPTION_MODEL: Final = "messaging.rocketmq.consumption_model"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

SYSTEM_ROCKETMQ: Final = "rocketmq"
MESSAGE_TYPE_NORMAL: Final = "normal"
MESSAGE_TYPE_FIFO: Final = "fifo"
MESSAGE_TYPE_DELAY: Final = "delay"
MESSAGE_TYPE_TRANSACTION: Final = "transaction"
CONSUMPTION_MODEL_CLUSTERING: Final = "clustering"

OPERATION_CREATE: Final = "create"
OPERATION_SEND: Final = "send"
OPERATION_RECEIVE: Final = "receive"
OPERATION_PROCESS: Final = "process"
OPERATION_SETTLE: Final = "settle"

_CHECK: Final = "check"
_RECALL: Final = "recall"


def find_tracer(name: str, version: str) -> Tracer | None:
    """The tracer of the application's provider under the client's name; None when the API is not installed."""
    try:
        from opentelemetry.trace import get_tracer
    except ModuleNotFoundError:
        return None
    return get_tracer(name, version, schema_url=SCHEMA_URL)


class SpanScope:
    """A span that is current while its `with` block runs; an exception out of the block marks it as failed.

    Without a tracer it is inert. `traceparent` is the context to hand to a server; None when there is none.
    """

    __slots__ = ("_span", "_token", "traceparent")

    def __init__(self, span: Span | None) -> None:
        self._span = span
        self._token: Token[Context] | None = None
        context = _context_of(span)
        self.traceparent = None if context is None else format_traceparent(context)

    def __enter__(self) -> Self:
        """Make the span current."""
        if self._span is not None:
            from opentelemetry.context import attach
            from opentelemetry.trace import set_span_in_context

            self._token = attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the span."""
        if self._span is None:
            return
        from opentelemetry.context import detach

        if self._token is not None:
            detach(self._token)
        if exc is not None:
            self.failed(exc)
        self._span.end()

    def failed(self, error: BaseException) -> None:
        """Mark the span as failed; for errors that do not leave the block."""
        if self._span is not None and self._span.is_recording():
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute(ERROR_TYPE, error_type_of(error))
            self._span.set_status(Status(StatusCode.ERROR, str(error)))

    def set(self, name: str, value: AttributeValue) -> None:
        """Add an attribute."""
        if self._span is not None:
            self._span.set_attribute(name, value)


class SendScope(SpanScope):
    """The span of one send. `message` is the message to send: the given one with the span's context in it."""

    __slots__ = ("message",)

    def __init__(self, span: Span | None, message: Message) -> None:
        super().__init__(span)
        self.message = _carrying(message, _context_of(span))

    def sent(self, receipt: SendReceipt) -> None:
        """Say where the message lies."""
        self.set(MESSAGING_MESSAGE_ID, receipt.message_id)
        self.set(MESSAGING_DESTINATION_PARTITION_ID, str(receipt.queue_id))


class BatchScope(SpanScope):
    """The span of sending several messages at once. `messages` are the ones to send, each with its own context."""

    __slots__ = ("messages",)

    def __init__(self, span: Span | None, messages: Sequence[Message]) -> None:
        super().__init__(span)
        self.messages = messages


class ReceiveScope(SpanScope):
    """The span of asking for messages."""

    __slots__ = ()

    def received(self, messages: Sequence[ReceivedMessage]) -> None:
        """Link the span to what came."""
        if self._span is None or not self._span.is_recording():
            return
        self._span.set_attribute(MESSAGING_BATCH_MESSAGE_COUNT, len(messages))
        for message in messages:
            context = extract(message.properties)
            if context is not None:
                self._span.add_link(_span_context(context), {MESSAGING_MESSAGE_ID: message.message_id})


class Tracing:
    """Makes the spans of one client.

    Args:
        tracer: what `find_tracer` gave; None makes everything here inert.
        client_id: the client's id at the servers.
        namespace: RocketMQ's namespace, empty for none (required on spans all the same).
        group: the consumer group; None for producers.
        server: host and port that the client was given.
    """

    def __init__(
        self,
        tracer: Tracer | None,
        *,
        client_id: str,
        namespace: str = "",
        group: str | None = None,
        server: tuple[str, int] | None = None,
    ) -> None:
        self._tracer = tracer
        fixed: dict[str, AttributeValue] = {
            MESSAGING_SYSTEM: SYSTEM_ROCKETMQ,
            MESSAGING_CLIENT_ID: client_id,
            MESSAGING_ROCKETMQ_NAMESPACE: namespace,
        }
        if group is not None:
            fixed[MESSAGING_CONSUMER_GROUP_NAME] = group
            fixed[MESSAGING_ROCKETMQ_CONSUMPTION_MODEL] = CONSUMPTION_MODEL_CLUSTERING
        if server is not None:
            fixed[SERVER_ADDRESS], fixed[SERVER_PORT] = server
        self._fixed: Mapping[str, AttributeValue] = fixed

    def send(self, message: Message, *, in_transaction: bool = False) -> SendScope:
        """Around one send; of a half message, when it is `in_transaction`."""
        if self._tracer is None:
            return SendScope(None, message)
        from opentelemetry.trace import SpanKind

        created = extract(message.properties)
        attributes = self._attributes(OPERATION_SEND, OPERATION_SEND, message.topic) | _of_sent(message)
        if in_transaction:
            attributes[MESSAGING_ROCKETMQ_MESSAGE_TYPE] = MESSAGE_TYPE_TRANSACTION
        kind = SpanKind.PRODUCER if created is None else SpanKind.CLIENT
        return SendScope(self._start(attributes, kind, [] if created is None else [created]), message)

    def send_batch(self, messages: Sequence[Message]) -> BatchScope:
        """Around one send of several messages of one topic (at least one)."""
        if self._tracer is None:
            return BatchScope(None, messages)
        from opentelemetry.trace import SpanKind

        carrying = [self._create(message) for message in messages]
        attributes = self._attributes(OPERATION_SEND, OPERATION_SEND, messages[0].topic)
        attributes[MESSAGING_BATCH_MESSAGE_COUNT] = len(messages)
        contexts = (extract(message.properties) for message in carrying)
        return BatchScope(self._start(attributes, SpanKind.CLIENT, filter(None, contexts)), carrying)

    def receive(self, topic: str) -> ReceiveScope:
        """Around one asking for messages."""
        if self._tracer is None:
            return ReceiveScope(None)
        from opentelemetry.trace import SpanKind

        return ReceiveScope(
            self._start(self._attributes(OPERATION_RECEIVE, OPERATION_RECEIVE, topic), SpanKind.CLIENT, [])
        )

    def process(self, message: ReceivedMessage) -> SpanScope:
        """Around one call of a handler."""
        return self._about(OPERATION_PROCESS, OPERATION_PROCESS, message)

    def settle(self, name: str, message: ReceivedMessage) -> SpanScope:
        """Around one call that settles a message; `name` says how: `ack`, `retry`, …"""
        return self._about(name, OPERATION_SETTLE, message)

    def end(self, name: str, topic: str, message_id: str, properties: Mapping[str, str]) -> SpanScope:
        """Around the end of a transaction; `name` is `commit` or `rollback`, `properties` are the half message's."""
        if self._tracer is None:
            return SpanScope(None)
        from opentelemetry.trace import SpanKind

        attributes = self._attributes(name, None, topic) | {
            MESSAGING_MESSAGE_ID: message_id,
            MESSAGING_ROCKETMQ_MESSAGE_TYPE: MESSAGE_TYPE_TRANSACTION,
        }
        created = extract(properties)
        return SpanScope(self._start(attributes, SpanKind.CLIENT, [] if created is None else [created]))

    def check(self, message: ReceivedMessage) -> SpanScope:
        """Around one call of a checker."""
        return self._about(_CHECK, None, message)

    def recall(self, topic: str) -> SpanScope:
        """Around taking a delayed message back."""
        if self._tracer is None:
            return SpanScope(None)
        from opentelemetry.trace import SpanKind

        return SpanScope(self._start(self._attributes(_RECALL, None, topic), SpanKind.CLIENT, []))

    def _about(self, name: str, operation_type: str | None, message: ReceivedMessage) -> SpanScope:
        """Around something done with a received message."""
        if self._tracer is None:
            return SpanScope(None)
        from opentelemetry.trace import SpanKind

        attributes = self._attributes(name, operation_type, message.topic) | _of_received(message)
        kind = SpanKind.CLIENT if operation_type == OPERATION_SETTLE else SpanKind.CONSUMER
        created = extract(message.properties)
        return SpanScope(self._start(attributes, kind, [] if created is None else [created]))

    def _create(self, message: Message) -> Message:
        """One message of a batch with a context of its own."""
        if TRACEPARENT in message.properties:
            return message
        from opentelemetry.trace import SpanKind

        attributes = self._attributes(OPERATION_CREATE, OPERATION_CREATE, message.topic) | _of_sent(message)
        with SendScope(self._start(attributes, SpanKind.PRODUCER, []), message) as scope:
            return scope.message

    def _attributes(self, name: str, operation_type: str | None, topic: str) -> dict[str, AttributeValue]:
        attributes = {**self._fixed, MESSAGING_OPERATION_NAME: name, MESSAGING_DESTINATION_NAME: topic}
        if operation_type is not None:
            attributes[MESSAGING_OPERATION_TYPE] = operation_type
        return attributes

    def _start(
        self, attributes: Mapping[str, AttributeValue], kind: SpanKind, links: Iterable[TraceContext]
    ) -> Span | None:
        """A span named by the conventions: operation and destination."""
        if self._tracer is None:
            return None
        return self._tracer.start_span(
            f"{attributes[MESSAGING_OPERATION_NAME]} {attributes[MESSAGING_DESTINATION_NAME]}",
            kind=kind,
            attributes=attributes,
            links=[_link(context) for context in links],
            record_exception=False,
            set_status_on_exception=False,
        )


def error_type_of(error: BaseException) -> str:
    """A word of low cardinality: RocketMQ's name of the server's code, else the name of the exception's class."""
    if isinstance(error, ClientError) and error.code is not None:
        return error.code_name or str(error.code)
    return type(error).__qualname__


def _of_sent(message: Message) -> dict[str, AttributeValue]:
    """What a message to send says about itself."""
    attributes: dict[str, AttributeValue] = {MESSAGING_ROCKETMQ_MESSAGE_TYPE: MESSAGE_TYPE_NORMAL}
    if message.message_group is not None:
        attributes[MESSAGING_ROCKETMQ_MESSAGE_TYPE] = MESSAGE_TYPE_FIFO
        attributes[MESSAGING_ROCKETMQ_MESSAGE_GROUP] = message.message_group
    if message.is_delayed:
        attributes[MESSAGING_ROCKETMQ_MESSAGE_TYPE] = MESSAGE_TYPE_DELAY
    if message.delivery_timestamp_ms is not None:
        attributes[MESSAGING_ROCKETMQ_MESSAGE_DELIVERY_TIMESTAMP] = message.delivery_timestamp_ms
    if message.delay_level is not None:
        attributes[MESSAGING_ROCKETMQ_MESSAGE_DELAY_TIME_LEVEL] = message.delay_level
    return _with_labels(attributes, message)


def _of_received(message: ReceivedMessage) -> dict[str, AttributeValue]:
    """What a received message says about itself."""
    attributes: dict[str, AttributeValue] = {
        MESSAGING_MESSAGE_ID: message.message_id,
        MESSAGING_DESTINATION_PARTITION_ID: str(message.queue_id),
    }
    if message.message_group is not None:
        attributes[MESSAGING_ROCKETMQ_MESSAGE_GROUP] = message.message_group
    return _with_labels(attributes, message)


def _with_labels(
    attributes: dict[str, AttributeValue], message: Message | ReceivedMessage
) -> dict[str, AttributeValue]:
    """Tag and keys, where there are any."""
    if message.tag is not None:
        attributes[MESSAGING_ROCKETMQ_MESSAGE_TAG] = message.tag
    if message.keys:
        attributes[MESSAGING_ROCKETMQ_MESSAGE_KEYS] = message.keys
    return attributes


def _carrying(message: Message, context: TraceContext | None) -> Message:
    """The message with a context in it, unless it has one or there is none."""
    if context is None or TRACEPARENT in message.properties:
        return message
    return dataclasses.replace(message, properties=inject(message.properties, context))


def _context_of(span: Span | None) -> TraceContext | None:
    """The context of a span that has one: without a provider, spans are empty."""
    if span is None:
        return None
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return TraceContext(context.trace_id, context.span_id, context.trace_flags, context.trace_state.to_header())


def _link(context: TraceContext) -> Link:
    from opentelemetry.trace import Link

    return Link(_span_context(context))


def _span_context(context: TraceContext) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    state = TraceState.from_header([context.state]) if context.state else None
    return SpanContext(context.trace_id, context.span_id, True, TraceFlags(context.flags), state)
