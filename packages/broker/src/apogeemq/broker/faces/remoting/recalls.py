"""RECALL_MESSAGE (370): a producer takes back a message that waits for its time."""

from apogeemq.broker.faces.remoting.disk_reads import write_reply
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.broker.service.acknowledge import Acknowledger, Verdict
from apogeemq.broker.service.recall import Recalled, RecallService
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.send import RecallMessageRequestHeader, RecallMessageResponseHeader


class RecallRequests:
    """Handler of recalls, which are acknowledged by the rules of sends.

    Args:
        recalls: the service.
        acknowledger: decides when an answer may go out.
        stats: counts answers.
        region: MSG_REGION of the answers.
    """

    def __init__(self, recalls: RecallService, acknowledger: Acknowledger, stats: RequestStats, *, region: str) -> None:
        self._recalls = recalls
        self._acknowledger = acknowledger
        self._stats = stats
        self._region = region

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {RequestCode.RECALL_MESSAGE: self.recall_message}

    def recall_message(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Take a message back; the answer has its unique key."""
        header = RecallMessageRequestHeader.decode(command.ext_fields)
        self._acknowledger.check_room(channel, 0)
        recalled = self._recalls.recall(header.topic, header.recall_handle)
        if self._acknowledger.is_safe(recalled.topic, True):
            return self._answer(command, recalled, ResponseCode.SUCCESS, None)

        def done(verdict: Verdict) -> None:
            write_reply(channel, self._answer(command, recalled, verdict.code, verdict.remark))

        self._acknowledger.when_safe(recalled.topic, recalled.end_offset, True, done, channel, 0)
        return None

    def _answer(self, command: RemotingCommand, recalled: Recalled, code: ResponseCode, remark: str | None) -> Reply:
        self._stats.count(command.code, code)
        if command.is_oneway:
            return None
        fields = RecallMessageResponseHeader(msg_id=recalled.unique_key).encode()
        fields[m.PROPERTY_MSG_REGION] = self._region
        return encode_response_frame(command.opaque, code, fields, remark)
