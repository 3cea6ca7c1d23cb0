"""Work for thousands, done in many turns of the event loop, so that everybody else is served in between."""

import asyncio
from collections.abc import Callable
from typing import Final

TURN_S: Final = 0.002
"""How long one turn works, in seconds; a step that was begun is finished."""


class Turns:
    """Calls `step` until it says that nothing is left, and lets the event loop go on after every TURN_S.

    Args:
        step: does a little, well below TURN_S, and gives whether there is more. What it raises is the event loop's to
            report; whatever is left then still has its turn.
        monotonic: seconds.
    """

    def __init__(self, step: Callable[[], bool], monotonic: Callable[[], float]) -> None:
        self._step = step
        self._monotonic = monotonic
        self._is_under_way = False

    def begin(self) -> None:
        """Work now, unless it is under way."""
        if not self._is_under_way:
            self._is_under_way = True
            self._work()

    def begin_soon(self) -> None:
        """Work in the loop's next turn, unless it is under way."""
        if not self._is_under_way:
            self._is_under_way = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        end_s = self._monotonic() + TURN_S
        is_more = True
        try:
            while is_more := self._step():
                if self._monotonic() >= end_s:
                    break
        finally:
            self._is_under_way = is_more
            if is_more:
                asyncio.get_running_loop().call_soon(self._work)
