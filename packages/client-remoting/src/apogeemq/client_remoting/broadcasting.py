"""Broadcasting: every member gets every message of the topics, and keeps to itself how far it is.

No broker is told that a message failed: it could only be delivered to every member again. So a message whose handler
raised is logged and dropped. Source: Apache RebalanceImpl and ConsumeMessageConcurrentlyService (BROADCASTING).
"""

import logging

from apogeemq.client_api.errors import NotSupported
from apogeemq.client_api.handling import Done, Settlement
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_remoting.core.route_cache import TopicRoute
from apogeemq.client_remoting.messages import receipt_of
from apogeemq.client_remoting.rebalance import Rebalance, Share

logger = logging.getLogger(__name__)


class EveryQueue(Rebalance):
    """Reads all queues of the topics, whoever else is in the group."""

    async def _share(self, route: TopicRoute) -> Share:
        return Share(frozenset(route.read_queues), is_final=True)


class DroppingSettler:
    """Messages are done with, one way or the other."""

    def done(self, message: ReceivedMessage) -> None:
        """The next commit may tell."""
        receipt_of(message).in_hand.settle(message.queue_offset)

    async def settle(self, message: ReceivedMessage, settlement: Settlement) -> None:
        """Drop what failed."""
        if not isinstance(settlement, Done):
            logger.warning("message %s from %s is dropped: %s", message.message_id, message.topic, settlement)
        self.done(message)

    async def send_back(self, message: ReceivedMessage, _delay_level: int, _reason: str = "") -> None:
        """Raises NotSupported."""
        raise NotSupported(
            f"message {message.message_id} was broadcast and is not delivered again",
            hint="Handle it now, or keep it yourself.",
        )
