"""A name server and brokers in this process, over real sockets, which answer as a test scripts them."""

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.aio.server import RemotingServer
from apogeemq.remoting_codec.bodies import GetConsumerListByGroupResponseBody, HeartbeatData
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.route import BrokerData, QueueData, TopicRouteData

Answer: TypeAlias = Callable[[Channel, RemotingCommand], Reply]
"""What a broker does with a request."""


def refuse(code: int, remark: str = "no") -> Answer:
    """An answer with another code than success."""
    return lambda _channel, command: encode_response_frame(command.opaque, code, {}, remark)


def hang_up(channel: Channel, _command: RemotingCommand) -> Reply:
    """The connection is lost before the answer."""
    channel.abort("scripted")
    return None


def stay_silent(_channel: Channel, _command: RemotingCommand) -> Reply:
    """No answer ever."""
    return None


def succeed(ext_fields: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    """An answer with code 0."""
    return lambda _channel, command: encode_response_frame(command.opaque, 0, ext_fields or {}, None, body)


def stored(_channel: Channel, command: RemotingCommand) -> Reply:
    """A send's success: offset 7 in the queue that was asked for."""
    fields = command.ext_fields or {}
    answer = {"msgId": "M", "queueId": fields["e"], "queueOffset": "7", "transactionId": "T"}
    return encode_response_frame(command.opaque, ResponseCode.SUCCESS, answer)


class ScriptedServer:
    """One server. `script` has the answers to come by request code, each used once; then `usual` ones are given."""

    def __init__(self) -> None:
        self.usual: dict[int, Answer] = {}
        self.script: defaultdict[int, list[Answer]] = defaultdict(list)
        self.requests: list[RemotingCommand] = []
        self.address = ""
        self.server = RemotingServer(self._answer)

    async def start(self, port: int = 0) -> None:
        """Listen, on a port that nobody else has unless one is given."""
        host, bound = await self.server.start("127.0.0.1", port)
        self.address = f"{host}:{bound}"

    async def stop(self) -> None:
        """Close every connection and listen no more."""
        await self.server.stop(0)

    async def restart(self, port: int) -> None:
        """Listen again after a `stop`, as another process would."""
        self.server = RemotingServer(self._answer)
        await self.start(port)

    def of(self, code: int) -> list[RemotingCommand]:
        """The requests with this code."""
        return [command for command in self.requests if command.code == code]

    def _answer(self, channel: Channel, command: RemotingCommand) -> Reply:
        self.requests.append(command)
        waiting = self.script[command.code]
        answer = waiting.pop(0) if waiting else self.usual[command.code]
        return answer(channel, command)


class ScriptedCluster:
    """A name server that knows every topic in `routes`, and two brokers, `a` and `b`, with one queue of each topic."""

    def __init__(self, topics: tuple[str, ...]) -> None:
        self.namesrv = ScriptedServer()
        self.brokers = {"a": ScriptedServer(), "b": ScriptedServer()}
        self.topics = set(topics)
        self.namesrv.usual[RequestCode.GET_ROUTEINFO_BY_TOPIC] = self._route
        for broker in self.brokers.values():
            broker.usual |= {
                RequestCode.HEART_BEAT: self._heart_beat,
                RequestCode.UNREGISTER_CLIENT: succeed(),
                RequestCode.SEND_MESSAGE_V2: stored,
                RequestCode.SEND_BATCH_MESSAGE: stored,
                RequestCode.GET_CONSUMER_LIST_BY_GROUP: self._members,
            }
        self.members: list[str] = []

    async def start(self) -> None:
        """Start all three."""
        for server in (self.namesrv, *self.brokers.values()):
            await server.start()

    async def stop(self) -> None:
        """Stop all three."""
        for server in (self.namesrv, *self.brokers.values()):
            await server.stop()

    def sends(self) -> list[str]:
        """Which broker got each send; those of one broker together."""
        codes = (RequestCode.SEND_MESSAGE_V2, RequestCode.SEND_BATCH_MESSAGE)
        return [name for name, broker in self.brokers.items() for code in codes for _ in broker.of(code)]

    def _route(self, _channel: Channel, command: RemotingCommand) -> Reply:
        if (command.ext_fields or {})["topic"] not in self.topics:
            return encode_response_frame(command.opaque, ResponseCode.TOPIC_NOT_EXIST, {}, "no such topic")
        route = TopicRouteData(
            queue_datas=[
                QueueData(broker_name=name, read_queue_nums=1, write_queue_nums=1, perm=6) for name in self.brokers
            ],
            broker_datas=[
                BrokerData(cluster="c", broker_name=name, broker_addrs={0: broker.address})
                for name, broker in self.brokers.items()
            ],
        )
        return encode_response_frame(command.opaque, 0, None, None, route.encode(standard=True))

    def _heart_beat(self, _channel: Channel, command: RemotingCommand) -> Reply:
        beat = HeartbeatData.decode(command.body)
        if beat.client_id not in self.members:
            self.members.append(beat.client_id)
        return encode_response_frame(command.opaque, 0, {})

    def _members(self, _channel: Channel, command: RemotingCommand) -> Reply:
        body = GetConsumerListByGroupResponseBody(consumer_id_list=self.members).encode()
        return encode_response_frame(command.opaque, 0, {}, None, body)


@contextlib.asynccontextmanager
async def running(*topics: str) -> AsyncIterator[ScriptedCluster]:
    """A cluster that serves these topics."""
    cluster = ScriptedCluster(topics)
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.stop()
