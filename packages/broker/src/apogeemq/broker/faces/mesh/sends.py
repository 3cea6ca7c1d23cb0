"""SendMessage: the same sends as over Remoting, by the same service, acknowledged by the same rules."""

import asyncio
from collections.abc import Callable

import msgspec
from apogeemq.broker.core.topics import QUEUES_PER_TOPIC_MAX
from apogeemq.broker.errors import InvalidParameter, MessageIllegal
from apogeemq.broker.faces import fields
from apogeemq.broker.faces.spans import SendSpans
from apogeemq.broker.service.acknowledge import Acknowledger, Verdict
from apogeemq.broker.service.send import SendService, Sent
from apogeemq.mesh.calls import CallInfo
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.v1.broker_pb2 import (
    FLUSH_DISK_TIMEOUT,
    FLUSH_SLAVE_TIMEOUT,
    SEND_OK,
    SLAVE_NOT_AVAILABLE,
    SendMessageReply,
    SendMessageRequest,
    SendStatus,
)
from apogeemq.remoting_codec.codes import VERSION, ResponseCode

HOST_SIZES_BYTES = (8, 20)
"""4 or 16 bytes of address, 4 of port."""

_STORED = {
    ResponseCode.FLUSH_DISK_TIMEOUT: FLUSH_DISK_TIMEOUT,
    ResponseCode.FLUSH_SLAVE_TIMEOUT: FLUSH_SLAVE_TIMEOUT,
    ResponseCode.SLAVE_NOT_AVAILABLE: SLAVE_NOT_AVAILABLE,
}
"""Verdicts on what is stored here, but not known to be as safe as it should be."""


class MeshSend(msgspec.Struct, gc=False):
    """A SendMessageRequest as the send service wants it."""

    producer_group: str
    topic: str
    default_topic: str
    default_topic_queue_nums: int
    queue_id: int
    sys_flag: int
    born_timestamp: int
    flag: int
    properties: str | None
    reconsume_times: int | None
    max_reconsume_times: int | None
    batch: bool | None


class SendAnswers:
    """Answers to sends.

    Args:
        send: the service.
        acknowledger: decides when an acknowledgement may go out.
        spans: for sampled traces.
    """

    def __init__(self, send: SendService, acknowledger: Acknowledger, spans: SendSpans) -> None:
        self._send = send
        self._acknowledger = acknowledger
        self._spans = spans

    def send_message(
        self, request: SendMessageRequest, info: CallInfo
    ) -> "SendMessageReply | asyncio.Future[SendMessageReply]":
        """Store one message or one batch; a future only while something must be on disk first."""
        self._acknowledger.check_room(None, len(request.body))
        send = _checked(request)
        if info.trace is None:
            sent = self._send.send(send, request.body, request.born_host, VERSION)
        else:
            with self._spans.append():
                sent = self._send.send(send, request.body, request.born_host, VERSION)
        if self._acknowledger.is_safe(sent.topic, sent.wait):
            return _reply(sent, SEND_OK)
        future: asyncio.Future[SendMessageReply] = asyncio.get_running_loop().create_future()
        self._acknowledger.when_safe(
            sent.topic, sent.end_offset, sent.wait, _settling(future, sent), None, len(request.body)
        )
        return future


def _settling(future: "asyncio.Future[SendMessageReply]", sent: Sent) -> Callable[[Verdict], None]:
    """What tells the asker how the wait ended, if it still waits."""

    def settle(verdict: Verdict) -> None:
        if future.done():
            return
        if verdict.code is ResponseCode.SUCCESS:
            future.set_result(_reply(sent, SEND_OK))
        elif verdict.code in _STORED:
            future.set_result(_reply(sent, _STORED[verdict.code]))
        else:
            # Not the verdict's SERVICE_NOT_AVAILABLE, which says that nothing was stored: a proxy would send it again.
            future.set_exception(CallRefused(ResponseCode.SYSTEM_ERROR, verdict.remark or ""))

    return settle


def _reply(sent: Sent, status: SendStatus) -> SendMessageReply:
    return SendMessageReply(
        status=status,
        offset_message_id=sent.message_id,
        message_id=sent.unique_key,
        queue_id=sent.queue_id,
        queue_offset=sent.queue_offset,
        transaction_id=sent.unique_key,
        recall_handle=sent.recall_handle,
    )


def _checked(request: SendMessageRequest) -> MeshSend:
    """Read a request. One look for the common case: what is wrong is said by `_refuse`."""
    topic, queue_id, sys_flag = request.topic, request.queue_id, request.sys_flag
    born_timestamp_ms, reconsume_times = request.born_timestamp_ms, request.reconsume_times
    if (
        not 0 < len(topic) <= fields.TOPIC_LENGTH_MAX
        or not -1 <= queue_id < QUEUES_PER_TOPIC_MAX
        or sys_flag < 0
        or born_timestamp_ms <= 0
        or reconsume_times < 0
        or len(request.born_host) not in HOST_SIZES_BYTES
        or request.default_topic_queue_nums < 0
        or request.max_reconsume_times < 0
        or len(request.producer_group) > fields.TEXT_LENGTH_MAX
        or len(request.default_topic) > fields.TOPIC_LENGTH_MAX
    ):
        _refuse(request)
    try:
        properties = request.properties.decode()
    except UnicodeDecodeError as error:
        raise MessageIllegal(f"properties are not UTF-8: {error.reason} at byte {error.start}") from error
    return MeshSend(
        request.producer_group,
        topic,
        request.default_topic,
        request.default_topic_queue_nums,
        queue_id,
        sys_flag,
        born_timestamp_ms,
        request.flag,
        properties,
        reconsume_times,
        request.max_reconsume_times if request.HasField("max_reconsume_times") else None,
        request.batch,
    )


def _refuse(request: SendMessageRequest) -> None:
    """Name the first field that is out of its bounds. Raises InvalidParameter."""
    fields.check_topic("topic", request.topic)
    fields.check_range("queue_id", request.queue_id, -1, QUEUES_PER_TOPIC_MAX - 1)
    fields.check_range("sys_flag", request.sys_flag, 0, fields.INT32_MAX)
    fields.check_range("born_timestamp_ms", request.born_timestamp_ms, 1, fields.INT64_MAX)
    fields.check_range("reconsume_times", request.reconsume_times, 0, fields.INT32_MAX)
    fields.check_range("max_reconsume_times", request.max_reconsume_times, 0, fields.INT32_MAX)
    fields.check_range("default_topic_queue_nums", request.default_topic_queue_nums, 0, fields.INT32_MAX)
    fields.check_optional_text("producer_group", request.producer_group)
    fields.check_optional_text("default_topic", request.default_topic, fields.TOPIC_LENGTH_MAX)
    raise InvalidParameter(f"born_host is {len(request.born_host)} bytes; it must be 8 or 20: address and port")
