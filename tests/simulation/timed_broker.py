"""A broker whose log expires, and in which messages wait for their time: what must be stored anew before it goes.

```
 log   ──expired──┤ timer 5 … … … timer 10 … …  timer 5 again … copy of 5 … │ end
                  ↑ min offset: goes on once nothing before it is still waited for (architecture §5)
```
Each fifth message is a timer. The master stores a copy of it when its time has come; before that the log expires beyond
it, so it has to be stored anew first. Due times are the world's: a process's own clock may stand anywhere, and the
brokers' differ, while these are compared by whoever is master, and fit into the digits of an id. What is pending is
read from the log: a promoted replica knows it too.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.simulation.broker_node import BrokerNode
from tests.simulation.cluster import END_MS, Cluster, Settings
from tests.simulation.records import RECORD_SIZE_BYTES, decode_record

WORK_MS = 200
KEPT_RECORDS = 160
"""About 8 s of the log; older records expire."""
DELAY_MS = 11_000
TIMER_EACH = 5
DELIVERED_WITHIN_MS = 5_000

MESSAGE, TIMER, AGAIN, COPY = range(4)
_FIELD = 100_000


class Timed(NamedTuple):
    """What a message id says, in decimal digits: kind 1 │ due ms 5 │ number 5."""

    kind: int
    due_ms: int
    number: int


def timed_id(kind: int, due_ms: int, number: int) -> int:
    """The id of such a record."""
    return (kind * _FIELD + due_ms) * _FIELD + number


def timed_of(message_id: int) -> Timed:
    """What an id says."""
    rest, number = divmod(message_id, _FIELD)
    return Timed(*divmod(rest, _FIELD), number)


class TimedBrokerNode(BrokerNode):
    """See the module."""

    def start(self) -> None:
        """A new process."""
        super().start()
        self.every(WORK_MS, self._work)

    def send(self, message_id: int) -> bool:
        """Some of the messages wait for their time."""
        if message_id % TIMER_EACH == 0:
            message_id = timed_id(TIMER, self.world.now_ms + DELAY_MS, message_id)
        return super().send(message_id)

    def pending(self, end: int) -> dict[int, tuple[Timed, int]]:
        """Timers without a copy in the log up to `end`, by their numbers, each with where it was stored last."""
        found: dict[int, tuple[Timed, int]] = {}
        log = self.disk.log
        for at in range(self.disk.min_offset, end, RECORD_SIZE_BYTES):
            timed = timed_of(decode_record(bytes(log[at : at + RECORD_SIZE_BYTES])).message_id)
            if timed.kind in {TIMER, AGAIN}:
                found[timed.number] = timed, at
            elif timed.kind == COPY:
                found.pop(timed.number, None)
        return found

    def still_needed(self, end: int) -> dict[int, tuple[Timed, int]]:
        """What may not expire: by the rule, all that is pending."""
        return self.pending(end)

    def _work(self) -> None:
        if self._progress is not None and self._progress.takes_writes and not self._is_leaving:
            self._deliver_due()
        self._expire()

    def _deliver_due(self) -> None:
        for timed, _ in self.pending(len(self.disk.log)).values():
            if timed.due_ms <= self.world.now_ms and self._progress is not None:
                self.append(timed_id(COPY, timed.due_ms, timed.number), self._progress)

    def _expire(self) -> None:
        """Only what is confirmed and consumed goes, as if days had passed.

        What is needed is stored anew first, and its first place goes once that is confirmed.
        """
        confirmed = self.disk.confirm_offset
        wanted = min(confirmed - KEPT_RECORDS * RECORD_SIZE_BYTES, self._pointer_offset)
        if wanted <= self.disk.min_offset:
            return
        if self._progress is not None and self._progress.takes_writes:
            for timed, at in self.still_needed(len(self.disk.log)).values():
                if at < wanted:
                    self.append(timed_id(AGAIN, timed.due_ms, timed.number), self._progress)
        kept = [at for _, at in self.still_needed(confirmed).values()]
        self.disk.expire(max(self.disk.min_offset, min([wanted, *kept])))


class NeverRollsForward(TimedBrokerNode):
    """Files go when they are old, whatever is in them."""

    def still_needed(self, end: int) -> dict[int, tuple[Timed, int]]:
        """Nothing."""
        return {}


def no_timer_is_lost(cluster: Cluster) -> None:
    """Each that was due in time has a copy that was consumed. Errors: InvariantBrokenError."""
    checkers = cluster.checkers
    for record in checkers.confirmed_records():
        timed = timed_of(record.message_id)
        is_over = timed.due_ms < END_MS - DELIVERED_WITHIN_MS
        if timed.kind == TIMER and is_over and not checkers.has_consumed(timed_id(COPY, timed.due_ms, timed.number)):
            checkers.fail(f"timer {timed.number} was due at {timed.due_ms} ms, and no consumer ever got it")


TIMED = Settings(broker=TimedBrokerNode, check=no_timer_is_lost)
