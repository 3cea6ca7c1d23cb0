"""Delayed messages that come due before others which stand in front of them in their level's queue.

A level's queue is in the order of due times, so its head says when to look again. A message that was stored anew at the
queue's end, because its file of the log had to go, keeps its due time and breaks that order: it is delivered out of its
turn, and passed over when the head arrives there. Not durable: after a restart such a message waits until the head
arrives, at most as long again as its level waits, or comes once more if it was delivered already.
"""

import heapq


class OutOfTurn:
    """Messages to deliver out of turn, and those that were, by level and queue offset."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[tuple[int, int]]] = {}
        self._delivered: dict[int, set[int]] = {}

    def add(self, level: int, queue_offset: int, due_ms: int) -> None:
        """A message that was stored anew."""
        heapq.heappush(self._waiting.setdefault(level, []), (due_ms, queue_offset))

    def first(self, level: int, head: int) -> tuple[int, int] | None:
        """(due time, queue offset) of the one due first; None if none waits. `head` is the level's head."""
        waiting = self._waiting.get(level, [])
        while waiting and waiting[0][1] < head:
            heapq.heappop(waiting)  # the head passed it: it was stored anew once more
        return waiting[0] if waiting else None

    def delivered(self, level: int) -> None:
        """The first one was delivered."""
        _, queue_offset = heapq.heappop(self._waiting[level])
        self._delivered.setdefault(level, set()).add(queue_offset)

    def pass_over(self, level: int, queue_offset: int) -> bool:
        """Whether the message at the head was delivered before, out of its turn; it is forgotten then."""
        delivered = self._delivered.get(level)
        if delivered is None or queue_offset not in delivered:
            return False
        delivered.remove(queue_offset)
        return True
