"""Many deadlines, one task."""

from __future__ import annotations

import asyncio

from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.deadlines import RESOLUTION_S, Deadlines


async def test_due_in_time_and_not_early() -> None:
    """Each key is due at its deadline, at most the resolution later, whatever order they were added in."""
    clock = ManualClock()
    due: dict[str, float] = {}

    def note(key: str) -> None:
        due[key] = clock.monotonic()

    deadlines = Deadlines[str](clock, note)
    wanted = {"late": 20.0, "soon": 0.0301, "between": 3.005}
    for key, deadline in wanted.items():
        deadlines.add(key, deadline)
    await clock.run_for(30)
    assert due.keys() == wanted.keys()
    for key, deadline in wanted.items():
        assert deadline <= due[key] <= deadline + RESOLUTION_S + 1e-6, key


async def test_removed_keys_are_not_due() -> None:
    """A key that was removed is never due; removing it again, or after its time, harms nothing."""
    clock = ManualClock()
    due: list[str] = []
    deadlines = Deadlines[str](clock, due.append)
    deadlines.add("a", 1.0)
    deadlines.add("b", 1.0)
    deadlines.remove("a", 1.0)
    deadlines.remove("a", 1.0)
    await clock.run_for(2)
    deadlines.remove("b", 1.0)
    assert due == ["b"]


async def test_added_again_after_all_were_due() -> None:
    """The watching task ends with the last deadline and comes back with the next."""
    clock = ManualClock()
    due: list[str] = []
    deadlines = Deadlines[str](clock, due.append)
    deadlines.add("a", 1.0)
    await clock.run_for(2)
    assert clock.sleepers == 0
    deadlines.add("b", 3.0)
    deadlines.add("passed already", 1.5)
    await clock.run_for(2)
    assert due == ["a", "passed already", "b"]


async def test_close_forgets_all() -> None:
    """After close nothing is due and no task is left."""
    clock = ManualClock()
    due: list[str] = []
    deadlines = Deadlines[str](clock, due.append)
    deadlines.add("a", 1.0)
    await asyncio.sleep(0)
    deadlines.close()
    await clock.run_for(2)
    assert due == []
    assert len(asyncio.all_tasks()) == 1
