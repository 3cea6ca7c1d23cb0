"""Threads that take turns: one runs at a time, and passes the baton at each lock and at each call to the disk.

So a test decides, by a seed, how the threads of a store interleave, and a run can be repeated.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import TracebackType

from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss

HANG_S = 30.0
"""A thread that keeps the baton longer than this waits for something that nobody will give."""


class Actor:
    """One piece of work in a thread of its own, which runs only while `step` lets it."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.failure: BaseException | None = None
        self.is_done = False
        self._work = work
        self._may_run = threading.Semaphore(0)
        self._has_paused = threading.Semaphore(0)
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Let it run up to its next pause, or to its end."""
        self._may_run.release()
        assert self._has_paused.acquire(timeout=HANG_S), f"{self._thread.name} hangs"

    def finish(self) -> None:
        """Let it run to its end."""
        while not self.is_done:
            self.step()

    def abandon(self) -> None:
        """End it where it stands, as a power loss does."""
        self._is_abandoned = True
        self.finish()

    def pause(self) -> None:
        """Called in its thread: wait for the next step."""
        if self._is_abandoned:
            raise PowerLoss
        self._has_paused.release()
        self._may_run.acquire()
        if self._is_abandoned:
            raise PowerLoss

    def _run(self) -> None:
        self._may_run.acquire()
        ACTORS.current = self
        try:
            self._work()
        except BaseException as failure:  # noqa: BLE001 — the test looks at it
            self.failure = failure
        self.is_done = True
        self._has_paused.release()


class _Current(threading.local):
    current: Actor | None = None


ACTORS = _Current()


class TurnLock:
    """A lock for such threads, in place of threading.Lock: who finds it taken lets the holder run."""

    def __init__(self) -> None:
        self._holder: Actor | None = None
        self._is_held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """See threading.Lock. No time passes while somebody waits, so it always ends well."""
        me = ACTORS.current
        if me is not None:
            me.pause()
        while self._is_held:
            if me is not None:
                me.pause()
            else:
                assert self._holder is not None, "the test's own thread waits for itself"
                self._holder.step()
        self._is_held, self._holder = True, me
        return True

    def release(self) -> None:
        """See threading.Lock."""
        self._is_held, self._holder = False, None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class TurnDisk(FaultyDisk):
    """A FaultyDisk whose calls are where an actor pauses, and where others may run while the test's thread waits."""

    def __init__(self, chance: Random) -> None:
        super().__init__(chance)
        self.others: Callable[[], None] = lambda: None

    def enter(self, operation: str, path: Path) -> None:
        """Pass the baton, then see FaultyDisk."""
        if ACTORS.current is not None:
            ACTORS.current.pause()
        else:
            self.others()
        super().enter(operation, path)
