"""The event loop, the garbage collector and the stall monitor."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.errors import ConfigError
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.runtime import LOOP_VARIABLE, LoopStallMonitor, run, settle_garbage_collector


async def loop_module() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def test_uvloop_when_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the installed uvloop runs, without it asyncio; what the main coroutine returns is returned."""
    monkeypatch.delenv(LOOP_VARIABLE, raising=False)
    assert run(loop_module) == "uvloop"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(loop_module) == "asyncio"


@pytest.mark.parametrize("wanted", ["asyncio", "uvloop"])
def test_loop_can_be_chosen(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    """APOGEEMQ_LOOP chooses the loop."""
    monkeypatch.setenv(LOOP_VARIABLE, wanted)
    assert run(loop_module) == wanted


def test_loops_that_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown loop, and uvloop where it is not installed, are settings errors."""
    monkeypatch.setenv(LOOP_VARIABLE, "trio")
    with pytest.raises(ConfigError, match=r"APOGEEMQ_LOOP is 'trio'; allowed is asyncio \| uvloop"):
        run(loop_module)
    monkeypatch.setenv(LOOP_VARIABLE, "uvloop")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="not installed"):
        run(loop_module)


@pytest.fixture
def collector() -> Iterator[None]:
    """Put the garbage collector back as it was."""
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


@pytest.mark.usefixtures("collector")
def test_garbage_collector_is_settled() -> None:
    """After the start what lives is frozen and collections come seldom."""
    settle_garbage_collector()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[0] == 5_000


async def test_stalls_are_measured() -> None:
    """What a wake-up is late is counted in seconds; a wake-up in time counts as 0."""
    clock, registry = ManualClock(), Registry()
    task = asyncio.ensure_future(LoopStallMonitor(clock, registry).run())
    await clock.run_for(0.2)  # two wake-ups in time
    clock.advance(0.4)  # one that comes 0.3 s late
    await clock.run_for(0)
    task.cancel()
    lines = registry.render().splitlines()
    assert 'loop_stall_seconds_bucket{le="0.001"} 2' in lines
    assert 'loop_stall_seconds_bucket{le="0.2"} 2' in lines
    assert 'loop_stall_seconds_bucket{le="0.5"} 3' in lines
    total = next(line for line in lines if line.startswith("loop_stall_seconds_sum"))
    assert float(total.split()[1]) == pytest.approx(0.3)
