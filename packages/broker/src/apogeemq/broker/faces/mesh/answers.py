"""What is the same for all calls: errors become refusals with RocketMQ's codes, and every answer is counted."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from apogeemq.broker.errors import BrokerError
from apogeemq.broker.faces.error_codes import error_code, refusal_limit, refusal_remark
from apogeemq.mesh.calls import Answer, Call, CallInfo
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.network import Req, Resp
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.store.errors import StoreError

FACE_ERRORS = (BrokerError, CodecError, StoreError)
"""What a call may be refused with; anything else is a bug, which the mesh logs and answers with SYSTEM_ERROR."""


class CallStats:
    """Counts by (call name, response code), and refusals by limit; plain ints, read at scrape time."""

    __slots__ = ("counts", "refused")

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int], int] = {}
        self.refused: Counter[str] = Counter()

    def count(self, call_name: str, response_code: int) -> None:
        """Count one answer."""
        key = (call_name, response_code)
        self.counts[key] = self.counts.get(key, 0) + 1

    def count_refusal(self, call_name: str, error: Exception) -> CallRefused:
        """Count an answer that is a refusal, and give it."""
        refused = refusal(error)
        self.count(call_name, refused.code)
        limit = refusal_limit(error)
        if limit is not None:
            self.refused[limit] += 1
        return refused


def refusal(error: Exception) -> CallRefused:
    """The refusal that one of FACE_ERRORS becomes."""
    return CallRefused(int(error_code(error)), refusal_remark(error))


def answer(
    call: Call[Req, Resp],
    function: Callable[[Req, CallInfo], "Resp | asyncio.Future[Resp] | Coroutine[Any, Any, Resp]"],
    stats: CallStats,
) -> Answer[Req, Resp]:
    """The answer to `call` by `function`, which gives the reply, a coroutine, or a future.

    The function, and the coroutine, refuse with FACE_ERRORS. A future is for the one case that has no task: it fails
    with CallRefused only.
    """
    name, response_type = call.name, call.response_type

    def answered(request: Req, info: CallInfo) -> Resp | Awaitable[Resp]:
        try:
            reply = function(request, info)
        except FACE_ERRORS as error:
            raise stats.count_refusal(name, error) from error
        if type(reply) is response_type:
            stats.count(name, ResponseCode.SUCCESS)
            return reply
        if isinstance(reply, asyncio.Future):
            reply.add_done_callback(count_future)
            return reply
        return later(cast("Coroutine[Any, Any, Resp]", reply))

    async def later(reply: Coroutine[Any, Any, Resp]) -> Resp:
        try:
            result = await reply
        except FACE_ERRORS as error:
            raise stats.count_refusal(name, error) from error
        stats.count(name, ResponseCode.SUCCESS)
        return result

    def count_future(reply: "asyncio.Future[Resp]") -> None:
        if not reply.cancelled():
            error = reply.exception()
            stats.count(name, error.code if isinstance(error, CallRefused) else ResponseCode.SUCCESS)

    return Answer(call, answered)
