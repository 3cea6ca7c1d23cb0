"""An operator's questions to consumers, passed on to them: GET_CONSUMER_RUNNING_INFO (307), CONSUME_MESSAGE_DIRECTLY
(309), INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223, which asks each member GET_CONSUMER_STATUS_FROM_CLIENT, 221).

The answer to 307 and 309 is the client's own, whatever its code. Only members with a connection to this broker can be
asked; of those that came through a proxy the answer says so.
"""

import asyncio
from collections.abc import Hashable

from apogeemq.broker.core.clients import Member
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.errors import ConsumerTimeout, InvalidParameter, RequestFailed
from apogeemq.broker.faces.remoting.client_calls import ClientCallFailed, ClientCalls, ClientCallTimeout
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.broker.service.cold_reads import ColdReads
from apogeemq.broker.service.groups import GroupService
from apogeemq.broker.service.queries import QueryService
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.client_bodies import GetConsumerStatusBody
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import CodecError, HeaderInvalid
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.client_call import (
    ConsumeMessageDirectlyResultRequestHeader,
    GetConsumerRunningInfoRequestHeader,
    GetConsumerStatusRequestHeader,
)
from apogeemq.remoting_codec.message_id import decode_offset_message_id
from msgspec.structs import replace

_REMARK_LENGTH_MAX = 2_000
"""Characters; a group may have thousands of members that don't answer."""


class RelayRequests:
    """Handlers of the relaying family.

    Args:
        groups: knows the members.
        topics: for the topic's system flag.
        queries, cold_reads: find the message that shall be consumed.
        calls: reaches the members.
        stats: counts answers.
        broker_name: told to the member that consumes a message.
    """

    def __init__(
        self,
        *,
        groups: GroupService[Hashable],
        topics: TopicTable,
        queries: QueryService,
        cold_reads: ColdReads,
        calls: ClientCalls,
        stats: RequestStats,
        broker_name: str,
    ) -> None:
        self._groups = groups
        self._topics = topics
        self._queries = queries
        self._cold_reads = cold_reads
        self._calls = calls
        self._stats = stats
        self._broker_name = broker_name

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {
            RequestCode.GET_CONSUMER_RUNNING_INFO: self.get_consumer_running_info,
            RequestCode.CONSUME_MESSAGE_DIRECTLY: self.consume_message_directly,
            RequestCode.INVOKE_BROKER_TO_GET_CONSUMER_STATUS: self.get_consumer_status,
        }

    def get_consumer_running_info(self, channel: Channel, command: RemotingCommand) -> Reply:
        """What one member tells about itself."""
        header = GetConsumerRunningInfoRequestHeader.decode(command.ext_fields)
        member = self._groups.member(header.consumer_group, header.client_id)
        question = RemotingCommand(code=command.code, ext_fields=header.encode())

        async def answer() -> Reply:
            return await self._ask(command, header.consumer_group, member, question)

        self._calls.answer_later(channel, command, answer)
        return None

    def consume_message_directly(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Have one member consume one stored message now; the message goes with the question."""
        header = ConsumeMessageDirectlyResultRequestHeader.decode(command.ext_fields)
        member = self._groups.member(header.consumer_group, header.client_id or "")
        if header.msg_id is None:
            raise InvalidParameter("msgId is missing: the offset message id of the message to consume")
        try:
            _, physical_offset = decode_offset_message_id(header.msg_id)
        except CodecError as error:
            raise HeaderInvalid("msgId", str(error)) from error
        read = self._queries.by_offset(physical_offset)
        ext_fields = self._complete(header).encode()

        async def answer() -> Reply:
            record = await self._cold_reads.read(read)
            question = RemotingCommand(code=command.code, ext_fields=ext_fields, body=record)
            return await self._ask(command, header.consumer_group, member, question)

        self._calls.answer_later(channel, command, answer)
        return None

    def get_consumer_status(self, channel: Channel, command: RemotingCommand) -> Reply:
        """The offsets that the members of a group, or one of them, hold in memory for a topic."""
        header = GetConsumerStatusRequestHeader.decode(command.ext_fields)
        members = [
            member
            for member in self._groups.members(header.group)
            if not header.client_addr or member.client_id == header.client_addr
        ]
        question = RemotingCommand(
            code=RequestCode.GET_CONSUMER_STATUS_FROM_CLIENT, ext_fields=replace(header, client_addr=None).encode()
        )

        async def answer() -> Reply:
            told = await asyncio.gather(*(self._status(member, question) for member in members))
            return self._status_answer(command, dict(zip([member.client_id for member in members], told, strict=True)))

        self._calls.answer_later(channel, command, answer, calls=len(members))
        return None

    def _complete(self, header: ConsumeMessageDirectlyResultRequestHeader) -> ConsumeMessageDirectlyResultRequestHeader:
        """The header with what the broker adds for the member."""
        topic = self._topics.get(header.topic or "")
        group = self._groups.find(header.consumer_group)
        return replace(
            header,
            broker_name=self._broker_name,
            topic_sys_flag=topic.config.topic_sys_flag if topic is not None else 0,
            group_sys_flag=group.group_sys_flag if group is not None else 0,
        )

    async def _ask(
        self, command: RemotingCommand, group: str, member: Member[Hashable], question: RemotingCommand
    ) -> Reply:
        """The member's own answer. Raises ConsumerTimeout (207) or RequestFailed (1)."""
        try:
            response = await self._calls.call(member.channel, question)
        except ClientCallTimeout as error:
            raise ConsumerTimeout(f"consumer <{group}> <{member.client_id}> Timeout: {error}") from error
        except ClientCallFailed as error:
            raise RequestFailed(f"invoke consumer <{group}> <{member.client_id}> Exception: {error}") from error
        self._stats.count(command.code, response.code)
        return encode_response_frame(
            command.opaque, response.code, response.ext_fields or {}, response.remark, response.body
        )

    async def _status(self, member: Member[Hashable], question: RemotingCommand) -> dict[MessageQueue, int] | str:
        """A member's offsets, or why they are missing."""
        try:
            response = await self._calls.call(member.channel, question)
            if response.code != ResponseCode.SUCCESS:
                return f"it answered {response.code} {response.remark or ''}"
            return GetConsumerStatusBody.decode(response.body).message_queue_table
        except (ClientCallFailed, CodecError) as error:
            return str(error)

    def _status_answer(self, command: RemotingCommand, told: dict[str, dict[MessageQueue, int] | str]) -> Reply:
        """Success with the offsets of those that told them, as Apache's; the remark names the others."""
        missing = [f"{client_id}: {why}" for client_id, why in told.items() if isinstance(why, str)]
        body = GetConsumerStatusBody(
            consumer_table={client_id: offsets for client_id, offsets in told.items() if isinstance(offsets, dict)}
        )
        self._stats.count(command.code, ResponseCode.SUCCESS)
        remark = f"not all members told their offsets; {'; '.join(missing)}"[:_REMARK_LENGTH_MAX] if missing else None
        return encode_response_frame(command.opaque, ResponseCode.SUCCESS, {}, remark, body.encode())
