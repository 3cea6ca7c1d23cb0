"""Start and stop of a process: components in order, deadlines, signals.

lifecycle = Lifecycle()
lifecycle.add("store", start=open_store, stop=close_store, timeout_s=600)
lifecycle.add("remoting", start=listen, stop=drain)
lifecycle.add_task("liveness scan", scan)
await lifecycle.run_until_signal()
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from apogeemq.mesh.errors import LifecycleError

FORCED_EXIT_CODE = 130
"""What a process exits with when a second signal cuts its stop short."""

_INPUT_SIZE_BYTES = 4096

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Component:
    name: str
    start: Callable[[], Awaitable[object]] | None
    stop: Callable[[], Awaitable[object]] | None
    timeout_s: float


class Lifecycle:
    """Components, started in the order they were added and stopped in the reverse.

    `exit_process` ends the process at once with a code; tests hand in another.
    """

    def __init__(self, *, exit_process: Callable[[int], object] = os._exit) -> None:
        self._components: list[_Component] = []
        self._started: list[_Component] = []
        self._failure: BaseException | None = None
        self._over = asyncio.Event()
        self._exit_process = exit_process

    def add(
        self,
        name: str,
        *,
        start: Callable[[], Awaitable[object]] | None = None,
        stop: Callable[[], Awaitable[object]] | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Add a component. `timeout_s` bounds its start and its stop, each."""
        self._components.append(_Component(name, start, stop, timeout_s))

    def add_task(self, name: str, run: Callable[[], Coroutine[Any, Any, None]], *, timeout_s: float = 30.0) -> None:
        """Add a background task: cancelled and awaited at stop. One that fails, or just ends, stops the process."""
        task: asyncio.Task[None] | None = None

        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                self.fail(task.exception() or LifecycleError(name, "ended by itself"))

        async def start() -> None:
            nonlocal task
            task = asyncio.create_task(run(), name=name)
            task.add_done_callback(done)

        async def stop() -> None:
            if task is not None:
                task.remove_done_callback(done)
                task.cancel()
                await asyncio.wait({task})

        self.add(name, start=start, stop=stop, timeout_s=timeout_s)

    def stop_at_end_of(self, descriptor: int) -> None:
        """Stop in good order, as on a signal, when the pipe or socket `descriptor` ends: whoever held it is gone.

        What comes on it is read and dropped. To be called before start().
        """

        def on_input() -> None:
            if not os.read(descriptor, _INPUT_SIZE_BYTES):
                asyncio.get_running_loop().remove_reader(descriptor)
                self._interrupt("end of input")

        async def start() -> None:
            asyncio.get_running_loop().add_reader(descriptor, on_input)

        async def stop() -> None:
            asyncio.get_running_loop().remove_reader(descriptor)

        self.add("end of input", start=start, stop=stop)

    def fail(self, error: BaseException) -> None:
        """Let run_until_signal() stop everything and raise `error`: the process can't go on. The first one stays."""
        if self._failure is None:
            self._failure = error
            _log.critical("the process cannot go on and stops", exc_info=error)
            self._over.set()

    async def start(self) -> None:
        """Start all; when one fails or is late, stop those already started and raise LifecycleError.

        What a failed start had already begun, it takes back itself.
        """
        for component in self._components:
            try:
                await _bounded(component, component.start, "start")
            except BaseException:
                await self._stop_after_failure()
                raise
            self._started.append(component)

    async def stop(self) -> None:
        """Stop what was started, in reverse order. Every error is logged, the first one raised at the end."""
        first: Exception | None = None
        while self._started:
            component = self._started.pop()
            try:
                await _bounded(component, component.stop, "stop")
            except LifecycleError as error:
                _log.error("%s", error, exc_info=error.__cause__)
                first = first or error
        if first is not None:
            raise first

    async def run_until_signal(self, on_started: Callable[[], object] | None = None) -> None:
        """Start, wait for SIGINT, SIGTERM, fail() or the end of an input (stop_at_end_of), stop.

        `on_started` is called when all components run. A signal during the start ends it. A second signal exits the
        process at once with FORCED_EXIT_CODE, also when the event loop is stuck. Raises what failed.
        """
        with self._signals():
            starting = asyncio.ensure_future(self.start())
            interrupted = asyncio.ensure_future(self._over.wait())
            try:
                await asyncio.wait({starting, interrupted}, return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    starting.result()
                    if on_started is not None:
                        on_started()
                    await interrupted
            finally:
                interrupted.cancel()
                starting.cancel()
                await asyncio.wait({starting})
                await self.stop()
        if self._failure is not None:
            raise self._failure

    async def _stop_after_failure(self) -> None:
        try:
            await self.stop()
        except LifecycleError as error:
            _log.error("while stopping after a failed start: %s", error)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Handle the signals by Python's own handlers: those run even while the loop is busy and can't be asked."""
        loop = asyncio.get_running_loop()
        received: list[int] = []

        def on_signal(number: int, _: FrameType | None) -> None:
            name = signal.Signals(number).name
            if received:
                _log.critical("%s again: exiting at once, what was not flushed is lost", name)
                self._exit_process(FORCED_EXIT_CODE)
            received.append(number)
            loop.call_soon_threadsafe(self._interrupt, name)

        previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _interrupt(self, name: str) -> None:
        _log.info("%s: stopping; once more exits at once", name)
        self._over.set()


async def _bounded(component: _Component, action: Callable[[], Awaitable[object]] | None, what: str) -> None:
    """Run one start or stop with the component's deadline; raises LifecycleError."""
    if action is None:
        return
    deadline = asyncio.timeout(component.timeout_s)
    try:
        async with deadline:
            await action()
    except Exception as error:
        reason = f" within {component.timeout_s:g} s" if deadline.expired() else f": {error}"
        raise LifecycleError(component.name, f"did not {what}{reason}") from error
