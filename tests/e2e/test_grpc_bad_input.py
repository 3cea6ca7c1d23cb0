"""gRPC requests that are wrong, against a real server: a documented status that names the field, nobody else disturbed.

The cases of missing, long and malformed fields are generated from the descriptors (packages/proxy/tests), so that a new
field is tried on the day it is there. After each test the server's log has no line more than before.
"""

import asyncio
import contextlib
import itertools
import re
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import grpc
import pytest
from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from packages.proxy.tests.spoilt_requests import (
    ENDPOINTS,
    REQUESTS,
    Spoil,
    good_receive,
    good_send,
    good_settings,
    spoilt,
)
from tests.e2e.grpc_client import WAIT_S, Metadata, Outcome, RawClient, Receive, undisturbed
from tests.e2e.process import ManagedProcess, Ready

AT_ONCE = 64
PARKED_S = 8.0  # 5 s at least must be left when the server looks, on a busy machine too
REQUEST_SIZE_BYTES_MAX = 16 << 20
METHODS = [
    "QueryRoute",
    "QueryAssignment",
    "SendMessage",
    "ReceiveMessage",
    "AckMessage",
    "ChangeInvisibleDuration",
    "Heartbeat",
    "NotifyClientTermination",
    "ForwardMessageToDeadLetterQueue",
    "EndTransaction",
    "RecallMessage",
    "Telemetry",
]

_numbers = itertools.count(1)


@pytest.fixture
def address(server: Ready) -> str:
    """The proxy's gRPC listener."""
    return server.listeners["proxy.grpc"]


@pytest.fixture
async def client(address: str) -> AsyncIterator[RawClient]:
    """A connection whose client id nobody else has."""
    async with RawClient(address, f"raw-{next(_numbers)}") as raw:
        yield raw


@pytest.fixture(autouse=True)
def nothing_unexpected(server_process: ManagedProcess) -> Iterator[None]:
    """The server lives, and its log has no traceback nor any other line: what clients do wrong is theirs to read.

    But for one that is the operator's to read: that members of one group, as those here are, want different things.
    """
    server_process.wait_ready()
    before = unexpected(server_process.log)
    yield
    assert server_process.exit_code is None
    assert unexpected(server_process.log) == before


def unexpected(text: str) -> list[str]:
    """The lines of a log but for those on groups whose members differ."""
    return [line for line in text.splitlines() if "groups: the members of consumer group" not in line]


def method_of(kind: str) -> str:
    """ "query_route" → "QueryRoute", "telemetry of a producer" → "Telemetry"."""
    return "".join(word.capitalize() for word in kind.split(" ", maxsplit=1)[0].split("_"))


def fields_of(what: str, request: Message) -> set[str]:
    """The names by which a refusal may call a spoilt field: its own or a parent's, or that of the choice it belongs to.

    Of a field that lies deep the outermost message is no help to anybody, and does not count.
    """
    path = re.split(r"[ \[]", what)[0].split(".")
    names = set(path if len(path) < 3 else path[1:])
    descriptor: Any = request.DESCRIPTOR
    for name in path:
        field = descriptor.fields_by_name[name]
        if field.containing_oneof is not None:
            names.add(field.containing_oneof.name)
        descriptor = field.message_type
    return names


async def ensure_topic(client: RawClient, topic: str = "T") -> None:
    """Have the topic made, as any client's first request for its route does."""
    request = v2.QueryRouteRequest(topic=defs.Resource(name=topic), endpoints=ENDPOINTS)
    assert [status.name for status in await client.call("QueryRoute", request.SerializeToString())] == ["OK"]


# ---- each field ----


@pytest.mark.parametrize("kind", REQUESTS)
async def test_each_field_however_spoilt_is_refused_by_its_name(address: str, client: RawClient, kind: str) -> None:
    """Either the request is served as if it were good, or a status of the client's fault names the field."""
    method = method_of(kind)
    await ensure_topic(client)
    stream = await client.introduce(good_settings(is_producer=False))
    timeout_s = PARKED_S if method == "ReceiveMessage" else WAIT_S
    good = set()
    for _ in range(2):  # a client's second termination finds nobody, a message's second acknowledgement no message
        good |= {outcome.code for outcome in await client.call(method, REQUESTS[kind]().SerializeToString())}
    turns = asyncio.Semaphore(AT_ONCE if method != "ReceiveMessage" else 1024)
    wrong: list[str] = []

    async def try_one(what: str, spoil: Spoil) -> None:
        request = REQUESTS[kind]()
        spoil(request)
        async with turns:
            outcomes = await client.call(method, request.SerializeToString(), timeout_s=timeout_s)
        for outcome in outcomes:
            if outcome.code in good or outcome.name in ("OK", "MULTIPLE_RESULTS", "MESSAGE_NOT_FOUND"):
                continue
            is_documented = Code.BAD_REQUEST <= outcome.code < Code.INTERNAL_ERROR or outcome.name == "NOT_IMPLEMENTED"
            if not is_documented or not any(name in outcome.text for name in fields_of(what, request)):
                wrong.append(f"{what}: {outcome}")

    async with undisturbed(address):
        await asyncio.gather(*(try_one(what, spoil) for what, spoil in spoilt(REQUESTS[kind]().DESCRIPTOR)))
    stream.cancel()
    assert not wrong


# ---- metadata and bytes ----


@pytest.mark.parametrize(
    ("client_id", "code"),
    [
        pytest.param(None, "CLIENT_ID_REQUIRED", id="missing"),
        pytest.param("", "CLIENT_ID_REQUIRED", id="empty"),
        pytest.param("   ", "CLIENT_ID_REQUIRED", id="blank"),
        pytest.param("x" * 256, "BAD_REQUEST", id="too long"),
        pytest.param("x" * 12_000, "BAD_REQUEST", id="far too long"),
    ],
)
async def test_a_client_needs_an_id(client: RawClient, client_id: str | None, code: str) -> None:
    """Every method says so by naming the metadata's key."""
    metadata = (("x-mq-language", "JAVA"), *([("x-mq-client-id", client_id)] if client_id is not None else []))
    for method in METHODS:
        (outcome,) = await client.call(method, b"", metadata=metadata)
        assert (method, outcome.name) == (method, code)
        assert "x-mq-client-id" in outcome.text


async def test_metadata_beyond_its_bound_ends_the_call_alone(address: str, client: RawClient) -> None:
    """RESOURCE_EXHAUSTED of gRPC's own; the same connection goes on."""
    async with undisturbed(address):
        for method in ("SendMessage", "ReceiveMessage", "Telemetry"):
            with pytest.raises(grpc.RpcError) as caught:
                await client.call(method, b"", metadata=(("x-mq-client-id", "x" * 100_000),))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await ensure_topic(client)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("x-mq-language", "KLINGON"),
        ("x-mq-language", ""),
        ("x-mq-date-time", "yesterday"),
        ("x-mq-date-time", "20269999T999999Z"),
        ("x-mq-client-version", "x" * 4_000),
        ("x-mq-client-version", "a version"),
        ("x-mq-namespace", "%&?"),
        ("x-mq-request-id", "x" * 4_000),
        ("authorization", "MQv2-HMAC-SHA1 Credential="),
        ("traceparent", "00-nonsense"),
        ("traceparent", "x" * 4_000),
        ("tracestate", ",=,=,,"),
    ],
)
async def test_odd_metadata_that_nothing_hangs_on_is_let_pass(client: RawClient, key: str, value: str) -> None:
    """Sends, settings and heartbeats go well; without access control nobody looks at dates and signatures."""
    odd: Metadata = (*(pair for pair in client.metadata if pair[0] != key), (key, value))
    if key == "tracestate":
        odd = (*odd, ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
    await ensure_topic(client)
    heartbeat = v2.HeartbeatRequest(client_type=defs.PRODUCER)
    for method, request in (
        ("Telemetry", good_settings(is_producer=True)),
        ("SendMessage", good_send()),
        ("Heartbeat", heartbeat),
    ):
        outcomes = await client.call(method, request.SerializeToString(), metadata=odd)
        assert {outcome.name for outcome in outcomes} == {"OK"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\xff" * 20, id="no tag"),
        pytest.param(b"\x0a\xff\xff\xff\xff\x0f", id="a length beyond the end"),
        pytest.param(b"\x0b" * 50_000, id="groups without end"),
        pytest.param(b"\x0a\x03\x0a\x01\xff", id="a text that is no UTF-8"),
    ],
)
async def test_bytes_that_are_no_request_are_a_bad_request(client: RawClient, method: str, payload: bytes) -> None:
    """The text names the message that they are not, or a field where protobuf does not look so closely."""
    (outcome,) = await client.call(method, payload)
    assert outcome.name == "BAD_REQUEST"
    assert "of protobuf" in outcome.text or "command" in outcome.text


async def test_a_request_beyond_the_bound_ends_the_call_alone(address: str, client: RawClient) -> None:
    """RESOURCE_EXHAUSTED with the bound; what is just within is looked at."""
    async with undisturbed(address):
        for method in ("SendMessage", "ReceiveMessage", "Telemetry"):
            with pytest.raises(grpc.RpcError) as caught:
                await client.call(method, bytes(REQUEST_SIZE_BYTES_MAX + 1))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert str(REQUEST_SIZE_BYTES_MAX) in (caught.value.details() or "")
        (outcome,) = await client.call("Heartbeat", bytes(REQUEST_SIZE_BYTES_MAX))
        assert outcome.name == "BAD_REQUEST"


@pytest.mark.parametrize("method", ["PullMessage", "UpdateOffset", "GetOffset", "QueryOffset", "Nonsense"])
async def test_methods_that_are_not_served_are_unimplemented(client: RawClient, method: str) -> None:
    """UNIMPLEMENTED of gRPC's own, as from Apache's proxy."""
    with pytest.raises(grpc.RpcError) as caught:
        await client.response(method, b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_connection_that_does_not_speak_grpc_is_its_own_loss(address: str) -> None:
    """HTTP/1, TLS, noise, and an HTTP/2 preface that nothing follows."""
    host, _, port = address.rpartition(":")
    raw = (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b'\x00\x00\x00\x08\x00\x00\x00\x04{"co',
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 9_000,
    )
    async with undisturbed(address):
        with contextlib.ExitStack() as opened:
            for payload in raw:
                connection = opened.enter_context(socket.create_connection((host, int(port)), timeout=WAIT_S))
                connection.sendall(payload)


async def test_a_connection_that_breaks_amid_everything(address: str) -> None:
    """Sends, receives, acknowledgements and streams are under way when it is gone; its client comes back and is served.

    Each time after a while longer, so that it breaks at another place.
    """
    calls = [(method_of(kind), make().SerializeToString()) for kind, make in REQUESTS.items()]
    async with undisturbed(address):
        for turn in range(8):
            async with Relay(address) as relay, RawClient(relay.address, "breaks") as client:
                stream = await client.introduce(good_settings(is_producer=False))
                running = [asyncio.ensure_future(client.call(*call)) for call in calls * 8]
                await asyncio.sleep(turn * 0.01)
                relay.cut()
                await asyncio.gather(*running, return_exceptions=True)  # answered or broken, as it happens
                stream.cancel()
        async with RawClient(address, "breaks") as client:
            await client.introduce(good_settings(is_producer=True))
            send = good_send().SerializeToString()
            assert {outcome.name for outcome in await client.call("SendMessage", send)} == {"OK"}


class Relay:
    """Passes one connection on to `target` until it is cut: both sides read a reset, as of a client that was killed."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._writers: list[asyncio.StreamWriter] = []
        self._copying: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._copying, return_exceptions=True)

    def cut(self) -> None:
        """Reset it."""
        for writer in self._writers:
            if not writer.is_closing():
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, int(self._port))
        self._writers += (writer, far_writer)
        self._copying += (
            asyncio.ensure_future(_copy(reader, far_writer)),
            asyncio.ensure_future(_copy(far_reader, writer)),
        )


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


# ---- settings, heartbeats, streams ----


async def test_heartbeats_and_terminations_need_settings(client: RawClient) -> None:
    """UNRECOGNIZED_CLIENT_TYPE, before settings and after leaving; a Telemetry stream alone is no introduction."""
    heartbeat = v2.HeartbeatRequest(client_type=defs.PRODUCER).SerializeToString()
    assert [outcome.name for outcome in await client.call("Heartbeat", heartbeat)] == ["UNRECOGNIZED_CLIENT_TYPE"]
    silent = client.telemetry()
    await silent.wait_for_connection()
    assert [outcome.name for outcome in await client.call("Heartbeat", heartbeat)] == ["UNRECOGNIZED_CLIENT_TYPE"]
    assert await client.tell([]) == []
    await client.introduce(good_settings(is_producer=True))
    assert [outcome.name for outcome in await client.call("Heartbeat", heartbeat)] == ["OK"]
    for name in ("OK", "UNRECOGNIZED_CLIENT_TYPE"):
        assert [outcome.name for outcome in await client.call("NotifyClientTermination", b"")] == [name]
    assert [outcome.name for outcome in await client.call("Heartbeat", heartbeat)] == ["UNRECOGNIZED_CLIENT_TYPE"]


async def test_settings_twice_and_of_another_kind_are_taken(client: RawClient) -> None:
    """The last ones count; those of a kind that does not fit end the stream and change nothing."""
    producer, consumer = (good_settings(is_producer=kind).SerializeToString() for kind in (True, False))
    assert [outcome.name for outcome in await client.tell([producer, producer, consumer])] == ["OK"] * 3
    mixed = good_settings(is_producer=True)
    mixed.settings.client_type = defs.PUSH_CONSUMER
    lite = good_settings(is_producer=False)
    lite.settings.client_type = defs.LITE_PUSH_CONSUMER
    for wrong in (mixed, lite):
        outcomes = await client.tell([consumer, wrong.SerializeToString(), consumer])
        assert [outcome.name for outcome in outcomes] == ["OK", "UNRECOGNIZED_CLIENT_TYPE"]
        assert "settings.client_type" in outcomes[-1].text
    heartbeat = v2.HeartbeatRequest(client_type=defs.SIMPLE_CONSUMER, group=defs.Resource(name="G"))
    assert [outcome.name for outcome in await client.call("Heartbeat", heartbeat.SerializeToString())] == ["OK"]


async def test_a_stream_that_floods_is_ended(address: str, client: RawClient) -> None:
    """More than 200 commands in ten seconds, read or not: TOO_MANY_REQUESTS. A new stream is welcome."""
    command = good_settings(is_producer=True).SerializeToString()
    async with undisturbed(address):
        outcomes = await client.tell([command] * 1_000)
    assert outcomes[-1].name == "TOO_MANY_REQUESTS"
    assert "commands" in outcomes[-1].text
    assert len(outcomes) <= 201
    assert [outcome.name for outcome in await client.tell([command])] == ["OK"]


async def test_streams_and_receives_without_number(address: str) -> None:
    """Of one client, thousands on one connection: it is refused or waits at its own end, the neighbour is served."""
    request = good_receive()
    request.message_queue.topic.name = "Crowd"
    payload = request.SerializeToString()
    async with undisturbed(address), RawClient(address, "crowd") as crowd, RawClient(address, "crowd") as second:
        await ensure_topic(crowd, "Crowd")
        await crowd.introduce(good_settings(is_producer=False))
        receives = [one.receive(payload, timeout_s=WAIT_S) for _ in range(700) for one in (crowd, second)]
        refused = await first_of(receives)
        assert (refused.name, "receives" in refused.text) == ("TOO_MANY_REQUESTS", True)
        streams = [crowd.telemetry() for _ in range(1_500)]
        await asyncio.sleep(0.2)
        for stream in streams:
            stream.cancel()
        await ensure_topic(second)


async def first_of(receives: list[Receive]) -> Outcome:
    """The first status that comes in answer to any of them; then the others are given up."""
    reads = [asyncio.ensure_future(receive.read()) for receive in receives]
    done, _ = await asyncio.wait(reads, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
    data = next(iter(done)).result()
    for receive in receives:
        receive.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
    assert isinstance(data, bytes)
    status = v2.ReceiveMessageResponse.FromString(data).status
    return Outcome(status.code, status.message)


# ---- receives ----


async def test_the_deadline_of_a_receive(address: str, client: RawClient) -> None:
    """Below 5 s nothing can be waited for: ILLEGAL_POLLING_TIME; with 6.5 s or none an empty answer comes in time."""
    await ensure_topic(client, "Empty")
    request = good_receive()
    request.message_queue.topic.name = "Empty"
    payload = request.SerializeToString()

    async def received(timeout_s: float | None, raw: RawClient) -> list[str]:
        responses = [
            v2.ReceiveMessageResponse.FromString(data) async for data in raw.receive(payload, timeout_s=timeout_s)
        ]
        return [Code.Name(response.status.code) for response in responses if response.HasField("status")]

    async with undisturbed(address), RawClient(address, "introduced") as introduced:
        with contextlib.suppress(grpc.aio.AioRpcError):  # on a busy machine it is over before the answer comes
            assert await received(0.1, client) == ["ILLEGAL_POLLING_TIME"]
        await introduced.introduce(good_settings(is_producer=False))
        for raw in (client, introduced):  # before settings and after
            assert await received(2.0, raw) == ["ILLEGAL_POLLING_TIME"]
        answers = await asyncio.gather(
            *(received(timeout_s, raw) for timeout_s in (6.5, None) for raw in (client, introduced)),
            received(4.9, introduced),
        )
    assert answers == [["MESSAGE_NOT_FOUND"]] * 4 + [["ILLEGAL_POLLING_TIME"]]


# ---- handles ----


async def popped_handle(client: RawClient, topic: str, group: str) -> str:
    """Send a message and receive it; gives its receipt handle, good for 15 s."""
    await ensure_topic(client, topic)
    await client.introduce(good_settings(is_producer=False))
    send = good_send()
    send.messages[0].topic.name = topic
    receive = good_receive()
    receive.message_queue.topic.name = topic
    receive.group.name = group
    assert {outcome.name for outcome in await client.call("SendMessage", send.SerializeToString())} == {"OK"}
    responses = [
        v2.ReceiveMessageResponse.FromString(data) async for data in client.receive(receive.SerializeToString())
    ]
    return next(
        response.message.system_properties.receipt_handle for response in responses if response.HasField("message")
    )


def ack(topic: str, group: str, *handles: str) -> bytes:
    entries = [v2.AckMessageEntry(message_id="M", receipt_handle=handle) for handle in handles]
    names = {"topic": defs.Resource(name=topic), "group": defs.Resource(name=group)}
    return v2.AckMessageRequest(entries=entries, **names).SerializeToString()


def change(topic: str, group: str, handle: str) -> bytes:
    request = v2.ChangeInvisibleDurationRequest(receipt_handle=handle, message_id="M")
    request.topic.name, request.group.name = topic, group
    request.invisible_duration.FromSeconds(20)
    return request.SerializeToString()


async def test_handles_of_others_settle_nothing(client: RawClient) -> None:
    """Another group's, topic's or broker's, a spoilt one: refused entry by entry; the good one still acknowledges.

    Under another group's or topic's name an acknowledgement may be answered OK, as a repeated one is: nothing is done.
    """
    handle = await popped_handle(client, "Handles", "G_handles")
    elsewhere = handle.replace(handle.split(" ")[5], "nobody")
    for topic, group, sent, code in (
        ("Handles", "G_others", handle, "INVALID_RECEIPT_HANDLE"),
        ("T", "G_handles", handle, "INVALID_RECEIPT_HANDLE"),
        ("No_such_topic", "G_handles", handle, "INVALID_RECEIPT_HANDLE"),
        ("Handles", "G_handles", elsewhere, "BAD_REQUEST"),
        ("Handles", "G_handles", handle[:-1] + "x", "INVALID_RECEIPT_HANDLE"),
        ("Handles", "G_handles", "", "INVALID_RECEIPT_HANDLE"),
    ):
        acknowledged = await client.call("AckMessage", ack(topic, group, sent))
        assert {outcome.name for outcome in acknowledged} <= {code, *(["OK"] if sent == handle else [])}
        (changed,) = await client.call("ChangeInvisibleDuration", change(topic, group, sent))
        assert (changed.name, "receipt_handle" in changed.text or "no broker" in changed.text) == (code, True)
    fields = handle.split(" ")
    beyond = [" ".join([*fields[:place], number, *fields[place + 1 :]]) for place, number in enumerate_extremes()]
    outcomes = await client.call("AckMessage", ack("Handles", "G_handles", *beyond, handle))
    assert outcomes[0].name == "MULTIPLE_RESULTS"
    assert {outcome.name for outcome in outcomes[1:-1]} == {"INVALID_RECEIPT_HANDLE"}
    assert outcomes[-1].name == "OK"


def enumerate_extremes() -> list[tuple[int, str]]:
    """Places of a handle's numbers that say which message it is, each with the ends of its range and beyond."""
    return [(place, str(number)) for place in (1, 3, 6, 7) for number in (2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64)]


@settings(max_examples=40)
@given(edits=st.lists(st.tuples(st.integers(0, 100), st.characters(codec="utf-8")), min_size=1, max_size=4))
async def test_handles_edited_byte_by_byte(server: Ready, edits: list[tuple[int, str]]) -> None:
    """An acknowledgement of whatever comes of it is answered, each entry by a documented status."""
    async with RawClient(server.listeners["proxy.grpc"], "edits") as client:
        edited, entries = await popped_handle(client, "Edited", "G_edited"), []
        for place, character in edits:
            edited = edited[: place % len(edited)] + character + edited[place % len(edited) + 1 :]
            entries.append(edited)
        whole, *each = await client.call("AckMessage", ack("Edited", "G_edited", *entries))
    assert len(each) == len(entries)
    names = {outcome.name for outcome in each}
    assert names <= {"OK", "BAD_REQUEST", "INVALID_RECEIPT_HANDLE"}
    assert {whole.name} == (names if len(names) == 1 else {"MULTIPLE_RESULTS"})


# ---- sizes and counts ----


def send_of(**message: object) -> v2.SendMessageRequest:
    request = good_send()
    request.messages[0].MergeFrom(defs.Message(**message))  # type: ignore[arg-type]
    return request


def system_of(**properties: object) -> v2.SendMessageRequest:
    return send_of(system_properties=defs.SystemProperties(**properties))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (send_of(body=b"x" * (4 * 1024 * 1024 + 1)), "MESSAGE_BODY_TOO_LARGE", "body"),
        (
            send_of(user_properties={str(number): "v" for number in range(128)}),
            "MESSAGE_PROPERTIES_TOO_LARGE",
            "user_properties",
        ),
        (send_of(user_properties={"k\x01": "v"}), "ILLEGAL_MESSAGE_PROPERTY_KEY", "user_properties"),
        (send_of(user_properties={"k": "v\x02"}), "ILLEGAL_MESSAGE_PROPERTY_KEY", "user_properties"),
        (send_of(user_properties={"k": "v" * 16_385}), "MESSAGE_PROPERTIES_TOO_LARGE", "user_properties"),
        (system_of(tag="a\x00"), "ILLEGAL_MESSAGE_TAG", "tag"),
        (system_of(keys=["a\x7f"]), "ILLEGAL_MESSAGE_KEY", "keys"),
        (system_of(message_id="a\n"), "ILLEGAL_MESSAGE_ID", "message_id"),
        (system_of(message_group="a\x85"), "ILLEGAL_MESSAGE_GROUP", "message_group"),
        (system_of(born_host="a\x1f"), "BAD_REQUEST", "born_host"),
        (system_of(trace_context="a\x02"), "BAD_REQUEST", "trace_context"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_no_message_may_have(
    client: RawClient, request_: v2.SendMessageRequest, code: str, field: str
) -> None:
    """A body of 4 MiB and one byte, 129 properties, control characters: the field's own code."""
    (outcome,) = await client.call("SendMessage", request_.SerializeToString())
    assert (outcome.name, field in outcome.text) == (code, True)


async def test_an_acknowledgement_of_10000_entries_is_refused(client: RawClient) -> None:
    """At most 1,024 at once; none of them is looked at."""
    (outcome,) = await client.call("AckMessage", ack("T", "G", *["x"] * 10_000))
    assert outcome.name == "BAD_REQUEST"
    assert "entries: 10000" in outcome.text
