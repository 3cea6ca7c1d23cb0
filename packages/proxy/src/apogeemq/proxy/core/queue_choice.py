"""Which queue a message is sent to: round robin over the writable ones, past brokers that failed lately.

A broker that failed is left out for AVOIDED_S seconds, unless every one failed: then all are tried as if none had.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

from apogeemq.mesh.chance import Chance
from apogeemq.proxy.core.routes import WritableQueue

AVOIDED_S = 10.0
TOPICS_MAX = 10_000
"""Topics whose turn is remembered; the one that was not used for longest is forgotten first."""


class QueueChooser:
    """Whose turn it is. Times are seconds of one monotonic clock, handed in.

    Every topic begins at a queue drawn by lot, so that many proxies do not all begin at the same one.
    """

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._turns: OrderedDict[str, int] = OrderedDict()
        self._failed_until: dict[str, float] = {}

    def choose(
        self, topic: str, queues: Sequence[WritableQueue], now: float, tried: Collection[str] = ()
    ) -> WritableQueue | None:
        """The next queue; None when all are at brokers in `tried`. `queues` is in the same order each time."""
        if self._failed_until:
            self._failed_until = {name: until for name, until in self._failed_until.items() if until > now}
        candidates: Sequence[WritableQueue] = queues
        if tried or self._failed_until:
            untried = [queue for queue in queues if queue.broker_name not in tried]
            healthy = [queue for queue in untried if queue.broker_name not in self._failed_until]
            candidates = healthy or untried
        if not candidates:
            return None
        return candidates[self._next_turn(topic) % len(candidates)]

    def failed(self, broker_name: str, now: float) -> None:
        """A send to this broker failed: go past it for a while."""
        self._failed_until[broker_name] = now + AVOIDED_S

    def succeeded(self, broker_name: str) -> None:
        """A send to this broker went well: it is as good as any."""
        self._failed_until.pop(broker_name, None)

    def _next_turn(self, topic: str) -> int:
        turn = self._turns.pop(topic, None)
        if turn is None:
            turn = self._chance.randrange(1 << 16)
            if len(self._turns) >= TOPICS_MAX:
                self._turns.popitem(last=False)
        self._turns[topic] = turn + 1
        return turn
