"""Requests made wrong from their descriptors: every field of every request missing, too long, malformed.

`REQUESTS` has a good request of each kind; `spoilt` gives each way to make one bad, so that a new field of the API is
tried on the day it is in the descriptors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proxy.core.durations import duration, timestamp
from apogeemq.remoting_codec.message_id import RecallHandle, encode_recall_handle
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

T = defs.Resource(name="T")
G = defs.Resource(name="G")
ENDPOINTS = defs.Endpoints(scheme=defs.IPv4, addresses=[defs.Address(host="127.0.0.1", port=8081)])
NOW_MS = 1_700_000_000_000


def good_send() -> v2.SendMessageRequest:
    system = defs.SystemProperties(
        tag="A",
        keys=["k"],
        message_id="M1",
        body_digest=defs.Digest(type=defs.MD5, checksum="00"),
        body_encoding=defs.IDENTITY,
        message_type=defs.NORMAL,
        born_timestamp=timestamp(NOW_MS),
        born_host="h",
        queue_id=0,
        trace_context="t",
    )
    message = defs.Message(topic=T, user_properties={"a": "b"}, system_properties=system, body=b"x")
    return v2.SendMessageRequest(messages=[message])


def good_receive() -> v2.ReceiveMessageRequest:
    return v2.ReceiveMessageRequest(
        group=G,
        message_queue=defs.MessageQueue(topic=T, id=-1, broker=defs.Broker(name="a", endpoints=ENDPOINTS)),
        filter_expression=defs.FilterExpression(type=defs.TAG, expression="*"),
        batch_size=8,
        invisible_duration=duration(15_000),
        long_polling_timeout=duration(5_000),
        attempt_id="x",
    )


def good_settings(*, is_producer: bool) -> v2.TelemetryCommand:
    settings = defs.Settings(
        client_type=defs.PRODUCER if is_producer else defs.SIMPLE_CONSUMER,
        access_point=ENDPOINTS,
        request_timeout=duration(3_000),
        user_agent=defs.UA(language=defs.JAVA, version="5.0.7", platform="p", hostname="h"),
    )
    if is_producer:
        settings.publishing.topics.append(T)
    else:
        expression = defs.FilterExpression(type=defs.TAG, expression="*")
        settings.subscription.group.CopyFrom(G)
        settings.subscription.subscriptions.add(topic=T, expression=expression)
    return v2.TelemetryCommand(settings=settings)


REQUESTS: dict[str, Callable[[], Message]] = {
    "query_route": lambda: v2.QueryRouteRequest(topic=T, endpoints=ENDPOINTS),
    "query_assignment": lambda: v2.QueryAssignmentRequest(topic=T, group=G, endpoints=ENDPOINTS),
    "send_message": good_send,
    "receive_message": good_receive,
    "ack_message": lambda: v2.AckMessageRequest(
        group=G, topic=T, entries=[v2.AckMessageEntry(message_id="M1", receipt_handle="0 1 2 3 0 a 0 0 0")]
    ),
    "change_invisible_duration": lambda: v2.ChangeInvisibleDurationRequest(
        group=G, topic=T, receipt_handle="0 1 2 3 0 a 0 0 0", invisible_duration=duration(1), message_id="M1"
    ),
    "heartbeat": lambda: v2.HeartbeatRequest(group=G, client_type=defs.SIMPLE_CONSUMER),
    "notify_client_termination": lambda: v2.NotifyClientTerminationRequest(group=G),
    "forward_message_to_dead_letter_queue": lambda: v2.ForwardMessageToDeadLetterQueueRequest(
        group=G, topic=T, receipt_handle="0 1 2 3 0 a 0 0 0", message_id="M1", delivery_attempt=2
    ),
    "end_transaction": lambda: v2.EndTransactionRequest(
        topic=T, message_id="M1", transaction_id="v1 0 0 a", resolution=defs.COMMIT, source=defs.SOURCE_CLIENT
    ),
    "recall_message": lambda: v2.RecallMessageRequest(
        topic=T, recall_handle=encode_recall_handle(RecallHandle("T", "a", 4_000_000_000_000, "M1"))
    ),
    "telemetry of a producer": lambda: good_settings(is_producer=True),
    "telemetry of a consumer": lambda: good_settings(is_producer=False),
}

BAD_TEXTS = ("", " ", "\x01", "a\x7fb", "Ü/", "x" * 70_000, "TBW102", "%")
BAD_NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: (0, -1, 2**31 - 1, -(2**31)),
    FieldDescriptor.CPPTYPE_INT64: (0, -1, 2**63 - 1, -(2**63)),
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 2, 3, 4, 5, 6, 99, -7),
    FieldDescriptor.CPPTYPE_FLOAT: (0.0, -1.0, float("inf"), float("nan")),
}


Spoil = Callable[[Any], object]


def spoilt(descriptor: Any, path: str = "") -> Iterator[tuple[str, Spoil]]:
    """(what is spoilt, how to do it to such a message): every field at every depth, in every way."""
    for field in descriptor.fields:
        where = f"{path}{field.name}"
        yield f"{where} missing", partial(clear, field.name)
        if field.message_type is None:
            put = append if field.is_repeated else assign
            for value in values_for(field):
                yield f"{where} = {str(value)[:20]!r}", partial(put, field.name, value)
        elif field.message_type.GetOptions().map_entry:
            for key, value in (("", "v"), ("\x02", "v"), ("k", "\x01"), ("TAGS", "v"), ("k" * 40_000, "v"), ("k", "")):
                yield f"{where}[{key[:9]!r}]", partial(set_item, field.name, key, value)
            yield f"{where} many", partial(set_many_items, field.name)
        else:
            for what, spoil in spoilt(field.message_type, f"{where}."):
                yield what, partial(spoil_child, field, spoil)
            if field.is_repeated:
                yield f"{where} many", partial(repeat, field.name)


def clear(name: str, target: Message) -> None:
    target.ClearField(name)


def assign(name: str, value: Any, target: Message) -> None:
    setattr(target, name, value)


def append(name: str, value: Any, target: Message) -> None:
    getattr(target, name).append(value)


def set_item(name: str, key: str, value: str, target: Message) -> None:
    getattr(target, name)[key] = value


def set_many_items(name: str, target: Message) -> None:
    for index in range(200):
        set_item(name, f"k{index}", "v", target)


def spoil_child(field: Any, spoil: Spoil, target: Message) -> None:
    """Spoil the message in this field, the first one of several."""
    value = getattr(target, field.name)
    if not field.is_repeated:
        value.SetInParent()
        spoil(value)
    else:
        spoil(value[0] if len(value) else value.add())


def repeat(name: str, target: Message) -> None:
    repeated = getattr(target, name)
    for _ in range(1100):
        repeated.add().CopyFrom(repeated[0])


def values_for(field: Any) -> tuple[Any, ...]:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return (b"", b"\0", b"x" * (4 * 1024 * 1024 + 1))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return BAD_TEXTS
    return BAD_NUMBERS[field.cpp_type]
