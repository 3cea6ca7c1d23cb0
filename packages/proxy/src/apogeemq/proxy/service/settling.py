"""AckMessage, ChangeInvisibleDuration and ForwardMessageToDeadLetterQueue: what becomes of messages handed out.

While a broker set has no master they wait for the next one, within the client's deadline: it knows what was handed out.
Where an answer was lost the client decides, since the handle may be used up.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from apogeemq.mesh.calls import Call
from apogeemq.mesh.network import Req, Resp
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.mesh.v1.methods import ACK_MESSAGE, CHANGE_INVISIBLE_TIME, FORWARD_TO_DEAD_LETTER_QUEUE
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code, Status
from apogeemq.proxy.core import receipt_handle
from apogeemq.proxy.core.context import RequestContext
from apogeemq.proxy.core.durations import milliseconds
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.core.names import group_of, topic_of
from apogeemq.proxy.core.receipt_handle import ReceiptHandle
from apogeemq.proxy.core.renewal import RenewalTable
from apogeemq.proxy.core.status import OK, common_status, status, status_of, status_of_handle
from apogeemq.proxy.core.validation import check_ack, check_changed_invisible_time
from apogeemq.proxy.errors import MasterAway, ProxyError
from apogeemq.proxy.service.broker_calls import ANSWER_MARGIN_S, BrokerCalls
from apogeemq.proxy.service.failover import MasterWait, MasterWaits


class Settling:
    """Tells brokers what clients did with their messages."""

    def __init__(self, calls: BrokerCalls, renewals: RenewalTable, waits: MasterWaits, limits: Limits) -> None:
        self._calls = calls
        self._renewals = renewals
        self._waits = waits
        self._limits = limits

    async def ack_message(self, request: v2.AckMessageRequest, context: RequestContext) -> v2.AckMessageResponse:
        """Acknowledge; each entry has a result of its own. One call goes to each broker, to all of them at once."""
        group, topic = check_ack(request, self._limits)
        statuses: dict[int, Status] = {}
        by_broker: dict[str, list[tuple[int, ReceiptHandle]]] = defaultdict(list)
        for index, entry in enumerate(request.entries):
            try:
                handle = receipt_handle.parse(entry.receipt_handle)
            except ProxyError as error:
                statuses[index] = status_of(ProxyError(error.code, f"entries[{index}].{error.message}"))
            else:
                by_broker[handle.broker_name].append((index, handle))
        calls = [self._ack_at(broker, group, topic, handles, context) for broker, handles in by_broker.items()]
        for of_broker in await asyncio.gather(*calls):
            statuses |= of_broker
        for index, entry in enumerate(request.entries):
            if statuses[index].code in (Code.OK, Code.INVALID_RECEIPT_HANDLE):
                self._renewals.settled(context.client_id, group, entry.receipt_handle)
        entries = [
            v2.AckMessageResultEntry(
                message_id=entry.message_id, receipt_handle=entry.receipt_handle, status=statuses[index]
            )
            for index, entry in enumerate(request.entries)
        ]
        return v2.AckMessageResponse(status=common_status([entry.status for entry in entries]), entries=entries)

    async def _ack_at(
        self,
        broker_name: str,
        group: str,
        topic: str,
        handles: list[tuple[int, ReceiptHandle]],
        context: RequestContext,
    ) -> dict[int, Status]:
        """Acknowledge what one broker handed out; statuses by place in the request."""
        request = mesh.AckMessageRequest(
            consumer_group=group, topic=topic, handles=[receipt_handle.to_mesh(handle) for _, handle in handles]
        )
        try:
            reply = await self._ask(broker_name, ACK_MESSAGE, request, topic, context)
        except ProxyError as error:
            return {index: status_of(error) for index, _ in handles}
        if len(reply.results) != len(handles):
            text = f"{broker_name} answered {len(reply.results)} of {len(handles)} handles"
            return {index: status(Code.INTERNAL_SERVER_ERROR, text) for index, _ in handles}
        return {index: status_of_handle(result) for (index, _), result in zip(handles, reply.results, strict=True)}

    async def change_invisible_duration(
        self, request: v2.ChangeInvisibleDurationRequest, context: RequestContext
    ) -> v2.ChangeInvisibleDurationResponse:
        """Hand the message out again after this time from now; the answer has the handle that is good from here on.

        Of a broker that is too busy the old handle comes back: it is still good.
        """
        topic, group = topic_of(request.topic, "topic"), group_of(request.group, "group")
        given_ms = milliseconds(request.invisible_duration) if request.HasField("invisible_duration") else None
        invisible_time_ms = check_changed_invisible_time(given_ms, self._limits)
        handle = receipt_handle.parse(request.receipt_handle)
        call = mesh.ChangeInvisibleTimeRequest(
            consumer_group=group,
            topic=topic,
            handle=receipt_handle.to_mesh(handle),
            invisible_time_ms=invisible_time_ms,
        )
        try:
            reply = await self._ask(handle.broker_name, CHANGE_INVISIBLE_TIME, call, topic, context)
        except ProxyError as error:
            if error.code != Code.TOO_MANY_REQUESTS:
                raise
            return v2.ChangeInvisibleDurationResponse(status=status_of(error), receipt_handle=request.receipt_handle)
        self._renewals.settled(context.client_id, group, request.receipt_handle)
        if reply.result != mesh.HANDLE_OK:
            return v2.ChangeInvisibleDurationResponse(status=status_of_handle(reply.result))
        return v2.ChangeInvisibleDurationResponse(status=OK, receipt_handle=str(receipt_handle.renewed(handle, reply)))

    async def forward_to_dead_letter_queue(
        self, request: v2.ForwardMessageToDeadLetterQueueRequest, context: RequestContext
    ) -> v2.ForwardMessageToDeadLetterQueueResponse:
        """Move the message to its group's dead letters, and acknowledge it; may be repeated."""
        topic, group = topic_of(request.topic, "topic"), group_of(request.group, "group")
        handle = receipt_handle.parse(request.receipt_handle)
        call = mesh.ForwardToDeadLetterQueueRequest(
            consumer_group=group, topic=topic, handle=receipt_handle.to_mesh(handle), reason=_reason(request)
        )
        reply = await self._ask(handle.broker_name, FORWARD_TO_DEAD_LETTER_QUEUE, call, topic, context)
        self._renewals.settled(context.client_id, group, request.receipt_handle)
        return v2.ForwardMessageToDeadLetterQueueResponse(status=status_of_handle(reply.result))

    async def _ask(
        self, broker_name: str, call: Call[Req, Resp], request: Req, topic: str, context: RequestContext
    ) -> Resp:
        """Ask the master, or the next one where there is none now: nothing was done then."""
        wait: MasterWait | None = None
        while True:
            timeout_s = self._calls.timeout_s(context.deadline)
            try:
                return await self._calls.call(broker_name, call, request, timeout_s=timeout_s)
            except MasterAway:
                wait = wait or self._waits.until(topic, context.deadline - 2 * ANSWER_MARGIN_S)
                if not await wait.pause():
                    raise
            # Where no watch tells of the next master, this does.
            await self._waits.routes.route(topic, timeout_s=self._calls.timeout_s(context.deadline))


def _reason(request: v2.ForwardMessageToDeadLetterQueueRequest) -> str:
    """What the API lets a consumer say of its failures; empty when it says nothing."""
    if request.delivery_attempt <= 0:
        return ""
    of_all = f" of {request.max_delivery_attempts}" if request.max_delivery_attempts > 0 else ""
    return f"forwarded by its consumer after attempt {request.delivery_attempt}{of_all}"
