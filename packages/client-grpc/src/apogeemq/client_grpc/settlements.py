"""Settles what a push consumer's handlers are done with, until the server agrees or the handle is void.

Acknowledgements wait for nobody: while one AckMessage is under way, what gets done meanwhile joins the next one of the
same topic and proxy. A message whose trace is sampled has a call of its own, so that its trace shows it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Final

from apogeemq.client_api.errors import ClientError, NotSupported
from apogeemq.client_api.handling import Again, Done, GiveUp, Settlement
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_api.tracing import SpanScope
from apogeemq.client_grpc.client import end_tasks
from apogeemq.client_grpc.clock import Clock
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.settling import ACK_ENTRIES_MAX, INVISIBLE_S_MAX, Settler, receipt_of
from apogeemq.proto.v2 import definition_pb2

RETRY_S: Final = 1.0
RENEWED_S: Final = 60.0
"""At least as long a failed attempt is repeated: what a proxy gives a push consumer's message, again and again."""

_VOID: Final = definition_pb2.Code.INVALID_RECEIPT_HANDLE
_log = logging.getLogger(__name__)

Place = tuple[Endpoints, str]


class Settlements:
    """Settles messages in the background.

    Args:
        settler: makes the calls.
        clock: for the pauses, and to know when a handle is void.
        settled: called once for each message when it is settled or given up; true: it is done with, acknowledged or in
            the DLQ; false: it is delivered again.
        last_resort_s: seconds for a message that can't go to a DLQ: it is not lost, it comes back late.
        max_attempts: deliveries that the group's policy allows, for the DLQ's record.
    """

    def __init__(
        self,
        settler: Settler,
        *,
        clock: Clock,
        settled: Callable[[ReceivedMessage, bool], None],
        last_resort_s: Callable[[], float],
        max_attempts: Callable[[], int],
    ) -> None:
        self._settler = settler
        self._clock = clock
        self._settled = settled
        self._last_resort_s = last_resort_s
        self._max_attempts = max_attempts
        self._acks: dict[Place, list[ReceivedMessage]] = {}
        self._acking: set[Place] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def settle(self, message: ReceivedMessage, settlement: Settlement, scope: SpanScope) -> None:
        """Begin to settle; never waits. `scope` is the span of it, which ends with it."""
        if isinstance(settlement, Done) and not _is_sampled(scope):
            with scope:
                self._ack_soon(message)
        else:
            self._spawn(self._settle_traced(message, settlement, scope))

    async def drain(self) -> None:
        """Until everything is settled or given up."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """Give up what is not settled yet: it is delivered again."""
        await end_tasks(set(self._tasks))

    def _ack_soon(self, message: ReceivedMessage) -> None:
        place = (receipt_of(message).endpoints, message.topic)
        self._acks.setdefault(place, []).append(message)
        if place not in self._acking:
            self._acking.add(place)
            self._spawn(self._ack_all(place))

    async def _ack_all(self, place: Place) -> None:
        """Acknowledge whatever has gathered for a place, request by request, until nothing is left."""
        try:
            while waiting := self._acks.pop(place, None):
                for start in range(0, len(waiting), ACK_ENTRIES_MAX):
                    await self._ack_part(waiting[start : start + ACK_ENTRIES_MAX])
        finally:
            self._acking.discard(place)

    async def _ack_part(self, messages: list[ReceivedMessage]) -> None:
        try:
            results = await self._settler.ack(messages)
        except ClientError as error:
            for message in messages:
                self._spawn(self._again(message, Done(), error))
            return
        for result in results:
            if result.error is None:
                self._settled(result.message, True)
            else:
                self._spawn(self._again(result.message, Done(), result.error))

    async def _settle_traced(self, message: ReceivedMessage, settlement: Settlement, scope: SpanScope) -> None:
        with scope:
            try:
                is_done = await self._attempt(message, settlement, scope.traceparent)
            except ClientError as failure:
                scope.failed(failure)
                error = failure
            else:
                self._settled(message, is_done)
                return
        await self._again(message, settlement, error)

    async def _again(self, message: ReceivedMessage, settlement: Settlement, error: ClientError) -> None:
        """Repeat a failed attempt each second, as long as the handle may hold: the proxy renews it, while it can."""
        until_s = max(receipt_of(message).expires_s, self._clock.monotonic() + RENEWED_S)
        while error.code != _VOID and self._clock.monotonic() + RETRY_S <= until_s:
            await self._clock.sleep(RETRY_S)
            try:
                is_done = await self._attempt(message, settlement, None)
            except ClientError as failure:
                error = failure
            else:
                self._settled(message, is_done)
                return
        _log.warning("message %s is delivered again, for it could not be settled: %s", message.message_id, error)
        self._settled(message, False)

    async def _attempt(self, message: ReceivedMessage, settlement: Settlement, traceparent: str | None) -> bool:
        """One call, or two where there is no DLQ; whether the message is done with. Raises ClientError."""
        match settlement:
            case Done():
                (result,) = await self._settler.ack([message], traceparent=traceparent)
                if result.error is not None:
                    raise result.error
                return True
            case Again(after_s):
                await self._show_again(message, after_s, traceparent)
                return False
            case GiveUp(reason):
                return await self._give_up(message, reason, traceparent)

    async def _show_again(self, message: ReceivedMessage, after_s: float, traceparent: str | None) -> None:
        await self._settler.change_invisible(message, min(after_s, INVISIBLE_S_MAX), traceparent=traceparent)

    async def _give_up(self, message: ReceivedMessage, reason: str, traceparent: str | None) -> bool:
        """Move the message to the DLQ; where the server can't, it is not lost: it comes back, as late as may be."""
        try:
            await self._settler.forward_to_dlq(message, self._max_attempts(), traceparent=traceparent)
        except NotSupported as error:
            after_s = min(self._last_resort_s(), INVISIBLE_S_MAX)
            _log.warning(
                "message %s should go to the DLQ of group %s (%s), but the server has none: it comes back in %g s: %s",
                message.message_id,
                message.group,
                reason,
                after_s,
                error,
            )
            await self._show_again(message, after_s, traceparent)
            return False
        _log.warning("message %s went to the DLQ of group %s: %s", message.message_id, message.group, reason)
        return True

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run beside the handlers. There are never more tasks than messages held, and those have a bound."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("settling a message failed for a reason of our own", exc_info=error)


def _is_sampled(scope: SpanScope) -> bool:
    """Whether somebody records this span: bit 1 of the flags, beside which others may be set (W3C level 2 has 03)."""
    return scope.traceparent is not None and bool(int(scope.traceparent[-2:], 16) & 1)
