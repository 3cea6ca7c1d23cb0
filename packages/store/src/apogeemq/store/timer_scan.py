"""Finding out, while a store opens, which timers are pending."""

import re
from itertools import chain

from apogeemq.store.errors import LayoutInvalid
from apogeemq.store.timer_checkpoint import TimerCheckpoint
from apogeemq.store.timer_index import TimerIndex
from apogeemq.store.timer_log import TimerLog
from apogeemq.store.timer_unit import (
    MAGIC_DELETE,
    MAGIC_POSITION,
    MAGIC_ROLL,
    MAGIC_SETTLED,
    UNIT_SIZE_BYTES,
    TimerEntry,
    TimerUnit,
    decode_unit,
    is_whole,
)
from apogeemq.store.timer_wheel import TimerWheel

_ANY = re.compile(rb".", re.DOTALL)
_NOT_SETTLED = re.compile(rb"[^\x0c]")
_SETTLED_BIT = MAGIC_SETTLED & ~4


class TimerScan:
    """One pass over the timer log.

    1. Below the flushed position of the checkpoint units are what was written. The settled ones, mostly the most, are
       passed over by looking at every 52nd byte only. A pending one that is damaged stops the opening.
    2. Above, a power loss may have left anything: every unit is looked at, and the log ends with the first that is not
       whole. Java's have no check; they only have to be plausible.
    3. Units whose records lie beyond the end of the commit log are cut off: the commit log lost them, and their places
       will be taken by others. Units come in the order of their records, so they are the last ones.
    4. A unit is pending unless it is settled; or unless it came over from Java in a slot that Java was done with; or
       unless its record was deleted with the beginning of the commit log.
    """

    def __init__(
        self,
        log: TimerLog,
        checkpoint: TimerCheckpoint,
        *,
        trusts_unchecked: bool,
        precision_ms: int,
        log_start: int,
    ) -> None:
        """`trusts_unchecked`: Java was the last to write, so above the flushed position its units are welcome too."""
        self.index = TimerIndex()
        self.wheel = TimerWheel(precision_ms)
        self.pending_by_file: dict[int, int] = {}
        self.deletions: list[TimerEntry] = []
        """Java's marks, pending: they recall other units and come to no delivery of their own."""
        self.end = log.start
        self._log = log
        self._checkpoint = checkpoint
        self._trusts_unchecked = trusts_unchecked
        self._precision_ms = precision_ms
        self._log_start = log_start

    def run(self, log_end: int, handed_out: frozenset[int]) -> None:
        """Do it; the timer log itself is left as it is, its new end is `end`.

        Args:
            log_end: where the commit log ends.
            handed_out: positions of pending timers that must not be found in the index.

        Errors: LayoutInvalid.
        """
        log = self._log
        self.end = log.start
        fault: str | None = None
        for position, data in log.pieces():
            fault = self._take_piece(position, data, handed_out)
            if fault:
                break
        self._refuse_below_flushed(fault or "a file is missing")
        log.end = self.end
        cut = log.find(log_end)
        if cut < self.end:
            self._forget_from(cut, handed_out)

    def is_pending(self, unit: TimerUnit, position: int) -> bool:
        """See point 4."""
        return not (
            unit.magic & _SETTLED_BIT
            or unit.physical_offset < self._log_start
            or (
                position < self._checkpoint.imported_end
                and unit.deliver_ms(self._precision_ms) <= self._checkpoint.imported_read_time_ms
            )
        )

    def _take_piece(self, position: int, data: bytes, handed_out: frozenset[int]) -> str | None:
        """Index the pending units; gives what is wrong with the first one that is none."""
        is_sure = position + len(data) <= self._checkpoint.flushed_position and not self._trusts_unchecked
        magics = data[MAGIC_POSITION + 3 :: UNIT_SIZE_BYTES]
        pending = 0
        fault: str | None = None
        self.end = position + len(data)
        for match in (_NOT_SETTLED if is_sure else _ANY).finditer(magics):
            at = match.start() * UNIT_SIZE_BYTES
            unit = decode_unit(data, at)
            fault = self._fault_of(unit, data, at, position + at)
            if fault:
                self.end = position + at
                break
            if self.is_pending(unit, position + at):
                pending += 1
                self._take(unit, position + at, handed_out)
        if pending:
            file_start = self._log.start_of(position)
            self.pending_by_file[file_start] = self.pending_by_file.get(file_start, 0) + pending
        return fault

    def _fault_of(self, unit: TimerUnit, data: bytes, at: int, position: int) -> str | None:
        """Why the log must have ended before; None for a good unit."""
        if not unit.is_plausible():
            return "it is no unit"
        if unit.check:
            return None if is_whole(data, at, unit) else "its check is wrong"
        if self._trusts_unchecked or position < self._checkpoint.imported_end:
            return None
        return "it has no check"

    def _take(self, unit: TimerUnit, position: int, handed_out: frozenset[int]) -> None:
        deliver_ms = unit.deliver_ms(self._precision_ms)
        if unit.magic & MAGIC_DELETE and not unit.magic & MAGIC_ROLL:
            self.deletions.append(unit.entry(position, self._precision_ms))
        elif position not in handed_out:
            self.index.put(deliver_ms, position)
        self.wheel.link(deliver_ms, position)

    def _refuse_below_flushed(self, fault: str) -> None:
        flushed = self._checkpoint.flushed_position
        if self.end < flushed and self._log.number_of(self.end) < self._log.number_of(flushed):
            raise LayoutInvalid(
                self._log.path_of(self.end),
                f"at byte {self.end % self._log.file_size_bytes} of it: {fault}, though the timer log is synced up to "
                f"position {flushed}. Without timerlog/ and config/timercheck all timers that the commit log still "
                f"holds are read anew, and those of the past are delivered again.",
            )

    def _forget_from(self, position: int, handed_out: frozenset[int]) -> None:
        """The log ends earlier after all."""
        log, stop = self._log, self._log.number_of(self.end)
        for number in range(log.number_of(position), stop):
            at = log.position_of(number)
            if self.is_pending(log.unit_at(at), at):
                self.pending_by_file[log.start_of(at)] -= 1
        self.index.drop_from(position)
        self.deletions = [entry for entry in self.deletions if entry.position < position]
        self.end = log.end = position
        # Places of the wheel that lead beyond the cut would make chains of units to come lead there.
        self.wheel = TimerWheel(self._precision_ms)
        handed_out_units = ((log.unit_at(at).deliver_ms(self._precision_ms), at) for at in handed_out if at < position)
        for deliver_ms, at in chain(self.index, handed_out_units):
            if at > self.wheel.last_position(deliver_ms):
                self.wheel.link(deliver_ms, at)
