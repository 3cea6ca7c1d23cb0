"""Popping: POP_MESSAGE (200050), ACK_MESSAGE (200051), BATCH_ACK_MESSAGE (200151), CHANGE_MESSAGE_INVISIBLETIME
(200053), and looking without taking: NOTIFICATION (200054), POLLING_INFO (200055).

Clients make the handles of ordinary messages themselves, out of the answer's header; a message of a retry topic gets
its handle as property POP_CK, and shows the topic that was asked for. Acknowledgements succeed whatever became of the
message (a late one is lost silently), as long as the queue has it. Source: reference broker_behaviour.md §8.
"""

import dataclasses
from collections.abc import Callable, Iterator

import msgspec
from apogeemq.broker.core.pop import (
    HANDLES_PER_CALL_MAX,
    ORDER_REVIVE_QUEUE_ID,
    HandleResult,
    PopHandle,
    Popped,
    PoppedRun,
    PopRequest,
    RetryMark,
    format_receipt_handle,
    parse_receipt_handle,
)
from apogeemq.broker.core.properties import encode_or_keep
from apogeemq.broker.errors import (
    BrokerError,
    InvalidParameter,
    MessageIllegal,
    NoMessage,
    PollingFull,
    PollingTimeout,
    RequestFailed,
    SystemBusy,
)
from apogeemq.broker.faces.remoting.disk_reads import write_reply
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.broker.service.pop import Pop, PopService
from apogeemq.broker.service.pop_waits import Found, PopPolls
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.bodies import BatchAck, BatchAckMessageRequestBody
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.framing import encode_response_frame, encode_response_head
from apogeemq.remoting_codec.headers.pop import (
    AckMessageRequestHeader,
    ChangeInvisibleTimeRequestHeader,
    NotificationRequestHeader,
    PollingInfoRequestHeader,
    PopMessageRequestHeader,
)
from apogeemq.remoting_codec.record import Record, decode_records, encode_record

LATE_MS_MAX = 500
"""A pop that comes later than this after the end of its poll time is answered at once."""

BATCH_ACK_BITS_MAX = 16_384
"""How far apart the messages of one bit set may lie: where a tag is rare, the 32 of a pop are far from each other."""

_MARKS = {str(mark.value): mark for mark in RetryMark}


class PopRequests:
    """Handlers of the popping family.

    Args:
        pops, polls: the services.
        stats: counts answers.
        refuse: makes the reply to a request that failed.
        now_ms, monotonic: clocks; poll times are told by the client's wall clock.
        broker_name: part of the handles.
    """

    def __init__(
        self,
        *,
        pops: PopService,
        polls: PopPolls,
        stats: RequestStats,
        refuse: Callable[[RemotingCommand, Exception], Reply],
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
        broker_name: str,
    ) -> None:
        self._pops = pops
        self._polls = polls
        self._stats = stats
        self._refuse = refuse
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._broker_name = broker_name

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {
            RequestCode.POP_MESSAGE: self.pop_message,
            RequestCode.ACK_MESSAGE: self.ack_message,
            RequestCode.BATCH_ACK_MESSAGE: self.batch_ack_message,
            RequestCode.CHANGE_MESSAGE_INVISIBLETIME: self.change_invisible_time,
            RequestCode.NOTIFICATION: self.notification,
            RequestCode.POLLING_INFO: self.polling_info,
        }

    def pop_message(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Hand messages out, or wait for them."""
        header = PopMessageRequestHeader.decode(command.ext_fields)
        if command.is_oneway:
            raise RequestFailed("a pop can't be oneway: nobody would get the messages")
        now_ms = self._now_ms()
        left_ms = _left_ms(header, now_ms)
        if left_ms < -LATE_MS_MAX:
            raise PollingTimeout(f"the broker[{self._broker_name}] pop message is timeout too much")
        pop = self._pops.check(_pop_request(header, channel.peer))
        return self._poll(channel, header, pop, lambda outcome: self._popped(command, header, outcome))

    def notification(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Say that there is something to pop as soon as there is, or that there is nothing when the time is over."""
        header = NotificationRequestHeader.decode(command.ext_fields)
        if command.is_oneway:
            raise RequestFailed("a notification can't be oneway: nobody would be notified")
        pop = self._pops.check(_look_request(header, channel.peer), only_looks=True)
        return self._poll(channel, header, pop, lambda outcome: self._notified(command, outcome))

    def polling_info(self, channel: Channel, command: RemotingCommand) -> Reply:
        """How many pops and notifications wait under one (topic, group, queue)."""
        header = PollingInfoRequestHeader.decode(command.ext_fields)
        self._pops.check(_look_request(header, channel.peer), only_looks=True)
        count = self._polls.count_of(header.topic, header.consumer_group, header.queue_id)
        return self._success(command, {"pollingNum": str(count)})

    def _poll(
        self,
        channel: Channel,
        header: PopMessageRequestHeader | NotificationRequestHeader,
        pop: Pop,
        reply_to: Callable[[Found | Exception], Reply],
    ) -> Reply:
        """Answer at once where there is something, or nothing is to be waited for; else None, and later."""
        left_ms = _left_ms(header, self._now_ms())
        deadline = self._monotonic() + max(left_ms, 0) / 1000 if header.poll_time > 0 else self._monotonic()
        at_once: list[Reply] = []
        is_later = False

        def answer(outcome: Found | Exception) -> None:
            reply = reply_to(outcome)
            if is_later:
                write_reply(channel, reply)
            else:
                at_once.append(reply)

        self._polls.begin(pop, deadline, channel, answer)
        is_later = True
        return at_once[0] if at_once else None

    def ack_message(self, channel: Channel, command: RemotingCommand) -> Reply:
        """One message was processed."""
        header = AckMessageRequestHeader.decode(command.ext_fields)
        handle = self._handle(header)
        if not self._pops.has_offset(header.topic, header.queue_id, header.offset):
            raise NoMessage(f"offset is illegal, queue:[{header.topic}, {header.queue_id}], offset:[{header.offset}]")
        self._pops.ack(header.consumer_group, header.topic, [handle])
        return self._success(command)

    def batch_ack_message(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Many messages were processed."""
        body = BatchAckMessageRequestBody.decode(command.body)
        if not body.acks:
            raise RequestFailed("the body names no acks")
        handles = [_handles_of(ack) for ack in body.acks]
        count = sum(map(len, handles))
        if count > HANDLES_PER_CALL_MAX:
            raise SystemBusy(f"a batch acknowledges {count} messages, the limit is {HANDLES_PER_CALL_MAX}")
        for ack, of_ack in zip(body.acks, handles, strict=True):
            self._pops.ack(ack.consumer_group, ack.topic, of_ack)
        return self._success(command)

    def change_invisible_time(self, channel: Channel, command: RemotingCommand) -> Reply:
        """A message gets a new time; the answer has the parts of its new handle."""
        header = ChangeInvisibleTimeRequestHeader.decode(command.ext_fields)
        handle = self._handle(header)
        changed = self._pops.change_invisible(header.consumer_group, header.topic, handle, header.invisible_time)
        if changed.result is HandleResult.NO_MESSAGE:
            raise NoMessage(f"offset is illegal, queue:[{header.topic}, {header.queue_id}], offset:[{header.offset}]")
        # A dead handle gets an answer too, as Apache gives it: the handle made from it is just as dead.
        is_changed = changed.result is HandleResult.OK
        is_ordered = is_changed and changed.revive_queue_id == ORDER_REVIVE_QUEUE_ID
        ext_fields = {
            "popTime": str(changed.pop_time_ms if is_changed else self._now_ms()),
            # The time of an ordered pop's handle counts from its pop: the handle stays.
            "invisibleTime": str(changed.invisible_time_ms if is_ordered else header.invisible_time),
            "reviveQid": str(changed.revive_queue_id if is_changed else handle.revive_queue_id),
        }
        return self._success(command, ext_fields)

    def _handle(self, header: AckMessageRequestHeader | ChangeInvisibleTimeRequestHeader) -> PopHandle:
        """The handle of a request. Its queue and offset stand twice in it: what the header says counts."""
        handle = parse_receipt_handle(header.extra_info)
        if not self._pops.has_queue(header.topic, header.queue_id):
            raise MessageIllegal(f"queueId[{header.queue_id}] is illegal, topic:[{header.topic}]")
        return handle._replace(queue_id=header.queue_id, queue_offset=header.offset)

    def _notified(self, command: RemotingCommand, outcome: Found | Exception) -> Reply:
        """That nothing came and that too many wait are answers, not refusals."""
        if isinstance(outcome, Exception) and not isinstance(outcome, (PollingTimeout, PollingFull)):
            return self._refuse(command, outcome)
        has_message, is_full = not isinstance(outcome, Exception), isinstance(outcome, PollingFull)
        return self._success(command, {"hasMsg": _text(has_message), "pollingFull": _text(is_full)})

    def _popped(self, command: RemotingCommand, header: PopMessageRequestHeader, outcome: Found | Exception) -> Reply:
        if isinstance(outcome, PollingTimeout):
            return self._nothing(command, header, outcome)
        if isinstance(outcome, Exception):
            return self._refuse(command, outcome)
        assert isinstance(outcome, Popped), "only who only looks finds what it does not take"
        try:
            buffers = self._records(header.topic, outcome)
        except CodecError as error:  # a damaged record: they come again, and reviving tells which one it is
            return self._refuse(command, error)
        self._stats.count(command.code, ResponseCode.SUCCESS)
        starts = [f"{run.retry_mark:d} {run.queue_id} {run.start_offset}" for run in outcome.runs]
        offsets = [f"{run.retry_mark:d} {run.queue_id} {','.join(map(str, run.queue_offsets))}" for run in outcome.runs]
        ext_fields = {
            "popTime": str(outcome.pop_time_ms),
            "invisibleTime": str(outcome.invisible_time_ms),
            "reviveQid": str(outcome.revive_queue_id),
            "restNum": str(outcome.rest_num),
            "startOffsetInfo": ";".join(starts),
            "msgOffsetInfo": ";".join(offsets),
        }
        if header.order:
            ext_fields["orderCountInfo"] = ";".join(_order_counts(outcome))
        size_bytes = sum(map(len, buffers))
        head = encode_response_head(command.opaque, ResponseCode.SUCCESS, ext_fields, "FOUND", size_bytes)
        return [head, *buffers]

    def _nothing(self, command: RemotingCommand, header: PopMessageRequestHeader, refusal: BrokerError) -> Reply:
        self._stats.count(command.code, refusal.code)
        ext_fields = {
            "popTime": str(self._now_ms()),
            "invisibleTime": str(header.invisible_time),
            "reviveQid": "0",
            "restNum": "0",
            "startOffsetInfo": "",
            "msgOffsetInfo": "",
        }
        return encode_response_frame(command.opaque, refusal.code, ext_fields, refusal.remark)

    def _records(self, topic: str, popped: Popped) -> list[bytes | memoryview]:
        buffers: list[bytes | memoryview] = []
        for run in popped.runs:
            buffers += run.buffers if run.retry_mark is RetryMark.NORMAL else self._with_handles(topic, run, popped)
        return buffers

    def _with_handles(self, topic: str, run: PoppedRun, popped: Popped) -> list[bytes]:
        """The records of a retry topic as clients get them: under the topic asked for, each with its handle."""
        records = [record for buffer in run.buffers for record in decode_records(buffer)]
        return [self._with_handle(topic, record, run, popped) for record in records]

    def _with_handle(self, topic: str, record: Record, run: PoppedRun, popped: Popped) -> bytes:
        handle = PopHandle(
            run.retry_mark,
            run.queue_id,
            record.queue_offset,
            run.start_offset,
            popped.pop_time_ms,
            popped.invisible_time_ms,
            popped.revive_queue_id,
        )
        properties = m.decode_properties(record.properties)
        properties[m.PROPERTY_POP_CK] = format_receipt_handle(handle, self._broker_name)
        encoded = encode_or_keep(properties, record.properties)
        return encode_record(msgspec.structs.replace(record, topic=topic, properties=encoded))

    def _success(self, command: RemotingCommand, ext_fields: dict[str, str] | None = None) -> Reply:
        self._stats.count(command.code, ResponseCode.SUCCESS)
        if command.is_oneway:
            return None
        return encode_response_frame(command.opaque, ResponseCode.SUCCESS, ext_fields or {}, None)


def _left_ms(header: PopMessageRequestHeader | NotificationRequestHeader, now_ms: int) -> int:
    """How long to wait, by the client's clock; a client that does not tell when it asked asks now."""
    return (header.born_time if header.born_time > 0 else now_ms) + header.poll_time - now_ms


def _text(value: bool) -> str:
    return "true" if value else "false"


def _look_request(header: NotificationRequestHeader | PollingInfoRequestHeader, client: str) -> PopRequest:
    """The same as a pop of one message, for the checks that they share."""
    request = PopRequest(
        group=header.consumer_group,
        topic=header.topic,
        queue_id=header.queue_id,
        count_max=1,
        invisible_time_ms=1,
        client=client,
    )
    if isinstance(header, PollingInfoRequestHeader):
        return request
    return dataclasses.replace(
        request,
        expression_type=header.exp_type,
        expression=header.exp,
        order=header.order,
        attempt_id=header.attempt_id or "",
    )


def _pop_request(header: PopMessageRequestHeader, client: str) -> PopRequest:
    return PopRequest(
        group=header.consumer_group,
        topic=header.topic,
        queue_id=header.queue_id,
        count_max=header.max_msg_nums,
        invisible_time_ms=header.invisible_time,
        init_mode=header.init_mode,
        expression_type=header.exp_type,
        expression=header.exp,
        order=header.order,
        attempt_id=header.attempt_id or "",
        client=client,
    )


def _order_counts(popped: Popped) -> Iterator[str]:
    """How often messages failed before: per queue the least of its messages, then each that did (Apache 5.x)."""
    for run in popped.runs:
        failures = [times - 1 for times in run.times]
        yield f"{run.retry_mark:d} {run.queue_id} {min(failures, default=0)}"
        for offset, count in zip(run.queue_offsets, failures, strict=True):
            if count:
                yield f"{run.retry_mark:d} qo{run.queue_id}%{offset} {count}"


def _handles_of(ack: BatchAck) -> list[PopHandle]:
    mark = _MARKS.get(ack.retry)
    if mark is None:
        raise InvalidParameter(f"the retry mark r[{ack.retry[:20]}] of a batch acknowledgement must be 0, 1 or 2")
    return [
        PopHandle(mark, ack.queue_id, offset, ack.start_offset, ack.pop_time, ack.invisible_time, ack.revive_queue_id)
        for offset in ack.offsets(BATCH_ACK_BITS_MAX)
    ]
