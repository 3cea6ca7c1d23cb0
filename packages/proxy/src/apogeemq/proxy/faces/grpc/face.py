"""apache.rocketmq.v2.MessagingService: a call's bytes to a request, to the service, and its response back to bytes.

Whatever is refused, and whatever fails, is a Status inside a response of the method's own type; only on a Telemetry
stream, which has no such place, it ends the stream with a gRPC status (reference grpc_v2.md §3, §4). What nobody
expected is logged here, and the client reads INTERNAL_SERVER_ERROR without its text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

from apogeemq.mesh.clock import Clock
from apogeemq.mesh.errors import RefusalCode
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code, Status
from apogeemq.proxy.core.context import RequestContext
from apogeemq.proxy.core.status import status_of
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.faces.grpc.contexts import request_context
from apogeemq.proxy.faces.grpc.port import DoorCall, DoorRefused, Handlers
from apogeemq.proxy.faces.grpc.telemetry import Outbox
from apogeemq.proxy.faces.spans import ServerSpans, carrier_of
from apogeemq.proxy.service.messaging import MessagingService
from google.protobuf.message import DecodeError, Message

SERVICE = "apache.rocketmq.v2.MessagingService"

Observe = Callable[[str, str, float], None]
"""Is told of each call that was answered: method, name of the code, seconds."""

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Method(Generic[Req, Resp]):
    """A unary method: its name, its messages, and who answers."""

    name: str
    request_type: type[Req]
    response_type: type[Resp]
    answer: Callable[[Req, RequestContext], Awaitable[Resp]]


class MessagingFace:
    """Serves the messaging service to a door.

    service              who answers
    spans                around each call of a sampled trace
    observe              counts and times
    request_timeout_s    the deadline of a call that names none
    telemetry_backlog_max  commands that may wait for one client to read them
    """

    def __init__(
        self,
        service: MessagingService,
        *,
        clock: Clock,
        spans: ServerSpans,
        observe: Observe,
        request_timeout_s: float,
        telemetry_backlog_max: int,
    ) -> None:
        self._service = service
        self._clock = clock
        self._spans = spans
        self._observe = observe
        self._request_timeout_s = request_timeout_s
        self._telemetry_backlog_max = telemetry_backlog_max
        self._outboxes: set[Outbox] = set()
        self._stopping = asyncio.Event()

    @property
    def handlers(self) -> Handlers:
        """What the door is to serve. Other methods of the API are answered UNIMPLEMENTED."""
        return Handlers(
            unary={_path(method.name): partial(self._answer, method) for method in self._methods()},
            server_streams={_path("ReceiveMessage"): self._receive},
            bidi={_path("Telemetry"): self._telemetry},
        )

    @property
    def telemetry_streams(self) -> int:
        """How many are open."""
        return len(self._outboxes)

    def stop(self) -> None:
        """End the Telemetry streams, and answer receives that wait with no message: clients look for another proxy."""
        self._stopping.set()
        for outbox in list(self._outboxes):
            outbox.end()

    def _methods(self) -> list[_Method[Any, Any]]:
        service = self._service
        return [
            _Method("QueryRoute", v2.QueryRouteRequest, v2.QueryRouteResponse, service.query_route),
            _Method("QueryAssignment", v2.QueryAssignmentRequest, v2.QueryAssignmentResponse, service.query_assignment),
            _Method("SendMessage", v2.SendMessageRequest, v2.SendMessageResponse, service.send_message),
            _Method("AckMessage", v2.AckMessageRequest, v2.AckMessageResponse, service.ack_message),
            _Method(
                "ChangeInvisibleDuration",
                v2.ChangeInvisibleDurationRequest,
                v2.ChangeInvisibleDurationResponse,
                service.change_invisible_duration,
            ),
            _Method("Heartbeat", v2.HeartbeatRequest, v2.HeartbeatResponse, service.heartbeat),
            _Method(
                "NotifyClientTermination",
                v2.NotifyClientTerminationRequest,
                v2.NotifyClientTerminationResponse,
                service.notify_client_termination,
            ),
            _Method(
                "ForwardMessageToDeadLetterQueue",
                v2.ForwardMessageToDeadLetterQueueRequest,
                v2.ForwardMessageToDeadLetterQueueResponse,
                service.forward_message_to_dead_letter_queue,
            ),
            _Method("EndTransaction", v2.EndTransactionRequest, v2.EndTransactionResponse, service.end_transaction),
            _Method("RecallMessage", v2.RecallMessageRequest, v2.RecallMessageResponse, service.recall_message),
        ]

    def _context(self, call: DoorCall) -> RequestContext:
        return request_context(call, self._clock.monotonic(), self._request_timeout_s)

    # -- unary

    async def _answer(self, method: _Method[Any, Any], call: DoorCall, payload: bytes) -> bytes:
        """Answer one unary call."""
        begun = self._clock.monotonic()
        try:
            context = request_context(call, begun, self._request_timeout_s)
            request = _decoded(method.request_type, payload)
            carrier = carrier_of(call.metadata, request)
            if carrier is None:
                response = await self._response(method, request, context)
                code = response.status.code
            else:
                with self._spans.around(f"{SERVICE}/{method.name}", carrier) as set_status:
                    response = await self._response(method, request, context)
                    code = response.status.code
                    set_status(_name(code), _is_fault(code))
        except ProxyError as refused:
            code = refused.code
            response = method.response_type(status=status_of(refused))
        self._observe(method.name, _name(code), self._clock.monotonic() - begun)
        return cast("bytes", response.SerializeToString())

    async def _response(self, method: _Method[Any, Any], request: Message, context: RequestContext) -> Any:  # noqa: ANN401 — the method's own type
        """What the service answers, or a response with the status of what it refused or failed with."""
        try:
            return await method.answer(request, context)
        except Exception as error:  # noqa: BLE001 — becomes the answer, and what nobody expected is logged
            return method.response_type(status=status_of(_expected(error, method.name, context)))

    # -- ReceiveMessage

    async def _receive(self, call: DoorCall, payload: bytes) -> AsyncIterator[bytes]:
        """Answer with a stream: a status, messages, the time of delivery."""
        begun = self._clock.monotonic()
        code: int | None = None
        try:
            context = self._context(call)
            request = _decoded(v2.ReceiveMessageRequest, payload)
        except ProxyError as refused:
            code = refused.code
            yield _received(refused)
        else:
            carrier = carrier_of(call.metadata, request)
            with self._spans.around(f"{SERVICE}/ReceiveMessage", carrier) as set_status:
                async with aclosing(self._responses(request, context)) as responses:
                    async for response in responses:
                        if code is None and response.HasField("status"):
                            code = response.status.code
                            set_status(_name(code), _is_fault(code))
                        yield response.SerializeToString()
        self._observe("ReceiveMessage", _name(code or 0), self._clock.monotonic() - begun)

    async def _responses(
        self, request: v2.ReceiveMessageRequest, context: RequestContext
    ) -> AsyncGenerator[v2.ReceiveMessageResponse, None]:
        """What the service hands out, or a status of what it refused or failed with."""
        try:
            handed_out = self._until_stopped(aiter(self._service.receive_message(request, context)))
            async with aclosing(handed_out):
                async for response in handed_out:
                    yield response
        except Exception as error:  # noqa: BLE001 — becomes the answer, and what nobody expected is logged
            yield v2.ReceiveMessageResponse(status=status_of(_expected(error, "ReceiveMessage", context)))

    async def _until_stopped(
        self, responses: AsyncIterator[v2.ReceiveMessageResponse]
    ) -> AsyncGenerator[v2.ReceiveMessageResponse, None]:
        """All responses; when the proxy stops before the first one has come, that there is no message."""
        first = asyncio.ensure_future(_next(responses))
        stopping = asyncio.ensure_future(self._stopping.wait())
        is_taken = False
        try:
            await asyncio.wait({first, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                for nothing in self._nothing():
                    yield nothing
                return
            is_taken = True
            response = first.result()
            while response is not None:
                yield response
                response = await _next(responses)
        finally:
            stopping.cancel()
            if not first.done():
                first.cancel()
                await asyncio.wait({first})
            if not is_taken:
                _note_lost(first)
            if hasattr(responses, "aclose"):
                await responses.aclose()

    def _nothing(self) -> list[v2.ReceiveMessageResponse]:
        """The answer to a receive that found no message."""
        status = Status(code=Code.MESSAGE_NOT_FOUND, message="the proxy stops; ask another one")
        delivered = v2.ReceiveMessageResponse()
        delivered.delivery_timestamp.FromMilliseconds(self._clock.now_ms())
        return [v2.ReceiveMessageResponse(status=status), delivered]

    # -- Telemetry

    async def _telemetry(self, call: DoorCall, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Talk with a client for as long as it is there."""
        begun = self._clock.monotonic()
        outbox = Outbox(self._telemetry_backlog_max)
        ended: list[int] = [Code.OK]

        def give_up(refused: ProxyError) -> None:
            ended[0] = refused.code
            outbox.end(_stream_refusal(refused))

        try:
            context = self._context(call)
            session = self._service.open_telemetry(context, outbox.put, give_up, lambda: outbox.has_room)
        except ProxyError as refused:
            self._observe("Telemetry", _name(refused.code), self._clock.monotonic() - begun)
            raise _stream_refusal(refused) from refused
        self._outboxes.add(outbox)
        if self._stopping.is_set():
            outbox.end()

        async def take_commands() -> None:
            try:
                async for payload in requests:
                    await session.on_command(_decoded(v2.TelemetryCommand, payload))
                    await outbox.wait_for_room()
                outbox.end()
            except Exception as error:  # noqa: BLE001 — ends the stream, and what nobody expected is logged
                give_up(_expected(error, "Telemetry", context))

        taking = asyncio.ensure_future(take_commands())
        try:
            async for command in outbox:
                yield command
        finally:
            self._outboxes.discard(outbox)
            outbox.end()
            taking.cancel()
            try:
                await asyncio.wait({taking})
            finally:  # a call may be cancelled twice, and its session has to be told all the same
                session.closed()
                self._observe("Telemetry", _name(ended[0]), self._clock.monotonic() - begun)


def _path(method: str) -> str:
    return f"/{SERVICE}/{method}"


def _decoded(request_type: type[Req], payload: bytes) -> Req:
    """Parse a request. Raises ProxyError BAD_REQUEST."""
    try:
        return request_type.FromString(payload)
    except DecodeError as error:
        name = request_type.DESCRIPTOR.name
        raise ProxyError(Code.BAD_REQUEST, f"the request's {len(payload)} bytes are no {name} of protobuf") from error


def _expected(error: Exception, method: str, context: RequestContext) -> ProxyError:
    """The error itself when it is an answer; anything else is logged, and the client reads no more than that."""
    if isinstance(error, ProxyError):
        return error
    _log.error("%s of client %s failed, request id %r", method, context.client_id, context.request_id, exc_info=error)
    return ProxyError(Code.INTERNAL_SERVER_ERROR, "the proxy failed to answer; its log says how")


def _received(refused: ProxyError) -> bytes:
    return v2.ReceiveMessageResponse(status=status_of(refused)).SerializeToString()


def _stream_refusal(refused: ProxyError) -> DoorRefused:
    """How a Telemetry stream ends: INVALID_ARGUMENT for what the client did, else INTERNAL.

    What is not served was asked for by the client: INTERNAL would read like a fault that passes.
    """
    is_ours = _is_fault(refused.code) and refused.code != Code.NOT_IMPLEMENTED
    code = RefusalCode.INTERNAL if is_ours else RefusalCode.INVALID_ARGUMENT
    return DoorRefused(code, f"{_name(refused.code)}: {refused.message}")


def _is_fault(code: int) -> bool:
    return code >= Code.INTERNAL_ERROR and code < Code.FAILED_TO_CONSUME_MESSAGE


_NAMES = {number: name for name, number in Code.items()}


def _name(code: int) -> str:
    return _NAMES.get(code) or str(code)


async def _next(responses: AsyncIterator[v2.ReceiveMessageResponse]) -> v2.ReceiveMessageResponse | None:
    """The next response, or None at the end."""
    return await anext(responses, None)


def _note_lost(ended: asyncio.Future[v2.ReceiveMessageResponse | None]) -> None:
    """Look at the outcome of a receive whose client went in that very moment: nobody is there to read a refusal."""
    error = None if ended.cancelled() else ended.exception()
    if error is not None and not isinstance(error, ProxyError):
        _log.error("ReceiveMessage failed while its client went", exc_info=error)
