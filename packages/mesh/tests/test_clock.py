"""Clocks: what holds for both, and how manual time moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from apogeemq.mesh.clock import Clock, ManualClock, SystemClock, within

START_MS = 1_700_000_000_000


@pytest.fixture(params=[SystemClock, ManualClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    clock: Clock = request.param()
    return clock


@pytest.fixture
def pass_time(clock: Clock) -> Callable[[float], Awaitable[None]]:
    """Let time pass on either clock."""
    return clock.run_for if isinstance(clock, ManualClock) else clock.sleep


async def test_time_passes(clock: Clock, pass_time: Callable[[float], Awaitable[None]]) -> None:
    """After some time both kinds of time have moved on by at least that much, up to the resolution of 1 ms."""
    wall_ms, elapsed = clock.now_ms(), clock.monotonic()
    await pass_time(0.01)
    assert clock.monotonic() - elapsed >= 0.009
    assert clock.now_ms() - wall_ms >= 9


async def test_wall_time_is_milliseconds_since_1970(clock: Clock) -> None:
    """Wall time lies between 2023 and 2100, so its unit is the millisecond."""
    assert 1_672_531_200_000 < clock.now_ms() < 4_102_444_800_000


async def test_sleepers_wake_in_order(clock: Clock, pass_time: Callable[[float], Awaitable[None]]) -> None:
    """Whoever is due first wakes first, whatever the order of going to sleep."""
    woken = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.ensure_future(sleeper(seconds)) for seconds in (0.03, 0.01, 0.02, 0)]
    await pass_time(0.04)
    await asyncio.gather(*tasks)
    assert woken == [0, 0.01, 0.02, 0.03]


async def test_cancelled_sleeper_is_gone(clock: Clock, pass_time: Callable[[float], Awaitable[None]]) -> None:
    """A cancelled sleep ends at once and disturbs nobody later."""
    task = asyncio.ensure_future(clock.sleep(0.01))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await pass_time(0.02)


async def test_within_gives_the_result(clock: Clock) -> None:
    """Work that ends in time gives its result."""

    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    assert await within(clock, 10, work()) == "done"


async def test_within_passes_errors_on(clock: Clock) -> None:
    """Work that fails in time raises its own error."""

    async def work() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await within(clock, 10, work())


async def test_within_cancels_late_work(clock: Clock, pass_time: Callable[[float], Awaitable[None]]) -> None:
    """Work that is late is cancelled, has ended when TimeoutError is raised, and the limit is named."""
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    waiting = asyncio.ensure_future(within(clock, 0.01, work()))
    await pass_time(0.02)
    with pytest.raises(TimeoutError, match=r"0\.01 s"):
        await waiting
    assert ended == [True]


async def test_within_cancels_work_with_its_caller(clock: Clock) -> None:
    """A caller that is cancelled takes the work with it."""
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.ensure_future(within(clock, 10, work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


def test_manual_time_stands_still() -> None:
    """Manual time starts where told and moves only when told."""
    clock = ManualClock(START_MS)
    assert (clock.now_ms(), clock.monotonic()) == (START_MS, 0.0)
    clock.advance(1.5)
    assert (clock.now_ms(), clock.monotonic()) == (START_MS + 1500, 1.5)


def test_manual_time_adds_up_exactly() -> None:
    """A thousand steps of 0.1 s are 100 s, without rounding drift."""
    clock = ManualClock(START_MS)
    for _ in range(1000):
        clock.advance(0.1)
    assert (clock.now_ms(), clock.monotonic()) == (START_MS + 100_000, 100.0)


def test_manual_time_does_not_go_back() -> None:
    """Moving back is a mistake of the test."""
    with pytest.raises(ValueError, match="does not go back"):
        ManualClock().advance(-1)


async def test_advance_wakes_everyone_due_at_the_end_time() -> None:
    """advance() jumps: sleepers due on the way wake in order and all see the end time."""
    clock = ManualClock(START_MS)
    seen = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append((seconds, clock.monotonic()))

    tasks = [asyncio.ensure_future(sleeper(seconds)) for seconds in (3, 1, 2, 60)]
    await asyncio.sleep(0)
    clock.advance(3)
    await asyncio.gather(*tasks[:3])
    assert seen == [(1, 3.0), (2, 3.0), (3, 3.0)]
    assert clock.sleepers == 1
    tasks[3].cancel()


async def test_run_for_lets_a_loop_tick_at_each_time() -> None:
    """run_for() stops at each sleeper's time, so that a periodic task ticks as often as it would in reality."""
    clock = ManualClock(START_MS)
    ticks = []

    async def tick() -> None:
        while True:
            await clock.sleep(1)
            ticks.append(clock.monotonic())

    task = asyncio.ensure_future(tick())
    await clock.run_for(5.5)
    assert ticks == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert clock.monotonic() == 5.5
    task.cancel()


async def test_waiting_for_a_float_deadline_ends() -> None:
    """Less than a nanosecond is still a wait: a loop that sleeps until a deadline reaches it."""
    clock = ManualClock(START_MS)
    deadline = 1.0000000004

    async def wait_until_deadline() -> None:
        while clock.monotonic() < deadline:
            await clock.sleep(deadline - clock.monotonic())

    waiting = asyncio.ensure_future(wait_until_deadline())
    await clock.run_for(2)
    await waiting
