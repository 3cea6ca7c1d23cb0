"""The asking side of calls in batches: a Caller over one stream per channel.

Every channel has a connection of its own. It is made when the first call needs it, and again after a loss when the
next call needs it. While one frame is being written, all calls that come join the next: there is no timer.

What a lost stream means: calls that were not sent fail with PeerUnavailable, calls that were sent with StreamLost, but
for idempotent ones, which are asked again until their deadline. Attempts that fail are followed by a growing pause, in
which calls fail at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from apogeemq.mesh.call_answers import CALLER_KEY, call_handlers
from apogeemq.mesh.call_frames import Asker, Ended, Outgoing, PeerViolation
from apogeemq.mesh.call_spans import CallSpans, current_context
from apogeemq.mesh.calls import SYSTEM_ERROR, Call, Channel
from apogeemq.mesh.chance import Chance, SystemChance
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.deadlines import Deadlines
from apogeemq.mesh.errors import (
    CallRefused,
    CallsOverloaded,
    ChannelClosed,
    DeadlineExceeded,
    MeshError,
    PeerUnavailable,
    StreamLost,
)
from apogeemq.mesh.late_replies import tell_late
from apogeemq.mesh.network import MeshChannel, MeshStream, Metadata, Network, Req, Resp, Stream
from apogeemq.mesh.telemetry import trace_headers
from apogeemq.mesh.v1.calls_pb2 import Frame
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from apogeemq.mesh.tls import ClientTls
    from opentelemetry.trace import Tracer

__all__ = ["PAUSE_S_MAX", "PAUSE_S_MIN", "StreamCaller", "call_handlers"]

PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 1.0
"""Pause after a first failed attempt to connect, doubled after each further one up to the other; half of it by lot."""

_log = logging.getLogger(__name__)


class StreamCaller:
    """A Caller over mesh streams. close() it."""

    def __init__(
        self,
        network: Network,
        target: str,
        channels: Mapping[Channel, Stream[Frame, Frame]],
        *,
        clock: Clock,
        tls: ClientTls | None = None,
        tracer: Tracer | None = None,
        metadata: Metadata | None = None,
        chance: Chance | None = None,
    ) -> None:
        self.target = target
        sent_metadata = {**(metadata or {}), CALLER_KEY: secrets.token_hex(16)}
        chance = chance or SystemChance()
        self._links = {
            channel: _Link(network, target, stream, clock, tls, sent_metadata, chance)
            for channel, stream in channels.items()
        }
        paths = [stream.path for stream in channels.values()]
        self._spans = CallSpans(paths[0].rpartition("/")[0].removeprefix("/"), tracer)

    async def call(
        self,
        call: Call[Req, Resp],
        request: Req,
        *,
        timeout_s: float,
        on_late: Callable[[Resp], None] | None = None,
    ) -> Resp:
        """See Caller.call."""
        link = self._links[call.channel]
        payload = request.SerializeToString()
        late = None if on_late is None else partial(self._late, call, on_late)
        asker = current_context()
        if asker is None:
            reply = await link.ask(call, payload, timeout_s, "", "", late)
        else:
            with self._spans.asking(call.name, self.target, asker) as sent:
                reply = await link.ask(call, payload, timeout_s, *trace_headers(sent), late)
        return self._decode(call, reply)

    async def close(self) -> None:
        """Fail what waits with ChannelClosed and disconnect. Idempotent."""
        for link in self._links.values():
            await link.close()

    def _decode(self, call: Call[Any, Resp], reply: bytes) -> Resp:
        try:
            return call.response_type.FromString(reply)
        except DecodeError as error:
            name = call.response_type.DESCRIPTOR.full_name
            raise CallRefused(SYSTEM_ERROR, f"the reply of {self.target} to {call.name} is no {name}") from error

    def _late(self, call: Call[Any, Resp], on_late: Callable[[Resp], None], payload: bytes) -> None:
        """Hand a late reply to who wants it."""
        try:
            reply = self._decode(call, payload)
        except CallRefused as refused:
            _log.warning("a late reply is of no use: %s", refused)
        else:
            tell_late(on_late, reply)


_OnLate = Callable[[bytes], None]
"""Gets a reply that came too late, as it came."""


class _Pending:
    """A call that somebody waits for. `outgoing` is its place in the current stream, None between two."""

    __slots__ = (
        "call",
        "deadline",
        "is_asked_again",
        "on_late",
        "outgoing",
        "payload",
        "reply",
        "timeout_s",
        "traceparent",
        "tracestate",
    )

    def __init__(
        self,
        call: Call[Any, Any],
        payload: bytes,
        timeout_s: float,
        deadline: float,
        traceparent: str,
        tracestate: str,
        reply: asyncio.Future[bytes],
        on_late: _OnLate | None,
    ) -> None:
        self.call = call
        self.payload = payload
        self.timeout_s = timeout_s
        self.deadline = deadline
        self.traceparent = traceparent
        self.tracestate = tracestate
        self.reply = reply
        self.on_late = on_late
        self.outgoing: Outgoing | None = None
        self.is_asked_again = False


class _Link:
    """One channel's stream, and the next one after it is lost."""

    def __init__(
        self,
        network: Network,
        target: str,
        method: Stream[Frame, Frame],
        clock: Clock,
        tls: ClientTls | None,
        metadata: Metadata,
        chance: Chance,
    ) -> None:
        self._network = network
        self._target = target
        self._method = method
        self._clock = clock
        self._tls = tls
        self._metadata = metadata
        self._chance = chance
        self._channel: MeshChannel | None = None
        self._asker = Asker(target)
        self._again: dict[_Pending, None] = {}
        self._has_work = asyncio.Event()
        self._deadlines = Deadlines(clock, self._expire)
        self._running: asyncio.Task[None] | None = None
        self._failures = 0
        self._failure = ""
        self._next_attempt = 0.0
        self._is_closed = False

    async def ask(
        self,
        call: Call[Any, Any],
        payload: bytes,
        timeout_s: float,
        traceparent: str,
        tracestate: str,
        on_late: _OnLate | None,
    ) -> bytes:
        """Send a request and wait for its reply; see Caller.call for what it raises."""
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        deadline = self._clock.monotonic() + timeout_s
        pending = _Pending(call, payload, timeout_s, deadline, traceparent, tracestate, reply, on_late)
        self._check_open()
        self._submit(pending)
        self._deadlines.add(pending, deadline)
        try:
            return await reply
        except asyncio.CancelledError:
            self._drop(pending)
            if on_late is not None and _has_result(reply):
                on_late(reply.result())
            raise
        finally:
            self._deadlines.remove(pending, deadline)

    async def close(self) -> None:
        """See StreamCaller.close."""
        if self._is_closed:
            return
        self._is_closed = True
        running = self._running
        if running is not None:
            running.cancel()
            await asyncio.wait({running})
        self._deadlines.close()
        unsent, sent = self._asker.lost()
        for pending in (*self._again, *(cast("_Pending", outgoing.ticket) for outgoing in (*unsent, *sent))):
            _fail(pending, ChannelClosed(self._target, "the caller"))
        self._again.clear()
        if self._channel is not None:
            await self._channel.close()

    def _check_open(self) -> None:
        """Raise what makes it useless to ask now."""
        if self._is_closed:
            raise ChannelClosed(self._target, "the caller")
        if self._failures:
            left_s = self._next_attempt - self._clock.monotonic()
            if left_s > 0:
                raise PeerUnavailable(self._target, f"{self._failure}; the next attempt is in {left_s:.1f} s")

    def _submit(self, pending: _Pending) -> None:
        pending.outgoing = self._asker.ask(
            pending,
            pending.call.number,
            pending.payload,
            pending.deadline,
            pending.traceparent,
            pending.tracestate,
        )
        self._has_work.set()
        if self._running is None:
            # An empty context: the stream outlives the call, and its trace, that happened to need it first.
            self._running = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())

    def _drop(self, pending: _Pending) -> None:
        """Wait for a call no more, wherever it is."""
        self._again.pop(pending, None)
        if pending.outgoing is not None:
            self._asker.cancel(pending.outgoing, self._clock.monotonic(), pending.on_late)
            self._has_work.set()

    def _expire(self, pending: _Pending) -> None:
        self._drop(pending)
        _fail(pending, DeadlineExceeded(self._target, pending.call.name, pending.timeout_s))

    async def _run(self) -> None:
        """Converse for as long as there is something to ask."""
        try:
            while True:
                await self._converse()
                if not self._again:
                    break
                await self._clock.sleep(self._next_attempt - self._clock.monotonic())
        finally:
            self._running = None

    async def _converse(self) -> None:
        """Open a stream and use it until it is lost."""
        if self._channel is None:
            self._channel = self._network.channel(self._target, tls=self._tls)
        stream = self._channel.stream(self._method, metadata=self._metadata)
        self._failures += 1  # until the peer is heard
        self._ask_again()
        writing = asyncio.ensure_future(self._write(stream))
        try:
            await self._read(stream)
            error: MeshError = StreamLost(self._target, "the peer has ended it")
        except PeerViolation as violation:
            self._failures += 1
            _log.warning("stream to %s is ended, it broke the rules of calls: %s", self._target, violation)
            error = StreamLost(self._target, f"the peer broke the rules of calls: {violation}")
        except MeshError as lost:
            error = lost
        finally:
            writing.cancel()
            stream.cancel()
            await asyncio.wait({writing})
        self._lose(error)

    def _ask_again(self) -> None:
        """Put what a lost stream left open in line for the new one."""
        again, self._again = self._again, {}
        for pending in again:
            try:
                self._submit(pending)
            except CallsOverloaded as overloaded:
                _fail(pending, overloaded)

    async def _write(self, stream: MeshStream[Frame, Frame]) -> None:
        """Send what there is to send; what comes meanwhile goes with the next frame."""
        asker = self._asker
        try:
            while True:
                frame = asker.frame(self._clock.monotonic())
                if frame is None:
                    self._has_work.clear()
                    await self._has_work.wait()
                else:
                    await stream.send(frame)
        except MeshError:
            return  # how the stream ended, receive() tells
        except Exception:  # noqa: BLE001 — without its writer a stream would be silent for ever: better to end it
            _log.exception("the stream to %s is ended: its frames can't be written", self._target)
            stream.cancel()

    async def _read(self, stream: MeshStream[Frame, Frame]) -> None:
        asker = self._asker
        while (frame := await stream.receive()) is not None:
            self._failures = 0
            for ended in asker.receive(frame, self._clock.monotonic()):
                _settle(ended)
            if asker.has_work:
                self._has_work.set()

    def _lose(self, error: MeshError) -> None:
        """Decide what becomes of the calls on a lost stream, and when to try again."""
        unsent, sent = self._asker.lost()
        self._asker = Asker(self._target)
        never_opened = isinstance(error, PeerUnavailable)
        self._failure = error.reason if isinstance(error, (PeerUnavailable, StreamLost)) else str(error)
        for outgoing in unsent:
            self._unanswered(outgoing, is_sent=False)
        for outgoing in sent:
            self._unanswered(outgoing, is_sent=not never_opened)
        pause_s = 0.0
        if self._failures:
            pause_s = min(PAUSE_S_MAX, PAUSE_S_MIN * 2 ** min(self._failures - 1, 10))
            pause_s *= 0.5 + self._chance.random() / 2
        self._next_attempt = self._clock.monotonic() + pause_s

    def _unanswered(self, outgoing: Outgoing, *, is_sent: bool) -> None:
        pending = cast("_Pending", outgoing.ticket)
        pending.outgoing = None
        if pending.call.is_idempotent and (is_sent or pending.is_asked_again):
            pending.is_asked_again = True
            self._again[pending] = None
        elif is_sent:
            _fail(pending, StreamLost(self._target, self._failure))
        else:
            _fail(pending, PeerUnavailable(self._target, self._failure))


def _settle(ended: Ended) -> None:
    """Give a reply or refusal to who waits for it, a late reply to who wants it."""
    if ended.is_late:
        cast("_OnLate", ended.ticket)(ended.payload or b"")
        return
    pending = cast("_Pending", ended.ticket)
    reply = pending.reply
    if reply.done():  # cancelled in this very turn: ask() has not come to its end yet
        if pending.on_late is not None and ended.payload is not None:
            pending.on_late(ended.payload)
    elif ended.payload is None:
        reply.set_exception(CallRefused(ended.code, ended.text))
    else:
        reply.set_result(ended.payload)


def _has_result(reply: asyncio.Future[bytes]) -> bool:
    """Whether a reply came, which its asker, cancelled in this very turn, never got."""
    return reply.done() and not reply.cancelled() and reply.exception() is None


def _fail(pending: _Pending, error: MeshError) -> None:
    if not pending.reply.done():
        pending.reply.set_exception(error)
