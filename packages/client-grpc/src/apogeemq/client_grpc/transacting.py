"""The other half of a transaction: its end, and the server's questions about those that nobody ended.

```
 Producer                                  proxy                          broker
    │ SendMessage (TRANSACTION) ──────────▶ │ ─────────────────────────────▶ │ half message
    │ ◀───────── transaction id ─────────── │                                │
    │ EndTransaction (SOURCE_CLIENT) ─────▶ │ ── commit or rollback ───────▶ │
    ┆                                       ┆  … or nobody ends it:          ┆
    │ ◀── RecoverOrphanedTransaction ────── │ ◀───────── who knows? ──────── │
    │ EndTransaction (SOURCE_SERVER_CHECK)▶ │ ─────────────────────────────▶ │
```
A transaction is ended at the proxy that took its half message, or that asked: Apache's remembers what belongs to a
transaction id for 30 s and tells no other proxy. A question is answered by no message of its own; who does not know
says nothing and is asked again. Source: reference of the public API, transactions.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Final, Self

from apogeemq.client_api.errors import EndTransactionFailed
from apogeemq.client_api.handling import Retry
from apogeemq.client_api.message import ReceivedMessage, SendReceipt
from apogeemq.client_api.tracing import Tracing
from apogeemq.client_api.transactions import CHECK_TIMEOUT_S, Checks, Resolution
from apogeemq.client_grpc.asking import ask_until_answered
from apogeemq.client_grpc.client import REQUEST_TIMEOUT_S, Client
from apogeemq.client_grpc.clock import within
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.messages import Corrupted, Origin, from_proto
from apogeemq.client_grpc.core.status import refusal
from apogeemq.client_grpc.methods import END_TRANSACTION
from apogeemq.proto.v2 import definition_pb2, service_pb2

_RESOLUTIONS: Final = {
    Resolution.COMMIT: definition_pb2.TransactionResolution.COMMIT,
    Resolution.ROLLBACK: definition_pb2.TransactionResolution.ROLLBACK,
}
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class HalfMessage:
    """A half message that is stored: what it takes to end it, and what its trace context is read from."""

    topic: str
    message_id: str
    transaction_id: str
    endpoints: Endpoints
    properties: Mapping[str, str]

    @classmethod
    def sent(cls, receipt: SendReceipt, endpoints: Endpoints, properties: Mapping[str, str]) -> Self:
        """The one that the proxy at `endpoints` gave this receipt for."""
        return cls(receipt.topic, receipt.message_id, receipt.transaction_id, endpoints, properties)

    @classmethod
    def asked_about(cls, message: ReceivedMessage, transaction_id: str, endpoints: Endpoints) -> Self:
        """The one that the proxy at `endpoints` asks about."""
        return cls(message.topic, message.message_id, transaction_id, endpoints, message.properties)


class Transactions:
    """Ends the transactions of one started producer.

    Args:
        checks: asks the application's checker.
        retry: the server's policy as it is now.
    """

    def __init__(self, client: Client, tracing: Tracing, checks: Checks, retry: Callable[[], Retry]) -> None:
        self._client = client
        self._tracing = tracing
        self._checks = checks
        self._retry = retry

    async def end(
        self,
        half: HalfMessage,
        resolution: Resolution,
        *,
        source: definition_pb2.TransactionSource = definition_pb2.TransactionSource.SOURCE_CLIENT,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        """Commit or roll back; UNKNOWN leaves it pending. May be told the same again.

        Raises EndTransactionFailed, SendTimeout, ConnectionBroken, ClientClosed.
        """
        if resolution is Resolution.UNKNOWN:
            return
        name = resolution.name.lower()
        what = f"the {name} of message {half.message_id} of topic {half.topic}"
        with self._tracing.end(name, half.topic, half.message_id, half.properties) as scope:
            request = service_pb2.EndTransactionRequest(
                topic=definition_pb2.Resource(name=half.topic),
                message_id=half.message_id,
                transaction_id=half.transaction_id,
                resolution=_RESOLUTIONS[resolution],
                source=source,
                trace_context=scope.traceparent or "",
            )
            await ask_until_answered(
                self._client,
                END_TRANSACTION,
                half.endpoints,
                request,
                what=what,
                refused=functools.partial(_refused, what, str(half.endpoints)),
                retry=self._retry(),
                timeout_s=timeout_s,
                traceparent=scope.traceparent,
            )

    async def check(self, command: service_pb2.RecoverOrphanedTransactionCommand, endpoints: Endpoints) -> None:
        """Have the checker tell how a transaction ended, and tell the proxy that asked. Raises as `end`.

        A checker that knows nothing, fails, or takes longer than CHECK_TIMEOUT_S is asked again by the server.
        """
        clock = self._client.clock
        message_id = command.message.system_properties.message_id
        try:
            message = from_proto(command.message, Origin("", "", endpoints, clock.monotonic(), 0.0))
        except Corrupted as reason:
            _log.error("the server asks about message %s, which is corrupted: %s", message_id, reason)
            return
        try:
            resolution = await within(clock, CHECK_TIMEOUT_S, self._checks.resolve(message))
        except TimeoutError:
            _log.error("the checker took more than %g s for message %s: it stays pending", CHECK_TIMEOUT_S, message_id)
            return
        half = HalfMessage.asked_about(message, command.transaction_id, endpoints)
        await self.end(half, resolution, source=definition_pb2.TransactionSource.SOURCE_SERVER_CHECK)


def _refused(what: str, broker: str, status: definition_pb2.Status) -> EndTransactionFailed:
    return refusal(EndTransactionFailed, f"{what} was refused", status, broker=broker)
