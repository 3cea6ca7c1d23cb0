"""Threads of the store: one that does a piece of work again and again, and one that does it once, with a deadline."""

import logging
from collections.abc import Callable
from threading import Event, Thread

_logger = logging.getLogger(__name__)


class Worker:
    """Calls `step` when woken, and at the latest every `interval_s`. A daemon: it never keeps the process alive.

    `step` deals with the errors it expects. Any other one is a bug: it is logged, handed to `on_failure`, and ends
    the thread.
    """

    def __init__(
        self, name: str, step: Callable[[], None], *, interval_s: float, on_failure: Callable[[Exception], None]
    ) -> None:
        self.name = name
        self.step = step
        self._interval_s = interval_s
        self._on_failure = on_failure
        self._woken = Event()
        self._stopping = False
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, with a first step after the interval or the first wake-up."""
        self._thread.start()

    def wake(self) -> None:
        """Have a step begin soon. Cheap when one is due already."""
        if not self._woken.is_set():
            self._woken.set()

    def stop(self, timeout_s: float) -> bool:
        """Let the step in hand end and wait for that. False when the time did not suffice."""
        self._stopping = True
        self._woken.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping:
            self._woken.wait(self._interval_s)
            self._woken.clear()
            if self._stopping:
                return
            try:
                self.step()
            except Exception as error:
                _logger.exception("the thread %s ends: its work failed unexpectedly", self.name)
                self._on_failure(error)
                return


def run_with_deadline(name: str, work: Callable[[], None], timeout_s: float) -> None:
    """Do `work` in a daemon thread and wait for it.

    Errors: those of `work`; TimeoutError when it takes longer: then it goes on, and nobody hears how it ended.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 — raised again in the thread that waits
            failures.append(error)

    thread = Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError(f"{name} takes longer than {timeout_s} s")
    if failures:
        raise failures[0]
