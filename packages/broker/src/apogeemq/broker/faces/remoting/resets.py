"""Resets of a group's offsets: INVOKE_BROKER_TO_RESET_OFFSET (222); sends RESET_CONSUMER_CLIENT_OFFSET (220).

The answer's body is the table of the new offsets, by queue.
"""

from collections.abc import Callable, Hashable, Iterable

from apogeemq.broker.core.clients import Member
from apogeemq.broker.errors import ConsumerNotOnline, RequestFailed
from apogeemq.broker.faces.remoting.disk_reads import DiskReads
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.broker.service.groups import GroupService
from apogeemq.broker.service.offset_resets import OffsetResetService
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.bodies import MessageQueue, ResetOffsetBody
from apogeemq.remoting_codec.client_bodies import MessageQueueForC, ResetOffsetBodyForC
from apogeemq.remoting_codec.codes import ONEWAY_FLAG, RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.client_call import ResetOffsetRequestHeader

_REMARK_LENGTH_MAX = 2_000


class ResetRequests:
    """Handlers of the resetting family.

    Args:
        resets: the service.
        groups: knows the members.
        disk_reads: for the search by time.
        on_reset: told of topic, group and queue ids when offsets were set here.
        stats: counts answers.
        broker_name: part of the queues' names.
        server_side: whether offsets are set here (useServerSideResetOffset) or by the members.
    """

    def __init__(
        self,
        *,
        resets: OffsetResetService,
        groups: GroupService[Hashable],
        disk_reads: DiskReads,
        on_reset: Callable[[str, str, Iterable[int]], None],
        stats: RequestStats,
        broker_name: str,
        server_side: bool,
    ) -> None:
        self._resets = resets
        self._groups = groups
        self._disk_reads = disk_reads
        self._on_reset = on_reset
        self._stats = stats
        self._broker_name = broker_name
        self._server_side = server_side

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {RequestCode.INVOKE_BROKER_TO_RESET_OFFSET: self.reset_offset}

    def reset_offset(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Find the offsets, in a thread; then set them, or have the members do it."""
        header = ResetOffsetRequestHeader.decode(command.ext_fields)
        if self._server_side:
            search, do = self._resets.targets(header), self._reset_here
        else:
            search, do = self._resets.targets_for_members(header), self._reset_by_members

        def reply(offsets: dict[int, int]) -> Reply:
            table = {MessageQueue(header.topic, self._broker_name, queue): at for queue, at in offsets.items()}
            return self._answer(command, ResetOffsetBody(offset_table=table), do(header, table))

        self._disk_reads.start(channel, command, search, reply)
        return None

    def _reset_here(self, header: ResetOffsetRequestHeader, table: dict[MessageQueue, int]) -> str | None:
        """Set the offsets; nothing remains to be said."""
        offsets = {queue.queue_id: offset for queue, offset in table.items()}
        self._resets.reset(header.topic, header.group, offsets)
        self._on_reset(header.topic, header.group, offsets)
        return None

    def _reset_by_members(self, header: ResetOffsetRequestHeader, table: dict[MessageQueue, int]) -> str | None:
        """Tell every member; the ones that can't be told, for the remark. ConsumerNotOnline (206) without members."""
        try:
            members = self._groups.members(header.group)
        except RequestFailed as error:
            raise ConsumerNotOnline(
                f"Consumer not online, so can not reset offset, Group: {header.group} Topic: {header.topic} "
                f"Timestamp: {header.timestamp}"
            ) from error
        fields = ResetOffsetRequestHeader(
            topic=header.topic, group=header.group, timestamp=header.timestamp, is_force=False
        ).encode()
        missed = [member.client_id for member in members if not self._tell(member, fields, table)]
        return f"not told, no connection to this broker: {', '.join(missed)}"[:_REMARK_LENGTH_MAX] if missed else None

    @staticmethod
    def _tell(member: Member[Hashable], fields: dict[str, str], table: dict[MessageQueue, int]) -> bool:
        """Send one member its offsets, in the form that its language reads; whether it could be sent."""
        if not isinstance(member.channel, Channel) or member.channel.closed or not member.channel.writable:
            return False
        body = _list_body(table) if member.language == "CPP" else ResetOffsetBody(offset_table=table)
        member.channel.send_oneway(
            RemotingCommand(
                code=RequestCode.RESET_CONSUMER_CLIENT_OFFSET, flag=ONEWAY_FLAG, ext_fields=fields, body=body.encode()
            )
        )
        return True

    def _answer(self, command: RemotingCommand, body: ResetOffsetBody, remark: str | None) -> Reply:
        self._stats.count(command.code, ResponseCode.SUCCESS)
        if command.is_oneway:
            return None
        return encode_response_frame(command.opaque, ResponseCode.SUCCESS, {}, remark, body.encode())


def _list_body(table: dict[MessageQueue, int]) -> ResetOffsetBodyForC:
    return ResetOffsetBodyForC(
        offset_table=[
            MessageQueueForC(topic=queue.topic, broker_name=queue.broker_name, queue_id=queue.queue_id, offset=offset)
            for queue, offset in table.items()
        ]
    )
