"""How far each group has consumed each queue, by its own word.

A commit lower than before is accepted (a reset looks like that). Offsets are pointers into queues: ahead of what the
store kept would be loss, behind it is only repetition, so `clamp` cuts them after an unclean stop (architecture §5).
Source: reference broker_behaviour.md §6; file config/consumerOffset.json.
"""

from collections.abc import Callable, Iterator

TOPIC_GROUP_SEPARATOR = "@"


class ConsumerOffsetTable:
    """Committed offsets by (topic, group) and queue id. `changes` counts commits, for whoever writes the file."""

    def __init__(self, offsets: dict[str, dict[int, int]] | None = None) -> None:
        self._table: dict[tuple[str, str], dict[int, int]] = {}
        self.changes = 0
        for key, queues in (offsets or {}).items():
            topic, separator, group = key.partition(TOPIC_GROUP_SEPARATOR)
            if separator and topic and group:
                self._table[topic, group] = dict(queues)

    def query(self, topic: str, group: str, queue_id: int) -> int | None:
        """The next offset that the group wants from this queue, or None when it never committed one."""
        queues = self._table.get((topic, group))
        return None if queues is None else queues.get(queue_id)

    def commit(self, topic: str, group: str, queue_id: int, queue_offset: int) -> None:
        """Keep an offset; the last word counts."""
        queues = self._table.get((topic, group))
        if queues is None:
            queues = self._table[topic, group] = {}
        queues[queue_id] = queue_offset
        self.changes += 1

    def clamp(self, max_offset: Callable[[str, int], int]) -> int:
        """Cut every offset to the end of its queue; gives how many were cut.

        After a crash the store may have lost unsynced messages whose numbers new messages will take: an offset that
        stayed ahead would skip those.
        """
        cut = 0
        for (topic, _), queues in self._table.items():
            for queue_id, queue_offset in queues.items():
                end = max_offset(topic, queue_id)
                if queue_offset > end:
                    queues[queue_id] = end
                    cut += 1
        if cut:
            self.changes += 1
        return cut

    def __iter__(self) -> Iterator[tuple[str, str, dict[int, int]]]:
        for (topic, group), queues in self._table.items():
            yield topic, group, queues

    def to_table(self) -> dict[str, dict[int, int]]:
        """The form of the file: "topic@group" to queue id to offset."""
        return {f"{topic}{TOPIC_GROUP_SEPARATOR}{group}": dict(queues) for topic, group, queues in self}
