"""One run of a driver: a process that uses an official client on command and prints what happens as JSON lines."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tests.e2e.process import ManagedProcess, poll_until

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 60.0

E = TypeVar("E")


class DriverRun(ManagedProcess):
    """A run that may still be going on. `parse` makes an event of one line."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log_directory: pathlib.Path,
        parse: Callable[[str], object],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._events: list[object] = []
        self._parse = parse
        super().__init__(name, argv, log_directory=log_directory, environ=environ)

    def events(self, kind: type[E]) -> list[E]:
        """Every event of that kind so far, in the order printed."""
        return [event for event in self.events_from(0) if isinstance(event, kind)]

    def events_from(self, start: int) -> list[object]:
        """Every event so far but for the first `start`, whatever its kind: for those who look again and again."""
        for line in self.lines[len(self._events) :]:
            self._events.append(self._parse(line))
        return self._events[start:]

    def wait_started(self) -> None:
        """Returns when the client in it has started."""
        self.wait_line(lambda line: line.startswith('{"started"'), START_TIMEOUT_S, "that it has started")

    def resume(self) -> None:
        """Lets a consumer that was started with `hold` take queues."""
        self.send_line("resume")

    def end(self, expected_exit_code: int = 0, timeout_s: float = END_TIMEOUT_S) -> None:
        """Waits until it ends by itself."""
        exit_code = self.wait_exit(timeout_s)
        if exit_code != expected_exit_code:
            raise self.failure(f"exit code {exit_code}, expected {expected_exit_code}")

    def stop_consuming(self) -> None:
        """Asks a consumer to finish what it has begun, and to end."""
        self.send_line("stop")
        self.end()


def wait_for(is_done: Callable[[], bool], runs: Sequence[DriverRun], timeout_s: float, message: str) -> None:
    """Polls; fails with the logs of the first run when the time is up."""
    poll_until(is_done, timeout_s, lambda: runs[0].failure(f"{message} within {timeout_s} s"))
