"""Work that no request waits for: bounded, its failures logged, its end awaited."""

from __future__ import annotations

import asyncio
import logging

import pytest
from apogeemq.mesh.clock import ManualClock
from apogeemq.proxy.service import background
from apogeemq.proxy.service.background import CLOSE_TIMEOUT_S, Background


async def test_what_fails_is_logged_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    """One failure hinders nothing else."""
    work = Background()

    async def fail() -> None:
        raise ValueError("no")

    with caplog.at_level(logging.ERROR):
        work.start(fail())
        await work.close(ManualClock())
    assert "background work failed" in caplog.text
    assert len(work) == 0


async def test_beyond_the_bound_work_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It never runs, and leaves no coroutine that nobody awaited; however much there is of it, the log says it once."""
    monkeypatch.setattr(background, "TASKS_MAX", 1)
    work, begun, gate = Background(), [], asyncio.Event()

    async def wait(name: str) -> None:
        begun.append(name)
        await gate.wait()

    work.start(wait("first"))
    for name in ("second", "third"):
        work.start(wait(name))
    await asyncio.sleep(0)
    gate.set()
    await work.close(ManualClock())
    assert begun == ["first"]
    assert caplog.text.count("is dropped") == 1
    gate.clear()
    for name in ("fourth", "fifth"):
        work.start(wait(name))
    assert caplog.text.count("is dropped") == 2
    gate.set()
    await work.close(ManualClock())


async def test_close_waits_a_while_and_then_cancels() -> None:
    """What is nearly done gets done; what hangs is ended."""
    clock, work, done = ManualClock(), Background(), []

    async def take(seconds: float) -> None:
        await clock.sleep(seconds)
        done.append(seconds)

    work.start(take(CLOSE_TIMEOUT_S / 2))
    work.start(take(CLOSE_TIMEOUT_S * 2))
    closing = asyncio.ensure_future(work.close(clock))
    await clock.run_for(CLOSE_TIMEOUT_S)
    assert closing.done()
    assert done == [CLOSE_TIMEOUT_S / 2]
    assert len(work) == 0
