"""One typed call per request code: what is sent, and what its answer means.

Every function takes the connection and a time-out in seconds, and raises besides its own errors what
`Connection.request` raises. A code that is no success becomes `Refusal`; what that means to a user is its caller's
business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from apogeemq.client_api.errors import ClientClosed, ConnectionBroken
from apogeemq.client_remoting.connection import Connection
from apogeemq.remoting_codec.aio.client import RemotingClient
from apogeemq.remoting_codec.bodies import (
    CheckClientRequestBody,
    GetConsumerListByGroupResponseBody,
    HeartbeatData,
    LockBatchRequestBody,
    LockBatchResponseBody,
    MessageQueue,
    UnlockBatchRequestBody,
)
from apogeemq.remoting_codec.codes import ONEWAY_FLAG, PullSysFlag, RequestCode, ResponseCode, response_code_name
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import RemoteProtocolError
from apogeemq.remoting_codec.framing import encode_frame
from apogeemq.remoting_codec.headers import (
    CommandHeader,
    ConsumerSendMsgBackRequestHeader,
    GetConsumerListByGroupRequestHeader,
    GetMaxOffsetRequestHeader,
    GetMaxOffsetResponseHeader,
    GetMinOffsetRequestHeader,
    GetMinOffsetResponseHeader,
    GetRouteInfoRequestHeader,
    PullMessageRequestHeader,
    PullMessageResponseHeader,
    QueryConsumerOffsetRequestHeader,
    QueryConsumerOffsetResponseHeader,
    SearchOffsetRequestHeader,
    SearchOffsetResponseHeader,
    SendMessageResponseHeader,
    UnregisterClientRequestHeader,
    UpdateConsumerOffsetRequestHeader,
)
from apogeemq.remoting_codec.headers.send import (
    FAILURE_REASON_FIELD,
    RecallMessageRequestHeader,
    RecallMessageResponseHeader,
)
from apogeemq.remoting_codec.headers.transaction import EndTransactionRequestHeader
from apogeemq.remoting_codec.route import TopicRouteData

LONG_POLL_MARGIN_S = 5.0
"""A pull's own time-out is so much longer than the broker may hold it."""

REASON_LENGTH_MAX = 1_000
"""Characters of the reason why a message is given up; brokers keep no more."""

_HEARTBEAT_TIMEOUT_S = 3.0


class Refusal(Exception):  # noqa: N818 — named like the client's errors
    """A server answered with a code that is no success. `remark` is its explanation, perhaps empty."""

    def __init__(self, code: int, remark: str) -> None:
        super().__init__(f"{response_code_name(code)}({code}): {remark}")
        self.code = code
        self.remark = remark

    @property
    def code_name(self) -> str:
        """RocketMQ's name of the code."""
        return response_code_name(self.code)


UNANSWERED: Final = (ConnectionBroken, ClientClosed, TimeoutError, Refusal, RemoteProtocolError)
"""What a call ends with that a later one may do better than."""


class PullRequest(NamedTuple):
    """What to ask a queue for; a pull that finds nothing is held for up to `hold_s`."""

    group: str
    queue: MessageQueue
    queue_offset: int
    expression: str
    expression_type: str
    count_max: int
    hold_s: float


@dataclass(frozen=True, slots=True)
class Pulled:
    """A pull's answer. `records` are stored records, back to back; empty unless the code is SUCCESS."""

    code: int
    next_offset: int
    records: bytes


# -- name server


async def query_route(connection: Connection, topic: str, timeout_s: float) -> TopicRouteData | None:
    """GET_ROUTEINFO_BY_TOPIC (105); None when there is no such topic."""
    header = GetRouteInfoRequestHeader(topic=topic, accept_standard_json_only=True)
    response = await _request(connection, RequestCode.GET_ROUTEINFO_BY_TOPIC, header, b"", timeout_s)
    if response.code == ResponseCode.TOPIC_NOT_EXIST:
        return None
    return TopicRouteData.decode(_successful(response).body)


# -- sending


async def send_message(
    connection: Connection, ext_fields: dict[str, str], body: bytes, timeout_s: float
) -> SendMessageResponseHeader:
    """SEND_MESSAGE_V2 (310). Takes the header as ext fields, which the producer writes by hand: the hot path."""
    command = RemotingCommand(RequestCode.SEND_MESSAGE_V2, ext_fields=ext_fields, body=body)
    response = await connection.request(command, timeout_s)
    if response.code != ResponseCode.SUCCESS:
        raise _refusal(response)
    return SendMessageResponseHeader.decode(response.ext_fields)


async def send_batch_message(
    connection: Connection, ext_fields: dict[str, str], body: bytes, timeout_s: float
) -> SendMessageResponseHeader:
    """SEND_BATCH_MESSAGE (320); the answer's offset is that of the first message."""
    command = RemotingCommand(RequestCode.SEND_BATCH_MESSAGE, ext_fields=ext_fields, body=body)
    return SendMessageResponseHeader.decode(_successful(await connection.request(command, timeout_s)).ext_fields)


async def send_reply(connection: Connection, ext_fields: dict[str, str], body: bytes, timeout_s: float) -> None:
    """SEND_REPLY_MESSAGE_V2 (325): a success when the requester has the reply."""
    command = RemotingCommand(RequestCode.SEND_REPLY_MESSAGE_V2, ext_fields=ext_fields, body=body)
    _successful(await connection.request(command, timeout_s))


async def end_transaction(connection: Connection, header: EndTransactionRequestHeader, timeout_s: float) -> None:
    """END_TRANSACTION (37) with an answer: a success when the broker has committed or rolled back."""
    _successful(await _request(connection, RequestCode.END_TRANSACTION, header, b"", timeout_s))


def end_transaction_frame(header: EndTransactionRequestHeader) -> bytes:
    """END_TRANSACTION (37) oneway, for the connection that a question came by."""
    return encode_frame(RemotingCommand(RequestCode.END_TRANSACTION, ONEWAY_FLAG, ext_fields=header.encode()))


async def recall_message(connection: Connection, header: RecallMessageRequestHeader, timeout_s: float) -> str:
    """RECALL_MESSAGE (370): the id of the message that is taken back."""
    response = await _request(connection, RequestCode.RECALL_MESSAGE, header, b"", timeout_s)
    return RecallMessageResponseHeader.decode(_successful(response).ext_fields).msg_id


async def send_message_back(
    connection: Connection, header: ConsumerSendMsgBackRequestHeader, timeout_s: float, *, reason: str = ""
) -> None:
    """CONSUMER_SEND_MSG_BACK (36); `reason` tells in words why the message is given up, empty for one to be retried."""
    fields = header.encode()
    if reason:
        fields[FAILURE_REASON_FIELD] = reason[:REASON_LENGTH_MAX]
    _successful(
        await connection.request(RemotingCommand(RequestCode.CONSUMER_SEND_MSG_BACK, ext_fields=fields), timeout_s)
    )


# -- receiving


async def pull_message(connection: Connection, pull: PullRequest) -> Pulled:
    """PULL_MESSAGE (11); refusals are all codes but 0, 19, 20 and 21.

    The subscription goes with each pull, so that a broker that was restarted can answer before it has had a heartbeat.
    Nothing is committed by pulls: one that is answered late would undo what another member commits.
    """
    header = PullMessageRequestHeader(
        consumer_group=pull.group,
        topic=pull.queue.topic,
        queue_id=pull.queue.queue_id,
        queue_offset=pull.queue_offset,
        max_msg_nums=pull.count_max,
        sys_flag=PullSysFlag.FLAG_SUSPEND | PullSysFlag.FLAG_SUBSCRIPTION,
        commit_offset=0,
        suspend_timeout_millis=int(pull.hold_s * 1000),
        subscription=pull.expression,
        sub_version=0,
        expression_type=pull.expression_type,
    )
    timeout_s = pull.hold_s + LONG_POLL_MARGIN_S
    response = await _request(connection, RequestCode.PULL_MESSAGE, header, b"", timeout_s)
    match response.code:
        case ResponseCode.SUCCESS:
            records = response.body
        case ResponseCode.PULL_NOT_FOUND | ResponseCode.PULL_RETRY_IMMEDIATELY | ResponseCode.PULL_OFFSET_MOVED:
            records = b""
        case _:
            raise _refusal(response)
    answer = PullMessageResponseHeader.decode(response.ext_fields)
    return Pulled(response.code, answer.next_begin_offset, records)


# -- offsets


async def query_consumer_offset(
    connection: Connection, group: str, queue: MessageQueue, timeout_s: float
) -> int | None:
    """QUERY_CONSUMER_OFFSET (14): what the group committed; None when it has not."""
    header = QueryConsumerOffsetRequestHeader(
        consumer_group=group, topic=queue.topic, queue_id=queue.queue_id, set_zero_if_not_found=False
    )
    response = await _request(connection, RequestCode.QUERY_CONSUMER_OFFSET, header, b"", timeout_s)
    if response.code == ResponseCode.QUERY_NOT_FOUND:
        return None
    return QueryConsumerOffsetResponseHeader.decode(_successful(response).ext_fields).offset


async def update_consumer_offset(
    connection: Connection, group: str, queue: MessageQueue, queue_offset: int, timeout_s: float
) -> None:
    """UPDATE_CONSUMER_OFFSET (15), with an answer: a commit that was lost is repeated."""
    header = UpdateConsumerOffsetRequestHeader(
        consumer_group=group, topic=queue.topic, queue_id=queue.queue_id, commit_offset=queue_offset
    )
    _successful(await _request(connection, RequestCode.UPDATE_CONSUMER_OFFSET, header, b"", timeout_s))


async def max_offset(connection: Connection, queue: MessageQueue, timeout_s: float) -> int:
    """GET_MAX_OFFSET (30): the offset that the queue's next message will get."""
    header = GetMaxOffsetRequestHeader(topic=queue.topic, queue_id=queue.queue_id)
    response = await _request(connection, RequestCode.GET_MAX_OFFSET, header, b"", timeout_s)
    return GetMaxOffsetResponseHeader.decode(_successful(response).ext_fields).offset


async def min_offset(connection: Connection, queue: MessageQueue, timeout_s: float) -> int:
    """GET_MIN_OFFSET (31): the offset of the oldest message kept."""
    header = GetMinOffsetRequestHeader(topic=queue.topic, queue_id=queue.queue_id)
    response = await _request(connection, RequestCode.GET_MIN_OFFSET, header, b"", timeout_s)
    return GetMinOffsetResponseHeader.decode(_successful(response).ext_fields).offset


async def offset_by_time(connection: Connection, queue: MessageQueue, timestamp_ms: int, timeout_s: float) -> int:
    """SEARCH_OFFSET_BY_TIMESTAMP (29): the first message stored at that time or later."""
    header = SearchOffsetRequestHeader(topic=queue.topic, queue_id=queue.queue_id, timestamp=timestamp_ms)
    response = await _request(connection, RequestCode.SEARCH_OFFSET_BY_TIMESTAMP, header, b"", timeout_s)
    return SearchOffsetResponseHeader.decode(_successful(response).ext_fields).offset


# -- membership


async def heartbeat(client: RemotingClient | Connection, beat: HeartbeatData) -> None:
    """HEART_BEAT (34); on a fresh connection before anything else."""
    command = RemotingCommand(RequestCode.HEART_BEAT, ext_fields={}, body=beat.encode())
    _successful(await client.request(command, _HEARTBEAT_TIMEOUT_S))


async def unregister_client(
    connection: Connection, client_id: str, producer_group: str | None, consumer_group: str | None, timeout_s: float
) -> None:
    """UNREGISTER_CLIENT (35)."""
    header = UnregisterClientRequestHeader(
        client_id=client_id, producer_group=producer_group, consumer_group=consumer_group
    )
    _successful(await _request(connection, RequestCode.UNREGISTER_CLIENT, header, b"", timeout_s))


async def consumer_ids(connection: Connection, group: str, timeout_s: float) -> Sequence[str]:
    """GET_CONSUMER_LIST_BY_GROUP (38): the members' client ids. A group without members is a Refusal (1)."""
    header = GetConsumerListByGroupRequestHeader(consumer_group=group)
    response = await _request(connection, RequestCode.GET_CONSUMER_LIST_BY_GROUP, header, b"", timeout_s)
    return GetConsumerListByGroupResponseBody.decode(_successful(response).body).consumer_id_list


async def check_client_config(connection: Connection, body: CheckClientRequestBody, timeout_s: float) -> None:
    """CHECK_CLIENT_CONFIG (46): whether the broker can compile a subscription's expression."""
    command = RemotingCommand(RequestCode.CHECK_CLIENT_CONFIG, ext_fields={}, body=body.encode())
    _successful(await connection.request(command, timeout_s))


# -- order


async def lock_queues(
    connection: Connection, group: str, client_id: str, queues: Sequence[MessageQueue], timeout_s: float
) -> frozenset[MessageQueue]:
    """LOCK_BATCH_MQ (41), to a master: the queues among these that the client holds now."""
    body = LockBatchRequestBody(consumer_group=group, client_id=client_id, mq_set=list(queues))
    command = RemotingCommand(RequestCode.LOCK_BATCH_MQ, ext_fields={}, body=body.encode())
    response = _successful(await connection.request(command, timeout_s))
    return frozenset(LockBatchResponseBody.decode(response.body).lock_ok_mq_set)


async def unlock_queues(
    connection: Connection, group: str, client_id: str, queues: Sequence[MessageQueue], timeout_s: float
) -> None:
    """UNLOCK_BATCH_MQ (42)."""
    body = UnlockBatchRequestBody(consumer_group=group, client_id=client_id, mq_set=list(queues))
    command = RemotingCommand(RequestCode.UNLOCK_BATCH_MQ, ext_fields={}, body=body.encode())
    _successful(await connection.request(command, timeout_s))


# --


async def _request(
    connection: Connection, code: RequestCode, header: CommandHeader, body: bytes, timeout_s: float
) -> RemotingCommand:
    return await connection.request(RemotingCommand(code, ext_fields=header.encode(), body=body), timeout_s)


def _successful(response: RemotingCommand) -> RemotingCommand:
    """The same response, or Refusal."""
    if response.code != ResponseCode.SUCCESS:
        raise _refusal(response)
    return response


def _refusal(response: RemotingCommand) -> Refusal:
    return Refusal(response.code, response.remark or "")
