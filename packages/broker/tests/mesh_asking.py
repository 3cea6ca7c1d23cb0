"""How tests ask a broker over the mesh door, without any connection: an asker, and a good request for every call."""

from typing import Any

from apogeemq.mesh.calls import Call
from apogeemq.mesh.local_caller import LocalCaller
from apogeemq.mesh.network import Req, Resp
from apogeemq.mesh.v1 import broker_pb2 as pb
from apogeemq.mesh.v1 import methods
from apogeemq.remoting_codec.message_id import RecallHandle, encode_recall_handle
from apogeemq.remoting_codec.record import encode_host
from google.protobuf.message import Message
from opentelemetry.trace import Tracer

from packages.broker.tests.world import World

BORN_HOST = encode_host("10.0.0.9", 40_001)
BORN_TIMESTAMP_MS = 1_795_356_276_399
TIMEOUT_S = 30.0


class Asker:
    """A proxy's way to a broker in the same process."""

    def __init__(self, world: World, tracer: Tracer | None = None) -> None:
        self.caller = LocalCaller("broker-a", world.broker.calls, clock=world.clock, tracer=tracer)

    async def ask(self, call: Call[Req, Resp], request: Req, *, timeout_s: float = TIMEOUT_S) -> Resp:
        return await self.caller.call(call, request, timeout_s=timeout_s)

    async def send(self, topic: str = "T", body: bytes = b"hello", properties: bytes = b"") -> pb.SendMessageReply:
        return await self.ask(methods.SEND_MESSAGE, send_request(topic, body, properties))

    async def pop(self, group: str = "G", topic: str = "T", **more: int) -> pb.PopMessageReply:
        request = pb.PopMessageRequest(
            consumer_group=group, topic=topic, queue_id=-1, max_msg_nums=32, invisible_time_ms=60_000
        )
        for name, value in more.items():
            setattr(request, name, value)
        return await self.ask(methods.POP_MESSAGE, request)

    async def heartbeat(self, client_id: str = "c1", group: str = "G") -> None:
        consumer = pb.ClientHeartbeatRequest.ConsumerData(
            group=group, subscriptions=[pb.ClientHeartbeatRequest.SubscriptionData(topic="T", sub_string="*")]
        )
        request = pb.ClientHeartbeatRequest(client_id=client_id, language="PYTHON", version=479, consumers=[consumer])
        await self.ask(methods.CLIENT_HEARTBEAT, request)


def send_request(topic: str = "T", body: bytes = b"hello", properties: bytes = b"") -> pb.SendMessageRequest:
    return pb.SendMessageRequest(
        topic=topic,
        queue_id=0,
        producer_group="P",
        born_timestamp_ms=BORN_TIMESTAMP_MS,
        born_host=BORN_HOST,
        properties=properties,
        body=body,
        default_topic="TBW102",
        default_topic_queue_nums=4,
    )


def handles_of(reply: pb.PopMessageReply) -> list[pb.PopHandle]:
    """The handles of what was popped, one message after the other."""
    return [
        pb.PopHandle(
            retry_mark=run.retry_mark,
            queue_id=run.queue_id,
            queue_offset=run.start_offset + number,
            start_offset=run.start_offset,
            pop_time_ms=reply.pop_time_ms,
            invisible_time_ms=reply.invisible_time_ms,
            revive_queue_id=reply.revive_queue_id,
        )
        for run in reply.runs
        for number in range(run.count)
    ]


RECALL_HANDLE = encode_recall_handle(RecallHandle("T", "broker-a", 1_700_000_009_000, "U1"))
_HANDLE = pb.PopHandle(queue_offset=0, start_offset=0, pop_time_ms=1_700_000_000_000, invisible_time_ms=60_000)
_CONSUMER = pb.ClientHeartbeatRequest.ConsumerData(
    group="G",
    consume_type="CONSUME_PASSIVELY",
    message_model="CLUSTERING",
    consume_from_where="CONSUME_FROM_LAST_OFFSET",
    subscriptions=[
        pb.ClientHeartbeatRequest.SubscriptionData(topic="T", expression_type="TAG", sub_string="*", sub_version=1)
    ],
)

GOOD: dict[str, tuple[Call[Any, Any], Message]] = {
    call.name: (call, request)
    for call, request in (
        (methods.SEND_MESSAGE, send_request()),
        (
            methods.POP_MESSAGE,
            pb.PopMessageRequest(
                consumer_group="G",
                topic="T",
                max_msg_nums=1,
                invisible_time_ms=60_000,
                expression_type="TAG",
                expression="*",
                attempt_id="a",
                client_id="c1",
            ),
        ),
        (methods.ACK_MESSAGE, pb.AckMessageRequest(consumer_group="G", topic="T", handles=[_HANDLE])),
        (
            methods.CHANGE_INVISIBLE_TIME,
            pb.ChangeInvisibleTimeRequest(consumer_group="G", topic="T", handle=_HANDLE, invisible_time_ms=1_000),
        ),
        (
            methods.EXTEND_INVISIBLE,
            pb.ExtendInvisibleRequest(consumer_group="G", topic="T", handles=[_HANDLE], invisible_time_ms=1_000),
        ),
        (methods.QUERY_TOPIC, pb.QueryTopicRequest(topic="T")),
        (methods.ENSURE_TOPIC, pb.EnsureTopicRequest(topic="T", queue_nums=4)),
        (methods.QUERY_GROUP, pb.QueryGroupRequest(consumer_group="G", create=True)),
        (
            methods.CLIENT_HEARTBEAT,
            pb.ClientHeartbeatRequest(
                client_id="c1", language="PYTHON", version=479, producer_groups=["P"], consumers=[_CONSUMER]
            ),
        ),
        (
            methods.UNREGISTER_CLIENT,
            pb.UnregisterClientRequest(client_id="c1", producer_groups=["P"], consumer_groups=["G"]),
        ),
        (
            methods.QUERY_OFFSET,
            pb.QueryOffsetRequest(topic="T", kind=pb.OFFSET_COMMITTED, consumer_group="G", timestamp_ms=1),
        ),
        (methods.UPDATE_OFFSET, pb.UpdateOffsetRequest(topic="T", consumer_group="G", queue_offset=0)),
        (methods.RECALL_MESSAGE, pb.RecallMessageRequest(topic="T", recall_handle=RECALL_HANDLE)),
        (
            methods.FORWARD_TO_DEAD_LETTER_QUEUE,
            pb.ForwardToDeadLetterQueueRequest(consumer_group="G", topic="T", handle=_HANDLE, reason="spoilt"),
        ),
        (methods.TAKE_TRANSACTION_CHECKS, pb.TakeTransactionChecksRequest(max_nums=1, poll_time_ms=0)),
        (
            methods.END_TRANSACTION,
            pb.EndTransactionRequest(
                producer_group="P",
                queue_offset=0,
                physical_offset=0,
                resolution=pb.TRANSACTION_COMMIT,
                message_id="U1",
            ),
        ),
    )
}
"""A request of each kind that a broker with topic T and group G serves, with every field set that has a bound."""
