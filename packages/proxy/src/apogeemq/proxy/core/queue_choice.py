"""Which queue a message is sent to: round robin over the writable ones, past brokers that failed lately; or, for a
message with a message group, always the same one.

A broker that failed is left out for AVOIDED_S seconds, unless every one failed: then all are tried as if none had.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

from apogeemq.mesh.chance import Chance
from apogeemq.proxy.core.routes import WritableQueue

AVOIDED_S = 10.0
_MASK = (1 << 64) - 1
_MULTIPLIER = 2_862_933_555_777_941_757
TOPICS_MAX = 10_000
"""Topics whose turn is remembered; the one that was not used for longest is forgotten first."""


def java_string_hash(text: str) -> int:
    """String.hashCode: 31 times the hash so far plus each UTF-16 unit, as a signed 32-bit number."""
    units = memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H")
    total = 0
    for unit in units:
        total = (31 * total + unit) & 0xFFFFFFFF
    return total - (1 << 32) if total >> 31 else total


def jump_hash(key: int, buckets: int) -> int:
    """Which of `buckets` (1 or more) a 64-bit key belongs to, by Lamping and Veach's jump consistent hash."""
    state = key & _MASK
    bucket, jump = 0, 0
    while jump < buckets:
        bucket = jump
        state = (state * _MULTIPLIER + 1) & _MASK
        jump = int((bucket + 1) * ((1 << 31) / ((state >> 33) + 1)))
    return bucket


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

    @staticmethod
    def choose_for_group(
        message_group: str, queues: Sequence[WritableQueue], tried: Collection[str] = ()
    ) -> WritableQueue | None:
        """The queue of a message group, as Apache's proxy chooses it; no other is tried, for order lies in one queue.

        A topic that gets more queues moves few of the groups (jump consistent hash), and in those the order between
        before and after is lost: it is kept within each queue.
        """
        queue = queues[jump_hash(java_string_hash(message_group), len(queues))]
        return None if queue.broker_name in tried else queue

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
