"""Iterating over large collections in portions, so that the event loop is never blocked for long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import TypeVar

import anyio.lowlevel

__all__ = ["in_turns"]

_TURN = 500
"""How many mailboxes or wills are looked at in one turn of the loop: less than a millisecond."""

T = TypeVar("T")


async def in_turns(items: Collection[T], most: int = _TURN) -> AsyncIterator[tuple[T, ...]]:
    """Yield the items that there are now, in portions. Other tasks run between two: items may be gone by then."""
    there = tuple(items)
    for first in range(0, len(there), most):
        if first:
            await anyio.lowlevel.checkpoint()
        yield there[first : first + most]
