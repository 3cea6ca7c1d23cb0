"""A dumb proxy in the test's own process: answers from the reference, remembers what it was asked, fails on command.

For the order of calls and for faults; what a real proxy does is tried against a real one (tests/e2e).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import inspect
import itertools
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import grpc
import grpc.aio
import pytest
from apogeemq.client_grpc.methods import SERVICE
from apogeemq.proto.v2 import definition_pb2 as d
from apogeemq.proto.v2 import service_pb2 as s

OK = d.Status(code=d.Code.OK, message="OK")
EMPTY = d.Status(code=d.Code.MESSAGE_NOT_FOUND, message="no new message")


UNTIL_S = 20.0  # of real time


async def until(condition: Callable[[], object], seen: Callable[[], object] | None = None) -> None:
    """Let things happen until the condition holds; fails after 20 s, with what `seen` gives."""
    last_s = time.monotonic() + UNTIL_S
    while not condition():
        if time.monotonic() > last_s:
            what = inspect.getsource(condition).strip()
            pytest.fail(f"not within {UNTIL_S:g} s: {what}" + (f"; seen: {seen()}" if seen else ""))
        await asyncio.sleep(0)


@dataclasses.dataclass(frozen=True)
class Asked:
    """One call that came in."""

    name: str
    request: Any
    headers: dict[str, str]
    at_s: float  # by the proxy's `now_s`


@dataclasses.dataclass
class Held:
    """A message that was sent here; invisible while `handle` is set."""

    message: d.Message
    broker: str
    attempt: int = 0
    handle: str | None = None


class ScriptedProxy:
    """Topics exist as soon as they are named. `faults[name]` are answered, one by one, instead of what is right."""

    def __init__(
        self,
        brokers: tuple[str, ...] = ("broker-a",),
        queues: int = 2,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._credentials = credentials
        self.brokers = brokers
        self.queues = queues
        self.asked: list[Asked] = []
        self.faults: dict[str, collections.deque[d.Status]] = collections.defaultdict(collections.deque)
        self.settings: Callable[[d.Settings], d.Settings | None] = lambda sent: sent
        self.missing_topics: set[str] = set()
        self.route_to: d.Endpoints | None = None  # where routes lead; else back to where the client asked
        self.held: list[Held] = []
        self.halves: dict[str, d.Message] = {}  # half messages by transaction id
        self.dlq: list[str] = []
        self.streams: list[Callable[[s.TelemetryCommand], Awaitable[None]]] = []
        self.answers: asyncio.Queue[s.TelemetryCommand] = asyncio.Queue()
        self.before: dict[str, Callable[[Any], Awaitable[None]]] = {}  # runs before a call is answered
        self.now_s: Callable[[], float] = time.monotonic  # a test with a clock of its own gives that one's
        self.polls = 0  # ReceiveMessage calls that wait now
        self.port = 0
        self._arrived = asyncio.Condition()
        self._handles = itertools.count(1)
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def names(self) -> list[str]:
        """The calls in the order in which they came."""
        return [asked.name for asked in self.asked]

    def requests(self, name: str) -> list[Any]:
        return [asked.request for asked in self.asked if asked.name == name]

    def times(self, name: str) -> list[float]:
        """When these calls came, by `now_s`."""
        return [asked.at_s for asked in self.asked if asked.name == name]

    async def start(self) -> None:
        """Listen; on the same port as before after a stop."""
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        address = f"127.0.0.1:{self.port}"
        if self._credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, self._credentials)
        await self._server.start()

    async def stop(self) -> None:
        """Break everything off at once."""
        if self._server is not None:
            self.streams.clear()
            await self._server.stop(None)
            self._server = None

    async def put(self, topic: str, body: bytes, *, broker: str = "broker-a", **system: Any) -> d.Message:
        """Have a message lie at a broker, with the digest that it should have."""
        fields = {"message_id": f"M{len(self.held)}", "body_digest": _crc32(body), **system}
        message = d.Message(topic=d.Resource(name=topic), body=body, system_properties=d.SystemProperties(**fields))
        await self._keep(Held(message, broker))
        return message

    async def _keep(self, held: Held) -> None:
        async with self._arrived:
            self.held.append(held)
            self._arrived.notify_all()

    # --- the calls

    async def query_route(self, request: s.QueryRouteRequest) -> s.QueryRouteResponse:
        if request.topic.name in self.missing_topics:
            return s.QueryRouteResponse(status=d.Status(code=d.Code.TOPIC_NOT_FOUND, message="no topic route"))
        return s.QueryRouteResponse(
            status=OK,
            message_queues=[
                self._queue(request.topic, self.route_to or request.endpoints, broker, number)
                for broker in self.brokers
                for number in range(self.queues)
            ],
        )

    async def query_assignment(self, request: s.QueryAssignmentRequest) -> s.QueryAssignmentResponse:
        queues = [self._queue(request.topic, request.endpoints, broker, -1) for broker in self.brokers]
        return s.QueryAssignmentResponse(status=OK, assignments=[d.Assignment(message_queue=each) for each in queues])

    async def heartbeat(self, request: s.HeartbeatRequest) -> s.HeartbeatResponse:
        return s.HeartbeatResponse(status=OK)

    async def notify_client_termination(
        self, request: s.NotifyClientTerminationRequest
    ) -> s.NotifyClientTerminationResponse:
        return s.NotifyClientTerminationResponse(status=OK)

    async def send_message(self, request: s.SendMessageRequest) -> s.SendMessageResponse:
        entries = []
        for message in request.messages:
            fault = self.faults["entry"].popleft() if self.faults["entry"] else None
            if fault is not None and fault.code != d.Code.OK:
                entries.append(s.SendResultEntry(status=fault))
                continue
            system = message.system_properties
            entry = s.SendResultEntry(status=OK, message_id=system.message_id, offset=len(self.held))
            if system.message_type == d.MessageType.DELAY:
                entry.recall_handle = f"recall {system.message_id}"
            entries.append(entry)
            if system.message_type == d.MessageType.TRANSACTION:
                entry.transaction_id = f"transaction {next(self._handles)}"
                self.halves[entry.transaction_id] = message
            else:
                await self._keep(Held(message, self.brokers[0]))
        codes = {entry.status.code for entry in entries}
        status = OK if codes == {d.Code.OK} else d.Status(code=d.Code.MULTIPLE_RESULTS, message="entries differ")
        return s.SendMessageResponse(status=status, entries=entries)

    async def end_transaction(self, request: s.EndTransactionRequest) -> s.EndTransactionResponse:
        half = self.halves.pop(request.transaction_id, None)
        if half is None:
            return s.EndTransactionResponse(status=d.Status(code=d.Code.INVALID_TRANSACTION_ID, message="not pending"))
        if request.resolution == d.TransactionResolution.COMMIT:
            await self._keep(Held(half, self.brokers[0]))
        return s.EndTransactionResponse(status=OK)

    async def ask_about(self, transaction_id: str, message: d.Message, *, stream: int = 0) -> None:
        """Put a question about a transaction to a producer."""
        command = s.RecoverOrphanedTransactionCommand(message=message, transaction_id=transaction_id)
        await self.streams[stream](s.TelemetryCommand(recover_orphaned_transaction_command=command))

    async def recall_message(self, request: s.RecallMessageRequest) -> s.RecallMessageResponse:
        message_id = request.recall_handle.removeprefix("recall ")
        self.held = [held for held in self.held if held.message.system_properties.message_id != message_id]
        return s.RecallMessageResponse(status=OK, message_id=message_id)

    async def receive_message(self, request: s.ReceiveMessageRequest) -> AsyncIterator[s.ReceiveMessageResponse]:
        broker, topic = request.message_queue.broker.name, request.message_queue.topic.name
        waiting_s = request.long_polling_timeout.seconds + request.long_polling_timeout.nanos / 1e9

        def visible() -> list[Held]:
            return [
                held
                for held in self.held
                if held.handle is None and held.broker == broker and held.message.topic.name == topic
            ]

        self.polls += 1
        try:
            async with self._arrived:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait_for(visible), waiting_s)
                taken = visible()[: request.batch_size]
                for held in taken:
                    held.attempt += 1
                    held.handle = f"handle-{next(self._handles)}"
        finally:
            self.polls -= 1
        yield s.ReceiveMessageResponse(status=OK if taken else EMPTY)
        for held in taken:
            message = d.Message.FromString(held.message.SerializeToString())
            message.system_properties.receipt_handle = held.handle or ""
            message.system_properties.delivery_attempt = held.attempt
            yield s.ReceiveMessageResponse(message=message)
        yield s.ReceiveMessageResponse(delivery_timestamp={})

    async def ack_message(self, request: s.AckMessageRequest) -> s.AckMessageResponse:
        entries = []
        for entry in request.entries:
            status = OK if self._remove(entry.receipt_handle) else _VOID
            entries.append(
                s.AckMessageResultEntry(message_id=entry.message_id, receipt_handle=entry.receipt_handle, status=status)
            )
        codes = {entry.status.code for entry in entries}
        status = entries[0].status if len(codes) == 1 else d.Status(code=d.Code.MULTIPLE_RESULTS)
        return s.AckMessageResponse(status=status, entries=entries)

    async def change_invisible_duration(
        self, request: s.ChangeInvisibleDurationRequest
    ) -> s.ChangeInvisibleDurationResponse:
        for held in self.held:
            if held.handle == request.receipt_handle:
                held.handle = f"handle-{next(self._handles)}"
                if not request.invisible_duration.seconds and not request.invisible_duration.nanos:
                    await self.show(held)
                    return s.ChangeInvisibleDurationResponse(status=OK, receipt_handle="void")
                return s.ChangeInvisibleDurationResponse(status=OK, receipt_handle=held.handle)
        return s.ChangeInvisibleDurationResponse(status=_VOID)

    async def forward_message_to_dead_letter_queue(
        self, request: s.ForwardMessageToDeadLetterQueueRequest
    ) -> s.ForwardMessageToDeadLetterQueueResponse:
        self._remove(request.receipt_handle)
        self.dlq.append(request.message_id)
        return s.ForwardMessageToDeadLetterQueueResponse(status=OK)

    async def telemetry(
        self, commands: AsyncIterator[s.TelemetryCommand], write: Callable[[s.TelemetryCommand], Awaitable[None]]
    ) -> None:
        one_at_a_time = asyncio.Lock()  # gRPC refuses a write while another one of the stream is under way

        async def write_next(command: s.TelemetryCommand) -> None:
            async with one_at_a_time:
                await write(command)

        async for command in commands:
            if command.WhichOneof("command") != "settings":
                self.answers.put_nowait(command)
                continue
            answer = self.settings(command.settings)
            if answer is not None:
                self.streams.append(write_next)
                await write_next(s.TelemetryCommand(status=OK, settings=answer))

    async def show(self, held: Held) -> None:
        """The invisible time of a message is over."""
        async with self._arrived:
            held.handle = None
            self._arrived.notify_all()

    def _remove(self, handle: str) -> bool:
        found = [held for held in self.held if held.handle == handle]
        self.held = [held for held in self.held if held.handle != handle]
        return bool(found)

    def _queue(self, topic: d.Resource, endpoints: d.Endpoints, broker: str, number: int) -> d.MessageQueue:
        return d.MessageQueue(
            topic=topic,
            id=number,
            permission=d.Permission.READ_WRITE,
            broker=d.Broker(name=broker, id=0, endpoints=endpoints),
            accept_message_types=[d.MessageType.NORMAL],
        )


_VOID = d.Status(code=d.Code.INVALID_RECEIPT_HANDLE, message="receipt handle is expired")


def _crc32(body: bytes) -> d.Digest:
    return d.Digest(type=d.DigestType.CRC32, checksum=f"{zlib.crc32(body):X}")


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


class _Handlers(grpc.GenericRpcHandler):
    """Method path → the function of the same name."""

    def __init__(self, proxy: ScriptedProxy) -> None:
        self._proxy = proxy

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        name = handler_call_details.method.removeprefix(f"{SERVICE}/")
        work = getattr(self._proxy, _snake(name), None)
        if work is None:
            return None
        headers = {key: str(value) for key, value in handler_call_details.invocation_metadata}
        if name == "Telemetry":
            return self._telemetry(headers)
        request_type = getattr(s, f"{name}Request")
        response_type = getattr(s, f"{name}Response")

        async def note(request: Any) -> d.Status | None:
            self._proxy.asked.append(Asked(name, request, headers, self._proxy.now_s()))
            if name in self._proxy.before:
                await self._proxy.before[name](request)
            return self._proxy.faults[name].popleft() if self._proxy.faults[name] else None

        async def unary(request: Any, context: object) -> Any:
            fault = await note(request)
            return response_type(status=fault) if fault is not None else await work(request)

        async def stream(request: Any, context: object) -> AsyncIterator[Any]:
            fault = await note(request)
            if fault is not None:
                yield response_type(status=fault)
                return
            async for part in work(request):
                yield part

        make: Any = (
            grpc.unary_stream_rpc_method_handler if name == "ReceiveMessage" else grpc.unary_unary_rpc_method_handler
        )
        handler: grpc.RpcMethodHandler[Any, Any] = make(
            stream if name == "ReceiveMessage" else unary,
            request_deserializer=request_type.FromString,
            response_serializer=response_type.SerializeToString,
        )
        return handler

    def _telemetry(self, headers: dict[str, str]) -> grpc.RpcMethodHandler[Any, Any]:
        async def stream(commands: AsyncIterator[s.TelemetryCommand], context: Any) -> None:
            async def noted() -> AsyncIterator[s.TelemetryCommand]:
                async for command in commands:
                    self._proxy.asked.append(Asked("Telemetry", command, headers, self._proxy.now_s()))
                    yield command

            await self._proxy.telemetry(noted(), context.write)

        make: Any = grpc.stream_stream_rpc_method_handler
        handler: grpc.RpcMethodHandler[Any, Any] = make(
            stream,
            request_deserializer=s.TelemetryCommand.FromString,
            response_serializer=s.TelemetryCommand.SerializeToString,
        )
        return handler
