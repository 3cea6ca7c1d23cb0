"""PopMessage: hand messages out for a time, waiting for one where there is none."""

from collections.abc import Coroutine
from typing import Any

from apogeemq.broker.core.pop import POP_MESSAGES_MAX, Popped, PopRequest, RetryMark
from apogeemq.broker.core.topics import QUEUES_PER_TOPIC_MAX
from apogeemq.broker.errors import PollingFull, PollingTimeout
from apogeemq.broker.faces import fields
from apogeemq.broker.service.pop import INVISIBLE_TIME_MS_MAX
from apogeemq.broker.service.pop_waits import PopPolls
from apogeemq.mesh.calls import CallInfo
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.v1.broker_pb2 import (
    POP_FOUND,
    POP_INIT_MAX,
    POP_INIT_MIN,
    POP_POLLING_FULL,
    POP_POLLING_TIMEOUT,
    RETRY_MARK_NORMAL,
    RETRY_MARK_V1,
    RETRY_MARK_V2,
    PopMessageReply,
    PopMessageRequest,
    PoppedRun,
)

RETRY_MARKS = {
    RetryMark.NORMAL: RETRY_MARK_NORMAL,
    RetryMark.V1: RETRY_MARK_V1,
    RetryMark.V2: RETRY_MARK_V2,
}

ANSWER_TIME_S = 0.2
"""Kept back of the asker's deadline, so that "nothing came" still reaches it."""


class PopAnswers:
    """Answers to pops.

    Args:
        polls: where pops wait, those of both doors.
        clock: for how long they may.
    """

    def __init__(self, polls: PopPolls, clock: Clock) -> None:
        self._polls = polls
        self._clock = clock

    def pop_message(self, request: PopMessageRequest, info: CallInfo) -> Coroutine[Any, Any, PopMessageReply]:
        """Pop; the answer waits for the poll time at most, and never longer than anybody waits for it."""
        pop = _checked(request)
        deadline = min(self._clock.monotonic() + request.poll_time_ms / 1000, info.deadline - ANSWER_TIME_S)
        return self._pop(pop, deadline, info)

    async def _pop(self, pop: PopRequest, deadline: float, info: CallInfo) -> PopMessageReply:
        try:
            popped = await self._polls.pop(pop, deadline, info.owner)
        except PollingTimeout:
            return PopMessageReply(status=POP_POLLING_TIMEOUT)
        except PollingFull:
            return PopMessageReply(status=POP_POLLING_FULL)
        return _reply(popped)


def _checked(request: PopMessageRequest) -> PopRequest:
    fields.check_group("consumer_group", request.consumer_group)
    fields.check_topic("topic", request.topic)
    fields.check_range("queue_id", request.queue_id, -1, QUEUES_PER_TOPIC_MAX - 1)
    fields.check_range("max_msg_nums", request.max_msg_nums, 1, POP_MESSAGES_MAX)
    fields.check_range("invisible_time_ms", request.invisible_time_ms, 1, INVISIBLE_TIME_MS_MAX)
    fields.check_range("poll_time_ms", request.poll_time_ms, 0, fields.INT32_MAX)
    fields.check_range("init_mode", request.init_mode, POP_INIT_MIN, POP_INIT_MAX)
    fields.check_optional_text("expression_type", request.expression_type)
    fields.check_optional_text("expression", request.expression, fields.EXPRESSION_LENGTH_MAX)
    fields.check_optional_text("attempt_id", request.attempt_id)
    fields.check_optional_text("client_id", request.client_id)
    return PopRequest(
        group=request.consumer_group,
        topic=request.topic,
        queue_id=request.queue_id,
        count_max=request.max_msg_nums,
        invisible_time_ms=request.invisible_time_ms,
        init_mode=request.init_mode,
        expression_type=request.expression_type or None,
        expression=request.expression or None,
        order=request.order,
        attempt_id=request.attempt_id,
        client=request.client_id,
    )


def _reply(popped: Popped) -> PopMessageReply:
    runs = [
        PoppedRun(
            retry_mark=RETRY_MARKS[run.retry_mark],
            queue_id=run.queue_id,
            start_offset=run.start_offset,
            count=run.count,
            records=b"".join(run.buffers),
            delivery_attempts=run.times,
        )
        for run in popped.runs
    ]
    return PopMessageReply(
        status=POP_FOUND,
        pop_time_ms=popped.pop_time_ms,
        invisible_time_ms=popped.invisible_time_ms,
        revive_queue_id=popped.revive_queue_id,
        rest_num=popped.rest_num,
        runs=runs,
    )
