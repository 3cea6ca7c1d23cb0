"""What becomes of received messages at the server: acknowledged, visible again later, or in the DLQ."""

import dataclasses
from collections.abc import Sequence
from typing import Final

from apogeemq.client_api.errors import NotSupported, SettleFailed
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_grpc.client import REQUEST_TIMEOUT_S, Client
from apogeemq.client_grpc.core import durations
from apogeemq.client_grpc.core.messages import Receipt
from apogeemq.client_grpc.core.status import is_fine, refusal
from apogeemq.client_grpc.methods import ACK_MESSAGE, CHANGE_INVISIBLE_DURATION, FORWARD_TO_DLQ
from apogeemq.proto.v2 import definition_pb2, service_pb2

ACK_ENTRIES_MAX: Final = 32
INVISIBLE_S_MAX: Final = 12 * 3600.0

_Code = definition_pb2.Code


@dataclasses.dataclass(frozen=True, slots=True)
class Settled:
    """How the settling of one message ended; `error` None: as wanted."""

    message: ReceivedMessage
    error: SettleFailed | None


def receipt_of(message: ReceivedMessage) -> Receipt:
    """The receipt of a message that this package received. Raises SettleFailed for any other."""
    if not isinstance(message.receipt, Receipt):
        raise SettleFailed(
            f"message {message.message_id} has no receipt of this client",
            code=_Code.INVALID_RECEIPT_HANDLE,
            code_name="INVALID_RECEIPT_HANDLE",
            hint="Settle the message that was received, or that change_invisible gave back.",
        )
    return message.receipt


class Settler:
    """The settling calls of one consumer. Each is one attempt; all are safe to repeat."""

    def __init__(self, client: Client, group: str) -> None:
        self._client = client
        self._group = group

    async def ack(self, messages: Sequence[ReceivedMessage], *, traceparent: str | None = None) -> list[Settled]:
        """Acknowledge messages of one topic that came from one proxy, up to ACK_ENTRIES_MAX.

        The server answers for each, in their order. Raises SettleFailed when it refused all at once, ConnectionBroken.
        """
        assert 0 < len(messages) <= ACK_ENTRIES_MAX
        request = service_pb2.AckMessageRequest(
            group=definition_pb2.Resource(name=self._group),
            topic=definition_pb2.Resource(name=messages[0].topic),
            entries=[
                service_pb2.AckMessageEntry(message_id=message.message_id, receipt_handle=receipt_of(message).handle)
                for message in messages
            ],
        )
        answer = await self._client.link.unary(
            ACK_MESSAGE,
            receipt_of(messages[0]).endpoints,
            request,
            timeout_s=REQUEST_TIMEOUT_S,
            traceparent=traceparent,
            wait_for_connection=True,
        )
        if len(answer.entries) != len(messages):
            if is_fine(answer.status):
                return [Settled(message, None) for message in messages]
            raise self._refused("ack", messages[0], answer.status)
        return [
            Settled(message, None if is_fine(entry.status) else self._refused("ack", message, entry.status))
            for message, entry in zip(messages, answer.entries, strict=True)
        ]

    async def change_invisible(
        self, message: ReceivedMessage, invisible_s: float, *, traceparent: str | None = None
    ) -> ReceivedMessage:
        """Let the message be visible again in `invisible_s` seconds from now, 0 to 12 h.

        The message given back has the receipt that is valid from now on. Raises SettleFailed, ConnectionBroken.
        """
        receipt = receipt_of(message)
        request = service_pb2.ChangeInvisibleDurationRequest(
            group=definition_pb2.Resource(name=self._group),
            topic=definition_pb2.Resource(name=message.topic),
            receipt_handle=receipt.handle,
            invisible_duration=durations.duration(invisible_s),
            message_id=message.message_id,
        )
        answer = await self._client.link.unary(
            CHANGE_INVISIBLE_DURATION,
            receipt.endpoints,
            request,
            timeout_s=REQUEST_TIMEOUT_S,
            traceparent=traceparent,
            wait_for_connection=True,
        )
        if not is_fine(answer.status):
            raise self._refused("change the invisible time of", message, answer.status)
        changed = dataclasses.replace(
            receipt,
            handle=answer.receipt_handle or receipt.handle,
            expires_s=self._client.clock.monotonic() + invisible_s,
        )
        return dataclasses.replace(message, receipt=changed)

    async def forward_to_dlq(
        self, message: ReceivedMessage, max_attempts: int, *, traceparent: str | None = None
    ) -> None:
        """Move the message to the group's DLQ. Raises NotSupported, SettleFailed, ConnectionBroken."""
        receipt = receipt_of(message)
        request = service_pb2.ForwardMessageToDeadLetterQueueRequest(
            group=definition_pb2.Resource(name=self._group),
            topic=definition_pb2.Resource(name=message.topic),
            receipt_handle=receipt.handle,
            message_id=message.message_id,
            delivery_attempt=message.delivery_attempt,
            max_delivery_attempts=max_attempts,
        )
        answer = await self._client.link.unary(
            FORWARD_TO_DLQ,
            receipt.endpoints,
            request,
            timeout_s=REQUEST_TIMEOUT_S,
            traceparent=traceparent,
            wait_for_connection=True,
        )
        if answer.status.code in {_Code.NOT_IMPLEMENTED, _Code.UNSUPPORTED}:
            raise NotSupported(f"the server moves no messages to a DLQ: {answer.status.message}")
        if not is_fine(answer.status):
            raise self._refused("move to the DLQ", message, answer.status)

    def _refused(self, what: str, message: ReceivedMessage, status: definition_pb2.Status) -> SettleFailed:
        return refusal(
            SettleFailed,
            f"could not {what} message {message.message_id} of topic {message.topic} for group {self._group}",
            status,
            broker=message.broker_name,
            attempts=1,
        )
