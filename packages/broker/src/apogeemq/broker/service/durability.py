"""Acknowledgements that wait: for the disk (SYNC_FLUSH), or for the file that names a new topic.

Waiting acknowledgements stand in a line, in the order of their offsets; one flush lets all go that it covers. The line
is bounded, and each has a deadline (syncFlushTimeout), after which it goes out as FLUSH_DISK_TIMEOUT: stored, but not
known to be on disk.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from apogeemq.broker.errors import SystemBusy
from apogeemq.store.errors import StoreError
from apogeemq.store.message_store import MessageStore

WAITING_LIMIT = "limits.waiting_acknowledgements_max"
"""The setting that bounds each line."""

log = logging.getLogger(__name__)


class Outcome(Enum):
    """How a wait ended."""

    DONE = auto()
    TIMEOUT = auto()
    FAILED = auto()
    NO_SLAVE = auto()
    """Nobody is there who could be waited for."""


class AcknowledgementLine:
    """Acknowledgements in the order of what they wait for: a number that grows (an offset, a version).

    They mostly come in that order. Those that waited in another line before come late, and are put where they belong.

    Args:
        waiting_max: how many may wait; one more is refused.
        what: names the line in that refusal.
    """

    def __init__(self, *, waiting_max: int, what: str) -> None:
        self.waiting_max = waiting_max
        self._what = what
        self._line: deque[tuple[int, float, Callable[[Outcome], None]]] = deque()

    def __len__(self) -> int:
        return len(self._line)

    @property
    def first_deadline(self) -> float | None:
        """Until when the first one in the line waits; None while nobody waits."""
        return self._line[0][1] if self._line else None

    @property
    def last_target(self) -> int | None:
        """What the last one in the line waits for; None while nobody waits."""
        return self._line[-1][0] if self._line else None

    def check_room(self) -> None:
        """Raise SystemBusy while the line is full. To be asked before the message is stored."""
        if len(self._line) >= self.waiting_max:
            raise SystemBusy(
                f"[OVERLOAD] {len(self._line)} acknowledgements wait for {self._what}, the limit "
                f"({WAITING_LIMIT}) is {self.waiting_max}",
                limit=WAITING_LIMIT,
            )

    def add(self, target: int, deadline: float, done: Callable[[Outcome], None]) -> None:
        """Wait until `reached` is at `target`; `done` is called exactly once."""
        place = len(self._line)
        while place and self._line[place - 1][0] > target:
            place -= 1
        self._line.insert(place, (target, deadline, done))

    def reached(self, value: int) -> None:
        """Everything up to `value` is safe: let go what waits for no more than that."""
        while self._line and self._line[0][0] <= value:
            self._line.popleft()[2](Outcome.DONE)

    def expire(self, now: float) -> None:
        """Let go, as timed out, what has waited too long."""
        expired = [entry for entry in self._line if entry[1] <= now]
        if not expired:
            return
        self._line = deque(entry for entry in self._line if entry[1] > now)
        for _, _, done in expired:
            done(Outcome.TIMEOUT)

    def fail(self) -> None:
        """What they wait for can't happen any more: let all go as failed."""
        line, self._line = self._line, deque()
        for _, _, done in line:
            done(Outcome.FAILED)


class FlushLine(AcknowledgementLine):
    """Acknowledgements that wait for the store's flush: group commit.

    One flush is asked for at a time; whatever arrives while it runs joins the next one.
    """

    def __init__(self, store: MessageStore, *, waiting_max: int) -> None:
        super().__init__(waiting_max=waiting_max, what="the flush to disk (SYNC_FLUSH)")
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._asked = False

    def add(self, target: int, deadline: float, done: Callable[[Outcome], None]) -> None:
        """Wait until the store has flushed up to the physical offset `target`."""
        super().add(target, deadline, done)
        if not self._asked:
            self._ask(target)

    def _ask(self, target: int) -> None:
        self._asked = True
        try:
            self._store.notify_flushed(target, self._flushed_in_thread)
        except StoreError as error:
            log.error("no flush can be waited for: %s", error)  # noqa: TRY400 — the trace says nothing more
            self._asked = False
            self.fail()

    def _flushed_in_thread(self, error: Exception | None) -> None:
        self._loop.call_soon_threadsafe(self._flushed, error)

    def _flushed(self, error: Exception | None) -> None:
        self._asked = False
        if error is not None:
            log.error("a flush failed, the messages that waited for it are refused: %s", error)
            self.fail()
            return
        self.reached(self._store.flushed_offset)
        last = self.last_target
        if last is not None:
            self._ask(last)
