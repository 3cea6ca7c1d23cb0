"""What the scenarios of consumers need besides the consumers: stored messages, and an operator's requests to a broker.

Both go over a raw connection, since they are not what is judged, and since a JVM takes a second to start.
"""

import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import msgspec
from apogeemq.remoting_codec.bodies import ResetOffsetBody
from apogeemq.remoting_codec.client_bodies import (
    ConsumeMessageDirectlyResult,
    ConsumerRunningInfo,
    GetConsumerStatusBody,
    MessageRequestMode,
    SetMessageRequestModeRequestBody,
)
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand

from tests.e2e.wire_client import WireClient, send_fields

QUEUES = 4
NO_PROPERTIES: Mapping[str, str] = types.MappingProxyType({})


class Operator:
    """One connection to a broker. Every request must succeed."""

    def __init__(self, broker: str) -> None:
        self._wire = WireClient(broker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._wire.socket.close()

    def send(self, topic: str, keys: Iterable[str], *, tags: str = "", queues: Sequence[int] = range(QUEUES)) -> None:
        """Stores one message for each key, with the key as its body, in the queues in turn."""
        for number, key in enumerate(keys):
            self.send_one(topic, key, {"TAGS": tags} if tags else {}, queue_id=queues[number % len(queues)])

    def send_one(
        self,
        topic: str,
        key: str,
        properties: Mapping[str, str] = NO_PROPERTIES,
        *,
        queue_id: int = 0,
        size_bytes: int = 0,
    ) -> str:
        """Stores one message, filled up with blanks to `size_bytes`; gives its offset message id."""
        text = "".join(f"{name}\x01{value}\x02" for name, value in {"KEYS": key, **properties}.items())
        body = key.encode().ljust(size_bytes)
        reply = self._request(RequestCode.SEND_MESSAGE_V2, send_fields(topic, queue_id, text), body)
        assert reply.ext_fields is not None
        return reply.ext_fields["msgId"]

    def min_offset(self, topic: str, queue_id: int) -> int:
        """The offset of the queue's oldest message."""
        reply = self._request(RequestCode.GET_MIN_OFFSET, {"topic": topic, "queueId": str(queue_id)})
        assert reply.ext_fields is not None
        return int(reply.ext_fields["offset"])

    def committed(self, topic: str, group: str) -> dict[int, int]:
        """The group's offset in each queue that it has one in."""
        offsets = {}
        for queue_id in range(QUEUES):
            fields = {"consumerGroup": group, "topic": topic, "queueId": str(queue_id), "setZeroIfNotFound": "false"}
            reply = self._wire.request(RequestCode.QUERY_CONSUMER_OFFSET, fields)
            if reply.code == ResponseCode.QUERY_NOT_FOUND:
                continue
            assert reply.code == ResponseCode.SUCCESS, reply
            assert reply.ext_fields is not None
            offsets[queue_id] = int(reply.ext_fields["offset"])
        return offsets

    def client_ids(self, group: str) -> list[str]:
        """The members of a group; none also where the broker knows no such group."""
        reply = self._wire.request(RequestCode.GET_CONSUMER_LIST_BY_GROUP, {"consumerGroup": group})
        if reply.code == ResponseCode.SYSTEM_ERROR:
            return []
        assert reply.code == ResponseCode.SUCCESS, reply
        members: list[str] = msgspec.json.decode(reply.body)["consumerIdList"]
        return members

    def reset_offsets(self, topic: str, group: str, timestamp_ms: int) -> dict[int, int]:
        """Sets the group to that time in every queue, -1 the end, forwards too; the new offsets by queue."""
        fields = {"topic": topic, "group": group, "timestamp": str(timestamp_ms), "isForce": "true"}
        reply = self._request(RequestCode.INVOKE_BROKER_TO_RESET_OFFSET, fields)
        table = ResetOffsetBody.decode(reply.body).offset_table
        return {queue.queue_id: offset for queue, offset in table.items()}

    def running_info(self, group: str, client_id: str) -> ConsumerRunningInfo:
        """What a consumer tells about itself."""
        fields = {"consumerGroup": group, "clientId": client_id, "jstackEnable": "true"}
        return ConsumerRunningInfo.decode(self._request(RequestCode.GET_CONSUMER_RUNNING_INFO, fields).body)

    def status(self, topic: str, group: str) -> dict[str, dict[int, int]]:
        """The offsets that each member of a group holds in memory: client id → queue id → offset."""
        fields = {"topic": topic, "group": group}
        reply = self._request(RequestCode.INVOKE_BROKER_TO_GET_CONSUMER_STATUS, fields)
        table = GetConsumerStatusBody.decode(reply.body).consumer_table
        return {
            client_id: {queue.queue_id: offset for queue, offset in offsets.items()}
            for client_id, offsets in table.items()
        }

    def consume_directly(self, group: str, client_id: str, topic: str, msg_id: str) -> ConsumeMessageDirectlyResult:
        """Has one member consume one stored message now."""
        fields = {"consumerGroup": group, "clientId": client_id, "msgId": msg_id, "topic": topic}
        reply = self._request(RequestCode.CONSUME_MESSAGE_DIRECTLY, fields)
        return ConsumeMessageDirectlyResult.decode(reply.body)

    def let_pop(self, topic: str, group: str) -> None:
        """Says that the group gets the topic's messages by popping."""
        body = SetMessageRequestModeRequestBody(topic=topic, consumer_group=group, mode=MessageRequestMode.POP)
        self._request(RequestCode.SET_MESSAGE_REQUEST_MODE, {}, body.encode())

    def _request(self, code: RequestCode, fields: dict[str, str], body: bytes = b"") -> RemotingCommand:
        reply = self._wire.request(code, fields, body)
        assert reply.code == ResponseCode.SUCCESS, reply
        return reply
