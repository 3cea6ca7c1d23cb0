"""The process around a service: which event loop, how the garbage collector behaves, and whether the loop keeps up."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from apogeemq.mesh.clock import Clock
from apogeemq.mesh.errors import ConfigError
from apogeemq.mesh.metrics import Distribution, Registry

T = TypeVar("T")

LOOP_VARIABLE = "APOGEEMQ_LOOP"
"""asyncio or uvloop; unset takes uvloop when it is installed."""

STALL_PERIOD_S = 0.1
STALL_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_GC_THRESHOLDS = (5_000, 200, 50)
# Python's 700 new objects between collections are reached many times a second here, and nearly all our own garbage goes
# by reference count. But grpc.aio leaves a dozen objects in a cycle behind each call that it serves: to find 50,000 of
# them at once held the event loop for 70 ms on a loaded machine. Older generations are looked at as seldom as can be.


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main()` to its end on a new event loop. Raises ConfigError for a loop that does not exist here."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    wanted = os.environ.get(LOOP_VARIABLE, "")
    installed = importlib.util.find_spec("uvloop") is not None
    if wanted not in ("", "asyncio", "uvloop"):
        raise ConfigError(LOOP_VARIABLE, f"is {wanted!r}; allowed is asyncio | uvloop", origin="environment")
    if wanted == "uvloop" and not installed:
        raise ConfigError(LOOP_VARIABLE, "is uvloop, which is not installed", origin="environment")
    if wanted == "asyncio" or not installed:
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


def settle_garbage_collector() -> None:
    """Call once all components run: what lives now lives on, so collections need not walk it, and come seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


class LoopStallMonitor:
    """Measures how late the event loop is: it sleeps for STALL_PERIOD_S and counts what was more than that.

    A value of 0.05 means that some callback, or the machine, held the loop for up to 50 ms.
    """

    def __init__(self, clock: Clock, registry: Registry) -> None:
        self._clock = clock
        self._histogram: Distribution = registry.histogram(
            "loop_stall_seconds", "how much later than asked the event loop woke a sleeper", STALL_BUCKETS_S
        ).child()

    async def run(self) -> None:
        """Measure until cancelled: a background task for a Lifecycle."""
        while True:
            before = self._clock.monotonic()
            await self._clock.sleep(STALL_PERIOD_S)
            self._histogram.observe(max(0.0, self._clock.monotonic() - before - STALL_PERIOD_S))
