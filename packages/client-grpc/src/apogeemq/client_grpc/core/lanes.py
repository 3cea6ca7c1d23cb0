"""Lanes: what waits behind a message that is in hand, where the order matters.

```
 lane (topic, message group)      in hand    waits
   T, order-7                     m4         m6  m9
   T, order-8                     m5
 lane (topic, broker, queue)
   T, broker-a, 0                 m7         m8           messages without a message group
```
A lane exists while it has a message. Its first one is in hand; the next one's turn comes when that one leaves.
"""

import collections
from typing import TypeAlias

from apogeemq.client_api.message import ReceivedMessage

Lane: TypeAlias = tuple[str, str] | tuple[str, str, int]


def lane_of(message: ReceivedMessage) -> Lane:
    """What a message must keep its place in: its message group, else its queue."""
    if message.message_group is not None:
        return message.topic, message.message_group
    return message.topic, message.broker_name, message.queue_id


class Lanes:
    """The lanes of one consumer. As large as what the consumer holds, and that has a bound (flow.py)."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, collections.deque[ReceivedMessage]] = {}

    def __len__(self) -> int:
        """Lanes that have a message."""
        return len(self._lanes)

    def enter(self, message: ReceivedMessage) -> bool:
        """Take a message's place; True when its turn is now."""
        lane = self._lanes.setdefault(lane_of(message), collections.deque())
        lane.append(message)
        return len(lane) == 1

    def leave(self, message: ReceivedMessage) -> ReceivedMessage | None:
        """The message in hand is done with; gives the one whose turn is now. Nothing happens for any other message."""
        lane = self._led_by(message)
        if lane is None:
            return None
        lane.popleft()
        if lane:
            return lane[0]
        del self._lanes[lane_of(message)]
        return None

    def clear(self, message: ReceivedMessage) -> list[ReceivedMessage]:
        """The message in hand comes again, and so must what waits behind it; gives that, and forgets the lane.

        Nothing happens for any other message.
        """
        lane = self._led_by(message)
        if lane is None:
            return []
        del self._lanes[lane_of(message)]
        return list(lane)[1:]

    def _led_by(self, message: ReceivedMessage) -> collections.deque[ReceivedMessage] | None:
        """The message's lane, if it is the one in hand there; by its receipt, for a later attempt is another object."""
        lane = self._lanes.get(lane_of(message))
        return lane if lane and lane[0].receipt == message.receipt else None
