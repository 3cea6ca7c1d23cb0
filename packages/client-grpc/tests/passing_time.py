"""A clock that is moved by hand, for clients whose calls are real and take real time."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from apogeemq.client_grpc.link import Link
from apogeemq.mesh.clock import ManualClock
from scripted_proxy import until

T = TypeVar("T")

STEP_S = 1.0  # what clients do by themselves is due at whole seconds, so that it happens at its exact time


class PassingTime:
    """Moves its clock only while no call is under way.

    Otherwise an answer that is slow by the machine's time would come minutes late by the clock, and what the client
    does next after it, such as to sleep until the next heartbeat, would begin at any time.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = ManualClock()
        self._under_way: list[str] = []
        call = Link.unary

        async def counted(link: Link, method: Any, *arguments: Any, **options: Any) -> Any:
            self._under_way.append(method.name)
            try:
                return await call(link, method, *arguments, **options)
            finally:
                self._under_way.remove(method.name)

        monkeypatch.setattr(Link, "unary", counted)

    async def pass_by(self, seconds: float) -> None:
        """Let so many seconds pass, and everything that they bring be answered."""
        for _ in range(round(seconds / STEP_S)):
            await self._step()
        await self._quiet()

    async def until_done(self, work: Coroutine[Any, Any, T], *, within_s: float) -> T:
        """Let time pass until `work` is done; fails when it is not after `within_s` seconds of the clock."""
        working = asyncio.ensure_future(work)
        try:
            for _ in range(round(within_s / STEP_S)):
                await self._quiet()
                if working.done():
                    return await working
                await self._step()
        finally:
            working.cancel()
        pytest.fail(f"the work was not done within {within_s:g} s")

    async def _step(self) -> None:
        await self._quiet()
        await self.clock.run_for(STEP_S)

    async def _quiet(self) -> None:
        await self.clock.run_for(0)  # who was woken gets to its next call
        while self._under_way:
            await until(lambda: not self._under_way, lambda: self._under_way)
            await self.clock.run_for(0)
