"""What a master of a broker set waits for: that the set holds what was written (architecture §6.3, §6.4).

```
 append ─▶ held back: who waits for the queue ──┐
        └▶ line: who waits for the answer ──────┴── confirmed(offset) ─▶ let go what lies below it
```
Readers stop at the confirm offset, so that telling them of a message before would wake them for nothing.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from apogeemq.broker.errors import InSyncReplicasNotEnough, ServiceNotAvailable
from apogeemq.broker.service.durability import AcknowledgementLine, Outcome
from apogeemq.broker.service.writer import Arrivals
from apogeemq.remoting_codec.roles import NOT_MASTER


class SetProgress(Protocol):
    """The epoch that is led, as far as sends are concerned."""

    @property
    def takes_writes(self) -> bool:
        """Whether the SyncStateSet is large enough."""


class Confirmation:
    """One epoch of a master.

    Args:
        end_offset: gives where the log ends.
        progress: of the epoch.
        written: told after each append; cheap.
        waits: whether sends wait for the set (class replicas); else they are acknowledged once stored here, and may be
            lost on failover.
        is_lease_good: asked before each send where they do not wait: who cannot know that it is still master stops.
        waiting_max: sends that may wait.
    """

    def __init__(
        self,
        *,
        end_offset: Callable[[], int],
        progress: SetProgress,
        written: Callable[[], None],
        waits: bool,
        is_lease_good: Callable[[], bool],
        waiting_max: int,
        timeout_s: float,
    ) -> None:
        self.waits = waits
        self.line = AcknowledgementLine(waiting_max=waiting_max, what="the set's replicas")
        self.timeout_s = timeout_s
        self._confirmed_offset = 0
        self._end_offset = end_offset
        self._progress = progress
        self._written = written
        self._is_lease_good = is_lease_good
        self._is_fenced = False
        self._held_back: deque[tuple[int, str | None, int, int]] = deque()
        self._arrivals: Arrivals | None = None

    def check(self) -> None:
        """Before anything is stored. Raises ServiceNotAvailable, InSyncReplicasNotEnough."""
        if self._is_fenced:
            raise ServiceNotAvailable(
                f"{NOT_MASTER}this broker leads no longer, ask the name server for the one that does"
            )
        if not self._progress.takes_writes:
            raise InSyncReplicasNotEnough(
                "in-sync replicas not enough: the SyncStateSet is smaller than replication.min_in_sync_replicas",
                limit="replication.min_in_sync_replicas",
            )
        if not self.waits and not self._is_lease_good():
            raise ServiceNotAvailable(
                f"{NOT_MASTER}no controller has answered for a lease's time, another broker may be master"
            )

    def fence(self) -> None:
        """Acknowledge nothing more; who waits is told that the message may be lost."""
        self._is_fenced = True
        self._held_back.clear()
        self.line.fail()

    def confirmed(self, offset: int) -> None:
        """The set holds the log up to here."""
        if self._is_fenced:
            return
        self._confirmed_offset = offset
        self._tell_arrivals(offset)
        self.line.reached(offset)

    def _tell_arrivals(self, offset: int) -> None:
        held_back, arrivals = self._held_back, self._arrivals
        while arrivals is not None and held_back and held_back[0][0] <= offset:
            _, topic, queue_id, tags_code = held_back.popleft()
            if topic is None:
                arrivals.message_delayed(queue_id)
            else:
                arrivals.message_arrived(topic, queue_id, tags_code)

    def when_confirmed(self, offset: int, deadline: float, done: Callable[[Outcome], None]) -> None:
        """Call `done` exactly once: when the set holds the log up to here, when it can't, or at the deadline."""
        if self._is_fenced:
            done(Outcome.FAILED)
        elif offset <= self._confirmed_offset:
            done(Outcome.DONE)
        else:
            self.line.add(offset, deadline, done)

    def holding_back(self, arrivals: Arrivals) -> Arrivals:
        """The same, told of a message once it is confirmed."""
        self._arrivals = arrivals
        return self

    # Arrivals

    def message_arrived(self, topic: str, queue_id: int, tags_code: int) -> None:
        """A message was stored."""
        self._held_back.append((self._end_offset(), topic, queue_id, tags_code))
        self._written()

    def message_delayed(self, queue_id: int) -> None:
        """A message was stored that is due later."""
        self._held_back.append((self._end_offset(), None, queue_id, 0))
        self._written()
