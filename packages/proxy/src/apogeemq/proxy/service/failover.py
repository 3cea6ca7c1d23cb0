"""Waiting for the next master of a broker set: what may be asked again without harm is tried while that makes sense.

A master that dies is followed within a second or so (docs/ha.md). Whoever asks meanwhile waits here instead of being
refused: between two tries a pause that grows, half of it by lot, and the topic's route anew where no watch tells of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.proxy.ports import Routes

PAUSE_FIRST_S = 0.02
PAUSE_S_MAX = 0.25
"""Doubled from one to the other. Short ones, since the next master is usually there before the third second."""


class MasterWait:
    """One request's patience, which begins with its first pause.

    Args:
        patience_s: how long it waits in all.
        deadline: monotonic seconds; a pause that would end later than that, or than its patience, is not begun.
    """

    def __init__(
        self,
        topic: str,
        routes: Routes,
        *,
        clock: Clock,
        chance: Chance,
        patience_s: float,
        deadline: float = math.inf,
    ) -> None:
        self._topic = topic
        self._routes = routes
        self._clock = clock
        self._chance = chance
        self._patience_s = patience_s
        self._deadline = deadline
        self._until: float | None = None
        self._pause_s = PAUSE_FIRST_S

    async def pause(self) -> bool:
        """Wait a while before the next try; False, at once, when no time is left for one."""
        now = self._clock.monotonic()
        if self._until is None:
            self._until = min(now + self._patience_s, self._deadline)
        pause_s = self._pause_s * (0.5 + self._chance.random() / 2)
        if now + pause_s >= self._until:
            return False
        self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)
        self._routes.doubt(self._topic)
        await self._clock.sleep(pause_s)
        return True


@dataclass(frozen=True, slots=True)
class MasterWaits:
    """What the waits of all gRPC requests have in common."""

    routes: Routes
    clock: Clock
    chance: Chance
    patience_s: float

    def until(self, topic: str, deadline: float) -> MasterWait:
        """One request's, for what is about this topic."""
        return MasterWait(
            topic, self.routes, clock=self.clock, chance=self.chance, patience_s=self.patience_s, deadline=deadline
        )
