"""Bad input, made from the descriptors: every field of every request missing, too long, malformed.

What comes of it is always a status that the API documents, never an internal one, and no exception but ProxyError.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.durations import duration, timestamp
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.messaging import MessagingService
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from packages.proxy.tests.brokers_in_memory import Cluster, cluster_of, context_of

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
    "forward_message_to_dead_letter_queue": lambda: v2.ForwardMessageToDeadLetterQueueRequest(group=G, topic=T),
    "end_transaction": lambda: v2.EndTransactionRequest(topic=T),
    "recall_message": lambda: v2.RecallMessageRequest(topic=T),
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


async def outcome_of(cluster: Cluster, method: str, request: Message) -> list[tuple[int, str]]:
    """Codes and texts that the client gets."""
    service = MessagingService(cluster, cluster, clock=cluster.clock, chance=SeededChance(1))
    context = context_of(cluster.clock, timeout_s=6.0)
    try:
        if method.startswith("telemetry"):
            sent: list[v2.TelemetryCommand] = []
            await service.open_telemetry(context, sent.append).on_command(request)  # type: ignore[arg-type]
            return [(command.status.code, command.status.message) for command in sent]
        answer = getattr(service, method)(request, context)
        if isinstance(answer, AsyncIterator):
            parts = [part async for part in answer]
            return [(part.status.code, part.status.message) for part in parts if part.HasField("status")]
        response = await answer
        statuses = [response.status, *(entry.status for entry in getattr(response, "entries", ()))]
        return [(status.code, status.message) for status in statuses]
    except ProxyError as error:
        return [(error.code, error.message)]


@pytest.mark.parametrize("method", REQUESTS)
async def test_no_field_however_spoilt_leads_to_an_internal_error(method: str) -> None:
    """Every refusal is one of the 4xxxx codes, or says that something is not served; and it has a text."""
    for what, spoil in list(spoilt(REQUESTS[method]().DESCRIPTOR)):
        cluster = cluster_of(ManualClock(NOW_MS), "a")
        cluster.brokers["a"].store("T", b"x")
        request = REQUESTS[method]()
        spoil(request)
        asking = asyncio.ensure_future(outcome_of(cluster, method, request))
        await cluster.clock.run_for(0.0)
        if not asking.done():
            await cluster.clock.run_for(7.0)
        for code, text in asking.result():
            assert code in Code.values(), what
            assert code != Code.CODE_UNSPECIFIED, what
            assert code < 50_000 or code == Code.NOT_IMPLEMENTED, f"{what}: {code} {text}"
            assert text, what


@pytest.mark.parametrize("method", [name for name in REQUESTS if not name.startswith(("heartbeat", "notify"))])
async def test_the_requests_that_are_spoilt_are_good_before(method: str) -> None:
    """Else the test above would try nothing."""
    cluster = cluster_of(ManualClock(NOW_MS), "a")
    cluster.brokers["a"].store("T", b"x")
    asking = asyncio.ensure_future(outcome_of(cluster, method, REQUESTS[method]()))
    await cluster.clock.run_for(7.0)
    expected = {Code.OK}
    if method in ("ack_message", "change_invisible_duration"):
        expected = {Code.INVALID_RECEIPT_HANDLE}  # of a message that nobody popped
    elif method in ("forward_message_to_dead_letter_queue", "end_transaction", "recall_message"):
        expected = {Code.NOT_IMPLEMENTED}
    assert {code for code, _ in asking.result()} == expected


def system(request: Message) -> defs.SystemProperties:
    assert isinstance(request, v2.SendMessageRequest)
    return request.messages[0].system_properties


def first(request: Message) -> defs.Message:
    assert isinstance(request, v2.SendMessageRequest)
    return request.messages[0]


@pytest.mark.parametrize(
    ("method", "spoil", "code", "field"),
    [
        ("send_message", lambda r: r.ClearField("messages"), Code.MESSAGE_CORRUPTED, "messages"),
        ("send_message", lambda r: first(r).ClearField("topic"), Code.ILLEGAL_TOPIC, "messages[0].topic"),
        ("send_message", lambda r: setattr(first(r).topic, "name", "TBW102"), Code.ILLEGAL_TOPIC, "topic"),
        ("send_message", lambda r: setattr(first(r).topic, "name", "x" * 128), Code.ILLEGAL_TOPIC, "topic"),
        ("send_message", lambda r: setattr(first(r).topic, "name", "a b"), Code.ILLEGAL_TOPIC, "topic"),
        ("send_message", lambda r: r.messages.add(topic=defs.Resource(name="U")), Code.MESSAGE_CORRUPTED, "topic"),
        ("send_message", lambda r: first(r).ClearField("body"), Code.MESSAGE_BODY_EMPTY, "messages[0].body"),
        (
            "send_message",
            lambda r: setattr(first(r), "body", b"x" * (4 * 1024 * 1024 + 1)),
            Code.MESSAGE_BODY_TOO_LARGE,
            "messages[0].body",
        ),
        (
            "send_message",
            lambda r: set_many_items("user_properties", first(r)),
            Code.MESSAGE_PROPERTIES_TOO_LARGE,
            "user_properties",
        ),
        (
            "send_message",
            lambda r: set_item("user_properties", "UNIQ_KEY", "v", first(r)),
            Code.ILLEGAL_MESSAGE_PROPERTY_KEY,
            "user_properties",
        ),
        (
            "send_message",
            lambda r: set_item("user_properties", "k", "\x02", first(r)),
            Code.ILLEGAL_MESSAGE_PROPERTY_KEY,
            "user_properties",
        ),
        ("send_message", lambda r: setattr(system(r), "tag", " "), Code.ILLEGAL_MESSAGE_TAG, "tag"),
        ("send_message", lambda r: setattr(system(r), "tag", "a|b"), Code.ILLEGAL_MESSAGE_TAG, "tag"),
        ("send_message", lambda r: setattr(system(r), "tag", "a\nb"), Code.ILLEGAL_MESSAGE_TAG, "tag"),
        ("send_message", lambda r: system(r).keys.append(" "), Code.ILLEGAL_MESSAGE_KEY, "keys"),
        (
            "send_message",
            lambda r: set_item("user_properties", "k", "v" * (16 * 1024 - 3), first(r)),
            Code.MESSAGE_PROPERTIES_TOO_LARGE,
            "user_properties",
        ),
        ("send_message", lambda r: system(r).ClearField("message_id"), Code.ILLEGAL_MESSAGE_ID, "message_id"),
        (
            "send_message",
            lambda r: system(r).orphaned_transaction_recovery_duration.CopyFrom(duration(3_600_001)),
            Code.BAD_REQUEST,
            "orphaned_transaction_recovery_duration",
        ),
        (
            "send_message",
            lambda r: system(r).delivery_timestamp.CopyFrom(timestamp(NOW_MS + 24 * 3600 * 1000 + 1)),
            Code.ILLEGAL_DELIVERY_TIME,
            "delivery_timestamp",
        ),
        ("send_message", lambda r: setattr(system(r), "message_group", "g" * 64), Code.ILLEGAL_MESSAGE_GROUP, "group"),
        ("send_message", lambda r: setattr(system(r), "message_group", " "), Code.ILLEGAL_MESSAGE_GROUP, "group"),
        ("receive_message", lambda r: r.ClearField("group"), Code.ILLEGAL_CONSUMER_GROUP, "group"),
        ("receive_message", lambda r: setattr(r.group, "name", "x" * 121), Code.ILLEGAL_CONSUMER_GROUP, "group"),
        ("receive_message", lambda r: r.ClearField("message_queue"), Code.ILLEGAL_TOPIC, "message_queue.topic"),
        (
            "receive_message",
            lambda r: setattr(r.filter_expression, "expression", "A || "),
            Code.ILLEGAL_FILTER_EXPRESSION,
            "filter_expression",
        ),
        ("receive_message", lambda r: r.ClearField("batch_size"), Code.BAD_REQUEST, "batch_size"),
        (
            "receive_message",
            lambda r: r.ClearField("invisible_duration"),
            Code.ILLEGAL_INVISIBLE_TIME,
            "invisible_duration",
        ),
        (
            "receive_message",
            lambda r: r.invisible_duration.CopyFrom(duration(9_999)),
            Code.ILLEGAL_INVISIBLE_TIME,
            "invisible_duration",
        ),
        (
            "receive_message",
            lambda r: r.invisible_duration.CopyFrom(duration(12 * 3600 * 1000 + 1)),
            Code.ILLEGAL_INVISIBLE_TIME,
            "invisible_duration",
        ),
        ("ack_message", lambda r: r.ClearField("entries"), Code.BAD_REQUEST, "entries"),
        (
            "ack_message",
            lambda r: setattr(r.entries[0], "receipt_handle", "x"),
            Code.INVALID_RECEIPT_HANDLE,
            "entries[0].receipt_handle",
        ),
        (
            "change_invisible_duration",
            lambda r: r.ClearField("receipt_handle"),
            Code.INVALID_RECEIPT_HANDLE,
            "receipt_handle",
        ),
        (
            "change_invisible_duration",
            lambda r: r.ClearField("invisible_duration"),
            Code.ILLEGAL_INVISIBLE_TIME,
            "invisible_duration",
        ),
        ("query_route", lambda r: r.ClearField("topic"), Code.ILLEGAL_TOPIC, "topic"),
        ("query_route", lambda r: r.ClearField("endpoints"), Code.ILLEGAL_ACCESS_POINT, "endpoints"),
        ("query_assignment", lambda r: r.ClearField("group"), Code.ILLEGAL_CONSUMER_GROUP, "group"),
        ("heartbeat", lambda r: r.ClearField("client_type"), Code.UNRECOGNIZED_CLIENT_TYPE, "client_type"),
        ("heartbeat", lambda r: r.ClearField("group"), Code.ILLEGAL_CONSUMER_GROUP, "group"),
        ("telemetry of a producer", lambda r: r.ClearField("settings"), Code.BAD_REQUEST, "command"),
        (
            "telemetry of a producer",
            lambda r: r.settings.ClearField("publishing"),
            Code.BAD_REQUEST,
            "settings",
        ),
        (
            "telemetry of a producer",
            lambda r: setattr(r.settings, "client_type", defs.LITE_PUSH_CONSUMER),
            Code.UNRECOGNIZED_CLIENT_TYPE,
            "settings.client_type",
        ),
    ],
)
async def test_each_fault_has_its_documented_code_and_names_its_field(
    method: str, spoil: Spoil, code: Code, field: str
) -> None:
    """Codes and bounds as in the reference, grpc_v2.md §6 and §7."""
    cluster = cluster_of(ManualClock(NOW_MS), "a")
    request = REQUESTS[method]()
    spoil(request)
    asking = asyncio.ensure_future(outcome_of(cluster, method, request))
    await cluster.clock.run_for(1.5)
    got, text = asking.result()[-1]
    assert Code.Name(got) == Code.Name(code)
    assert field in text


async def test_what_is_just_within_the_bounds_is_taken() -> None:
    """128 properties, a group of 63 bytes to be refused as FIFO only, 16 KiB of properties, names of full length."""
    cluster = cluster_of(ManualClock(NOW_MS), "a")
    cluster.topics["x" * 127] = 6
    request = good_send()
    request.messages[0].topic.name = "x" * 127
    for index in range(127):
        request.messages[0].user_properties[f"{index:03}"] = "v"
    size_bytes = sum(len(k) + len(v) for k, v in request.messages[0].user_properties.items()) + len("Ak")
    request.messages[0].user_properties["126"] += "v" * (16 * 1024 - size_bytes)
    assert await outcome_of(cluster, "send_message", request) == [(Code.OK, "OK"), (Code.OK, "OK")]
