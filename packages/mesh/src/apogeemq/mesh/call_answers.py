"""The answering side of calls in batches: frames of a stream in, the functions of a CallTable, frames out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from apogeemq.mesh.call_frames import Answerer, Asked, PeerViolation
from apogeemq.mesh.call_spans import CallSpans, current, end
from apogeemq.mesh.calls import (
    SYSTEM_ERROR,
    Answer,
    CallInfo,
    CallTable,
    Channel,
    failed_call,
    given_up_call,
)
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.deadlines import Deadlines
from apogeemq.mesh.errors import CallRefused, MeshError, PeerRefused, RefusalCode
from apogeemq.mesh.network import MeshStream, Stream, StreamHandler
from apogeemq.mesh.telemetry import remote_context
from apogeemq.mesh.v1.calls_pb2 import Frame
from google.protobuf.message import DecodeError, Message
from opentelemetry.trace import INVALID_SPAN, Span, SpanContext

CALLER_KEY = "apogeemq-caller"
"""Stream metadata: a random id that is the same on all streams of one caller, and so makes them one owner."""

_ANSWERS_PER_TURN = 64
# A frame has thousands of small entries at most: others get a turn of the event loop between so many of them.

_log = logging.getLogger(__name__)


def call_handlers(
    channels: Mapping[Channel, Stream[Frame, Frame]], table: CallTable, *, clock: Clock
) -> list[StreamHandler[Frame, Frame]]:
    """Make what a Network has to serve so that the calls of `table` are answered on these streams."""
    owners = _Owners(table.on_owner_gone)

    def handler(stream: Stream[Frame, Frame]) -> StreamHandler[Frame, Frame]:
        spans = CallSpans(stream.path.rpartition("/")[0].removeprefix("/"), table.tracer)

        async def handle(mesh_stream: MeshStream[Frame, Frame]) -> None:
            owner = mesh_stream.metadata.get(CALLER_KEY) or object()
            with current(INVALID_SPAN), owners.one_stream(owner):
                await _Conversation(mesh_stream, owner, table, clock, spans).run()

        return StreamHandler(stream, handle)

    return [handler(stream) for stream in channels.values()]


class _Owners:
    """Counts the streams of each caller, and tells once when the last of them is gone."""

    def __init__(self, on_gone: Callable[[Hashable], None]) -> None:
        self._on_gone = on_gone
        self._streams: dict[Hashable, int] = {}

    @contextmanager
    def one_stream(self, owner: Hashable) -> Iterator[None]:
        """Count a stream for as long as it is entered."""
        self._streams[owner] = self._streams.get(owner, 0) + 1
        try:
            yield
        finally:
            self._streams[owner] -= 1
            if self._streams[owner] == 0:
                del self._streams[owner]
                self._on_gone(owner)


class _Conversation:
    """One stream's worth of requests and replies."""

    def __init__(
        self, stream: MeshStream[Frame, Frame], owner: Hashable, table: CallTable, clock: Clock, spans: CallSpans
    ) -> None:
        self._stream = stream
        self._owner = owner
        self._table = table
        self._clock = clock
        self._spans = spans
        self._answerer = Answerer()
        self._has_work = asyncio.Event()
        self._deadlines = Deadlines(clock, _give_up)
        self._waiting: set[asyncio.Future[Any]] = set()
        self._is_over = False

    async def run(self) -> None:
        """Answer until the asker ends the stream, or is lost, or breaks the rules."""
        writing = asyncio.ensure_future(self._write())
        try:
            while (frame := await self._stream.receive()) is not None:
                await self._take(frame)
        except PeerViolation as violation:
            _log.warning("stream from %s is ended, it broke the rules of calls: %s", self._stream.peer, violation)
            raise PeerRefused(RefusalCode.INVALID_ARGUMENT, f"against the rules of calls: {violation}") from violation
        finally:
            self._is_over = True
            self._deadlines.close()
            ending = {writing, *self._waiting}
            for future in ending:
                future.cancel()
            await asyncio.wait(ending)

    async def _write(self) -> None:
        """Send what there is to send; what comes meanwhile goes with the next frame."""
        try:
            while True:
                frame = self._answerer.frame(self._clock.monotonic())
                if frame is None:
                    self._has_work.clear()
                    await self._has_work.wait()
                else:
                    await self._stream.send(frame)
        except MeshError:
            return  # how the stream ended, receive() tells
        except Exception:  # noqa: BLE001 — without its writer a stream would be silent for ever: better to end it
            _log.exception("the stream from %s is ended: its frames can't be written", self._stream.peer)
            self._stream.cancel()

    async def _take(self, frame: Frame) -> None:
        """Answer the requests of one frame, and give up what nobody waits for."""
        requests, cancelled = self._answerer.receive(frame, self._clock.monotonic())
        for number, request in enumerate(requests, 1):
            self._answer(request)
            if number % _ANSWERS_PER_TURN == 0:
                self._has_work.set()
                await asyncio.sleep(0)
        for request in cancelled:
            _give_up(request)
        if self._answerer.has_work:
            self._has_work.set()

    def _answer(self, request: Asked) -> None:
        answer = self._table.by_number.get(request.method)
        if answer is None:
            self._refuse(request, self._table.missing(request.method))
            return
        remote = remote_context(request.traceparent, request.tracestate) if request.traceparent else None
        if remote is None:
            self._run(request, answer, None, None)
            return
        span = self._spans.answering(answer.call.name, self._stream.peer, remote)
        with current(span):
            self._run(request, answer, span, span.get_span_context() if remote.trace_flags.sampled else None)

    def _run(self, request: Asked, answer: Answer[Any, Any], span: Span | None, trace: SpanContext | None) -> None:
        """Run an answering function as far as it goes at once."""
        call = answer.call
        try:
            message = call.request_type.FromString(request.payload)
            request.payload = b""
            reply = answer.function(message, CallInfo(self._stream.peer, self._owner, request.deadline, trace))
            if type(reply) is not call.response_type:
                self._wait_for(request, answer, asyncio.ensure_future(cast("Awaitable[Message]", reply)), span)
                return
        except Exception as error:  # noqa: BLE001 — whatever it is, _fail logs it and the asker hears of it
            self._fail(request, answer, error, span)
            return
        self._reply(request, answer, cast("Message", reply), span)

    def _wait_for(
        self, request: Asked, answer: Answer[Any, Any], reply: asyncio.Future[Message], span: Span | None
    ) -> None:
        request.ticket = reply
        self._waiting.add(reply)
        self._deadlines.add(request, request.deadline)
        reply.add_done_callback(partial(self._waited, request, answer, span))

    def _waited(
        self, request: Asked, answer: Answer[Any, Any], span: Span | None, reply: asyncio.Future[Message]
    ) -> None:
        self._waiting.discard(reply)
        self._deadlines.remove(request, request.deadline)
        if reply.cancelled():
            self._fail(request, answer, given_up_call(), span)
        elif (error := reply.exception()) is not None:
            self._fail(request, answer, error, span)
        elif type(reply.result()) is not answer.call.response_type:
            self._fail(request, answer, TypeError(f"{reply.result()!r} is no reply"), span)
        else:
            self._reply(request, answer, reply.result(), span)

    def _reply(self, request: Asked, answer: Answer[Any, Any], reply: Message, span: Span | None) -> None:
        if not self._is_over:
            self._answerer.reply(request, reply.SerializeToString(), is_kept=answer.call.hands_out)
            self._has_work.set()
        if span is not None:
            end(span, None)

    def _fail(self, request: Asked, answer: Answer[Any, Any], error: BaseException, span: Span | None) -> None:
        """Refuse with what the asker may know of an error; the log gets the rest."""
        if span is not None:
            end(span, error)
        call = answer.call
        if isinstance(error, CallRefused):
            refusal = error
        elif isinstance(error, DecodeError):
            name = call.request_type.DESCRIPTOR.full_name
            refusal = CallRefused(SYSTEM_ERROR, f"the payload of {call.name} is no {name}: {error}")
        else:
            _log.error("call %s from %s failed", call.name, self._stream.peer, exc_info=error)
            refusal = failed_call(call.name)
        self._refuse(request, refusal)

    def _refuse(self, request: Asked, refusal: CallRefused) -> None:
        if not self._is_over:
            self._answerer.refuse(request, refusal.code, refusal.text)
            self._has_work.set()


def _give_up(request: Asked) -> None:
    """Cancel what a request waits for."""
    cast("asyncio.Future[Message]", request.ticket).cancel()
