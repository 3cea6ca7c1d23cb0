"""How far each group has consumed each queue, by its own word.

A commit lower than before is accepted. An operator's reset counts at once; consumers that run learn of it at their next
pull or pop, and until then their own word on that queue is not heard: they still speak of the old place.

Offsets are pointers into queues: ahead of what the store kept would be loss, behind it is only repetition, so `clamp`
cuts them after an unclean stop (architecture §5).
Source: reference broker_behaviour.md §6; file config/consumerOffset.json.
"""

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

from apogeemq.broker.errors import SystemBusy

TOPIC_GROUP_SEPARATOR = "@"

FILE_SIZE_BYTES_MAX = 60 * 1024 * 1024
"""Of the file. A broker reads no file under config/ that is larger than 64 MiB: it could not start any more."""

_GROUP_SIZE_BYTES = 16
_QUEUE_SIZE_BYTES = 32
"""What one group with one topic, and one queue, take in the file beside their names, at most."""


QueueKey: TypeAlias = tuple[str, str, int]
"""Topic, group, queue id."""


class ConsumerOffsetTable:
    """Committed offsets by (topic, group) and queue id.

    Nobody deletes offsets yet, so the table is bounded: by the size of its file, `file_size_bytes_max`.
    """

    def __init__(
        self, offsets: Mapping[str, Mapping[int, int]] | None = None, *, file_size_bytes_max: int = FILE_SIZE_BYTES_MAX
    ) -> None:
        self._table: dict[tuple[str, str], dict[int, int]] = {}
        self._file_size_bytes = 0
        self._file_size_bytes_max = file_size_bytes_max
        self.changed: set[QueueKey] = set()
        """Queues whose offset changed and was not written since: the file's writer takes them out."""
        self._resets: dict[QueueKey, int] = {}
        """Resets that no consumer knows yet. In memory only: the offsets themselves are in the table."""
        self.load(offsets or {})

    def load(self, offsets: Mapping[str, Mapping[int, int]]) -> None:
        """Take over what a file or a journal holds, in the form of the file, whatever the bound."""
        for key, loaded in offsets.items():
            topic, separator, group = key.partition(TOPIC_GROUP_SEPARATOR)
            if separator and topic and group:
                queues = self._table.get((topic, group))
                if queues is None:
                    queues = self._table[topic, group] = {}
                    self._file_size_bytes += _size_bytes(topic, group, 0)
                self._file_size_bytes -= len(queues) * _QUEUE_SIZE_BYTES
                queues.update(loaded)
                self._file_size_bytes += len(queues) * _QUEUE_SIZE_BYTES

    def query(self, topic: str, group: str, queue_id: int) -> int | None:
        """The next offset that the group wants from this queue, or None when it never committed one."""
        queues = self._table.get((topic, group))
        return None if queues is None else queues.get(queue_id)

    def commit(self, topic: str, group: str, queue_id: int, queue_offset: int) -> None:
        """Keep an offset; the last word counts. Raises SystemBusy where a first one would be beyond the bound."""
        queues = self._table.get((topic, group))
        if queues is None or queue_id not in queues:
            queues = self._add_queue(topic, group)
        elif queues[queue_id] == queue_offset:
            return  # idle consumers say the same every few seconds
        queues[queue_id] = queue_offset
        self.changed.add((topic, group, queue_id))

    def commit_told(self, topic: str, group: str, queue_id: int, queue_offset: int) -> None:
        """Keep an offset by a consumer's word, unless there is a reset that the consumer can't know of."""
        if (topic, group, queue_id) not in self._resets:
            self.commit(topic, group, queue_id, queue_offset)

    def reset(self, topic: str, group: str, queue_id: int, queue_offset: int) -> None:
        """Set a group's offset by an operator's word. Raises SystemBusy as `commit`."""
        self.commit(topic, group, queue_id, queue_offset)
        self._resets[topic, group, queue_id] = queue_offset

    def take_reset(self, topic: str, group: str, queue_id: int) -> int | None:
        """The reset that the group's consumer is to be told now, once; None when there is none."""
        if not self._resets:  # the hot path
            return None
        return self._resets.pop((topic, group, queue_id), None)

    def _add_queue(self, topic: str, group: str) -> dict[int, int]:
        queues = self._table.get((topic, group))
        size_bytes = _QUEUE_SIZE_BYTES if queues is not None else _size_bytes(topic, group, 1)
        if self._file_size_bytes + size_bytes > self._file_size_bytes_max:
            raise SystemBusy(
                f"the table of consumer offsets holds {self._file_size_bytes} bytes, "
                f"the limit is {self._file_size_bytes_max}"
            )
        self._file_size_bytes += size_bytes
        return self._table.setdefault((topic, group), {})

    def clamp(self, max_offset: Callable[[str, int], int]) -> int:
        """Cut every offset to the end of its queue; gives how many were cut.

        After a crash the store may have lost unsynced messages whose numbers new messages will take: an offset that
        stayed ahead would skip those.
        """
        cut = 0
        for (topic, group), queues in self._table.items():
            for queue_id, queue_offset in queues.items():
                end = max_offset(topic, queue_id)
                if queue_offset > end:
                    queues[queue_id] = end
                    self.changed.add((topic, group, queue_id))
                    cut += 1
        return cut

    def keys(self) -> list[tuple[str, str]]:
        """(topic, group) of all that ever committed something, as of now."""
        return list(self._table)

    def to_table(self, keys: Collection[tuple[str, str]] | None = None) -> dict[str, dict[int, int]]:
        """The form of the file: "topic@group" to queue id to offset; of all, or of these (topic, group)."""
        table = self._table
        return {_file_key(*key): dict(table[key]) for key in (table if keys is None else keys)}

    def part(self, keys: Collection[QueueKey]) -> dict[str, dict[int, int]]:
        """The same with these queues alone."""
        part: dict[str, dict[int, int]] = {}
        for topic, group, queue_id in keys:
            part.setdefault(_file_key(topic, group), {})[queue_id] = self._table[topic, group][queue_id]
        return part


def _file_key(topic: str, group: str) -> str:
    return f"{topic}{TOPIC_GROUP_SEPARATOR}{group}"


def _size_bytes(topic: str, group: str, queues: int) -> int:
    return len(topic) + len(group) + _GROUP_SIZE_BYTES + queues * _QUEUE_SIZE_BYTES
