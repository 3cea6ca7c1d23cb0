"""Sends: SEND_MESSAGE (10), SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320), and CONSUMER_SEND_MSG_BACK (36).

Which header a send has is decided by its request code, never by its fields (trap 20).
"""

from collections.abc import Callable

import msgspec
from apogeemq.broker.core.topics import Topic, TopicTable
from apogeemq.broker.faces.remoting.disk_reads import DiskReads, write_reply
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.broker.service.durability import AcknowledgementLine, Outcome
from apogeemq.broker.service.send import SendService, Sent
from apogeemq.broker.service.send_back import SendBackService
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.send import (
    ConsumerSendMsgBackRequestHeader,
    SendMessageRequestHeader,
    SendMessageRequestHeaderV2,
)
from apogeemq.remoting_codec.record import Record
from apogeemq.remoting_codec.send_reply import SendReplyEncoder


class MessageRequests:
    """Handlers of the sending family.

    Args:
        send, send_back: the services.
        topics: to know whether a topic's file is written.
        flush_line: where acknowledgements wait for the disk; None with ASYNC_FLUSH.
        topic_line: where acknowledgements wait until their new topic is in the file.
        monotonic: seconds.
        flush_timeout_s: how long a flush may take (syncFlushTimeout).
        region, trace_on: for the replies' MSG_REGION and TRACE_ON.
        stats: counts answers.
        disk_reads: for messages that come back long after they were stored.
    """

    def __init__(
        self,
        *,
        send: SendService,
        send_back: SendBackService,
        topics: TopicTable,
        flush_line: AcknowledgementLine | None,
        topic_line: AcknowledgementLine,
        monotonic: Callable[[], float],
        flush_timeout_s: float,
        region: str,
        trace_on: bool,
        stats: RequestStats,
        disk_reads: DiskReads,
    ) -> None:
        self._send = send
        self._send_back = send_back
        self._topics = topics
        self._flush_line = flush_line
        self._topic_line = topic_line
        self._monotonic = monotonic
        self._flush_timeout_s = flush_timeout_s
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

        self._topic_line.check_room()

        def store(record: Record) -> Reply:
            end_offset, topic = self._send_back.store(retry, record)
            return self._when_safe(channel, command, None, end_offset, topic, wait=False)

        self._disk_reads.start(channel, command, lambda: self._send_back.read(header.offset), store)
        return None

    def _store(
        self, channel: Channel, command: RemotingCommand, header: SendMessageRequestHeader | SendMessageRequestHeaderV2
    ) -> Reply:
        if self._flush_line is not None:
            self._flush_line.check_room()
        self._topic_line.check_room()
        sent = self._send.send(header, command.body, channel.peer_host, command.version)
        return self._when_safe(channel, command, sent, sent.end_offset, sent.topic, wait=sent.wait)

    def _when_safe(
        self,
        channel: Channel,
        command: RemotingCommand,
        sent: Sent | None,
        end_offset: int,
        topic: Topic,
        *,
        wait: bool,
    ) -> Reply:
        """The acknowledgement now, or later when something must be on disk first: the message, or its new topic."""
        waits_for_topic = topic.version > self._topics.saved_version
        flush_line = self._flush_line if wait else None
        if not waits_for_topic and flush_line is None:
            return self._acknowledge(command, ResponseCode.SUCCESS, None, sent)
        deadline = self._monotonic() + self._flush_timeout_s

        def flushed(outcome: Outcome) -> None:
            self._write_later(channel, command, sent, outcome, "flush to disk")

        def topic_saved(outcome: Outcome) -> None:
            if outcome is Outcome.DONE and flush_line is not None:
                flush_line.add(end_offset, deadline, flushed)
            else:
                self._write_later(channel, command, sent, outcome, "write of the topic's configuration")

        if waits_for_topic:
            self._topic_line.add(topic.version, deadline, topic_saved)
        elif flush_line is not None:
            flush_line.add(end_offset, deadline, flushed)
        return None

    def _write_later(
        self, channel: Channel, command: RemotingCommand, sent: Sent | None, outcome: Outcome, what: str
    ) -> None:
        if outcome is Outcome.DONE:
            reply = self._acknowledge(command, ResponseCode.SUCCESS, None, sent)
        elif outcome is Outcome.TIMEOUT:
            remark = f"the message is stored, but its {what} was not done within {self._flush_timeout_s:g} s"
            reply = self._acknowledge(command, ResponseCode.FLUSH_DISK_TIMEOUT, remark, sent)
        else:
            remark = f"the {what} failed: the message may be lost, send it again"
            reply = self._acknowledge(command, ResponseCode.SERVICE_NOT_AVAILABLE, remark, None)
        write_reply(channel, reply)

    def _acknowledge(
        self, command: RemotingCommand, code: ResponseCode, remark: str | None, sent: Sent | None
    ) -> Reply:
        self._stats.count(command.code, code)
        if command.is_oneway:
            return None
        if sent is None:
            return encode_response_frame(command.opaque, code, {}, remark)
        if remark is None and code is ResponseCode.SUCCESS:
            return self._replies.encode(
                command.opaque, sent.queue_id, sent.queue_offset, sent.message_id, sent.unique_key
            )
        fields = self._replies.ext_fields(sent.queue_id, sent.queue_offset, sent.message_id, sent.unique_key)
        return encode_response_frame(command.opaque, code, fields, remark)
