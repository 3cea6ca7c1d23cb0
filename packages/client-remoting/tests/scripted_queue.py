"""One queue of a scripted broker, for tests of consumers: its records, and what consumers asked of it."""

import asyncio
from collections.abc import Callable

from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.bodies import LockBatchRequestBody, LockBatchResponseBody
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers import ConsumerSendMsgBackRequestHeader
from apogeemq.remoting_codec.message import encode_properties
from apogeemq.remoting_codec.record import Record, encode_host, encode_record
from scripted_cluster import ScriptedCluster, ScriptedServer, refuse, succeed

HOST = encode_host("127.0.0.1", 10911)
WAIT_S = 10.0


class Queue:
    """The queue of topic T on one broker, the topic's only one unless others are kept.

    Hands out its records one pull after the other, then holds pulls; gives its lock while `is_free`.
    """

    def __init__(
        self, cluster: ScriptedCluster, committed: int | None = 0, *, broker: str = "a", is_only: bool = True
    ) -> None:
        if is_only:
            for other in [name for name in cluster.brokers if name != broker]:
                del cluster.brokers[other]
        self.broker: ScriptedServer = cluster.brokers[broker]
        self.is_free = True
        self.committed = committed
        self.namesrv = cluster.namesrv.address
        self.records: list[bytes] = []
        self.first = 0
        self.broker.usual |= {
            RequestCode.QUERY_CONSUMER_OFFSET: self._committed,
            RequestCode.GET_MIN_OFFSET: succeed({"offset": "3"}),
            RequestCode.GET_MAX_OFFSET: succeed({"offset": "9"}),
            RequestCode.SEARCH_OFFSET_BY_TIMESTAMP: succeed({"offset": "6"}),
            RequestCode.UPDATE_CONSUMER_OFFSET: succeed(),
            RequestCode.CONSUMER_SEND_MSG_BACK: succeed(),
            RequestCode.PULL_MESSAGE: self._pull,
            RequestCode.LOCK_BATCH_MQ: self._lock,
            RequestCode.UNLOCK_BATCH_MQ: succeed(),
        }

    def add(self, body: bytes, *, tag: str = "", sys_flag: int = 0, reconsume_times: int = 0) -> None:
        """One more message; its physical offset is 1000 times its queue offset."""
        offset = self.first + len(self.records)
        properties = {"UNIQ_KEY": f"ID{offset}", "TAGS": tag}
        record = Record(
            topic="T",
            queue_id=0,
            queue_offset=offset,
            physical_offset=1000 * offset,
            born_timestamp_ms=1,
            born_host=HOST,
            store_timestamp_ms=2,
            store_host=HOST,
            body=body,
            properties=encode_properties(properties),
            sys_flag=sys_flag,
            reconsume_times=reconsume_times,
        )
        self.records.append(encode_record(record))

    def sent_back(self) -> list[tuple[int, int]]:
        """Physical offset and delay level of every message that came back."""
        headers = [
            ConsumerSendMsgBackRequestHeader.decode(command.ext_fields)
            for command in self.broker.of(RequestCode.CONSUMER_SEND_MSG_BACK)
        ]
        return [(header.offset, header.delay_level) for header in headers]

    def commits(self) -> list[int]:
        """Every offset that was committed."""
        commands = self.broker.of(RequestCode.UPDATE_CONSUMER_OFFSET)
        return [int((command.ext_fields or {})["commitOffset"]) for command in commands]

    def pulled_from(self) -> list[int]:
        """Where every pull began."""
        return [int((command.ext_fields or {})["queueOffset"]) for command in self.broker.of(RequestCode.PULL_MESSAGE)]

    def codes(self, *of: RequestCode) -> list[int]:
        """The requests with one of these codes, in their order."""
        return [command.code for command in self.broker.requests if command.code in of]

    def _committed(self, channel: Channel, command: RemotingCommand) -> Reply:
        """What the test says, whatever is committed."""
        if self.committed is None:
            return refuse(ResponseCode.QUERY_NOT_FOUND)(channel, command)
        return succeed({"offset": str(self.committed)})(channel, command)

    def _lock(self, _channel: Channel, command: RemotingCommand) -> Reply:
        asked = LockBatchRequestBody.decode(command.body).mq_set
        body = LockBatchResponseBody(lock_ok_mq_set=asked if self.is_free else []).encode()
        return encode_response_frame(command.opaque, 0, {}, None, body)

    def _pull(self, _channel: Channel, command: RemotingCommand) -> Reply:
        offset = int((command.ext_fields or {})["queueOffset"])
        found = self.records[offset - self.first :]
        if not found:
            return None  # held
        return pulled(command, ResponseCode.SUCCESS, offset + len(found), b"".join(found))


def pulled(command: RemotingCommand, code: int, next_offset: int, body: bytes = b"") -> Reply:
    """A pull's answer."""
    offsets = {"nextBeginOffset": str(next_offset), "minOffset": "0", "maxOffset": "99", "suggestWhichBrokerId": "0"}
    return encode_response_frame(command.opaque, code, offsets, None, body)


async def until(is_done: Callable[[], bool]) -> None:
    """Let other tasks run until that is so; a bound for tests that would fail."""
    async with asyncio.timeout(WAIT_S):
        while not is_done():  # noqa: ASYNC110 — what is waited for happens on the other side of a socket
            await asyncio.sleep(0)
