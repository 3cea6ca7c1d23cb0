"""What a master without controllers waits for: ASYNC_MASTER for nobody, SYNC_MASTER for slaves that are near enough.

Its readers see what it has stored, whatever slaves hold. Source: reference broker_behaviour.md §10.
"""

from collections.abc import Callable, Sequence

from apogeemq.broker.service.confirmation import Confirmation, SetProgress
from apogeemq.broker.service.durability import Outcome


class SlaveCopies(Confirmation):
    """One start of such a master.

    Args:
        waits: whether it is a SYNC_MASTER.
        slaves: gives how far each slave is that copies now, in bytes of the log.
        needed: so many slaves must hold a message, 1 and up.
        gap_bytes_max: a slave that lacks this much or more is not waited for (haMaxGapNotInSync).
    """

    def __init__(
        self,
        *,
        end_offset: Callable[[], int],
        progress: SetProgress,
        written: Callable[[], None],
        waits: bool,
        waiting_max: int,
        timeout_s: float,
        slaves: Callable[[], Sequence[int]],
        needed: int,
        gap_bytes_max: int,
    ) -> None:
        super().__init__(
            end_offset=end_offset,
            progress=progress,
            written=written,
            waits=waits,
            is_lease_good=lambda: True,
            waiting_max=waiting_max,
            timeout_s=timeout_s,
        )
        self._slaves = slaves
        self._needed = needed
        self._gap_bytes_max = gap_bytes_max

    def confirmed(self, offset: int) -> None:
        """This master has stored the log up to here: readers may see it, senders may wait for slaves still."""
        if not self._is_fenced:
            self._tell_arrivals(offset)

    def copied(self) -> None:
        """A slave holds more, or is gone."""
        if not self._is_fenced:
            self.line.reached(self._held_offset())

    def when_confirmed(self, offset: int, deadline: float, done: Callable[[Outcome], None]) -> None:
        """Call `done` exactly once: when enough slaves hold the log up to here, at once where they are not there."""
        if self._is_fenced:
            done(Outcome.FAILED)
        elif offset <= self._held_offset():
            done(Outcome.DONE)
        elif sum(offset - each < self._gap_bytes_max for each in self._slaves()) < self._needed:
            done(Outcome.NO_SLAVE)
        else:
            self.line.add(offset, deadline, done)

    def _held_offset(self) -> int:
        """So many slaves as are needed hold the log up to here."""
        offsets = sorted(self._slaves(), reverse=True)
        return offsets[self._needed - 1] if len(offsets) >= self._needed else 0
