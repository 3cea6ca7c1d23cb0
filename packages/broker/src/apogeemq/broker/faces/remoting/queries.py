"""Queries: QUERY_MESSAGE (12), VIEW_MESSAGE_BY_ID (33)."""

from apogeemq.broker.faces.remoting.disk_reads import DiskReads
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.broker.service.queries import FoundByKey, QueryService
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.query import (
    QueryMessageRequestHeader,
    QueryMessageResponseHeader,
    ViewMessageRequestHeader,
)

_UNIQUE_KEY_QUERY = "_UNIQUE_KEY_QUERY"
"""The ext field, beside the header, that says that the key is a unique one."""


class QueryRequests:
    """Handlers of the querying family. All of them read from the disk, in a thread."""

    def __init__(self, queries: QueryService, stats: RequestStats, disk_reads: DiskReads) -> None:
        self._queries = queries
        self._stats = stats
        self._disk_reads = disk_reads

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {
            RequestCode.QUERY_MESSAGE: self.query_message,
            RequestCode.VIEW_MESSAGE_BY_ID: self.view_message_by_id,
        }

    def query_message(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Messages by key. The answer's header tells how far the index has come, be there messages or none."""
        header = QueryMessageRequestHeader.decode(command.ext_fields)
        read = self._queries.by_key(
            header.topic,
            header.key,
            header.max_num,
            header.begin_timestamp,
            header.end_timestamp,
            is_unique_key=(command.ext_fields or {}).get(_UNIQUE_KEY_QUERY) == "true",
        )

        def reply(found: FoundByKey) -> Reply:
            ext_fields = QueryMessageResponseHeader(
                index_last_update_timestamp=found.index_last_update_timestamp_ms,
                index_last_update_phyoffset=found.index_last_update_physical_offset,
            ).encode()
            if found.records:
                return self._answer(command, ResponseCode.SUCCESS, ext_fields, None, found.records)
            remark = "can not find message, maybe time range not correct"
            return self._answer(command, ResponseCode.QUERY_NOT_FOUND, ext_fields, remark, b"")

        self._disk_reads.start(channel, command, read, reply)
        return None

    def view_message_by_id(self, channel: Channel, command: RemotingCommand) -> Reply:
        """One message by the physical offset that its message id holds."""
        header = ViewMessageRequestHeader.decode(command.ext_fields)
        self._disk_reads.start(
            channel,
            command,
            self._queries.by_offset(header.offset),
            lambda record: self._answer(command, ResponseCode.SUCCESS, {}, None, record),
        )
        return None

    def _answer(
        self, command: RemotingCommand, code: ResponseCode, ext_fields: dict[str, str], remark: str | None, body: bytes
    ) -> Reply:
        self._stats.count(command.code, code)
        return None if command.is_oneway else encode_response_frame(command.opaque, code, ext_fields, remark, body)
