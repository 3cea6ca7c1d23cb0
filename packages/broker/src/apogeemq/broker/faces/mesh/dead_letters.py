"""ForwardToDeadLetterQueue: a consumer gives a popped message up."""

from apogeemq.broker.faces import fields
from apogeemq.broker.faces.mesh.safe_replies import reply_when_safe
from apogeemq.broker.faces.mesh.settling import RESULTS, pop_handle
from apogeemq.broker.service.acknowledge import Acknowledger
from apogeemq.broker.service.dead_letters import REASON_LENGTH_MAX
from apogeemq.broker.service.forward_dead import ForwardDead
from apogeemq.mesh.calls import CallInfo
from apogeemq.mesh.v1 import broker_pb2 as pb


class DeadLetterAnswers:
    """Answers to who gives messages up.

    Args:
        forwards: the service.
        acknowledger: decides when an answer may go out.
    """

    def __init__(self, forwards: ForwardDead, acknowledger: Acknowledger) -> None:
        self._forwards = forwards
        self._acknowledger = acknowledger

    async def forward_to_dead_letter_queue(
        self, request: pb.ForwardToDeadLetterQueueRequest, info: CallInfo
    ) -> pb.ForwardToDeadLetterQueueReply:
        """Store the dead letter and acknowledge the message."""
        fields.check_group("consumer_group", request.consumer_group)
        fields.check_topic("topic", request.topic)
        fields.check_optional_text("reason", request.reason, REASON_LENGTH_MAX)
        handle = pop_handle("handle", request.handle)
        self._acknowledger.check_room_for_topic()
        forwarded = await self._forwards.forward(request.consumer_group, request.topic, handle, request.reason)
        reply = pb.ForwardToDeadLetterQueueReply(result=RESULTS[forwarded.result])
        if forwarded.stored is None:
            return reply
        end_offset, topic = forwarded.stored
        safe = reply_when_safe(self._acknowledger, topic, end_offset, reply, wait=False)
        return safe if isinstance(safe, pb.ForwardToDeadLetterQueueReply) else await safe
