"""Server-side allocation: QUERY_ASSIGNMENT (400), SET_MESSAGE_REQUEST_MODE (401)."""

import asyncio
import logging
from collections.abc import Callable

from apogeemq.broker.errors import BrokerError, ServiceNotAvailable, SystemBusy
from apogeemq.broker.faces.remoting.disk_reads import write_reply
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.broker.service.assignments import AssignmentService
from apogeemq.broker.service.durability import AcknowledgementLine, Outcome
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.client_bodies import (
    MessageQueueAssignment,
    QueryAssignmentRequestBody,
    QueryAssignmentResponseBody,
    SetMessageRequestModeRequestBody,
)
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame

RUNNING_MAX = 10_000
"""Queries that may wait for a name server at a time."""

log = logging.getLogger(__name__)


class AssignmentRequests:
    """Handlers of the allocation family.

    Args:
        assignments: divides.
        stats: counts answers.
        refuse: makes the reply to a request that failed.
        mode_line: answers that wait until their mode is on the disk.
        monotonic: seconds.
        timeout_s: how long that may take.
    """

    def __init__(
        self,
        assignments: AssignmentService,
        stats: RequestStats,
        refuse: Callable[[RemotingCommand, Exception], Reply],
        *,
        mode_line: AcknowledgementLine,
        monotonic: Callable[[], float],
        timeout_s: float,
    ) -> None:
        self._assignments = assignments
        self._stats = stats
        self._refuse = refuse
        self._mode_line = mode_line
        self._monotonic = monotonic
        self._timeout_s = timeout_s
        self._running: set[asyncio.Task[list[MessageQueueAssignment] | None]] = set()

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {
            RequestCode.QUERY_ASSIGNMENT: self.query_assignment,
            RequestCode.SET_MESSAGE_REQUEST_MODE: self.set_message_request_mode,
        }

    def query_assignment(self, channel: Channel, command: RemotingCommand) -> Reply:
        """A client's share of a topic's queues; answered once the name servers said where else the topic is."""
        request = QueryAssignmentRequestBody.decode(command.body)
        if len(self._running) >= RUNNING_MAX:
            raise SystemBusy(
                f"[OVERLOAD] {len(self._running)} queries of assignments wait for a name server, "
                f"the limit is {RUNNING_MAX}"
            )
        querying = asyncio.get_running_loop().create_task(self._assignments.query(request))
        self._running.add(querying)
        querying.add_done_callback(lambda done: self._answer_later(channel, command, done))
        return None

    def set_message_request_mode(self, channel: Channel, command: RemotingCommand) -> Reply:
        """An administrator says whether a group pulls or pops. Counts at once; answered when it is on the disk."""
        mode = SetMessageRequestModeRequestBody.decode(command.body)
        self._mode_line.check_room()
        version = self._assignments.set_mode(mode)

        def written(outcome: Outcome) -> None:
            if outcome is Outcome.DONE:
                write_reply(channel, self._answer(command))
                return
            error = ServiceNotAvailable(
                f"the mode is set, but was not written to the disk within {self._timeout_s:g} s: a restart may forget "
                "it; set it again"
            )
            write_reply(channel, self._refuse(command, error))

        self._mode_line.add(version, self._monotonic() + self._timeout_s, written)
        return None

    async def stop(self) -> None:
        """Give up what waits for a name server; its clients ask again, elsewhere."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _answer_later(
        self, channel: Channel, command: RemotingCommand, done: "asyncio.Task[list[MessageQueueAssignment] | None]"
    ) -> None:
        self._running.discard(done)
        if done.cancelled():
            return
        try:
            body = QueryAssignmentResponseBody(message_queue_assignments=done.result()).encode()
        except BrokerError as error:
            reply = self._refuse(command, error)
        except Exception as error:  # a bug of ours: the asker still gets an answer, the log the trace
            log.exception("%s: dividing queues for %s failed", channel.peer, command)
            reply = self._refuse(command, error)
        else:
            reply = self._answer(command, body)
        write_reply(channel, reply)

    def _answer(self, command: RemotingCommand, body: bytes = b"") -> Reply:
        self._stats.count(command.code, ResponseCode.SUCCESS)
        if command.is_oneway:
            return None
        return encode_response_frame(command.opaque, ResponseCode.SUCCESS, {}, None, body)
