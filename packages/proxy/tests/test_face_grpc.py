"""The messaging face, by a raw gRPC client through the real door, in front of a service that is told what to answer."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc.aio
import pytest
from apogeemq.mesh.clock import SystemClock
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code, Status
from apogeemq.proxy.core.context import RequestContext
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.faces.grpc.door import GrpcioDoor
from apogeemq.proxy.faces.grpc.face import MessagingFace
from apogeemq.proxy.faces.grpc.port import DoorCall, DoorLimits, TcpAddress
from apogeemq.proxy.faces.spans import ServerSpans
from apogeemq.proxy.service.messaging import MessagingService
from google.protobuf.message import Message
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from packages.proxy.tests.grpc_client import (
    CLIENT,
    SERVICE,
    WAIT_S,
    call,
    call_bytes,
    receive,
    receive_bytes,
    telemetry,
)

UNARY: dict[str, tuple[type[Message], type[Message], str]] = {
    "QueryRoute": (v2.QueryRouteRequest, v2.QueryRouteResponse, "query_route"),
    "QueryAssignment": (v2.QueryAssignmentRequest, v2.QueryAssignmentResponse, "query_assignment"),
    "SendMessage": (v2.SendMessageRequest, v2.SendMessageResponse, "send_message"),
    "AckMessage": (v2.AckMessageRequest, v2.AckMessageResponse, "ack_message"),
    "ChangeInvisibleDuration": (
        v2.ChangeInvisibleDurationRequest,
        v2.ChangeInvisibleDurationResponse,
        "change_invisible_duration",
    ),
    "Heartbeat": (v2.HeartbeatRequest, v2.HeartbeatResponse, "heartbeat"),
    "NotifyClientTermination": (
        v2.NotifyClientTerminationRequest,
        v2.NotifyClientTerminationResponse,
        "notify_client_termination",
    ),
    "ForwardMessageToDeadLetterQueue": (
        v2.ForwardMessageToDeadLetterQueueRequest,
        v2.ForwardMessageToDeadLetterQueueResponse,
        "forward_message_to_dead_letter_queue",
    ),
    "EndTransaction": (v2.EndTransactionRequest, v2.EndTransactionResponse, "end_transaction"),
    "RecallMessage": (v2.RecallMessageRequest, v2.RecallMessageResponse, "recall_message"),
}
"""Method → request, response, and the service's function: the table of reference grpc_v2.md §1 for proxy 5.3.x."""

MALFORMED = b"\x0a\xff\xff\xff\xff\x0f"
"""Field 1 announces more bytes than follow: no message of any type."""

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"00-{TRACE}-{SPAN}-00"

Answer = Callable[[Any, RequestContext], Any]


class Session:
    """A Telemetry session that answers as it is told."""

    def __init__(
        self,
        context: RequestContext,
        send: Callable[[v2.TelemetryCommand], None],
        end: Callable[[ProxyError], None],
    ) -> None:
        self.context = context
        self.send = send
        self.end = end
        self.commands: list[v2.TelemetryCommand] = []
        self.is_closed = asyncio.Event()
        self.on: Callable[[v2.TelemetryCommand], None] = lambda command: None

    async def on_command(self, command: v2.TelemetryCommand) -> None:
        """Note it and do as told."""
        self.commands.append(command)
        self.on(command)

    def closed(self) -> None:
        """Note it."""
        self.is_closed.set()


class Service:
    """A messaging service whose functions are set by a test, all under the names that MessagingService has."""

    def __init__(self) -> None:
        self.contexts: list[RequestContext] = []
        self.answers: dict[str, Answer] = {}
        self.sessions: list[Session] = []
        self.opened = asyncio.Event()
        self.on_open: Callable[[Session], None] = lambda session: None

    def __getattr__(self, name: str) -> Callable[[Any, RequestContext], Any]:
        if name not in {function for _, _, function in UNARY.values()}:
            raise AttributeError(name)

        async def answer(request: Any, context: RequestContext) -> Any:
            self.contexts.append(context)
            given = self.answers[name](request, context)
            return await given if asyncio.iscoroutine(given) else given

        return answer

    def receive_message(
        self, request: v2.ReceiveMessageRequest, context: RequestContext
    ) -> AsyncIterator[v2.ReceiveMessageResponse]:
        """The answer set by a test."""
        self.contexts.append(context)
        return cast("AsyncIterator[v2.ReceiveMessageResponse]", self.answers["receive_message"](request, context))

    def open_telemetry(
        self,
        context: RequestContext,
        send: Callable[[v2.TelemetryCommand], None],
        end: Callable[[ProxyError], None],
        has_room: Callable[[], bool],
    ) -> Session:
        """A new session."""
        session = Session(context, send, end)
        self.on_open(session)
        self.sessions.append(session)
        self.opened.set()
        return session


class Rig:
    """A face behind a door, and a client in front of it."""

    def __init__(self, backlog_max: int = 256) -> None:
        self.service = Service()
        self.observed: list[tuple[str, str]] = []
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.face = MessagingFace(
            cast("MessagingService", self.service),
            clock=SystemClock(),
            spans=ServerSpans(provider.get_tracer("test"), "grpc"),
            observe=lambda method, code, seconds: self.observed.append((method, code)),
            request_timeout_s=30.0,
            telemetry_backlog_max=backlog_max,
        )
        self.channel: grpc.aio.Channel

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Rig]:
        """Serve, and connect a client."""
        door = GrpcioDoor(DoorLimits(), clock=SystemClock())
        listening = await door.serve(TcpAddress("127.0.0.1", 0), self.face.handlers)
        try:
            async with (
                grpc.aio.insecure_channel(f"127.0.0.1:{listening.port}") as self.channel,
                asyncio.timeout(WAIT_S),
            ):
                yield self
        finally:
            self.face.stop()
            await listening.stop(0.0)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A face that is served."""
    async with Rig().running() as running:
        yield running


def ok(response_type: type[Message]) -> Message:
    """A response with status OK."""
    made: Any = response_type()
    made.status.CopyFrom(Status(code=Code.OK, message="OK"))
    return cast("Message", made)


@pytest.mark.parametrize("method", UNARY)
async def test_each_unary_method_reaches_its_function(rig: Rig, method: str) -> None:
    """The function gets the request and who asks; its response comes back as it is."""
    request_type, response_type, function = UNARY[method]
    seen: list[Message] = []

    def answer(request: Message, context: RequestContext) -> Message:
        seen.append(request)
        return ok(response_type)

    rig.service.answers[function] = answer
    assert await call(rig.channel, method, request_type(), response_type) == ok(response_type)
    assert seen == [request_type()]
    assert rig.service.contexts[0].client_id == "client-1"
    assert rig.observed == [(method, "OK")]


@pytest.mark.parametrize("method", UNARY)
async def test_malformed_bytes_are_a_bad_request(rig: Rig, method: str) -> None:
    """Bytes that are no message get BAD_REQUEST that names the message, not an error of the transport."""
    request_type, response_type, _ = UNARY[method]
    answer: Any = response_type.FromString(await call_bytes(rig.channel, method, MALFORMED))
    assert answer.status.code == Code.BAD_REQUEST
    assert request_type.DESCRIPTOR.name in answer.status.message
    assert rig.observed == [(method, "BAD_REQUEST")]


@pytest.mark.parametrize("method", UNARY)
@pytest.mark.parametrize("client_id", [None, "", "  "])
async def test_a_client_id_is_required(rig: Rig, method: str, client_id: str | None) -> None:
    """Without x-mq-client-id each method answers CLIENT_ID_REQUIRED (40017)."""
    request_type, response_type, _ = UNARY[method]
    metadata = () if client_id is None else (("x-mq-client-id", client_id),)
    answer: Any = await call(rig.channel, method, request_type(), response_type, metadata)
    assert answer.status.code == 40017
    assert "x-mq-client-id" in answer.status.message


async def test_a_client_id_has_a_bound(rig: Rig) -> None:
    """Ids are kept per client: one of a thousand characters is refused."""
    answer = await call(
        rig.channel, "Heartbeat", v2.HeartbeatRequest(), v2.HeartbeatResponse, (("x-mq-client-id", "x" * 1000),)
    )
    assert answer.status.code == Code.BAD_REQUEST
    assert "x-mq-client-id" in answer.status.message


async def test_a_language_that_no_name_is_so_long_is_refused(rig: Rig) -> None:
    """It is kept with the client: 64 characters, not the 16 KiB that metadata may have."""
    rig.service.answers["heartbeat"] = lambda request, context: ok(v2.HeartbeatResponse)
    for size, code in ((64, Code.OK), (65, Code.BAD_REQUEST)):
        metadata = (("x-mq-client-id", "c"), ("x-mq-language", "x" * size))
        answer = await call(rig.channel, "Heartbeat", v2.HeartbeatRequest(), v2.HeartbeatResponse, metadata)
        assert answer.status.code == code
    assert "x-mq-language" in answer.status.message


async def test_metadata_becomes_the_context(rig: Rig) -> None:
    """Everything that the service learns of a client comes from its metadata, its connection and its deadline."""
    rig.service.answers["heartbeat"] = lambda request, context: ok(v2.HeartbeatResponse)
    metadata = (*CLIENT, ("x-mq-namespace", "space"), ("x-mq-request-id", "r-1"))
    before = SystemClock().monotonic()
    await call_bytes(rig.channel, "Heartbeat", b"", metadata, timeout_s=100.0)
    [context] = rig.service.contexts
    assert (context.language, context.client_version) == ("JAVA", "5.2.0")
    assert (context.namespace, context.request_id) == ("space", "r-1")
    assert context.peer.startswith("127.0.0.1:")
    assert context.peer_host == bytes([127, 0, 0, 1]) + int(context.peer.rpartition(":")[2]).to_bytes(4, "big")
    # grpc writes a timeout of 100 s in whole seconds, rounded up.
    assert before + 90 < context.deadline <= SystemClock().monotonic() + 102


async def test_a_request_without_deadline_gets_one(rig: Rig) -> None:
    """The setting's, so that nothing waits for ever."""
    rig.service.answers["receive_message"] = lambda request, context: one(Code.MESSAGE_NOT_FOUND)
    before = SystemClock().monotonic()
    async for _ in receive_bytes(rig.channel, b"", timeout_s=None):
        pass
    [context] = rig.service.contexts
    assert before + 30 <= context.deadline <= SystemClock().monotonic() + 30


async def test_a_refusal_is_the_responses_status(rig: Rig) -> None:
    """ProxyError becomes code and message of the response; the gRPC status stays OK."""

    def refuse(request: Message, context: RequestContext) -> Message:
        raise ProxyError(Code.TOPIC_NOT_FOUND, "no topic T")

    rig.service.answers["query_route"] = refuse
    answer = await call(rig.channel, "QueryRoute", v2.QueryRouteRequest(), v2.QueryRouteResponse)
    assert answer == v2.QueryRouteResponse(status=Status(code=Code.TOPIC_NOT_FOUND, message="no topic T"))
    assert rig.observed == [("QueryRoute", "TOPIC_NOT_FOUND")]


async def test_a_failure_is_an_internal_server_error(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """What nobody expected is logged with the client's id; the client reads nothing of it."""

    def fail(request: Message, context: RequestContext) -> Message:
        raise KeyError("the secret")

    rig.service.answers["send_message"] = fail
    with caplog.at_level(logging.ERROR):
        answer = await call(rig.channel, "SendMessage", v2.SendMessageRequest(), v2.SendMessageResponse)
    assert answer.status.code == Code.INTERNAL_SERVER_ERROR
    assert "secret" not in answer.status.message
    assert "client-1" in caplog.text
    assert "the secret" in caplog.text


@pytest.mark.parametrize("method", ["PullMessage", "UpdateOffset", "GetOffset", "QueryOffset", "SyncLiteSubscription"])
async def test_methods_that_are_not_served_are_unimplemented(rig: Rig, method: str) -> None:
    """As in Apache's proxy 5.3."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call_bytes(rig.channel, method, b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


# -- ReceiveMessage


async def one(code: int) -> AsyncIterator[v2.ReceiveMessageResponse]:
    """An answer of one status."""
    yield v2.ReceiveMessageResponse(status=Status(code=cast("Code", code)))


async def test_receive_streams_what_the_service_yields(rig: Rig) -> None:
    """One response after another, in order."""

    async def three(request: v2.ReceiveMessageRequest, context: RequestContext) -> AsyncIterator[object]:
        yield v2.ReceiveMessageResponse(status=Status(code=Code.OK))
        yield v2.ReceiveMessageResponse(message={"body": b"1"})
        yield v2.ReceiveMessageResponse(delivery_timestamp={"seconds": 1})

    rig.service.answers["receive_message"] = three
    got = await receive(rig.channel, v2.ReceiveMessageRequest())
    assert [response.WhichOneof("content") for response in got] == ["status", "message", "delivery_timestamp"]
    assert rig.observed == [("ReceiveMessage", "OK")]


@pytest.mark.parametrize(
    ("payload", "metadata", "code"),
    [(MALFORMED, CLIENT, Code.BAD_REQUEST), (b"", (), Code.CLIENT_ID_REQUIRED)],
)
async def test_a_receive_that_cannot_be_read_gets_a_status(
    rig: Rig, payload: bytes, metadata: tuple[tuple[str, str], ...], code: int
) -> None:
    """Malformed bytes and a missing client id are a Status on the stream, which then ends in good order."""
    stream = receive_bytes(rig.channel, payload, metadata)
    got = [v2.ReceiveMessageResponse.FromString(data) async for data in stream]
    assert [response.status.code for response in got] == [code]
    assert await stream.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProxyError(Code.ILLEGAL_POLLING_TIME, "too short"), Code.ILLEGAL_POLLING_TIME),
        (KeyError("the secret"), Code.INTERNAL_SERVER_ERROR),
    ],
)
async def test_a_receive_that_fails_gets_a_status(rig: Rig, error: Exception, code: int) -> None:
    """Refusals and failures of a receive are a Status on the stream, also when they are raised before any wait."""

    async def fail(request: v2.ReceiveMessageRequest, context: RequestContext) -> AsyncIterator[object]:
        raise error
        yield  # makes it a generator

    def fail_at_once(request: v2.ReceiveMessageRequest, context: RequestContext) -> AsyncIterator[object]:
        raise error

    for answer in (fail, fail_at_once):
        rig.service.answers["receive_message"] = answer
        got = await receive(rig.channel, v2.ReceiveMessageRequest())
        assert [response.status.code for response in got] == [code]
        assert "secret" not in got[0].status.message


class HeldReceive:
    """A receive that waits for messages which never come."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(
        self, request: v2.ReceiveMessageRequest, context: RequestContext
    ) -> AsyncIterator[v2.ReceiveMessageResponse]:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        yield v2.ReceiveMessageResponse()


async def test_a_receive_that_is_cancelled_ends_at_the_service(rig: Rig) -> None:
    """A client that does not wait any more takes its poll with it."""
    held = HeldReceive()
    rig.service.answers["receive_message"] = held
    stream = receive_bytes(rig.channel, b"")
    await held.begun.wait()
    stream.cancel()
    await held.ended.wait()


@pytest.mark.parametrize(
    ("error", "logged"),
    [(ProxyError(Code.TOPIC_NOT_FOUND, "no T"), ""), (KeyError("unexpected"), "its client went")],
)
async def test_a_refusal_of_a_client_that_is_gone_is_no_news(
    rig: Rig, caplog: pytest.LogCaptureFixture, error: Exception, logged: str
) -> None:
    """Refused in the very moment of the cancel: nobody reads it, and the log does not either unless it is a failure."""
    begun = asyncio.Event()

    async def fail_when_cancelled(
        request: v2.ReceiveMessageRequest, context: RequestContext
    ) -> AsyncIterator[v2.ReceiveMessageResponse]:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise error from None
        yield v2.ReceiveMessageResponse()

    rig.service.answers["receive_message"] = fail_when_cancelled
    handler = rig.face.handlers.server_streams[f"/{SERVICE}/ReceiveMessage"]
    call = DoorCall("ReceiveMessage", dict(CLIENT), "127.0.0.1:1", None)
    receiving = asyncio.ensure_future(aiter(handler(call, b"")).__anext__())
    await begun.wait()
    with caplog.at_level(logging.ERROR):
        receiving.cancel()
        await asyncio.wait({receiving})
        gc.collect()
    assert receiving.cancelled()
    assert logged in caplog.text
    assert "never retrieved" not in caplog.text


async def test_a_receive_ends_with_its_deadline(rig: Rig) -> None:
    """So does one whose deadline has passed."""
    held = HeldReceive()
    rig.service.answers["receive_message"] = held
    stream = receive_bytes(rig.channel, b"", timeout_s=0.3)
    await held.ended.wait()
    assert await stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_stop_answers_receives_that_wait(rig: Rig) -> None:
    """They get MESSAGE_NOT_FOUND and the time, which makes a client ask again elsewhere; the poll is given up."""
    held = HeldReceive()
    rig.service.answers["receive_message"] = held
    receiving = asyncio.ensure_future(receive(rig.channel, v2.ReceiveMessageRequest()))
    await held.begun.wait()
    rig.face.stop()
    status, delivered = await receiving
    assert status.status.code == Code.MESSAGE_NOT_FOUND
    assert delivered.WhichOneof("content") == "delivery_timestamp"
    assert held.ended.is_set()


# -- Telemetry


def settings(number: int = 0) -> v2.TelemetryCommand:
    """A command that can be told from others."""
    command = v2.TelemetryCommand()
    command.settings.user_agent.version = str(number)
    return command


async def test_telemetry_answers_commands(rig: Rig) -> None:
    """Commands reach the session one after another, and what it sends reaches the client, also unasked."""

    def answer_all(session: Session) -> None:
        session.on = session.send

    rig.service.on_open = answer_all
    stream = telemetry(rig.channel)
    for number in range(3):
        await stream.write(settings(number).SerializeToString())
        assert v2.TelemetryCommand.FromString(cast("bytes", await stream.read())) == settings(number)
    [session] = rig.service.sessions
    session.send(settings(9))
    assert v2.TelemetryCommand.FromString(cast("bytes", await stream.read())) == settings(9)
    assert rig.face.telemetry_streams == 1
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    await session.is_closed.wait()
    assert rig.face.telemetry_streams == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProxyError(Code.BAD_REQUEST, "settings.…"), grpc.StatusCode.INVALID_ARGUMENT),
        (ProxyError(Code.TOO_MANY_REQUESTS, "…"), grpc.StatusCode.INVALID_ARGUMENT),
        (ProxyError(Code.NOT_IMPLEMENTED, "…"), grpc.StatusCode.INVALID_ARGUMENT),
        (ProxyError(Code.INTERNAL_SERVER_ERROR, "…"), grpc.StatusCode.INTERNAL),
        (KeyError("the secret"), grpc.StatusCode.INTERNAL),
    ],
)
async def test_a_refused_command_ends_the_stream(rig: Rig, error: Exception, code: grpc.StatusCode) -> None:
    """4xxxx and NOT_IMPLEMENTED: INVALID_ARGUMENT, else INTERNAL (grpc_v2.md §4); the session learns of the end."""

    def refuse(command: v2.TelemetryCommand) -> None:
        raise error

    def refuse_all(session: Session) -> None:
        session.on = refuse

    rig.service.on_open = refuse_all
    stream = telemetry(rig.channel)
    await stream.write(settings().SerializeToString())
    assert await stream.code() is code
    assert "secret" not in await stream.details()
    await rig.service.sessions[0].is_closed.wait()


async def test_malformed_telemetry_ends_the_stream(rig: Rig) -> None:
    """With INVALID_ARGUMENT; what was sent before it has been handled."""
    stream = telemetry(rig.channel)
    await stream.write(settings(1).SerializeToString())
    await stream.write(MALFORMED)
    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "TelemetryCommand" in await stream.details()
    assert rig.service.sessions[0].commands == [settings(1)]


async def test_telemetry_needs_a_client_id(rig: Rig) -> None:
    """A stream of nobody is refused with INVALID_ARGUMENT that names the metadata."""
    stream = telemetry(rig.channel, ())
    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "x-mq-client-id" in await stream.details()


async def test_a_refused_telemetry_stream_has_no_session(rig: Rig) -> None:
    """open_telemetry may refuse, for example when there are too many clients."""

    def refuse(session: Session) -> None:
        raise ProxyError(Code.TOO_MANY_REQUESTS, "50000 clients")

    rig.service.on_open = refuse
    stream = telemetry(rig.channel)
    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "50000 clients" in await stream.details()
    assert rig.face.telemetry_streams == 0


async def test_a_lost_client_closes_its_session(rig: Rig) -> None:
    """However the stream ended, the session is told."""
    stream = telemetry(rig.channel)
    await rig.service.opened.wait()
    stream.cancel()
    await rig.service.sessions[0].is_closed.wait()


async def test_a_call_that_is_cancelled_twice_closes_its_session(rig: Rig) -> None:
    """A client is lost while the proxy stops, and what reads its commands takes its time to end."""
    reading, ending, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def commands() -> AsyncIterator[bytes]:
        try:
            reading.set()
            await asyncio.Event().wait()
            yield b""
        finally:
            ending.set()
            await may_end.wait()

    metadata = {"x-mq-client-id": "c"}
    handler = rig.face.handlers.bidi[f"/{SERVICE}/Telemetry"]
    answers = handler(DoorCall("Telemetry", metadata, "127.0.0.1:5", None), commands())
    call_task = asyncio.ensure_future(anext(aiter(answers)))
    async with asyncio.timeout(WAIT_S):
        await reading.wait()
        call_task.cancel()
        await ending.wait()
        call_task.cancel()
        await rig.service.sessions[0].is_closed.wait()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await call_task


async def test_the_service_may_end_a_stream(rig: Rig) -> None:
    """Of a client that it gave up: what was written before arrives, then the reason; the session is closed."""
    stream = telemetry(rig.channel)
    await rig.service.opened.wait()
    session = rig.service.sessions[0]
    session.send(settings(1))
    session.end(ProxyError(Code.REQUEST_TIMEOUT, "nothing came"))
    assert v2.TelemetryCommand.FromString(cast("bytes", await stream.read())) == settings(1)
    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await stream.details() == "REQUEST_TIMEOUT: nothing came"
    await session.is_closed.wait()


async def test_stop_ends_telemetry_streams(rig: Rig) -> None:
    """In good order, after what was still to be written; one that comes later is ended at once."""
    stream = telemetry(rig.channel)
    await rig.service.opened.wait()
    rig.service.sessions[0].send(settings(1))
    rig.face.stop()
    assert v2.TelemetryCommand.FromString(cast("bytes", await stream.read())) == settings(1)
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    assert await telemetry(rig.channel).code() is grpc.StatusCode.OK


async def test_a_flood_of_commands_is_slowed_down() -> None:
    """A client that does not read the answers stops its commands being taken at half of the backlog."""
    answer = settings()
    answer.settings.user_agent.hostname = "x" * (1 << 20)  # large, so that the connection itself holds few of them

    def answer_all(session: Session) -> None:
        session.on = lambda command: session.send(answer)

    async with Rig(backlog_max=8).running() as rig:
        rig.service.on_open = answer_all
        stream = telemetry(rig.channel)
        flooding = asyncio.ensure_future(flood(stream, 200))
        await rig.service.opened.wait()
        [session] = rig.service.sessions
        taken = -1
        while taken < len(session.commands) or not taken:
            taken = len(session.commands)
            await asyncio.wait({flooding}, timeout=0.3)
        assert taken < 100
        for _ in range(200):
            assert await stream.read() is not grpc.aio.EOF
        await flooding
        assert len(session.commands) == 200
        stream.cancel()


async def flood(stream: grpc.aio.StreamStreamCall[bytes, bytes], count: int) -> None:
    """Send commands as fast as may be."""
    for number in range(count):
        await stream.write(settings(number).SerializeToString())


async def test_commands_of_our_own_have_a_bound() -> None:
    """A client that reads nothing is let go once more commands wait for it than may."""
    async with Rig(backlog_max=8).running() as rig:
        stream = telemetry(rig.channel)
        await rig.service.opened.wait()
        [session] = rig.service.sessions
        for number in range(9):  # without a turn for the writer
            session.send(settings(number))
        assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await session.is_closed.wait()
        session.send(settings())  # no error after the end


# -- traces


def send_request(**properties: str) -> v2.SendMessageRequest:
    """A send of one message with these user properties."""
    request = v2.SendMessageRequest()
    request.messages.add(user_properties=properties)
    return request


def traced(trace_context: str) -> v2.SendMessageRequest:
    """A send of one message with this system property."""
    request = v2.SendMessageRequest()
    request.messages.add(system_properties={"trace_context": trace_context})
    return request


@pytest.mark.parametrize(
    ("metadata", "request_"),
    [
        ((("traceparent", SAMPLED),), v2.SendMessageRequest()),
        ((), send_request(traceparent=SAMPLED)),
        ((), traced(SAMPLED)),
        ((("traceparent", SAMPLED),), send_request(traceparent=SAMPLED.replace("0af7", "ffff"))),
    ],
    ids=["metadata", "property", "system property", "metadata first"],
)
async def test_a_sampled_send_has_a_span(
    rig: Rig, metadata: tuple[tuple[str, str], ...], request_: v2.SendMessageRequest
) -> None:
    """A SERVER span whose parent comes from the metadata, else from the first message; current for the service."""
    currents: list[int] = []

    def answer(request: v2.SendMessageRequest, context: RequestContext) -> Message:
        currents.append(trace.get_current_span().get_span_context().span_id)
        return ok(v2.SendMessageResponse)

    rig.service.answers["send_message"] = answer
    await call(rig.channel, "SendMessage", request_, v2.SendMessageResponse, (*CLIENT, *metadata))
    [span] = rig.exporter.get_finished_spans()
    assert span.name == f"{SERVICE}/SendMessage"
    assert span.kind is trace.SpanKind.SERVER
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}/{span.parent.span_id:016x}" == f"{TRACE}/{SPAN}"
    assert currents == [span.context.span_id]
    assert span.attributes is not None
    assert span.attributes["rpc.response.status_code"] == "OK"
    assert span.status.is_unset


async def test_an_unsampled_trace_travels_without_a_span(rig: Rig) -> None:
    """The context is the current one, so that nobody further down begins a trace; no span is made."""
    currents: list[str] = []

    def answer(request: v2.SendMessageRequest, context: RequestContext) -> Message:
        currents.append(f"{trace.get_current_span().get_span_context().trace_id:032x}")
        return ok(v2.SendMessageResponse)

    rig.service.answers["send_message"] = answer
    metadata = (*CLIENT, ("traceparent", UNSAMPLED))
    await call(rig.channel, "SendMessage", v2.SendMessageRequest(), v2.SendMessageResponse, metadata)
    assert currents == [TRACE]
    assert rig.exporter.get_finished_spans() == ()


@pytest.mark.parametrize("traceparent", [None, "", "nonsense", SAMPLED[:-3]])
async def test_no_trace_makes_no_span(rig: Rig, traceparent: str | None) -> None:
    """Nor does a malformed context, which counts as absent."""
    rig.service.answers["heartbeat"] = lambda request, context: ok(v2.HeartbeatResponse)
    metadata = CLIENT if traceparent is None else (*CLIENT, ("traceparent", traceparent))
    await call(rig.channel, "Heartbeat", v2.HeartbeatRequest(), v2.HeartbeatResponse, metadata)
    assert rig.exporter.get_finished_spans() == ()


async def test_a_span_tells_the_proxys_faults(rig: Rig) -> None:
    """A code of 5xxxx is an error of the span; what the client did wrong is an answer like any other."""
    codes = [Code.PROXY_TIMEOUT, Code.ILLEGAL_TOPIC]

    def refuse(request: Message, context: RequestContext) -> Message:
        raise ProxyError(codes.pop(0), "no")

    rig.service.answers["query_route"] = refuse
    metadata = (*CLIENT, ("traceparent", SAMPLED))
    for _ in range(2):
        await call(rig.channel, "QueryRoute", v2.QueryRouteRequest(), v2.QueryRouteResponse, metadata)
    late, illegal = rig.exporter.get_finished_spans()
    assert (late.status.is_ok, late.status.description) == (False, "PROXY_TIMEOUT")
    assert illegal.status.is_unset
    assert illegal.attributes is not None
    assert illegal.attributes["rpc.response.status_code"] == "ILLEGAL_TOPIC"


async def test_a_receive_has_its_span(rig: Rig) -> None:
    """The span is open until the stream has ended, and says what the Status said."""
    rig.service.answers["receive_message"] = lambda request, context: one(Code.MESSAGE_NOT_FOUND)
    await receive(rig.channel, v2.ReceiveMessageRequest(), (*CLIENT, ("traceparent", SAMPLED)))
    [span] = rig.exporter.get_finished_spans()
    assert span.name == f"{SERVICE}/ReceiveMessage"
    assert span.attributes is not None
    assert span.attributes["rpc.response.status_code"] == "MESSAGE_NOT_FOUND"
