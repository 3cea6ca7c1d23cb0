"""RecallMessage: a producer takes back a DELAY message that waits for its time.

The handle of the send's result names the broker where the message lies. Source: reference grpc_v2.md §9, remoting.md
(recallHandle).
"""

from __future__ import annotations

from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.mesh.v1.methods import RECALL_MESSAGE
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.context import RequestContext
from apogeemq.proxy.core.names import topic_of
from apogeemq.proxy.core.status import OK
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.broker_calls import BrokerCalls
from apogeemq.remoting_codec.errors import RemoteProtocolError
from apogeemq.remoting_codec.message_id import decode_recall_handle


class Recalling:
    """Asks brokers to take messages back."""

    def __init__(self, calls: BrokerCalls) -> None:
        self._calls = calls

    async def recall_message(
        self, request: v2.RecallMessageRequest, context: RequestContext
    ) -> v2.RecallMessageResponse:
        """Take a message back; the answer has its id.

        Raises:
            ProxyError BAD_REQUEST: the handle is none, of another topic, of a broker that nobody knows, or of a message
                whose time has come.
            ProxyError: as the broker refused, or as the call to it failed.
        """
        topic = topic_of(request.topic, "topic")
        try:
            handle = decode_recall_handle(request.recall_handle)
        except RemoteProtocolError as error:
            raise ProxyError(Code.BAD_REQUEST, f"recall_handle: {error}") from error
        call = mesh.RecallMessageRequest(topic=topic, recall_handle=request.recall_handle)
        timeout_s = self._calls.timeout_s(context.deadline)
        reply = await self._calls.call(handle.broker_name, RECALL_MESSAGE, call, timeout_s=timeout_s)
        return v2.RecallMessageResponse(status=OK, message_id=reply.message_id)
