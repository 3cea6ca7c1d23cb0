"""EndTransaction: a producer commits what it sent as a half message, or rolls it back.

Any proxy may be asked: the transaction id says where the half message is (core/transaction_id.py). Ending a transaction
once more in the same way is no error. A producer that does not know yet (TRANSACTION_RESOLUTION_UNSPECIFIED) changes
nothing, and is asked again later.
"""

from __future__ import annotations

from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.mesh.v1.methods import END_TRANSACTION
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import COMMIT, ROLLBACK, TRANSACTION_RESOLUTION_UNSPECIFIED, Code
from apogeemq.proxy.core import transaction_id
from apogeemq.proxy.core.context import RequestContext
from apogeemq.proxy.core.names import topic_of
from apogeemq.proxy.core.status import OK
from apogeemq.proxy.core.validation import MESSAGE_ID_SIZE_MAX
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.broker_calls import BrokerCalls

_RESOLUTIONS = {COMMIT: mesh.TRANSACTION_COMMIT, ROLLBACK: mesh.TRANSACTION_ROLLBACK}


class Transactions:
    """Tells brokers what producers decided."""

    def __init__(self, calls: BrokerCalls) -> None:
        self._calls = calls

    async def end_transaction(
        self, request: v2.EndTransactionRequest, context: RequestContext
    ) -> v2.EndTransactionResponse:
        """Commit or roll back.

        Raises:
            ProxyError ILLEGAL_TOPIC: as topics are refused.
            ProxyError INVALID_TRANSACTION_ID: it is none of ours, of another topic or message, of a broker that nobody
                knows, or of a transaction that has ended otherwise or is not pending any more.
            ProxyError: what became of the call to the broker.
        """
        topic = topic_of(request.topic, "topic")
        half = transaction_id.parse(request.transaction_id)
        if len(request.message_id) > MESSAGE_ID_SIZE_MAX:
            text = f"message_id: {len(request.message_id)} characters, at most {MESSAGE_ID_SIZE_MAX} are allowed"
            raise ProxyError(Code.ILLEGAL_MESSAGE_ID, text)
        if request.resolution == TRANSACTION_RESOLUTION_UNSPECIFIED:
            return v2.EndTransactionResponse(status=OK)
        resolution = _RESOLUTIONS.get(request.resolution)
        if resolution is None:
            text = f"resolution: {int(request.resolution)} is neither COMMIT nor ROLLBACK"
            raise ProxyError(Code.BAD_REQUEST, text)
        call = mesh.EndTransactionRequest(
            producer_group=topic,
            queue_offset=half.queue_offset,
            physical_offset=half.physical_offset,
            resolution=resolution,
            message_id=request.message_id,
        )
        timeout_s = self._calls.timeout_s(context.deadline)
        try:
            reply = await self._calls.call(half.broker_name, END_TRANSACTION, call, timeout_s=timeout_s)
        except ProxyError as error:
            if error.code == Code.BAD_REQUEST:  # no such broker: all else was checked here
                raise transaction_id.invalid(error.message) from error
            raise
        if reply.result != mesh.END_OK:
            raise transaction_id.invalid(reply.remark)
        return v2.EndTransactionResponse(status=OK)
