"""What brokers ask a consumer, of themselves or for an operator.

| code | request | answer |
|---|---|---|
| 40 | NOTIFY_CONSUMER_IDS_CHANGED | none; the queues are divided anew |
| 220 | RESET_CONSUMER_CLIENT_OFFSET | none; the queues named begin at the offsets given |
| 221 | GET_CONSUMER_STATUS_FROM_CLIENT | up to where each queue of a topic is done |
| 307 | GET_CONSUMER_RUNNING_INFO | settings, subscriptions, queues; stacks if asked for |
| 309 | CONSUME_MESSAGE_DIRECTLY | what the handler made of the message that came with the request |

Source: Apache ClientRemotingProcessor; reference json_bodies.tsv.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from apogeemq.client_api.handling import RetryLater
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_api.stacks import stack_dump
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.client_remoting.delivery import HandlerCalls
from apogeemq.client_remoting.instance import ClientInstance
from apogeemq.client_remoting.messages import received_message
from apogeemq.client_remoting.reading import ReadQueues
from apogeemq.client_remoting.version import VERSION
from apogeemq.remoting_codec.aio.channel import Channel, Handler, Reply
from apogeemq.remoting_codec.bodies import ConsumeType, MessageQueue, ResetOffsetBody, SubscriptionData
from apogeemq.remoting_codec.client_bodies import (
    CMResult,
    ConsumeMessageDirectlyResult,
    ConsumerRunningInfo,
    GetConsumerStatusBody,
    ProcessQueueInfo,
)
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.fastjson import JsonBody
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.client_call import (
    ConsumeMessageDirectlyResultRequestHeader,
    GetConsumerRunningInfoRequestHeader,
    GetConsumerStatusRequestHeader,
    ResetOffsetRequestHeader,
)
from apogeemq.remoting_codec.record import Record, decode_records

logger = logging.getLogger(__name__)

DIRECT_MAX: Final = 8
"""Messages consumed directly at once: each is an operator's."""

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Profile:
    """What a consumer says of itself: its settings as text, under Java's names, and its subscriptions."""

    group: str
    namespace: str
    is_orderly: bool
    properties: Mapping[str, str]
    subscriptions: Callable[[], Iterable[SubscriptionData]]


def java_properties(
    address: str, consume_type: ConsumeType, *, started_ms: int, concurrency: int, is_orderly: bool
) -> dict[str, str]:
    """What operators' tools show of a consumer."""
    return {
        "PROP_NAMESERVER_ADDR": address,
        "PROP_CONSUME_TYPE": consume_type,
        "PROP_CONSUME_ORDERLY": "true" if is_orderly else "false",
        "PROP_THREADPOOL_CORE_SIZE": str(concurrency),
        "PROP_CONSUMER_START_TIMESTAMP": str(started_ms),
        "PROP_CLIENT_VERSION": VERSION,
    }


class BrokerRequests:
    """Answers for one consumer.

    Args:
        instance: the client at its servers.
        reading: has the queues.
        calls: runs the handler; None without one.
        profile: see there.
    """

    def __init__(
        self, instance: ClientInstance, reading: ReadQueues, calls: HandlerCalls | None, profile: Profile
    ) -> None:
        self._instance = instance
        self._reading = reading
        self._calls = calls
        self._profile = profile
        self._direct = 0

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {
            RequestCode.NOTIFY_CONSUMER_IDS_CHANGED: self._members_changed,
            RequestCode.RESET_CONSUMER_CLIENT_OFFSET: _told(self._reset),
            RequestCode.GET_CONSUMER_STATUS_FROM_CLIENT: _told(self._status),
            RequestCode.GET_CONSUMER_RUNNING_INFO: _told(self._running_info),
            RequestCode.CONSUME_MESSAGE_DIRECTLY: _told(self._consume_directly),
        }

    def _members_changed(self, _channel: Channel, command: RemotingCommand) -> Reply:
        if (command.ext_fields or {}).get("consumerGroup") == self._profile.group:
            self._reading.wish.set()
        return None

    def _reset(self, _channel: Channel, command: RemotingCommand) -> Reply:
        header = ResetOffsetRequestHeader.decode(command.ext_fields)
        if header.group == self._profile.group:
            offsets = ResetOffsetBody.decode(command.body).offset_table
            self._instance.run(self._reading.reset(offsets), "reset offsets")
        return None

    def _status(self, _channel: Channel, command: RemotingCommand) -> Reply:
        header = GetConsumerStatusRequestHeader.decode(command.ext_fields)
        if header.group != self._profile.group:
            return self._not_this_group(command, header.group)
        offsets = {
            queue: in_hand.commit_offset for queue, in_hand in self._reading.in_hand if queue.topic == header.topic
        }
        return _answer(command, GetConsumerStatusBody(message_queue_table=offsets))

    def _running_info(self, _channel: Channel, command: RemotingCommand) -> Reply:
        header = GetConsumerRunningInfoRequestHeader.decode(command.ext_fields)
        if header.consumer_group != self._profile.group:
            return self._not_this_group(command, header.consumer_group)
        info = ConsumerRunningInfo(
            properties=dict(self._profile.properties),
            subscription_set=list(self._profile.subscriptions()),
            mq_table={queue: self._queue_info(queue, in_hand) for queue, in_hand in self._reading.in_hand},
            jstack=stack_dump() if header.jstack_enable else None,
        )
        return _answer(command, info)

    def _queue_info(self, queue: MessageQueue, in_hand: ProcessQueue[ReceivedMessage]) -> ProcessQueueInfo:
        """One queue; where nothing is in hand, the lowest and highest offsets are 0, as Java has them."""
        cached = in_hand.in_hand
        return ProcessQueueInfo(
            commit_offset=in_hand.commit_offset,
            cached_msg_min_offset=min(cached, default=0),
            cached_msg_max_offset=max(cached, default=0),
            cached_msg_count=len(in_hand),
            cached_msg_size_in_mi_b=in_hand.size_bytes // _MIB,
            locked=self._reading.claims.is_held(queue),
            droped=in_hand.is_dropped,
        )

    def _consume_directly(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Run the handler for the one message in the request, and answer when it has ended."""
        header = ConsumeMessageDirectlyResultRequestHeader.decode(command.ext_fields)
        if header.consumer_group != self._profile.group:
            return self._not_this_group(command, header.consumer_group)
        if self._calls is None:
            return _refuse(command, ResponseCode.SYSTEM_ERROR, "this consumer has no handler to try the message on")
        if self._direct >= DIRECT_MAX:
            return _refuse(
                command, ResponseCode.SYSTEM_BUSY, f"{DIRECT_MAX} messages are consumed directly at the moment"
            )
        record = next(iter(decode_records(command.body)), None)
        if record is None:
            return _refuse(command, ResponseCode.SYSTEM_ERROR, "the request's body is no stored message")
        message = self._message(record, header.broker_name or "")
        self._direct += 1
        self._instance.run(self._consume(channel, command, self._calls, message), "consume directly")
        return None

    def _message(self, record: Record, broker_name: str) -> ReceivedMessage:
        """The message as the handler gets it; no queue waits for it, so what becomes of it is told and nothing else."""
        nowhere = ProcessQueue[ReceivedMessage](record.queue_offset, is_committed=True)
        nowhere.is_dropped = True
        queue = MessageQueue(record.topic, broker_name, record.queue_id)
        return received_message(record, self._profile.group, queue, nowhere, namespace=self._profile.namespace)

    async def _consume(
        self, channel: Channel, command: RemotingCommand, calls: HandlerCalls, message: ReceivedMessage
    ) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            error = await calls.call(message)
        finally:
            self._direct -= 1
        result = ConsumeMessageDirectlyResult(
            order=self._profile.is_orderly,
            consume_result=_result_of(error),
            remark=None if error is None else f"{type(error).__name__}: {error}",
            spent_time_mills=int((loop.time() - begun) * 1000),
        )
        if not channel.closed:
            channel.write(_answer(command, result))

    def _not_this_group(self, command: RemotingCommand, group: str) -> bytes:
        remark = f"the consumer group {group} is not this client's, which is {self._profile.group}"
        return _refuse(command, ResponseCode.SYSTEM_ERROR, remark)


def _result_of(error: Exception | None) -> CMResult:
    """In Java's words; one who rejects has thrown."""
    match error:
        case None:
            return CMResult.CR_SUCCESS
        case RetryLater():
            return CMResult.CR_LATER
        case _:
            return CMResult.CR_THROW_EXCEPTION


def _told(answer: Handler) -> Handler:
    """The same, with a refusal that tells what cannot be read in a request."""

    @functools.wraps(answer)
    def refusing(channel: Channel, command: RemotingCommand) -> Reply:
        try:
            return answer(channel, command)
        except CodecError as error:
            logger.warning("a broker's request %d is refused: %s", command.code, error)
            return _refuse(command, ResponseCode.SYSTEM_ERROR, str(error))

    return refusing


def _answer(command: RemotingCommand, body: JsonBody) -> bytes:
    return encode_response_frame(command.opaque, ResponseCode.SUCCESS, {}, None, body.encode())


def _refuse(command: RemotingCommand, code: ResponseCode, remark: str) -> bytes:
    return encode_response_frame(command.opaque, code, {}, remark)
