"""Calling a step's function: in the event loop if it is asynchronous, otherwise in a thread.

Owns which functions are called in a thread, and how many of them at once. A function that blocks would stop the
renewal of leases, and every other handler of the bot.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from ..client.functions import is_async

__all__ = ["STEP_THREADS_MAX", "call_function", "step_threads"]

STEP_THREADS_MAX = 40
"""Functions in threads at once: enough for calls that wait for others, few enough for the machine. As in anyio."""

_threads: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("posthouse_step_threads")


def step_threads() -> anyio.CapacityLimiter:
    """Return the limiter of this event loop's threads for steps; set its `total_tokens` to allow another number.

    A function that was abandoned on asyncio is not counted any more, although its thread runs until it returns.
    """
    try:
        return _threads.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(STEP_THREADS_MAX)
        _threads.set(limiter)
        return limiter


async def call_function(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a function, and await its result if that can be awaited.

    One that is not asynchronous is called in a thread, with the caller's context variables. If this is cancelled,
    it is abandoned: its thread goes on, and what it returns is ignored.
    """
    whole = partial(function, *args, **kwargs)
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    if is_async(inner):
        return await whole()
    # In a list, because trio refuses an awaitable from a thread.
    [result] = await anyio.to_thread.run_sync(lambda: [whole()], abandon_on_cancel=True, limiter=step_threads())
    return await result if inspect.isawaitable(result) else result
