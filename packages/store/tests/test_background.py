"""The thread that repeats a step."""

from queue import SimpleQueue
from threading import Event

import pytest
from apogeemq.store.background import Worker, run_with_deadline

DEADLINE_S = 30
"""Far above what anything here takes."""


def ignore(error: Exception) -> None:
    raise AssertionError from error


def test_waking_makes_a_step() -> None:
    """Each wake-up is followed by a step, without waiting for the interval."""
    steps: SimpleQueue[None] = SimpleQueue()
    worker = Worker("test", lambda: steps.put(None), interval_s=3600, on_failure=ignore)
    worker.start()
    for _ in range(3):
        worker.wake()
        steps.get(timeout=DEADLINE_S)
    assert worker.stop(DEADLINE_S)


def test_interval_makes_a_step() -> None:
    """Without a wake-up the step comes by itself."""
    steps: SimpleQueue[None] = SimpleQueue()
    worker = Worker("test", lambda: steps.put(None), interval_s=0.001, on_failure=ignore)
    worker.start()
    for _ in range(3):
        steps.get(timeout=DEADLINE_S)
    assert worker.stop(DEADLINE_S)


def test_stop_waits_for_the_step_in_hand() -> None:
    """A step that runs is finished first; one that hangs makes stop give up."""
    begun, may_end = Event(), Event()

    def step() -> None:
        begun.set()
        may_end.wait(DEADLINE_S)

    worker = Worker("test", step, interval_s=3600, on_failure=ignore)
    worker.start()
    worker.wake()
    assert begun.wait(DEADLINE_S)
    assert not worker.stop(0.001)
    may_end.set()
    assert worker.stop(DEADLINE_S)


def test_unexpected_error_is_told_and_ends_the_thread() -> None:
    """A bug in the step is not swallowed."""
    failures: SimpleQueue[Exception] = SimpleQueue()

    def step() -> None:
        raise ZeroDivisionError("a bug")

    worker = Worker("test", step, interval_s=3600, on_failure=failures.put)
    worker.start()
    worker.wake()
    assert str(failures.get(timeout=DEADLINE_S)) == "a bug"
    assert worker.stop(DEADLINE_S)


def test_work_with_a_deadline_is_waited_for() -> None:
    """It is done at return; its error is raised."""
    done: list[int] = []
    run_with_deadline("test", lambda: done.append(1), DEADLINE_S)
    assert done == [1]

    def broken() -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        run_with_deadline("test", broken, DEADLINE_S)


def test_work_beyond_its_deadline_is_left() -> None:
    """TimeoutError, while it goes on."""
    may_end = Event()

    def hang() -> None:
        may_end.wait(DEADLINE_S)

    with pytest.raises(TimeoutError, match="test takes longer"):
        run_with_deadline("test", hang, 0.001)
    may_end.set()
