"""Messages that came when nobody waited for them any more: kept for who asks next, as long as they are worth it."""

import collections
from collections.abc import Iterable

from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_grpc.core.messages import Receipt

SURPLUS_MAX = 1024


class Surplus:
    """A bounded row of received messages, oldest first.

    A message is handed out only while at least half of the invisible time that is asked for is left of its own; what is
    older, or more than SURPLUS_MAX, is let go: it was never settled and is delivered again by itself.
    """

    def __init__(self) -> None:
        self._messages: collections.deque[ReceivedMessage] = collections.deque(maxlen=SURPLUS_MAX)

    def add(self, messages: Iterable[ReceivedMessage]) -> None:
        """Keep messages."""
        self._messages.extend(messages)

    def take(self, count: int, *, now_s: float, invisible_s: float) -> list[ReceivedMessage]:
        """Up to `count` messages whose handles hold for a while after monotonic `now_s`."""
        taken: list[ReceivedMessage] = []
        while self._messages and len(taken) < count:
            message = self._messages.popleft()
            if isinstance(message.receipt, Receipt) and message.receipt.expires_s >= now_s + invisible_s / 2:
                taken.append(message)
        return taken
