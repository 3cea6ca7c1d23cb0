"""Ordered consumption: LOCK_BATCH_MQ (41) and UNLOCK_BATCH_MQ (42)."""

from collections.abc import Callable

from apogeemq.broker.core.queue_locks import QUEUES_PER_REQUEST_MAX, QueueLockTable
from apogeemq.broker.errors import RequestFailed, SystemBusy
from apogeemq.broker.faces import fields
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.bodies import (
    LockBatchRequestBody,
    LockBatchResponseBody,
    MessageQueue,
    UnlockBatchRequestBody,
)
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.lock import LockBatchMqRequestHeader, UnlockBatchMqRequestHeader


class LockRequests:
    """Handlers of the lock family.

    Args:
        locks: the table.
        monotonic: seconds.
        stats: counts answers.
    """

    def __init__(self, locks: QueueLockTable, monotonic: Callable[[], float], stats: RequestStats) -> None:
        self._locks = locks
        self._monotonic = monotonic
        self._stats = stats

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {RequestCode.LOCK_BATCH_MQ: self.lock_batch_mq, RequestCode.UNLOCK_BATCH_MQ: self.unlock_batch_mq}

    def lock_batch_mq(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Lock queues for a member of a group; the answer lists those that it holds."""
        LockBatchMqRequestHeader.decode(command.ext_fields)
        body = LockBatchRequestBody.decode(command.body)
        group, client_id = _checked(body)
        by_key = {(queue.topic, queue.queue_id): queue for queue in body.mq_set}
        held = self._locks.lock(group, client_id, by_key, self._monotonic())
        answer = LockBatchResponseBody(lock_ok_mq_set=[by_key[key] for key in held])
        return self._answer(command, answer.encode())

    def unlock_batch_mq(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Give queues back; mostly oneway."""
        UnlockBatchMqRequestHeader.decode(command.ext_fields)
        body = UnlockBatchRequestBody.decode(command.body)
        group, client_id = _checked(body)
        self._locks.unlock(group, client_id, [(queue.topic, queue.queue_id) for queue in body.mq_set])
        return self._answer(command)

    def _answer(self, command: RemotingCommand, body: bytes = b"") -> Reply:
        self._stats.count(command.code, ResponseCode.SUCCESS)
        if command.is_oneway:
            return None
        return encode_response_frame(command.opaque, ResponseCode.SUCCESS, {}, None, body)


def _checked(body: LockBatchRequestBody | UnlockBatchRequestBody) -> tuple[str, str]:
    if not body.consumer_group or not body.client_id:
        raise RequestFailed("the body names no consumerGroup or no clientId")
    # The table knows neither topics nor groups, so what it keeps is bounded here.
    fields.check_optional_text("consumerGroup", body.consumer_group)
    fields.check_optional_text("clientId", body.client_id)
    queues: list[MessageQueue] = body.mq_set
    if len(queues) > QUEUES_PER_REQUEST_MAX:
        raise SystemBusy(f"a lock request names {len(queues)} queues, the limit is {QUEUES_PER_REQUEST_MAX}")
    for queue in queues:
        fields.check_topic("topic", queue.topic)
        fields.check_optional_text("brokerName", queue.broker_name)
        fields.check_queue_id("queueId", queue.queue_id)
    return body.consumer_group, body.client_id
