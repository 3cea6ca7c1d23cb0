"""Start and stop of components, and what signals do."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable

import pytest
from apogeemq.mesh.errors import LifecycleError
from apogeemq.mesh.lifecycle import FORCED_EXIT_CODE, Lifecycle


class Journal:
    """Components that write down what happens to them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.lifecycle = Lifecycle()

    def add(self, name: str, *, start_error: Exception | None = None, stop_error: Exception | None = None) -> None:
        self.lifecycle.add(
            name, start=self._note(f"start {name}", start_error), stop=self._note(f"stop {name}", stop_error)
        )

    def _note(self, line: str, error: Exception | None) -> Callable[[], Awaitable[None]]:
        async def note() -> None:
            self.lines.append(line)
            if error is not None:
                raise error

        return note


@pytest.fixture
async def journal() -> Journal:
    return Journal()


async def never() -> None:
    await asyncio.Event().wait()


async def test_started_in_order_and_stopped_in_reverse(journal: Journal) -> None:
    """Components start as added and stop the other way round; stopping again does nothing."""
    journal.add("store")
    journal.add("remoting")
    await journal.lifecycle.start()
    await journal.lifecycle.stop()
    await journal.lifecycle.stop()
    assert journal.lines == ["start store", "start remoting", "stop remoting", "stop store"]


async def test_component_without_start_or_stop(journal: Journal) -> None:
    """Either action may be missing."""
    journal.lifecycle.add("nothing")
    await journal.lifecycle.start()
    await journal.lifecycle.stop()


async def test_failed_start_stops_what_had_started(journal: Journal) -> None:
    """When one fails, those before it are stopped, those after it never start, and the error names it."""
    journal.add("store")
    journal.add("remoting", start_error=OSError("port 10911 is in use"))
    journal.add("never")
    with pytest.raises(LifecycleError, match="remoting did not start: port 10911 is in use") as caught:
        await journal.lifecycle.start()
    assert journal.lines == ["start store", "start remoting", "stop store"]
    assert isinstance(caught.value.__cause__, OSError)


async def test_late_start_is_a_failure(journal: Journal) -> None:
    """A start that is late is cancelled and named with its deadline."""
    journal.add("store")
    journal.lifecycle.add("slow", start=never, timeout_s=0.01)
    with pytest.raises(LifecycleError, match=r"slow did not start within 0\.01 s"):
        await journal.lifecycle.start()
    assert journal.lines == ["start store", "stop store"]


async def test_own_timeout_of_a_component_is_not_its_deadline(journal: Journal) -> None:
    """A TimeoutError that a component raises itself keeps its own text."""
    journal.add("namesrv", start_error=TimeoutError("no answer from n1:9877"))
    with pytest.raises(LifecycleError, match="namesrv did not start: no answer from n1:9877"):
        await journal.lifecycle.start()


async def test_every_component_is_stopped_whatever_the_others_do(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors and delays at stop are logged, the remaining components are stopped, and the first error is raised."""
    journal.add("store")
    journal.add("b", stop_error=ValueError("second"))
    journal.lifecycle.add("slow", stop=never, timeout_s=0.01)
    await journal.lifecycle.start()
    with pytest.raises(LifecycleError, match=r"slow did not stop within 0\.01 s"):
        await journal.lifecycle.stop()
    assert journal.lines[-2:] == ["stop b", "stop store"]
    assert "b did not stop: second" in caplog.text


async def test_failure_while_stopping_does_not_hide_the_failed_start(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """The error of the start is raised, that of the stop after it is logged."""
    journal.add("store", stop_error=ValueError("stop failed"))
    journal.add("remoting", start_error=OSError("start failed"))
    with pytest.raises(LifecycleError, match="remoting did not start: start failed"):
        await journal.lifecycle.start()
    assert "store did not stop: stop failed" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_stops_the_process(journal: Journal, number: signal.Signals) -> None:
    """Either signal ends a running process in order, after which the old handlers are back."""
    before = signal.getsignal(number)
    journal.add("store")
    await journal.lifecycle.run_until_signal(on_started=lambda: os.kill(os.getpid(), number))
    assert journal.lines == ["start store", "stop store"]
    assert signal.getsignal(number) is before


async def test_signal_during_the_start_ends_it(journal: Journal) -> None:
    """A process that is still starting stops what it has and does not go on starting."""
    journal.add("store")

    async def recover() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await never()

    journal.lifecycle.add("recovery", start=recover)
    journal.add("remoting")
    await journal.lifecycle.run_until_signal(on_started=lambda: pytest.fail("it never started"))
    assert journal.lines == ["start store", "stop store"]


async def test_second_signal_exits_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """A second signal while the stop takes long exits with 130 and a line in the log, even from a stuck event loop."""
    exits: list[int] = []
    lifecycle = Lifecycle(exit_process=exits.append)

    async def stuck() -> None:
        os.kill(os.getpid(), signal.SIGINT)  # no await: the loop does not get to run
        assert exits == [FORCED_EXIT_CODE]

    lifecycle.add("stuck", stop=stuck)
    with caplog.at_level(logging.INFO):
        await lifecycle.run_until_signal(on_started=lambda: os.kill(os.getpid(), signal.SIGINT))
    assert exits == [130]
    assert "SIGINT again: exiting at once" in caplog.text


async def test_background_task_is_cancelled_at_stop(journal: Journal) -> None:
    """A background task runs between start and stop; when stop returns it has ended."""

    async def run() -> None:
        journal.lines.append("run")
        try:
            await never()
        finally:
            journal.lines.append("ended")

    journal.add("store")
    journal.lifecycle.add_task("scan", run)
    await journal.lifecycle.start()
    await asyncio.sleep(0)
    await journal.lifecycle.stop()
    assert journal.lines == ["start store", "run", "ended", "stop store"]


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "fails"])
async def test_background_task_that_ends_stops_the_process(
    journal: Journal, ends: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that fails or just ends takes the whole process down in order, and its error is raised."""

    async def run() -> None:
        if not ends:
            raise ValueError("scan broke")

    journal.add("store")
    journal.lifecycle.add_task("scan", run)
    error, message = (LifecycleError, "scan ended by itself") if ends else (ValueError, "scan broke")
    with pytest.raises(error, match=message):
        await journal.lifecycle.run_until_signal()
    assert journal.lines == ["start store", "stop store"]
    assert message in caplog.text


async def test_cancelled_run_stops_everything(journal: Journal) -> None:
    """Cancelling the main task stops the components too."""
    journal.add("store")
    started = asyncio.Event()
    running = asyncio.ensure_future(journal.lifecycle.run_until_signal(on_started=started.set))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert journal.lines == ["start store", "stop store"]


async def test_the_end_of_an_input_stops_in_order(journal: Journal) -> None:
    """What comes on it changes nothing; its end is as good as a signal."""
    read_end, write_end = os.pipe()
    journal.lifecycle.stop_at_end_of(read_end)
    journal.add("store")

    def close_after_a_word() -> None:
        os.write(write_end, b"still here\n")
        asyncio.get_running_loop().call_soon(os.close, write_end)

    async with asyncio.timeout(10):
        await journal.lifecycle.run_until_signal(close_after_a_word)
    os.close(read_end)
    assert journal.lines == ["start store", "stop store"]


async def test_an_input_that_ends_during_the_start_ends_it(journal: Journal) -> None:
    """What had started is stopped again."""
    read_end, write_end = os.pipe()
    os.close(write_end)
    journal.lifecycle.stop_at_end_of(read_end)
    journal.add("store")
    journal.lifecycle.add("slow", start=never)
    async with asyncio.timeout(10):
        await journal.lifecycle.run_until_signal()
    os.close(read_end)
    assert journal.lines == ["start store", "stop store"]
