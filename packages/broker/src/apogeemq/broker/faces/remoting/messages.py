"""Sends: SEND_MESSAGE (10), SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320), and CONSUMER_SEND_MSG_BACK (36).

Which header a send has is decided by its request code, never by its fields (trap 20).
"""

import msgspec
from apogeemq.broker.core.topics import Topic
from apogeemq.broker.faces.remoting.disk_reads import DiskReads, write_reply
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.broker.faces.spans import SendSpans, answered
from apogeemq.broker.service.acknowledge import Acknowledger, Verdict
from apogeemq.broker.service.send import SendService, Sent
from apogeemq.broker.service.send_back import SendBackService
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.send import (
    FAILURE_REASON_FIELD,
    ConsumerSendMsgBackRequestHeader,
    SendMessageRequestHeader,
    SendMessageRequestHeaderV2,
)
from apogeemq.remoting_codec.record import Record
from apogeemq.remoting_codec.send_reply import SendReplyEncoder
from opentelemetry.trace import Span


class MessageRequests:
    """Handlers of the sending family.

    Args:
        send, send_back: the services.
        acknowledger: decides when an acknowledgement may go out.
        spans: for messages of sampled traces.
        region, trace_on: for the replies' MSG_REGION and TRACE_ON.
        stats: counts answers.
        disk_reads: for messages that come back long after they were stored.
    """

    def __init__(
        self,
        *,
        send: SendService,
        send_back: SendBackService,
        acknowledger: Acknowledger,
        spans: SendSpans,
        region: str,
        trace_on: bool,
        stats: RequestStats,
        disk_reads: DiskReads,
    ) -> None:
        self._send = send
        self._send_back = send_back
        self._acknowledger = acknowledger
        self._spans = spans
        self._replies = SendReplyEncoder(region=region, trace_on=trace_on)
        self._stats = stats
        self._disk_reads = disk_reads

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {
            RequestCode.SEND_MESSAGE: self.send_message,
            RequestCode.SEND_MESSAGE_V2: self.send_message_v2,
            RequestCode.SEND_BATCH_MESSAGE: self.send_batch_message,
            RequestCode.CONSUMER_SEND_MSG_BACK: self.consumer_send_msg_back,
        }

    def send_message(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Store one message; the header has long names."""
        return self._store(channel, command, SendMessageRequestHeader.decode(command.ext_fields))

    def send_message_v2(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Store one message; the header has one-letter names."""
        return self._store(channel, command, SendMessageRequestHeaderV2.decode(command.ext_fields))

    def send_batch_message(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Store the messages of a batch; the header has one-letter names."""
        header = SendMessageRequestHeaderV2.decode(command.ext_fields)
        return self._store(channel, command, msgspec.structs.replace(header, batch=True))

    def consumer_send_msg_back(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Store a failed message for another try. It may have to be read from the disk first."""
        header = ConsumerSendMsgBackRequestHeader.decode(command.ext_fields)
        retry = self._send_back.check(header, command.version)
        if retry is None:
            return self._acknowledge(command, ResponseCode.SUCCESS, None, None)

        self._acknowledger.check_room_for_topic()
        reason = (command.ext_fields or {}).get(FAILURE_REASON_FIELD, "")

        def store(record: Record) -> Reply:
            end_offset, topic = self._send_back.store(retry, record, reason)
            return self._when_safe(channel, command, None, end_offset, topic, False)

        self._disk_reads.start(channel, command, lambda: self._send_back.read(header.offset), store)
        return None

    def _store(
        self, channel: Channel, command: RemotingCommand, header: SendMessageRequestHeader | SendMessageRequestHeaderV2
    ) -> Reply:
        self._acknowledger.check_room(channel, len(command.body))
        span = None
        if self._spans.may_be_traced(header.properties):
            span = self._spans.received(command.code, header.properties or "", header.topic, channel.peer)
        if span is None:
            sent = self._send.send(header, command.body, channel.peer_host, command.version)
        else:
            with self._spans.append_of(span):
                sent = self._send.send(header, command.body, channel.peer_host, command.version)
        return self._when_safe(channel, command, sent, sent.end_offset, sent.topic, sent.wait, span)

    def _when_safe(
        self,
        channel: Channel,
        command: RemotingCommand,
        sent: Sent | None,
        end_offset: int,
        topic: Topic,
        wait: bool,
        span: Span | None = None,
    ) -> Reply:
        """The acknowledgement now, or later when something must be on disk first; it ends the span."""
        if self._acknowledger.is_safe(topic, wait):
            return self._acknowledge(command, ResponseCode.SUCCESS, None, sent, span)

        def done(verdict: Verdict) -> None:
            is_stored = verdict.code in (ResponseCode.SUCCESS, ResponseCode.FLUSH_DISK_TIMEOUT)
            told = sent if is_stored else None
            write_reply(channel, self._acknowledge(command, verdict.code, verdict.remark, told, span))

        self._acknowledger.when_safe(topic, end_offset, wait, done, channel, len(command.body))
        return None

    def _acknowledge(
        self,
        command: RemotingCommand,
        code: ResponseCode,
        remark: str | None,
        sent: Sent | None,
        span: Span | None = None,
    ) -> Reply:
        self._stats.count(command.code, code)
        if span is not None:
            answered(span, code, remark, None if sent is None else sent.unique_key)
        if command.is_oneway:
            return None
        if sent is None:
            return encode_response_frame(command.opaque, code, {}, remark)
        if remark is None and code is ResponseCode.SUCCESS and sent.recall_handle is None:
            return self._replies.encode(
                command.opaque, sent.queue_id, sent.queue_offset, sent.message_id, sent.unique_key
            )
        fields = self._replies.ext_fields(sent.queue_id, sent.queue_offset, sent.message_id, sent.unique_key)
        if sent.recall_handle is not None:
            fields["recallHandle"] = sent.recall_handle
        return encode_response_frame(command.opaque, code, fields, remark)
