"""One send from its first attempt to its last: what is stored already, what was tried, what went wrong."""

from collections.abc import Sequence

from apogeemq.client_api.errors import ClientError, NotSupported, RouteNotFound, SendFailed, SendTimeout
from apogeemq.client_api.message import Message, SendReceipt
from apogeemq.client_grpc.client import Client
from apogeemq.client_grpc.core.messages import to_proto
from apogeemq.client_grpc.core.routes import MessageQueue
from apogeemq.client_grpc.core.status import is_fine, is_worth_another_attempt, refusal
from apogeemq.client_grpc.link import NoAnswer
from apogeemq.proto.v2 import definition_pb2, service_pb2


class BatchPartlySent(SendFailed):
    """Some messages of a batch were stored and some were refused for good.

    `receipts` has one entry for each message, in order: its receipt, or None where it was refused.
    """

    def __init__(self, cause: SendFailed, receipts: Sequence[SendReceipt | None]) -> None:
        stored = sum(receipt is not None for receipt in receipts)
        super().__init__(
            f"{stored} of {len(receipts)} messages were stored; of the others the first failed so: {cause.text}",
            code=cause.code or 0,
            code_name=cause.code_name,
            broker=cause.broker,
            attempts=cause.attempts,
            elapsed_s=cause.elapsed_s,
            hint=cause.hint,
        )
        self.receipts = tuple(receipts)


class Sending:
    """One send from its first attempt to its last: what is stored already, what was tried, what went wrong."""

    def __init__(
        self,
        client: Client,
        messages: Sequence[Message],
        *,
        deadline_s: float,
        timeout_s: float,
        in_transaction: bool = False,
    ) -> None:
        self.topic = messages[0].topic
        self.message_group = messages[0].message_group
        self.only_way = True
        self.attempts = 0
        self.tried: set[str] = set()
        self.broker: str | None = None
        self.endpoints = client.access_point
        self._in_transaction = in_transaction
        self.last_error: ClientError | None = None
        self._client = client
        self._deadline_s = deadline_s
        self._timeout_s = timeout_s
        self._receipts: list[SendReceipt | None] = [None] * len(messages)
        self._refused_for_good = False
        now_ms = client.clock.now_ms()
        self._parts = [
            to_proto(
                message,
                message_id=client.identity.message_ids.next(),
                born_timestamp_ms=now_ms,
                born_host=client.identity.hostname,
                in_transaction=in_transaction,
            )
            for message in messages
        ]

    @property
    def done(self) -> bool:
        """Every message is stored."""
        return None not in self._receipts

    @property
    def remaining_s(self) -> float:
        """Time left for everything that is still to do."""
        return self._deadline_s - self._client.clock.monotonic()

    @property
    def attempt_timeout_s(self) -> float:
        """Time for one attempt: half of what is left where there is another way to try after it."""
        return max(self.remaining_s if self.only_way else self.remaining_s / 2, 0.001)

    @property
    def worth_another_attempt(self) -> bool:
        """Something failed that may succeed elsewhere or later, and nothing is refused for good.

        A half message is sent again only when it was certainly not stored: each one is a transaction of its own, and
        the checker would be asked about one that nobody remembers.
        """
        if self._refused_for_good or isinstance(self.last_error, (NotSupported, RouteNotFound)):
            return False
        code = None if self.last_error is None else self.last_error.code
        if self._in_transaction:
            return code == definition_pb2.Code.TOO_MANY_REQUESTS
        return code is None or is_worth_another_attempt(code)

    def attempt(self, queue: MessageQueue) -> None:
        """Count one attempt at a queue."""
        self.attempts += 1
        self.tried.add(queue.broker_name)
        self.broker, self.endpoints = queue.broker_name, queue.endpoints

    def request(self) -> service_pb2.SendMessageRequest:
        """What is not stored yet."""
        parts = [part for part, receipt in zip(self._parts, self._receipts, strict=True) if receipt is None]
        return service_pb2.SendMessageRequest(messages=parts)

    def failed(self, error: ClientError) -> None:
        """The attempt ended without an answer."""
        self.last_error = error

    def answered(self, answer: service_pb2.SendMessageResponse) -> None:
        """Take the receipts of what was stored, and the first error of what was not."""
        waiting = [index for index, receipt in enumerate(self._receipts) if receipt is None]
        text = f"topic {self.topic} did not take the message"
        self.last_error = None
        if not is_fine(answer.status) and not answer.entries:
            self._refused(text, answer.status)
            return
        if len(answer.entries) != len(waiting):
            bad = definition_pb2.Status(
                code=definition_pb2.Code.INTERNAL_ERROR,
                message=f"{len(answer.entries)} results for {len(waiting)} messages",
            )
            self._refused(text, bad)
            return
        for index, entry in zip(waiting, answer.entries, strict=True):
            if is_fine(entry.status):
                self._receipts[index] = SendReceipt(
                    message_id=entry.message_id or self._parts[index].system_properties.message_id,
                    topic=self.topic,
                    broker_name="",
                    queue_id=-1,
                    queue_offset=entry.offset,
                    transaction_id=entry.transaction_id,
                    recall_handle=entry.recall_handle,
                )
            else:
                self._refused(text, entry.status)

    def result(self) -> list[SendReceipt]:
        """The receipts, once done."""
        return [receipt for receipt in self._receipts if receipt is not None]

    def error(self) -> ClientError:
        """Why this send is given up."""
        error = self.last_error
        assert error is not None, "a send is given up only after a failure"
        if isinstance(error, NoAnswer):
            return self.too_late()
        error.attempts, error.elapsed_s = self.attempts, self._timeout_s - self.remaining_s
        if isinstance(error, SendFailed) and any(self._receipts):
            return BatchPartlySent(error, self._receipts)
        return error

    def too_late(self) -> SendTimeout:
        """The time is up, whatever came before."""
        late = SendTimeout(
            f"sending to topic {self.topic} was not done within {self._timeout_s:g} s"
            + (f"; the last attempt: {self.last_error.text}" if self.last_error else ""),
            broker=self.broker,
            attempts=self.attempts,
            elapsed_s=self._timeout_s - self.remaining_s,
            hint="The message may have been stored all the same.",
        )
        late.__cause__ = self.last_error
        return late

    def _refused(self, text: str, status: definition_pb2.Status) -> None:
        error = refusal(SendFailed, text, status, broker=self.broker, attempts=self.attempts)
        self._refused_for_good = self._refused_for_good or not is_worth_another_attempt(status.code)
        self.last_error = self.last_error or error
