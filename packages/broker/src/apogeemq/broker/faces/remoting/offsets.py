"""Offsets: QUERY_CONSUMER_OFFSET (14), UPDATE_CONSUMER_OFFSET (15), SEARCH_OFFSET_BY_TIMESTAMP (29),
GET_MAX_OFFSET (30), GET_MIN_OFFSET (31), GET_EARLIEST_MSG_STORETIME (32).
"""

from apogeemq.broker.faces.remoting.disk_reads import DiskReads
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.broker.service.offsets import OffsetService
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.offset import (
    BoundaryType,
    GetEarliestMsgStoretimeRequestHeader,
    GetMaxOffsetRequestHeader,
    GetMinOffsetRequestHeader,
    QueryConsumerOffsetRequestHeader,
    SearchOffsetRequestHeader,
    UpdateConsumerOffsetRequestHeader,
)


class OffsetRequests:
    """Handlers of the offset family."""

    def __init__(self, offsets: OffsetService, stats: RequestStats, disk_reads: DiskReads) -> None:
        self._offsets = offsets
        self._stats = stats
        self._disk_reads = disk_reads

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {
            RequestCode.QUERY_CONSUMER_OFFSET: self.query_consumer_offset,
            RequestCode.UPDATE_CONSUMER_OFFSET: self.update_consumer_offset,
            RequestCode.SEARCH_OFFSET_BY_TIMESTAMP: self.search_offset_by_timestamp,
            RequestCode.GET_MAX_OFFSET: self.get_max_offset,
            RequestCode.GET_MIN_OFFSET: self.get_min_offset,
            RequestCode.GET_EARLIEST_MSG_STORETIME: self.get_earliest_msg_storetime,
        }

    def query_consumer_offset(self, channel: Channel, command: RemotingCommand) -> Reply:
        """The committed offset of a group."""
        header = QueryConsumerOffsetRequestHeader.decode(command.ext_fields)
        offset = self._offsets.query(
            header.topic,
            header.consumer_group,
            header.queue_id,
            zero_if_not_found=header.set_zero_if_not_found is not False,
        )
        return self._answer(command, "offset", offset)

    def update_consumer_offset(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Commit an offset; mostly oneway."""
        header = UpdateConsumerOffsetRequestHeader.decode(command.ext_fields)
        self._offsets.commit(header.topic, header.consumer_group, header.queue_id, header.commit_offset)
        self._stats.count(command.code, ResponseCode.SUCCESS)
        return None if command.is_oneway else encode_response_frame(command.opaque, ResponseCode.SUCCESS, {}, None)

    def search_offset_by_timestamp(self, channel: Channel, command: RemotingCommand) -> Reply:
        """The offset that belongs to a store time; a search that may read from the disk."""
        header = SearchOffsetRequestHeader.decode(command.ext_fields)
        boundary = header.boundary_type or BoundaryType.LOWER
        search = self._offsets.by_time(header.topic, header.queue_id, header.timestamp, boundary.value)
        self._disk_reads.start(channel, command, search, lambda offset: self._answer(command, "offset", offset))
        return None

    def get_max_offset(self, channel: Channel, command: RemotingCommand) -> Reply:
        """The end of a queue."""
        header = GetMaxOffsetRequestHeader.decode(command.ext_fields)
        return self._answer(command, "offset", self._offsets.max_offset(header.topic, header.queue_id))

    def get_min_offset(self, channel: Channel, command: RemotingCommand) -> Reply:
        """The begin of a queue."""
        header = GetMinOffsetRequestHeader.decode(command.ext_fields)
        return self._answer(command, "offset", self._offsets.min_offset(header.topic, header.queue_id))

    def get_earliest_msg_storetime(self, channel: Channel, command: RemotingCommand) -> Reply:
        """When a queue's oldest message was stored; may read from the disk."""
        header = GetEarliestMsgStoretimeRequestHeader.decode(command.ext_fields)
        read = self._offsets.earliest_store_time_ms(header.topic, header.queue_id)
        self._disk_reads.start(channel, command, read, lambda time_ms: self._answer(command, "timestamp", time_ms))
        return None

    def _answer(self, command: RemotingCommand, field: str, value: int) -> Reply:
        self._stats.count(command.code, ResponseCode.SUCCESS)
        if command.is_oneway:
            return None
        return encode_response_frame(command.opaque, ResponseCode.SUCCESS, {field: str(value)}, None)
