"""RecallMessage: a producer takes back a message that waits for its time; acknowledged by the rules of sends."""

import asyncio

from apogeemq.broker.faces import fields
from apogeemq.broker.faces.mesh.safe_replies import reply_when_safe
from apogeemq.broker.service.acknowledge import Acknowledger
from apogeemq.broker.service.recall import RecallService
from apogeemq.mesh.calls import CallInfo
from apogeemq.mesh.v1.broker_pb2 import RecallMessageReply, RecallMessageRequest

HANDLE_LENGTH_MAX = 1_024
"""Topic, broker name, time and unique key in Base64 fit."""


class RecallAnswers:
    """Answers to recalls.

    Args:
        recalls: the service.
        acknowledger: decides when an answer may go out.
    """

    def __init__(self, recalls: RecallService, acknowledger: Acknowledger) -> None:
        self._recalls = recalls
        self._acknowledger = acknowledger

    def recall_message(
        self, request: RecallMessageRequest, info: CallInfo
    ) -> "RecallMessageReply | asyncio.Future[RecallMessageReply]":
        """Take a message back; the answer has its unique key."""
        fields.check_topic("topic", request.topic)
        fields.check_text("recall_handle", request.recall_handle, HANDLE_LENGTH_MAX)
        self._acknowledger.check_room()
        recalled = self._recalls.recall(request.topic, request.recall_handle)
        reply = RecallMessageReply(message_id=recalled.unique_key)
        return reply_when_safe(self._acknowledger, recalled.topic, recalled.end_offset, reply, wait=True)
