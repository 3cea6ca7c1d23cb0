"""Bad input, made from the descriptors: every field of every request missing, too long, malformed.

What comes of it is always a status that the API documents, never an internal one, and no exception but ProxyError.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.durations import duration, timestamp
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.messaging import MessagingService
from google.protobuf.message import Message

from packages.proxy.tests.brokers_in_memory import Cluster, cluster_of, context_of
from packages.proxy.tests.spoilt_requests import NOW_MS, REQUESTS, Spoil, good_send, set_item, set_many_items, spoilt


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
    if method in ("ack_message", "change_invisible_duration", "forward_message_to_dead_letter_queue"):
        expected = {Code.INVALID_RECEIPT_HANDLE}  # of a message that nobody popped
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
        (
            "receive_message",
            lambda r: r.filter_expression.CopyFrom(defs.FilterExpression(type=defs.SQL, expression=" ")),
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
