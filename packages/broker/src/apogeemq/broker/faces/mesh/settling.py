"""What becomes of popped messages: AckMessage, ChangeInvisibleTime, ExtendInvisible."""

from collections.abc import Sequence

from apogeemq.broker.core.pop import HANDLES_PER_CALL_MAX, HandleResult, PopHandle, RetryMark
from apogeemq.broker.core.topics import QUEUES_PER_TOPIC_MAX
from apogeemq.broker.faces import fields
from apogeemq.broker.service.pop import INVISIBLE_TIME_MS_MAX, PopService
from apogeemq.mesh.calls import CallInfo
from apogeemq.mesh.v1 import broker_pb2 as pb

RESULTS = {
    HandleResult.OK: pb.HANDLE_OK,
    HandleResult.EXPIRED: pb.HANDLE_EXPIRED,
    HandleResult.NO_MESSAGE: pb.HANDLE_NO_MESSAGE,
}


class SettlingAnswers:
    """Answers about popped messages; each handle has a result of its own."""

    def __init__(self, pops: PopService) -> None:
        self._pops = pops

    def ack_message(self, request: pb.AckMessageRequest, info: CallInfo) -> pb.AckMessageReply:
        """They were processed."""
        _check_names(request.consumer_group, request.topic)
        handles = _handles(request.handles)
        results = self._pops.ack(request.consumer_group, request.topic, handles)
        return pb.AckMessageReply(results=[RESULTS[result] for result in results])

    def change_invisible_time(
        self, request: pb.ChangeInvisibleTimeRequest, info: CallInfo
    ) -> pb.ChangeInvisibleTimeReply:
        """One gets a new time, and a new handle."""
        _check_names(request.consumer_group, request.topic)
        fields.check_range("invisible_time_ms", request.invisible_time_ms, 0, INVISIBLE_TIME_MS_MAX)
        handle = pop_handle("handle", request.handle)
        changed = self._pops.change_invisible(request.consumer_group, request.topic, handle, request.invisible_time_ms)
        return pb.ChangeInvisibleTimeReply(
            result=RESULTS[changed.result],
            pop_time_ms=changed.pop_time_ms,
            invisible_time_ms=changed.invisible_time_ms,
            revive_queue_id=changed.revive_queue_id,
        )

    def extend_invisible(self, request: pb.ExtendInvisibleRequest, info: CallInfo) -> pb.ExtendInvisibleReply:
        """They get more time under the handles that they have."""
        _check_names(request.consumer_group, request.topic)
        fields.check_range("invisible_time_ms", request.invisible_time_ms, 1, INVISIBLE_TIME_MS_MAX)
        handles = _handles(request.handles)
        results = self._pops.extend(request.consumer_group, request.topic, handles, request.invisible_time_ms)
        return pb.ExtendInvisibleReply(results=[RESULTS[result] for result in results])


def _check_names(group: str, topic: str) -> None:
    fields.check_group("consumer_group", group)
    fields.check_topic("topic", topic)


def _handles(handles: Sequence[pb.PopHandle]) -> list[PopHandle]:
    fields.check_count("handles", len(handles), 1, HANDLES_PER_CALL_MAX)
    return [pop_handle("handles", handle) for handle in handles]


def pop_handle(field: str, handle: pb.PopHandle) -> PopHandle:
    """Read a handle; InvalidParameter names the field of one that is out of its bounds."""
    # One look for the common case: what is wrong is said by `_refuse`.
    retry_mark, queue_id, revive_queue_id = handle.retry_mark, handle.queue_id, handle.revive_queue_id
    queue_offset, start_offset = handle.queue_offset, handle.start_offset
    pop_time_ms, invisible_time_ms = handle.pop_time_ms, handle.invisible_time_ms
    if (
        not 0 <= retry_mark < len(RetryMark)
        or not 0 <= queue_id < QUEUES_PER_TOPIC_MAX
        or not 0 <= revive_queue_id < QUEUES_PER_TOPIC_MAX
        or queue_offset < 0
        or start_offset < 0
        or pop_time_ms <= 0
        or invisible_time_ms < 0
    ):
        _refuse(field, handle)
    mark = RetryMark(retry_mark)
    return PopHandle(mark, queue_id, queue_offset, start_offset, pop_time_ms, invisible_time_ms, revive_queue_id)


def _refuse(field: str, handle: pb.PopHandle) -> None:
    """Name the field of a handle that is out of its bounds. Raises InvalidParameter."""
    fields.check_range(f"{field}.retry_mark", handle.retry_mark, 0, len(RetryMark) - 1)
    fields.check_queue_id(f"{field}.queue_id", handle.queue_id)
    fields.check_queue_id(f"{field}.revive_queue_id", handle.revive_queue_id)
    fields.check_range(f"{field}.queue_offset", handle.queue_offset, 0, fields.INT64_MAX)
    fields.check_range(f"{field}.start_offset", handle.start_offset, 0, fields.INT64_MAX)
    fields.check_range(f"{field}.pop_time_ms", handle.pop_time_ms, 1, fields.INT64_MAX)
    fields.check_range(f"{field}.invisible_time_ms", handle.invisible_time_ms, 0, fields.INT64_MAX)
