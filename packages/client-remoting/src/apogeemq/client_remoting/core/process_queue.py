"""The messages of one queue that are in hand, and up to where the group is done with the queue.

A table for one queue: `put` what was pulled, `settle` what is done with, `commit_offset` for the broker. Messages may
be settled in any order; the commit offset is the lowest queue offset not settled yet, so a crash repeats messages and
never skips one. Bounded by who pulls (pull_schedule.py).
"""

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class ProcessQueue(Generic[T]):
    """What is in hand of one queue. T is what the consumer keeps per message.

    `next_offset` is where the next pull begins. `is_dropped`: the queue went to another member; what is still in hand
    is that member's business.
    """

    __slots__ = ("_committed", "_in_hand", "is_dropped", "next_offset", "size_bytes")

    def __init__(self, start_offset: int, *, is_committed: bool) -> None:
        self._in_hand: dict[int, tuple[int, T]] = {}
        self._committed = start_offset if is_committed else None
        self.next_offset = start_offset
        self.size_bytes = 0
        self.is_dropped = False

    def __len__(self) -> int:
        return len(self._in_hand)

    @property
    def span(self) -> int:
        """From the lowest offset in hand to the next one to be pulled."""
        return self.next_offset - self.commit_offset

    def put(self, messages: Iterable[tuple[int, int, T]], next_offset: int) -> None:
        """Take in (queue offset, size in bytes, message) in order of offsets, and where to go on."""
        for queue_offset, size_bytes, message in messages:
            self._in_hand[queue_offset] = (size_bytes, message)
            self.size_bytes += size_bytes
        self.next_offset = next_offset

    def settle(self, queue_offset: int) -> None:
        """A message is done with. Unknown offsets are ignored: the queue may have been reset meanwhile."""
        entry = self._in_hand.pop(queue_offset, None)
        if entry is not None:
            self.size_bytes -= entry[0]

    def reset(self, next_offset: int) -> None:
        """The broker says to go on elsewhere: what is in hand does not hold the commit offset back any more."""
        self._in_hand.clear()
        self.size_bytes = 0
        self.next_offset = next_offset

    @property
    def commit_offset(self) -> int:
        """Up to where (exclusive) everything is done."""
        return next(iter(self._in_hand), self.next_offset)

    @property
    def uncommitted(self) -> int | None:
        """The commit offset when the broker does not have it yet, else None."""
        offset = self.commit_offset
        return None if offset == self._committed else offset

    def committed(self, queue_offset: int) -> None:
        """The broker has this offset now."""
        self._committed = queue_offset

    @property
    def in_hand(self) -> Mapping[int, tuple[int, T]]:
        """Queue offset → size and message, in order."""
        return self._in_hand
