"""Where a set's master is, and for how long nobody's send was acknowledged."""

import itertools
import math
import threading
from collections.abc import Callable, Collection
from typing import Self

from tests.chaos.history import History, Kill, Kind, Outcome, Send

LOOK_S = 0.05


class Master:
    """Where the master is, as the name server says: asked in a thread, so that clients need not.

    Args:
        routed: gives its address, empty while the name server names none.
    """

    def __init__(self, routed: Callable[[], str]) -> None:
        self.address = ""
        self._routed = routed
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="master")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(LOOK_S):
            self.address = self._routed() or self.address


def pause_s(history: History, kill: Kill, kinds: Collection[Kind] = frozenset(Kind)) -> float:
    """The longest time between two acknowledged sends of these kinds, from a fault's beginning to its end, seconds."""
    acknowledged = sorted(
        event.ended_ms
        for event in history.events()
        if isinstance(event, Send)
        and event.kind in kinds
        and event.outcome is Outcome.ACKNOWLEDGED
        and event.ended_ms >= kill.at_ms
    )
    times = [kill.at_ms, *(each for each in acknowledged if each <= kill.ended_ms), kill.ended_ms]
    return max((later - earlier for earlier, later in itertools.pairwise(times)), default=math.inf) / 1000
