"""A replica's way to its master's log: meet, walk back to what both have, cut, copy (architecture §6.7).

```
        Follow               Met               Compared(no): next point
 IDLE ─────────▶ CONNECTING ──────▶ COMPARING ─────────────┐
        Connect      ▲               │   ▲─────────────────┘
                     │ Broken        │ Compared(yes): Cut(point), Copy(point)
                     └───────────────┼────────────── COPYING ◀─┘   Chunk: SaveEpoch?, Append, Acknowledge
                                     └─ no point left: StartOver when nothing is confirmed here,
                        or all that is has expired at the master; else Halt
```

Points where the two may part are the ends of the epochs that both have; at each, CRCs of the last 64 KiB before it are
compared, for an epoch says who wrote, not what became of it. Where they differ the next point is tried, and at last the
replica's own confirm offset: a torn record inside a long epoch is no reason to give up the epoch. Nothing below the
confirm offset is ever cut: a master that lacks confirmed records is one that lost them, and only a person decides which
side goes (Halt). But where the master's log begins behind all that is confirmed here, that has expired there by now:
the replica drops its log, and begins where the master's begins.

The cut comes before the copy, and is the store's own, safe in a crash; the epochs above it go with it. An epoch's
entry is durable before its first byte. Chunks of a stream carry its epoch; an older one is refused (§6.3).
Times are milliseconds; effects are run in their order.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from apogeemq.store.epoch_file import EpochEntry, common_points

COMPARED_SIZE_BYTES = 64 << 10
ACKNOWLEDGE_INTERVAL_MS = 500
"""An acknowledgement goes out at least so often, for the master takes silence of 1.5 s for death."""
MASTER_SILENT_MS = 3_000
CONNECT_AGAIN_MS = 500


class Phase(enum.Enum):
    """How far the replica came with its master."""

    IDLE = "idle"
    CONNECTING = "connecting"
    COMPARING = "comparing"
    COPYING = "copying"
    HALTED = "halted"


@dataclass(frozen=True, slots=True)
class Log:
    """The replica's own log: all that the machine has to know of it, at one moment."""

    entries: tuple[EpochEntry, ...]
    min_offset: int
    end_offset: int
    confirm_offset: int


@dataclass(frozen=True, slots=True)
class Follow:
    """This broker is master from now on, in this epoch."""

    master_id: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Met:
    """The master answered: its epochs, and where its log begins and ends; `log` is our own."""

    epoch: int
    entries: tuple[EpochEntry, ...]
    min_offset: int
    end_offset: int
    log: Log


@dataclass(frozen=True, slots=True)
class Compared:
    """Whether the bytes before the point are the same on both sides."""

    epoch: int
    is_same: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of the master's log, all written in one epoch; none as a sign of life."""

    epoch: int
    offset: int
    data: bytes
    written_in: EpochEntry
    confirm_offset: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The stream to the master ended."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Follow nobody."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event: TypeAlias = Follow | Met | Compared | Chunk | Broken | Stop | Tick


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a stream to the master, in place of any other, and say hello."""

    master_id: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Compare:
    """Compare CRCs of [start, end) with the master."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut the log here, and forget epochs that begin here or later."""

    offset: int


@dataclass(frozen=True, slots=True)
class StartOver:
    """Drop the whole log and begin at this offset: nothing in it is confirmed, or all of it expired at the master."""

    offset: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Ask the master for its log from here on."""

    offset: int


@dataclass(frozen=True, slots=True)
class SaveEpoch:
    """Add an entry to the epoch file, durably."""

    entry: EpochEntry


@dataclass(frozen=True, slots=True)
class Append:
    """Continue the log."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SetConfirm:
    """The master confirmed up to here; of it, what this log holds may be read."""

    offset: int


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Tell the master that the log is held up to here."""

    epoch: int
    offset: int


@dataclass(frozen=True, slots=True)
class Halt:
    """Copy no more: this broker holds confirmed records that its master lacks. A person has to decide."""

    confirm_offset: int
    common_offset: int


Effect: TypeAlias = Connect | Compare | Cut | StartOver | Copy | SaveEpoch | Append | SetConfirm | Acknowledge | Halt


class Follower:
    """One start of one broker, as a replica."""

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self._master_id = 0
        self._epoch = 0
        self._points: Iterator[int] = iter(())
        self._point = 0
        self._log = Log((), 0, 0, 0)
        self._master_min_offset = 0
        self._end_offset = 0
        self._last_entry_epoch = 0
        self._heard_ms = 0
        self._acknowledge_due_ms = 0

    def step(self, event: Event, now_ms: int) -> tuple[Effect, ...]:
        """What to do now."""
        match event:
            case Follow():
                return self._follow(event, now_ms)
            case Stop():
                self.phase = Phase.IDLE
                return ()
            case Met():
                return self._met(event, now_ms)
            case Compared():
                return self._compared(event, now_ms)
            case Chunk():
                return self._copied(event, now_ms)
            case Broken():
                return self._broken(now_ms)
            case Tick():
                return self._tick(now_ms)

    def points(self, log: Log, met: Met) -> Iterator[int]:
        """Where the logs may part, the latest first; CRCs decide (§6.7)."""
        return common_points(log.entries, log.end_offset, met.entries, met.end_offset)

    def obeys(self, epoch: int) -> bool:
        """Whether a stream of this epoch is the master's; older ones are refused (§6.3)."""
        return epoch == self._epoch

    def _follow(self, event: Follow, now_ms: int) -> tuple[Effect, ...]:
        if event.epoch < self._epoch:
            return ()
        self._master_id, self._epoch = event.master_id, event.epoch
        return self._connect(now_ms)

    def _connect(self, now_ms: int) -> tuple[Effect, ...]:
        self.phase = Phase.CONNECTING
        self._heard_ms = now_ms
        return (Connect(self._master_id, self._epoch),)

    def _met(self, event: Met, now_ms: int) -> tuple[Effect, ...]:
        if self.phase is not Phase.CONNECTING or not self.obeys(event.epoch):
            return ()
        self._heard_ms = now_ms
        self._log = event.log
        self._master_min_offset = event.min_offset
        self._points, self._point = self.points(event.log, event), 0
        if event.log.end_offset == event.log.min_offset and not event.log.entries:
            return self._begin(event.min_offset, now_ms)
        self.phase = Phase.COMPARING
        return self._next_point(now_ms)

    def _begin(self, offset: int, now_ms: int) -> tuple[Effect, ...]:
        """An empty log takes the master's from its beginning."""
        self._log = Log((), offset, offset, offset)
        return (StartOver(offset), *self._copy(offset, (), now_ms))

    def _next_point(self, now_ms: int) -> tuple[Effect, ...]:
        lowest = max(self._log.min_offset, self._master_min_offset)
        confirm_offset, compared = self._log.confirm_offset, self._point
        self._point = next(self._points, -1)
        if self._point < confirm_offset and lowest < confirm_offset < compared:
            self._point = confirm_offset
        if self._point < max(lowest, confirm_offset):
            return self._nothing_in_common(now_ms)
        return (Compare(max(lowest, self._point - COMPARED_SIZE_BYTES), self._point),)

    def _nothing_in_common(self, now_ms: int) -> tuple[Effect, ...]:
        if self._log.confirm_offset <= max(self._log.min_offset, self._master_min_offset):
            return self._begin(self._master_min_offset, now_ms)
        self.phase = Phase.HALTED
        return (Halt(self._log.confirm_offset, self._point),)

    def _compared(self, event: Compared, now_ms: int) -> tuple[Effect, ...]:
        if self.phase is not Phase.COMPARING or not self.obeys(event.epoch):
            return ()
        self._heard_ms = now_ms
        if not event.is_same:
            return self._next_point(now_ms)
        kept = tuple(entry for entry in self._log.entries if entry.start_offset < self._point)
        cut: tuple[Effect, ...] = (Cut(self._point),) if self._needs_cut(kept) else ()
        return (*cut, *self._copy(self._point, kept, now_ms))

    def _needs_cut(self, kept: Sequence[EpochEntry]) -> bool:
        return self._point < self._log.end_offset or len(kept) < len(self._log.entries)

    def _copy(self, offset: int, entries: Sequence[EpochEntry], now_ms: int) -> tuple[Effect, ...]:
        self.phase = Phase.COPYING
        self._end_offset = offset
        self._last_entry_epoch = entries[-1].epoch if entries else 0
        return (Copy(offset), self._acknowledge(now_ms))

    def _acknowledge(self, now_ms: int) -> Acknowledge:
        self._acknowledge_due_ms = now_ms + ACKNOWLEDGE_INTERVAL_MS
        return Acknowledge(self._epoch, self._end_offset)

    def _copied(self, event: Chunk, now_ms: int) -> tuple[Effect, ...]:
        """Entry, bytes, acknowledgement: in this order (§6.7)."""
        if self.phase is not Phase.COPYING or not self.obeys(event.epoch):
            return ()
        self._heard_ms = now_ms
        effects: list[Effect] = []
        if event.data:
            if event.offset != self._end_offset:
                return self._connect(now_ms)
            if event.written_in.epoch > self._last_entry_epoch:
                effects.append(SaveEpoch(event.written_in))
                self._last_entry_epoch = event.written_in.epoch
            effects.append(Append(event.offset, event.data))
            self._end_offset += len(event.data)
            effects.append(self._acknowledge(now_ms))
        effects.append(SetConfirm(min(event.confirm_offset, self._end_offset)))
        return tuple(effects)

    def _broken(self, now_ms: int) -> tuple[Effect, ...]:
        if self.phase in {Phase.IDLE, Phase.HALTED}:
            return ()
        self.phase = Phase.CONNECTING
        self._heard_ms = now_ms - MASTER_SILENT_MS + CONNECT_AGAIN_MS
        return ()

    def _tick(self, now_ms: int) -> tuple[Effect, ...]:
        if self.phase in {Phase.IDLE, Phase.HALTED}:
            return ()
        if now_ms - self._heard_ms >= MASTER_SILENT_MS:
            return self._connect(now_ms)
        if self.phase is Phase.COPYING and now_ms >= self._acknowledge_due_ms:
            return (self._acknowledge(now_ms),)
        return ()
