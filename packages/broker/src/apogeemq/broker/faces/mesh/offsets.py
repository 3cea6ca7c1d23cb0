"""Offsets: QueryOffset, UpdateOffset."""

from collections.abc import Coroutine
from typing import Any

from apogeemq.broker.errors import InvalidParameter, QueryNotFound
from apogeemq.broker.faces import fields
from apogeemq.broker.service.cold_reads import ColdReads
from apogeemq.broker.service.offsets import OffsetService
from apogeemq.mesh.calls import CallInfo
from apogeemq.mesh.v1.broker_pb2 import (
    OFFSET_BY_TIME,
    OFFSET_COMMITTED,
    OFFSET_MAX,
    OFFSET_MIN,
    QueryOffsetReply,
    QueryOffsetRequest,
    UpdateOffsetReply,
    UpdateOffsetRequest,
)


class OffsetAnswers:
    """Answers about offsets.

    Args:
        offsets: the service.
        cold_reads: where a search by time waits for the disk.
    """

    def __init__(self, offsets: OffsetService, cold_reads: ColdReads) -> None:
        self._offsets = offsets
        self._cold_reads = cold_reads

    def query_offset(
        self, request: QueryOffsetRequest, info: CallInfo
    ) -> QueryOffsetReply | Coroutine[Any, Any, QueryOffsetReply]:
        """What the kind asks for. Only a group that never committed has no answer (`found` is false)."""
        topic, queue_id = request.topic, request.queue_id
        fields.check_topic("topic", topic)
        fields.check_queue_id("queue_id", queue_id)
        fields.check_range("timestamp_ms", request.timestamp_ms, 0, fields.INT64_MAX)
        match request.kind:
            case kind if kind == OFFSET_COMMITTED:
                fields.check_group("consumer_group", request.consumer_group)
                return self._committed(topic, request.consumer_group, queue_id)
            case kind if kind == OFFSET_MIN:
                return _found(self._offsets.min_offset(topic, queue_id))
            case kind if kind == OFFSET_MAX:
                return _found(self._offsets.max_offset(topic, queue_id))
            case kind if kind == OFFSET_BY_TIME:
                return self._by_time(topic, queue_id, request.timestamp_ms)
            case _:
                raise InvalidParameter(
                    f"kind is {request.kind}; it must be within {OFFSET_COMMITTED}..{OFFSET_BY_TIME}"
                )

    def update_offset(self, request: UpdateOffsetRequest, info: CallInfo) -> UpdateOffsetReply:
        """Commit an offset."""
        fields.check_topic("topic", request.topic)
        fields.check_queue_id("queue_id", request.queue_id)
        fields.check_group("consumer_group", request.consumer_group)
        fields.check_range("queue_offset", request.queue_offset, 0, fields.INT64_MAX)
        self._offsets.commit(request.topic, request.consumer_group, request.queue_id, request.queue_offset)
        return UpdateOffsetReply()

    def _committed(self, topic: str, group: str, queue_id: int) -> QueryOffsetReply:
        try:
            return _found(self._offsets.query(topic, group, queue_id, zero_if_not_found=False))
        except QueryNotFound:
            return QueryOffsetReply(found=False)

    async def _by_time(self, topic: str, queue_id: int, timestamp_ms: int) -> QueryOffsetReply:
        search = self._offsets.by_time(topic, queue_id, timestamp_ms, "LOWER")
        return _found(await self._cold_reads.read(search))


def _found(queue_offset: int) -> QueryOffsetReply:
    return QueryOffsetReply(found=True, queue_offset=queue_offset)
