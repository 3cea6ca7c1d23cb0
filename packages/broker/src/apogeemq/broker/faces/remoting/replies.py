"""Request-reply: SEND_REPLY_MESSAGE (324) and SEND_REPLY_MESSAGE_V2 (325); sends PUSH_REPLY_MESSAGE_TO_CLIENT (326).

The replier is answered when the requester has answered: SUCCESS, or SYSTEM_ERROR saying why it has no reply.
"""

import logging
from collections.abc import Hashable

from apogeemq.broker.errors import RequestFailed
from apogeemq.broker.faces.remoting.client_calls import ClientCallFailed, ClientCalls
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.broker.service.replies import ReplyHeader, ReplyService
from apogeemq.broker.service.send import Sent
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.send import SendMessageRequestHeader, SendMessageRequestHeaderV2
from apogeemq.remoting_codec.send_reply import SendReplyEncoder

log = logging.getLogger(__name__)


class ReplyRequests:
    """Handlers of the reply family.

    Args:
        replies: the service.
        calls: reaches the requesters.
        stats: counts answers.
        region, trace_on: for the answers' MSG_REGION and TRACE_ON.
    """

    def __init__(
        self,
        replies: ReplyService[Hashable],
        calls: ClientCalls,
        stats: RequestStats,
        *,
        region: str,
        trace_on: bool,
    ) -> None:
        self._replies = replies
        self._calls = calls
        self._stats = stats
        self._answers = SendReplyEncoder(region=region, trace_on=trace_on)

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {
            RequestCode.SEND_REPLY_MESSAGE: self.send_reply_message,
            RequestCode.SEND_REPLY_MESSAGE_V2: self.send_reply_message_v2,
        }

    def send_reply_message(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Pass a reply on; the header has long names."""
        return self._pass_on(channel, command, SendMessageRequestHeader.decode(command.ext_fields))

    def send_reply_message_v2(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Pass a reply on; the header has one-letter names."""
        return self._pass_on(channel, command, SendMessageRequestHeaderV2.decode(command.ext_fields))

    def _pass_on(self, channel: Channel, command: RemotingCommand, header: ReplyHeader) -> Reply:
        self._calls.check_room(channel, command)  # before anything is stored
        sent = self._replies.keep(header, command.body, channel.peer_host, command.version)
        try:
            requester = self._replies.requester(header)
        except RequestFailed as error:
            return self._answer(command, sent, header.queue_id, error.remark)
        push = RemotingCommand(
            code=RequestCode.PUSH_REPLY_MESSAGE_TO_CLIENT,
            ext_fields=self._replies.push_header(header, channel.peer).encode(),
            body=command.body,
        )

        async def answer() -> Reply:
            remark = await self._push(requester.client_id, requester.channel, push)
            return self._answer(command, sent, header.queue_id, remark)

        self._calls.answer_later(channel, command, answer)
        return None

    async def _push(self, client_id: str, client: Hashable, push: RemotingCommand) -> str | None:
        """Give the requester its reply; what went wrong, or None."""
        try:
            response = await self._calls.call(client, push)
        except ClientCallFailed as error:
            log.warning("a reply did not reach <%s>: %s", client_id, error)
            return f"push reply message to {client_id} fail: {error}"
        if response.code != ResponseCode.SUCCESS:
            log.warning("<%s> refused a reply: %d %s", client_id, response.code, response.remark)
            return f"push reply message to {client_id} fail: it answered {response.code} {response.remark or ''}"
        return None

    def _answer(self, command: RemotingCommand, sent: Sent | None, queue_id: int, failure: str | None) -> Reply:
        """Success, or code 1 with the failure; Java wants the fields of a send's answer in both."""
        code = ResponseCode.SUCCESS if failure is None else ResponseCode.SYSTEM_ERROR
        self._stats.count(command.code, code)
        if command.is_oneway:
            return None
        if sent is None:
            fields = self._answers.ext_fields(max(queue_id, 0), 0, "0", "")
        else:
            fields = self._answers.ext_fields(sent.queue_id, sent.queue_offset, sent.message_id, sent.unique_key)
        return encode_response_frame(command.opaque, code, fields, failure)
