"""Calls to a service in this very process: straight to the answering functions, with the messages as they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, cast

from apogeemq.mesh.call_spans import CallSpans, current, current_context, end
from apogeemq.mesh.calls import BROKER_SERVICE, Call, CallInfo, CallTable, failed_call, unknown_call
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.deadlines import Deadlines
from apogeemq.mesh.errors import CallRefused, ChannelClosed, DeadlineExceeded
from apogeemq.mesh.network import Req, Resp
from opentelemetry.trace import SpanContext, Tracer

PEER = "this process"
"""What CallInfo.peer says of local calls."""

_log = logging.getLogger(__name__)


class LocalCaller:
    """A Caller whose other side is a CallTable. `tracer` is the asking service's own, for the span around the asking.

    Neither side may change a request or a reply once it has handed it over: both have the same object. An answer that
    comes at once costs no task. The caller is the owner of all its calls; close() tells the table that it is gone.
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
        self._deadlines = Deadlines(clock, _Wait.give_up)
        self._closed = False

    async def call(self, call: Call[Req, Resp], request: Req, *, timeout_s: float) -> Resp:
        """See Caller.call."""
        if self._closed:
            raise ChannelClosed(self.target, "the caller")
        asker = current_context()
        if asker is None:
            return await self._answer(call, request, timeout_s, None)
        with self._asking.asking(call.name, self.target, asker) as sent:
            span = self._answering.answering(call.name, PEER, sent)
            try:
                with current(span):
                    sampled = span.get_span_context() if sent.trace_flags.sampled else None
                    reply = await self._answer(call, request, timeout_s, sampled)
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
                wait.give_up()
            self._table.on_owner_gone(self)

    async def _answer(
        self, call: Call[Req, Resp], request: Req, timeout_s: float, trace_context: SpanContext | None
    ) -> Resp:
        answer = self._table.by_number.get(call.number)
        if answer is None:
            raise unknown_call(call.number)
        deadline = self._clock.monotonic() + timeout_s
        try:
            reply = answer.function(request, CallInfo(PEER, self, deadline, trace_context))
            if type(reply) is not call.response_type:
                reply = await self._until(deadline, cast("Awaitable[Resp]", reply))
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

    async def _until(self, deadline: float, reply: Awaitable[Resp]) -> Resp:
        """Wait for a reply; raises _GivenUpError when it was given up, after what was awaited has ended."""
        wait = _Wait(asyncio.ensure_future(reply))
        self._waits.add(wait)
        self._deadlines.add(wait, deadline)
        try:
            return await cast("asyncio.Future[Resp]", wait.reply)
        except asyncio.CancelledError as cancelled:
            if wait.is_given_up:
                raise _GivenUpError from cancelled
            raise
        finally:
            self._waits.discard(wait)
            self._deadlines.remove(wait, deadline)


class _GivenUpError(Exception):
    """Nobody waits for this answer any more."""


class _Wait:
    """A reply that somebody waits for."""

    def __init__(self, reply: asyncio.Future[Any]) -> None:
        self.reply = reply
        self.is_given_up = False

    def give_up(self) -> None:
        """Cancel what is awaited."""
        self.is_given_up = True
        self.reply.cancel()
