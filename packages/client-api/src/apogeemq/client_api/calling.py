"""An application's functions, called alike whether they are coroutine functions or block."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")


def awaitable(function: Callable[[Argument], Awaitable[Answer] | Answer]) -> Callable[[Argument], Awaitable[Answer]]:
    """The same function, awaitable: one that is no coroutine function runs in a thread of the event loop's pool."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004 — an object with an async __call__ counts too
        return cast("Callable[[Argument], Awaitable[Answer]]", function)

    @functools.wraps(function)
    async def run_in_thread(argument: Argument) -> Answer:
        answer = await asyncio.to_thread(function, argument)
        if inspect.isawaitable(answer):  # a plain function that hands back a coroutine, such as a lambda or a partial
            answer = await answer
        return cast("Answer", answer)

    return run_in_thread
