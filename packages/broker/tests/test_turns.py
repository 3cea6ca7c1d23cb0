"""Long work in turns of the event loop: others run in between, nothing is begun twice, a failure is no end."""

import asyncio

import pytest
from apogeemq.broker.faces.remoting.turns import TURN_S, Turns


class Work:
    """So many steps, each of which takes as long as it is told; the clock is theirs."""

    def __init__(self, steps: int, step_s: float) -> None:
        self.left = steps
        self.now_s = 0.0
        self._step_s = step_s

    def step(self) -> bool:
        self.now_s += self._step_s
        self.left -= 1
        return self.left > 0

    def monotonic(self) -> float:
        return self.now_s


async def test_a_turn_ends_after_its_time() -> None:
    """The step that goes beyond it is the turn's last, and the next turn comes after whoever else is ready."""
    work = Work(steps=7, step_s=TURN_S * 0.4)
    turns = Turns(work.step, work.monotonic)
    turns.begin()
    assert work.left == 4
    await asyncio.sleep(0)
    assert work.left == 1
    await asyncio.sleep(0)
    assert work.left == 0
    await asyncio.sleep(0)
    assert work.left == 0


async def test_work_under_way_is_not_begun_again() -> None:
    """Neither by a second call before its first turn, nor between two turns; after its end it is."""
    work = Work(steps=2, step_s=TURN_S)
    turns = Turns(work.step, work.monotonic)
    turns.begin_soon()
    turns.begin_soon()
    turns.begin()
    assert work.left == 2
    await asyncio.sleep(0)
    turns.begin()
    assert work.left == 1
    await asyncio.sleep(0)
    assert work.left == 0
    work.left = 1
    turns.begin()
    assert work.left == 0


async def test_what_fails_is_raised_and_the_rest_has_its_turn() -> None:
    """The step that failed is over; the others are not lost with it."""
    done: list[int] = []

    def step() -> bool:
        done.append(len(done))
        if len(done) == 2:
            raise ValueError("the second step")
        return len(done) < 3

    turns = Turns(step, lambda: 0.0)
    with pytest.raises(ValueError, match="the second step"):
        turns.begin()
    assert done == [0, 1]
    await asyncio.sleep(0)
    assert done == [0, 1, 2]
    await asyncio.sleep(0)
    assert done == [0, 1, 2]
