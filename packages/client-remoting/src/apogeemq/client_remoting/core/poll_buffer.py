"""Messages that were fetched and wait for the application to ask for them.

    readers ─put─▶ queue a: 4 5 6      ─take(max)─▶ the application ─▶ polled: 4 7 ─settle_polled─▶ done with
                   queue b: 7 8 (paused)

A table. Queues are asked in turn, so that one with many messages does not hold up the others; a queue's messages come
in the order of their offsets. Bounded by who reads (pull_schedule.py): messages that are not this consumer's any more,
which are always all of a queue that were put before some moment, are dropped when others come in their place.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from apogeemq.remoting_codec.bodies import MessageQueue

T = TypeVar("T")


class PollBuffer(Generic[T]):
    """Queue → messages. `is_current` says whether a message is still this consumer's."""

    def __init__(self, is_current: Callable[[T], bool]) -> None:
        self._is_current = is_current
        self._waiting: dict[MessageQueue, deque[T]] = {}
        self._paused: set[MessageQueue] = set()
        self._polled: dict[MessageQueue, list[T]] = {}

    @property
    def paused(self) -> frozenset[MessageQueue]:
        """The queues from which nothing is taken."""
        return frozenset(self._paused)

    def put(self, queue: MessageQueue, messages: Iterable[T]) -> None:
        """Add messages of a queue, in order of offsets."""
        waiting = self._waiting.setdefault(queue, deque())
        if waiting and not self._is_current(waiting[0]):
            waiting.clear()
        waiting.extend(messages)

    def pause(self, queues: Iterable[MessageQueue]) -> None:
        """Take nothing from these any more."""
        self._paused.update(queues)

    def resume(self, queues: Iterable[MessageQueue]) -> None:
        """Take from these again."""
        self._paused.difference_update(queues)

    def take(self, count_max: int) -> list[T]:
        """Up to so many messages, which count as polled; a queue that gave some is asked last the next time."""
        taken: list[T] = []
        for queue in [queue for queue in self._waiting if queue not in self._paused]:
            waiting = self._waiting.pop(queue)
            begun = len(taken)
            while waiting and len(taken) < count_max:
                message = waiting.popleft()
                if self._is_current(message):
                    taken.append(message)
            self._note(queue, taken[begun:])
            if waiting:
                self._waiting[queue] = waiting
            if len(taken) >= count_max:
                break
        return taken

    def settle_polled(self) -> list[T]:
        """The messages that were taken since the last call: the application is done with them."""
        polled, self._polled = self._polled, {}
        return [message for messages in polled.values() for message in messages]

    def _note(self, queue: MessageQueue, taken: list[T]) -> None:
        """Keep what was taken until it is done with."""
        polled = self._polled.setdefault(queue, [])
        if polled and not self._is_current(polled[0]):
            polled.clear()
        polled += taken
