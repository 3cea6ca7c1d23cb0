"""The scripted proxy for the tests of this folder, and the time that each of them may take."""

import asyncio
import functools
import inspect
import pathlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

# The package's folder is no identifier, so what the tests share can't be imported by its full path.
sys.path.append(str(pathlib.Path(__file__).resolve().parent))

from passing_time import PassingTime
from scripted_proxy import ScriptedProxy

TEST_S = 30.0  # of real time; what waits for something fails earlier and says for what (scripted_proxy.until)
CLEANUP_S = 10.0


@pytest.fixture
async def proxy() -> AsyncIterator[ScriptedProxy]:
    """One broker behind it."""
    async with ScriptedProxy() as running:
        yield running


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> PassingTime:
    """Passes when the test says so, and no call is under way."""
    return PassingTime(monkeypatch)


@pytest.fixture(autouse=True)
def no_test_hangs(request: pytest.FixtureRequest) -> None:
    """Have every test of this folder that is a coroutine fail after 30 s, with what its tasks were waiting for."""
    item = request.node
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = _bounded(item.obj)


def _bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(**arguments: object) -> None:
        # A task of its own, for asyncio.timeout would wait for ever where the test's cleanup hangs as well.
        running = asyncio.ensure_future(test(**arguments))
        try:
            await asyncio.wait({running}, timeout=TEST_S)
            if not running.done():
                seen = _stacks()
                running.cancel()
                await asyncio.wait({running}, timeout=CLEANUP_S)
                pytest.fail(f"not done within {TEST_S:g} s; the tasks at that time:\n{seen}")
        finally:
            running.cancel()
        await running

    return bounded


def _stacks() -> str:
    """A line for each task: its name, and where it waits, from the outside in."""
    return "\n".join(f"{task.get_name()}: {' > '.join(_waits(task.get_coro()))}" for task in asyncio.all_tasks())


def _waits(work: object) -> Iterator[str]:
    while (frame := getattr(work, "cr_frame", None) or getattr(work, "ag_frame", None)) is not None:
        yield f"{pathlib.Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
        work = getattr(work, "cr_await", None) or getattr(work, "ag_await", None)
