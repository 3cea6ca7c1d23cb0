"""Which broker to avoid until when: one that failed or answered slowly gets no sends for a while.

A table: `sent` and `failed` change it, `is_avoided` asks it. Avoiding is a preference: where every broker is avoided,
the caller uses any. Bounded by the brokers there are in routes (`keep_only`).
Source: Apache MQFaultStrategy (its table of latencies); the time after a failure is ours, shorter than Apache's 10 s.
"""

from bisect import bisect_right
from collections.abc import Collection
from typing import Final

AVOID_AFTER_FAILURE_S: Final = 5.0

_LATENCIES_S: Final = (0.55, 1.8, 3.0, 5.0, 15.0)
"""From this latency of a send on …"""
_AVOID_S: Final = (0.0, 2.0, 5.0, 6.0, 10.0, 30.0)
"""… a broker is avoided for so long."""


class FaultLatency:
    """Broker name → avoided until. `now` is of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def sent(self, broker_name: str, latency_s: float, now: float) -> None:
        """A send was answered after `latency_s`, well or not."""
        avoid_s = _AVOID_S[bisect_right(_LATENCIES_S, latency_s)]
        if avoid_s > 0:
            self._until[broker_name] = now + avoid_s
        elif self._until:
            self._until.pop(broker_name, None)

    def failed(self, broker_name: str, now: float) -> None:
        """A send was not answered, or the broker cannot be reached."""
        self._until[broker_name] = now + AVOID_AFTER_FAILURE_S

    def is_avoided(self, broker_name: str, now: float) -> bool:
        """Whether other brokers are to be preferred now."""
        return self._until.get(broker_name, now) > now

    @property
    def is_empty(self) -> bool:
        """Whether no broker is avoided: the hot path's question."""
        return not self._until

    def keep_only(self, broker_names: Collection[str]) -> None:
        """Forget the brokers that are in no route any more."""
        self._until = {name: until for name, until in self._until.items() if name in broker_names}
