"""Which functions of an author's program are asynchronous."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["is_async"]


def is_async(function: Callable[..., Any]) -> bool:
    """Return True if a call gives a coroutine: of an async function, or of an object with such a `__call__`."""
    call = getattr(function, "__call__", None)  # noqa: B004 (an object may be asynchronous by its __call__)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
