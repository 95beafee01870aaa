"""Which functions of an author's program are asynchronous."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["check_handler", "is_async"]


def is_async(function: Callable[..., Any]) -> bool:
    """Return True if a call gives a coroutine: of an async function, or of an object with such a `__call__`."""
    call = getattr(function, "__call__", None)  # noqa: B004 (an object may be asynchronous by its __call__)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def check_handler(function: Callable[..., Any], what: str, takes: str) -> None:
    """Raise TypeError unless `what`, such as a handler, is async, and can be called with the one thing that it takes.

    Otherwise it would fail for each of them.
    """
    rule = f"{what} must be an async function that takes {takes}"
    if not is_async(function):
        raise TypeError(f"{rule}, not {function!r}")
    try:
        inspect.signature(function, follow_wrapped=False).bind(None)
    except TypeError as error:
        raise TypeError(f"{rule}, and {function!r} does not: {error}") from None
