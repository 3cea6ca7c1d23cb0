"""Calls to a service in this very process: straight to the answering functions, with the messages as they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from apogeemq.mesh.call_spans import CallSpans, current, current_context, end
from apogeemq.mesh.calls import BROKER_SERVICE, Call, CallInfo, CallTable, failed_call, given_up_call
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.deadlines import Deadlines
from apogeemq.mesh.errors import CallRefused, ChannelClosed, DeadlineExceeded
from apogeemq.mesh.late_replies import LateReplies, tell_late
from apogeemq.mesh.network import Req, Resp
from opentelemetry.trace import SpanContext, Tracer

PEER = "this process"
"""What CallInfo.peer says of local calls."""

_log = logging.getLogger(__name__)


class LocalCaller:
    """A Caller whose other side is a CallTable. `tracer` is the asking service's own, for the span around the asking.

    Neither side may change a request or a reply once it has handed it over: both have the same object. An answer that
    comes at once costs no task. An asker whose time is up, or who is cancelled, goes at once, whether or not the answer
    can still be stopped. The caller is the owner of all its calls; close() tells the table that it is gone.
    """

    def __init__(
        self,
        target: str,
        table: CallTable,
        *,
        clock: Clock,
        tracer: Tracer | None = None,
        service: str = BROKER_SERVICE,
    ) -> None:
        self.target = target
        self._table = table
        self._clock = clock
        self._asking = CallSpans(service, tracer)
        self._answering = CallSpans(service, table.tracer)
        self._waits: set[_Wait] = set()
        self._deadlines = Deadlines(clock, self._give_up)
        self._late: LateReplies[_Wait, _OnLate] = LateReplies()
        self._closed = False

    async def call(
        self,
        call: Call[Req, Resp],
        request: Req,
        *,
        timeout_s: float,
        on_late: Callable[[Resp], None] | None = None,
    ) -> Resp:
        """See Caller.call."""
        if self._closed:
            raise ChannelClosed(self.target, "the caller")
        asker = current_context()
        if asker is None:
            return await self._answer(call, request, timeout_s, None, on_late)
        with self._asking.asking(call.name, self.target, asker) as sent:
            span = self._answering.answering(call.name, PEER, sent)
            try:
                with current(span):
                    sampled = span.get_span_context() if sent.trace_flags.sampled else None
                    reply = await self._answer(call, request, timeout_s, sampled, on_late)
            except BaseException as error:
                end(span, error)
                raise
            end(span, None)
            return reply

    async def close(self) -> None:
        """Refuse further calls and give up what hangs on this caller. Idempotent."""
        if not self._closed:
            self._closed = True
            self._deadlines.close()
            for wait in self._waits:
                self._give_up(wait)
            self._table.on_owner_gone(self)

    async def _answer(
        self,
        call: Call[Req, Resp],
        request: Req,
        timeout_s: float,
        trace_context: SpanContext | None,
        on_late: Callable[[Resp], None] | None,
    ) -> Resp:
        answer = self._table.by_number.get(call.number)
        if answer is None:
            raise self._table.missing(call.number)
        deadline = self._clock.monotonic() + timeout_s
        try:
            reply = answer.function(request, CallInfo(PEER, self, deadline, trace_context))
            if type(reply) is not call.response_type:
                wait = _Wait(call.name, asyncio.ensure_future(cast("Awaitable[Resp]", reply)), on_late)
                reply = cast("Resp", await self._until(deadline, wait))
        except CallRefused:
            raise
        except _GivenUpError as given_up:
            if self._closed:
                raise ChannelClosed(self.target, "the caller") from given_up
            raise DeadlineExceeded(self.target, call.name, timeout_s) from given_up
        except Exception as error:
            _log.exception("call %s failed", call.name)
            raise failed_call(call.name) from error
        return reply

    async def _until(self, deadline: float, wait: _Wait) -> object:
        """Wait for a reply. Raises _GivenUpError when it was given up."""
        self._waits.add(wait)
        self._deadlines.add(wait, deadline)
        wait.answer.add_done_callback(partial(self._ended, wait))
        try:
            return await wait.reply
        except asyncio.CancelledError:
            self._give_up(wait)
            if wait.on_late is not None and wait.has_result:
                tell_late(wait.on_late, wait.reply.result())
            raise
        finally:
            self._deadlines.remove(wait, deadline)

    def _give_up(self, wait: _Wait) -> None:
        """Let the asker go, and cancel the answer."""
        if not wait.reply.done():
            wait.reply.set_exception(_GivenUpError())
        if not wait.answer.done() and not wait.is_given_up:
            wait.is_given_up = True
            wait.answer.cancel()
            if wait.on_late is not None and not self._closed:
                self._late.keep(wait, wait.on_late, self._clock.monotonic())

    def _ended(self, wait: _Wait, answer: asyncio.Future[Any]) -> None:
        """Hand an answer's outcome to its asker, or to who wants it late."""
        self._waits.discard(wait)
        # Not given up and yet done: the asker was cancelled in this very turn, _until() has not come to its end yet.
        on_late = self._late.take(wait, self._clock.monotonic()) if wait.is_given_up else wait.on_late
        error = given_up_call() if answer.cancelled() else answer.exception()
        if not wait.reply.done():
            if error is None:
                wait.reply.set_result(answer.result())
            else:
                wait.reply.set_exception(error)
        elif error is None and on_late is not None:
            tell_late(on_late, answer.result())
        elif error is not None and not isinstance(error, CallRefused):
            _log.error("call %s failed after it was given up", wait.call_name, exc_info=error)


_OnLate = Callable[[Any], None]


class _GivenUpError(Exception):
    """Nobody waits for this answer any more."""


class _Wait:
    """An answer that is under way, and the reply that its asker waits for."""

    __slots__ = ("answer", "call_name", "is_given_up", "on_late", "reply")

    def __init__(self, call_name: str, answer: asyncio.Future[Any], on_late: _OnLate | None) -> None:
        self.call_name = call_name
        self.answer = answer
        self.on_late = on_late
        self.reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.is_given_up = False

    @property
    def has_result(self) -> bool:
        """Whether the reply came, though the asker, cancelled in this very turn, never got it."""
        return self.reply.done() and not self.reply.cancelled() and self.reply.exception() is None
