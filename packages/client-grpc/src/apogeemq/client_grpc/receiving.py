"""ReceiveMessage: which queues to ask, and one question after the other."""

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from typing import Final

from apogeemq.client_api.errors import ClientError, ConnectionBroken, ReceiveFailed
from apogeemq.client_api.filters import Filter
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_grpc.client import REQUEST_TIMEOUT_S, Client
from apogeemq.client_grpc.core import durations
from apogeemq.client_grpc.core.messages import Corrupted, Origin, from_proto, without_body
from apogeemq.client_grpc.core.routes import MessageQueue
from apogeemq.client_grpc.core.settings import filter_expression
from apogeemq.client_grpc.core.status import is_fine, is_worth_another_attempt, no_route, refusal
from apogeemq.client_grpc.methods import QUERY_ASSIGNMENT
from apogeemq.client_grpc.settling import receipt_of
from apogeemq.proto.v2 import definition_pb2, service_pb2

RENEWED_INVISIBLE_S: Final = 60.0  # what a proxy gives, and renews by itself, where the client asks for no time
POLLING_S_MIN: Final = 5.0  # servers hold a question at least this long, and refuse one with less time left
PAUSE_THROTTLED_S: Final = 0.02
PAUSE_FAILED_S: Final = 1.0

_Code = definition_pb2.Code
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What is asked of one queue. `invisible_s` None: the proxy chooses, and renews while the client lives."""

    queue: MessageQueue
    expression: Filter
    batch_size: int
    polling_s: float
    invisible_s: float | None = None
    attempt_id: str | None = None


@dataclasses.dataclass(slots=True)
class Batch:
    """What has come so far. Filled while the answer streams in, so that nothing is lost when the rest does not come.

    `received` is everything in its order, corrupted messages without their bodies among it.
    """

    received: list[ReceivedMessage] = dataclasses.field(default_factory=list)

    @property
    def messages(self) -> list[ReceivedMessage]:
        """What the application may see."""
        return [message for message in self.received if receipt_of(message).is_readable]


async def assigned_queues(client: Client, group: str, topic: str) -> tuple[MessageQueue, ...]:
    """The queues that the group may receive this topic from now; none where nothing is readable.

    Raises RouteNotFound, ConnectionBroken.
    """
    request = service_pb2.QueryAssignmentRequest(
        topic=definition_pb2.Resource(name=topic),
        group=definition_pb2.Resource(name=group),
        endpoints=client.access_point.to_proto(),
    )
    answer = await client.call(QUERY_ASSIGNMENT, client.access_point, request)
    if answer.status.code == _Code.FORBIDDEN:
        return ()
    if not is_fine(answer.status):
        raise no_route(topic, answer.status, broker=str(client.access_point))
    return tuple(MessageQueue.of(assignment.message_queue) for assignment in answer.assignments)


async def receive(
    client: Client, group: str, question: Question, *, into: Batch, traceparent: str | None = None
) -> None:
    """Ask once and wait for the answer, at most the polling time and a little more; an empty answer is one too.

    The proxy is told first who asks, if it does not know yet. A message whose body is damaged is reported in the log,
    and is in `into.received` without its body.
    Raises ReceiveFailed, ConnectionBroken, ClientClosed.
    """
    await client.session(question.queue.endpoints)
    parts = client.link.receive(
        question.queue.endpoints,
        _request(group, question),
        timeout_s=max(question.polling_s, POLLING_S_MIN) + REQUEST_TIMEOUT_S,
        traceparent=traceparent,
    )
    origin: Origin | None = None  # of the first message: their time runs from when the server began to answer
    async with contextlib.aclosing(parts):
        async for part in parts:
            if part.HasField("message"):
                origin = origin or _origin(group, question, client.clock.monotonic())
                _take(part.message, origin, into)
            elif part.HasField("status") and not _is_fine(part.status):
                if part.status.code == _Code.UNRECOGNIZED_CLIENT_TYPE:
                    await client.introduce(question.queue.endpoints)
                raise refusal(
                    ReceiveFailed,
                    f"group {group} may not receive from topic {question.queue.topic}",
                    part.status,
                    broker=question.queue.broker_name,
                )


def pause_s(error: Exception) -> float:
    """Seconds to wait after a failed question before the next: a busy server wants little, a broken one a second."""
    throttled = isinstance(error, ReceiveFailed) and error.code == _Code.TOO_MANY_REQUESTS
    return PAUSE_THROTTLED_S if throttled else PAUSE_FAILED_S


def may_pass(error: ClientError) -> bool:
    """True for a failed question that may be answered when it is asked again; false for a mistake in the question."""
    if isinstance(error, ReceiveFailed):
        code = error.code or _Code.INTERNAL_ERROR
        return is_worth_another_attempt(code) or code in {_Code.UNRECOGNIZED_CLIENT_TYPE, _Code.FORBIDDEN}
    return isinstance(error, ConnectionBroken)


def rotated(queues: Sequence[MessageQueue], turn: int) -> list[MessageQueue]:
    """The same queues, beginning with another one each turn."""
    start = turn % len(queues) if queues else 0
    return [*queues[start:], *queues[:start]]


def _origin(group: str, question: Question, now_s: float) -> Origin:
    return Origin(
        group=group,
        broker_name=question.queue.broker_name,
        endpoints=question.queue.endpoints,
        now_s=now_s,
        invisible_s=RENEWED_INVISIBLE_S if question.invisible_s is None else question.invisible_s,
    )


def _is_fine(status: definition_pb2.Status) -> bool:
    return is_fine(status) or status.code == _Code.MESSAGE_NOT_FOUND


def _take(message: definition_pb2.Message, origin: Origin, into: Batch) -> None:
    try:
        into.received.append(from_proto(message, origin))
    except Corrupted as reason:
        into.received.append(without_body(message, origin))
        _log.error(
            "message %s of topic %s from broker %s is corrupted and kept from the application: %s",
            message.system_properties.message_id,
            message.topic.name,
            origin.broker_name,
            reason,
        )


def _request(group: str, question: Question) -> service_pb2.ReceiveMessageRequest:
    request = service_pb2.ReceiveMessageRequest(
        group=definition_pb2.Resource(name=group),
        message_queue=question.queue.to_proto(),
        filter_expression=filter_expression(question.expression),
        batch_size=question.batch_size,
        auto_renew=question.invisible_s is None,
        long_polling_timeout=durations.duration(question.polling_s),
        attempt_id=question.attempt_id,
    )
    if question.invisible_s is not None:
        request.invisible_duration.CopyFrom(durations.duration(question.invisible_s))
    return request
