"""Which messages are popped and not acknowledged yet, and when each pop's time is over.

A checkpoint stands for messages of one queue that one pop took. A message belongs to at most one: a later checkpoint
takes it out of the earlier one (a changed or extended time, or a group whose position was set back). "Later" is the
order of their records in the commit log, so that a replay in any order of the revive queues ends in the same table.
A checkpoint without messages left is settled.

Times are wall-clock milliseconds, handed in. Nothing here is durable: the records in the revive log are.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

QueueKey = tuple[str, str, int]
"""Group, real topic (a retry topic for what was popped there), queue id."""

REMEMBERED_MAX = 10_000


@dataclass(slots=True, eq=False)
class Checkpoint:
    """One pop of one queue.

    `revive_queue_id` and `revive_offset` say where its record lies in the revive log, `physical_offset` where in the
    commit log. `is_prolonged`: its time is longer than the one in the clients' handles.
    """

    key: QueueKey
    start_offset: int
    pop_time_ms: int
    invisible_time_ms: int
    revive_queue_id: int
    revive_offset: int
    physical_offset: int
    offsets: Sequence[int]
    is_prolonged: bool = False
    left: int = 0
    """How many of `offsets` still belong to it."""
    attempt_ms: int = field(default=0)
    """When to revive it: when its time is over, or later after a failed attempt."""

    @property
    def due_ms(self) -> int:
        """When its time is over."""
        return self.pop_time_ms + self.invisible_time_ms


class PopTable:
    """Checkpoints with un-acknowledged messages."""

    def __init__(self) -> None:
        self._queues: dict[QueueKey, dict[int, Checkpoint]] = {}
        self._by_revive_queue: dict[int, dict[Checkpoint, None]] = {}
        self._heap: list[tuple[int, int, Checkpoint]] = []
        self._serial = 0
        self._count = 0
        self._checkpoints = 0
        self._acknowledged: dict[tuple[QueueKey, int, int], None] = {}
        self._replaced: dict[tuple[QueueKey, int, int], None] = {}

    def __len__(self) -> int:
        return self._count

    @property
    def checkpoints(self) -> int:
        """Checkpoints with messages left."""
        return self._checkpoints

    def add(self, checkpoint: Checkpoint) -> None:
        """Take a checkpoint in: its messages are invisible until its time is over."""
        held = self._queues.setdefault(checkpoint.key, {})
        left = 0
        for offset in checkpoint.offsets:
            before = held.get(offset)
            if before is not None:
                if before.physical_offset > checkpoint.physical_offset:
                    continue
                if before.pop_time_ms != checkpoint.pop_time_ms:
                    _remember(self._replaced, (checkpoint.key, offset, before.pop_time_ms))
                self._leave(before)
            held[offset] = checkpoint
            left += 1
        checkpoint.left = left
        self._count += left
        if left:
            self._checkpoints += 1
            self._by_revive_queue.setdefault(checkpoint.revive_queue_id, {})[checkpoint] = None
            self._plan(checkpoint, checkpoint.due_ms)
        elif not held:
            del self._queues[checkpoint.key]

    def holder(self, key: QueueKey, queue_offset: int) -> Checkpoint | None:
        """The checkpoint that a message belongs to now."""
        held = self._queues.get(key)
        return None if held is None else held.get(queue_offset)

    def settle(self, checkpoint: Checkpoint, queue_offset: int, *, acknowledged: bool) -> None:
        """A message is acknowledged, or lies somewhere else now. Does nothing when it left the checkpoint before."""
        held = self._queues.get(checkpoint.key)
        if held is None or held.get(queue_offset) is not checkpoint:
            return
        del held[queue_offset]
        if not held:
            del self._queues[checkpoint.key]
        self._leave(checkpoint)
        if acknowledged and checkpoint.is_prolonged:
            _remember(self._acknowledged, (checkpoint.key, queue_offset, checkpoint.pop_time_ms))

    def was_acknowledged(self, key: QueueKey, queue_offset: int, pop_time_ms: int) -> bool:
        """Whether a message with a prolonged time was acknowledged, as far as that is still known.

        An acknowledgement may be repeated after the time that its handle tells is over.
        """
        return (key, queue_offset, pop_time_ms) in self._acknowledged

    def was_replaced(self, key: QueueKey, queue_offset: int, pop_time_ms: int) -> bool:
        """Whether a later pop time took the place of this one, as far as that is still known."""
        return (key, queue_offset, pop_time_ms) in self._replaced

    def messages_of(self, checkpoint: Checkpoint) -> list[int]:
        """Queue offsets of the messages that still belong to a checkpoint."""
        held = self._queues.get(checkpoint.key, {})
        return [offset for offset in checkpoint.offsets if held.get(offset) is checkpoint]

    def next_attempt_ms(self) -> int | None:
        """When the next checkpoint is to be revived; None while none is there."""
        while self._heap and not self._is_planned(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now_ms: int) -> Checkpoint | None:
        """The checkpoint that is to be revived first, if its time has come."""
        attempt_ms = self.next_attempt_ms()
        return self._heap[0][2] if attempt_ms is not None and attempt_ms <= now_ms else None

    def postpone(self, checkpoint: Checkpoint, attempt_ms: int) -> None:
        """It could not be revived: try again then, the others first."""
        self._plan(checkpoint, attempt_ms)

    def first_needed(self, revive_queue_id: int) -> int | None:
        """Offset of the oldest record in a revive queue that a restart needs; None when it needs none."""
        live = self._by_revive_queue.get(revive_queue_id)
        # Records of one queue come in here in their order, so the oldest is the first.
        return next(iter(live)).revive_offset if live else None

    def in_flight(self) -> Iterator[tuple[QueueKey, int]]:
        """How many messages of each queue are popped and not acknowledged."""
        for key, held in list(self._queues.items()):
            yield key, len(held)

    def held(self) -> Iterator[tuple[QueueKey, list[int]]]:
        """Queue offsets of all messages that are popped and not acknowledged, ascending, queue by queue."""
        for key, held in list(self._queues.items()):
            yield key, sorted(held)

    def _leave(self, checkpoint: Checkpoint) -> None:
        self._count -= 1
        checkpoint.left -= 1
        if checkpoint.left:
            return
        self._checkpoints -= 1
        del self._by_revive_queue[checkpoint.revive_queue_id][checkpoint]
        # Entries of settled ones leave the heap at its top; a heap of mostly settled ones is made anew.
        if len(self._heap) > 64 and len(self._heap) > 4 * self._checkpoints:
            self._heap = [entry for entry in self._heap if self._is_planned(entry)]
            heapq.heapify(self._heap)

    def _plan(self, checkpoint: Checkpoint, attempt_ms: int) -> None:
        checkpoint.attempt_ms = attempt_ms
        self._serial += 1
        heapq.heappush(self._heap, (attempt_ms, self._serial, checkpoint))

    @staticmethod
    def _is_planned(entry: tuple[int, int, Checkpoint]) -> bool:
        attempt_ms, _, checkpoint = entry
        return checkpoint.left > 0 and checkpoint.attempt_ms == attempt_ms


def _remember(known: dict[tuple[QueueKey, int, int], None], what: tuple[QueueKey, int, int]) -> None:
    known[what] = None
    if len(known) > REMEMBERED_MAX:
        del known[next(iter(known))]
