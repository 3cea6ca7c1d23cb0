"""A blocking Remoting client for tests: one socket, one request at a time, or raw bytes.

Uses the codec for frames (proven against recorded bytes in its own package) and nothing else of the product.
"""

import itertools
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Self

from apogeemq.remoting_codec.bodies import (
    ConsumeFromWhere,
    ConsumerData,
    ConsumeType,
    HeartbeatData,
    MessageModel,
    SubscriptionData,
)
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.connection import Connection
from apogeemq.remoting_codec.framing import encode_frame
from apogeemq.remoting_codec.record import Record, decode_records
from apogeemq.remoting_codec.route import TopicRouteData

TIMEOUT_S = 20.0


class WireClient:
    """One connection. `pushed` gathers what the server sends of its own accord."""

    def __init__(self, address: str, *, tls: ssl.SSLContext | None = None) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_S)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self.pushed: list[RemotingCommand] = []
        self._connection: Connection[None] = Connection()
        self._opaque = itertools.count(1)
        self._received: list[RemotingCommand] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(
        self, code: int, ext_fields: dict[str, str] | None = None, body: bytes = b"", *, oneway: bool = False
    ) -> int:
        """Write one request; gives its opaque."""
        opaque = next(self._opaque)
        command = RemotingCommand(code, 2 if oneway else 0, opaque, None, ext_fields, body, "JAVA", 479)
        self.socket.sendall(encode_frame(command))
        return opaque

    def receive(self, opaque: int) -> RemotingCommand:
        """Wait for the response with this opaque; fails after TIMEOUT_S, or when the server closes."""
        while True:
            for index, command in enumerate(self._received):
                if command.is_response and command.opaque == opaque:
                    return self._received.pop(index)
            self._read()

    def receive_any(self) -> RemotingCommand:
        """Wait for the next response, whatever its opaque; fails after TIMEOUT_S, or when the server closes."""
        while not self._received:
            self._read()
        return self._received.pop(0)

    def request(self, code: int, ext_fields: dict[str, str] | None = None, body: bytes = b"") -> RemotingCommand:
        """One request and its response."""
        return self.receive(self.send(code, ext_fields, body))

    def wait_pushed(self, code: int) -> RemotingCommand:
        """Wait for a request that the server sends."""
        while True:
            for index, command in enumerate(self.pushed):
                if command.code == code:
                    return self.pushed.pop(index)
            self._read()

    def is_closed_by_peer(self) -> bool:
        """Wait until the server closes the connection; fails after TIMEOUT_S."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def heartbeat(
        self, client_id: str, group: str, topic: str, expression: str = "*", version: int = 1
    ) -> RemotingCommand:
        """Join a consumer group."""
        beat = HeartbeatData(
            client_id=client_id,
            consumer_data_set=[
                ConsumerData(
                    group_name=group,
                    consume_type=ConsumeType.CONSUME_PASSIVELY,
                    message_model=MessageModel.CLUSTERING,
                    consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
                    subscription_data_set=[SubscriptionData(topic=topic, sub_string=expression, sub_version=version)],
                )
            ],
        )
        return self.request(RequestCode.HEART_BEAT, {}, beat.encode())

    def _read(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the server closed the connection")
        for command in self._connection.receive_data(data):
            (self._received if command.is_response else self.pushed).append(command)


def send_fields(topic: str, queue_id: int = 0, properties: str = "", **more: str) -> dict[str, str]:
    """Ext fields of a SEND_MESSAGE_V2, as a Java client writes them."""
    return {
        "a": "P",
        "b": topic,
        "c": "TBW102",
        "d": "4",
        "e": str(queue_id),
        "f": "0",
        "g": "1795356276399",
        "h": "0",
        "i": properties,
        "j": "0",
        "k": "false",
        "m": "false",
        **more,
    }


def pull_fields(topic: str, group: str, queue_id: int = 0, offset: int = 0, **more: str) -> dict[str, str]:
    """Ext fields of a PULL_MESSAGE with its subscription in it (no heartbeat needed), not to be held."""
    return {
        "consumerGroup": group,
        "topic": topic,
        "queueId": str(queue_id),
        "queueOffset": str(offset),
        "maxMsgNums": "32",
        "sysFlag": "4",
        "commitOffset": "0",
        "suspendTimeoutMillis": "0",
        "subscription": "*",
        "subVersion": "0",
        "expressionType": "TAG",
        **more,
    }


def pull_all(client: WireClient, topic: str, group: str, queue_id: int = 0, offset: int = 0) -> list[Record]:
    """Pull until the queue is at its end."""
    records: list[Record] = []
    while True:
        reply = client.request(RequestCode.PULL_MESSAGE, pull_fields(topic, group, queue_id, offset))
        assert reply.ext_fields is not None
        offset = int(reply.ext_fields["nextBeginOffset"])
        if reply.code != ResponseCode.SUCCESS:
            assert reply.code == ResponseCode.PULL_NOT_FOUND, reply
            return records
        records += decode_records(reply.body)


def route_of(namesrv: str, topic: str) -> TopicRouteData | None:
    """What a name server says about a topic now; None when it knows none of that name."""
    with WireClient(namesrv) as client:
        reply = client.request(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": topic})
    if reply.code == ResponseCode.TOPIC_NOT_EXIST:
        return None
    assert reply.code == ResponseCode.SUCCESS, reply
    return TopicRouteData.decode(reply.body)


def send_until_it_ends(client: WireClient, topic: str, count: int, end: Callable[[], object]) -> int:
    """Send to queue 0 without waiting for answers; call `end` at the `count`-th acknowledgement, and go on until the
    connection is gone.

    Bodies are "body 0", "body 1" and so on. Gives the number of acknowledgements; each was a success in its turn.
    """
    client.request(RequestCode.SEND_MESSAGE_V2, send_fields(topic, queue_id=1), b"make the topic")

    def send() -> None:
        try:
            for number in itertools.count():
                client.send(RequestCode.SEND_MESSAGE_V2, send_fields(topic), b"body %d" % number)
        except OSError:
            return

    sender = threading.Thread(target=send)
    sender.start()
    acknowledged = 0
    try:
        while True:
            reply = client.receive_any()
            assert reply.code == ResponseCode.SUCCESS, reply
            assert (reply.ext_fields or {})["queueOffset"] == str(acknowledged)
            acknowledged += 1
            if acknowledged == count:
                end()
    except OSError:  # the connection is gone, and what was on the way has been read
        pass
    finally:
        client.socket.close()
        sender.join(TIMEOUT_S)
    assert not sender.is_alive()
    assert acknowledged >= count
    return acknowledged
