"""What changed in the routes, and when: enough to tell a watcher what it missed.

Every change of the route table raises `revision` by one. Of each topic only its latest change is kept, in the order of
revisions, so whoever saw revision r missed exactly the topics behind it. The history is bounded: what falls out of it
raises `_forgotten`, and a watcher that had not seen that far has to begin anew.

A watcher is no more than a revision: slow ones hold nothing here, and get everything since then in one go.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from apogeemq.namesrv.core.route_table import RouteChange

HISTORY_TOPICS_MAX = 10_000
"""Topics whose latest change is remembered: some 2 MiB."""

CHUNK_TOPICS_MAX = 500
"""Topics in one message to a watcher."""


class Tidings(NamedTuple):
    """One message to a watcher: it stands at `revision` once it knows it. `is_reset`: whatever it keeps may be old."""

    revision: int
    is_reset: bool
    topics: list[str]


class RouteChanges:
    """The changes of one name server process, whose number is `instance` (never 0)."""

    def __init__(self, instance: int, *, history_topics_max: int = HISTORY_TOPICS_MAX) -> None:
        self.instance = instance
        self.revision = 0
        self._history_topics_max = history_topics_max
        self._latest: OrderedDict[str, int] = OrderedDict()
        self._forgotten = 0

    def record(self, change: RouteChange) -> None:
        """Take a change in. Made to be a RouteTable's listener."""
        self.revision += 1
        if len(change.topics) > self._history_topics_max:
            self._latest.clear()
            self._forgotten = self.revision
            return
        for topic in change.topics:
            self._latest.pop(topic, None)
            self._latest[topic] = self.revision
        while len(self._latest) > self._history_topics_max:
            _, self._forgotten = self._latest.popitem(last=False)

    def since(self, instance: int, revision: int) -> list[Tidings]:
        """What a watcher that saw `revision` of `instance` has to be told to be at today's revision: one or more.

        A stream may break between any two of them: each but the last stops short of the revision whose topics it does
        not tell in full.
        """
        now = self.revision
        if instance != self.instance or not self._forgotten <= revision <= now:
            return [Tidings(now, True, [])]
        missed = self._missed(revision)
        return [self._chunk(missed, start, now) for start in range(0, max(len(missed), 1), CHUNK_TOPICS_MAX)]

    def _missed(self, revision: int) -> list[tuple[str, int]]:
        """Topics that changed after `revision`, each with its latest revision, earliest first."""
        missed = []
        for topic in reversed(self._latest):
            changed_at = self._latest[topic]
            if changed_at <= revision:
                break
            missed.append((topic, changed_at))
        missed.reverse()
        return missed

    @staticmethod
    def _chunk(missed: list[tuple[str, int]], start: int, now: int) -> Tidings:
        end = start + CHUNK_TOPICS_MAX
        revision = missed[end][1] - 1 if end < len(missed) else now
        return Tidings(revision, False, [topic for topic, _ in missed[start:end]])
