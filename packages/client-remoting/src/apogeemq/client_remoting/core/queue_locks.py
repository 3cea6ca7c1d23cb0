"""Which queues this member holds the lock of, and until when it may count on that.

A broker keeps a lock for 60 s after it was last asked for. The member asks every 20 s and counts on a lock for 30 s
from when it asked: it stops before anybody else can begin, even where answers are slow. A table; `now` is of one
monotonic clock, in seconds.
Source: Apache RebalanceLockManager, ProcessQueue; reference broker_behaviour.md §7.
"""

from typing import Final

from apogeemq.remoting_codec.bodies import MessageQueue

RENEW_INTERVAL_S: Final = 20.0
HELD_S: Final = 30.0


class QueueLocks:
    """Queue → when the lock was last asked for and given. Bounded by the queues that are this member's."""

    def __init__(self) -> None:
        self._asked: dict[MessageQueue, float] = {}

    def __contains__(self, queue: MessageQueue) -> bool:
        """Whether the lock was given and not given back; it may have lapsed."""
        return queue in self._asked

    @property
    def queues(self) -> list[MessageQueue]:
        """All whose lock is to be renewed."""
        return list(self._asked)

    def given(self, queue: MessageQueue, asked: float) -> None:
        """The broker gave the lock; it was asked for at `asked`."""
        self._asked[queue] = asked

    def forget(self, queue: MessageQueue) -> None:
        """The lock was given back, or lost."""
        self._asked.pop(queue, None)

    def is_held(self, queue: MessageQueue, now: float) -> bool:
        """Whether nobody else can have the queue now."""
        asked = self._asked.get(queue)
        return asked is not None and now - asked < HELD_S
