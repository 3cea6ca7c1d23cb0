"""Whom new messages wake, a few at a time: thousands may wait for one queue, and others must be served meanwhile.

Queues take turns: one with a single waiter is not behind another's ten thousand.

    messages ──▶ one walk a queue ──next()──▶ a few of those who wait in it ──▶ the walk goes to the end of the line
                       ▲                                                            │ at its end
                       └────────── begun anew, when messages came meanwhile ◀───────┘

A walk goes over those who waited when it began. Who comes later has seen its messages already; and of messages that
come later the walk knows nothing, so that there is another after it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from apogeemq.broker.core.long_polling import LongPollingTable, Waiting

W = TypeVar("W")


@dataclass(slots=True)
class _Walk(Generic[W]):
    """Over one queue: for messages with these tag codes. `waitings` is None until it began."""

    tag_codes: set[int]
    waitings: Iterator[Waiting[W]] | None = None
    later_tag_codes: set[int] = field(default_factory=set)


class WakeRounds(Generic[W]):
    """The walks that are under way. At most one a queue, however many messages come.

    Args:
        table: who waits.
        at_a_time: how many of them `next` looks at.
    """

    def __init__(self, table: LongPollingTable[W], *, at_a_time: int) -> None:
        self._table = table
        self._at_a_time = at_a_time
        self._walks: dict[tuple[str, int], _Walk[W]] = {}

    def __bool__(self) -> bool:
        """Whether anybody is left to be looked at."""
        return bool(self._walks)

    def arrived(self, topic: str, queue_id: int, tags_code: int) -> None:
        """A message came into a queue."""
        walk = self._walks.get((topic, queue_id))
        if walk is None:
            self._walks[topic, queue_id] = _Walk({tags_code})
        elif walk.waitings is None:
            walk.tag_codes.add(tags_code)
        else:
            walk.later_tag_codes.add(tags_code)

    def next(self) -> list[Waiting[W]]:
        """Take out of the table those of the next few who may want a message; none when nothing is under way."""
        if not self._walks:
            return []
        key = next(iter(self._walks))
        walk = self._walks.pop(key)
        if walk.waitings is None:
            walk.waitings = iter(self._table.waiting_on(*key))
        looked_at = list(islice(walk.waitings, self._at_a_time))
        if len(looked_at) == self._at_a_time:
            self._walks[key] = walk
        elif walk.later_tag_codes:
            self._walks[key] = _Walk(walk.later_tag_codes)
        return [waiting for waiting in looked_at if waiting.wants(walk.tag_codes) and self._table.take_out(waiting)]
